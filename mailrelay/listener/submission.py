"""One client's connection: lines in, commands run, replies out.

A command runs in the call that received its line. The replies to all lines received together are written together, so a
pipelining client gets one answer for its group. A command becomes a task only when it has to wait; no other command of that
client runs until it has ended. A client with many commands takes turns with the others.

Promises: every content that was received whole and not refused is handed over once (`handle_DATA`), whether or not the
client stays; its answer's `told` is called once: True only if the whole reply was written to a client that had not closed
its side. Every fault of ours is a 451 with a fixed text. What is no mail client is dropped at its first line, with one
`security:` line in the log. No command is read from a client that does not read its replies.

Never: content in a log line; an await between the check that nothing follows DATA and the start of the content.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from types import coroutine
from typing import Any, cast

from mailrelay.listener import replies
from mailrelay.listener.access import Access, check_access
from mailrelay.listener.command_line import LineError, check_in_session, check_line
from mailrelay.listener.commands import COMMANDS, Command, Commands, smtp_attributes
from mailrelay.listener.reception import Reception
from mailrelay.listener.server_state import ServerState
from mailrelay.listener.transaction import IncomingTransaction
from mailrelay.mail.client_reply import ClientReply
from mailrelay.mail.outcome import Reply
from mailrelay.mail.printable import printable

log = logging.getLogger("mailrelay.listener")

COMMAND_LIMIT = 4096
"""Octets of a command line. RFC 5321 section 4.5.3.1.4 asks for 512 and room for the parameters of each extension."""
COMMANDS_AT_ONCE = 50
"""Commands of one client that run before the others have their turn."""
UNKNOWN_LIMIT = 20
"""Unknown commands in one connection."""
IDLE_LIMIT = 300.0
"""Seconds in which a client must say something (RFC 5321 section 4.5.3.2.7)."""
MIN_CONTENT_RATE = 100.0
"""Octets a second, over IDLE_LIMIT, below which a content is refused: less than on a person's worst line."""
LINGER = 5.0
"""Seconds for a client that still sends to read the last reply."""


def protocol_factory(state: ServerState) -> Callable[[], "Submission"]:
    """Makes the connections of a listener. Called on the running loop."""
    attributes = smtp_attributes(state)
    return lambda: Submission(state, attributes)


class Submission(Commands):
    """The protocol of one connection. closed: done once the connection is gone. is_over: nothing more is read from it."""

    transport: asyncio.Transport

    def __init__(self, state: ServerState, attributes: dict[str, Any]) -> None:
        super().__init__(state, attributes)
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self.is_over = False
        self._greeted = self._spoke = self._said_command = False
        self._unknown_commands = 0
        self._last_heard = self.loop.time()
        # Octets received that no command has taken yet.
        self._unread = bytearray()
        # The content that is being received; and when its rate was checked last (loop time), with its octets then.
        self._reception: Reception | None = None
        self._rate_checkpoint = (0.0, 0)
        # While a command, or the end of a content, waits for its answer from others.
        self._is_answering = False
        # Set while a command waits for the client's next line.
        self._line_waiter: asyncio.Future[bytes] | None = None
        # Set while the kernel does not take what we have written.
        self._drained: asyncio.Future[None] | None = None
        self._is_reading_paused = False
        self._is_turn_scheduled = False
        # The client sends nothing more.
        self._client_closed = False

    # What the listener asks of a connection.

    @property
    def idle_since(self) -> float | None:
        is_busy = self._is_answering or self._reception is not None or self.envelope.sender is not None
        return None if is_busy or not self._greeted else self._last_heard

    def retire(self, reply: Reply) -> None:
        if self.is_over:
            self.transport.close()
        elif self._reception is None and not self._is_answering:
            self.say_last(reply)

    def abort(self) -> None:
        self._client_closed = self.is_over = True
        self.transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._state.add(self, IDLE_LIMIT)
        # With a limit of 0, `pause_writing` tells of every octet that the kernel has not taken.
        self.transport.set_write_buffer_limits(0)
        if self._may_enter():
            # The first turn of the event loop begins to read, the second has read what came before the greeting.
            self.loop.call_soon(self.loop.call_soon, self._greet)

    def connection_lost(self, error: Exception | None) -> None:
        self._client_closed = self.is_over = True
        self._state.connections.discard(self)
        self._give_up_content("mailrelay is stopping" if self._state.stopping else "the client has gone")
        if self._line_waiter is not None:
            # As if the client had cancelled (RFC 4954 section 4).
            self._line_waiter.set_result(b"*")
            self._line_waiter = None
        self.resume_writing()
        self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._reception is not None:
            self._receive(self._reception, data)
        elif self.is_over:
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
        """The client sends nothing more. Complete commands still run; half a message is dropped."""
        self._client_closed = True
        if self._reception is not None or self.is_over:
            return False
        if self._greeted:
            self._converse()
        return True

    def pause_writing(self) -> None:
        self._drained = self.loop.create_future()

    def resume_writing(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None
            self._converse()

    # Time.

    def check_timeouts(self, now: float) -> float:
        wait = self._last_heard + IDLE_LIMIT - now
        if wait <= 0 and (self.is_over or self._drained is not None):
            self.abort()
            return IDLE_LIMIT
        reply = replies.IDLE_TOO_LONG
        if self._reception is not None and wait > 0:
            wait, reply = min(wait, self._check_rate(self._reception, now)), replies.TOO_SLOW
        # Time in which the client waits for us does not count.
        waits_for_us = self._is_answering or self._is_reading_paused
        if wait <= 0 and not waits_for_us:
            self._give_up_content(reply.text.decode())
            self.say_last(reply)
            self._last_heard = now
        return wait if wait > 0 else IDLE_LIMIT

    def _check_rate(self, reception: Reception, now: float) -> float:
        """Seconds until the rate of the content is to be checked again; 0 if it came too slowly."""
        since, received = self._rate_checkpoint
        if now < since + IDLE_LIMIT:
            return since + IDLE_LIMIT - now
        self._rate_checkpoint = (now, reception.received)
        return IDLE_LIMIT if reception.received - received >= MIN_CONTENT_RATE * (now - since) else 0.0

    # The dialogue.

    def _may_enter(self) -> bool:
        """Whether the client may use the listener; if not, it has its reply."""
        state = self._state
        if state.stopping:
            self.say_last(replies.STOPPING)
            return False
        access, account = check_access(self.transport, state.allowed)
        if access is Access.CLIENT_CLOSED:
            self.abort()
        elif access is Access.REFUSED:
            state.security(f"belongs to {account}, which allow_users does not name")
            self.say_last(replies.NOT_ALLOWED)
        elif not state.make_room():
            state.refused("connect", replies.TOO_MANY_CONNECTIONS)
            self.say_last(replies.TOO_MANY_CONNECTIONS)
        else:
            return True
        return False

    def _greet(self) -> None:
        if not self.is_over:
            self._greeted = True
            self.unsent += b"220 %s %s\r\n" % (self.hostname.encode(), self.__ident__.encode())
            self._converse()

    def _converse(self) -> None:
        """Run the commands received, until one waits or others have their turn, then write the replies."""
        remaining = COMMANDS_AT_ONCE
        while not (self.is_over or self._is_answering or self._reception is not None or self._drained is not None):
            if self._state.stopping:
                self.say_last(replies.STOPPING)
                return
            end = self._unread.find(b"\n", 0, COMMAND_LIMIT)
            if end < 0:
                if len(self._unread) >= COMMAND_LIMIT:
                    self.say(replies.LINE_TOO_LONG)
                    self._close_after_client()
                elif self._client_closed:
                    self._hang_up()
                break
            if remaining == 0:
                self._schedule_turn()
                break
            remaining -= 1
            line = bytes(self._unread[:end]).removesuffix(b"\r")
            del self._unread[: end + 1]
            self._last_heard = self.loop.time()
            if self._line_waiter is not None:
                self._line_waiter.set_result(line)
                self._line_waiter, self._is_answering = None, True
            elif (command := self._command(line)) is not None:
                self._run(command)
        self._write()
        if self._is_reading_paused or len(self._unread) >= COMMAND_LIMIT:
            self._pause_or_resume_reading()

    def _schedule_turn(self) -> None:
        """Go on with the dialogue once others have had their turn."""
        if not self._is_turn_scheduled:
            self._is_turn_scheduled = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_turn_scheduled = False
        self._converse()

    def _pause_or_resume_reading(self) -> None:
        # More than one line is left only while a command waits, or while others have their turn.
        pause = len(self._unread) >= COMMAND_LIMIT or (self._reception is not None and self._reception.is_full)
        if pause == self._is_reading_paused or self.transport.is_closing():
            return
        self._is_reading_paused = pause
        if pause:
            self.transport.pause_reading()
            return
        self.transport.resume_reading()
        # Until now the client had to wait for us.
        self._last_heard = self.loop.time()
        if self._reception is not None:
            self._rate_checkpoint = (self._last_heard, self._reception.received)

    def _command(self, line: bytes) -> Command | None:
        """The coroutine of the command in a line; None if the line has been answered already."""
        verb, _, arg = line.partition(b" ")
        verb = verb.upper()
        command = COMMANDS.get(verb)
        mistake = check_line(line, verb, command is not None, bool(self._unread))
        if command is not None and mistake is None:
            self._said_command = True
            # As aiosmtpd does it: None for no argument, octets that are not UTF-8 as surrogates.
            return command(self, arg.strip(b" ").decode("utf-8", "surrogateescape") or None)
        kind = check_in_session(
            verb, mistake or LineError.UNKNOWN, not self._said_command, self.envelope.is_data_refused
        )
        self._answer_mistake(kind, verb, line)
        return None

    def _answer_mistake(self, kind: LineError, verb: bytes, line: bytes) -> None:
        if kind is LineError.CONTENT:
            # None of it is a command.
            self.say(replies.CONTENT_AFTER_REFUSAL)
            self._close_after_client()
        elif kind is LineError.NOT_SMTP:
            # Where a login is offered, a later line may be a password that is not encoded.
            may_be_secret = self._said_command and self._state.settings.auth == "ignore"
            self._drop("does not speak SMTP", b"" if may_be_secret else line)
        elif kind is LineError.EARLY:
            self._drop(f"did not wait for the reply to {verb.decode()}", reply=replies.DID_NOT_WAIT)
        else:
            self._unknown_commands += 1
            if self._unknown_commands >= UNKNOWN_LIMIT:
                self.say_last(replies.TOO_MANY_UNKNOWN)
            else:
                self.say(replies.UNKNOWN_COMMAND if kind is LineError.UNKNOWN else replies.BAD_COMMAND)

    def _run(self, command: Command) -> None:
        """Run a command now; if it has to wait, the rest of it runs as a task."""
        try:
            waits_for = command.send(None)
        except StopIteration:
            return
        except Exception as error:
            self.say(self._recover_from(error))
        else:
            self._is_answering = self._line_waiter is None
            self._start(self._answer(_rest(command, waits_for)))

    def _recover_from(self, error: Exception) -> Reply:
        """Log the failure of a command and reset the transaction; the reply."""
        log.error("a command failed: %s", printable(repr(error), 300))
        self.envelope = self._create_envelope()
        return replies.OUR_TROUBLE

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` to its end, whether or not the client stays."""
        task = self.loop.create_task(work)
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)
        return task

    async def _answer(self, answering: Coroutine[Any, Any, None]) -> None:
        """Run nothing else of the client's until `answering` has ended."""
        try:
            await answering
        except Exception as error:
            self.say(self._recover_from(error))
        finally:
            self._is_answering = False
            self._last_heard = self.loop.time()
            self._converse()

    async def next_line(self) -> bytes:
        if self._client_closed and b"\n" not in self._unread:
            return b"*"
        waiter: asyncio.Future[bytes] = self.loop.create_future()
        self._line_waiter = waiter
        self._is_answering = False
        self._write()
        if self._unread:
            # It may have come with the line before.
            self._schedule_turn()
        return await waiter

    # Content.

    def begin_content(self) -> None:
        if self._client_closed:
            self.say_last(replies.CLOSED_BEFORE_CONTENT)
            return
        self._reception = Reception(
            self._state.settings.max_message_size,
            lambda: self._state.intake.new_incoming(self.envelope.complete()),
            self._start,
            self._pause_or_resume_reading,
        )
        self._rate_checkpoint = (self.loop.time(), 0)
        self.say(replies.START_CONTENT)

    def _receive(self, reception: Reception, data: bytes) -> None:
        """Take octets of a content; octets behind its end go back to the dialogue."""
        self._last_heard = self.loop.time()
        leftover = reception.feed(data)
        if leftover is not None:
            transaction, self.envelope, self._reception = self.envelope, self._create_envelope(), None
            self._is_answering = True
            self._start(self._answer(self._conclude(transaction, reception)))
            self._unread += leftover
        if self._is_reading_paused or reception.is_full or len(self._unread) >= COMMAND_LIMIT:
            self._pause_or_resume_reading()

    def _give_up_content(self, why: str) -> None:
        """Drop the content that is being received, if there is one, and log it."""
        if self._reception is not None:
            self._state.broken_off(self._reception.received, why, cast(bytes, self.envelope.sender))
            self._reception.give_up()
            self._reception = None

    async def _conclude(self, transaction: IncomingTransaction, reception: Reception) -> None:
        """Hand a message over, reply, and call `told`."""
        try:
            answer = await self._answer_to(transaction, reception)
            told = False
            try:
                told = await self._say_whole(answer.reply)
            finally:
                answer.told(told)
        except Exception as error:
            log.error("an answer could not be told: %s", printable(repr(error), 300))
        finally:
            if reception.is_ambiguous:
                self._close_after_client()

    async def _answer_to(self, transaction: IncomingTransaction, reception: Reception) -> ClientReply:
        try:
            if reception.own_refusal is not None:
                self._state.refused("content", reception.own_refusal, transaction.sender)
            refusal = await reception.conclude()
            if refusal is not None:
                return ClientReply(refusal)
            transaction.incoming, transaction.content = reception.incoming, reception.rest()
            return cast(ClientReply, await self.event_handler.handle_DATA(self, self.session, transaction))
        except Exception as error:
            log.error("a message could not be taken over: %s", printable(repr(error), 300))
            return ClientReply(replies.OUR_TROUBLE)

    # Writing.

    async def _say_whole(self, reply: Reply) -> bool:
        """Write `reply` and wait until the kernel has it whole; whether a client was there to read it."""
        self.say(reply)
        self._write()
        if self._drained is not None:
            await self._drained
        return not (self._client_closed or self.transport.is_closing())

    def say_last(self, reply: Reply) -> None:
        self.say(reply)
        self._hang_up()

    def _hang_up(self) -> None:
        """Write the pending replies, then close."""
        self.is_over = True
        self._write()
        self.transport.close()

    def _close_after_client(self) -> None:
        """Close once the client has stopped sending: closing earlier would reset the connection and lose the reply."""
        if self._client_closed or self._state.stopping or self.transport.is_closing():
            self._hang_up()
            return
        self.is_over = True
        self._unread.clear()
        self._write()
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.abort)

    def _write(self) -> None:
        unsent, self.unsent = self.unsent, bytearray()
        if unsent and not self.transport.is_closing():
            self.transport.write(unsent)

    def _drop(self, why: str, said: bytes = b"", reply: Reply = replies.GO_AWAY) -> None:
        """Close with `reply`, and one `security:` line in the log."""
        if not self.is_over:
            # The first word tells what it is. What follows may be a line of somebody's letter.
            self._state.security(why, b"".join(said.split(maxsplit=1)[:1]))
            self.say_last(reply)


@coroutine
def _resumed(command: Command, waits_for: Any) -> Generator[Any, Any, None]:
    # The command finds out for itself how that has ended.
    with suppress(Exception, asyncio.CancelledError):
        yield waits_for
    yield from command


async def _rest(command: Command, waits_for: Any) -> None:
    """The rest of a command that was begun outside of a task, for a task."""
    await _resumed(command, waits_for)
