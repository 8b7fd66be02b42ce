"""The header fields that are read and added: each name, each month, each control character, and the bounds."""

import unicodedata
from base64 import b64encode
from datetime import UTC, datetime

import pytest

from mailrelay.mail import trace


def stamp(content: bytes, now: float = 1.7e9) -> bytes:
    return trace.stamp(content, queue_id="3kQ7x", now=now, message_id=b"<a@b>")


def added(content: bytes) -> tuple[bool, bool]:
    """Whether Date and Message-ID are added."""
    head = stamp(content).removesuffix(content)
    return b"\r\nDate: " in head, b"\r\nMessage-ID: <a@b>\r\n" in head


@pytest.mark.parametrize(
    ("name", "signs"),
    [
        (b"DKIM-Signature", True),
        (b"ARC-Message-Signature", True),
        (b"ARC-Seal", False),
        (b"ARC-Authentication-Results", False),
        (b"DKIM-Signature-X", False),
        (b"Signature", False),
        (b"X", False),
    ],
)
def test_signatures_of_dkim_and_arc_sign_the_absence_of_a_field(name: bytes, signs: bool) -> None:
    content = name + b": a=rsa-sha256; h=From:Date:Message-ID; b=x\r\n\r\n"
    assert added(content) == (not signs, not signs)


@pytest.mark.parametrize(
    ("tags", "signed"),
    [
        (b"h=date", (False, True)),
        (b"h = date ; h=message-id", (False, False)),
        (b"a=b;h=date:from", (False, True)),
        (b"a=b; bh=date", (True, True)),
        (b"ah=date", (True, True)),
        (b"h=", (True, True)),
        (b"h=from;date", (True, True)),
        (b"a=h=date", (True, True)),
        (b"h=xdate:datex", (True, True)),
    ],
)
def test_the_fields_that_a_signature_covers_are_those_of_its_tag_h(tags: bytes, signed: tuple[bool, bool]) -> None:
    assert added(b"DKIM-Signature: " + tags + b"\r\n\r\n") == signed


def trace_date(at: datetime) -> bytes:
    names = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    return f"{days[at.weekday()]}, {at.day} {names[at.month - 1]} {at.year} {at:%H:%M:%S} +0000".encode()


@pytest.mark.parametrize("month", range(1, 13))
def test_every_month_and_weekday_has_its_name(month: int) -> None:
    for day in (1, 2, 3, 4, 5, 6, 7, 28):
        at = datetime(2026, month, day, 1, 2, 3, tzinfo=UTC)
        assert trace_date(at) in stamp(b"\r\n", at.timestamp())
    assert b" 0999 " in stamp(b"\r\n", datetime(999, month, 1, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("content", "is_signed"),
    [
        (b"DKIM-Signature: x\r\n\r\n", True),
        (b"dkim-signature : x\r\n\r\n", True),
        (b"Content-Type: multipart/signed; x\r\n\r\n", True),
        (b"Content-Type: Multipart/SIGNED\r\n\r\n", True),
        (b"From: a\r\nContent-Type:\r\n multipart/signed\r\n\r\n", True),
        (b"Content-Type: multipart/mixed; x=multipart/signed\r\n\r\n", False),
        (b"X-Content-Type: multipart/signed\r\n\r\n", False),
        (b"ARC-Message-Signature: x\r\n\r\n", False),
        (b"\r\nDKIM-Signature: x\r\n\r\n", False),
        (b"From: a\r\n\r\nDKIM-Signature: x\r\n", False),
        (b"", False),
    ],
)
def test_a_message_is_signed_by_dkim_or_as_a_whole(content: bytes, is_signed: bool) -> None:
    assert trace.is_signed(content) is is_signed


def test_a_header_of_the_longest_length_is_read_and_a_longer_one_is_malformed() -> None:
    for end in (b"\r\n\r\n", b""):
        filler = b"X: " + b"x" * (trace.MAX_HEADER - 3 - len(end))
        assert len(filler + end) == trace.MAX_HEADER
        assert added(filler + end) == (True, True)
        assert added(b"X" + filler + end) == (False, False)
        assert added(filler + end + b"body" * bool(end)) == (True, True)
    # The octets beyond the bound are not read.
    early = b"Received: a\r\n" + b"X: " + b"x" * (trace.MAX_HEADER - 20) + b"\r\nReceived: b\r\n\r\n"
    assert trace.count_received(early) == 1


@pytest.mark.parametrize("char", "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
def test_a_subject_has_no_bidirectional_control(char: str) -> None:
    assert unicodedata.category(char) == "Cf"
    assert trace.subject(f"Subject: a{char}b\r\n\r\n".encode()) == "ab"


@pytest.mark.parametrize(
    ("char", "shown"),
    [("\x00", ""), ("\x7f", ""), ("\x85", ""), ("\u2028", ""), ("\u2029", ""), ("\t", " "), ("\u200d", "\u200d")],
)
def test_a_subject_has_no_control_character_and_no_line_end(char: str, shown: str) -> None:
    assert trace.subject(f"Subject: a{char}b\r\n\r\n".encode()) == f"a{shown}b"


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        (b"=?utf-8?Q?a_b?=", "a b"),
        (b"=?UTF-8?q?a?= =?utf-8?Q?=C3?= =?utf-8?q?=A4?=", "aä"),
        (b"=?iso-8859-1?q?=FC?==?utf-8?q?=C3=BC?=", "üü"),
        (b"x =?utf-8?b?w6Q?= y", "x ä y"),
        (b"=?utf-8?b?w6Q=?=", "ä"),
        (b"=?utf-8?b?!?=", ""),
        (b"=?utf-8?b?A?= z", "=?utf-8?b?A?= z"),
        (b"=?utf-8?q?a?=  ", "a"),
        (b"=?utf-8?q??=", ""),
        (b"=?rot13?q?abc?=", "abc"),
        (b"=?no-such-charset?q?=FFa?=", "\ufffda"),
    ],
)
def test_encoded_words_of_a_subject(field: bytes, shown: str) -> None:
    assert trace.subject(b"Subject: " + field + b"\r\n\r\n") == shown


@pytest.mark.parametrize("length", [trace.MAX_SUBJECT - 1, trace.MAX_SUBJECT, trace.MAX_SUBJECT + 1])
def test_a_subject_is_cut_after_its_last_character(length: int) -> None:
    assert trace.subject(b"Subject: " + b"x" * length + b"\r\n\r\n") == "x" * min(length, trace.MAX_SUBJECT)
    spaces = b"x" * (trace.MAX_SUBJECT - 1) + b" " + b"y"
    assert trace.subject(b"Subject: " + spaces + b"\r\n\r\n") == "x" * (trace.MAX_SUBJECT - 1)
    # Each character takes the most octets: a base64 word of its own would still be within the bound.
    assert trace.subject(b"Subject: =?utf-8?q?" + b"=F0=9F=98=80" * 200 + b"?=\r\n\r\n")[:150] == "\U0001f600" * 150


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"<" + b"a" * 900 + b">", True),
        (b"<" + b"a" * 901 + b">", False),
        (b"<a>", True),
        (b"<a\x7f>", False),
        (b"<a<b>", True),
    ],
)
def test_a_message_id_is_bounded(value: bytes, found: bool) -> None:
    assert (trace.message_id(b"X: y\r\nMessage-ID: " + value + b"\r\n\r\n") != b"") is found
    assert trace.message_id(b"X-Message-ID: <a@b>\r\n\r\n") == b""


@pytest.mark.parametrize(
    "line",
    [b"From : a", b"!~: a", b"a:", b"a: b\r\n\tc", b"a: b\r\n c\r\n d"],
)
def test_a_well_formed_field_leaves_the_header_well_formed(line: bytes) -> None:
    assert added(line + b"\r\n\r\n") == (True, True)
    assert added(line + b"\r\n") == (True, True)
    assert added(line) == (True, True)


@pytest.mark.parametrize(
    "line", [b": a", b"a b: c", b"a\x7f: c", b" folded", b"a: b\rc", b"a: b\nc", b"a\r\n: b", b"a"]
)
def test_a_malformed_field_adds_nothing(line: bytes) -> None:
    assert added(line + b"\r\n\r\n") == (False, False)


@pytest.mark.parametrize("length", range(1, 20))
def test_a_word_in_base64_needs_no_padding(length: int) -> None:
    text = "abcdefghijklmnopqrstuvwxyz"[:length]
    encoded = b64encode(text.encode())
    for word in (encoded, encoded.rstrip(b"=")):
        assert trace.subject(b"Subject: =?utf-8?b?" + word + b"?=\r\n\r\n") == text
