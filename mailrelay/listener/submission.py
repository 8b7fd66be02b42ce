"""One client's connection: octets in, commands run, contents received.

A command runs in the call that received its line. The replies to all lines received together are written together, so a
pipelining client gets one write for its group. A command becomes a task only when it has to wait; no other command of that
client runs until it has ended. A client with many commands takes turns with the others.

Promises: every content that was received whole and not refused is handed over once (`handle_DATA`), even if the client
closes the connection before the reply. `ClientReply.told` is called once: with True only if the whole reply was written to a
client that had not closed its side. Every internal error is a 451 with a fixed text. A connection whose first line is not
SMTP is dropped, with one `security:` line in the log. No command is read from a client that does not read its replies.

Never: content in a log line; an await between the check that nothing follows DATA and the start of the content.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, cast

from mailrelay.listener import replies
from mailrelay.listener.access import Access, check_access, is_on, owner
from mailrelay.listener.command_line import LineError, check_in_session, check_line
from mailrelay.listener.commands import BY_VERB, Command, Commands, smtp_attributes
from mailrelay.listener.connection import BUSY, COMMANDS, CONNECTED, CONTENT, GREETED, OVER
from mailrelay.listener.first_step import run_first_step
from mailrelay.listener.reception import Reception
from mailrelay.listener.server_state import ServerState
from mailrelay.listener.transaction import IncomingTransaction
from mailrelay.mail.outcome import Reply
from mailrelay.mail.printable import printable

log = logging.getLogger("mailrelay.listener")

MAX_COMMAND = 4096
"""Octets of a command line with its line end, at most. RFC 5321 section 4.5.3.1.4 requires at least 512, and more for the
parameters of each extension."""
COMMANDS_AT_ONCE = 50
"""Commands of one client that run before commands of other clients may run."""
MAX_UNKNOWN = 20
"""Unknown or malformed commands in one connection after which it is closed."""
MAX_IDLE = 300.0
"""Seconds in which a client must send something (RFC 5321 section 4.5.3.2.7). The rate of a content is measured over the
same time."""


def protocol_factory(state: ServerState) -> Callable[[], "Submission"]:
    """A function that makes the protocol of each new connection. To be called on the running loop."""
    made = (state.settings, smtp_attributes(state))

    def protocol() -> Submission:
        nonlocal made
        if made[0] is not state.settings:
            # A reload has changed them.
            made = (state.settings, smtp_attributes(state))
        return Submission(state, made[1])

    return protocol


class Submission(Commands):
    """The protocol of one connection: it passes the octets received to the commands or to the content."""

    def __init__(self, state: ServerState, attributes: dict[str, Any]) -> None:
        super().__init__(state, attributes)
        # Whether a line was a valid command: before that, a bad line means that the client speaks another protocol.
        self._has_sent_command = False
        self._unknown_commands = 0
        # Loop time at which the client last sent something, or at which its last wait for us ended.
        self._last_heard = self.loop.time()
        # The content that is being received, in the phase CONTENT.
        self._reception: Reception | None = None
        # Set while a command waits for the client's next line.
        self._line_waiter: asyncio.Future[bytes] | None = None
        self._is_reading_paused = False
        self._is_turn_scheduled = False

    # Called by `ServerState` and `Listening`: see `server_state.ClientConnection`.

    @property
    def idle_since(self) -> float | None:
        is_idle = self._phase in (GREETED, COMMANDS) and self.envelope.sender is None
        return self._last_heard if is_idle else None

    def retire(self, reply: Reply) -> None:
        if self._phase is OVER:
            self.transport.close()
        elif self._phase not in (BUSY, CONTENT):
            self.reply_and_close(reply)

    # Called by the event loop: see `asyncio.Protocol`.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._state.add(self, MAX_IDLE)
        # With a limit of 0, `pause_writing` is called for every octet that the kernel has not accepted.
        self.transport.set_write_buffer_limits(0)
        if self._admit():
            # Greet two turns of the event loop later: by then, octets that the client sent too early have been read.
            self.loop.call_soon(self.loop.call_soon, self._greet)

    def connection_lost(self, error: Exception | None) -> None:
        self._client_closed, self._phase = True, OVER
        self._state.connections.discard(self)
        self._give_up_content("mailrelay is stopping" if self._state.stopping else "the client has gone")
        if self._line_waiter is not None:
            # As if the client had cancelled (RFC 4954 section 4).
            self._line_waiter.set_result(b"*")
            self._line_waiter = None
        self.resume_writing()
        self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._phase is CONTENT and self._reception is not None:
            self._receive_content(self._reception, data)
        elif self._phase is COMMANDS or self._phase is BUSY:
            self._unread += data
            self._run_commands()
        elif self._phase is GREETED:
            self._receive_first_octets(data)
        elif self._phase is CONNECTED:
            self._drop("spoke before the greeting", data)

    def eof_received(self) -> bool:
        """The client sends nothing more. Complete commands still run; an incomplete content is dropped.

        Returns False to have the transport closed now, True to keep it open for the replies.
        """
        self._client_closed = True
        if self._phase in (CONTENT, OVER):
            return False
        if self._phase is GREETED:
            self._phase = COMMANDS
        if self._phase is not CONNECTED:
            self._run_commands()
        return True

    def pause_writing(self) -> None:
        self._drained = self.loop.create_future()

    def resume_writing(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None
            self._run_commands()

    # Time-outs.

    def check_timeouts(self, now: float) -> float:
        wait = self._last_heard + MAX_IDLE - now
        if wait <= 0 and (self.is_over or self._drained is not None):
            # Send no reply: the client reads no replies, or the last one was sent already.
            self.abort()
            return MAX_IDLE
        reply = replies.IDLE_TOO_LONG
        if self._reception is not None and wait > 0:
            wait, reply = min(wait, self._reception.check_rate(now, MAX_IDLE)), replies.TOO_SLOW
        # Time in which the client waits for us does not count.
        waits_for_us = self._phase is BUSY or self._is_reading_paused
        if wait <= 0 and not waits_for_us:
            self._give_up_content(reply.text.decode())
            self.reply_and_close(reply)
            self._last_heard = now
        return wait if wait > 0 else MAX_IDLE

    # Commands.

    def _admit(self) -> bool:
        """Admit the client, or reply with the refusal and close. Returns whether the client was admitted. May close another
        connection, which is idle, to stay within `max_connections`."""
        state = self._state
        if state.stopping:
            self.reply_and_close(replies.STOPPING)
            return False
        everyone = state.settings.everyone
        access, account = check_access(self.transport, None if is_on(self.transport, everyone) else state.allowed)
        if everyone is not None and access is Access.ALLOWED:
            self.owner = owner(self.transport)
            self.envelope = self._create_envelope()
        if access is Access.CLIENT_CLOSED:
            self.abort()
        elif access is Access.REFUSED:
            state.log_dropped(f"belongs to {account}, which allow_users does not name")
            self.reply_and_close(replies.NOT_ALLOWED)
        elif state.is_over_share(self.owner) or not state.enforce_connection_limit():
            state.log_refusal("connect", replies.TOO_MANY_CONNECTIONS)
            self.reply_and_close(replies.TOO_MANY_CONNECTIONS)
        else:
            return True
        return False

    def _greet(self) -> None:
        if self._phase is CONNECTED:
            self._phase = COMMANDS if self._client_closed else GREETED
            self.unsent += b"220 %s %s\r\n" % (self.hostname.encode(), self.__ident__.encode())
            self._run_commands()

    def _receive_first_octets(self, data: bytes) -> None:
        if data[:1].isalpha():
            self._phase = COMMANDS
            self._unread += data
            self._run_commands()
        else:
            # TLS and similar protocols have no lines to wait for.
            self._drop("does not speak SMTP", data)

    def _run_commands(self) -> None:
        """Run the commands received until one has to wait or COMMANDS_AT_ONCE have run, then write the replies."""
        remaining, unread = COMMANDS_AT_ONCE, self._unread
        while self._phase is COMMANDS and self._drained is None:
            if self._state.stopping:
                self.reply_and_close(replies.STOPPING)
                return
            end = unread.find(b"\n", 0, MAX_COMMAND)
            if end < 0:
                if len(unread) >= MAX_COMMAND:
                    self.reply(replies.LINE_TOO_LONG)
                    self._close_after_eof()
                elif self._client_closed:
                    self._write_and_close()
                break
            if remaining == 0:
                self._schedule_turn()
                break
            remaining -= 1
            line = bytes(unread[:end]).removesuffix(b"\r")
            del unread[: end + 1]
            self._last_heard = self.loop.time()
            if self._line_waiter is not None:
                self._line_waiter.set_result(line)
                self._line_waiter, self._phase = None, BUSY
            elif (command := self._parse_command(line)) is not None:
                self._run_command(command)
        self._write()
        if self._is_reading_paused or len(self._unread) >= MAX_COMMAND:
            self._pause_or_resume_reading()

    def _schedule_turn(self) -> None:
        """Run more commands in the next turn of the event loop, after those of other clients."""
        if not self._is_turn_scheduled:
            self._is_turn_scheduled = True
            self.loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._is_turn_scheduled = False
        self._run_commands()

    def _pause_or_resume_reading(self) -> None:
        # MAX_COMMAND octets stay unread only while a command or the writing waits, or until the next turn.
        pause = len(self._unread) >= MAX_COMMAND or (self._reception is not None and self._reception.is_full)
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
            self._reception.restart_rate_check(self._last_heard)

    def _parse_command(self, line: bytes) -> Command | None:
        """The coroutine of the command in a line, not started. If the line is no command, this replies and returns None."""
        verb, _, arg = line.partition(b" ")
        verb = verb.upper()
        function = BY_VERB.get(verb)
        error = check_line(line, verb, function is not None, bool(self._unread))
        if function is not None and error is None:
            self._has_sent_command = True
            # As aiosmtpd does it: None for no argument, octets that are not UTF-8 as surrogates.
            return function(self, arg.strip(b" ").decode("utf-8", "surrogateescape") or None)
        error = check_in_session(
            verb, error or LineError.UNKNOWN, not self._has_sent_command, self.envelope.is_data_refused
        )
        self._reply_to_error(error, verb, line)
        return None

    def _reply_to_error(self, error: LineError, verb: bytes, line: bytes) -> None:
        if error is LineError.CONTENT:
            # None of the following lines is a command.
            self.reply(replies.CONTENT_AFTER_REFUSAL)
            self._close_after_eof()
        elif error is LineError.NOT_SMTP:
            # Where a login is offered, a later line may be a password that is not encoded.
            may_be_secret = self._has_sent_command and self._state.settings.auth == "ignore"
            self._drop("does not speak SMTP", b"" if may_be_secret else line)
        elif error is LineError.EARLY:
            self._drop(f"did not wait for the reply to {verb.decode()}", reply=replies.DID_NOT_WAIT)
        else:
            self._unknown_commands += 1
            if self._unknown_commands >= MAX_UNKNOWN:
                self.reply_and_close(replies.TOO_MANY_UNKNOWN)
            else:
                self.reply(replies.UNKNOWN_COMMAND if error is LineError.UNKNOWN else replies.BAD_COMMAND)

    def _run_command(self, command: Command) -> None:
        """Run a command; if it has to wait, the rest of it runs as a task."""
        try:
            rest = run_first_step(command)
        except Exception as error:
            self.reply(self._recover_from(error))
            return
        if rest is not None:
            # AUTH that waits for the next line is in the phase COMMANDS, set by `next_line`.
            if self._line_waiter is None:
                self._phase = BUSY
            self._start_task(self._run_alone(rest))

    def _recover_from(self, error: Exception) -> Reply:
        """Log the failure of a command and reset the transaction. Returns the reply."""
        log.error("a command failed: %s", printable(repr(error), 300))
        self.envelope = self._create_envelope()
        return replies.INTERNAL_ERROR

    def _start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` to its end as a task, even if the connection ends before it."""
        task = self.loop.create_task(work)
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)
        return task

    async def _run_alone(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end while no other command runs, then run the commands received meanwhile."""
        try:
            await work
        except Exception as error:
            self.reply(self._recover_from(error))
        finally:
            if self._phase is BUSY:
                self._phase = COMMANDS
            self._last_heard = self.loop.time()
            self._run_commands()

    async def next_line(self) -> bytes:
        if self._phase is OVER or (self._client_closed and b"\n" not in self._unread):
            return b"*"
        waiter: asyncio.Future[bytes] = self.loop.create_future()
        self._line_waiter = waiter
        self._phase = COMMANDS
        self._write()
        if self._unread:
            # The line may have been received together with the AUTH command.
            self._schedule_turn()
        return await waiter

    # Content.

    def begin_content(self) -> None:
        if self._client_closed:
            self.reply_and_close(replies.CLOSED_BEFORE_CONTENT)
            return
        self._reception = Reception(
            self._state.settings.max_message_size,
            lambda: self._state.intake.new_incoming(self.envelope.to_envelope()),
            self._start_task,
            self._pause_or_resume_reading,
            self.loop.time(),
        )
        self._phase = CONTENT
        self.reply(replies.START_CONTENT)

    def _receive_content(self, reception: Reception, data: bytes) -> None:
        """Receive octets of a content; octets after its end are command lines."""
        self._last_heard = self.loop.time()
        leftover = reception.feed(data)
        if leftover is not None:
            transaction, self.envelope = self.envelope, self._create_envelope()
            self._reception, self._phase = None, BUSY
            self._start_task(self._run_alone(self._conclude(transaction, reception)))
            self._unread += leftover
        if self._is_reading_paused or reception.is_full or len(self._unread) >= MAX_COMMAND:
            self._pause_or_resume_reading()

    def _give_up_content(self, why: str) -> None:
        """Drop the content that is being received, if there is one, and log that with the reason `why`. The caller must
        close the connection afterwards."""
        if self._reception is not None:
            self._state.log_incomplete_content(self._reception.received, why, cast(bytes, self.envelope.sender))
            self._reception.give_up()
            self._reception = None

    async def _conclude(self, transaction: IncomingTransaction, reception: Reception) -> None:
        """Hand a message over, write the reply to the client, and call `ClientReply.told`."""
        try:
            client_reply = await self.take_over(transaction, reception)
            is_written = False
            try:
                is_written = await self._write_whole(client_reply.reply)
            finally:
                client_reply.told(is_written)
        except Exception as error:
            log.error("the reply to a message could not be written: %s", printable(repr(error), 300))
        finally:
            if reception.is_ambiguous:
                self._close_after_eof()
