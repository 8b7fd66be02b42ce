"""Takes mail over from clients, and gives them the remote's own word on it where that comes in time.

Promises: a 250 to content follows the commit of the message; trouble of ours is a 4xx from a fixed table; a refusal that
the client did not get becomes a bounce. Never waits for a relayhost that is known to be out of reach.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from mailrelay.config import Relayhost
from mailrelay.mail import logline
from mailrelay.mail.answer import Answer
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Outcome, Reply
from mailrelay.mail.printable import printable
from mailrelay.mail.record import Arrival, arrive
from mailrelay.mail.routing import choose
from mailrelay.mail.trace import HOPS_MAX, hops
from mailrelay.mail.triage import Verdict, judge
from mailrelay.relay.watch import Refused, Sent, Watches

log = logging.getLogger("mailrelay.service")

FULL = Reply(452, (b"4.3.1 The spool or its disk is full: see `mailrelay status`",))
BROKEN = Reply(451, (b"4.3.0 The spool cannot be written: see `mailrelay status`",))
NO_WAY = Reply(451, (b"4.3.5 No relayhost in the settings takes mail from this sender",))
LOOP = Reply(554, (b"5.4.6 This message goes round in a circle",))
NO_WORD_YET = "the server has not answered yet"


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
    async def vet(self, envelope: Envelope) -> Outcome | None: ...


class Refusing(Exception):
    """Raised by `Put` when a message cannot be put on disk; carries the reply for the client."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text.decode())
        self.reply = reply


Put = Callable[[Arrival], Coroutine[Any, Any, int]]
"""Puts a message on disk and returns the spool's key of it. Raises Refusing."""


class Intake:
    """What stands behind the listener. answer_within: seconds. now: the clock, epoch seconds."""

    def __init__(
        self,
        relayhosts: Sequence[Relayhost],
        lanes: Mapping[str, Lane],
        put: Put,
        new_queue_id: Callable[[], str],
        answer_within: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._relayhosts = relayhosts
        self._lanes = lanes
        self._put = put
        self._new_queue_id = new_queue_id
        self._answer_within = answer_within
        self._now = now

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
        relayhost = choose(envelope.sender, self._relayhosts)
        if relayhost is None:
            log.error(
                "mail from <%s> refused for now: no relayhost in the settings takes it", printable(envelope.sender)
            )
            return Answer(NO_WAY)
        if hops(content) >= HOPS_MAX:
            return Answer(LOOP)
        queue_id = self._new_queue_id()
        lane = self._lanes[relayhost]
        arrival = arrive(envelope, content, queue_id=queue_id, relayhost=relayhost, now=self._now())
        trouble = lane.trouble
        # Before it is on disk: from then on its verdict may come at any moment.
        watch = lane.watches.open(queue_id) if self._answer_within > 0 and not trouble else None
        try:
            key = await self._put(arrival)
            lane.hurry(key)
            if watch is None:
                return Answer(_queued(queue_id, trouble))
            await asyncio.wait({watch.word}, timeout=self._answer_within)
        except Refusing as refusing:
            return Answer(refusing.reply)
        finally:
            lane.watches.close(queue_id)
        if not watch.word.done():
            return Answer(_queued(queue_id, NO_WORD_YET))
        word = watch.word.result()
        if isinstance(word, Sent):
            return Answer(Reply(250, (f"2.0.0 {queue_id} sent: {printable(word.reply.text)}".encode(),)))
        if isinstance(word, Refused):
            return Answer(_refused(word.outcome), watch.told.set_result)
        return Answer(_queued(queue_id, word.why))


def _queued(queue_id: str, why: str) -> Reply:
    return Reply(250, (f"2.0.0 {queue_id} queued{': ' if why else ''}{printable(why)}".encode(),))


def _refused(outcome: Outcome) -> Reply:
    """The remote's own code and text, for the client's own error dialogue."""
    reply = outcome.reply
    if reply is None:
        raise ValueError("only a reply of the remote's refuses for good")
    return reply
