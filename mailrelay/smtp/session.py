"""A conversation with one mail server: which command is sent next, and what the replies mean for which recipient.

The caller passes received octets to `receive`, sends the octets from `take_output`, and acts on the events. While there is
`capacity`, it may `start` the next message. Upon `ContentWanted` it calls `send_content` and `end_content`. The caller also
keeps the time-outs (`awaiting`, `transaction.REPLY_TIMEOUTS`): when one has passed, or the channel ends, it calls `lost`.

What is sent together, so that few round trips are waited for, is decided in `flight`; the greeting and EHLO in `opening`.

A mail server may refuse mailrelay itself, or an extension that it offers (`refused`). Then nothing more is started; the
replies to what is in flight are read, unless the mail server may read content as commands; and the conversation ends.

A recipient probe sends an envelope without a message: MAIL and RCPT…. The next transaction begins with RSET.

Promises: every transaction that was started ends with exactly one `Finished` or `Untried`, a conversation with exactly one
`Ended`. A recipient's outcome is a 2xx at `Stage.CONTENT` only if this reply came after the caller had taken the whole
content for sending. If the mail server may have accepted a message and its reply was not read, the outcome is `Cause.LOST`
at `Stage.AFTER_DOT`; `loss.Evidence` says what the end of the conversation shows. A message of which nothing was
processed, and a recipient probe whose replies were not read, are `Untried`.
Never: an octet before the greeting; a QUIT after content whose reply is not read (the 2xx to QUIT could be taken for that to
the content); a MAIL while the mail server may have a transaction open (its 503 would bounce a good message).
"""

from collections import deque
from collections.abc import Collection

from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.smtp import flight, loss
from mailrelay.smtp.content import LineEnds, Stuffer
from mailrelay.smtp.events import ContentWanted, Ended, Event, Finished, Planned, Ready, Untried
from mailrelay.smtp.extensions import Extension, Extensions
from mailrelay.smtp.flight import Trust
from mailrelay.smtp.loss import Evidence
from mailrelay.smtp.opening import Opening, not_smtp
from mailrelay.smtp.refused import Refusals, is_bdat_unknown
from mailrelay.smtp.reply import MalformedReply, ReplyParser
from mailrelay.smtp.transaction import STAGES, Command, OutgoingContent, OutgoingTransaction, Verb, awaited_stage


class Session:
    """One conversation. name: the argument of EHLO, as b"[127.0.0.1]". unusable: extensions not to be used, even if they are
    offered. trust: as the conversation begins. is_ehlo_sent: another program sends EHLO behind the greeting."""

    def __init__(
        self,
        name: bytes,
        unusable: Collection[Extension] = (),
        trust: Trust = Trust.UNKNOWN,
        *,
        is_ehlo_sent: bool = False,
    ) -> None:
        self.extensions: Extensions | None = None
        """The extensions in use. None until `Ready`."""
        self._trust = trust
        self._window = flight.first_window(trust)
        self.replies = 0
        """The number of replies received."""
        # Its value when the current flight began: when octets were last sent while no reply was awaited.
        self._replies_before_flight = 0
        self.leaves_doubt = False
        """The conversation has ended without replies to content that was sent whole."""
        self._parser = ReplyParser()
        self._output = bytearray()
        # Commands that may not be sent yet, in order.
        self._planned: deque[Command] = deque()
        # Commands in the output or sent, whose replies have not been received, in order.
        self._awaited = deque([Command(Verb.GREETING, b"", is_sent=True)])
        # Transactions that were started and are not finished, in order.
        self._unfinished: deque[OutgoingTransaction] = deque()
        # The transaction whose commands were planned last, also after it is finished.
        self._latest: OutgoingTransaction | None = None
        # The content that the caller has to send, from `ContentWanted` to `end_content`.
        self._content: OutgoingContent | None = None
        self._refusals = Refusals()
        self._opening = Opening(name, unusable, self._refusals, is_ehlo_sent=is_ehlo_sent)
        self._is_quitting = False
        self._is_over = False
        # The mail server has ended the conversation: it has processed nothing of the transactions that are `Untried`.
        self._is_ended_by_server = False

    @property
    def server_names(self) -> tuple[bytes, ...]:
        """The mail server's names for itself: the first words of its greeting and of its reply to EHLO, b"" if missing."""
        return self._opening.server_names

    @property
    def refused(self) -> Collection[Extension]:
        """The extensions that were offered, used and then refused. The next conversations must not use them."""
        return self._refusals.extensions

    @property
    def goes_on(self) -> bool:
        """Whether the `Untried` transactions are not delayed unseen: another conversation repeats them at once, or a fault
        of the relayhost, of which the clients are informed, delays them."""
        return self._is_ended_by_server or self._refusals.end is not None or bool(self.refused)

    @property
    def capacity(self) -> int:
        """How many transactions may be started, one after the other. Must be read again before each `start`: it is 0 while
        the last transaction still needs its content, and after `quit` or `Ended`."""
        if self.extensions is None or self._is_quitting or self._is_over or self._refusals.end is not None:
            return 0
        if self._unfinished and not self._unfinished[-1].is_content_written:
            return 0
        return flight.more_allowed(self.extensions, len(self._unfinished), self._window)

    @property
    def max_in_flight(self) -> int:
        """How many messages can be sent to this mail server before the reply to their content is read; 0 before `Ready`."""
        return 0 if self.extensions is None else flight.max_in_flight(self.extensions)

    @property
    def awaiting(self) -> Stage | None:
        """The stage of the outcome if the awaited reply never comes; AFTER_DOT for the reply to the content. None if no
        reply is awaited: between transactions, and while content is being sent."""
        return awaited_stage(self._awaited[0].verb) if self._awaited else None

    @property
    def is_content_reply_awaited(self) -> bool:
        """Whether a whole content was sent whose reply has not been received."""
        return any(awaited.verb is Verb.CONTENT and awaited.is_sent for awaited in self._awaited)

    def start(self, key: int, envelope: Envelope, size: int | None) -> list[Event]:
        """Begins a transaction. key: identifies it in the events. envelope: has at least one recipient. size: the exact
        number of octets of content. It is None for a recipient probe, which has no content and is finished with the replies
        to MAIL and RCPT.

        Recipients that cannot be sent to this mail server have their outcomes at once, and the transaction is for the
        others. If none is left, or the envelope cannot be sent, it is finished at once, and nothing of it is sent.
        Raises RuntimeError without `capacity`.
        """
        offered = self.extensions
        if offered is None or not self.capacity:
            raise RuntimeError("a transaction was started without capacity for it")
        transaction = OutgoingTransaction(key, envelope, size)
        flight.decide_unsendable(transaction, offered)
        if transaction.is_decided:
            return [Finished(key, transaction.outcomes_in_order())]
        self._unfinished.append(transaction)
        if flight.is_content_ahead(size, offered, self._trust):
            return [self._want_content(OutgoingContent(transaction, LineEnds(), bytearray()))]
        transaction.is_content_written = size is None
        return [*self._plan(transaction, offered), *self._proceed()]

    def send_content(self, chunk: bytes) -> None:
        """Adds octets of the content that is wanted. After `Ended` they are dropped. Raises RuntimeError if no content is
        wanted."""
        if self._is_over:
            return
        self._wanted_content().feed(chunk)

    def end_content(self, failure: Outcome | None = None) -> list[Event]:
        """Ends the content. failure: the outcome of its recipients if the content could not be read to its end, else None.

        Content of another length than announced, or with a bare CR or LF, has an outcome with `Cause.UNREADABLE`. If a part
        of content with a failure may have been sent, the conversation ends: the mail server must not take the part for a
        whole message. After `Ended` nothing happens. Raises RuntimeError if no content is wanted.
        """
        if self._is_over:
            return []
        content = self._wanted_content()
        self._content = None
        transaction = content.transaction
        is_streamed = content.sink is self._output
        failure = failure or content.end()
        if failure is not None:
            transaction.decide(failure)
            if is_streamed:
                return self._end(failure, failure.text)
            self._unfinished.pop()
            finished = Finished(transaction.key, transaction.outcomes_in_order())
            return [finished, *self._proceed(), *self._end_if_drained()]
        transaction.is_content_written = True
        # The end of DATA clears the server's buffers, whatever it replies (RFC 5321 section 4.1.1.4). A failed BDAT
        # might not clear them.
        transaction.is_closed = isinstance(content.encoder, Stuffer)
        planned: list[Event] = []
        if is_streamed:
            self._write(Command(Verb.CONTENT, b"", transaction))
        elif self.extensions is not None:
            bdat = Command(Verb.CONTENT, flight.bdat(content.announced) + content.sink, transaction)
            planned = self._plan(transaction, self.extensions, bdat)
        return [*planned, *self._proceed()]

    def receive(self, data: bytes) -> list[Event]:
        """Handles octets from the mail server, in pieces of any size. A malformed reply ends the conversation."""
        events: list[Event] = []
        try:
            for reply in self._parser.feed(data):
                if self._is_over:
                    break
                self.replies += 1
                events += self._handle_reply(reply)
        except MalformedReply as error:
            if self._awaits(Verb.GREETING):
                events += self._end(not_smtp(str(error)), "")
            else:
                events += self.lost(str(error))
        return events

    def lost(self, text: str, *, is_closed: bool = False) -> list[Event]:
        """Ends the conversation: the channel has ended, or a time-out has passed. text: one sentence about it.

        is_closed: the mail server has closed the channel, and all its octets were received.
        """
        if self._is_over:
            return []
        # The mail server may have received a command of the first transaction without a reply. RSET belongs to none.
        received = next((one.transaction for one in self._awaited if one.is_sent and one.transaction is not None), None)
        if received is not None:
            received.is_begun = True
        evidence = loss.evidence(is_closed=is_closed, has_replied=self.replies > self._replies_before_flight)
        return self._end(Outcome(self._stage(), cause=Cause.LOST, text=text), text, evidence)

    def quit(self) -> None:
        """No more transactions. QUIT is sent once all are finished; its reply brings `Ended`."""
        self._is_quitting = True
        self._proceed()

    def take_output(self) -> bytes:
        """Removes the octets to send and returns them, b"" if there are none. From now on they count as sent."""
        octets = bytes(self._output)
        self._output.clear()
        if octets and not (self._awaited and self._awaited[0].is_sent):
            self._replies_before_flight = self.replies
        for awaited in self._awaited:
            awaited.is_sent = True
        return octets

    # Replies.

    def _handle_reply(self, reply: Reply) -> list[Event]:
        if not self._awaited or not self._awaited[0].is_sent:
            return self._handle_unexpected(reply)
        replied = self._awaited.popleft()
        match replied.verb:
            case Verb.GREETING | Verb.EHLO | Verb.HELO:
                return self._handle_opening(replied.verb, reply)
            case Verb.QUIT:
                return self._end(Outcome(Stage.MAIL, reply), "")
            case _:
                return self._handle_transaction_reply(replied, reply)

    def _handle_opening(self, verb: Verb, reply: Reply) -> list[Event]:
        match self._opening.next(verb, reply):
            case Command() as following:
                self._write(following)
                return []
            case Extensions() as offered:
                self.extensions = offered
                return [Ready(offered), *self._proceed()]
            case Outcome() as outcome:
                return self._end(outcome, "")

    def _handle_transaction_reply(self, replied: Command, reply: Reply) -> list[Event]:
        verb, transaction = replied.verb, replied.transaction
        is_good = reply.code // 100 == (3 if verb is Verb.DATA else 2)
        outcome = self._outcome(replied, reply)
        if is_good:
            self._refusals.note_success(verb)
        if transaction is not None:
            transaction.is_begun = True
            transaction.has_accepted |= is_good and verb is Verb.RCPT
            if not is_good or verb is Verb.CONTENT or (verb is Verb.RCPT and transaction.size is None):
                transaction.decide(outcome, replied.recipient)
        if Extension.CHUNKING in self.refused:
            # The mail server may read the refused content as commands, and reply to them.
            return self._end(outcome, outcome.text)
        reason = self._refusals.reason_to_end(verb, reply, self.extensions, is_good=is_good)
        if reason is not None:
            return self._end(outcome, reason, Evidence.NOT_PROCESSED if outcome.is_421 else Evidence.NOTHING)
        if transaction is None:
            return [*self._proceed(), *self._end_if_drained()]
        if (verb is Verb.MAIL and not is_good) or (verb is Verb.CONTENT and is_good):
            transaction.is_closed = True
        events: list[Event] = []
        if verb is Verb.DATA and is_good and not transaction.is_decided:
            events.append(self._want_content(OutgoingContent(transaction, Stuffer(), self._output)))
        elif verb is Verb.DATA and is_good:
            # RFC 2920 section 3.1: the server asks for content although every recipient was refused.
            # Nothing depends on the reply to the lone dot.
            self._write(Command(Verb.LONE_DOT, b".\r\n"))
            transaction.is_closed = True
        return [*events, *self._finish_if_decided(transaction), *self._proceed(), *self._end_if_drained()]

    def _outcome(self, replied: Command, reply: Reply) -> Outcome:
        """The outcome that the reply to a command brings."""
        transaction, offered = replied.transaction, self.extensions
        if (
            reply.code < 400
            or transaction is None
            or offered is None
            or not transaction.is_undecided(replied.recipient)
        ):
            return Outcome(STAGES[replied.verb], reply)
        outcome = self._refusals.judge_refusal(replied, transaction, reply, offered)
        if (
            Extension.CHUNKING in self.refused
            and is_bdat_unknown(reply)
            and Verb.CONTENT not in self._refusals.accepted
        ):
            for other in self._unfinished:
                if other.size is not None:
                    other.repeat(outcome)
        return outcome

    def _end_if_drained(self) -> list[Event]:
        """Ends a conversation that must not go on, once all replies were read: they decide about the messages in flight."""
        if self._is_over or self._refusals.end is None or self._unfinished or self._awaited:
            return []
        return self._end(self._refusals.end, "")

    def _finish_if_decided(self, transaction: OutgoingTransaction) -> list[Event]:
        """Finishes `transaction` if every recipient has an outcome and no reply to its commands is awaited."""
        if not transaction.is_decided or (self._awaited and self._awaited[0].transaction is transaction):
            return []
        if self._planned and self._planned[0].transaction is transaction:
            # Drop the rest of its commands: no other transaction has planned commands now.
            self._planned.clear()
        self._unfinished.popleft()
        self._trust = Trust.PROVEN
        self._window = flight.next_window(self._window)
        return [transaction.end()]

    def _handle_unexpected(self, reply: Reply) -> list[Event]:
        """A reply to no command, or to one that has not been sent."""
        if reply.code >= 400 and (sending := self._sending()) is not None:
            # A refusal before the end of the content is the outcome. How the mail server reads the rest is not known.
            outcome = self._outcome(Command(Verb.CONTENT, b"", sending), reply)
            sending.decide(outcome)
            return self._end(outcome, outcome.text)
        if reply.code == 421:
            outcome = Outcome(self._stage(), reply)
            return self._end(outcome, "the mail server ended the conversation with 421", Evidence.NOT_PROCESSED)
        return self.lost(f"the mail server sent {reply.code} without a command before it")

    # Commands.

    def _plan(self, transaction: OutgoingTransaction, offered: Extensions, *content: Command) -> list[Event]:
        """Plans the commands of a transaction. content: its content, if it is sent together with them."""
        if self._latest is not None and not self._latest.is_closed:
            self._planned.append(Command(Verb.RSET, b"RSET\r\n"))
        self._latest = transaction
        # Each of these has one reply: a BDAT line that waits has none, but nothing is planned behind it.
        first = self.replies + len(self._awaited) + len(self._planned)
        self._planned.extend(flight.commands(transaction, offered, is_content_ahead=bool(content)))
        self._planned.extend(content)
        if transaction.size is None:
            return []
        return [Planned(transaction.key, flight.exchange(transaction, offered, first))]

    def _proceed(self) -> list[Event]:
        """Moves the planned commands that may be sent now to the output."""
        offered = self.extensions
        if offered is None or self._is_over:
            return []
        while self._planned and (not self._awaited or (offered.pipelining and self._planned[0].verb is not Verb.BDAT)):
            planned = self._planned.popleft()
            if planned.verb is Verb.BDAT and planned.transaction is not None:
                self._output += planned.line
                return [self._want_content(OutgoingContent(planned.transaction, LineEnds(), self._output))]
            self._write(planned)
        if self._is_quitting and not self._unfinished and not self._awaited:
            self._write(Command(Verb.QUIT, b"QUIT\r\n"))
        return []

    def _write(self, written: Command) -> None:
        self._output += written.line
        self._awaited.append(written)

    def _want_content(self, content: OutgoingContent) -> ContentWanted:
        self._content = content
        return ContentWanted(content.transaction.key)

    def _end(self, outcome: Outcome, text: str, evidence: Evidence = Evidence.NOTHING) -> list[Event]:
        """Ends the conversation with `outcome`. In a transaction that was begun, recipients without an outcome get one with
        `Cause.LOST` and the sentence `text`. A message that was not begun, and a probe without a reply, are `Untried`."""
        self._is_ended_by_server = evidence is not Evidence.NOTHING
        self.leaves_doubt = self.is_content_reply_awaited
        # A mail server that refuses mailrelay at MAIL has no message.
        if not self._refusals.refuses_all:
            loss.lose(self._unfinished, self._awaited, outcome.stage, text, evidence)
        events: list[Event] = [
            transaction.end(is_cut=index == 0) if transaction.is_decided else Untried(transaction.key, self.goes_on)
            for index, transaction in enumerate(self._unfinished)
        ]
        self._is_over = True
        self._content = None
        self._output.clear()
        for queue in (self._planned, self._awaited, self._unfinished):
            queue.clear()
        return [*events, Ended(self._refusals.end or outcome)]

    def _awaits(self, verb: Verb) -> bool:
        return bool(self._awaited) and self._awaited[0].verb is verb

    def _sending(self) -> OutgoingTransaction | None:
        """The transaction whose content is being sent, or to whose content the next reply is awaited; else None."""
        if self._content is not None and self._content.sink is self._output:
            return self._content.transaction
        return self._awaited[0].transaction if self._awaits(Verb.CONTENT) else None

    def _stage(self) -> Stage:
        """The stage of the outcome if the conversation were lost now. Between transactions it is MAIL, the next command."""
        return self.awaiting or (Stage.CONTENT if self._sending() is not None else Stage.MAIL)

    def _wanted_content(self) -> OutgoingContent:
        if self._content is None:
            raise RuntimeError("content was sent, but none was wanted")
        return self._content
