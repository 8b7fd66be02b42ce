"""The values that a session keeps: the commands whose replies are expected, and the state of each transaction."""

import enum
from dataclasses import dataclass, field

from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.smtp.content import BareNewline, LineEnds, Stuffer


class Verb(enum.Enum):
    """The command, or the part of a transaction, that a reply belongs to."""

    GREETING = enum.auto()
    EHLO = enum.auto()
    HELO = enum.auto()
    RSET = enum.auto()
    MAIL = enum.auto()
    RCPT = enum.auto()
    DATA = enum.auto()
    BDAT = enum.auto()
    """The BDAT line without its content, which waits for the replies to RCPT; its reply is that of CONTENT."""
    CONTENT = enum.auto()
    """The content with its end."""
    LONE_DOT = enum.auto()
    """The empty content of a transaction that has no recipient left."""
    QUIT = enum.auto()


STAGES = {
    Verb.GREETING: Stage.GREETING,
    Verb.EHLO: Stage.EHLO,
    Verb.HELO: Stage.EHLO,
    # Commands between two messages belong to neither; the next command would be MAIL.
    Verb.RSET: Stage.MAIL,
    Verb.QUIT: Stage.MAIL,
    Verb.MAIL: Stage.MAIL,
    Verb.RCPT: Stage.RCPT,
    Verb.DATA: Stage.DATA,
    Verb.CONTENT: Stage.CONTENT,
    Verb.LONE_DOT: Stage.CONTENT,
}
"""The stage of the outcome that a reply brings."""


@dataclass(slots=True, eq=False)
class OutgoingTransaction:
    """The transaction of one message, or of a recipient probe. size: octets of content, None for a probe, which has none.
    outcomes: those that are decided, by index of the recipient."""

    key: int
    envelope: Envelope
    size: int | None
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    begun: bool = False
    """The mail server has replied to a command of it, or may have received one."""
    handed_over: bool = False
    """All of its content was written, with the end: the mail server may have the message."""
    closed: bool = False
    """The mail server has no transaction open any more."""

    @property
    def decided(self) -> bool:
        """Whether every recipient has an outcome."""
        return len(self.outcomes) == len(self.envelope.recipients)

    def decide(self, outcome: Outcome, recipient: int | None = None) -> None:
        """Sets the outcome of one recipient, or of all. An outcome that is set stays."""
        for index in range(len(self.envelope.recipients)) if recipient is None else (recipient,):
            self.outcomes.setdefault(index, outcome)

    def in_order(self) -> tuple[Outcome, ...]:
        """The outcomes in the order of the recipients, once all are decided."""
        return tuple(self.outcomes[index] for index in range(len(self.envelope.recipients)))


@dataclass(slots=True, eq=False)
class Command:
    """A command, or content, that has a reply. recipient: the index of the recipient of RCPT, otherwise None."""

    verb: Verb
    line: bytes
    transaction: OutgoingTransaction | None = None
    recipient: int | None = None
    is_sent: bool = False
    """Whether the caller has taken it for sending. A reply before that is no reply to it."""


@dataclass(slots=True, eq=False)
class Flow:
    """The content that is being sent: it goes through the encoder into the sink, as long as it is as announced."""

    transaction: OutgoingTransaction
    encoder: LineEnds | Stuffer
    sink: bytearray
    _octets: int = 0
    _fault: str = ""

    @property
    def announced(self) -> int:
        """Octets of the whole content."""
        return self.transaction.size or 0

    def feed(self, chunk: bytes) -> None:
        """Adds the next octets. After a fault, the rest is dropped."""
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
        """Completes the content in the sink. Returns an outcome if it cannot be sent."""
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
            fix="show the message with `mailrelay queue show ID --content`, then cancel it and send it again",
        )
