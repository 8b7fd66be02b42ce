"""What the scheduler knows of a conversation: which messages it gets, and how long it stays without any."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from mailrelay.mail.envelope import Message
from mailrelay.mail.outcome import Outcome
from mailrelay.relay.rcpt_probe import RcptProbe

EXTRA_LINGER = 2.0
"""Seconds for which a conversation stays without mail while there are others: opening one costs round trips."""


class Scheduler(Protocol):
    """What a conversation asks of its scheduler, and brings back to it."""

    @property
    def linger(self) -> float: ...
    def opened(self, in_flight: int) -> None: ...
    async def next(self, limit: int) -> Sequence[Message | RcptProbe]: ...
    def pieces(self, message: int) -> AsyncGenerator[bytes, None]: ...
    def finished(
        self, message: Message, outcomes: Sequence[Outcome], *, relays_dsn: bool, transaction: float
    ) -> None: ...
    def untried(self, message: Message) -> None: ...
    def is_last(self, conversation: "Conversation") -> bool: ...


class Conversation:
    """One conversation, as the pump sees its mail (`delivery.Mail`) and the scheduler sees its state.

    is_ready: the remote is ready for mail. is_idle: it waits for mail. is_leaving: it takes no more. has_finished: it has
    brought a message to an outcome. was_answered: by words of the remote's. under_way: how many messages it has.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._woken = asyncio.Event()
        self.is_ready = False
        self.is_idle = False
        self.is_leaving = False
        self.has_finished = False
        self.was_answered = False
        self.under_way = 0

    def wake(self) -> None:
        """There is mail again."""
        self._woken.set()

    def ready(self, in_flight: int) -> None:
        self.is_ready = True
        self._scheduler.opened(in_flight)

    async def next(self, limit: int) -> Sequence[Message | RcptProbe]:
        while not (given := await self._scheduler.next(limit)):
            self._woken.clear()
            self.is_idle = True
            is_last = self._scheduler.is_last(self)
            linger = self._scheduler.linger if is_last else min(self._scheduler.linger, EXTRA_LINGER)
            try:
                async with asyncio.timeout(None if linger == float("inf") else linger):
                    await self._woken.wait()
            except TimeoutError:
                if is_last or not self._scheduler.is_last(self):
                    break
        self.is_idle = False
        self.is_leaving = not given
        self.under_way += sum(isinstance(one, Message) for one in given)
        return given

    def pieces(self, message: int) -> AsyncGenerator[bytes, None]:
        return self._scheduler.pieces(message)

    def finished(self, message: Message, outcomes: Sequence[Outcome], *, relays_dsn: bool, transaction: float) -> None:
        self.under_way -= 1
        self.has_finished = True
        self.was_answered = self.was_answered or any(outcome.reply is not None for outcome in outcomes)
        self._scheduler.finished(message, outcomes, relays_dsn=relays_dsn, transaction=transaction)

    def untried(self, message: Message) -> None:
        self.under_way -= 1
        self._scheduler.untried(message)
