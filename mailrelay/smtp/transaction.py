"""The values that a session keeps: its commands, the state of each transaction, and the content that is being sent."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import SETUP_REPLIES, Cause, Outcome, Stage
from mailrelay.smtp.content import BareNewline, LineEnds, Stuffer
from mailrelay.smtp.events import Finished, Untried


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
    """The BDAT line alone, sent after the replies to RCPT. It has no reply of its own: the reply belongs to CONTENT."""
    CONTENT = enum.auto()
    """The content with its end."""
    LONE_DOT = enum.auto()
    """The empty content that ends DATA if every recipient was refused (RFC 2920 section 3.1)."""
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
"""The stage of the outcome that a reply brings. BDAT has none, because it has no reply of its own."""
_AFTER_RCPT = frozenset({Stage.DATA, Stage.CONTENT, Stage.AFTER_DOT})
"""The stages of outcomes of recipients that the mail server has accepted."""
REPLY_TIMEOUTS: Mapping[Stage, float] = {
    Stage.GREETING: 300.0,
    Stage.EHLO: 300.0,
    Stage.MAIL: 300.0,
    Stage.RCPT: 300.0,
    Stage.DATA: 120.0,
    Stage.CONTENT: 180.0,
    Stage.AFTER_DOT: 600.0,
}
"""Seconds to wait for a reply, by `Session.awaiting` (RFC 5321 section 4.5.3.2, which has no value for EHLO). AFTER_DOT is
the reply to the content. CONTENT is no reply: the channel must accept one block of content within this time."""


def awaited_stage(verb: Verb) -> Stage:
    """The stage of the outcome if the reply to `verb` never comes. It is AFTER_DOT for the reply to the content."""
    stage = STAGES[verb]
    return Stage.AFTER_DOT if stage is Stage.CONTENT else stage


@dataclass(slots=True, eq=False)
class OutgoingTransaction:
    """The transaction of one message, or of a recipient probe. size: octets of content, None for a probe, which has none.
    key: identifies it in the events. outcomes: those that are decided, by index of the recipient."""

    key: int
    envelope: Envelope
    size: int | None
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    has_accepted: bool = False
    """The mail server has accepted a recipient."""
    is_begun: bool = False
    """The mail server has replied to a command of the transaction, or may have received one."""
    is_content_written: bool = False
    """All of its content was written to the output, with the end: the mail server may have the message. True for a probe."""
    is_repeated: bool = False
    """A recipient was refused only because of how the message was sent: unless the mail server accepts the content, the
    transaction is repeated in another conversation."""
    is_closed: bool = False
    """The mail server does not have this transaction open any more: the next MAIL needs no RSET before it."""

    @property
    def is_decided(self) -> bool:
        """Whether every recipient has an outcome."""
        return len(self.outcomes) == len(self.envelope.recipients)

    def is_undecided(self, recipient: int | None) -> bool:
        """Whether the recipient has no outcome yet. None: whether at least one has none."""
        return not self.is_decided if recipient is None else recipient not in self.outcomes

    def decide(self, outcome: Outcome, recipient: int | None = None) -> None:
        """Sets the outcome of one recipient, or of all. An outcome that is set stays."""
        for index in range(len(self.envelope.recipients)) if recipient is None else (recipient,):
            self.outcomes.setdefault(index, outcome)

    def repeat(self, outcome: Outcome) -> None:
        """The transaction is to be repeated. Sets `outcome`, with `Cause.LOST`, for the recipients that have none."""
        self.is_repeated = True
        self.decide(outcome)

    def end(self, *, is_cut: bool = False) -> Finished | Untried:
        """The event of a transaction that is decided. is_cut: the conversation has ended within it (later ones in flight are
        not cut)."""
        outcomes = self.outcomes_in_order()
        may_be_accepted = any(
            outcome.stage is Stage.AFTER_DOT or (outcome.reply is not None and outcome.reply.code < 300)
            for outcome in outcomes
        )
        if self.is_repeated and not may_be_accepted:
            return Untried(self.key, goes_on=True)
        return Finished(self.key, outcomes, is_cut and any(outcome.ends_conversation for outcome in outcomes))

    def outcomes_in_order(self) -> tuple[Outcome, ...]:
        """The outcomes in the order of the recipients, once all are decided.

        If the mail server has accepted one recipient, the refusal of another is no setup fault, whichever came first.
        """
        outcomes = tuple(self.outcomes[index] for index in range(len(self.envelope.recipients)))
        if not any(one.stage in _AFTER_RCPT and one.cause not in SETUP_REPLIES for one in outcomes):
            return outcomes
        return tuple(
            replace(one, cause=Cause.REPLY) if one.stage is Stage.RCPT and one.cause in SETUP_REPLIES else one
            for one in outcomes
        )


@dataclass(slots=True, eq=False)
class Command:
    """A command, or content, that is to be sent or whose reply is awaited. line: its octets. transaction: None for a command
    outside of transactions. recipient: the index of the recipient of RCPT, otherwise None."""

    verb: Verb
    line: bytes
    transaction: OutgoingTransaction | None = None
    recipient: int | None = None
    is_sent: bool = False
    """Whether the caller has taken its octets for sending. A reply that is received before is not a reply to it."""


@dataclass(slots=True, eq=False)
class OutgoingContent:
    """The content that is being sent. The encoder turns it into the octets to send, which are added to `sink`: the output of
    the session, or a buffer of this content. Nothing is added after a failure."""

    transaction: OutgoingTransaction
    encoder: LineEnds | Stuffer
    sink: bytearray
    _octets: int = 0
    _failure: str = ""

    @property
    def announced(self) -> int:
        """Octets that the whole content must have."""
        return self.transaction.size or 0

    def feed(self, chunk: bytes) -> None:
        """Adds the next octets of the content. After a failure, they are dropped."""
        self._octets += len(chunk)
        if self._octets > self.announced:
            self._failure = self._failure or "the content has more octets than were announced"
        if self._failure:
            return
        try:
            self.sink += self.encoder.feed(chunk)
        except BareNewline as error:
            self._failure = str(error)

    def end(self) -> Outcome | None:
        """Completes the content in the sink. Returns None, or the outcome of its recipients after a failure."""
        if not self._failure and self._octets < self.announced:
            self._failure = "the content has fewer octets than were announced"
        try:
            if not self._failure:
                self.sink += self.encoder.end()
        except BareNewline as error:
            self._failure = str(error)
        if not self._failure:
            return None
        return Outcome(
            Stage.CONTENT,
            cause=Cause.UNREADABLE,
            text=self._failure,
            fix="show the message with `mailrelay queue show ID --content`, then cancel it and send it again",
        )
