"""One client's connection: its phase, writing replies to the client, and closing.

Promises: a client that still sends can read the last reply (`_close_after_eof`). Nothing is written once the transport is
closing.
"""

import asyncio
import enum
from typing import Any

from aiosmtpd.smtp import SMTP

from mailrelay.listener import replies
from mailrelay.listener.server_state import ServerState
from mailrelay.mail.outcome import Reply

LINGER = 5.0
"""Seconds from the last reply to a client that still sends until the connection is aborted."""


class Phase(enum.Enum):
    """What a connection does with the octets that it receives."""

    CONNECTED = enum.auto()
    """The greeting has not been sent: any octet ends the connection."""
    GREETED = enum.auto()
    """Nothing has been received yet: the first octet must be a letter."""
    COMMANDS = enum.auto()
    """The octets are command lines, or the line that an AUTH command waits for."""
    BUSY = enum.auto()
    """The octets are kept until the running command, or the complete content, has its reply."""
    CONTENT = enum.auto()
    """The octets are content."""
    OVER = enum.auto()
    """The octets are dropped: the last reply has been sent, or the connection is gone."""


CONNECTED, GREETED, COMMANDS, BUSY, CONTENT, OVER = Phase
"""The phases as module constants. In Python 3.11 `Phase.OVER` takes ten times as long as `OVER`, and a message needs 40 of
them."""


class ClientConnection(SMTP):
    """The connection as the commands use it. closed: done once the connection is gone. unsent: replies that have not been
    written yet. owner: the uid of the client's account, None if messages do not belong to accounts."""

    transport: asyncio.Transport
    owner: int | None = None

    def __init__(self, state: ServerState, attributes: dict[str, Any]) -> None:
        """attributes: those that aiosmtpd's constructor sets, which is not called (`commands.smtp_attributes`)."""
        vars(self).update(attributes)
        self._state = state
        self._phase = CONNECTED
        # Octets received that no command has used yet.
        self._unread = bytearray()
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self.unsent = bytearray()
        # Done once the kernel has accepted all that was written; None if nothing is unsent.
        self._drained: asyncio.Future[None] | None = None
        # The client has closed its side, or the connection is gone. Commands received before still run.
        self._client_closed = False

    @property
    def is_over(self) -> bool:
        return self._phase is OVER

    def reply(self, reply: Reply) -> None:
        """Add `reply` to the replies that the next `_write` writes."""
        self.unsent += replies.encode(reply)

    async def _write_whole(self, reply: Reply) -> bool:
        """Write `reply` and wait until the kernel has accepted all of it. Returns False if the client had closed its
        side."""
        self.reply(reply)
        self._write()
        if self._drained is not None:
            await self._drained
        return not (self._client_closed or self.transport.is_closing())

    def reply_and_close(self, reply: Reply) -> None:
        self.reply(reply)
        self._write_and_close()

    def _write_and_close(self) -> None:
        """Write the pending replies, then close."""
        self._phase = OVER
        self._write()
        self.transport.close()

    def _close_after_eof(self) -> None:
        """Write the replies, and close when the client sends EOF, or after LINGER. Closing while the client still sends
        would reset the connection, and the client would lose the last reply."""
        if self._client_closed or self._state.stopping or self.transport.is_closing():
            self._write_and_close()
            return
        self._phase = OVER
        self._unread.clear()
        self._write()
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.abort)

    def _write(self) -> None:
        unsent, self.unsent = self.unsent, bytearray()
        if unsent and not self.transport.is_closing():
            self.transport.write(unsent)

    def _drop(self, why: str, received: bytes = b"", reply: Reply = replies.GO_AWAY) -> None:
        """Reply and close, with one `security:` line in the log: `why` and the first word of `received`."""
        if not self.is_over:
            # The first word shows the protocol. The rest may be private, such as text of a message.
            self._state.log_dropped(why, b"".join(received.split(maxsplit=1)[:1]))
            self.reply_and_close(reply)

    def abort(self) -> None:
        """Close at once; what was not written is lost."""
        self._client_closed, self._phase = True, OVER
        self.transport.abort()
