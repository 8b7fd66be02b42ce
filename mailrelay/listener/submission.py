"""One client's connection: the dialogue of a submission, on top of aiosmtpd's SMTP protocol.

From aiosmtpd come the protocol, its streams and the idle timer. The loop over commands, the parsing of MAIL and RCPT and
DATA are ours: its own take addresses for header text, CR and LF for content, and exceptions for permanent errors.

Promises: `submit` of the intake is called once for every content that was received whole and not refused, runs to its end
whether or not the client stays, and its answer is told exactly once: True only if the reply went out whole to a client
that had not closed its side. Every trouble of ours is a 451 with a fixed text. What is no mail client is dropped at its
first line, with one `security:` line in the log.

Never: content or addresses in a log line; an await between the last look for octets that came too early and the moment
from which octets are content.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from aiosmtpd.smtp import SMTP

from mailrelay.config import Listen
from mailrelay.listener import replies
from mailrelay.listener.content import ContentReceiver
from mailrelay.listener.door import LAST_IN_GROUP, may_enter, speaks_http
from mailrelay.listener.transaction import Transaction
from mailrelay.mail.answer import Answer
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Reply
from mailrelay.mail.printable import printable

log = logging.getLogger("mailrelay.listener")

COMMAND_LIMIT = 4096
"""Octets of a command line. RFC 5321 section 4.5.3.1.4 asks for 512 and room for the parameters of each extension."""
UNKNOWN_LIMIT = 20
"""Commands that nobody knows, in one connection."""
IDLE_LIMIT = 300.0
"""Seconds in which a client must say something (RFC 5321 section 4.5.3.2.7)."""
VETTING = 1.0
"""Seconds that the recipients of a mail, all together, may wait for a word on them."""
CONTENT_IN_MEMORY = 4
"""What all connections together may hold in content, in messages of the largest size."""
SECURITY_LINES = 20
"""Lines in the log, in a minute, about who was sent away."""

_GREETING = b"220 localhost ESMTP mailrelay\r\n"
_HELO = b"250 localhost\r\n"
_EHLO = (
    b"250-localhost\r\n250-PIPELINING\r\n250-SIZE %d\r\n250-8BITMIME\r\n"
    b"250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 DSN\r\n"
)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class Intake(Protocol):
    """Takes mail over."""

    def begun(self, reverse_path: bytes) -> None:
        """A client's MAIL was accepted: there will be mail in a moment."""

    def refusal(self) -> Reply | None:
        """Why nothing can be taken now, a 4xx; None if mail can be taken. Asked at every MAIL."""

    async def vet(self, envelope: Envelope, patience: float) -> Reply | None:
        """Why an envelope with one recipient, the latest of RCPT, would be refused; None if it is not, or if that does not
        show within `patience` seconds."""

    async def submit(self, envelope: Envelope, content: bytes) -> Answer:
        """Take a message over; returns once it is safe and the client is to be answered. content: lines end with CRLF,
        no dots of transparency. Any exception is answered with 451."""


@dataclass(slots=True)
class Shared:
    """What the connections of one listener share. held: octets of content in memory. allowed: accounts, None for any."""

    settings: Listen
    intake: Intake
    allowed: frozenset[int] | None
    connections: set["Submission"] = field(default_factory=set)
    concluding: set[asyncio.Task[None]] = field(default_factory=set)
    held: int = 0
    stopping: bool = False
    minute: int = 0
    lines: int = 0

    def security(self, why: str, said: bytes = b"") -> None:
        """Log who was sent away, once a connection, and not more than anybody reads."""
        minute = int(asyncio.get_running_loop().time() // 60)
        if minute != self.minute:
            if self.lines > SECURITY_LINES:
                log.warning("security: %d more connections were dropped", self.lines - SECURITY_LINES)
            self.minute, self.lines = minute, 0
        self.lines += 1
        if self.lines <= SECURITY_LINES:
            log.warning(
                "security: connection dropped, the client %s%s", why, f": {printable(said[:80])}" if said else ""
            )


class Submission(SMTP):
    """The protocol of one connection."""

    line_length_limit = COMMAND_LIMIT

    def __init__(self, shared: Shared) -> None:
        super().__init__(
            None, hostname="localhost", ident="mailrelay", timeout=IDLE_LIMIT, loop=asyncio.get_running_loop()
        )
        self._shared = shared
        self._transaction = Transaction()
        self._patience = VETTING
        self._greeted = self._spoke = self._said_hello = False
        # Octets that no command has taken yet.
        self._unread = 0
        # Set from the reply to DATA to the end of the content; from there on its answer is owed.
        self._receiver: ContentReceiver | None = None
        self._concluded: asyncio.Future[None] = self.loop.create_future()
        self._answer_owed = False
        self._left = False
        self._over = False

    @property
    def handler(self) -> asyncio.Task[None] | None:
        """Ends when the dialogue does."""
        return self._handler_coroutine

    def retire(self) -> None:
        """End the dialogue now, or, if there is a content in it, behind the answer to that."""
        if self._receiver is None and not self._answer_owed:
            self._say_last(replies.STOPPING)

    def abort(self) -> None:
        """End the connection now."""
        self._writer.transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._shared.connections.add(self)
        # So that a drain means that the kernel has it all.
        self._writer.transport.set_write_buffer_limits(0)

    def connection_lost(self, error: Exception | None) -> None:
        self._left = True
        self._shared.connections.discard(self)
        if self._receiver is not None:
            self._shared.held -= self._receiver.held
            self._receiver = None
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receive(self._receiver, data)
        elif not self._greeted:
            self._drop("spoke before the greeting", data)
        elif not self._spoke and not data[:1].isalpha():
            # TLS and its like have no lines to wait for.
            self._drop("does not speak SMTP", data)
        else:
            self._spoke = True
            self._unread += len(data)
            super().data_received(data)

    def eof_received(self) -> bool:
        """The client has nothing more to say. What it has said is dealt with, unless it is half a message."""
        self._left = True
        if self._receiver is not None:
            return False
        self._reader.feed_eof()
        return True

    def _timeout_cb(self) -> None:
        if self._writer.transport.get_write_buffer_size():
            self.abort()
        elif self._answer_owed:
            # It is we who take the time.
            self._reset_timeout()
        else:
            self._say_last(replies.IDLE_TOO_LONG)

    # The dialogue.

    async def _handle_client(self) -> None:
        try:
            if await self._enter():
                await self._converse()
        except (ConnectionError, asyncio.IncompleteReadError):
            # The client has gone.
            pass
        finally:
            self._writer.close()

    async def _enter(self) -> bool:
        """Greet the client, or say why not."""
        if len(self._shared.connections) > self._shared.settings.max_connections:
            self._say_last(replies.TOO_MANY_CONNECTIONS)
            return False
        if not may_enter(self._writer.get_extra_info("socket"), self._shared.allowed):
            self._shared.security("belongs to an account that allow_users does not name")
            self._say_last(replies.NOT_ALLOWED)
            return False
        # One round of the event loop to begin to read, and one to have read what was there before the greeting.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if self._over:
            return False
        self._greeted = True
        self._writer.write(_GREETING)
        return True

    async def _converse(self) -> None:
        unknown = 0
        first = True
        while not self._over:
            if self._shared.stopping:
                self._say_last(replies.STOPPING)
                return
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                self._say_last(replies.LINE_TOO_LONG)
                return
            self._unread -= len(line)
            self._reset_timeout()
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            verb, _, arg = line.partition(b" ")
            verb = verb.upper()
            known = verb in _KNOWN and not _CONTROL.search(line)
            if speaks_http(verb) or (first and not known):
                self._drop("does not speak SMTP", line)
                return
            if verb in LAST_IN_GROUP and self._unread:
                self._drop(f"did not wait for the reply to {verb.decode()}")
                return
            first = False
            if known:
                reply = await self._obey_or_apologise(verb, arg.strip(b" "))
            else:
                unknown += 1
                reply = replies.BAD_COMMAND if verb in _KNOWN else replies.UNKNOWN_COMMAND
            if unknown >= UNKNOWN_LIMIT:
                self._say_last(replies.TOO_MANY_UNKNOWN)
            elif reply is not None:
                self._writer.write(replies.encode(reply))
            await self._writer.drain()

    async def _obey_or_apologise(self, verb: bytes, arg: bytes) -> Reply | None:
        """The reply to a command; None if it has been written."""
        try:
            if verb == b"DATA":
                return await self._data(arg)
            if verb == b"RCPT":
                return await self._rcpt(arg)
            return _COMMANDS[verb](self, arg)
        except Exception as error:
            if isinstance(error, ConnectionError):
                raise
            log.error("a command failed: %s", printable(repr(error), 300))
            self._transaction = Transaction()
            return replies.OUR_TROUBLE

    def _hello(self, arg: bytes) -> Reply | None:
        if not arg:
            return replies.HELLO_SYNTAX
        self._said_hello = True
        self._transaction = Transaction()
        return None

    def _ehlo(self, arg: bytes) -> Reply | None:
        refusal = self._hello(arg)
        if refusal is None:
            self._writer.write(_EHLO % self._shared.settings.max_message_size)
        return refusal

    def _helo(self, arg: bytes) -> Reply | None:
        refusal = self._hello(arg)
        if refusal is None:
            self._writer.write(_HELO)
        return refusal

    def _mail(self, arg: bytes) -> Reply:
        if not self._said_hello:
            return replies.HELLO_FIRST
        reply = self._transaction.mail(arg, self._shared.settings.max_message_size)
        envelope = self._transaction.envelope
        if reply is not replies.SENDER_OK or envelope is None:
            return reply
        trouble = self._shared.intake.refusal()
        if trouble is not None:
            self._transaction = Transaction()
            return trouble
        self._patience = VETTING
        self._shared.intake.begun(envelope.sender)
        return reply

    async def _rcpt(self, arg: bytes) -> Reply:
        reply = self._transaction.rcpt(arg)
        if reply is not replies.RECIPIENT_OK or self._patience <= 0:
            return reply
        began = self.loop.time()
        refusal = await self._shared.intake.vet(self._transaction.latest(), self._patience)
        self._patience -= self.loop.time() - began
        if refusal is not None:
            self._transaction.withdraw()
        return refusal or reply

    def _rset(self, arg: bytes) -> Reply:
        if arg:
            return replies.NO_ARGUMENT
        self._transaction = Transaction()
        return replies.OK

    def _quit(self, arg: bytes) -> Reply | None:
        if arg:
            return replies.NO_ARGUMENT
        self._say_last(replies.BYE)
        return None

    # Content.

    async def _data(self, arg: bytes) -> Reply | None:
        if arg:
            return replies.NO_ARGUMENT
        if self._transaction.envelope is None:
            return replies.MAIL_FIRST
        if not self._transaction.recipients:
            return replies.NO_RECIPIENTS
        if self._left:
            # It cannot send a content any more.
            self._say_last(replies.STOPPING)
            return None
        self._receiver = ContentReceiver(self._shared.settings.max_message_size)
        self._shared.held += self._receiver.held
        self._concluded = self.loop.create_future()
        await self._say(replies.START_CONTENT)
        await self._concluded
        return None

    def _receive(self, receiver: ContentReceiver, data: bytes) -> None:
        """Take octets of a content, and hand what comes behind its end to the loop over commands."""
        self._reset_timeout()
        held = receiver.held
        leftover = receiver.feed(data)
        if self._shared.held + receiver.held - held > CONTENT_IN_MEMORY * self._shared.settings.max_message_size:
            receiver.refuse(replies.NO_ROOM)
        self._shared.held += receiver.held - held
        if leftover is not None:
            self._receiver = None
            self._answer_owed = True
            # Not the handler's, which is cancelled when the client goes.
            conclusion = self.loop.create_task(self._conclude(self._transaction, receiver))
            self._shared.concluding.add(conclusion)
            conclusion.add_done_callback(self._shared.concluding.discard)
            self._transaction = Transaction()
            if leftover:
                self._unread += len(leftover)
                super().data_received(leftover)

    async def _conclude(self, transaction: Transaction, receiver: ContentReceiver) -> None:
        """Hand a message over, answer the client, say whether it got the answer, and let the dialogue go on."""
        held = receiver.held
        try:
            answer = await self._answer_to(transaction, receiver)
            told = False
            try:
                await self._say(answer.reply)
                told = not self._left
            except ConnectionError:
                pass
            finally:
                answer.told(told)
        except Exception as error:
            log.error("an answer could not be told: %s", printable(repr(error), 300))
        finally:
            self._shared.held -= held
            self._answer_owed = False
            if receiver.ambiguous:
                self._over = True
            if not self._concluded.done():
                self._concluded.set_result(None)

    async def _answer_to(self, transaction: Transaction, receiver: ContentReceiver) -> Answer:
        if receiver.refusal is not None:
            return Answer(receiver.refusal)
        try:
            return await self._shared.intake.submit(transaction.complete(), receiver.content())
        except Exception as error:
            log.error("a message could not be taken over: %s", printable(repr(error), 300))
            return Answer(replies.OUR_TROUBLE)

    # Writing.

    async def _say(self, reply: Reply) -> None:
        """Write `reply` and wait until the client's connection has it whole. Raises ConnectionError."""
        self._writer.write(replies.encode(reply))
        await self._writer.drain()

    def _say_last(self, reply: Reply) -> None:
        """Write `reply` and close the connection behind it."""
        self._over = True
        self._writer.write(replies.encode(reply))
        self._writer.close()

    def _drop(self, why: str, said: bytes = b"") -> None:
        """Be rid of what is no mail client."""
        if not self._over:
            self._shared.security(why, said)
            self._say_last(replies.GO_AWAY)


def _always(reply: Reply) -> Callable[[Submission, bytes], Reply]:
    return lambda _submission, _arg: reply


_COMMANDS: dict[bytes, Callable[[Submission, bytes], Reply | None]] = {
    b"EHLO": Submission._ehlo,
    b"HELO": Submission._helo,
    b"MAIL": Submission._mail,
    b"RSET": Submission._rset,
    b"QUIT": Submission._quit,
    b"NOOP": _always(replies.OK),
    b"HELP": _always(replies.HELP),
    b"VRFY": _always(replies.CANNOT_VERIFY),
    b"EXPN": _always(replies.NOT_OFFERED),
    b"AUTH": _always(replies.NOT_OFFERED),
    b"STARTTLS": _always(replies.NOT_OFFERED),
}
_KNOWN = _COMMANDS.keys() | {b"RCPT", b"DATA"}
