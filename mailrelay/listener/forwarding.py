"""Forwards: TCP connections of local programs through a relayhost's SSH connection (`[[forward]]` of the settings).

Promises: bytes arrive as they were sent, in both directions, none lost. The end of one direction is passed on as an end. A
broken connection is reset, so that a part is not taken for the whole. A side that does not read stops the side that writes.
The accounts that may submit mail may connect. A failure ends only the client's connection, with one line in the log.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

from mailrelay.config import Forward, Listen
from mailrelay.endpoint import Endpoint
from mailrelay.listener.access import Access, check_access
from mailrelay.listener.listening import Accepting, accept, accounts
from mailrelay.listener.sockets import Sockets
from mailrelay.mail.outcome import Outcome
from mailrelay.mail.printable import printable

log = logging.getLogger("mailrelay.listener")

READ_SIZE = 65536
SAME_AGAIN = 60.0
"""Seconds until the same line is logged again for a forward: refused programs often reconnect at once."""

_RESET = struct.pack("ii", 1, 0)
"""struct linger of socket(7): on, for 0 seconds. Closing then sends a reset."""


class _Sink(Protocol):
    """The writing end of a byte stream. After `drain`, most of the written bytes have been sent. Raises OSError."""

    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def write_eof(self) -> None: ...


class ForwardStream(_Sink, Protocol):
    """A byte stream to the target of the forward. Raises ConnectionError if it has broken."""

    async def read(self) -> bytes:
        """b"" at the end."""

    def abort(self) -> None:
        """Closes at once, without sending what was written; does nothing if it is closed."""

    async def wait_closed(self) -> None:
        """Waits until the other side has closed it too, or the connection has ended."""


OpenStream = Callable[[Endpoint], AbstractAsyncContextManager[ForwardStream | Outcome]]
"""Opens a stream to an endpoint, as seen from the relayhost, or returns why there is none."""


class Forwarding:
    """A forward that accepts connections, once it was opened."""

    def __init__(
        self, settings: Forward, access: Listen, allowed: frozenset[int] | None, open_stream: OpenStream
    ) -> None:
        self._settings = settings
        self._name = f"forward={settings.listen} to={settings.to}"
        self._limit = access.max_connections
        self._allowed = allowed
        self._open_stream = open_stream
        self._accepting: Accepting | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._said = ("", 0.0)

    @property
    def addresses(self) -> list[Endpoint]:
        """Where it listens, "localhost" resolved to addresses."""
        return self._accepting.addresses if self._accepting is not None else []

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return len(self._connections)

    def change(self, access: Listen, allowed: frozenset[int] | None) -> None:
        """Takes other settings for the accounts that may connect, and for how many connections at once."""
        self._limit = access.max_connections
        self._allowed = allowed

    async def open(self, sockets: Sockets | None) -> None:
        """Accept connections. Raises CannotListen."""

        def protocol() -> asyncio.Protocol:
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._accepted)

        self._accepting = await accept(self._settings.listen, protocol, sockets=sockets)

    def pause(self) -> None:
        """Accepts no more connections, and leaves inherited sockets open."""
        if self._accepting is not None:
            self._accepting.close()
            self._accepting = Accepting([], [], self._accepting.sockets)

    async def resume(self) -> None:
        """Ends `pause`. Raises CannotListen if a socket was not inherited."""
        await self.open(self._accepting.sockets if self._accepting is not None else None)

    async def close(self) -> None:
        """Stop accepting, and end all connections."""
        if self._accepting is not None:
            self._accepting.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._connections) > self._limit:
                self._say(f"more than {self._limit} connections at once; listen.max_connections allows no more")
                return
            access, account = check_access(writer, self._allowed)
            if access is Access.REFUSED:
                self._say(f"the client belongs to {account}, which allow_users does not name", "security: ")
            elif access is Access.ALLOWED:
                await self._join(reader, writer)
        except Exception:
            log.exception("%s: a connection failed", self._name)
        finally:
            _reset(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._open_stream(self._settings.to) as stream:
            if isinstance(stream, Outcome):
                self._say(printable(f"{stream.text}{f' {stream.fix}' if stream.fix else ''}"))
                return
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_carry(partial(reader.read, READ_SIZE), stream))
                    group.create_task(_carry(stream.read, writer))
                # Both directions have ended. All bytes have arrived once the other side closes the channel. Some servers
                # drop unread bytes if we close it first.
                writer.close()
                await stream.wait_closed()
                await writer.wait_closed()
            except* OSError:
                # One of the two is gone. The scheduler logs it if the connection to the relayhost is.
                pass
            finally:
                stream.abort()

    def _say(self, why: str, kind: str = "") -> None:
        """Log why a client's connection is dropped."""
        last, at = self._said
        now = asyncio.get_running_loop().time()
        if why != last or now >= at + SAME_AGAIN:
            self._said = (why, now)
            log.warning("%s%s: connection dropped: %s", kind, self._name, why)


async def forward(
    settings: Forward, access: Listen, open_stream: OpenStream, sockets: Sockets | None = None
) -> Forwarding:
    """Accept connections on the running event loop. Raises AddressTaken, CannotListen, NoSuchAccount.

    access: the settings that name the accounts that may connect, and how many connections at once.
    """
    forwarding = Forwarding(settings, access, accounts(access), open_stream)
    await forwarding.open(sockets)
    return forwarding


async def _carry(read: Callable[[], Awaitable[bytes]], to: _Sink) -> None:
    while data := await read():
        with _closed_is_reset():
            to.write(data)
        await to.drain()
    with _closed_is_reset():
        to.write_eof()


@contextlib.contextmanager
def _closed_is_reset() -> Iterator[None]:
    """Turns uvloop's RuntimeError about a closed transport into ConnectionResetError."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionResetError(str(error)) from None


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the client's connection with a reset; if it is closing already, without."""
    if not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
