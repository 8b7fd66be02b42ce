"""One client's connection: the dialogue of a submission, straight from the octets to the replies.

A command is obeyed within the call in which its line came in, and the replies to all lines that came together leave
together: a client that pipelines gets one answer for its group, and no command costs a turn of the event loop. Only what
waits for others is a task; until it has ended, the dialogue stands still.

Promises: `submit` of the intake is called once for every content that was received whole and not refused, runs to its end
whether or not the client stays, and its answer is told exactly once: True only if the reply went out whole to a client
that had not closed its side. Every trouble of ours is a 451 with a fixed text. What is no mail client is dropped at its
first line, with one `security:` line in the log. A client that does not read its replies is not listened to.

Never: content or addresses in a log line; an await between the last look for octets that came too early and the moment
from which octets are content.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine
from typing import Any, cast

from mailrelay.listener import replies
from mailrelay.listener.content import ContentReceiver
from mailrelay.listener.door import LAST_IN_GROUP, may_enter, speaks_http
from mailrelay.listener.shared import Shared
from mailrelay.listener.transaction import Transaction
from mailrelay.mail.answer import Answer
from mailrelay.mail.outcome import Reply
from mailrelay.mail.printable import printable

log = logging.getLogger("mailrelay.listener")

COMMAND_LIMIT = 4096
"""Octets of a command line. RFC 5321 section 4.5.3.1.4 asks for 512 and room for the parameters of each extension."""
UNKNOWN_LIMIT = 20
"""Commands that nobody knows, in one connection."""
IDLE_LIMIT = 300.0
"""Seconds in which a client must say something (RFC 5321 section 4.5.3.2.7)."""
LINGER = 5.0
"""Seconds for a client that is sending still to read why nobody listens any more."""
VETTING = 1.0
"""Seconds that the recipients of a mail, all together, may wait for a word on them."""
CONTENT_IN_MEMORY = 4
"""What all connections together may hold in content, in messages of the largest size."""

_GREETING = b"220 localhost ESMTP mailrelay\r\n"
_HELO = b"250 localhost\r\n"
_EHLO = (
    b"250-localhost\r\n250-PIPELINING\r\n250-SIZE %d\r\n250-8BITMIME\r\n"
    b"250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 DSN\r\n"
)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class Submission(asyncio.Protocol):
    """The protocol of one connection. closed: done once the connection is gone."""

    _transport: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(self, shared: Shared) -> None:
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._shared = shared
        self._transaction = Transaction()
        self._patience = VETTING
        self._greeted = self._spoke = self._said_command = self._said_hello = False
        self._unknown = 0
        self._heard = self._loop.time()
        # Octets that no command has taken yet, and replies that have not been written yet. Both grow in place: a client may
        # send commands by the ten thousand at once.
        self._unread = bytearray()
        self._unsaid = bytearray()
        # Set from the reply to DATA to the end of the content.
        self._receiver: ContentReceiver | None = None
        # From a command, or the end of a content, to its answer, where that waits for others.
        self._occupied = False
        # Set while the client's connection does not take what we have written.
        self._drained: asyncio.Future[None] | None = None
        self._left = False
        self._over = False

    def retire(self) -> None:
        """End the dialogue now, or, if there is a content in it, behind the answer to that."""
        if self._over:
            self._transport.close()
        elif self._receiver is None and not self._occupied:
            self._say_last(replies.STOPPING)

    def abort(self) -> None:
        """End the connection now."""
        self._left = self._over = True
        self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        self._timer = self._loop.call_later(IDLE_LIMIT, self._look_at_the_clock)
        self._shared.connections.add(self)
        # So that we know of every octet that the kernel has not taken.
        transport.set_write_buffer_limits(0)
        if self._may_enter():
            # One round of the event loop to begin to read, and one to have read what was there before the greeting.
            self._loop.call_soon(self._loop.call_soon, self._greet)

    def connection_lost(self, error: Exception | None) -> None:
        self._left = self._over = True
        self._timer.cancel()
        self._shared.connections.discard(self)
        if self._receiver is not None:
            self._shared.held -= self._receiver.held
            self._receiver = None
        self.resume_writing()
        self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receive(self._receiver, data)
        elif self._over:
            pass
        elif not self._greeted:
            self._drop("spoke before the greeting", data)
        elif not self._spoke and not data[:1].isalpha():
            # TLS and its like have no lines to wait for.
            self._drop("does not speak SMTP", data)
        else:
            self._spoke = True
            self._unread += data
            self._converse()

    def eof_received(self) -> bool:
        """The client has nothing more to say. What it has said is dealt with, unless it is half a message."""
        self._left = True
        if self._receiver is not None or self._over:
            return False
        if self._greeted:
            self._converse()
        return True

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None
            self._converse()

    def _look_at_the_clock(self) -> None:
        silent = self._loop.time() - self._heard
        if silent >= IDLE_LIMIT and (self._over or self._drained is not None):
            self.abort()
        elif silent < IDLE_LIMIT or self._occupied:
            # While it is we who take the time, nobody is silent.
            wait = IDLE_LIMIT - silent if silent < IDLE_LIMIT else IDLE_LIMIT
            self._timer = self._loop.call_later(wait, self._look_at_the_clock)
        else:
            self._timer = self._loop.call_later(IDLE_LIMIT, self._look_at_the_clock)
            self._say_last(replies.IDLE_TOO_LONG)

    # The dialogue.

    def _may_enter(self) -> bool:
        """Whether this client may speak to us; if not, it has been told why."""
        if self._shared.stopping:
            self._say_last(replies.STOPPING)
        elif len(self._shared.connections) > self._shared.settings.max_connections:
            self._say_last(replies.TOO_MANY_CONNECTIONS)
        elif not may_enter(self._transport.get_extra_info("socket"), self._shared.allowed):
            self._shared.security("belongs to no account that allow_users names")
            self._say_last(replies.NOT_ALLOWED)
        else:
            return True
        return False

    def _greet(self) -> None:
        if not self._over:
            self._greeted = True
            self._unsaid += _GREETING
            self._converse()

    def _converse(self) -> None:
        """Obey what has come, as far as that goes without waiting, and say what there is to say."""
        while not (self._over or self._occupied or self._receiver is not None or self._drained is not None):
            if self._shared.stopping:
                self._say_last(replies.STOPPING)
                return
            end = self._unread.find(b"\n", 0, COMMAND_LIMIT)
            if end < 0:
                if len(self._unread) >= COMMAND_LIMIT:
                    self._unsaid += replies.encode(replies.LINE_TOO_LONG)
                    self._stop_listening()
                elif self._left:
                    self._hang_up()
                break
            line = bytes(self._unread[:end]).removesuffix(b"\r")
            del self._unread[: end + 1]
            self._heard = self._loop.time()
            reply = self._reply_to(line)
            if reply is not None:
                self._unsaid += replies.encode(reply)
        self._write()
        # More than a line is only left where the dialogue stands still.
        if len(self._unread) >= COMMAND_LIMIT:
            self._transport.pause_reading()
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    def _reply_to(self, line: bytes) -> Reply | None:
        """The reply to a command line; None if it has been said already."""
        verb, _, arg = line.partition(b" ")
        verb = verb.upper()
        obey = _COMMANDS.get(verb)
        known = obey is not None and not _CONTROL.search(line)
        if speaks_http(verb) or not (known or self._said_command):
            self._drop("does not speak SMTP", line)
            return None
        if verb in LAST_IN_GROUP and self._unread:
            self._drop(f"did not wait for the reply to {verb.decode()}")
            return None
        self._said_command = True
        if obey is None or not known:
            self._unknown += 1
            if self._unknown < UNKNOWN_LIMIT:
                return replies.UNKNOWN_COMMAND if obey is None else replies.BAD_COMMAND
            self._say_last(replies.TOO_MANY_UNKNOWN)
            return None
        try:
            return obey(self, arg.strip(b" "))
        except Exception as error:
            return self._failed(error)

    def _failed(self, error: Exception) -> Reply:
        """The apology for a command that failed."""
        log.error("a command failed: %s", printable(repr(error), 300))
        self._transaction = Transaction()
        return replies.OUR_TROUBLE

    def _stand_still_for(self, answering: Coroutine[Any, Any, None]) -> None:
        """Obey nothing more until `answering` has ended, which it does whether or not the client stays."""
        self._occupied = True
        task = self._loop.create_task(self._go_on_after(answering))
        self._shared.answering.add(task)
        task.add_done_callback(self._shared.answering.discard)

    async def _go_on_after(self, answering: Coroutine[Any, Any, None]) -> None:
        try:
            await answering
        except Exception as error:
            self._unsaid += replies.encode(self._failed(error))
        finally:
            self._occupied = False
            self._heard = self._loop.time()
            self._converse()

    def _hello(self, arg: bytes) -> Reply | None:
        if not arg:
            return replies.HELLO_SYNTAX
        self._said_hello = True
        self._transaction = Transaction()
        return None

    def _ehlo(self, arg: bytes) -> Reply | None:
        refusal = self._hello(arg)
        if refusal is None:
            self._unsaid += _EHLO % self._shared.settings.max_message_size
        return refusal

    def _helo(self, arg: bytes) -> Reply | None:
        refusal = self._hello(arg)
        if refusal is None:
            self._unsaid += _HELO
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
        # Who does not wait for the remote's word on a mail does not wait for one on its recipients.
        self._patience = min(VETTING, self._shared.settings.answer_within)
        self._shared.intake.begun(envelope.sender)
        return reply

    def _rcpt(self, arg: bytes) -> Reply | None:
        reply = self._transaction.rcpt(arg)
        if reply is not replies.RECIPIENT_OK or self._patience <= 0:
            return reply
        self._stand_still_for(self._vet())
        return None

    async def _vet(self) -> None:
        began = self._loop.time()
        refusal = await self._shared.intake.vet(self._transaction.latest(), self._patience)
        self._patience -= self._loop.time() - began
        if refusal is not None:
            self._transaction.withdraw()
        self._unsaid += replies.encode(refusal or replies.RECIPIENT_OK)

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

    def _data(self, arg: bytes) -> Reply | None:
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
        return replies.START_CONTENT

    def _receive(self, receiver: ContentReceiver, data: bytes) -> None:
        """Take octets of a content, and leave what comes behind its end to the dialogue."""
        self._heard = self._loop.time()
        held = receiver.held
        leftover = receiver.feed(data)
        if self._shared.held + receiver.held - held > CONTENT_IN_MEMORY * self._shared.settings.max_message_size:
            receiver.refuse(replies.NO_ROOM)
        self._shared.held += receiver.held - held
        if leftover is not None:
            self._receiver = None
            self._stand_still_for(self._conclude(self._transaction, receiver))
            self._transaction = Transaction()
            self._unread += leftover

    async def _conclude(self, transaction: Transaction, receiver: ContentReceiver) -> None:
        """Hand a message over, answer the client, and say whether it got the answer."""
        held = receiver.held
        try:
            answer = await self._answer_to(transaction, receiver)
            told = False
            try:
                told = await self._say(answer.reply)
            finally:
                answer.told(told)
        except Exception as error:
            log.error("an answer could not be told: %s", printable(repr(error), 300))
        finally:
            self._shared.held -= held
            if receiver.ambiguous:
                self._stop_listening()

    async def _answer_to(self, transaction: Transaction, receiver: ContentReceiver) -> Answer:
        if receiver.refusal is not None:
            return Answer(receiver.refusal)
        try:
            return await self._shared.intake.submit(transaction.complete(), receiver.content())
        except Exception as error:
            log.error("a message could not be taken over: %s", printable(repr(error), 300))
            return Answer(replies.OUR_TROUBLE)

    # Writing.

    async def _say(self, reply: Reply) -> bool:
        """Write `reply` and wait until the client's connection has it whole; whether a client was there to read it."""
        self._unsaid += replies.encode(reply)
        self._write()
        if self._drained is not None:
            await self._drained
        return not (self._left or self._transport.is_closing())

    def _say_last(self, reply: Reply) -> None:
        """Write `reply` and close the connection behind it."""
        self._unsaid += replies.encode(reply)
        self._hang_up()

    def _hang_up(self) -> None:
        """Close the connection behind what there is to say."""
        self._over = True
        self._write()
        self._transport.close()

    def _stop_listening(self) -> None:
        """Close the connection once the client has stopped sending: closed before, what comes would reset it, and the reply
        be lost."""
        if self._left or self._shared.stopping or self._transport.is_closing():
            self._hang_up()
            return
        self._over = True
        self._unread.clear()
        self._write()
        self._transport.write_eof()
        self._timer.cancel()
        self._timer = self._loop.call_later(LINGER, self.abort)

    def _write(self) -> None:
        unsaid, self._unsaid = self._unsaid, bytearray()
        if unsaid and not self._transport.is_closing():
            self._transport.write(unsaid)

    def _drop(self, why: str, said: bytes = b"") -> None:
        """Be rid of what is no mail client."""
        if not self._over:
            # The first word tells what it is. What follows may be a line of somebody's letter.
            self._shared.security(why, b"".join(said.split(maxsplit=1)[:1]))
            self._say_last(replies.GO_AWAY)


def _always(reply: Reply) -> Callable[[Submission, bytes], Reply]:
    return lambda _submission, _arg: reply


_COMMANDS: dict[bytes, Callable[[Submission, bytes], Reply | None]] = {
    b"EHLO": Submission._ehlo,
    b"HELO": Submission._helo,
    b"MAIL": Submission._mail,
    b"RCPT": Submission._rcpt,
    b"DATA": Submission._data,
    b"RSET": Submission._rset,
    b"QUIT": Submission._quit,
    b"NOOP": _always(replies.OK),
    b"HELP": _always(replies.HELP),
    b"VRFY": _always(replies.CANNOT_VERIFY),
    b"EXPN": _always(replies.NOT_OFFERED),
    b"AUTH": _always(replies.NOT_OFFERED),
    b"STARTTLS": _always(replies.NOT_OFFERED),
}
