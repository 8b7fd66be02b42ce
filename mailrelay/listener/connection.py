"""One client's connection, as far as its replies go: its phase, replies written, the connection closed.

Promises: a client that still sends can read the last reply (`_close_after_client`). Nothing is written once the connection
is closing.
"""

import asyncio
import enum
from typing import Any

from aiosmtpd.smtp import SMTP

from mailrelay.listener import replies
from mailrelay.listener.server_state import ServerState
from mailrelay.mail.outcome import Reply

LINGER = 5.0
"""Seconds for a client that still sends to read the last reply."""


class Phase(enum.Enum):
    """What a connection does with the octets that it receives."""

    CONNECTED = enum.auto()
    """The greeting has not been sent: any octet ends the connection."""
    GREETED = enum.auto()
    """Nothing has been received yet: the first octet must be a letter."""
    COMMANDS = enum.auto()
    """They are command lines, or the line that an AUTH command waits for."""
    BUSY = enum.auto()
    """They are kept until a command, or the end of a content, has its reply."""
    CONTENT = enum.auto()
    """They are content."""
    OVER = enum.auto()
    """They are dropped: the last reply has been sent, or the connection is gone."""


CONNECTED, GREETED, COMMANDS, BUSY, CONTENT, OVER = Phase
"""The phases by themselves. In Python 3.11 `Phase.OVER` costs ten times as much as `OVER`, and a message
needs 40 of them."""


class ClientConnection(SMTP):
    """closed: done once the connection is gone. unsent: replies that have not been written yet."""

    transport: asyncio.Transport

    def __init__(self, state: ServerState, attributes: dict[str, Any]) -> None:
        """attributes: those that aiosmtpd's constructor sets, which is not called (`commands.smtp_attributes`)."""
        vars(self).update(attributes)
        self._state = state
        self._phase = CONNECTED
        # Octets received that no command has used yet.
        self._unread = bytearray()
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self.unsent = bytearray()
        # Set while the kernel does not accept what we have written.
        self._drained: asyncio.Future[None] | None = None
        # The client has closed its side, or the connection is gone. Commands received before still run.
        self._client_closed = False

    @property
    def is_over(self) -> bool:
        return self._phase is OVER

    def reply(self, reply: Reply) -> None:
        """Add `reply` to the replies that are written next."""
        self.unsent += replies.encode(reply)

    async def _write_whole(self, reply: Reply) -> bool:
        """Write `reply` and wait until the kernel has accepted it whole. Returns whether the client had not closed."""
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

    def _close_after_client(self) -> None:
        """Close once the client has stopped sending: closing earlier would reset the connection and lose the reply."""
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
        """Close with `reply`, and one `security:` line in the log."""
        if not self.is_over:
            # The first word shows the protocol. The rest may be private: a line of a message.
            self._state.security(why, b"".join(received.split(maxsplit=1)[:1]))
            self.reply_and_close(reply)

    def abort(self) -> None:
        self._client_closed, self._phase = True, OVER
        self.transport.abort()
