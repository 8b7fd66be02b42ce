"""A message as programs pipe it into sendmail(1): line ends, the lone dot, the header."""

import re
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.cli import rfc822_input
from mailrelay.cli.rfc822_input import TooLarge, parse, recipient_values, with_field, without_bcc

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
        (b"10%\r20%: done\n", b"10%\r\n20%: done\r\n"),
        (b"a\r\r\n\r\r\rb\n\r", b"a\r\n\r\n\r\n\r\nb\r\n\r\n"),
        (b"a\0b\n", b"a\0b\r\n"),
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


@pytest.mark.parametrize(
    ("header", "content"),
    [
        # In the value: a blank, as in Postfix.
        (b"A: host\rstatus OK\n", b"A: host status OK\r\n"),
        (b"A: a\r\rb\rc\n", b"A: a  b c\r\n"),
        (b"A: a\rBcc: b\n", b"A: a Bcc: b\r\n"),
        (b"A: a,\r b\n", b"A: a,  b\r\n"),
        # Before the colon and at the beginning of the line: nothing.
        (b"A\r: b\n", b"A: b\r\n"),
        (b"Sub\rject\r \r: b\n", b"Subject : b\r\n"),
        (b"\rA: b\n\r\rC: d\n", b"A: b\r\nC: d\r\n"),
        # With the LF: one line end.
        (b"A: b\r\r\nC: d\r\nE: f\n", b"A: b\r\nC: d\r\nE: f\r\n"),
        (b"A: b\r\n c\r\r\n\td\n\r e\n", b"A: b\r\n c\r\n\td\r\n e\r\n"),
        (b"From me\r Thu\r\r\nA: b\r\r\n", b"From me  Thu\r\nA: b\r\n"),
        (b"From me\n>From you\r\r\nA: b\r\r\n", b"From me\r\n>From you\r\nA: b\r\n"),
        # Other control characters in the name: nothing.
        (b"A\x0b: b\nX-1\f :c\n", b"A: b\r\nX-1 :c\r\n"),
        (b"\x1bBc\x08c\x7f: b\x1b\n", b"Bcc: b\x1b\r\n"),
        (b"\0Sub\0ject\0 : a\0b\n\0c\n", b"Subject : a\0b\r\n\0c\r\n"),
        (b"B\r\0cc: b\n", b"Bcc: b\r\n"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"\n", b"\r\r\nbody\n"])
def test_no_cr_ends_a_header_line(header: bytes, content: bytes, body: bytes) -> None:
    assert read(header + body) == content + body.replace(b"\r\r\n", b"\n").replace(b"\n", b"\r\n")


@pytest.mark.parametrize("piece", [b"\r", b"\n", b"a\r", b"a: \r", b" \r", b"\r\r\n"])
def test_any_line_ends_are_read_in_time_that_grows_with_their_number(piece: bytes) -> None:
    # The suite's own limit of time is what fails here.
    for before in (b"", b"A: b\n", b"A: b\n\n"):
        assert read(before + piece * 300_000, limit=10**8).endswith(b"\r\n")


def test_what_is_too_large_is_refused_and_its_beginning_is_known() -> None:
    assert read(b"x" * 8, limit=10) == b"x" * 8 + b"\r\n"
    for octets in (b"x" * 9, b"x" * 11, b"\n" * 6):
        with pytest.raises(TooLarge, match="larger than 10 octets"):
            read(octets, limit=10)
    with pytest.raises(TooLarge) as error:
        read(b"To: alice@example.org\nCc: bob@exam", limit=25)
    assert error.value.beginning == b"To: alice@example.org\r\n"


def test_of_an_endless_input_no_more_is_read_than_may_be() -> None:
    class Endless(BytesIO):
        pieces = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            self.pieces += 1
            assert size is not None
            return b"x" * size

    endless = Endless()
    with pytest.raises(TooLarge):
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
        (b"From me\r\n>From you\r\n>From x\r\nA: b\r\n>From y\r\n", b"A: b\r\n\r\n>From y\r\n"),
        (b">From me\r\nA: b\r\n", b"\r\n>From me\r\nA: b\r\n"),
    ],
)
def test_a_header_ends_where_no_field_stands_and_the_rest_is_body(content: bytes, same: bytes) -> None:
    assert parse(content).content == same


@given(st.one_of(st.binary(), st.text("Aa: \t\n").map(str.encode)))
def test_nothing_of_any_content_is_lost_and_no_more_than_an_empty_line_is_added(octets: bytes) -> None:
    content = read(octets.replace(b"\0", b""))
    once = parse(content)
    # But for the lines that mailboxes put above each message.
    content = re.sub(rb"\AFrom [^\r\n]*\r\n(>From [^\r\n]*\r\n)*", b"", content)
    header = b"".join(field.whole for field in once.fields)
    assert once.rest.startswith(b"\r\n")
    assert content in (header + once.rest, header + once.rest[2:])
    assert parse(once.content).content == once.content


def test_recipients_are_those_of_to_cc_and_bcc_and_only_bcc_goes() -> None:
    header = b'bCC: eve@x.example,\r\n  "M, M" <m@x.example>\r\nTo: bob@x.example\r\nX-To: no@x.example\r\nCc:\r\n'
    message = parse(header + b"\r\nBcc: b@x\r\n")
    assert recipient_values(message) == [
        b' eve@x.example,\r\n  "M, M" <m@x.example>\r\n',
        b" bob@x.example\r\n",
        b"\r\n",
    ]
    assert without_bcc(message).content == b"To: bob@x.example\r\nX-To: no@x.example\r\nCc:\r\n\r\nBcc: b@x\r\n"


def test_a_nul_in_an_address_counts_for_nothing() -> None:
    assert recipient_values(parse(read(b"To: a\0@x.example\0\nBcc: \0\n\nx\n"))) == [b" a@x.example\r\n", b" \r\n"]


def test_a_message_that_is_sent_again_goes_to_whom_it_is_sent_again() -> None:
    message = parse(
        b"Resent-To: bob@x.example\r\nResent-Bcc: eve@x.example\r\nTo: old@x.example\r\nBcc: o@x.example\r\n\r\n"
    )
    assert recipient_values(message) == [b" bob@x.example\r\n", b" eve@x.example\r\n"]
    assert without_bcc(message).content == b"Resent-To: bob@x.example\r\nTo: old@x.example\r\n\r\n"


FIELDS = st.lists(
    st.tuples(
        st.sampled_from([b"To", b"Cc", b"Bcc", b"Subject", b"From", b"Resent-Bcc", b"X-Loop"]),
        st.lists(st.sampled_from([b"a@b.example", b"word", b"B: c", b"\xfc", b"\xe2\x82\xac"]), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=6,
)
LINE_END = st.sampled_from([b"\n", b"\r\n", b"\r\r\n", b"\r\r\r\n"])
STRAY = st.sampled_from([b"", b"", b"\r", b"\r\r"])


@given(FIELDS, st.data())
def test_every_field_survives_every_mixture_of_line_ends_and_no_bcc_is_left(
    fields: list[tuple[bytes, list[bytes]]], data: st.DataObject
) -> None:
    octets = b""
    for name, words in fields:
        # CRs at the beginning of the line, within the name, before the colon, in the value, in folds, before the line end.
        at = data.draw(st.integers(0, len(name)))
        octets += data.draw(STRAY) + name[:at] + data.draw(STRAY) + name[at:] + data.draw(STRAY) + b":"
        for word in words:
            fold = data.draw(LINE_END) if data.draw(st.booleans()) else b""
            octets += fold + data.draw(STRAY) + b" " + data.draw(STRAY) + word + data.draw(STRAY)
        octets += data.draw(LINE_END)
    octets += data.draw(LINE_END) + b"Bcc: body\n"
    content = read(octets)
    assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n")
    message = parse(content)
    assert [field.name for field in message.fields] == [name.lower() for name, _ in fields]
    assert [field.value.split() for field in message.fields] == [b" ".join(words).split() for _, words in fields]
    assert message.rest == b"\r\nBcc: body\r\n"
    left = without_bcc(message)
    assert not left.has(b"bcc")
    assert not left.has(b"resent-bcc")
    assert parse(left.content) == left
    taken = [field.value for field in message.fields if field.name in (b"to", b"cc", b"bcc")]
    if not any(name == b"Resent-Bcc" for name, _ in fields):
        assert recipient_values(message) == taken


def test_a_field_is_added_at_the_end_of_the_header() -> None:
    assert with_field(parse(b"A: b\r\n\r\nx\r\n"), b"From", b"me").content == b"A: b\r\nFrom: me\r\n\r\nx\r\n"
    assert with_field(parse(b"x\r\n"), b"From", b"me").content == b"From: me\r\n\r\nx\r\n"
    assert with_field(parse(b""), b"From", b"me").has(b"from")
