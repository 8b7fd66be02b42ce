"""The receiver of content, compared with a simple implementation of the RFC, however the octets are cut."""

import itertools
import re

from hypothesis import example, given
from hypothesis import strategies as st

from mailrelay.listener import replies
from mailrelay.listener.content import MAX_KEPT, ContentReceiver

OCTETS = st.lists(
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b".", b"a", b"\r", b"\n", b"\r\n.\r\n", b"\xff"]), max_size=30
)
CLEAN = st.lists(st.sampled_from([b"\r\n", b".", b"a", b"..", b"\xc3\xa4", b"\r\n."]), max_size=40).map(b"".join)


def feed(receiver: ContentReceiver, octets: bytes, cuts: list[int]) -> bytes | None:
    """Give `octets` in the pieces that `cuts` make; what came behind the end is put together again."""
    places = sorted({cut % (len(octets) + 1) for cut in cuts} | {0, len(octets)})
    for start, stop in itertools.pairwise(places):
        leftover = receiver.feed(octets[start:stop])
        if leftover is not None:
            return leftover + octets[stop:]
    return None


def stuffed(content: bytes) -> bytes:
    """RFC 5321 section 4.5.2, line by line."""
    return b"".join(b"." + line if line.startswith(b".") else line for line in content.splitlines(keepends=True))


@given(CLEAN, st.lists(st.integers(0, 200)), st.binary(max_size=5))
def test_clean_content_comes_out_as_it_was_and_nothing_behind_its_end_is_lost(
    text: bytes, cuts: list[int], behind: bytes
) -> None:
    content = text + b"\r\n"
    receiver = ContentReceiver(1000)
    assert feed(receiver, stuffed(content) + b".\r\n" + behind, cuts) == behind
    assert receiver.refusal is None
    assert receiver.content() == content


@given(OCTETS.map(b"".join), st.lists(st.integers(0, 200)))
@example(b"a\r\n.\ra", [5])
@example(b"a\r\n.\r\n", [5])
@example(b"a\n.\r\n", [2, 3, 4])
def test_the_result_does_not_depend_on_where_the_octets_are_cut(octets: bytes, cuts: list[int]) -> None:
    whole, cut = ContentReceiver(1000), ContentReceiver(1000)
    leftover = feed(whole, octets, [])
    leftover_of_cut = feed(cut, octets, cuts)
    assert (leftover is None) == (leftover_of_cut is None)
    # A CR at the very end of what has come may yet become a CRLF.
    if leftover is not None:
        assert whole.refusal == cut.refusal
        assert whole.ambiguous == cut.ambiguous
    if leftover is not None and not whole.ambiguous:
        assert leftover == leftover_of_cut
        assert whole.content() == cut.content()


@given(OCTETS.map(b"".join), st.lists(st.integers(0, 200)))
def test_what_is_accepted_has_no_bare_line_end_and_no_lone_dot_is_left_in_doubt(octets: bytes, cuts: list[int]) -> None:
    receiver = ContentReceiver(1000)
    leftover = feed(receiver, octets, cuts)
    bare = re.compile(rb"\r(?!\n)|(?<!\r)\n")
    if leftover is not None and receiver.refusal is None:
        content = receiver.content()
        assert not bare.search(content)
        received = octets[: len(octets) - len(leftover)].removesuffix(b".\r\n")
        assert content == re.sub(rb"(?:(?<=\r\n)|\A)\.", b"", received)
    elif leftover is not None:
        assert receiver.refusal == replies.BARE_LINE_END
        assert bare.search(octets)
    else:
        assert not (b"\r\n" + octets).count(b"\r\n.\r\n")


@given(st.integers(1, 60), st.lists(st.integers(0, 200)))
def test_the_size_limit_is_exact_and_does_not_count_transparency(dots: int, cuts: list[int]) -> None:
    content = b".\r\n" * dots
    for limit, refusal in ((len(content), None), (len(content) - 1, replies.too_big(len(content) - 1))):
        receiver = ContentReceiver(limit)
        assert feed(receiver, stuffed(content) + b".\r\n", cuts) == b""
        assert receiver.refusal == refusal


@given(CLEAN, st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=60))
@example(b"\r\n" * 30, [(1, True)] * 60)
@example(b".\r\n.", [(1, True)] * 9)
def test_content_that_is_taken_while_it_comes_is_the_same_content_and_little_stays_behind(
    text: bytes, steps: list[tuple[int, bool]]
) -> None:
    content = text + b"\r\n"
    rest = stuffed(content) + b".\r\n"
    receiver = ContentReceiver(1000)
    taken = b""
    for octets, takes in steps:
        if receiver.feed(rest[:octets]) is not None:
            break
        rest = rest[octets:]
        if takes:
            taken += receiver.take(1000)
            assert receiver.held <= MAX_KEPT
    else:
        assert receiver.feed(rest) == b""
    assert receiver.refusal is None
    assert taken + receiver.content() == content


@given(CLEAN, st.integers(0, 40), st.booleans())
def test_a_nul_is_refused_wherever_it_stands(text: bytes, at: int, takes: bool) -> None:
    receiver = ContentReceiver(1000)
    receiver.feed(text[:at])
    if takes:
        receiver.take(1000)
    assert receiver.feed(b"\0" + text[at:] + b"\r\n.\r\n") is not None
    assert receiver.refusal is not None


@given(CLEAN, st.integers(0, 60))
def test_what_is_taken_up_to_a_limit_leaves_little_of_it_behind(text: bytes, limit: int) -> None:
    content = text + b"\r\n"
    receiver = ContentReceiver(1000)
    assert receiver.feed(stuffed(content) + b".\r\n") == b""
    taken = receiver.take(limit)
    assert len(taken) <= limit
    assert taken + receiver.content() == content


@given(CLEAN, st.binary(min_size=1, max_size=9))
def test_what_comes_behind_the_end_of_a_content_that_is_too_large_is_not_lost(text: bytes, behind: bytes) -> None:
    content = text + b"\r\n"
    receiver = ContentReceiver(len(content) - 1)
    assert receiver.feed(stuffed(content) + b".\r\n" + behind) == behind
    assert receiver.refusal == replies.too_big(len(content) - 1)


@given(st.integers(0, 3), st.booleans())
def test_the_header_is_complete_with_the_empty_line_behind_it(fields: int, is_cut: bool) -> None:
    header = b"Name: value\r\n" * fields + b"\r\n"
    receiver = ContentReceiver(1000)
    receiver.feed(header[:-1] if is_cut else header + b"text")
    # Two octets are the line end of the DATA command.
    assert receiver.header_size == (None if is_cut else len(header) + 2)


@given(st.integers(3, 40), st.integers(20, 400))
def test_octets_are_counted_as_held_until_they_are_taken_or_dropped(lines: int, limit: int) -> None:
    receiver = ContentReceiver(10_000)
    octets = b"a line\r\n" * lines
    assert receiver.feed(octets) is None
    # With the line end of the DATA command, until octets are taken.
    assert receiver.held == len(b"\r\n" + octets)
    taken = receiver.take(limit)
    assert receiver.held == len(octets) - len(taken)
    receiver.refuse(replies.BARE_LINE_END)
    assert receiver.held <= MAX_KEPT
