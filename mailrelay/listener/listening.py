"""Starts and stops the listener.

Promises: `listen` returns once every address accepts connections, or raises and leaves no socket open. `close` accepts no
new mail, gives contents in progress a bounded time to get their reply, and leaves no task and no connection.
"""

import asyncio
import socket
from collections.abc import Callable

from mailrelay.config import Listen
from mailrelay.endpoint import Endpoint
from mailrelay.listener.access import allowed_uids
from mailrelay.listener.replies import STOPPING
from mailrelay.listener.server_state import ClientConnection, IntakePort, ServerState
from mailrelay.listener.sockets import BACKLOG, bound_endpoint, open_sockets, remove_socket_file
from mailrelay.listener.submission import protocol_factory

RECEIVE_BUFFER = 32 * 1024
"""SO_RCVBUF of a connection, in octets (Linux doubles it). One read may return as many."""
GRACE = 10.0
"""Seconds for contents in progress to get their reply when the listener stops."""
LAST_WAIT = 1.0
"""Seconds after `GRACE` for tasks that still write to the disk."""


class Listening:
    """A listener that accepts connections. addresses: where it listens, "localhost" resolved to addresses."""

    def __init__(self, addresses: list[Endpoint], servers: list[asyncio.Server], state: ServerState) -> None:
        self.addresses = addresses
        self._servers = servers
        self._state = state

    @property
    def connections(self) -> frozenset[ClientConnection]:
        """The clients' connections that are open."""
        return frozenset(self._state.connections)

    async def close(self, grace: float = GRACE) -> None:
        """Stop. grace: seconds for contents in progress and pending replies."""
        state = self._state
        for server in self._servers:
            server.close()
        for address in self.addresses:
            remove_socket_file(address)
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
        """Tasks and connections that have not ended."""
        return {*self._state.tasks, *(connection.closed for connection in self._state.connections)}


class NoSuchAccount(Exception):
    """The settings name an account that this machine does not have. The text is one line."""


async def listen(settings: Listen, intake: IntakePort) -> Listening:
    """Accept mail for `intake` on the running event loop. Raises AddressTaken, CannotListen, NoSuchAccount."""
    state = ServerState(settings, intake, accounts(settings))
    addresses, servers = await accept(settings.address, protocol_factory(state), RECEIVE_BUFFER)
    return Listening(addresses, servers, state)


def accounts(settings: Listen) -> frozenset[int] | None:
    """The user ids of the accounts that may connect, None for any. Raises NoSuchAccount."""
    try:
        return allowed_uids(settings.allow_users)
    except KeyError as unknown:
        raise NoSuchAccount(f"listen.allow_users: there is no account {unknown}") from None


async def accept(
    endpoint: Endpoint, protocol: Callable[[], asyncio.Protocol], receive_buffer: int | None = None
) -> tuple[list[Endpoint], list[asyncio.Server]]:
    """Accept connections on `endpoint`. Returns the addresses and the servers. Raises AddressTaken, CannotListen.

    receive_buffer: SO_RCVBUF in octets; None leaves the kernel's default.
    """
    loop = asyncio.get_running_loop()
    addresses: list[Endpoint] = []
    servers: list[asyncio.Server] = []
    for opened in open_sockets(endpoint):
        if receive_buffer is not None:
            # Accepted connections inherit it from the listening socket.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        addresses.append(bound_endpoint(opened))
        if opened.family == socket.AF_UNIX:
            servers.append(await loop.create_unix_server(protocol, sock=opened, backlog=BACKLOG))
        else:
            servers.append(await loop.create_server(protocol, sock=opened, backlog=BACKLOG))
    return addresses, servers
