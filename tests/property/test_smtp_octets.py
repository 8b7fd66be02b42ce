"""Replies and content, however the octets are cut."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.mail.outcome import Reply
from mailrelay.smtp.content import BareNewline, LineEnds, Stuffer
from mailrelay.smtp.reply import MalformedReply, ReplyParser

REPLIES = st.lists(
    st.builds(
        Reply,
        st.integers(200, 599),
        st.lists(
            st.binary(min_size=1, max_size=9).map(lambda b: b.replace(b"\n", b".").replace(b"\r", b".")), min_size=1
        ).map(tuple),
    ),
    max_size=6,
)
CUTS = st.lists(st.integers(0, 500), max_size=8)
PIECES = st.lists(st.sampled_from([b"\r\n", b"\r\n", b".", b"a", b"\r\n.", b"\xff"]), max_size=40).map(b"".join)
BROKEN = st.lists(st.sampled_from([b"\r\n", b".", b"a", b"\r", b"\n"]), max_size=12).map(b"".join)


def cut(octets: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({min(c, len(octets)) for c in cuts} | {0, len(octets)})
    return [octets[a:b] for a, b in itertools.pairwise(places)]


def on_the_wire(reply: Reply) -> bytes:
    *first, last = reply.lines
    return b"".join(b"%d-%b\r\n" % (reply.code, line) for line in first) + b"%d %b\r\n" % (reply.code, last)


@given(REPLIES, CUTS)
def test_replies_come_out_as_they_were_sent(replies: list[Reply], cuts: list[int]) -> None:
    parser = ReplyParser()
    octets = b"".join(map(on_the_wire, replies))
    assert [reply for piece in cut(octets, cuts) for reply in parser.feed(piece)] == replies


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"250 ok\r\n", b"250-", b"421 bye\n", b"2", b"\r\n"])))
def test_every_sequence_of_octets_is_replies_or_malformed(pieces: list[bytes]) -> None:
    parser = ReplyParser()
    try:
        for piece in pieces:
            assert all(200 <= reply.code <= 599 for reply in parser.feed(piece))
    except MalformedReply:
        pass


def received(wire: bytes) -> bytes:
    """What a receiver makes of it, line by line (RFC 5321 section 4.5.2)."""
    content = b""
    while not wire.startswith(b".\r\n"):
        line, _, wire = wire.partition(b"\r\n")
        content += line.removeprefix(b".") + b"\r\n"
    assert wire == b".\r\n", "something follows the final dot"
    return content


@given(PIECES, CUTS)
def test_a_receiver_of_data_gets_the_content_and_nothing_behind_it(content: bytes, cuts: list[int]) -> None:
    stuffer = Stuffer()
    wire = b"".join(map(stuffer.feed, cut(content, cuts))) + stuffer.end()
    whole = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    assert received(wire) == whole


@given(BROKEN, CUTS, st.sampled_from([Stuffer, LineEnds]))
def test_no_bare_cr_or_lf_is_sent(content: bytes, cuts: list[int], encoder: type[Stuffer | LineEnds]) -> None:
    line_ends = encoder()
    out = b""
    bare = b"\r" in content.replace(b"\r\n", b"") or b"\n" in content.replace(b"\r\n", b"")
    if bare:
        with pytest.raises(BareNewline):
            for piece in cut(content, cuts):
                out += line_ends.feed(piece)
            line_ends.end()
    else:
        out = b"".join(map(line_ends.feed, cut(content, cuts))) + line_ends.end()
    rest = out.replace(b"\r\n", b"")
    assert b"\r" not in rest
    assert b"\n" not in rest
