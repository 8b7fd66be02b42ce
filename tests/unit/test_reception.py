"""One content that is received: how fast it must come, and what becomes of its pieces."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from harness.listener import Incoming, Intake

from mailrelay.listener.reception import MIN_CONTENT_RATE, PIECE, Reception
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Reply

HEADER = b"Subject: x\r\n\r\n"
LINE = b"x" * 98 + b"\r\n"
MORE = LINE * (3 * PIECE // len(LINE))
FULL = Reply(452, (b"4.3.1 full",))


class Receiving:
    """A reception with an intake, and its tasks. progress: how often the client may be read again."""

    def __init__(self, now: float = 0.0) -> None:
        self.intake = Intake()
        self.tasks: list[asyncio.Task[None]] = []
        self.progress = 0
        self.reception = Reception(10**7, self._incoming, self._start, self._progressed, now)

    def _incoming(self) -> Incoming:
        return self.intake.new_incoming(Envelope(b"a@b", (Recipient(b"c@d"),)))

    def _start(self, steps: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(steps))
        return self.tasks[-1]

    def _progressed(self) -> None:
        self.progress += 1

    async def ended(self) -> None:
        for task in self.tasks:
            await task


@pytest.mark.parametrize(("missing", "is_fast_enough"), [(0, True), (1, False)])
def test_a_content_is_too_slow_if_less_than_the_least_rate_has_come_in_the_period(
    missing: int, is_fast_enough: bool
) -> None:
    reception = Receiving(now=1000.0).reception
    needed = int(MIN_CONTENT_RATE * 60)
    reception.feed(b"x" * (needed - missing))
    assert reception.check_rate(1045.0, 60.0) == 15.0
    assert reception.check_rate(1060.0, 60.0) == (60.0 if is_fast_enough else 0.0)


def test_each_period_counts_only_what_has_come_in_it() -> None:
    reception = Receiving(now=1000.0).reception
    reception.feed(b"x" * int(MIN_CONTENT_RATE * 200))
    assert reception.check_rate(1060.0, 60.0) == 60.0
    # Checked late: the time that has passed counts, not the period.
    reception.feed(b"x" * int(MIN_CONTENT_RATE * 60))
    assert reception.check_rate(1130.0, 60.0) == 0.0


def test_the_time_that_a_client_has_waited_for_the_disk_does_not_count() -> None:
    reception = Receiving(now=1000.0).reception
    reception.feed(b"x" * 5000)
    reception.restart_rate_check(1050.0)
    assert reception.check_rate(1060.0, 60.0) == 50.0
    assert reception.check_rate(1110.0, 60.0) == 0.0


async def test_a_content_that_is_given_up_while_a_piece_is_written_is_removed_behind_it() -> None:
    receiving, written = Receiving(), asyncio.Event()
    receiving.intake.before_piece = written.wait
    receiving.reception.feed(HEADER + MORE)
    await receiving.intake.piece_begun.wait()
    receiving.reception.give_up()
    (incoming,) = receiving.intake.in_pieces
    assert not incoming.is_abandoned
    written.set()
    await receiving.ended()
    assert incoming.is_abandoned
    # What comes later is not staged any more, and nothing is removed twice.
    assert len(incoming.pieces) == 1
    assert len(receiving.tasks) == 2


async def test_a_content_that_is_given_up_between_two_pieces_is_removed_at_once() -> None:
    receiving = Receiving()
    receiving.reception.feed(HEADER + LINE * (PIECE // len(LINE) + 1))
    await receiving.ended()
    receiving.reception.give_up()
    receiving.reception.give_up()
    await receiving.ended()
    assert receiving.intake.in_pieces[0].is_abandoned
    assert len(receiving.tasks) == 2


async def test_the_client_waits_only_while_another_piece_is_complete_and_is_read_again_after_each() -> None:
    receiving, written = Receiving(), asyncio.Event()
    receiving.intake.before_piece = written.wait
    receiving.reception.feed(HEADER + LINE * (PIECE // len(LINE) + 1))
    assert len(receiving.tasks) == 1
    assert not receiving.reception.is_full
    receiving.reception.feed(MORE)
    assert receiving.reception.is_full
    written.set()
    await receiving.ended()
    assert not receiving.reception.is_full
    assert receiving.progress >= len(receiving.intake.in_pieces[0].pieces)


@pytest.mark.parametrize("more", range(-4, 12))
async def test_a_content_about_as_long_as_a_piece_is_whole_whether_it_is_staged_or_not(more: int) -> None:
    receiving = Receiving()
    content = HEADER + b"y" * (PIECE + more - len(HEADER))
    assert receiving.reception.feed(content) is None
    assert receiving.reception.feed(b"\r\n.\r\nQUIT\r\n") == b"QUIT\r\n"
    assert await receiving.reception.conclude() is None
    staged = [piece for incoming in receiving.intake.in_pieces for piece in incoming.pieces]
    assert b"".join([*staged, receiving.reception.rest()]) == content + b"\r\n"


@pytest.mark.parametrize("is_own", [True, False])
async def test_a_refusal_that_the_spool_has_logged_is_not_logged_again(is_own: bool) -> None:
    receiving = Receiving()
    receiving.intake.piece_refusal = None if is_own else FULL
    receiving.reception.feed(HEADER + (b"nul\0\r\n" if is_own else b"") + MORE)
    await receiving.ended()
    refusal = await receiving.reception.conclude()
    assert refusal is not None
    assert receiving.reception.own_refusal == (refusal if is_own else None)


async def test_a_refusal_of_the_content_comes_before_one_of_the_spool_and_is_logged() -> None:
    receiving, written = Receiving(), asyncio.Event()
    receiving.intake.before_piece, receiving.intake.piece_refusal = written.wait, FULL
    receiving.reception.feed(HEADER + MORE)
    await receiving.intake.piece_begun.wait()
    receiving.reception.feed(b"nul\0\r\n")
    written.set()
    refusal = await receiving.reception.conclude()
    assert refusal is not None
    assert refusal.code == 550
    assert receiving.reception.own_refusal == refusal
    await receiving.ended()
    assert receiving.intake.in_pieces[0].is_abandoned
