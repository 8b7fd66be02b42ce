"""The jobs of a conversation: the delivery of a message, and the probe of a recipient.

A conversation treats both alike: it begins a job with the envelope, reads the content if there is one, and ends the job
with `finish` or `give_back`, exactly once.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mailrelay.mail.envelope import Envelope, Message
from mailrelay.mail.outcome import Outcome


class Job(Protocol):
    """What a conversation does with one envelope. Its methods never wait and never raise, but for `pieces`."""

    @property
    def envelope(self) -> Envelope: ...
    @property
    def size(self) -> int | None:
        """Octets of content; None: MAIL and RCPT alone."""

    @property
    def queue_id(self) -> str:
        """Of the message; "" for a probe."""

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """The content. Raises Unreadable."""

    def finish(self, outcomes: Sequence[Outcome], *, relays_dsn: bool, seconds: float) -> None:
        """The mail server has replied: one outcome for each recipient, in the envelope's order.

        relays_dsn: it took over the DSN parameters (RFC 3461). seconds: from the job's begin to its end.
        """

    def give_back(self) -> None:
        """The mail server has heard nothing of it."""


class MessageResults(Protocol):
    """Where the end of a delivery goes."""

    def finished(
        self, message: Message, outcomes: Sequence[Outcome], *, relays_dsn: bool, dial_seconds: float, seconds: float
    ) -> None: ...
    def untried(self, message: Message) -> None: ...


@dataclass(slots=True, eq=False)
class MessageJob:
    """The delivery of one message.

    read: gives the content of a message. claim_dial_seconds: seconds that the last dial took, once. in_progress: the open
    deliveries by the spool's key, of which this is one until its end. octets_sent: octets of content that were handed to
    the connection.
    """

    message: Message
    read: Callable[[int], AsyncGenerator[bytes, None]]
    results: MessageResults
    claim_dial_seconds: Callable[[], float]
    in_progress: dict[int, "MessageJob"]
    octets_sent: int = 0

    def __post_init__(self) -> None:
        self.in_progress[self.message.id] = self

    @property
    def envelope(self) -> Envelope:
        return self.message.envelope

    @property
    def size(self) -> int:
        return self.message.size

    @property
    def queue_id(self) -> str:
        return self.message.queue_id

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(self.read(self.message.id)) as pieces:
            async for piece in pieces:
                yield piece
                # A reader that asks for the next piece has handed over this one.
                self.octets_sent += len(piece)

    def finish(self, outcomes: Sequence[Outcome], *, relays_dsn: bool, seconds: float) -> None:
        self.in_progress.pop(self.message.id, None)
        self.results.finished(
            self.message, outcomes, relays_dsn=relays_dsn, dial_seconds=self.claim_dial_seconds(), seconds=seconds
        )

    def give_back(self) -> None:
        self.in_progress.pop(self.message.id, None)
        self.results.untried(self.message)


@dataclass(frozen=True, slots=True, eq=False)
class RcptProbe:
    """Asks the mail server about one recipient by MAIL and RCPT, before there is a message.

    envelope: has one recipient. reply: what the server replied to MAIL or RCPT, None if it could not be asked. Cancel
    `reply` to withdraw the probe.
    """

    envelope: Envelope
    reply: asyncio.Future[Outcome | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    size: None = None
    queue_id: str = ""

    def pieces(self) -> AsyncGenerator[bytes, None]:
        raise RuntimeError("a probe of a recipient has no content")

    def finish(self, outcomes: Sequence[Outcome], *, relays_dsn: bool, seconds: float) -> None:
        self._set(outcomes[0])

    def give_back(self) -> None:
        self._set(None)

    def _set(self, outcome: Outcome | None) -> None:
        if not self.reply.done():
            self.reply.set_result(outcome)


class ProbeQueue:
    """Probes that wait for a conversation."""

    def __init__(self) -> None:
        self._waiting: deque[RcptProbe] = deque()

    def add(self, envelope: Envelope) -> RcptProbe:
        """A new probe, behind the others."""
        probe = RcptProbe(envelope)
        self._waiting.append(probe)
        return probe

    def next(self) -> Sequence[Job]:
        """The first probe that was not withdrawn; none if there is none."""
        while self._waiting:
            probe = self._waiting.popleft()
            if not probe.reply.done():
                return (probe,)
        return ()

    def give_back(self) -> None:
        """No conversation is there to ask."""
        while self._waiting:
            self._waiting.popleft().give_back()
