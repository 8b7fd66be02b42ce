"""Takes over messages from clients. The client gets the mail server's reply if it comes in time.

Promises: the client gets a 250 for a message only after the commit of the whole message, and none if the spool has been lost
since, unless the mail server has the message. A failure on this computer is a 4xx
reply: FULL, BROKEN or NO_RELAYHOST. A refusal that the client did not get becomes a bounce. If the mail server took the
message for some recipients only, the 250 names the others, at most MAX_NAMED of them. The intake never waits for a relayhost
with a known fault, nor for a message that waits for its time: the 250 says until when that can be cancelled.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from mailrelay.config import Relayhost
from mailrelay.mail import logline
from mailrelay.mail.client_reply import ClientReply
from mailrelay.mail.completion import NOTHING_KNOWN, Completion, completed
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.lifecycle import State
from mailrelay.mail.outcome import Outcome, Reply
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import size
from mailrelay.mail.record import Arrival, Staged, arrive
from mailrelay.mail.reply_text import reply_text
from mailrelay.mail.routing import choose
from mailrelay.mail.send_time import SendTime, effective_send_time
from mailrelay.mail.spool_errors import SpoolBroken, SpoolError, SpoolFull
from mailrelay.mail.trace import MAX_RECEIVED, count_received
from mailrelay.mail.triage import Disposition, classify
from mailrelay.ports import LARGE, AcceptPort
from mailrelay.relay.waiters import DeliveryResult, Queued, Refused, Result, Unconfirmed, Waiter, Waiters
from mailrelay.submission import account_name

log = logging.getLogger("mailrelay.intake")

FULL = Reply(452, (b"4.3.1 The spool or its disk is full: see `mailrelay status`",))
BROKEN = Reply(451, (b"4.3.0 The spool cannot be written: see `mailrelay status`",))
NO_RELAYHOST = Reply(451, (b"4.3.5 No relayhost in the settings takes mail from this sender (relayhost.NAME.senders)",))
LOOP = Reply(554, (b"5.4.6 Mail loop: the message has too many Received fields",))
NO_REPLY_YET = "the mail server has not replied yet"
MAX_NAMED = 5
"""Recipients that a reply names, at most."""
# What the reply says of a recipient; for other states their name.
_STATE_TEXT = {State.DEFERRED: "waits", State.BOUNCED: "was refused"}


class SchedulerPort(Protocol):
    """What the intake needs of a relayhost's scheduler (`relay.scheduler`)."""

    @property
    def carrier(self) -> "SchedulerPort":
        """The one that sends the mail of this relayhost now: itself, or that of a fallback."""

    @property
    def waiters(self) -> Waiters: ...
    @property
    def fault_text(self) -> str: ...
    @property
    def is_stuck(self) -> bool: ...
    def message_arrived(self, message: int) -> None: ...
    def message_waits(self) -> None: ...
    def expect_message(self) -> None: ...
    def waited_in_vain(self) -> None: ...
    def octets_sent(self, message: int) -> int: ...
    async def probe_recipient(self, envelope: Envelope) -> Outcome | None: ...


class Intake:
    """Takes over messages for the listener (`listener.server_state.IntakePort`).

    accepted: called when a message is on disk. answer_within: seconds that a client waits for the mail server's reply. now:
    the clock, epoch seconds. completion: what the settings say about bare addresses. undo: seconds for which each message
    waits before its first attempt.
    """

    def __init__(
        self,
        relayhosts: Sequence[Relayhost],
        schedulers: Mapping[str, SchedulerPort],
        spool: AcceptPort,
        accepted: Callable[[], object],
        answer_within: float,
        now: Callable[[], float] = time.time,
        completion: Completion = NOTHING_KNOWN,
        undo: float = 0.0,
    ) -> None:
        self._relayhosts = relayhosts
        self._schedulers = schedulers
        self._spool = spool
        self._accepted = accepted
        self._answer_within = answer_within
        self.now = now
        self._completion = completion
        self._undo = undo
        # One token for all messages: their queue ids differ, and os.urandom costs as much as a write to a socket.
        self._token = os.urandom(5).hex()

    def change(
        self, relayhosts: Sequence[Relayhost], answer_within: float, completion: Completion, undo: float
    ) -> None:
        """Takes other settings, also for transactions that have begun. `schedulers` must have those of `relayhosts` now."""
        self._relayhosts = relayhosts
        self._answer_within = answer_within
        self._completion = completion
        self._undo = undo

    def expect_message(self, reverse_path: bytes) -> None:
        """A client's MAIL was accepted: a reason to dial its relayhost."""
        relayhost = choose(self._completion.whole_sender(reverse_path), self._relayhosts)
        if relayhost is not None:
            self._schedulers[relayhost].expect_message()

    def refusal(self) -> Reply | None:
        """The reply with which every message is refused now; None if messages are accepted."""
        for scheduler in self._schedulers.values():
            if scheduler.is_stuck:
                return BROKEN
        return None

    async def probe_recipient(self, envelope: Envelope, timeout: float) -> Reply | None:
        """The mail server's 5xx for an envelope with one recipient. None if the mail server does not refuse it, or does not
        reply within `timeout` seconds: then the attempt to deliver the message decides."""
        envelope = completed(envelope, self._completion)
        relayhost = choose(envelope.sender, self._relayhosts)
        if relayhost is None or not self._answer_within:
            return None
        outcome = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(timeout, self._answer_within)):
                outcome = await self._schedulers[relayhost].carrier.probe_recipient(envelope)
        if outcome is None or classify(outcome) is not Disposition.BOUNCED:
            return None
        log.info("%s", logline.probe_refused(envelope, relayhost, outcome))
        return _refused(outcome)

    async def submit(self, envelope: Envelope, content: bytes) -> ClientReply:
        """Takes over a message. content: with CRLF line ends; dot-stuffing (RFC 5321 section 4.5.2) is undone already."""
        arrival = self.make_arrival(envelope, content)
        return arrival if isinstance(arrival, ClientReply) else await self.take_over(arrival)

    def new_incoming(self, envelope: Envelope) -> "IncomingMessage":
        """A message whose content is handed over in pieces."""
        return IncomingMessage(self, self._spool, envelope)

    def make_arrival(self, envelope: Envelope, content: bytes) -> Arrival | ClientReply:
        """The message for the spool, or the refusal. content: the whole content, or its beginning with the whole header."""
        envelope = completed(envelope, self._completion)
        relayhost = choose(envelope.sender, self._relayhosts)
        if relayhost is None:
            log.error(
                "refused mail from <%s> with 4xx: no relayhost in the settings takes it", printable(envelope.sender)
            )
            return ClientReply(NO_RELAYHOST)
        if count_received(content) >= MAX_RECEIVED:
            log.error("%s", logline.rejected("content", LOOP, envelope.sender))
            return ClientReply(LOOP)
        queue_id = self._spool.new_queue_id()
        return arrive(envelope, content, queue_id=queue_id, token=self._token, relayhost=relayhost, now=self.now())

    async def take_over(self, arrival: Arrival) -> ClientReply:
        """Writes a message to disk and waits for the mail server's reply, unless the message waits for its time."""
        # Now, because a large content comes in for minutes.
        current = self._by_present_settings(arrival)
        if current is None:
            return ClientReply(NO_RELAYHOST)
        arrival, send_time = current, current.envelope.send_time
        queue_id = arrival.queue_id
        # The fallback that sends it, if its relayhost cannot be reached.
        scheduler = self._schedulers[arrival.relayhost].carrier
        fault = scheduler.fault_text
        # Open it before the commit: the result may come immediately after the commit.
        is_awaited = self._answer_within > 0 and not fault and send_time is None
        waiter = scheduler.waiters.open(queue_id, arrival.relayhost) if is_awaited else None
        try:
            key = await self._spool.accept(arrival)
            self._accepted()
            log.info("%s", logline.accepted(arrival, account_name(arrival.envelope.owner)))
            self._announce(arrival, key)
            if waiter is None:
                return ClientReply(_queued(queue_id, fault) if send_time is None else _waiting(queue_id, send_time))
            await asyncio.wait({waiter.result}, timeout=self._answer_within)
        except SpoolError as error:
            return ClientReply(reply_to_spool_error(error))
        finally:
            scheduler.waiters.close(queue_id)
        if waiter.result.done():
            return _reply_to(queue_id, waiter, waiter.result.result())
        if scheduler.waiters.is_spool_broken:
            return ClientReply(BROKEN)
        scheduler.waited_in_vain()
        why = _progress(waiter.so_far) or why_no_reply(arrival.size, scheduler.octets_sent(key))
        return ClientReply(_queued(queue_id, why))

    def _by_present_settings(self, arrival: Arrival) -> Arrival | None:
        """The message with its relayhost and its send time; None if no relayhost takes it any more."""
        if arrival.relayhost not in self._schedulers:
            relayhost = choose(arrival.envelope.sender, self._relayhosts)
            if relayhost is None:
                return None
            arrival = replace(arrival, relayhost=relayhost)
        send_time = effective_send_time(arrival.envelope.send_time, self._undo, arrival.arrival)
        return replace(arrival, envelope=replace(arrival.envelope, send_time=send_time))

    def _announce(self, arrival: Arrival, key: int) -> None:
        """Tells the scheduler of a message in the spool: another one now if the settings were changed during the commit,
        none if the relayhost was removed."""
        scheduler = self._schedulers.get(arrival.relayhost)
        if scheduler is None:
            return
        if arrival.envelope.send_time is None:
            scheduler.message_arrived(key)
        else:
            scheduler.message_waits()


class IncomingMessage:
    """A message whose content is handed over in pieces, which are staged in the spool (`listener.reception.Incoming`)."""

    def __init__(self, intake: Intake, spool: AcceptPort, envelope: Envelope) -> None:
        self._intake = intake
        self._spool = spool
        self._envelope = envelope
        self._arrival: Arrival | None = None
        self._staged: Staged | None = None

    async def add(self, octets: bytes) -> Reply | None:
        """Stages a piece of the content; the first one holds the whole header. Returns the refusal; None if it is staged."""
        if self._arrival is None:
            arrival = self._intake.make_arrival(self._envelope, octets)
            if isinstance(arrival, ClientReply):
                return arrival.reply
            self._arrival, octets = arrival, arrival.content
        try:
            self._staged = await self._spool.stage(self._staged, octets)
        except SpoolError as error:
            return reply_to_spool_error(error)
        return None

    async def finish(self, octets: bytes) -> ClientReply:
        """Takes over the message; `octets` are the rest of its content."""
        if self._arrival is None or self._staged is None:
            raise ValueError("nothing was staged")
        arrival = replace(self._arrival, content=octets, staged=self._staged, arrival=self._intake.now())
        try:
            client_reply = await self._intake.take_over(arrival)
        except Exception:
            await self.abandon()
            raise
        # With a 4xx the message is not in the spool: remove its staged pieces.
        if client_reply.reply.code // 100 == 4:
            await self.abandon()
        return client_reply

    async def abandon(self) -> None:
        """Removes the staged pieces. Raises nothing."""
        if self._staged is not None:
            try:
                await self._spool.unstage(self._staged)
            except SpoolBroken:
                # The next start removes them.
                pass
            except SpoolError as error:
                log.error("an incomplete content stays in the spool until the next start: %s", error)


def reply_to_spool_error(error: SpoolError) -> Reply:
    """Logs `error` and returns the reply for it. The daemon itself reports a broken spool, once."""
    if isinstance(error, SpoolBroken):
        return BROKEN
    if isinstance(error, SpoolFull):
        log.error("refused mail with 4xx: %s", error)
        return FULL
    log.critical("refused mail with 4xx: %s", error)
    return BROKEN


def why_no_reply(octets: int, sent: int) -> str:
    """Why there is no reply of the mail server yet. octets: size of the content. sent: how many of them have been sent."""
    if octets <= LARGE or not sent:
        return NO_REPLY_YET
    if sent < octets:
        return f"{size(sent)} of {size(octets)} have been sent to the mail server; the rest follows"
    return f"all {size(octets)} have been sent to the mail server, which has not replied yet"


def _progress(so_far: DeliveryResult | None) -> str:
    """For how many recipients the mail server took the message so far; "" if for none."""
    if so_far is None or not so_far.taken:
        return ""
    return f"sent to {so_far.taken} of {so_far.total} so far; the rest follows"


def _reply_to(queue_id: str, waiter: Waiter, result: Result) -> ClientReply:
    match result:
        case DeliveryResult():
            return ClientReply(_delivered(queue_id, result))
        case Refused(outcome):
            return ClientReply(_refused(outcome), waiter.told.set_result)
        case Unconfirmed():
            return ClientReply(BROKEN)
        case Queued(why):
            return ClientReply(_queued(queue_id, why))


def _queued(queue_id: str, why: str) -> Reply:
    return Reply(250, (f"2.0.0 {queue_id} queued{': ' if why else ''}{reply_text(why)}".encode(),))


def _waiting(queue_id: str, send_time: SendTime) -> Reply:
    cancel = f"`mailrelay queue cancel {queue_id}` cancels it until then"
    text = f"2.0.0 {queue_id} queued: waits until {send_time.text}; {cancel}"
    return Reply(250, (text.encode(),))


def _delivered(queue_id: str, result: DeliveryResult) -> Reply:
    """The reply after an attempt: the mail server's text if it took the message for all recipients. Otherwise the reply
    names recipients for whom it did not take the message, and says why."""
    if result.reply is not None and result.taken == result.total:
        return Reply(250, (f"2.0.0 {queue_id} sent: {printable(result.reply.text)}".encode(),))
    done = f"sent to {result.taken} of {result.total}" if result.taken else "queued"
    named = [
        f"<{printable(other.address)}> {_STATE_TEXT.get(other.state, f'is {other.state}')}: {reply_text(other.reason)}"
        for other in result.not_taken[:MAX_NAMED]
    ]
    if len(result.not_taken) > MAX_NAMED:
        named.append(f"{len(result.not_taken) - MAX_NAMED} more, see `mailrelay queue show {queue_id}`")
    if result.waiting:
        others = f"{result.waiting} wait{'s' if result.waiting == 1 else ''}"
        named.append(others + (f": {printable(result.why)}" if result.why else ""))
    return Reply(250, (f"2.0.0 {queue_id} {'; '.join((done, *named))}".encode(),))


def _refused(outcome: Outcome) -> Reply:
    """The mail server's code and text, which the client shows to the person."""
    reply = outcome.reply
    if reply is None:
        raise ValueError("a refusal without a reply of the mail server")
    return reply
