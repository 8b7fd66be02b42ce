"""A conversation with one remote mail server: what to say next, and what its answers mean for whom.

Whoever owns the wire calls `receive` with what has come, sends what `take_output` gives, and acts on the events. While
there is `capacity`, it may `start` the next message; upon `ContentWanted` it feeds the content and ends it. It watches
the clock too: `awaiting` and `REPLY_TIMEOUTS` say for how long. When the wire ends or time is up, it calls `lost`.

What costs time is round trips, so none is made that can be avoided:

    no PIPELINING    one command at a time
    PIPELINING       MAIL, RCPT…, DATA in one flight; content and the next message's MAIL, RCPT…, DATA in one flight
    and CHUNKING     MAIL, RCPT…, BDAT and content in one flight, up to `IN_FLIGHT` messages; content larger than
                     `SMALL` waits for the replies to RCPT, since it might be sent for nothing

An envelope can be vetted without a message: MAIL and RCPT…, and what they leave open, the RSET before the next one clears.

Promises: every transaction that was started ends in exactly one `Finished` or `Untried`, a conversation in exactly one
`Ended`. A recipient's outcome is a 2xx at `Stage.CONTENT` only if that reply came after the whole content had been taken
for sending. What the remote may have got without our knowing is lost at `Stage.AFTER_DOT`.
Never: a byte before the greeting; a QUIT behind content that is not answered (its 2xx could be taken for the content's);
a MAIL where the remote may still hold a transaction open (its 503 would bounce a mail that nobody looked at).
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.smtp import command
from mailrelay.smtp.content import LineEnds, Stuffer
from mailrelay.smtp.extensions import Extensions, extensions
from mailrelay.smtp.reply import MalformedReply, ReplyParser
from mailrelay.smtp.transaction import STAGES, Command, Flow, OutgoingTransaction, Verb

SMALL = 64 * 1024
"""Octets of content that go out with BDAT before it is known who is accepted."""
IN_FLIGHT = 32
"""Messages with BDAT that may be on their way at once."""

REPLY_TIMEOUTS: Mapping[Stage, float] = {
    Stage.GREETING: 300.0,
    Stage.EHLO: 300.0,
    Stage.MAIL: 300.0,
    Stage.RCPT: 300.0,
    Stage.DATA: 120.0,
    Stage.CONTENT: 180.0,
    Stage.AFTER_DOT: 600.0,
}
"""Seconds to wait for the reply that `Session.awaiting` names (RFC 5321 section 4.5.3.2, which has none for EHLO).
CONTENT is never awaited: it is the limit for the wire to take one block of content."""


@dataclass(frozen=True, slots=True)
class Ready:
    """EHLO is done; transactions may start."""

    extensions: Extensions


@dataclass(frozen=True, slots=True)
class ContentWanted:
    """Call `send_content` with the content of `key`, then `end_content`."""

    key: int


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of the recipients of `key`'s envelope, in its order."""

    key: int
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Untried:
    """The conversation ended before the remote had begun with `key`: there is nothing to record."""

    key: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The conversation is over, and nothing more will be said. `outcome` is of scope relayhost only if the conversation
    never began: one that ends later says nothing about the next one."""

    outcome: Outcome


Event = Ready | ContentWanted | Finished | Untried | Ended


class Session:
    """One conversation. `name` is the argument of EHLO, as b"[127.0.0.1]" or b"localhost"."""

    def __init__(self, name: bytes) -> None:
        self.extensions: Extensions | None = None
        """None until `Ready`."""
        self._name = name
        self._parser = ReplyParser()
        self._output = bytearray()
        self._planned: deque[Command] = deque()
        self._awaited = deque([Command(Verb.GREETING, b"", taken=True)])
        self._open: deque[OutgoingTransaction] = deque()
        self._latest: OutgoingTransaction | None = None
        self._flow: Flow | None = None
        self._quitting = False
        self._over = False

    @property
    def capacity(self) -> int:
        """How many transactions may be started now, each when the content of the one before has been given; 0: `start` may
        not be called. A content larger than `SMALL`, or an outcome, may leave less of it than there was."""
        if self.extensions is None or self._quitting or self._over:
            return 0
        if self._open and not self._open[-1].handed_over:
            return 0
        if _chunks(self.extensions):
            return IN_FLIGHT - len(self._open)
        # The next one's commands travel with the content of the last one.
        return 1 if len(self._open) < (2 if self.extensions.pipelining else 1) else 0

    @property
    def in_flight(self) -> int:
        """How many messages can be on their way to this remote at once; 0 before `Ready`."""
        return 0 if self.extensions is None else IN_FLIGHT if _chunks(self.extensions) else 1

    @property
    def awaiting(self) -> Stage | None:
        """The stage whose reply is awaited, None where none is: between transactions, and while content is flowing."""
        if not self._awaited:
            return None
        stage = STAGES[self._awaited[0].verb]
        return Stage.AFTER_DOT if stage is Stage.CONTENT else stage

    def start(self, key: int, envelope: Envelope, size: int | None) -> list[Event]:
        """Begins a transaction. `envelope` names a recipient, `size` is the exact number of octets of content. With None
        there will be no content: it is finished with the replies to MAIL and RCPT.

        An envelope that cannot be said to this remote is finished at once, and nothing of it is sent.
        Raises RuntimeError where there is no `capacity`.
        """
        offered = self.extensions
        if offered is None or not self.capacity:
            raise RuntimeError("a transaction was started where there is no room for one")
        transaction = OutgoingTransaction(key, envelope, size)
        fault = command.unsendable(envelope, offered)
        if fault is not None:
            transaction.decide(fault)
            return [Finished(key, transaction.in_order())]
        self._open.append(transaction)
        if size is None:
            transaction.handed_over = True
            self._plan(transaction, offered)
        elif not _chunks(offered):
            self._plan(transaction, offered, Command(Verb.DATA, b"DATA\r\n", transaction))
        elif size > SMALL:
            self._plan(transaction, offered, Command(Verb.BDAT, _bdat(size), transaction))
        else:
            # Nothing is said before the content is known to be whole: a bad message costs those beside it nothing.
            return [self._want_content(Flow(transaction, LineEnds(), bytearray()))]
        return self._proceed()

    def send_content(self, chunk: bytes) -> None:
        """The next octets of the content that is wanted. After `Ended` they are dropped.

        Raises RuntimeError where no content is wanted.
        """
        if self._over:
            return
        self._wanted().feed(chunk)

    def end_content(self, fault: Outcome | None = None) -> list[Event]:
        """That was the content, or as much of it as could be read: then `fault` is what becomes of its recipients.

        Content that is not as long as announced, or has a bare CR or LF, has the outcome UNREADABLE. Where the remote has
        heard a part of such content, the conversation ends: its other end must not be taken for a whole message.
        After `Ended` nothing happens. Raises RuntimeError where no content is wanted.
        """
        if self._over:
            return []
        flow = self._wanted()
        self._flow = None
        transaction = flow.transaction
        streamed = flow.sink is self._output
        fault = fault or flow.end()
        if fault is not None:
            transaction.decide(fault)
            if streamed:
                return self._end(fault, fault.text)
            self._open.pop()
            return [Finished(transaction.key, transaction.in_order()), *self._proceed()]
        transaction.handed_over = True
        # The end of DATA clears the remote's buffers, whatever it replies (RFC 5321 section 4.1.1.4). A BDAT may not.
        transaction.closed = isinstance(flow.encoder, Stuffer)
        if streamed:
            self._say(Command(Verb.CONTENT, b"", transaction))
        elif self.extensions is not None:
            content = Command(Verb.CONTENT, _bdat(flow.announced) + flow.sink, transaction)
            self._plan(transaction, self.extensions, content)
        return self._proceed()

    def receive(self, data: bytes) -> list[Event]:
        """What the remote said, in pieces of any size."""
        events: list[Event] = []
        try:
            for reply in self._parser.feed(data):
                if self._over:
                    break
                events += self._answered(reply)
        except MalformedReply as error:
            if self._awaits(Verb.GREETING):
                events += self._end(_not_smtp(str(error)), "")
            else:
                events += self.lost(str(error))
        return events

    def lost(self, text: str) -> list[Event]:
        """The wire ended, or a time-out passed. `text` is our sentence about it."""
        if self._over:
            return []
        if self._awaited and self._awaited[0].taken and self._awaited[0].transaction is not None:
            self._awaited[0].transaction.begun = True
        return self._end(Outcome(self._stage(), cause=Cause.LOST, text=text), text)

    def quit(self) -> None:
        """No more transactions. QUIT goes out once nothing is unfinished; its reply brings `Ended`."""
        self._quitting = True
        self._proceed()

    def take_output(self) -> bytes:
        """The octets to send now, b"" where there are none. From here on they count as sent."""
        octets = bytes(self._output)
        self._output.clear()
        for awaited in self._awaited:
            awaited.taken = True
        return octets

    # What the remote says.

    def _answered(self, reply: Reply) -> list[Event]:
        if not self._awaited or not self._awaited[0].taken:
            return self._untimely(reply)
        answered = self._awaited.popleft()
        match answered.verb:
            case Verb.GREETING:
                return self._greeted(reply)
            case Verb.EHLO | Verb.HELO:
                return self._introduced(answered.verb, reply)
            case Verb.QUIT:
                return self._end(Outcome(Stage.MAIL, reply), "")
            case _:
                return self._judged(answered, reply)

    def _greeted(self, reply: Reply) -> list[Event]:
        if reply.code == 220:
            self._say(Command(Verb.EHLO, b"EHLO %b\r\n" % self._name))
            return []
        if reply.code < 400:
            return self._end(_not_smtp(f"the remote greeted with {reply.code}, as no mail server does"), "")
        return self._end(Outcome(Stage.GREETING, reply), "")

    def _introduced(self, verb: Verb, reply: Reply) -> list[Event]:
        if reply.code // 100 == 2:
            self.extensions = extensions(reply) if verb is Verb.EHLO else Extensions()
            return [Ready(self.extensions), *self._proceed()]
        if reply.code >= 500 and verb is Verb.EHLO:
            self._say(Command(Verb.HELO, b"HELO %b\r\n" % self._name))
            return []
        return self._end(Outcome(Stage.EHLO, reply), "")

    def _judged(self, answered: Command, reply: Reply) -> list[Event]:
        verb, transaction = answered.verb, answered.transaction
        outcome = Outcome(STAGES[verb], reply)
        good = reply.code // 100 == (3 if verb is Verb.DATA else 2)
        refused = reply.code >= 400
        if transaction is not None:
            transaction.begun = True
            if not good or verb is Verb.CONTENT or (verb is Verb.RCPT and transaction.size is None):
                transaction.decide(outcome, answered.recipient)
        if reply.code == 421:
            return self._end(outcome, f"the remote ended the conversation with 421 to {verb.name}")
        if not (good or refused) or (refused and verb is Verb.RSET):
            return self._end(outcome, f"the remote said {reply.code} to {verb.name}, and was left")
        if transaction is None:
            return self._proceed()
        if (verb is Verb.MAIL and refused) or (verb is Verb.CONTENT and good):
            transaction.closed = True
        events: list[Event] = []
        if verb is Verb.DATA and good and not transaction.decided:
            events.append(self._want_content(Flow(transaction, Stuffer(), self._output)))
        elif verb is Verb.DATA and good:
            # RFC 2920 section 3.1: it asks for content although nobody is left to get it; the reply means nothing.
            self._say(Command(Verb.LONE_DOT, b".\r\n"))
            transaction.closed = True
        return [*events, *self._settled(transaction), *self._proceed()]

    def _settled(self, transaction: OutgoingTransaction) -> list[Event]:
        """Finishes the transaction that is being answered, if all is decided and no more replies to it will come."""
        if not transaction.decided or (self._awaited and self._awaited[0].transaction is transaction):
            return []
        if self._planned and self._planned[0].transaction is transaction:
            self._planned.clear()
        self._open.popleft()
        return [Finished(transaction.key, transaction.in_order())]

    def _untimely(self, reply: Reply) -> list[Event]:
        """A reply to nothing, or to what has not left yet."""
        if reply.code >= 400 and (sending := self._sending()) is not None:
            # A refusal in the middle of content is the remote's own word; what it makes of the rest, nobody knows.
            outcome = Outcome(Stage.CONTENT, reply)
            sending.decide(outcome)
            return self._end(outcome, "")
        if reply.code == 421:
            return self._end(Outcome(self._stage(), reply), "the remote ended the conversation with 421")
        return self.lost(f"the remote said {reply.code} when nothing had been asked")

    # What is to be said, and what follows.

    def _plan(self, transaction: OutgoingTransaction, offered: Extensions, *last: Command) -> None:
        if self._latest is not None and not self._latest.closed:
            self._planned.append(Command(Verb.RSET, b"RSET\r\n"))
        self._latest = transaction
        envelope = transaction.envelope
        self._planned.append(Command(Verb.MAIL, command.mail(envelope, transaction.size, offered), transaction))
        for index, recipient in enumerate(envelope.recipients):
            self._planned.append(Command(Verb.RCPT, command.rcpt(recipient, offered), transaction, index))
        self._planned.extend(last)

    def _proceed(self) -> list[Event]:
        """Says what may be said by now."""
        offered = self.extensions
        if offered is None or self._over:
            return []
        while self._planned and (not self._awaited or (offered.pipelining and self._planned[0].verb is not Verb.BDAT)):
            planned = self._planned.popleft()
            if planned.verb is Verb.BDAT and planned.transaction is not None:
                self._output += planned.line
                return [self._want_content(Flow(planned.transaction, LineEnds(), self._output))]
            self._say(planned)
        if self._quitting and not self._open and not self._awaited:
            self._say(Command(Verb.QUIT, b"QUIT\r\n"))
        return []

    def _say(self, said: Command) -> None:
        self._output += said.line
        self._awaited.append(said)

    def _want_content(self, flow: Flow) -> ContentWanted:
        self._flow = flow
        return ContentWanted(flow.transaction.key)

    def _end(self, outcome: Outcome, text: str) -> list[Event]:
        """`text` says what became of the transactions that `outcome` does not decide."""
        events: list[Event] = []
        unsent = [
            awaited.transaction for awaited in self._awaited if awaited.verb is Verb.CONTENT and not awaited.taken
        ]
        for transaction in self._open:
            if transaction.handed_over and transaction not in unsent:
                transaction.decide(Outcome(Stage.AFTER_DOT, cause=Cause.LOST, text=text))
            elif transaction.begun:
                transaction.decide(Outcome(outcome.stage, cause=Cause.LOST, text=text))
            if transaction.decided:
                events.append(Finished(transaction.key, transaction.in_order()))
            else:
                events.append(Untried(transaction.key))
        self._over = True
        self._flow = None
        self._output.clear()
        for queue in (self._planned, self._awaited, self._open):
            queue.clear()
        return [*events, Ended(outcome)]

    # Where the conversation stands.

    def _awaits(self, verb: Verb) -> bool:
        return bool(self._awaited) and self._awaited[0].verb is verb

    def _sending(self) -> OutgoingTransaction | None:
        """The transaction whose content is on its way out, if the remote has heard of it."""
        if self._flow is not None and self._flow.sink is self._output:
            return self._flow.transaction
        return self._awaited[0].transaction if self._awaits(Verb.CONTENT) else None

    def _stage(self) -> Stage:
        """Where the conversation breaks if it breaks now. Between transactions that is the MAIL which would come next."""
        return self.awaiting or (Stage.CONTENT if self._sending() is not None else Stage.MAIL)

    def _wanted(self) -> Flow:
        if self._flow is None:
            raise RuntimeError("content was given where none was wanted")
        return self._flow


def _chunks(offered: Extensions) -> bool:
    # Without PIPELINING, what BDAT saves is nothing that a message needs.
    return offered.chunking and offered.pipelining


def _bdat(size: int) -> bytes:
    return b"BDAT %d LAST\r\n" % size


def _not_smtp(text: str) -> Outcome:
    return Outcome(
        Stage.GREETING,
        cause=Cause.NOT_SMTP,
        text=text,
        fix="see that `smtp` in this relayhost's settings names the port of the mail server there",
    )
