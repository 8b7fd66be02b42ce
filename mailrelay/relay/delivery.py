"""Runs one conversation with the mail server: carries octets between a channel and an SMTP session, and gives it jobs.

Promises: every job that `JobSource.next` gave ends exactly once, in `finish` or in `give_back`, whatever happens: a lost
connection, a time-out, replies that are not SMTP, a cancellation. The one exception is the message in whose transaction the
conversation has ended: the caller of `converse` ends it (`ConversationEnd.cut`). What outcomes mean is decided elsewhere
(`mail.triage`).
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
from mailrelay.smtp.events import ContentWanted, Ended, Event, Finished, Ready, Untried
from mailrelay.smtp.extensions import Extension
from mailrelay.smtp.flight import Trust
from mailrelay.smtp.session import Session
from mailrelay.smtp.transaction import REPLY_TIMEOUTS
from mailrelay.ssh.interface import Channel

BLOCK = 32 * 1024
"""Octets of content in one write. It bounds how long a small message on another channel waits for this one."""


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
    channel: Channel, name: bytes, source: JobSource, unusable: Collection[Extension] = (), trust: Trust = Trust.UNKNOWN
) -> ConversationEnd:
    """Talks to the mail server on `channel` until there are no more jobs, or the conversation breaks off. Closes `channel`.

    name: the argument of EHLO. unusable: extensions not to be used. trust: as in `smtp.session`.
    """
    return await _Runner(channel, Session(name, unusable, trust), source).run()


class _Runner:
    def __init__(self, channel: Channel, session: Session, source: JobSource) -> None:
        self._channel = channel
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

    async def run(self) -> ConversationEnd:
        is_leaving = False
        try:
            while self._ended is None:
                if is_leaving and not (self._given or self._begun):
                    self._session.quit()
                    self._flush()
                    return ConversationEnd(None, self._progress)
                self._flush()
                if (
                    not (is_leaving or self._is_write_closed or self._given)
                    and self._asking is None
                    and self._session.capacity
                ):
                    self._asking = asyncio.ensure_future(self._next())
                await self._wait()
                if self._ended is None and self._asking is not None and self._asking.done():
                    jobs, self._asking = self._asking.result(), None
                    is_leaving = not jobs
                    self._given += jobs
                await self._send_content()
                while self._given and self._ended is None and self._session.capacity:
                    self._begin(self._given.popleft())
                    await self._send_content()
            refused = frozenset(self._session.refused)
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

    async def _await_last_replies(self) -> None:
        """Waits for the replies to contents that were sent whole, for `last_wait` at most. Sends nothing more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._source.last_wait):
                while self._ended is None and self._session.is_content_reply_awaited:
                    await asyncio.wait({self._reading})
                    self._take_input()

    async def _wait(self) -> None:
        """Waits for octets of the mail server or for jobs. Ends the conversation if the time for a reply passes."""
        waited: set[asyncio.Future[bytes] | asyncio.Future[Sequence[Job]]] = {self._reading}
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
        for job in (*self._given, *(job for job, _ in self._begun.values())):
            job.give_back(goes_on=self._session.goes_on)
        self._channel.close()
        # If `_next` has returned already, it cannot be cancelled: give back its jobs.
        asking = self._asking
        if asking is not None and not asking.cancel() and not asking.cancelled() and asking.exception() is None:
            for job in asking.result():
                job.give_back(goes_on=self._session.goes_on)

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
        key = next(self._keys)
        self._begun[key] = (job, time.monotonic())
        self._handle(self._session.start(key, job.envelope, job.size))

    def _handle(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Ready():
                    self._source.ready(self._session.max_in_flight, self._session.server_names)
                case ContentWanted(key):
                    self._content_wanted.append(key)
                case Finished(key, outcomes, is_cut):
                    self._finish(key, outcomes, is_cut=is_cut)
                case Untried(key, goes_on):
                    job, _ = self._begun.pop(key)
                    if job.size is None:
                        self._progress = max(self._progress, ConversationProgress.FINISHED)
                    job.give_back(goes_on=goes_on)
                case Ended(outcome):
                    self._ended = outcome

    def _finish(self, key: int, outcomes: Sequence[Outcome], *, is_cut: bool) -> None:
        job, since = self._begun.pop(key)
        extensions = self._session.extensions
        relays_dsn = extensions is not None and extensions.dsn
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
            except ConnectionError:
                self._is_write_closed = True

    async def _send_content(self) -> None:
        while self._content_wanted and self._ended is None and not self._is_write_closed:
            job, _ = self._begun[self._content_wanted.popleft()]
            failure = None
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
                self._handle(self._session.end_content(failure))

    async def _send_pieces(self, job: Job) -> None:
        """Sends the content. Stops early if the conversation ends, or the channel takes no more octets. Raises Unreadable,
        and TimeoutError if the mail server takes no octets for too long."""
        async with contextlib.aclosing(job.pieces()) as pieces:
            unsent = 0
            async for piece in pieces:
                for start in range(0, len(piece), BLOCK):
                    block = piece[start : start + BLOCK]
                    self._session.send_content(block)
                    unsent += len(block)
                    # The last octets, fewer than a block, are written together with the next commands.
                    if unsent >= BLOCK:
                        unsent = 0
                        self._flush()
                        await self._drain()
                    self._take_input()
                    if self._is_write_closed or self._ended is not None:
                        return

    async def _drain(self) -> None:
        """Waits until the channel takes more octets. Raises TimeoutError."""
        try:
            async with asyncio.timeout(REPLY_TIMEOUTS[Stage.CONTENT]):
                await self._channel.drain()
        except ConnectionError:
            self._is_write_closed = True
