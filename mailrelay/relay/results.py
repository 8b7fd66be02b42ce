"""The results of attempts: judges them, records them in the spool, logs them, and tells the client that waits.

Promises: recording is tried again until it succeeds, also after the end of the conversation. Until then no new message is
begun (`is_stuck`), so that nothing is sent twice that the mail server has accepted. The same holds for putting back a
message whose attempt sent nothing. If the spool is broken, nothing is recorded any more: the attempts stay open, and the
next start closes them as interrupted.
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
from mailrelay.mail.record import Place, Record
from mailrelay.mail.recorded import ReadExchange, RecordedExchange
from mailrelay.mail.spool_errors import SpoolBroken
from mailrelay.mail.triage import is_reply_to_mail
from mailrelay.ports import RelayPort
from mailrelay.relay.jobs import Cancelled
from mailrelay.relay.rounds import Rounds
from mailrelay.relay.waiters import DeliveryResult, NotTaken, Queued, Refused, Waiters

log = logging.getLogger("mailrelay.relay")

T = TypeVar("T")

LAST_WAIT = 10.0
"""Seconds to wait, at most, for results to be recorded when the daemon stops."""


class Results:
    """The results of one relayhost's attempts.

    notices_pending: called when a commit has made notices pending. recorded: called when a result was recorded, or will not
    be. mail_judged: called when the mail server has judged a message, so that it does not refuse mailrelay itself.
    accepted: called when the spool has it that the mail server has accepted a message. returned: called when messages that
    were taken in the place of another relayhost may be at that one again. waiters: the clients that wait.
    goes_on: called with the key of a message that is due again and goes before mail that waits: for its other recipients
    (`rounds`), or because its conversation has ended. now: the clock, epoch seconds. is_followed: as in `Record`.
    """

    def __init__(
        self,
        spool: RelayPort,
        policy: RetryPolicy,
        notices_pending: Callable[[], None],
        recorded: Callable[[], None],
        mail_judged: Callable[[], None],
        accepted: Callable[[], None],
        goes_on: Callable[[int], None],
        now: Callable[[], float],
        *,
        is_followed: bool = False,
        returned: Callable[[], None] = lambda: None,
        waiters: Waiters | None = None,
    ) -> None:
        self.waiters = waiters or Waiters()
        self._returned = returned
        self.rounds = Rounds()
        self._spool = spool
        self._policy = policy
        self._notices_pending = notices_pending
        self._recorded = recorded
        self._mail_judged = mail_judged
        self._accepted = accepted
        self._goes_on = goes_on
        self._now = now
        self._is_followed = is_followed
        self._unrecorded: set[str] = set()
        # Not in a task group: a result must be recorded even if its conversation is cancelled.
        self._tasks: set[asyncio.Future[Any]] = set()

    @property
    def is_stuck(self) -> bool:
        """Whether results could not be recorded yet, or cannot be any more."""
        return bool(self._unrecorded) or self.waiters.is_spool_broken

    @property
    def is_recording(self) -> bool:
        """Whether results are being written to the spool. `recorded` is called at the end."""
        return bool(self._tasks)

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

        relays_dsn: as in `conclude`. dial_seconds: the time of the dial for which this message had to wait, else 0. seconds:
        the time of the transaction.
        """
        if nothing_tried(outcomes):
            # The mail server refuses mailrelay, not this message.
            self.put_back([message])
            self.waiters.tell(message.queue_id, Queued(outcomes[0].description.decode("utf-8", "replace")))
            return
        if any(is_reply_to_mail(outcome) for outcome in outcomes):
            self._mail_judged()
        self.run_to_end(
            self._finish(message, outcomes, relays_dsn=relays_dsn, dial_seconds=dial_seconds, seconds=seconds)
        )

    def untried(self, message: Message, *, goes_on: bool, is_next: bool) -> None:
        """An attempt was opened but sent nothing: the message is put back, and the client is told that it waits.

        goes_on: the message is tried again at once, so the client is told nothing yet. is_next: before mail that waits.
        """
        self.put_back([message], is_next=is_next)
        if not goes_on:
            self.waiters.tell(message.queue_id, Queued("the connection to the server was lost"))

    def cancelled(self, message: Message, ended: Cancelled) -> None:
        """An attempt was stopped before the end of the content: the message is cancelled. ended: called when that is on
        disk, or will not be."""
        self.rounds.forget(message.id)
        self.run_to_end(self._cancel(message, ended))

    def planned(self, message: Message, exchange: RecordedExchange) -> None:
        """The commands for a message are about to be sent. exchange: where the record will hold the replies."""
        self.run_to_end(self._spool.note_exchange(message.id, exchange))

    async def read_later(self, read: Sequence[ReadExchange]) -> None:
        """Records what the records of earlier attempts said (`relay.records`). Raises SpoolError."""
        accepted = await self._spool.resolve_exchanges(read, self._policy.backends_for, is_followed=self._is_followed)
        if read:
            self._returned()
        for message, record in accepted:
            for one in record.settled:
                log.info("%s", logline.recipient_status(message, record, one, is_read_later=True))
            if record.notices:
                self._notices_pending()
            self._accepted()

    def put_back(self, messages: Sequence[Message], *, is_next: bool = False) -> None:
        """Undoes attempts that sent nothing: the messages are due again, and nothing is counted. Tells no clients. is_next:
        as in `untried`; otherwise they are due behind mail that waits."""
        self.run_to_end(
            self._put_back(
                {message.id: message.queue_id for message in messages},
                is_next=is_next,
                has_returned=any(message.fallback_for for message in messages),
            )
        )

    def run_to_end(self, work: Coroutine[Any, Any, Any] | asyncio.Future[Any]) -> None:
        """Runs `work` to its end, whatever is cancelled meanwhile."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def written(self) -> None:
        """Waits until all results up to now are recorded."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """Waits until all results are recorded, for `LAST_WAIT` at most; then gives up those that are not."""
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=LAST_WAIT)
            for task in late:
                task.cancel()

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        # The daemon itself reports a broken spool, and ends.
        if error is not None and not isinstance(error, SpoolBroken):
            log.critical("the spool cannot be written: %s", error)
        self._recorded()

    async def _finish(
        self, message: Message, outcomes: Sequence[Outcome], *, relays_dsn: bool, dial_seconds: float, seconds: float
    ) -> None:
        client_told = False
        if message.is_only_transaction and all_refused(outcomes):
            client_told = await self.waiters.tell_refusal(message.queue_id, Refused(outcomes[0]))
        record = conclude(
            message,
            outcomes,
            self._policy,
            client_told=client_told,
            relays_dsn=relays_dsn,
            now=self._now(),
            chance=random.random(),  # noqa: S311
            dialled=dial_seconds,
            transaction=seconds,
            is_followed=self._is_followed,
        )
        try:
            is_written = await self._write([message.queue_id], lambda: self._spool.record(record))
        except SpoolBroken:
            self.waiters.is_spool_broken = True
            self.waiters.tell(message.queue_id, _result(message, record))
            raise
        if not is_written:
            log.error(
                "%s: the outcome is not recorded: its attempt is not open, or not of this daemon", message.queue_id
            )
        elif any(one.state is State.SENT for one in record.settled):
            self._accepted()
        self.rounds.ended(message, outcomes, record)
        if message.fallback_for:
            self._returned()
        for one in record.settled:
            # The level `error` means: the person must act.
            level = logging.ERROR if one.state in FAILED or one.state is State.HELD else logging.INFO
            log.log(level, "%s", logline.recipient_status(message, record, one))
        if record.notices or record.place is Place.LAST:
            self._notices_pending()
        result = _result(message, record)
        if record.place is Place.GOES_ON:
            log.info("%s", logline.round_goes_on(message, record))
            self.waiters.add(message.queue_id, result)
            self._goes_on(message.id)
            return
        queued = _queued_if_alike(result) if record.place is Place.ALONE else None
        self.waiters.tell(message.queue_id, queued or result)

    async def _put_back(self, messages: Mapping[int, str], *, is_next: bool, has_returned: bool) -> None:
        keys = list(messages)
        for key in await self._write(messages.values(), lambda: self._spool.put_back(keys)):
            log.error("%s: not put back: its attempt is not open, or not of this daemon", messages[key])
        for key in messages if is_next else ():
            self._goes_on(key)
        if has_returned:
            self._returned()

    async def _cancel(self, message: Message, ended: Cancelled) -> None:
        queue_id, is_cancelled = message.queue_id, False
        try:
            is_cancelled = await self._write([queue_id], lambda: self._spool.cancel_stopped(message.id))
        finally:
            ended(is_cancelled=is_cancelled)
        if not is_cancelled:
            log.error("%s: not cancelled: its attempt is not open, or not of this daemon", queue_id)
            return
        log.info("%s: cancelled while it was being sent, before the end of its content", queue_id)
        self.waiters.tell(queue_id, Queued("it was cancelled"))

    async def _write(self, queue_ids: Collection[str], write: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Writes to the spool, and tries again until it succeeds. Until then these messages are unrecorded (`is_stuck`).
        Raises SpoolBroken."""
        pause = 1.0
        try:
            while True:
                try:
                    return await write()
                except SpoolBroken:
                    raise
                except Exception as error:
                    # Any exception: the result must not be lost.
                    log.critical(
                        "%s: what became of it cannot be recorded: %s; will try again", ", ".join(queue_ids), error
                    )
                self._unrecorded.update(queue_ids)
                await asyncio.sleep(pause)
                pause = min(60.0, pause * 2)
        finally:
            self._unrecorded.difference_update(queue_ids)


def _result(message: Message, record: Record) -> DeliveryResult:
    """The result for the client that waits. If the mail server refused all recipients, the client got `Refused` before."""
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
    waiting = message.later + len(message.recipient_ids) - len(record.settled)
    return DeliveryResult(len(taken), taken[0].outcome.reply if taken else None, not_taken, waiting)


def _queued_if_alike(result: DeliveryResult) -> Queued | None:
    """`Queued` if all recipients are in the same state for the same reason, and none was sent; else None."""
    if result.taken or len({(one.state, one.reason) for one in result.not_taken}) != 1:
        return None
    return Queued(result.not_taken[0].reason.decode("utf-8", "replace"))
