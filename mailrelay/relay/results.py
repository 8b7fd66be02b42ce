"""What came of attempts: judged, told to the client that waits, recorded, logged.

Promises: an outcome is recorded however long the disk refuses, and until then nothing new is taken (`stuck`), so that what
the remote accepted is not offered to it again; an attempt that never began is taken back with the same care. Recording goes
on when the conversation that brought it has ended.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from mailrelay.mail import logline
from mailrelay.mail.conclusion import Terms, conclude, never_begun, refused_by_all
from mailrelay.mail.envelope import Message
from mailrelay.mail.lifecycle import FAILED, State
from mailrelay.mail.outcome import Outcome
from mailrelay.mail.record import Record
from mailrelay.relay.waiters import DeliveryResult, NotTaken, Queued, Refused, Waiters

log = logging.getLogger("mailrelay.relay")

R = TypeVar("R")

LAST_WAIT = 10.0
"""Seconds that a stopping relay waits for the disk to take what it knows."""


class Spool(Protocol):
    """What settling needs of the spool. Writes are on disk when awaited."""

    async def put_back(self, messages: Sequence[int]) -> list[int]: ...
    async def record(self, end: Record) -> bool: ...


class Results:
    """Settles the attempts of one relayhost.

    notices_owed: called when a commit made notices owed. settled: called when something has been settled. now: the clock,
    epoch seconds.
    """

    def __init__(
        self,
        spool: Spool,
        terms: Terms,
        notices_owed: Callable[[], None],
        settled: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self.watches = Waiters()
        self._spool = spool
        self._terms = terms
        self._notices_owed = notices_owed
        self._done = settled
        self._now = now
        self._unrecorded: set[str] = set()
        # Not of a task group: what is known must be recorded though the conversation is cancelled.
        self._under_way: set[asyncio.Future[Any]] = set()

    @property
    def stuck(self) -> bool:
        """Whether there are outcomes that the disk refuses to take."""
        return bool(self._unrecorded)

    def finished(
        self,
        message: Message,
        outcomes: Sequence[Outcome],
        *,
        relays_dsn: bool,
        dialled: float,
        transaction: float,
    ) -> None:
        """An attempt has ended, with one outcome for each recipient."""
        if never_begun(outcomes):
            self.untried(message)
        else:
            self.see_through(
                self._settle(message, outcomes, relays_dsn=relays_dsn, dialled=dialled, transaction=transaction)
            )

    def untried(self, message: Message) -> None:
        """An attempt was opened but never began: the message is due again, and nothing is counted."""
        self.put_back([message])
        self.watches.tell(message.queue_id, Queued("the connection to the server was lost"))

    def put_back(self, messages: Sequence[Message]) -> None:
        """The same for many, of whom whoever waits for them hears elsewhere."""
        keys = [message.id for message in messages]
        queue_ids = [message.queue_id for message in messages]
        self.see_through(self._put_back(keys, queue_ids))

    async def _put_back(self, keys: Sequence[int], queue_ids: Sequence[str]) -> None:
        for key in await self._write(queue_ids, lambda: self._spool.put_back(keys)):
            log.error("%s: not put back: its attempt is not open, or not ours", queue_ids[keys.index(key)])

    def see_through(self, work: Coroutine[Any, Any, Any] | asyncio.Future[Any]) -> None:
        """Lets `work` go on to its end, whoever is cancelled meanwhile."""
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Waits for what is under way, within bounds."""
        if self._under_way:
            _, late = await asyncio.wait(set(self._under_way), timeout=LAST_WAIT)
            for task in late:
                task.cancel()

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the spool cannot be written: %s", error)
        self._done()

    async def _settle(
        self,
        message: Message,
        outcomes: Sequence[Outcome],
        *,
        relays_dsn: bool,
        dialled: float,
        transaction: float,
    ) -> None:
        client_told = False
        if refused_by_all(outcomes):
            client_told = await self.watches.tell_refusal(message.queue_id, Refused(outcomes[0]))
        record = conclude(
            message,
            outcomes,
            self._terms,
            client_told=client_told,
            relays_dsn=relays_dsn,
            now=self._now(),
            chance=random.random(),  # noqa: S311
            dialled=dialled,
            transaction=transaction,
        )
        if not await self._write([message.queue_id], lambda: self._spool.record(record)):
            log.error("%s: the outcome is not recorded: its attempt is not open, or not ours", message.queue_id)
        for one in record.settled:
            # Severity says who must act.
            level = logging.ERROR if one.state in FAILED or one.state is State.HELD else logging.INFO
            log.log(level, "%s", logline.settled(message, record, one))
        if record.notices:
            self._notices_owed()
        self.watches.tell(message.queue_id, _word(message, record))

    async def _write(self, queue_ids: Sequence[str], write: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Lets the disk take what became of these messages, however often it must be asked."""
        pause = 1.0
        try:
            while True:
                try:
                    return await write()
                except Exception as error:
                    # Whatever it is, the outcome must not be forgotten.
                    log.critical(
                        "%s: what became of it cannot be recorded: %s; will try again", ", ".join(queue_ids), error
                    )
                self._unrecorded.update(queue_ids)
                await asyncio.sleep(pause)
                pause = min(60.0, pause * 2)
        finally:
            self._unrecorded.difference_update(queue_ids)


def _word(message: Message, record: Record) -> DeliveryResult | Queued:
    """For the client that waits, where the remote did not refuse all."""
    address_of = {
        key: recipient.address
        for key, recipient in zip(message.recipient_ids, message.envelope.recipients, strict=True)
    }
    taken = [one for one in record.settled if one.state is State.SENT]
    not_taken = tuple(
        NotTaken(address_of[one.recipient], one.state, one.outcome.words)
        for one in record.settled
        if one.state is not State.SENT
    )
    if not taken and len({(one.state, one.words) for one in not_taken}) == 1:
        return Queued(not_taken[0].words.decode("utf-8", "replace"))
    return DeliveryResult(len(taken), taken[0].outcome.reply if taken else None, not_taken)
