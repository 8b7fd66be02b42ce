"""The ESMTP parameters of MAIL and RCPT."""

import pytest

from mailrelay.listener.parameters import (
    BadParameter,
    check_body,
    check_envid,
    check_hold_for,
    check_hold_until,
    check_notify,
    check_orcpt,
    check_ret,
    check_size,
    parse_parameters,
)


def test_parameters_are_parsed() -> None:
    assert parse_parameters(b"") == {}
    assert parse_parameters(b"size=10  SMTPUTF8 Ret=Full") == {"SIZE": b"10", "SMTPUTF8": b"", "RET": b"Full"}


@pytest.mark.parametrize(
    "rest", [b"SIZE=", b"=1", b"-A=1", b"A=b=c", b"A=\x01", b"A=1\r\nRCPT", b"A\tB", b"A=1 a=2", b"A_B=1", b"A=\x7f"]
)
def test_an_invalid_list_of_parameters_is_refused(rest: bytes) -> None:
    with pytest.raises(BadParameter) as caught:
        parse_parameters(rest)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", [b"NEVER", b"never", b"SUCCESS", b"FAILURE,delay", b"SUCCESS,FAILURE,DELAY"])
def test_notify_is_kept_as_sent(value: bytes) -> None:
    assert check_notify(value) == value


@pytest.mark.parametrize("value", [b"", b"ALWAYS", b"NEVER,FAILURE", b"SUCCESS,", b",DELAY", b"SUCCESS FAILURE"])
def test_an_invalid_notify_is_refused(value: bytes) -> None:
    with pytest.raises(BadParameter):
        check_notify(value)


@pytest.mark.parametrize(
    ("value", "smtputf8"),
    [
        (b"rfc822;you@example.net", False),
        (b"rfc822;you+2Btag+3Dx@example.net", False),
        (b"x-local;you", False),
        (b"utf-8;you@example.net", False),
        (rb"utf-8;j\x{F6}@example.net", False),
        ("utf-8;jö@example.net".encode(), True),
        (b"rfc822;" + b"x" * 493, False),
    ],
)
def test_orcpt_is_kept_as_sent(value: bytes, smtputf8: bool) -> None:
    assert check_orcpt(value, smtputf8=smtputf8) == value


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"you@example.net",
        b";you",
        b"rfc822;",
        b"rfc 822;you",
        b"rfc822;a+0D+0Ab",
        b"rfc822;a+7Fb",
        b"rfc822;a+2bb",
        b"rfc822;a+",
        b"rfc822;a=b",
        b"rfc822;\xc3\xb6",
        b"utf-8;",
        rb"utf-8;\x{0A}",
        rb"utf-8;\x{202E}",
        rb"utf-8;\x{D800}",
        rb"utf-8;\x{FFFFFF}",
        rb"utf-8;\n",
        b"utf-8;a+b",
        b"utf-8;\xff",
        b"rfc822;" + b"x" * 494,
    ],
)
def test_an_orcpt_that_does_not_decode_to_printable_text_is_refused(value: bytes) -> None:
    with pytest.raises(BadParameter):
        check_orcpt(value, smtputf8=True)


def test_utf8_in_orcpt_needs_smtputf8() -> None:
    with pytest.raises(BadParameter):
        check_orcpt("utf-8;jö@example.net".encode(), smtputf8=False)


def test_the_other_values_are_checked() -> None:
    assert check_size(b"007") == 7
    assert check_body(b"8bitmime") == b"8BITMIME"
    assert check_ret(b"hdrs") == b"HDRS"
    assert check_envid(b"QQ+2B" + b"1" * 95) == b"QQ+2B" + b"1" * 95
    for check, value in (
        (check_size, b"-1"),
        (check_size, b"1" * 21),
        (check_size, "١".encode()),
        (check_body, b"BINARYMIME"),
        (check_ret, b""),
        (check_envid, b""),
        (check_envid, b"x" * 101),
        (check_envid, b"+0A"),
    ):
        with pytest.raises(BadParameter):
            check(value)


NOW = 1_780_000_000.0
"""2026-05-28T20:26:40Z."""


@pytest.mark.parametrize(
    ("value", "at"),
    [
        (b"2026-05-28T20:26:41Z", NOW + 1),
        (b"2026-05-28t20:26:41.5z", NOW + 1),
        (b"2026-05-28T22:56:41+02:30", NOW + 1),
        (b"2026-05-28T17:56:41-02:30", NOW + 1),
        (b"2026-06-30T23:59:60Z", NOW + 33 * 86_400 + 12_799),
    ],
)
def test_a_date_and_time_is_read_with_its_offset(value: bytes, at: float) -> None:
    assert check_hold_until(value, NOW).at == at


@pytest.mark.parametrize(
    "value",
    [
        b"2026-05-28T20:26:39Z",
        b"2026-06-01T08:00:00",
        b"2026-06-01T08:00:00+0200",
        b"2026-06-01T08:00:00+09:60",
        b"2026-06-01T08:00:00+25:00",
        b"2026-06-01T25:00:00Z",
        b"2026-06-31T08:00:00Z",
        b"2026-06-01 08:00:00Z",
        b"2028-01-01T00:00:00Z",
        b"",
    ],
)
def test_a_date_and_time_that_does_not_exist_or_has_passed_is_refused(value: bytes) -> None:
    with pytest.raises(BadParameter):
        check_hold_until(value, NOW)


def test_hold_for_is_a_number_of_seconds_up_to_a_year() -> None:
    assert check_hold_for(b"1", NOW).at == NOW + 1
    assert check_hold_for(b"31536000", NOW).at == NOW + 31_536_000
    for value in (b"0", b"01", b"31536001", b"-1", b"1.5", b"1s", b"9999999999", b""):
        with pytest.raises(BadParameter):
            check_hold_for(value, NOW)
