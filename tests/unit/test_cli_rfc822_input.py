"""A message as programs pipe it into sendmail(1): line ends, the lone dot, the header."""

import re
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.cli import rfc822_input
from mailrelay.cli.rfc822_input import Unfit, parse, take_recipients, with_field

LIMIT = 10_000


def read(octets: bytes, *, dot_ends: bool = False, limit: int = LIMIT) -> bytes:
    return rfc822_input.read(BytesIO(octets), limit, dot_ends=dot_ends)


@pytest.mark.parametrize(
    ("given_octets", "content"),
    [
        (b"", b""),
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\nb\r\nc", b"a\r\nb\r\nc\r\n"),
        (b"10%\r20%\r\n", b"10%\r\n20%\r\n"),
        (b"a\r", b"a\r\n"),
        (b"\n\n", b"\r\n\r\n"),
        (b"a\n.\nb\n", b"a\r\n.\r\nb\r\n"),
        (b"..\n.a\n", b"..\r\n.a\r\n"),
    ],
)
def test_every_line_ends_with_crlf_and_nothing_else_changes(given_octets: bytes, content: bytes) -> None:
    assert read(given_octets) == content


@pytest.mark.parametrize(
    ("given_octets", "content"),
    [
        (b"a\n.\nb\n", b"a\r\n"),
        (b"a\r\n.\r\nb\r\n", b"a\r\n"),
        (b".\n", b""),
        (b"a\n.", b"a\r\n"),
        (b"a\n..\n.b\n .\n. \n", b"a\r\n..\r\n.b\r\n .\r\n. \r\n"),
    ],
)
def test_a_dot_alone_ends_the_message_and_no_other_dot_does(given_octets: bytes, content: bytes) -> None:
    assert read(given_octets, dot_ends=True) == content


def test_a_dot_where_a_long_line_was_read_in_pieces_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rfc822_input, "PIECE", 4)
    assert read(b"abcd.\nx\n", dot_ends=True) == b"abcd.\r\nx\r\n"


@given(
    st.lists(st.binary(max_size=20).filter(lambda line: not set(line) & {0, 10, 13})), st.sampled_from([b"\n", b"\r\n"])
)
def test_lines_come_out_as_they_went_in(lines: list[bytes], end: bytes) -> None:
    octets = b"".join(line + end for line in lines)
    assert read(octets) == b"".join(line + b"\r\n" for line in lines)


def test_what_is_too_large_or_holds_a_nul_is_refused() -> None:
    assert read(b"x" * 8, limit=10) == b"x" * 8 + b"\r\n"
    for octets in (b"x" * 9, b"x" * 11, b"\n" * 6):
        with pytest.raises(Unfit, match=r"listen\.max_message_size"):
            read(octets, limit=10)
    with pytest.raises(Unfit, match="NUL"):
        read(b"a\0b\n")


def test_of_an_endless_input_no_more_is_read_than_may_be() -> None:
    class Endless(BytesIO):
        pieces = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            self.pieces += 1
            assert size is not None
            return b"x" * size

    endless = Endless()
    with pytest.raises(Unfit):
        rfc822_input.read(endless, 5 * rfc822_input.PIECE, dot_ends=True)
    assert endless.pieces == 6


@pytest.mark.parametrize(
    ("content", "same"),
    [
        (b"A: b\r\n\r\nbody\r\n", b"A: b\r\n\r\nbody\r\n"),
        (b"A: b\r\n c\r\n\tD: e\r\nF : g\r\n\r\n x: y\r\n", b"A: b\r\n c\r\n\tD: e\r\nF : g\r\n\r\n x: y\r\n"),
        (b"A: b\r\n", b"A: b\r\n\r\n"),
        (b"", b"\r\n"),
        (b"hello\r\nA: b\r\n", b"\r\nhello\r\nA: b\r\n"),
        (b" A: b\r\n", b"\r\n A: b\r\n"),
        (b"A: b\r\nhello\r\n", b"A: b\r\n\r\nhello\r\n"),
        (b"From me@x Thu Jan  1 00:00:00 1970\r\nA: b\r\n\r\nx\r\n", b"A: b\r\n\r\nx\r\n"),
    ],
)
def test_a_header_ends_where_no_field_stands_and_the_rest_is_body(content: bytes, same: bytes) -> None:
    assert parse(content).content == same


@given(st.one_of(st.binary(), st.text("Aa: \t\n").map(str.encode)))
def test_nothing_of_any_content_is_lost_and_no_more_than_an_empty_line_is_added(octets: bytes) -> None:
    content = read(octets.replace(b"\0", b""))
    once = parse(content)
    # But for the line that mailboxes put above each message.
    content = re.sub(rb"\AFrom [^\r\n]*\r\n", b"", content)
    header = b"".join(field.whole for field in once.fields)
    assert once.rest.startswith(b"\r\n")
    assert content in (header + once.rest, header + once.rest[2:])
    assert parse(once.content).content == once.content


def test_recipients_are_those_of_to_cc_and_bcc_and_only_bcc_goes() -> None:
    header = b'bCC: eve@x.example,\r\n  "M, M" <m@x.example>\r\nTo: bob@x.example\r\nX-To: no@x.example\r\nCc:\r\n'
    content = header + b"\r\nBcc: b@x\r\n"
    taken, found = take_recipients(parse(content))
    assert found == [b"eve@x.example", b"m@x.example", b"bob@x.example"]
    assert taken.content == b"To: bob@x.example\r\nX-To: no@x.example\r\nCc:\r\n\r\nBcc: b@x\r\n"


def test_a_message_that_is_sent_again_goes_to_whom_it_is_sent_again() -> None:
    content = b"Resent-To: bob@x.example\r\nResent-Bcc: eve@x.example\r\nTo: old@x.example\r\nBcc: o@x.example\r\n\r\n"
    taken, found = take_recipients(parse(content))
    assert found == [b"bob@x.example", b"eve@x.example"]
    assert taken.content == b"Resent-To: bob@x.example\r\nTo: old@x.example\r\n\r\n"


def test_a_field_is_added_at_the_end_of_the_header() -> None:
    assert with_field(parse(b"A: b\r\n\r\nx\r\n"), b"From", b"me").content == b"A: b\r\nFrom: me\r\n\r\nx\r\n"
    assert with_field(parse(b"x\r\n"), b"From", b"me").content == b"From: me\r\n\r\nx\r\n"
    assert with_field(parse(b""), b"From", b"me").has(b"from")
