"""The jobs of a conversation: the delivery of a message, and the recipient probe.

A conversation treats both alike: it begins a job with the envelope, reads the content if there is one, and ends the job
with `finish`, `give_back` or `cancel`, exactly once.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mailrelay.mail.envelope import Envelope, Message
from mailrelay.mail.outcome import Outcome
from mailrelay.mail.recorded import RecordedExchange
from mailrelay.relay.transfer import Transfer
from mailrelay.smtp.record import Exchange


class Job(Protocol):
    """What a conversation does with one envelope. Its methods never wait and never raise, except for `pieces`."""

    @property
    def envelope(self) -> Envelope: ...
    @property
    def transfer(self) -> Transfer: ...
    @property
    def size(self) -> int | None:
        """Octets of content; None for a probe, which has no content."""

    @property
    def queue_id(self) -> str:
        """The queue id of the message; "" for a probe."""

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """The content. Raises Unreadable."""

    def planned(self, token: str, exchange: Exchange, *, relays_dsn: bool) -> None:
        """The commands for it are about to be sent, in a conversation that is recorded under `token`. exchange: where the
        replies to them will stand."""

    def finish(self, outcomes: Sequence[Outcome], *, relays_dsn: bool, seconds: float) -> None:
        """The job has ended: one outcome for each recipient, in the envelope's order.

        relays_dsn: the mail server has accepted the DSN parameters (RFC 3461). seconds: from the job's start to its end.
        """

    def give_back(self, *, goes_on: bool = False, is_next: bool = False) -> None:
        """The job was not tried: another conversation may begin it. goes_on: it does so at once. is_next: before mail that
        waits. If the person wants the message cancelled, it is."""

    def cancel(self) -> None:
        """The job was stopped before the end of its content: the message is cancelled."""


class Cancelled(Protocol):
    """Called when a message that was stopped is cancelled in the spool, or could not be."""

    def __call__(self, *, is_cancelled: bool) -> None: ...


class MessageResults(Protocol):
    """Takes the end of each delivery (`results.Results`, which says what the arguments mean)."""

    def finished(
        self, message: Message, outcomes: Sequence[Outcome], *, relays_dsn: bool, dial_seconds: float, seconds: float
    ) -> None: ...
    def untried(self, message: Message, *, goes_on: bool, is_next: bool) -> None: ...
    def cancelled(self, message: Message, ended: Cancelled) -> None: ...
    def planned(self, message: Message, exchange: RecordedExchange) -> None: ...


@dataclass(slots=True, eq=False)
class MessageJob:
    """The delivery of one message.

    read: gives the content of the message with a key of the spool. claim_dial_seconds: see `Connector`. in_progress: all
    deliveries that have not ended, by the spool's key; this job adds and removes itself.
    """

    message: Message
    read: Callable[[int], AsyncGenerator[bytes, None]]
    results: MessageResults
    claim_dial_seconds: Callable[[], float]
    in_progress: dict[int, "MessageJob"]
    transfer: Transfer = field(default_factory=Transfer)

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

    def pieces(self) -> AsyncGenerator[bytes, None]:
        return self.read(self.message.id)

    def planned(self, token: str, exchange: Exchange, *, relays_dsn: bool) -> None:
        keys = tuple(self.message.recipient_ids[index] for index in exchange.recipients)
        recorded = RecordedExchange(token, exchange.first, keys, exchange.has_data, relays_dsn)
        self.results.planned(self.message, recorded)

    def finish(self, outcomes: Sequence[Outcome], *, relays_dsn: bool, seconds: float) -> None:
        self._ended()
        self.results.finished(
            self.message, outcomes, relays_dsn=relays_dsn, dial_seconds=self.claim_dial_seconds(), seconds=seconds
        )

    def give_back(self, *, goes_on: bool = False, is_next: bool = False) -> None:
        if self.transfer.is_stop_wanted:
            self.cancel()
            return
        self._ended()
        self.results.untried(self.message, goes_on=goes_on, is_next=is_next)

    def cancel(self) -> None:
        self.in_progress.pop(self.message.id, None)
        self.results.cancelled(self.message, self._cancelled)

    def _cancelled(self, *, is_cancelled: bool) -> None:
        self.transfer.is_cancelled = is_cancelled
        self.transfer.ended.set()

    def _ended(self) -> None:
        self.in_progress.pop(self.message.id, None)
        self.transfer.ended.set()


@dataclass(frozen=True, slots=True, eq=False)
class RecipientProbe:
    """Asks the mail server about one recipient by MAIL and RCPT, before there is a message.

    envelope: has one recipient. reply: the outcome of MAIL and RCPT, None if the mail server could not be asked. Cancel
    `reply` to withdraw the probe.
    """

    envelope: Envelope
    reply: asyncio.Future[Outcome | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    size: None = None
    queue_id: str = ""
    transfer: Transfer = field(default_factory=Transfer)

    def pieces(self) -> AsyncGenerator[bytes, None]:
        raise RuntimeError("a recipient probe has no content")

    def planned(self, token: str, exchange: Exchange, *, relays_dsn: bool) -> None:
        raise RuntimeError("a recipient probe has no content")

    def finish(self, outcomes: Sequence[Outcome], *, relays_dsn: bool, seconds: float) -> None:
        self._set(outcomes[0])

    def give_back(self, *, goes_on: bool = False, is_next: bool = False) -> None:
        self._set(None)

    def cancel(self) -> None:
        raise RuntimeError("a recipient probe has no content")

    def _set(self, outcome: Outcome | None) -> None:
        if not self.reply.done():
            self.reply.set_result(outcome)


class ProbeQueue:
    """Probes that wait for a conversation."""

    def __init__(self) -> None:
        self._waiting: deque[RecipientProbe] = deque()

    def add(self, envelope: Envelope) -> RecipientProbe:
        """A new probe, behind the others."""
        probe = RecipientProbe(envelope)
        self._waiting.append(probe)
        return probe

    def next(self) -> Sequence[Job]:
        """The first probe that was not withdrawn, in a sequence of one; an empty sequence if there is none."""
        while self._waiting:
            probe = self._waiting.popleft()
            if not probe.reply.done():
                return (probe,)
        return ()

    def give_back(self) -> None:
        """Ends all probes without a reply: there is no conversation."""
        while self._waiting:
            self._waiting.popleft().give_back()
