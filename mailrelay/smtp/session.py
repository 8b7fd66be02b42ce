"""A conversation with one mail server: which command is sent next, and what the replies mean for which recipient.

The caller passes received octets to `receive`, sends the octets from `take_output`, and acts on the events. While there is
`capacity`, it may `start` the next message. Upon `ContentWanted` it sends the content and ends it. It also watches the time:
`awaiting` and `REPLY_TIMEOUTS` say how long a reply may take. When the channel ends or the time is up, it calls `lost`.

Round trips cost most of the time of a delivery, so the session avoids them:

    no PIPELINING    one command at a time
    PIPELINING       MAIL, RCPT…, DATA in one flight; content and the next message's MAIL, RCPT…, DATA in one flight
    and CHUNKING     MAIL, RCPT…, BDAT and content in one flight, up to `IN_FLIGHT` messages; content larger than
                     `SMALL` waits for the replies to RCPT, because it might be sent for nothing

A recipient probe sends an envelope without a message: MAIL and RCPT…. The next transaction begins with RSET.

Promises: every transaction that was started ends with exactly one `Finished` or `Untried`, a conversation with exactly one
`Ended`. A recipient's outcome is a 2xx at `Stage.CONTENT` only if this reply came after the caller had taken the whole
content for sending. If the mail server may have a message without our knowing, its outcome is lost at `Stage.AFTER_DOT`.
Never: a byte before the greeting; a QUIT behind content whose reply is not read (its 2xx could be taken for that of the
content); a MAIL while the mail server may have a transaction open (its 503 would bounce a good message).
"""

from collections import deque
from collections.abc import Mapping

from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.smtp import command
from mailrelay.smtp.content import LineEnds, Stuffer
from mailrelay.smtp.events import ContentWanted, Ended, Event, Finished, Ready, Untried
from mailrelay.smtp.extensions import Extensions, extensions
from mailrelay.smtp.reply import MalformedReply, ReplyParser
from mailrelay.smtp.transaction import STAGES, Command, Flow, OutgoingTransaction, Verb

SMALL = 64 * 1024
"""Octets of the largest content that is sent with BDAT before the replies to RCPT."""
IN_FLIGHT = 32
"""Messages with BDAT whose replies may be outstanding at once."""

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
`awaiting` is never CONTENT: its value is the limit for the channel to accept one block of content."""


class Session:
    """One conversation. name: the argument of EHLO, as b"[127.0.0.1]" or b"localhost"."""

    def __init__(self, name: bytes) -> None:
        self.extensions: Extensions | None = None
        """None until `Ready`."""
        self._name = name
        self._parser = ReplyParser()
        self._output = bytearray()
        self._planned: deque[Command] = deque()
        self._awaited = deque([Command(Verb.GREETING, b"", is_sent=True)])
        self._open: deque[OutgoingTransaction] = deque()
        self._latest: OutgoingTransaction | None = None
        self._flow: Flow | None = None
        self._is_quitting = False
        self._is_over = False

    @property
    def capacity(self) -> int:
        """How many transactions may be started now, each after the content of the one before; with 0, `start` must not be
        called. A content larger than `SMALL`, or an outcome, may reduce it by more than one."""
        if self.extensions is None or self._is_quitting or self._is_over:
            return 0
        if self._open and not self._open[-1].handed_over:
            return 0
        if _chunks(self.extensions):
            return IN_FLIGHT - len(self._open)
        # The commands of the next transaction are sent together with the content of the last one.
        return 1 if len(self._open) < (2 if self.extensions.pipelining else 1) else 0

    @property
    def in_flight(self) -> int:
        """How many messages can be sent to this mail server before a reply is read; 0 before `Ready`."""
        return 0 if self.extensions is None else IN_FLIGHT if _chunks(self.extensions) else 1

    @property
    def awaiting(self) -> Stage | None:
        """The stage whose reply is awaited. None if none is: between transactions, and while content is being sent."""
        if not self._awaited:
            return None
        stage = STAGES[self._awaited[0].verb]
        return Stage.AFTER_DOT if stage is Stage.CONTENT else stage

    def start(self, key: int, envelope: Envelope, size: int | None) -> list[Event]:
        """Begins a transaction. envelope: has at least one recipient. size: the exact number of octets of content. None is
        for a recipient probe: it has no content, and is finished with the replies to MAIL and RCPT.

        An envelope that cannot be sent to this mail server is finished at once, and nothing of it is sent. Raises
        RuntimeError without `capacity`.
        """
        offered = self.extensions
        if offered is None or not self.capacity:
            raise RuntimeError("a transaction was started without capacity for it")
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
            # No command is sent before the content is known to be complete: a bad message does not affect the others.
            return [self._want_content(Flow(transaction, LineEnds(), bytearray()))]
        return self._proceed()

    def send_content(self, chunk: bytes) -> None:
        """Adds octets of the content that is wanted. After `Ended` they are dropped. Raises RuntimeError if no content is
        wanted."""
        if self._is_over:
            return
        self._current_flow().feed(chunk)

    def end_content(self, fault: Outcome | None = None) -> list[Event]:
        """Ends the content. fault: the outcome of its recipients, if the content could not be read to its end.

        Content of another length than announced, or with a bare CR or LF, has the outcome UNREADABLE. If a part of such
        content may have been sent, the conversation ends: the mail server must not take the part for a whole message. After
        `Ended` nothing happens. Raises RuntimeError if no content is wanted.
        """
        if self._is_over:
            return []
        flow = self._current_flow()
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
        # The end of DATA clears the server's buffers, whatever it replies (RFC 5321 section 4.1.1.4). BDAT may not.
        transaction.closed = isinstance(flow.encoder, Stuffer)
        if streamed:
            self._write(Command(Verb.CONTENT, b"", transaction))
        elif self.extensions is not None:
            content = Command(Verb.CONTENT, _bdat(flow.announced) + flow.sink, transaction)
            self._plan(transaction, self.extensions, content)
        return self._proceed()

    def receive(self, data: bytes) -> list[Event]:
        """Octets from the mail server, in pieces of any size."""
        events: list[Event] = []
        try:
            for reply in self._parser.feed(data):
                if self._is_over:
                    break
                events += self._handle_reply(reply)
        except MalformedReply as error:
            if self._awaits(Verb.GREETING):
                events += self._end(_not_smtp(str(error)), "")
            else:
                events += self.lost(str(error))
        return events

    def lost(self, text: str) -> list[Event]:
        """The channel has ended, or a time-out has passed. text: one sentence about it."""
        if self._is_over:
            return []
        if self._awaited and self._awaited[0].is_sent and self._awaited[0].transaction is not None:
            self._awaited[0].transaction.begun = True
        return self._end(Outcome(self._stage(), cause=Cause.LOST, text=text), text)

    def quit(self) -> None:
        """No more transactions. QUIT is sent once all are finished; its reply brings `Ended`."""
        self._is_quitting = True
        self._proceed()

    def take_output(self) -> bytes:
        """The octets to send now, b"" if there are none. From now on they count as sent."""
        octets = bytes(self._output)
        self._output.clear()
        for awaited in self._awaited:
            awaited.is_sent = True
        return octets

    # Replies.

    def _handle_reply(self, reply: Reply) -> list[Event]:
        if not self._awaited or not self._awaited[0].is_sent:
            return self._handle_unexpected(reply)
        replied = self._awaited.popleft()
        match replied.verb:
            case Verb.GREETING:
                return self._handle_greeting(reply)
            case Verb.EHLO | Verb.HELO:
                return self._handle_ehlo(replied.verb, reply)
            case Verb.QUIT:
                return self._end(Outcome(Stage.MAIL, reply), "")
            case _:
                return self._handle_transaction_reply(replied, reply)

    def _handle_greeting(self, reply: Reply) -> list[Event]:
        if reply.code == 220:
            self._write(Command(Verb.EHLO, b"EHLO %b\r\n" % self._name))
            return []
        if reply.code < 400:
            return self._end(_not_smtp(f"the greeting has the code {reply.code}, which mail servers do not send"), "")
        return self._end(Outcome(Stage.GREETING, reply), "")

    def _handle_ehlo(self, verb: Verb, reply: Reply) -> list[Event]:
        if reply.code // 100 == 2:
            self.extensions = extensions(reply) if verb is Verb.EHLO else Extensions()
            return [Ready(self.extensions), *self._proceed()]
        if reply.code >= 500 and verb is Verb.EHLO:
            self._write(Command(Verb.HELO, b"HELO %b\r\n" % self._name))
            return []
        return self._end(Outcome(Stage.EHLO, reply), "")

    def _handle_transaction_reply(self, replied: Command, reply: Reply) -> list[Event]:
        verb, transaction = replied.verb, replied.transaction
        outcome = Outcome(STAGES[verb], reply)
        good = reply.code // 100 == (3 if verb is Verb.DATA else 2)
        refused = reply.code >= 400
        if transaction is not None:
            transaction.begun = True
            if not good or verb is Verb.CONTENT or (verb is Verb.RCPT and transaction.size is None):
                transaction.decide(outcome, replied.recipient)
        if reply.code == 421:
            return self._end(outcome, f"the mail server ended the conversation with 421 to {verb.name}")
        if not (good or refused) or (refused and verb is Verb.RSET):
            return self._end(
                outcome, f"the mail server sent an unexpected {reply.code} to {verb.name}; the conversation was closed"
            )
        if transaction is None:
            return self._proceed()
        if (verb is Verb.MAIL and refused) or (verb is Verb.CONTENT and good):
            transaction.closed = True
        events: list[Event] = []
        if verb is Verb.DATA and good and not transaction.decided:
            events.append(self._want_content(Flow(transaction, Stuffer(), self._output)))
        elif verb is Verb.DATA and good:
            # RFC 2920 section 3.1: the server asks for content although no recipient is left. The reply has no meaning.
            self._write(Command(Verb.LONE_DOT, b".\r\n"))
            transaction.closed = True
        return [*events, *self._finish_if_decided(transaction), *self._proceed()]

    def _finish_if_decided(self, transaction: OutgoingTransaction) -> list[Event]:
        """Finishes `transaction` if all is decided and no more replies to it will come."""
        if not transaction.decided or (self._awaited and self._awaited[0].transaction is transaction):
            return []
        if self._planned and self._planned[0].transaction is transaction:
            self._planned.clear()
        self._open.popleft()
        return [Finished(transaction.key, transaction.in_order())]

    def _handle_unexpected(self, reply: Reply) -> list[Event]:
        """A reply to no command, or to one that has not been sent."""
        if reply.code >= 400 and (sending := self._sending()) is not None:
            # A refusal before the end of the content decides. How the server reads the rest is not known.
            outcome = Outcome(Stage.CONTENT, reply)
            sending.decide(outcome)
            return self._end(outcome, "")
        if reply.code == 421:
            return self._end(Outcome(self._stage(), reply), "the mail server ended the conversation with 421")
        return self.lost(f"the mail server sent {reply.code} without a command before it")

    # Commands.

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
        """Writes the commands that may be sent now."""
        offered = self.extensions
        if offered is None or self._is_over:
            return []
        while self._planned and (not self._awaited or (offered.pipelining and self._planned[0].verb is not Verb.BDAT)):
            planned = self._planned.popleft()
            if planned.verb is Verb.BDAT and planned.transaction is not None:
                self._output += planned.line
                return [self._want_content(Flow(planned.transaction, LineEnds(), self._output))]
            self._write(planned)
        if self._is_quitting and not self._open and not self._awaited:
            self._write(Command(Verb.QUIT, b"QUIT\r\n"))
        return []

    def _write(self, written: Command) -> None:
        self._output += written.line
        self._awaited.append(written)

    def _want_content(self, flow: Flow) -> ContentWanted:
        self._flow = flow
        return ContentWanted(flow.transaction.key)

    def _end(self, outcome: Outcome, text: str) -> list[Event]:
        """Ends the conversation. text: one sentence for the transactions that `outcome` does not decide."""
        events: list[Event] = []
        unsent = [
            awaited.transaction for awaited in self._awaited if awaited.verb is Verb.CONTENT and not awaited.is_sent
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
        self._is_over = True
        self._flow = None
        self._output.clear()
        for queue in (self._planned, self._awaited, self._open):
            queue.clear()
        return [*events, Ended(outcome)]

    # The state of the conversation.

    def _awaits(self, verb: Verb) -> bool:
        return bool(self._awaited) and self._awaited[0].verb is verb

    def _sending(self) -> OutgoingTransaction | None:
        """The transaction whose content is being sent, if the mail server has got commands of it."""
        if self._flow is not None and self._flow.sink is self._output:
            return self._flow.transaction
        return self._awaited[0].transaction if self._awaits(Verb.CONTENT) else None

    def _stage(self) -> Stage:
        """The stage of a conversation that breaks now. Between transactions it is MAIL, the next command."""
        return self.awaiting or (Stage.CONTENT if self._sending() is not None else Stage.MAIL)

    def _current_flow(self) -> Flow:
        if self._flow is None:
            raise RuntimeError("content was sent, but none was wanted")
        return self._flow


def _chunks(offered: Extensions) -> bool:
    # Without PIPELINING, BDAT saves no round trip.
    return offered.chunking and offered.pipelining


def _bdat(size: int) -> bytes:
    return b"BDAT %d LAST\r\n" % size


def _not_smtp(text: str) -> Outcome:
    return Outcome(
        Stage.GREETING,
        cause=Cause.NOT_SMTP,
        text=text,
        fix="set `smtp` in this relayhost's settings to the port of the mail server there",
    )
