"""The results of attempts: judged, told to the client that waits, recorded in the spool, logged.

Promises: an outcome is recorded however long the disk refuses it. Until then no new message is begun (`is_stuck`), so that
nothing is sent twice that the mail server has accepted. An attempt that never began is taken back with the same care.
Recording goes on when the conversation has ended.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from mailrelay.mail import logline
from mailrelay.mail.conclusion import RetryPolicy, all_refused, conclude, nothing_tried
from mailrelay.mail.envelope import Message
from mailrelay.mail.lifecycle import FAILED, State
from mailrelay.mail.outcome import Outcome
from mailrelay.mail.record import Record
from mailrelay.ports import RelayPort
from mailrelay.relay.waiters import DeliveryResult, NotTaken, Queued, Refused, Waiters

log = logging.getLogger("mailrelay.relay")

T = TypeVar("T")

LAST_WAIT = 10.0
"""Seconds that a stopping relay waits for the disk to record results."""


class Results:
    """The results of one relayhost's attempts.

    notices_pending: called when a commit has left notices for the person. recorded: called when a result was recorded. now:
    the clock, epoch seconds.
    """

    def __init__(
        self,
        spool: RelayPort,
        terms: RetryPolicy,
        notices_pending: Callable[[], None],
        recorded: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self.waiters = Waiters()
        self._spool = spool
        self._terms = terms
        self._notices_pending = notices_pending
        self._recorded = recorded
        self._now = now
        self._unrecorded: set[str] = set()
        # Not of a task group: a result must be recorded although its conversation is cancelled.
        self._tasks: set[asyncio.Future[Any]] = set()

    @property
    def is_stuck(self) -> bool:
        """Whether the spool refuses to record results."""
        return bool(self._unrecorded)

    def finished(
        self,
        message: Message,
        outcomes: Sequence[Outcome],
        *,
        relays_dsn: bool,
        dial_seconds: float,
        seconds: float,
    ) -> None:
        """An attempt has ended, with one outcome for each recipient.

        relays_dsn: as in `conclude`. dial_seconds: what the dial took that this message had to wait for, else 0. seconds:
        what the transaction took.
        """
        if nothing_tried(outcomes):
            self.untried(message)
            return
        self.run_to_end(
            self._finish(message, outcomes, relays_dsn=relays_dsn, dial_seconds=dial_seconds, seconds=seconds)
        )

    def untried(self, message: Message) -> None:
        """An attempt was opened but never began: the message is due again, and nothing is counted."""
        self.put_back([message])
        self.waiters.tell(message.queue_id, Queued("the connection to the server was lost"))

    def put_back(self, messages: Sequence[Message]) -> None:
        """The same for several messages. Clients that wait are told elsewhere."""
        self.run_to_end(self._put_back({message.id: message.queue_id for message in messages}))

    def run_to_end(self, work: Coroutine[Any, Any, Any] | asyncio.Future[Any]) -> None:
        """Runs `work` to its end, whatever is cancelled meanwhile."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Waits until all results are recorded, `LAST_WAIT` at most."""
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=LAST_WAIT)
            for task in late:
                task.cancel()

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the spool cannot be written: %s", error)
        self._recorded()

    async def _finish(
        self, message: Message, outcomes: Sequence[Outcome], *, relays_dsn: bool, dial_seconds: float, seconds: float
    ) -> None:
        client_told = False
        if all_refused(outcomes):
            client_told = await self.waiters.tell_refusal(message.queue_id, Refused(outcomes[0]))
        record = conclude(
            message,
            outcomes,
            self._terms,
            client_told=client_told,
            relays_dsn=relays_dsn,
            now=self._now(),
            chance=random.random(),  # noqa: S311
            dialled=dial_seconds,
            transaction=seconds,
        )
        if not await self._write([message.queue_id], lambda: self._spool.record(record)):
            log.error(
                "%s: the outcome is not recorded: its attempt is not open, or not of this daemon", message.queue_id
            )
        for one in record.settled:
            # An error needs the person.
            level = logging.ERROR if one.state in FAILED or one.state is State.HELD else logging.INFO
            log.log(level, "%s", logline.recipient_status(message, record, one))
        if record.notices:
            self._notices_pending()
        self.waiters.tell(message.queue_id, _result(message, record))

    async def _put_back(self, messages: Mapping[int, str]) -> None:
        keys = list(messages)
        for key in await self._write(messages.values(), lambda: self._spool.put_back(keys)):
            log.error("%s: not put back: its attempt is not open, or not of this daemon", messages[key])

    async def _write(self, queue_ids: Collection[str], write: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Records what became of these messages, and tries again until the disk takes it."""
        pause = 1.0
        try:
            while True:
                try:
                    return await write()
                except Exception as error:
                    # Of whatever kind: the result must not be forgotten.
                    log.critical(
                        "%s: what became of it cannot be recorded: %s; will try again", ", ".join(queue_ids), error
                    )
                self._unrecorded.update(queue_ids)
                await asyncio.sleep(pause)
                pause = min(60.0, pause * 2)
        finally:
            self._unrecorded.difference_update(queue_ids)


def _result(message: Message, record: Record) -> DeliveryResult | Queued:
    """For the client that waits, unless the mail server refused all recipients."""
    address_of = {
        key: recipient.address
        for key, recipient in zip(message.recipient_ids, message.envelope.recipients, strict=True)
    }
    taken = [one for one in record.settled if one.state is State.SENT]
    not_taken = tuple(
        NotTaken(address_of[one.recipient], one.state, one.outcome.description)
        for one in record.settled
        if one.state is not State.SENT
    )
    if not taken and len({(one.state, one.words) for one in not_taken}) == 1:
        return Queued(not_taken[0].words.decode("utf-8", "replace"))
    return DeliveryResult(len(taken), taken[0].outcome.reply if taken else None, not_taken)
