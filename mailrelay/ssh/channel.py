"""A byte stream to something on the far side: one channel of an SSH connection, and the one pipe below all of its channels.

Promises: what was written is on its way in its order, and who writes much waits for the network, not only for the channel's
window: what is small and comes later does not stand behind it in a queue of ours.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable

import asyncssh

from mailrelay.ssh import errors

READ_SIZE = 65536
MAX_NOISE = 8192
MAX_STDERR = 1024

# A greeting, good or bad; a line before it that is neither is the shell's.
_GREETING = re.compile(rb"^(?:220|[45]\d\d)(?=[ \r\n-])", re.MULTILINE)


class Channel:
    """A byte stream to the remote's mail server."""

    def __init__(
        self,
        reader: asyncssh.SSHReader[bytes],
        writer: asyncssh.SSHWriter[bytes],
        stderr: asyncssh.SSHReader[bytes] | None,
        pipe: "Pipe",
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._pipe = pipe
        self._ahead = b""
        self._lost = ""
        self._tail = asyncio.create_task(_tail(stderr)) if stderr is not None else None

    async def read(self) -> bytes:
        """The next bytes, at most 64 KiB; b"" at the end. Raises ConnectionError once the connection has broken."""
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        if self._lost:
            raise ConnectionResetError(self._lost)
        try:
            return await self._reader.read(READ_SIZE)
        except (asyncssh.Error, OSError) as error:
            # The stream says so only once, and calls it the end after that.
            self._lost = errors.words(error)
            raise ConnectionResetError(self._lost) from error

    def write(self, data: bytes) -> None:
        """Queue `data`. Raises ConnectionError where the channel has ended."""
        try:
            self._writer.write(data)
        except (asyncssh.Error, OSError) as error:
            raise ConnectionResetError(errors.words(error)) from error

    async def drain(self) -> None:
        """Wait until most of what was written is on its way. Raises ConnectionError."""
        try:
            await self._writer.drain()
            await self._pipe.drain()
        except (asyncssh.Error, OSError) as error:
            raise ConnectionResetError(errors.words(error)) from error

    def write_eof(self) -> None:
        """Say, behind what was written, that there is no more. Raises ConnectionError where the channel has ended."""
        try:
            self._writer.write_eof()
        except (asyncssh.Error, OSError) as error:
            raise ConnectionResetError(errors.words(error)) from error

    def abort(self) -> None:
        """Close the channel at once, whatever is under way in it; nothing if it is closed already."""
        self._writer.channel.abort()

    async def wait_closed(self) -> None:
        """Wait until the channel has ended on both sides, or the connection has."""
        await self._writer.wait_closed()

    def close(self) -> None:
        """Close the channel once what was written is gone."""
        if self._tail is not None:
            self._tail.cancel()
        self._writer.close()

    async def skip_noise(self) -> bytes | None:
        """Read up to the greeting of a command, past what its shell says first. Returns None once the greeting is next to be
        read, or the last words of a command that ended or went on about something else. Raises ConnectionError."""
        seen = b""
        while data := await self.read():
            seen += data
            if found := _GREETING.search(seen):
                self._ahead = seen[found.start() :]
                return None
            if len(seen) > MAX_NOISE:
                return seen[-MAX_STDERR:]
        return (await self._tail if self._tail is not None else b"") or seen[-MAX_STDERR:]


class Pipe:
    """The TCP connection below the channels, in what the library leaves alone.

    Who writes does not know when it is full, and so all that a channel's window allows would stand in line before what
    another channel has to say. And the kernel takes its time to acknowledge what comes; sshd holds back what it has to say
    next until it does, for on a forwarded connection it leaves Nagle's algorithm on.
    """

    def __init__(self, connections: list[asyncssh.SSHClientConnection]) -> None:
        self._has_room = asyncio.Event()
        self._has_room.set()
        # The library's protocol has the transport's two calls, and does nothing in them.
        for name, call in (("pause_writing", self._has_room.clear), ("resume_writing", self._has_room.set)):
            setattr(connections[0], name, call)
        self._socket = connections[0].get_extra_info("socket")
        # Called for all that comes. In a library that calls it otherwise, acknowledging is left to the kernel.
        receive: Callable[[], None] | None = getattr(connections[0], "_recv_data", None)
        if receive is not None and self._socket is not None and hasattr(socket, "TCP_QUICKACK"):

            def received() -> None:
                receive()
                self.acknowledge()

            connections[0]._recv_data = received  # type: ignore[method-assign]

    async def drain(self) -> None:
        """Wait until the transport takes more."""
        await self._has_room.wait()

    def let_go(self) -> None:
        """The connection has ended: nobody is to wait for it."""
        self._has_room.set()

    def acknowledge(self) -> None:
        """Acknowledge at once what has come. The kernel does not remember it for what comes next."""
        # No TCP: a ProxyCommand's socket.
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


async def _tail(stderr: asyncssh.SSHReader[bytes]) -> bytes:
    """The last words on `stderr`, read to its end."""
    tail = b""
    with contextlib.suppress(asyncssh.Error, OSError):
        while data := await stderr.read(READ_SIZE):
            tail = (tail + data)[-MAX_STDERR:]
    return tail
