"""Runs one conversation with the mail server: carries octets between a channel and an SMTP session, and gives it jobs.

Promises: every job that `JobSource.next` gave ends exactly once, in `finish`, `give_back` or `cancel`, whatever happens: a
lost connection, a time-out, replies that are not SMTP, a cancellation. The one exception is the message in whose transaction
the conversation has ended: the caller of `converse` ends it (`ConversationEnd.cut`). What outcomes mean is decided elsewhere
(`mail.triage`).
A message that the person cancels is stopped until the end of its content is about to be written, and not while another
message of the conversation is in doubt. If a part of its content may have been sent, the conversation ends: without that
end, the mail server discards the part.
Each reply has one time limit. It begins when all earlier replies are there and ends with the reply's last octet, so a mail
server that sends octet by octet does not extend it.
"""

import asyncio
import contextlib
import itertools
import math
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from mailrelay.mail.envelope import Unreadable
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.recipient_limit import recipient_limit
from mailrelay.relay.jobs import Job
from mailrelay.relay.plan import ConversationProgress
from mailrelay.relay.transfer import Transfer
from mailrelay.smtp.events import ContentWanted, Ended, Event, Finished, Planned, Ready, Untried
from mailrelay.smtp.extensions import Extension
from mailrelay.smtp.flight import Trust
from mailrelay.smtp.session import Session
from mailrelay.smtp.transaction import REPLY_TIMEOUTS
from mailrelay.ssh.interface import Channel

BLOCK = 32 * 1024
"""Octets of content in one write. It bounds how long a small message on another channel waits for this one."""
STOPPED = Outcome(Stage.CONTENT, cause=Cause.LOST, text="the message was cancelled while it was being sent")
"""What a session is told of a message that was stopped. The job never gets it."""


class JobSource(Protocol):
    """Where jobs come from. last_wait: seconds for which a cancelled conversation waits for the replies to contents
    that were sent whole."""

    @property
    def last_wait(self) -> float: ...

    def ready(self, in_flight: int, server_names: Sequence[bytes]) -> None:
        """The mail server has replied to EHLO; this conversation carries `in_flight` jobs at once. Never waits.

        server_names: its names for itself (`smtp.session`).
        """

    def judged(self, job: Job) -> None:
        """The mail server has judged a job, and the conversation goes on. Never waits."""

    async def next(self, limit: int) -> Sequence[Job]:
        """The next jobs, `limit` at most, and more than one only if they are small. Waits while the conversation should
        stay open; an empty result ends it. Cancelling loses no job. Raises nothing: a failure of the spool means no jobs."""


@dataclass(frozen=True, slots=True)
class CutMessage:
    """A message in whose transaction the conversation has ended. outcomes: those of its recipients, if this is an attempt at
    the message. relays_dsn, seconds: as in `Job.finish`."""

    job: Job
    outcomes: Sequence[Outcome]
    relays_dsn: bool
    seconds: float

    def finish(self, outcomes: Sequence[Outcome] | None = None) -> None:
        """Ends the job, with other outcomes if they are given."""
        self.job.finish(outcomes or self.outcomes, relays_dsn=self.relays_dsn, seconds=self.seconds)


@dataclass(frozen=True, slots=True)
class ConversationEnd:
    """outcome: why the conversation broke off, None if we ended it. progress: how far it had come. refused: extensions that
    the mail server offers and refuses. goes_on: as `Session.goes_on`, of the jobs that were given back. cut: the message in
    whose transaction it ended, None if there is none; the caller must end this job. leaves_doubt: as `Session.leaves_doubt`.
    """

    outcome: Outcome | None
    progress: ConversationProgress
    refused: frozenset[Extension] = frozenset()
    goes_on: bool = False
    cut: CutMessage | None = None
    leaves_doubt: bool = False


async def converse(
    channel: Channel,
    name: bytes,
    source: JobSource,
    unusable: Collection[Extension] = (),
    trust: Trust = Trust.UNKNOWN,
    token: str = "",
    *,
    is_ehlo_sent: bool = False,
) -> ConversationEnd:
    """Talks to the mail server on `channel` until there are no more jobs, or the conversation breaks off. Closes `channel`.

    name: the argument of EHLO. unusable: extensions not to be used. trust, is_ehlo_sent: as in `smtp.session`. token: names
    the record of this conversation, "" if there is none.
    """
    return await _Runner(channel, Session(name, unusable, trust, is_ehlo_sent=is_ehlo_sent), source, token).run()


class _Runner:
    def __init__(self, channel: Channel, session: Session, source: JobSource, token: str) -> None:
        self._channel = channel
        self._token = token
        self._session = session
        self._source = source
        self._keys = itertools.count()
        # The jobs that `JobSource.next` gave: those not begun, and those begun, with their start (monotonic).
        self._given: deque[Job] = deque()
        self._begun: dict[int, tuple[Job, float]] = {}
        self._content_wanted: deque[int] = deque()
        self._ended: Outcome | None = None
        self._cut: CutMessage | None = None
        self._progress = ConversationProgress.NOTHING
        # The reply that is waited for (`Session.awaiting`, `Session.replies`), and the monotonic time at which it is late.
        self._awaited: tuple[Stage | None, int] = (None, 0)
        self._reply_limit = math.inf
        self._reading: asyncio.Future[bytes] = asyncio.ensure_future(channel.read())
        self._asking: asyncio.Future[Sequence[Job]] | None = None
        # The channel takes no more octets. What the mail server has sent before the end must still be read.
        self._is_write_closed = False
        # Contents with octets that are not written yet.
        self._unwritten: list[Transfer] = []
        # Done when a message is to be stopped; and the limit of the wait for a channel that takes no more.
        self._woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._drain_limit: asyncio.Timeout | None = None
        # A message is being stopped now: what the session says of it is not its outcome.
        self._is_stopping = False
        # The conversation was ended to stop a message.
        self._is_dropped = False

    async def run(self) -> ConversationEnd:
        is_leaving = False
        try:
            while self._ended is None:
                if is_leaving and not (self._given or self._begun):
                    self._session.quit()
                    self._flush()
                    return ConversationEnd(None, self._progress)
                self._flush()
                if self._stop_wanted():
                    break
                if not (is_leaving or self._is_write_closed) and self._asking is None and self._session.capacity:
                    self._asking = asyncio.ensure_future(self._next())
                await self._wait()
                if self._ended is None and self._asking is not None and self._asking.done():
                    is_leaving = not self._take_jobs(self._asking)
                await self._send_content()
                while self._given and self._ended is None and self._session.capacity:
                    self._begin(self._given.popleft())
                    await self._send_content()
            refused = frozenset(self._session.refused)
            if self._is_dropped:
                return ConversationEnd(None, self._progress, refused, goes_on=True)
            cut, self._cut = self._cut, None
            goes_on, leaves_doubt = self._session.goes_on, self._session.leaves_doubt
            return ConversationEnd(self._ended, self._progress, refused, goes_on, cut, leaves_doubt)
        except BaseException as error:
            self._take_input()
            stopped = isinstance(error, asyncio.CancelledError)
            if stopped and self._source.last_wait:
                await self._await_last_replies()
            self._handle(self._session.lost("mailrelay was stopped" if stopped else "mailrelay failed; see its log"))
            raise
        finally:
            self._close()

    def _take_jobs(self, asking: asyncio.Future[Sequence[Job]]) -> bool:
        """Takes the jobs that were asked for. Returns whether there are any."""
        jobs, self._asking = asking.result(), None
        for job in jobs:
            job.transfer.wake = self._wake
        self._given += jobs
        return bool(jobs)

    async def _await_last_replies(self) -> None:
        """Waits for the replies to contents that were sent whole, for `last_wait` at most. Sends nothing more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._source.last_wait):
                while self._ended is None and self._session.is_content_reply_awaited:
                    await asyncio.wait({self._reading})
                    self._take_input()

    async def _wait(self) -> None:
        """Waits for octets of the mail server or for jobs. Ends the conversation if the time for a reply passes."""
        waited: set[asyncio.Future[bytes] | asyncio.Future[Sequence[Job]] | asyncio.Future[None]] = {self._reading}
        waited.add(self._woken)
        if self._asking is not None:
            waited.add(self._asking)
        stage = self._session.awaiting or (Stage.CONTENT if self._is_write_closed else None)
        replies = self._session.replies
        if self._awaited != (stage, replies):
            self._awaited = (stage, replies)
            self._reply_limit = time.monotonic() + REPLY_TIMEOUTS[stage] if stage is not None else math.inf
        left = max(0.0, self._reply_limit - time.monotonic()) if stage is not None else None
        await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        self._take_input()
        # Octets may have come, but not the whole reply.
        if stage is not None and self._session.replies == replies and time.monotonic() >= self._reply_limit:
            self._handle(self._session.lost(f"the mail server gave no reply within {REPLY_TIMEOUTS[stage]:.0f} s"))

    async def _next(self) -> Sequence[Job]:
        # Take no jobs until our buffer is empty: its octets are lost with the connection, like those on the network.
        with contextlib.suppress(ConnectionError):
            await self._channel.drain()
        return await self._source.next(self._session.capacity)

    def _close(self) -> None:
        self._reading.cancel()
        if self._cut is not None:
            self._cut.finish()
        goes_on = self._session.goes_on or self._is_dropped
        for job in (*self._given, *(job for job, _ in self._begun.values())):
            job.give_back(goes_on=goes_on)
        self._channel.close()
        # If `_next` has returned already, it cannot be cancelled: give back its jobs.
        asking = self._asking
        if asking is not None and not asking.cancel() and not asking.cancelled() and asking.exception() is None:
            for job in asking.result():
                job.give_back(goes_on=goes_on)

    def _wake(self) -> None:
        """A message of this conversation is to be stopped."""
        if not self._woken.done():
            self._woken.set_result(None)
        if self._drain_limit is not None and not self._drain_limit.expired():
            self._drain_limit.reschedule(0.0)

    def _cancel_given(self) -> None:
        """Cancels the messages that are to be stopped and were not begun."""
        if self._woken.done():
            self._woken = asyncio.get_running_loop().create_future()
        for job in [one for one in self._given if one.transfer.is_stop_wanted]:
            self._given.remove(job)
            job.cancel()

    def _stop_wanted(self) -> bool:
        """Stops messages that are to be stopped and whose content is not being sent. Returns whether that ended the
        conversation. Never waits."""
        self._cancel_given()
        is_begun = any(job.transfer.is_stop_wanted for job, _ in self._begun.values())
        # The replies to contents that were sent whole decide about other messages. They come within their time limits.
        if is_begun and self._ended is None and not self._session.is_content_reply_awaited:
            self._stop(self._session.lost(STOPPED.text))
        return self._is_dropped

    def _stop(self, events: Sequence[Event]) -> None:
        """Handles what the session says when a message is stopped."""
        self._is_stopping = True
        self._handle(events)
        self._is_stopping = False
        # If not, the mail server had a reason to end it.
        self._is_dropped = self._ended is not None and self._ended.text == STOPPED.text

    def _take_input(self) -> None:
        """Handles what the mail server has sent by now, if anything. Never waits."""
        if self._ended is None and self._reading.done():
            self._handle(self._received(self._reading))
            self._reading = asyncio.ensure_future(self._channel.read())

    def _received(self, reading: asyncio.Future[bytes]) -> list[Event]:
        try:
            data = reading.result()
        except OSError as error:
            return self._session.lost(f"the connection was lost ({error})")
        if not data:
            return self._session.lost("the mail server closed the connection", is_closed=True)
        return self._session.receive(data)

    def _begin(self, job: Job) -> None:
        if job.transfer.is_stop_wanted:
            job.cancel()
            return
        key = next(self._keys)
        self._begun[key] = (job, time.monotonic())
        self._handle(self._session.start(key, job.envelope, job.size))

    def _handle(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Ready():
                    self._source.ready(self._session.max_in_flight, self._session.server_names)
                case Planned(key, exchange):
                    if self._token:
                        self._begun[key][0].planned(self._token, exchange, relays_dsn=self._relays_dsn)
                case ContentWanted(key):
                    self._content_wanted.append(key)
                case Finished() | Untried():
                    self._job_ended(event)
                case Ended(outcome):
                    self._ended = outcome

    @property
    def _relays_dsn(self) -> bool:
        extensions = self._session.extensions
        return extensions is not None and extensions.dsn

    def _job_ended(self, event: Finished | Untried) -> None:
        if self._is_stopping and self._begun[event.key][0].transfer.is_stop_wanted:
            self._begun.pop(event.key)[0].cancel()
        elif isinstance(event, Finished):
            self._finish(event.key, event.outcomes, is_cut=event.is_cut)
        else:
            job, _ = self._begun.pop(event.key)
            if job.size is None:
                self._progress = max(self._progress, ConversationProgress.FINISHED)
            job.give_back(goes_on=event.goes_on)

    def _finish(self, key: int, outcomes: Sequence[Outcome], *, is_cut: bool) -> None:
        job, since = self._begun.pop(key)
        relays_dsn = self._relays_dsn
        seconds = time.monotonic() - since
        # A mail server that has accepted some recipients, up to its limit, has judged the message.
        is_cut = is_cut and recipient_limit(outcomes) is None
        if is_cut and job.size is not None:
            self._cut = CutMessage(job, outcomes, relays_dsn, seconds)
            return
        is_reply = not is_cut and any(outcome.reply is not None for outcome in outcomes)
        self._progress = max(
            self._progress, ConversationProgress.REPLIED if is_reply else ConversationProgress.FINISHED
        )
        if is_reply:
            self._source.judged(job)
        job.finish(outcomes, relays_dsn=relays_dsn, seconds=seconds)

    def _flush(self) -> None:
        output = self._session.take_output()
        if output and not self._is_write_closed:
            try:
                self._channel.write(output)
                for transfer in self._unwritten:
                    transfer.mark_written()
            except ConnectionError:
                self._is_write_closed = True
            self._unwritten.clear()

    async def _send_content(self) -> None:
        while self._content_wanted and self._ended is None and not self._is_write_closed:
            job, _ = self._begun[self._content_wanted.popleft()]
            failure = None
            job.transfer.begin(self._channel)
            try:
                await self._send_pieces(job)
            except Unreadable as error:
                failure = Outcome(
                    Stage.CONTENT,
                    cause=Cause.UNREADABLE,
                    text=f"the message cannot be read from the spool: {error}",
                    fix=f"see `mailrelay queue show {job.queue_id} --content`, then cancel it and send it again",
                )
            except TimeoutError:
                self._take_input()
                self._handle(
                    self._session.lost(f"the mail server took no content for {REPLY_TIMEOUTS[Stage.CONTENT]:.0f} s")
                )
            if not self._is_write_closed:
                self._end_content(job, failure)

    def _end_content(self, job: Job, failure: Outcome | None) -> None:
        """failure: why the content was not read to its end, None if it was. Never waits: a message that is not to be stopped
        now cannot be any more."""
        if job.transfer.is_stop_wanted and self._ended is None:
            self._stop(self._session.end_content(STOPPED))
            return
        if failure is None:
            job.transfer.end()
        self._handle(self._session.end_content(failure))

    async def _send_pieces(self, job: Job) -> None:
        """Sends the content. Stops early if the conversation ends, the channel takes no more octets, or the message is to be
        stopped. Raises Unreadable, and TimeoutError if the mail server takes no octets for too long."""
        async with contextlib.aclosing(job.pieces()) as pieces:
            unsent = 0
            async for piece in pieces:
                for start in range(0, len(piece), BLOCK):
                    if job.transfer.is_stop_wanted:
                        return
                    block = piece[start : start + BLOCK]
                    self._session.send_content(block)
                    if job.transfer not in self._unwritten:
                        self._unwritten.append(job.transfer)
                    job.transfer.add(len(block))
                    unsent += len(block)
                    # The last octets, fewer than a block, are written together with the next commands.
                    if unsent >= BLOCK:
                        unsent = 0
                        self._flush()
                        await self._drain(job)
                    self._take_input()
                    if self._is_write_closed or self._ended is not None:
                        return

    async def _drain(self, job: Job) -> None:
        """Waits until the channel takes more octets, or the message is to be stopped. Raises TimeoutError."""
        try:
            async with asyncio.timeout(REPLY_TIMEOUTS[Stage.CONTENT]) as self._drain_limit:
                await self._channel.drain()
        except ConnectionError:
            self._is_write_closed = True
        except TimeoutError:
            if not self._woken.done():
                raise
            self._drain_limit = None
            self._cancel_given()
            if not job.transfer.is_stop_wanted:
                await self._drain(job)
        finally:
            self._drain_limit = None
