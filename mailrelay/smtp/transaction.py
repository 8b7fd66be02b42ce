"""The values that a session keeps: what was asked of the remote, and what is known of each message on its way."""

import enum
from dataclasses import dataclass, field

from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.smtp.content import BareNewline, LineEnds, Stuffer


class Verb(enum.Enum):
    """What a reply is awaited for."""

    GREETING = enum.auto()
    EHLO = enum.auto()
    HELO = enum.auto()
    RSET = enum.auto()
    MAIL = enum.auto()
    RCPT = enum.auto()
    DATA = enum.auto()
    BDAT = enum.auto()
    """The header alone, which waits for the replies to RCPT; its reply comes as that of CONTENT."""
    CONTENT = enum.auto()
    """The content up to its end."""
    LONE_DOT = enum.auto()
    """The content of a transaction that has no recipient left."""
    QUIT = enum.auto()


STAGES = {
    Verb.GREETING: Stage.GREETING,
    Verb.EHLO: Stage.EHLO,
    Verb.HELO: Stage.EHLO,
    # What stands between two messages belongs to neither; the next thing would be a MAIL.
    Verb.RSET: Stage.MAIL,
    Verb.QUIT: Stage.MAIL,
    Verb.MAIL: Stage.MAIL,
    Verb.RCPT: Stage.RCPT,
    Verb.DATA: Stage.DATA,
    Verb.CONTENT: Stage.CONTENT,
    Verb.LONE_DOT: Stage.CONTENT,
}
"""At which stage a reply decides."""


@dataclass(slots=True, eq=False)
class OutgoingTransaction:
    """One message on its way. `size` is octets of content, None where only its envelope is vetted and none will follow;
    `outcomes` holds what is decided, by index of recipient."""

    key: int
    envelope: Envelope
    size: int | None
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    begun: bool = False
    """The remote has begun with it."""
    handed_over: bool = False
    """All of its content was given out, with the end: the remote may have taken it."""
    closed: bool = False
    """The remote holds nothing of it open any more."""

    @property
    def decided(self) -> bool:
        """Whether every recipient has an outcome."""
        return len(self.outcomes) == len(self.envelope.recipients)

    def decide(self, outcome: Outcome, recipient: int | None = None) -> None:
        """For one recipient, or for all; who has an outcome keeps it."""
        for index in range(len(self.envelope.recipients)) if recipient is None else (recipient,):
            self.outcomes.setdefault(index, outcome)

    def in_order(self) -> tuple[Outcome, ...]:
        """The outcomes of all recipients, once all are decided."""
        return tuple(self.outcomes[index] for index in range(len(self.envelope.recipients)))


@dataclass(slots=True, eq=False)
class Command:
    """Something to say that has a reply. `recipient` is the index of the only one whom that concerns, if it is one."""

    verb: Verb
    line: bytes
    transaction: OutgoingTransaction | None = None
    recipient: int | None = None
    taken: bool = False
    """By whoever sends it. Before that, no honest reply to it can come."""


@dataclass(slots=True, eq=False)
class Flow:
    """Content that is being fed: through the encoder into the sink, as long as it is what was announced."""

    transaction: OutgoingTransaction
    encoder: LineEnds | Stuffer
    sink: bytearray
    _octets: int = 0
    _fault: str = ""

    @property
    def announced(self) -> int:
        """Octets of content that are to come."""
        return self.transaction.size or 0

    def feed(self, chunk: bytes) -> None:
        """The next octets. Once something is wrong, the rest is dropped."""
        self._octets += len(chunk)
        if self._octets > self.announced:
            self._fault = self._fault or "the content has more octets than were announced"
        if self._fault:
            return
        try:
            self.sink += self.encoder.feed(chunk)
        except BareNewline as error:
            self._fault = str(error)

    def end(self) -> Outcome | None:
        """Completes the content in the sink, or says why it cannot be sent."""
        if not self._fault and self._octets < self.announced:
            self._fault = "the content has fewer octets than were announced"
        try:
            if not self._fault:
                self.sink += self.encoder.end()
        except BareNewline as error:
            self._fault = str(error)
        if not self._fault:
            return None
        return Outcome(
            Stage.CONTENT,
            cause=Cause.UNREADABLE,
            text=self._fault,
            fix="look at it with `mailrelay queue show ID --content`, then cancel it and send the mail again",
        )
