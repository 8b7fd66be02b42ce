"""The header fields that are added to a message, and those that are read."""

import pytest

from mailrelay.mail import trace

NOW = 1_700_000_000.0
DATE = b"Tue, 14 Nov 2023 22:13:20 +0000"
RECEIVED = b"Received: by localhost (mailrelay) with ESMTP id 3kQ7x;\r\n\t" + DATE + b"\r\n"
MESSAGE_ID = b"<3kQ7x@mailrelay.invalid>"
WHOLE = b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <a@b>\r\nSubject: hello\r\n\r\nbody\r\n"


def stamp(content: bytes) -> bytes:
    return trace.stamp(content, queue_id="3kQ7x", now=NOW, message_id=MESSAGE_ID)


def test_a_whole_message_gets_one_received_field_and_nothing_else() -> None:
    assert stamp(WHOLE) == RECEIVED + WHOLE


def test_a_missing_date_and_message_id_are_added() -> None:
    content = b"Subject: hello\r\n\r\nDate: in the body\r\nMessage-ID: too\r\n"
    added = b"Date: " + DATE + b"\r\nMessage-ID: " + MESSAGE_ID + b"\r\n"
    assert stamp(content) == RECEIVED + added + content


@pytest.mark.parametrize("content", [b"", b"\r\n", b"\r\nbody\r\n"])
def test_a_message_without_a_header_gets_one(content: bytes) -> None:
    assert b"\r\nDate: " in stamp(content)
    assert stamp(content).endswith(MESSAGE_ID + b"\r\n" + content)


@pytest.mark.parametrize(
    "content",
    [
        b"DATE: x\r\nmessage-id: y\r\n\r\n",
        b"Date:\r\n x\r\nMessage-Id:\r\n\t<y@z>\r\n\r\n",
        b"Date : x\r\nMessage-ID\t: y\r\n\r\n",
        b"Date: x\r\nMessage-ID: y\r\n",
        b"Date: x\r\nMessage-ID: y",
    ],
)
def test_fields_are_found_however_they_are_written(content: bytes) -> None:
    assert stamp(content) == RECEIVED + content


def test_a_date_inside_a_folded_field_is_no_date() -> None:
    content = b"Message-ID: <a@b>\r\nSubject: x\r\n Date: not one\r\n\r\n"
    assert stamp(content) == RECEIVED + b"Date: " + DATE + b"\r\n" + content


@pytest.mark.parametrize(
    "content",
    [
        b"hello, no header here\r\n",
        b"Subject: x\r\nnot a field\r\n\r\n",
        b"From me@example.org Tue Nov 14 22:13:20 2023\r\nSubject: x\r\n\r\n",
        b"Subject: x\nTo: y\n\nbody\n",
        b"Subject: x\ry\r\n\r\n",
        b"X: " + b"x" * trace.MAX_HEADER + b"\r\n\r\n",
    ],
)
def test_a_malformed_header_gets_nothing_but_received(content: bytes) -> None:
    assert stamp(content) == RECEIVED + content


@pytest.mark.parametrize("content", [b" hello\r\n", b"\tSubject: x\r\n\r\n"])
def test_a_first_line_that_looks_folded_does_not_become_part_of_our_field(content: bytes) -> None:
    assert stamp(content) == RECEIVED + b"\r\n" + content


@pytest.mark.parametrize(
    ("h", "date", "message_id"),
    [
        (b"from:date:message-id", False, False),
        (b"From : Date :\r\n\tMessage-ID", False, False),
        (b"from:date", False, True),
        (b"from:to:subject", True, True),
    ],
)
def test_a_field_that_was_signed_as_absent_is_not_added(h: bytes, date: bool, message_id: bool) -> None:
    content = (
        b"DKIM-Signature: v=1; a=rsa-sha256; bh=date=;\r\n\th="
        + h
        + b"; d=example.org; b=message-id\r\nFrom: a@b\r\n\r\n"
    )
    stamped = stamp(content)
    assert stamped.endswith(content)
    assert (b"\r\nDate: " in stamped) is date
    assert (b"\r\nMessage-ID: " in stamped) is message_id


def test_a_signature_without_a_list_of_fields_signs_none() -> None:
    content = b"DKIM-Signature: bh=date; xh=date\r\n\r\n"
    assert b"\r\nDate: " in stamp(content)


def test_the_date_does_not_depend_on_the_locale() -> None:
    assert trace.stamp(WHOLE, queue_id="a", now=0, message_id=b"").startswith(
        b"Received: by localhost (mailrelay) with ESMTP id a;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
    )


def test_only_the_received_fields_of_the_header_are_counted() -> None:
    assert trace.count_received(WHOLE) == 0
    assert trace.count_received(stamp(stamp(WHOLE))) == 2
    assert trace.count_received(b"received: a\r\n\tReceived: folded\r\n\r\nReceived: body\r\n") == 1
    assert trace.count_received(b"Received: a\r\nnot a field\r\nReceived: b\r\n\r\n") == 2


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (WHOLE, b"<a@b>"),
        (b"Message-ID:\r\n <a@b> (comment)\r\n\r\n", b"<a@b>"),
        (b"Message-ID: a@b\r\n\r\n", b""),
        (b"Message-ID: <a b>\r\n\r\n", b""),
        (b"Message-ID: <>\r\n\r\n", b""),
        (b"Message-ID: <a\x07b>\r\n\r\n", b""),
        (b"Subject: x\r\n\r\nMessage-ID: <a@b>\r\n", b""),
    ],
)
def test_a_message_id_is_read_only_where_it_can_be_repeated_in_another_header(content: bytes, found: bytes) -> None:
    assert trace.message_id(content) == found


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        (b"hello", "hello"),
        (b"  two\r\n\tlines ", "two lines"),
        (b"", ""),
        ("grüße".encode(), "grüße"),
        (b"\xff raw", "\ufffd raw"),
        (b"=?utf-8?B?w6TDtsO8?=", "äöü"),
        (b"=?ISO-8859-1?q?gr=FC=DFe_an?= alle", "grüße an alle"),
        (b"=?utf-8*de?q?=C3=A4?=", "ä"),
        (b"=?utf-8?q?a?= =?utf-8?q?b?=\r\n =?iso-8859-1?q?=FC?=", "abü"),
        (b"=?utf-8?b?w6?= =?utf-8?q?b?=", "\ufffdb"),
        (b"=?utf-8?q?=C3?= =?utf-8?q?=A4?=", "ä"),
        (b"=?utf-8?q?a?= b =?utf-8?q?c?=", "a b c"),
        (b"=?utf-8?b?w6TDtw?= =?utf-8?b?A?=", "ä÷=?utf-8?b?A?="),
        (b"=?no-such-charset?q?=C3=A4?=", "ä"),
        (b"=?shift_jis?q?=83A=81?=", "ア\ufffd"),
        (b"=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
        (b"=?utf-8?q?a=0D=0ABcc:_x=00=1B[31m?=", "aBcc: x[31m"),
        ("left\u202eright\u2028\x85.".encode(), "leftright."),
        (b"=?utf-7?q?+2AA-?=", ""),
    ],
)
def test_a_subject_is_decoded_for_people(field: bytes, shown: str) -> None:
    assert trace.subject(b"To: a@b\r\nSubject: " + field + b"\r\n\r\n") == shown


def test_a_message_without_a_subject_has_an_empty_one() -> None:
    assert trace.subject(b"To: a@b\r\n\r\nSubject: body\r\n") == ""


def test_a_long_subject_is_cut() -> None:
    assert trace.subject(b"Subject: " + b"x" * 100_000 + b"\r\n\r\n") == "x" * trace.MAX_SUBJECT
