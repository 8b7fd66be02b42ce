"""Takes mail over from clients, and gives them the remote's own word on it where that comes in time.

Promises: a 250 to content follows the commit of the whole message; trouble of ours is a 4xx from a fixed table; a refusal
that the client did not get becomes a bounce; a 250 names every recipient for whom the message is not sent while it is for
others. Never waits for a relayhost that is known to be out of reach.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from mailrelay.config import Relayhost
from mailrelay.mail import logline
from mailrelay.mail.answer import Answer
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.lifecycle import State
from mailrelay.mail.outcome import Outcome, Reply
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import size
from mailrelay.mail.record import Arrival, Staged, arrive
from mailrelay.mail.routing import choose
from mailrelay.mail.trace import HOPS_MAX, hops
from mailrelay.mail.triage import Verdict, judge
from mailrelay.relay.watch import Refused, Settled, Watches
from mailrelay.spool.database import SpoolError, SpoolFull
from mailrelay.spool.queue_ids import token

log = logging.getLogger("mailrelay.service")

FULL = Reply(452, (b"4.3.1 The spool or its disk is full: see `mailrelay status`",))
BROKEN = Reply(451, (b"4.3.0 The spool cannot be written: see `mailrelay status`",))
NO_WAY = Reply(451, (b"4.3.5 No relayhost in the settings takes mail from this sender",))
LOOP = Reply(554, (b"5.4.6 This message goes round in a circle",))
NO_WORD_YET = "the server has not answered yet"
LARGE = 65536
"""Octets of content above which a client hears how much has been sent."""
NAMED = 5
"""Recipients that an answer names, at most."""
_BECAME = {State.DEFERRED: "waits", State.BOUNCED: "was refused"}


class Lane(Protocol):
    """What is needed of the way to a relayhost."""

    @property
    def watches(self) -> Watches: ...
    @property
    def trouble(self) -> str: ...
    @property
    def stuck(self) -> bool: ...
    def hurry(self, message: int) -> None: ...
    def expect(self) -> None: ...
    def progress(self, message: int) -> int: ...
    async def vet(self, envelope: Envelope) -> Outcome | None: ...


class SpoolPort(Protocol):
    """What is needed of the spool. Raises SpoolError."""

    def new_queue_id(self, now: float) -> str: ...
    async def accept(self, arrival: Arrival) -> int: ...
    async def stage(self, staged: Staged | None, octets: bytes) -> Staged: ...
    async def unstage(self, staged: Staged) -> None: ...


class Intake:
    """What stands behind the listener.

    accepted: called when a message is on disk. answer_within: seconds. now: the clock, epoch seconds.
    """

    def __init__(
        self,
        relayhosts: Sequence[Relayhost],
        lanes: Mapping[str, Lane],
        spool: SpoolPort,
        accepted: Callable[[], object],
        answer_within: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._relayhosts = relayhosts
        self._lanes = lanes
        self._spool = spool
        self._accepted = accepted
        self._answer_within = answer_within
        self.now = now
        # One for all: the queue id beside it differs, and asking the kernel for chance costs as much as a socket's write.
        self._token = token()

    def begun(self, reverse_path: bytes) -> None:
        """A client has said MAIL: the way may be opened meanwhile."""
        relayhost = choose(reverse_path, self._relayhosts)
        if relayhost is not None:
            self._lanes[relayhost].expect()

    def refusal(self) -> Reply | None:
        """Why no mail can be taken over now, None if it can."""
        return BROKEN if any(lane.stuck for lane in self._lanes.values()) else None

    async def vet(self, envelope: Envelope, patience: float) -> Reply | None:
        """The remote's refusal for good of an envelope with one recipient. None if it does not refuse, or cannot be asked
        within `patience` seconds: then the message itself will show."""
        relayhost = choose(envelope.sender, self._relayhosts)
        if relayhost is None or not self._answer_within:
            return None
        outcome = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(patience, self._answer_within)):
                outcome = await self._lanes[relayhost].vet(envelope)
        if outcome is None or judge(outcome) is not Verdict.BOUNCED:
            return None
        log.info("%s", logline.vetted(envelope, relayhost, outcome))
        return _refused(outcome)

    async def submit(self, envelope: Envelope, content: bytes) -> Answer:
        """Takes a message over. `content` has CRLF line ends and no dot-stuffing."""
        arrival = self.arrive(envelope, content)
        return arrival if isinstance(arrival, Answer) else await self.take_over(arrival)

    def incoming(self, envelope: Envelope) -> "IncomingMessage":
        """A message whose content comes in pieces."""
        return IncomingMessage(self, self._spool, envelope)

    def arrive(self, envelope: Envelope, content: bytes) -> Arrival | Answer:
        """The message as the spool keeps it, or why it is not taken. content: all of it, or its beginning."""
        relayhost = choose(envelope.sender, self._relayhosts)
        if relayhost is None:
            log.error(
                "mail from <%s> refused for now: no relayhost in the settings takes it", printable(envelope.sender)
            )
            return Answer(NO_WAY)
        if hops(content) >= HOPS_MAX:
            log.error("%s", logline.rejected("content", LOOP, envelope.sender, None))
            return Answer(LOOP)
        now = self.now()
        queue_id = self._spool.new_queue_id(now)
        return arrive(envelope, content, queue_id=queue_id, token=self._token, relayhost=relayhost, now=now)

    async def take_over(self, arrival: Arrival) -> Answer:
        """Puts a message on disk, and waits for the remote's word on it."""
        queue_id, lane = arrival.queue_id, self._lanes[arrival.relayhost]
        trouble = lane.trouble
        # Before it is on disk: from then on its verdict may come at any moment.
        watch = lane.watches.open(queue_id) if self._answer_within > 0 and not trouble else None
        try:
            key = await self._spool.accept(arrival)
            self._accepted()
            log.info("%s", logline.accepted(arrival))
            lane.hurry(key)
            if watch is None:
                return Answer(_queued(queue_id, trouble))
            await asyncio.wait({watch.word}, timeout=self._answer_within)
        except SpoolError as error:
            return Answer(refused_by_spool(error))
        finally:
            lane.watches.close(queue_id)
        if not watch.word.done():
            return Answer(_queued(queue_id, no_word_yet(arrival.size, lane.progress(key))))
        word = watch.word.result()
        if isinstance(word, Settled):
            return Answer(_settled(queue_id, word))
        if isinstance(word, Refused):
            return Answer(_refused(word.outcome), watch.told.set_result)
        return Answer(_queued(queue_id, word.why))


class IncomingMessage:
    """A message whose content comes in pieces: what has come is staged in the spool (`listener.reception.Incoming`)."""

    def __init__(self, intake: Intake, spool: SpoolPort, envelope: Envelope) -> None:
        self._intake = intake
        self._spool = spool
        self._envelope = envelope
        self._begun: Arrival | None = None
        self._staged: Staged | None = None

    async def add(self, octets: bytes) -> Reply | None:
        """Stages more of the content; the first piece holds the whole header. Returns why not: then nothing more follows."""
        if self._begun is None:
            begun = self._intake.arrive(self._envelope, octets)
            if isinstance(begun, Answer):
                return begun.reply
            self._begun, octets = begun, begun.content
        try:
            self._staged = await self._spool.stage(self._staged, octets)
        except SpoolError as error:
            return refused_by_spool(error)
        return None

    async def finish(self, octets: bytes) -> Answer:
        """Takes the message over; `octets` are the rest of its content."""
        if self._begun is None or self._staged is None:
            raise ValueError("nothing was staged")
        arrival = replace(self._begun, content=octets, staged=self._staged, arrival=self._intake.now())
        try:
            answer = await self._intake.take_over(arrival)
        except Exception:
            await self.abandon()
            raise
        # Once it is a message, nobody answers 4xx.
        if answer.reply.code // 100 == 4:
            await self.abandon()
        return answer

    async def abandon(self) -> None:
        """No message comes of it: removes what was staged."""
        if self._staged is not None:
            try:
                await self._spool.unstage(self._staged)
            except SpoolError as error:
                log.error("a content that was not completed stays in the spool until the next start: %s", error)


def refused_by_spool(error: SpoolError) -> Reply:
    """What a client hears of `error`, which the log tells of."""
    if isinstance(error, SpoolFull):
        log.error("mail refused for now: %s", error)
        return FULL
    log.critical("mail refused for now: %s", error)
    return BROKEN


def no_word_yet(octets: int, sent: int) -> str:
    """Why there is no word of the remote's on a message of which `sent` octets have gone out."""
    if octets <= LARGE or not sent:
        return NO_WORD_YET
    if sent < octets:
        return f"{size(sent)} of {size(octets)} have been sent to the server so far; the rest follows"
    return f"all {size(octets)} have been sent to the server, which has not answered yet"


def _queued(queue_id: str, why: str) -> Reply:
    return Reply(250, (f"2.0.0 {queue_id} queued{': ' if why else ''}{printable(why)}".encode(),))


def _settled(queue_id: str, word: Settled) -> Reply:
    """What became of each recipient: the remote's own reply where it took the message for all, else who did not get it."""
    if word.reply is not None and not word.others:
        return Reply(250, (f"2.0.0 {queue_id} sent: {printable(word.reply.text)}".encode(),))
    total = word.taken + len(word.others)
    done = f"sent to {word.taken} of {total}" if word.taken else "queued"
    named = [
        f"<{printable(other.address)}> {_BECAME.get(other.state, f'is {other.state}')}: {printable(other.words)}"
        for other in word.others[:NAMED]
    ]
    if len(word.others) > NAMED:
        named.append(f"{len(word.others) - NAMED} more, see `mailrelay queue show {queue_id}`")
    return Reply(250, (f"2.0.0 {queue_id} {'; '.join((done, *named))}".encode(),))


def _refused(outcome: Outcome) -> Reply:
    """The remote's own code and text, for the client's own error dialogue."""
    reply = outcome.reply
    if reply is None:
        raise ValueError("only a reply of the remote's refuses for good")
    return reply
