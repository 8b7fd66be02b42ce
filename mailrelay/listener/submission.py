"""One client's connection: octets in, commands run, replies out.

A command runs within the call in which its line came in, and the replies to all lines that came together leave together: a
client that pipelines gets one answer for its group, and no command costs a turn of the event loop. A command becomes a task
only when it has to wait; until it has ended, the dialogue stands still. A client that sends many commands at once has its
turn with the others.

Promises: every content that was received whole and not refused is handed over once (`handle_DATA`), which runs to its end
whether or not the client stays; its answer is told exactly once: True only if the reply went out whole to a client that had
not closed its side. Every trouble of ours is a 451 with a fixed text. What is no mail client is dropped at its first line,
with one `security:` line in the log. A client that does not read its replies is not listened to.

Never: content in a log line; an await between the last look for octets that came too early and the moment from which octets
are content.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, cast

from mailrelay.listener import replies
from mailrelay.listener.access import LAST_IN_GROUP, Admission, admit, speaks_http
from mailrelay.listener.commands import COMMANDS, Command, Commands, smtp_attributes
from mailrelay.listener.reception import Reception
from mailrelay.listener.server_state import ServerState
from mailrelay.listener.transaction import Transaction
from mailrelay.mail.answer import Answer
from mailrelay.mail.outcome import Reply
from mailrelay.mail.printable import printable

log = logging.getLogger("mailrelay.listener")

COMMAND_LIMIT = 4096
"""Octets of a command line. RFC 5321 section 4.5.3.1.4 asks for 512 and room for the parameters of each extension."""
COMMANDS_AT_ONCE = 50
"""Commands of one client that are run before the others have their turn."""
UNKNOWN_LIMIT = 20
"""Unknown commands in one connection."""
IDLE_LIMIT = 300.0
"""Seconds in which a client must say something (RFC 5321 section 4.5.3.2.7)."""
SLOWEST = 100.0
"""Octets of content a second, over IDLE_LIMIT, that a client must send: fewer than on a person's worst line."""
LINGER = 5.0
"""Seconds for a client that is sending still to read why nobody listens any more."""

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


def protocol_factory(state: ServerState) -> Callable[[], "Submission"]:
    """Makes the connections of a listener. Called on the running loop."""
    attributes = smtp_attributes(state)
    return lambda: Submission(state, attributes)


class Submission(Commands):
    """The protocol of one connection. closed: done once the connection is gone. is_over: nothing more is taken from it."""

    transport: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(self, state: ServerState, attributes: dict[str, Any]) -> None:
        super().__init__(state, attributes)
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self.is_over = False
        self._greeted = self._spoke = self._said_command = False
        self._unknown = 0
        self._heard = self.loop.time()
        # Octets that no command has taken yet. They grow in place.
        self._unread = bytearray()
        # Set from the reply to DATA to the end of the content; with when it was last looked at, and how far it was then.
        self._reception: Reception | None = None
        self._looked = (0.0, 0)
        # From a command, or the end of a content, to its answer, where that waits for others.
        self._occupied = False
        # Set while a command waits for a line: it does not wait for others then.
        self._line: asyncio.Future[bytes] | None = None
        # Set while the client's connection does not take what we have written.
        self._drained: asyncio.Future[None] | None = None
        self._must_wait = False
        self._has_turn = False
        self._left = False

    # What the listener asks of a connection.

    @property
    def idle_since(self) -> float | None:
        is_busy = self._occupied or self._reception is not None or self.envelope.sender is not None
        return None if is_busy or not self._greeted else self._heard

    def retire(self, reply: Reply) -> None:
        """End the dialogue now with `reply`, or, if there is a content in it, behind the answer to that."""
        if self.is_over:
            self.transport.close()
        elif self._reception is None and not self._occupied:
            self.say_last(reply)

    def abort(self) -> None:
        """End the connection now."""
        self._left = self.is_over = True
        self.transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._timer = self.loop.call_later(IDLE_LIMIT, self._look_at_the_clock)
        self._state.connections.add(self)
        # So that we know of every octet that the kernel has not taken.
        self.transport.set_write_buffer_limits(0)
        if self._may_enter():
            # One round of the event loop to begin to read, and one to have read what was there before the greeting.
            self.loop.call_soon(self.loop.call_soon, self._greet)

    def connection_lost(self, error: Exception | None) -> None:
        self._left = self.is_over = True
        self._timer.cancel()
        self._state.connections.discard(self)
        if self._reception is not None:
            self._give_up_content("the client has gone")
        if self._line is not None:
            # As if it had cancelled (RFC 4954 section 4).
            self._line.set_result(b"*")
            self._line = None
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
        """The client has nothing more to say. What it has said is dealt with, unless it is half a message."""
        self._left = True
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

    def _look_at_the_clock(self) -> None:
        now = self.loop.time()
        wait = self._heard + IDLE_LIMIT - now
        if wait <= 0 and (self.is_over or self._drained is not None):
            self.abort()
            return
        reply = replies.IDLE_TOO_LONG
        if self._reception is not None and wait > 0:
            wait, reply = min(wait, self._patience_with(self._reception, now)), replies.TOO_SLOW
        # While it is we who take the time, nobody is silent.
        is_ours = self._occupied or (self._reception is not None and self._reception.is_full)
        self._timer = self.loop.call_later(wait if wait > 0 else IDLE_LIMIT, self._look_at_the_clock)
        if wait <= 0 and not is_ours:
            self._give_up_content(reply.text.decode())
            self.say_last(reply)

    def _patience_with(self, reception: Reception, now: float) -> float:
        """Seconds until a content is to be looked at again; 0 where it comes too slowly."""
        since, received = self._looked
        if now < since + IDLE_LIMIT:
            return since + IDLE_LIMIT - now
        self._looked = (now, reception.received)
        return IDLE_LIMIT if reception.received - received >= SLOWEST * (now - since) else 0.0

    # The dialogue.

    def _may_enter(self) -> bool:
        """Whether this client may speak to us; if not, it has been told why."""
        state = self._state
        if state.stopping:
            self.say_last(replies.STOPPING)
            return False
        admission, account = admit(self.transport.get_extra_info("socket"), state.allowed)
        if admission is Admission.GONE:
            self.abort()
        elif admission is Admission.REFUSED:
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
        """Run the commands that have come, as far as that goes without waiting, and say what there is to say."""
        left = COMMANDS_AT_ONCE
        while not (self.is_over or self._occupied or self._reception is not None or self._drained is not None):
            if self._state.stopping:
                self.say_last(replies.STOPPING)
                return
            end = self._unread.find(b"\n", 0, COMMAND_LIMIT)
            if end < 0:
                if len(self._unread) >= COMMAND_LIMIT:
                    self.say(replies.LINE_TOO_LONG)
                    self._stop_listening()
                elif self._left:
                    self._hang_up()
                break
            if left == 0:
                self._take_turn()
                break
            left -= 1
            line = bytes(self._unread[:end]).removesuffix(b"\r")
            del self._unread[: end + 1]
            self._heard = self.loop.time()
            if self._line is not None:
                self._line.set_result(line)
                self._line, self._occupied = None, True
            elif (command := self._command(line)) is not None:
                self._run(command)
        self._write()
        self._pace()

    def _take_turn(self) -> None:
        """Go on with the dialogue once others have had their turn."""
        if not self._has_turn:
            self._has_turn = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._has_turn = False
        self._converse()

    def _pace(self) -> None:
        """Read from the client, or let it wait."""
        # More than a line is only left where the dialogue stands still, or where others have their turn.
        must_wait = len(self._unread) >= COMMAND_LIMIT or (self._reception is not None and self._reception.is_full)
        if must_wait == self._must_wait or self.transport.is_closing():
            return
        self._must_wait = must_wait
        if must_wait:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _command(self, line: bytes) -> Command | None:
        """The coroutine that a line asks for; None if the line has been answered already."""
        verb, _, arg = line.partition(b" ")
        verb = verb.upper()
        command = COMMANDS.get(verb)
        known = command is not None and not _CONTROL.search(line)
        if self.envelope.is_data_refused and not known:
            # Some clients send the content whatever the reply to DATA is. None of it is a command.
            self.say(replies.CONTENT_UNASKED)
            self._stop_listening()
            return None
        if not known and (speaks_http(verb) or not self._said_command):
            self._drop("does not speak SMTP", line)
            return None
        if verb in LAST_IN_GROUP and self._unread:
            self._drop(f"did not wait for the reply to {verb.decode()}")
            return None
        self._said_command = True
        if command is not None and known:
            # As aiosmtpd hands it over: None is no argument, and what is not UTF-8 can be had back.
            return command(self, arg.strip(b" ").decode("utf-8", "surrogateescape") or None)
        self._unknown += 1
        if self._unknown < UNKNOWN_LIMIT:
            self.say(replies.UNKNOWN_COMMAND if command is None else replies.BAD_COMMAND)
        else:
            self.say_last(replies.TOO_MANY_UNKNOWN)
        return None

    def _run(self, command: Command) -> None:
        """Run a command, here and now; where it comes to wait, its rest is a task."""
        try:
            waits_for = command.send(None)
        except StopIteration:
            return
        except Exception as error:
            self.say(self._failed(error))
        else:
            self._occupied = self._line is None
            self._start(self._go_on_after(_rest(command, waits_for)))

    def _failed(self, error: Exception) -> Reply:
        """The apology for a command that failed."""
        log.error("a command failed: %s", printable(repr(error), 300))
        self.envelope = self._create_envelope()
        return replies.OUR_TROUBLE

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let `work` go on to its end, whether or not the client stays."""
        task = self.loop.create_task(work)
        self._state.answering.add(task)
        task.add_done_callback(self._state.answering.discard)
        return task

    async def _go_on_after(self, answering: Coroutine[Any, Any, None]) -> None:
        """Take nothing more from the client until `answering` has ended."""
        try:
            await answering
        except Exception as error:
            self.say(self._failed(error))
        finally:
            self._occupied = False
            self._heard = self.loop.time()
            self._converse()

    async def next_line(self) -> bytes:
        if self._left:
            return b"*"
        line: asyncio.Future[bytes] = self.loop.create_future()
        self._line = line
        self._occupied = False
        self._write()
        return await line

    # Content.

    def begin_content(self) -> None:
        if self._left:
            self.say_last(replies.STOPPING)
            return
        self._reception = Reception(
            self._state.settings.max_message_size,
            lambda: self._state.intake.incoming(self.envelope.complete()),
            self._start,
            self._pace,
        )
        self._looked = (self.loop.time(), 0)
        self.say(replies.START_CONTENT)

    def _receive(self, reception: Reception, data: bytes) -> None:
        """Take octets of a content, and leave what comes behind its end to the dialogue."""
        self._heard = self.loop.time()
        leftover = reception.feed(data)
        if leftover is not None:
            transaction, self.envelope, self._reception = self.envelope, self._create_envelope(), None
            self._occupied = True
            self._start(self._go_on_after(self._conclude(transaction, reception)))
            self._unread += leftover
        self._pace()

    def _give_up_content(self, why: str) -> None:
        """No message comes of the content that has begun."""
        if self._reception is not None:
            self._state.broken_off(self._reception.received, why, cast(bytes, self.envelope.sender))
            self._reception.give_up()
            self._reception = None

    async def _conclude(self, transaction: Transaction, reception: Reception) -> None:
        """Hand a message over, answer the client, and say whether it got the answer."""
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
                self._stop_listening()

    async def _answer_to(self, transaction: Transaction, reception: Reception) -> Answer:
        try:
            if reception.own_refusal is not None:
                self._state.refused("content", reception.own_refusal, transaction.sender)
            refusal = await reception.conclude()
            if refusal is not None:
                return Answer(refusal)
            transaction.incoming, transaction.content = reception.incoming, reception.rest()
            return cast(Answer, await self.event_handler.handle_DATA(self, self.session, transaction))
        except Exception as error:
            log.error("a message could not be taken over: %s", printable(repr(error), 300))
            return Answer(replies.OUR_TROUBLE)

    # Writing.

    async def _say_whole(self, reply: Reply) -> bool:
        """Write `reply` and wait until the client's connection has it whole; whether a client was there to read it."""
        self.say(reply)
        self._write()
        if self._drained is not None:
            await self._drained
        return not (self._left or self.transport.is_closing())

    def say_last(self, reply: Reply) -> None:
        self.say(reply)
        self._hang_up()

    def _hang_up(self) -> None:
        """Close the connection behind what there is to say."""
        self.is_over = True
        self._write()
        self.transport.close()

    def _stop_listening(self) -> None:
        """Close the connection once the client has stopped sending: closed before, what comes would reset it, and the reply
        be lost."""
        if self._left or self._state.stopping or self.transport.is_closing():
            self._hang_up()
            return
        self.is_over = True
        self._unread.clear()
        self._write()
        self.transport.write_eof()
        self._timer.cancel()
        self._timer = self.loop.call_later(LINGER, self.abort)

    def _write(self) -> None:
        unsent, self.unsent = self.unsent, bytearray()
        if unsent and not self.transport.is_closing():
            self.transport.write(unsent)

    def _drop(self, why: str, said: bytes = b"") -> None:
        """Be rid of what is no mail client."""
        if not self.is_over:
            # The first word tells what it is. What follows may be a line of somebody's letter.
            self._state.security(why, b"".join(said.split(maxsplit=1)[:1]))
            self.say_last(replies.GO_AWAY)


@coroutine
def _resumed(command: Command, waits_for: Any) -> Generator[Any, Any, None]:
    yield waits_for
    yield from command


async def _rest(command: Command, waits_for: Any) -> None:
    """What is left of a command that was begun outside of a task, for a task."""
    await _resumed(command, waits_for)
