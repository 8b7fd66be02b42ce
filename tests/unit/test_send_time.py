"""When a message is to be sent: the values of `sendmail --in` and `--at`, of HOLDFOR and HOLDUNTIL, and of queue.undo."""

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from mailrelay.cli import send_time
from mailrelay.cli.send_time import BadTime
from mailrelay.listener.parameters import BadParameter, check_hold_for, check_hold_until, future_release
from mailrelay.mail.send_time import MAX_WAIT, SendTime, effective_send_time

BERLIN = ZoneInfo("Europe/Berlin")
# A Wednesday.
NOW = datetime(2026, 11, 25, 10, 30, 20, tzinfo=BERLIN).timestamp()


def meant(value: str, now: float = NOW) -> str:
    found = send_time.parse_at(value, now, BERLIN)
    assert found.by_clock
    return f"{datetime.fromtimestamp(found.at, BERLIN):%a %Y-%m-%d %H:%M:%S %z}"


@pytest.mark.parametrize(
    ("value", "is_sent"),
    [
        ("11:00", "Wed 2026-11-25 11:00:00 +0100"),
        ("8:00", "Thu 2026-11-26 08:00:00 +0100"),
        ("08:00:05", "Thu 2026-11-26 08:00:05 +0100"),
        ("10:30:20", "Thu 2026-11-26 10:30:20 +0100"),
        ("today 23:59", "Wed 2026-11-25 23:59:00 +0100"),
        ("tomorrow 8:00", "Thu 2026-11-26 08:00:00 +0100"),
        ("  Tomorrow   08:00 ", "Thu 2026-11-26 08:00:00 +0100"),
        ("monday 9:00", "Mon 2026-11-30 09:00:00 +0100"),
        ("MON 9:00", "Mon 2026-11-30 09:00:00 +0100"),
        ("wednesday 11:00", "Wed 2026-11-25 11:00:00 +0100"),
        ("wed 9:00", "Wed 2026-12-02 09:00:00 +0100"),
        ("2026-12-01 08:00", "Tue 2026-12-01 08:00:00 +0100"),
        ("2026-12-01T08:00", "Tue 2026-12-01 08:00:00 +0100"),
        ("2026-12-01T08:00:00Z", "Tue 2026-12-01 09:00:00 +0100"),
        ("2026-12-01T08:00:00.123z", "Tue 2026-12-01 09:00:00 +0100"),
        ("2026-12-01T08:00:00-05:00", "Tue 2026-12-01 14:00:00 +0100"),
        # As `queue show` prints it.
        ("2026-12-01 08:00:00 +0900", "Tue 2026-12-01 00:00:00 +0100"),
        ("2027-07-01 08:00", "Thu 2027-07-01 08:00:00 +0200"),
    ],
)
def test_a_time_is_the_next_one_that_fits(value: str, is_sent: str) -> None:
    assert meant(value) == is_sent


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("today 8:00", "has passed"),
        ("2026-11-25 10:30", "has passed"),
        ("2026-11-25 09:30:20Z", "has passed"),
        ("1970-01-01 00:00", "has passed"),
        ("2027-12-01 08:00", "more than 365 days ahead"),
        ("9999-12-31T23:59:59Z", "more than 365 days ahead"),
        ("2026-02-30 08:00", "not a time that exists"),
        ("0000-12-01 08:00", "not a time that exists"),
        ("25:00", "not a time that exists"),
        ("8:60", "not a time that exists"),
        ("someday 8:00", "is not a time;"),
        ("8:00Z", "not a time that exists"),
        ("monday 8:00Z", "not a time that exists"),
        ("2026-12-01 08:00 +9900", "not a time that exists"),
        ("2026-12-01 08:00 +0960", "is not a time;"),
        *(
            (value, "is not a time;")
            for value in ("", " ", "8", "tomorrow", "monday", "8:00 tomorrow", "8am", "10m", "-8:00")
        ),
        *(
            (value, "is not a time;")
            for value in ("now", "2026-12-01", "12/01/2026 8:00", "٨:٠٠", "8:00\n8:00", "x" * 9999)
        ),
    ],
)
def test_what_is_no_time_in_the_future_is_an_error(value: str, why: str) -> None:
    with pytest.raises(BadTime, match=why) as caught:
        send_time.parse_at(value, NOW, BERLIN)
    assert str(caught.value).isprintable()


def test_a_time_in_the_gap_of_daylight_saving_time_is_the_end_of_the_gap() -> None:
    before = datetime(2026, 3, 28, 12, 0, tzinfo=BERLIN).timestamp()
    for value in ("tomorrow 2:00", "tomorrow 2:30", "2026-03-29 02:59:59", "sunday 2:15"):
        assert meant(value, before) == "Sun 2026-03-29 03:00:00 +0200"
    assert meant("tomorrow 1:59:59", before) == "Sun 2026-03-29 01:59:59 +0100"
    assert meant("tomorrow 3:00", before) == "Sun 2026-03-29 03:00:00 +0200"
    # The gap is over: the next time that fits is that of the next day.
    behind = datetime(2026, 3, 29, 3, 0, tzinfo=BERLIN).timestamp()
    assert meant("2:30", behind) == "Mon 2026-03-30 02:30:00 +0200"


def test_of_a_time_that_comes_twice_the_first_that_has_not_passed_is_meant() -> None:
    before = datetime(2026, 10, 25, 1, 0, tzinfo=BERLIN).timestamp()
    assert meant("2:30", before) == "Sun 2026-10-25 02:30:00 +0200"
    between = datetime(2026, 10, 25, 2, 45, tzinfo=BERLIN).timestamp()
    assert meant("2:30", between) == "Sun 2026-10-25 02:30:00 +0100"
    assert meant("today 2:30", between + 3600 - 60 * 20) == "Sun 2026-10-25 02:30:00 +0100"


@pytest.mark.parametrize(
    ("value", "seconds"), [("10m", 600), ("1s", 1), ("1.5h", 5400), ("2d", 172_800), ("52w", 52 * 604_800)]
)
def test_a_length_of_time_counts_from_now(value: str, seconds: float) -> None:
    assert send_time.parse_in(value, NOW) == SendTime(NOW + seconds, by_clock=False)


@pytest.mark.parametrize("value", ["", "0s", "-1m", "10", "m", "10 m", "53w", "8:00", "1e9s", "tomorrow", "10m\n"])
def test_what_is_no_length_of_time_is_an_error(value: str) -> None:
    with pytest.raises(BadTime, match="--in") as caught:
        send_time.parse_in(value, NOW)
    assert str(caught.value).isprintable()


def test_hold_for_is_seconds_from_now() -> None:
    assert check_hold_for(b"600", NOW) == SendTime(NOW + 600, by_clock=False)
    assert check_hold_for(b"%d" % MAX_WAIT, NOW).at == NOW + MAX_WAIT


@pytest.mark.parametrize("value", [b"", b"0", b"-1", b"+5", b"1.5", b"007", b"10m", b"31536001", b"9" * 30, b"\xb2"])
def test_a_wrong_hold_for_is_refused(value: bytes) -> None:
    with pytest.raises(BadParameter, match="HOLDFOR"):
        check_hold_for(value, NOW)


@pytest.mark.parametrize(
    ("value", "hour"),
    [
        (b"2026-12-01T08:00:00Z", 8),
        (b"2026-12-01t08:00:00z", 8),
        (b"2026-12-01T08:00:00.250Z", 8),
        (b"2026-12-01T08:00:00+02:00", 6),
        (b"2026-12-01T08:00:00-02:00", 10),
    ],
)
def test_hold_until_is_a_time_of_the_clock(value: bytes, hour: int) -> None:
    expected = datetime(2026, 12, 1, hour, tzinfo=UTC).timestamp()
    assert check_hold_until(value, NOW) == SendTime(expected, by_clock=True)


def test_a_leap_second_is_a_time() -> None:
    assert (
        check_hold_until(b"2026-12-31T23:59:60Z", NOW).at == datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    )


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"600",
        b"2026-12-01",
        b"2026-12-01T08:00Z",
        b"2026-12-01T08:00:00",
        b"2026-12-01T08:00:00+0200",
        b"2026-12-01T24:00:00Z",
        b"2026-02-30T08:00:00Z",
        b"2026-12-01T08:00:00+24:00",
        b"2026-11-25T09:30:20Z",
        b"2027-12-01T08:00:00Z",
        b"9999-12-31T23:59:59-23:59",
        b"0000-01-01T00:00:00Z",
        b"\xd9\xa22026-12-01T08:00:00Z",
    ],
)
def test_a_wrong_hold_until_is_refused(value: bytes) -> None:
    with pytest.raises(BadParameter, match="HOLDUNTIL"):
        check_hold_until(value, NOW)


def test_the_greatest_values_that_are_offered_are_accepted() -> None:
    keyword, longest, latest = future_release(NOW).split()
    assert keyword == "FUTURERELEASE"
    assert check_hold_for(longest.encode(), NOW).at == check_hold_until(latest.encode(), NOW).at == NOW + MAX_WAIT


GIVEN = SendTime(NOW + 60, by_clock=True)


@pytest.mark.parametrize(
    ("given", "undo", "found"),
    [
        (None, 0.0, None),
        (None, 10.0, SendTime(NOW + 10, by_clock=False)),
        (GIVEN, 0.0, GIVEN),
        (GIVEN, 10.0, GIVEN),
        (GIVEN, 300.0, SendTime(NOW + 300, by_clock=False)),
        (SendTime(NOW, by_clock=True), 0.0, None),
        (SendTime(NOW - 1, by_clock=True), 10.0, SendTime(NOW + 10, by_clock=False)),
    ],
)
def test_a_message_waits_for_its_time_and_for_undo(given: SendTime | None, undo: float, found: SendTime | None) -> None:
    assert effective_send_time(given, undo, NOW) == found


def test_a_send_time_is_shown_as_local_time_with_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX-9")
        time.tzset()
        shown = SendTime(NOW, by_clock=True).text
    time.tzset()
    assert shown == "2026-11-25 18:30:20 +0900"
