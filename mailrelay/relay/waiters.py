"""Lets a mail client wait for the result of its message.

A watch is opened before the message is on disk, so that no result comes too early. Once it is closed, nobody waits, and a
refusal becomes a bounce.
"""

import asyncio
from dataclasses import dataclass, field

from mailrelay.mail.lifecycle import State
from mailrelay.mail.outcome import Outcome, Reply

TOLD_WITHIN = 30.0
"""Seconds for a refusal to be written to the client; after that it counts as not told."""


@dataclass(frozen=True, slots=True)
class NotTaken:
    """A recipient for whom the remote did not take the message. words: why, not escaped."""

    address: bytes
    state: State
    words: bytes


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """How an attempt ended for each recipient, where the remote did not refuse all.

    taken: for how many the remote took the message. reply: its reply to the content, None if it took it for none. Notices
    tell of those that failed or are held.
    """

    taken: int
    reply: Reply | None
    not_taken: tuple[NotTaken, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """The remote refused every recipient for good."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Queued:
    """It waits in the spool; `why` is not escaped."""

    why: str


Word = DeliveryResult | Refused | Queued


@dataclass(frozen=True, slots=True)
class Waiter:
    """The relay sets `word`; the receiver of a `Refused` sets `told`: whether the client got it."""

    word: asyncio.Future[Word] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    told: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Waiters:
    """The open watches of a relayhost, by queue id."""

    def __init__(self) -> None:
        self._open: dict[str, Waiter] = {}

    @property
    def queue_ids(self) -> frozenset[str]:
        """The messages whose result is waited for."""
        return frozenset(self._open)

    def open(self, queue_id: str) -> Waiter:
        """From now on the word on this message will be heard."""
        watch = self._open[queue_id] = Waiter()
        return watch

    def close(self, queue_id: str) -> None:
        """Nobody waits any more."""
        self._open.pop(queue_id, None)

    def tell(self, queue_id: str, word: DeliveryResult | Queued) -> None:
        """Gives the word to who waits for it, if anybody does."""
        watch = self._open.pop(queue_id, None)
        if watch is not None and not watch.word.done():
            watch.word.set_result(word)

    def tell_all(self, word: Queued) -> None:
        """Gives one word to all who wait."""
        for queue_id in list(self._open):
            self.tell(queue_id, word)

    async def tell_refusal(self, queue_id: str, refused: Refused) -> bool:
        """Gives a refusal to who waits for it; returns whether the client has been told so."""
        watch = self._open.pop(queue_id, None)
        if watch is None or watch.word.done():
            return False
        watch.word.set_result(refused)
        # Not `asyncio.wait_for`, which would cancel `told`: setting it late must not fail.
        await asyncio.wait({watch.told}, timeout=TOLD_WITHIN)
        return watch.told.done() and watch.told.result()
