"""Starts, changes and stops the listener.

Promises: `listen` returns once every address accepts connections, or raises and leaves no socket open. `close` accepts no
new mail, gives contents in progress a bounded time to get their reply, and leaves no task and no connection. A change of the
settings closes no connection.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailrelay.config import Listen
from mailrelay.endpoint import Endpoint, Unix
from mailrelay.listener.access import allowed_uids
from mailrelay.listener.replies import STOPPING
from mailrelay.listener.server_state import ClientConnection, IntakePort, ServerState
from mailrelay.listener.sockets import BACKLOG, Sockets, bound_endpoint
from mailrelay.listener.submission import protocol_factory

RECEIVE_BUFFER = 32 * 1024
"""SO_RCVBUF of a connection, in octets (Linux doubles it). One read may return as many."""
GRACE = 10.0
"""Seconds for contents in progress to get their reply when the listener stops."""
LAST_WAIT = 1.0
"""Seconds after `GRACE` for tasks that still write to the disk."""


@dataclass(frozen=True, slots=True)
class Accepting:
    """The asyncio servers of one endpoint, which accept connections. addresses: where they listen, "localhost" resolved
    to addresses."""

    addresses: list[Endpoint]
    servers: list[asyncio.Server]
    sockets: Sockets

    def close(self) -> None:
        """Accepts no more connections. Those that are open stay."""
        self.sockets.release(self.addresses)
        for server in self.servers:
            server.close()


class Listening:
    """The listener: it accepts connections of mail clients, and has the state that they share."""

    def __init__(self, accepting: Accepting, state: ServerState) -> None:
        self._accepting = accepting
        self._state = state

    @property
    def addresses(self) -> list[Endpoint]:
        """Where it listens, "localhost" resolved to addresses."""
        return self._accepting.addresses

    async def open(self, settings: Listen) -> Accepting:
        """Accepts connections at the addresses of other settings too, for `change`. Raises AddressTaken, CannotListen."""
        return await _accept_all(settings, self._state, self._accepting.sockets)

    def change(self, settings: Listen, allowed: frozenset[int] | None, accepting: Accepting | None) -> None:
        """Replaces the settings. allowed: the result of `accounts`. accepting: where it listens from now on, None for
        no change.

        Connections that are open stay, also those of accounts that may not connect any more.
        """
        self._state.settings, self._state.allowed = settings, allowed
        if accepting is not None:
            self._accepting.close()
            self._accepting = accepting

    @property
    def connections(self) -> frozenset[ClientConnection]:
        """The clients' connections that are open."""
        return frozenset(self._state.connections)

    @property
    def accepted(self) -> int:
        """How many connections were accepted since the start."""
        return self._state.accepted

    @property
    def is_busy(self) -> bool:
        """Whether a client is connected, or a message of one that has gone is not finished."""
        return bool(self._state.connections or self._state.tasks)

    def pause(self) -> None:
        """Accepts no more connections, and leaves inherited sockets open."""
        self._accepting.close()
        self._accepting = Accepting([], [], self._accepting.sockets)

    async def resume(self) -> None:
        """Ends `pause`. Raises CannotListen if a socket was not inherited."""
        self._accepting = await self.open(self._state.settings)

    async def close(self, grace: float = GRACE) -> None:
        """Stops the listener and ends all connections. grace: seconds for contents in progress and pending replies."""
        state = self._state
        self._accepting.close()
        state.stopping = True
        for connection in list(state.connections):
            connection.retire(STOPPING)
        end = asyncio.get_running_loop().time() + grace
        while (in_progress := self._in_progress()) and (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(in_progress, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        closed = [connection.closed for connection in state.connections]
        for connection in list(state.connections):
            connection.abort()
        await asyncio.gather(*closed, return_exceptions=True)
        # Some of these tasks remove contents that were not completed.
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=LAST_WAIT)
        late = list(state.tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _in_progress(self) -> set[asyncio.Future[None]]:
        """The tasks that have not ended, and a future for each connection that is open."""
        return {*self._state.tasks, *(connection.closed for connection in self._state.connections)}


class NoSuchAccount(Exception):
    """The settings name an account that this machine does not have. The text is one line."""


async def listen(settings: Listen, intake: IntakePort, sockets: Sockets | None = None) -> Listening:
    """Accepts mail for `intake` on the running event loop. Raises AddressTaken, CannotListen, NoSuchAccount."""
    state = ServerState(settings, intake, accounts(settings))
    return Listening(await _accept_all(settings, state, sockets), state)


def _open_to_everyone(endpoint: Unix) -> None:
    Path(endpoint.path).chmod(0o666)


async def _accept_all(settings: Listen, state: ServerState, sockets: Sockets | None) -> Accepting:
    """Accept connections at all addresses of the settings, or at none. Raises AddressTaken, CannotListen."""
    protocol = protocol_factory(state)
    own = await accept(settings.address, protocol, RECEIVE_BUFFER, sockets)
    if settings.everyone is None:
        return own
    try:
        shared = await accept(settings.everyone, protocol, RECEIVE_BUFFER, own.sockets)
        if settings.everyone not in own.sockets.inherited:
            _open_to_everyone(settings.everyone)
    except BaseException:
        own.close()
        raise
    return Accepting([*own.addresses, *shared.addresses], [*own.servers, *shared.servers], own.sockets)


def accounts(settings: Listen) -> frozenset[int] | None:
    """The user ids of the accounts that may connect, None for any. Raises NoSuchAccount."""
    try:
        return allowed_uids(settings.allow_users)
    except KeyError as name:
        raise NoSuchAccount(f"listen.allow_users: there is no account {name}") from None


async def accept(
    endpoint: Endpoint,
    protocol: Callable[[], asyncio.Protocol],
    receive_buffer: int | None = None,
    sockets: Sockets | None = None,
) -> Accepting:
    """Accepts connections on `endpoint`. Raises AddressTaken, CannotListen.

    protocol: makes the protocol of one connection. receive_buffer: SO_RCVBUF in octets; None leaves the kernel's
    default. sockets: the sockets of the daemon; None: no others are open.
    """
    loop = asyncio.get_running_loop()
    sockets = sockets or Sockets()
    addresses: list[Endpoint] = []
    servers: list[asyncio.Server] = []
    for opened in sockets.open(endpoint):
        if receive_buffer is not None:
            # Accepted connections inherit it from the listening socket.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        addresses.append(bound_endpoint(opened))
        if opened.family == socket.AF_UNIX:
            servers.append(await loop.create_unix_server(protocol, sock=opened, backlog=BACKLOG, **_unix_options(loop)))
        else:
            servers.append(await loop.create_server(protocol, sock=opened, backlog=BACKLOG))
    return Accepting(addresses, servers, sockets)


def _unix_options(loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    """Options of `create_unix_server` that keep asyncio from removing the socket file, as it does since Python 3.13:
    the next server may use the file."""
    has_option = sys.version_info >= (3, 13) and isinstance(loop, asyncio.BaseEventLoop)
    return {"cleanup_socket": False} if has_option else {}
