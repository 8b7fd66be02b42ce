"""Begins and ends the listener.

Promises: `listen` returns once every address accepts connections, or raises and holds none. `close` takes no new mail,
lets what is on its way in come to its answer for a bounded time, and leaves no task and no connection behind.
"""

import asyncio
import socket
from collections.abc import Callable

from mailrelay.config import Listen
from mailrelay.listener.access import allowed_uids
from mailrelay.listener.replies import STOPPING
from mailrelay.listener.server_state import Intake, ServerState
from mailrelay.listener.sockets import open_sockets, printable_address, remove_socket_file
from mailrelay.listener.submission import protocol_factory

RECEIVE_BUFFER = 32 * 1024
"""Octets that the kernel keeps for a connection (Linux keeps twice as many), and so hands over at once: for a moment all of
them are in memory."""
GRACE = 10.0
"""Seconds that contents on their way in have to come to an answer when we stop."""
LAST_WAIT = 1.0
"""Seconds that remain for what is on its way to the disk then."""


class Listening:
    """A listener that accepts connections. addresses: where, as `host:port` or `unix:/path`."""

    def __init__(self, addresses: list[str], servers: list[asyncio.Server], state: ServerState) -> None:
        self.addresses = addresses
        self._servers = servers
        self._state = state

    async def close(self, grace: float = GRACE) -> None:
        """Stop. grace: seconds for contents on their way in and for answers that are being waited for."""
        state = self._state
        for server in self._servers:
            server.close()
        for address in self.addresses:
            remove_socket_file(address)
        state.stopping = True
        for connection in list(state.connections):
            connection.retire(STOPPING)
        under_way = state.answering | {connection.closed for connection in state.connections}
        if under_way:
            await asyncio.wait(under_way, timeout=grace)
        gone = [connection.closed for connection in state.connections]
        for connection in list(state.connections):
            connection.abort()
        await asyncio.gather(*gone, return_exceptions=True)
        # Among them are those that remove contents which did not come to their end.
        if state.answering:
            await asyncio.wait(set(state.answering), timeout=LAST_WAIT)
        late = list(state.answering)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


class NoSuchAccount(Exception):
    """The settings name an account that this machine does not have. The text is one line."""


async def listen(settings: Listen, intake: Intake) -> Listening:
    """Accept mail for `intake` on the running event loop. Raises AddressTaken, CannotListen, NoSuchAccount."""
    state = ServerState(settings, intake, accounts(settings))
    addresses, servers = await accept(settings.address, protocol_factory(state), RECEIVE_BUFFER)
    return Listening(addresses, servers, state)


def accounts(settings: Listen) -> frozenset[int] | None:
    """Whom to let in, None for any. Raises NoSuchAccount."""
    try:
        return allowed_uids(settings.allow_users)
    except KeyError as unknown:
        raise NoSuchAccount(f"listen.allow_users: there is no account {unknown}") from None


async def accept(
    address: str, protocol: Callable[[], asyncio.Protocol], receive_buffer: int | None = None
) -> tuple[list[str], list[asyncio.Server]]:
    """Accept connections on all of `address`. Returns where, and the servers. Raises AddressTaken, CannotListen.

    receive_buffer: octets that the kernel keeps for a connection, and so hands over at once; None is its own choice.
    """
    loop = asyncio.get_running_loop()
    addresses: list[str] = []
    servers: list[asyncio.Server] = []
    for opened in open_sockets(address):
        if receive_buffer is not None:
            # Every connection has it from the socket that accepted it.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if opened.family == socket.AF_UNIX:
            addresses.append(address)
            servers.append(await loop.create_unix_server(protocol, sock=opened))
        else:
            addresses.append(printable_address(*opened.getsockname()[:2]))
            servers.append(await loop.create_server(protocol, sock=opened))
    return addresses, servers
