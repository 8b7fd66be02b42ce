"""The receiver of a content, at its bounds: blocks, the size of a header, and which refusal is told."""

from itertools import pairwise

import pytest

from mailrelay.listener import content, replies
from mailrelay.listener.content import MAX_HEADER, ContentReceiver
from mailrelay.listener.replies import too_big
from mailrelay.mail.outcome import Reply


def received(octets: bytes, limit: int = 100, cuts: tuple[int, ...] = ()) -> tuple[ContentReceiver, bytes | None]:
    receiver, leftover = ContentReceiver(limit), None
    for start, end in pairwise((0, *cuts, len(octets))):
        leftover = receiver.feed(octets[start:end])
    return receiver, leftover


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("octets", "refusal", "is_ambiguous"),
    [
        (b"ab\r\n\r\nc\r\n..d\r\n\r\n.\r\n", None, False),
        (b".\r\n", None, False),
        (b"ab\rc\r\n.\r\n", replies.BARE_LINE_END, True),
        (b"ab\nc\r\n.\r\n", replies.BARE_LINE_END, True),
        (b"ab\r\r\n.\r\n", replies.BARE_LINE_END, True),
        (b"ab\r\n\n.\r\n", replies.BARE_LINE_END, True),
        (b"ab\0\r\nc\r\n.\r\n", replies.NUL_IN_CONTENT, False),
    ],
)
def test_a_content_is_checked_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, block: int, octets: bytes, refusal: Reply | None, is_ambiguous: bool
) -> None:
    monkeypatch.setattr(content, "BLOCK", block)
    for cuts in ((), tuple(range(1, len(octets)))):
        receiver, leftover = received(octets, cuts=cuts)
        assert leftover == b""
        assert (receiver.refusal, receiver.ambiguous) == (refusal, is_ambiguous)
        assert receiver.received == len(octets)


@pytest.mark.parametrize("cuts", [(), (1, 2, 8, 9, 10, 11, 12)])
@pytest.mark.parametrize("is_too_big", [False, True])
def test_a_content_may_be_as_large_as_the_limit(is_too_big: bool, cuts: tuple[int, ...]) -> None:
    octets = b"xx\r\n\r\n..\r\n"
    receiver, leftover = received(octets + b".\r\nNOOP\r\n", limit=len(octets) - 1 - is_too_big, cuts=cuts)
    assert leftover == b"NOOP\r\n"
    assert receiver.refusal == (too_big(len(octets) - 2) if is_too_big else None)
    assert receiver.received == len(octets) + 3


def test_the_first_refusal_stays_and_nothing_more_is_kept() -> None:
    receiver, leftover = received(b"hello, hello\r\n")
    assert (leftover, receiver.held) == (None, 2 + 14)
    receiver.refuse(replies.INTERNAL_ERROR)
    receiver.refuse(replies.NUL_IN_CONTENT)
    assert receiver.held <= 4
    assert receiver.feed(b"\0more, and more\r\n") is None
    assert receiver.held <= 4
    assert receiver.feed(b".\r\nNOOP\r\n") == b"NOOP\r\n"
    assert receiver.refusal is replies.INTERNAL_ERROR


@pytest.mark.parametrize("dots", [0, 1])
def test_a_header_is_complete_at_its_end_or_at_the_longest_header_that_is_read(dots: int) -> None:
    # The line end of DATA is before it.
    longest = MAX_HEADER - 2 - 4
    for size, is_complete in ((longest, True), (longest + 1, False)):
        receiver = ContentReceiver(10 * MAX_HEADER)
        header = (b"..x\r\n" * dots).ljust(size, b"x")
        receiver.feed(header)
        assert receiver.header_size is None
        receiver.feed(b"\r\n\r\n")
        assert receiver.header_size == (MAX_HEADER if is_complete else None)
        receiver.feed(b"x" * 100)
        assert receiver.header_size == (MAX_HEADER if is_complete else MAX_HEADER + dots)
