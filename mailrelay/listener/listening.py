"""Begins and ends the listener.

Promises: `listen` returns once every address accepts connections, or raises and holds none. `close` takes no new mail,
lets what is on its way in come to its answer for a bounded time, and leaves no task and no connection behind.
"""

import asyncio
import socket
from collections.abc import Callable

from mailrelay.config import Listen
from mailrelay.listener.door import allowed_uids
from mailrelay.listener.shared import Intake, Shared
from mailrelay.listener.sockets import open_sockets, printable_address, remove_socket_file
from mailrelay.listener.submission import Submission

GRACE = 10.0
"""Seconds that contents on their way in have to come to an answer when we stop."""


class Listening:
    """A listener that accepts connections. addresses: where, as `host:port` or `unix:/path`."""

    def __init__(self, addresses: list[str], servers: list[asyncio.Server], shared: Shared) -> None:
        self.addresses = addresses
        self._servers = servers
        self._shared = shared

    async def close(self, grace: float = GRACE) -> None:
        """Stop. grace: seconds for contents on their way in and for answers that are being waited for."""
        shared = self._shared
        for server in self._servers:
            server.close()
        for address in self.addresses:
            remove_socket_file(address)
        shared.stopping = True
        for connection in list(shared.connections):
            connection.retire()
        under_way = shared.answering | {connection.closed for connection in shared.connections}
        if under_way:
            await asyncio.wait(under_way, timeout=grace)
        late = list(shared.answering)
        for task in late:
            task.cancel()
        gone = [connection.closed for connection in shared.connections]
        for connection in list(shared.connections):
            connection.abort()
        await asyncio.gather(*late, *gone, return_exceptions=True)


class NoSuchAccount(Exception):
    """The settings name an account that this machine does not have. The text is one line."""


async def listen(settings: Listen, intake: Intake) -> Listening:
    """Accept mail for `intake` on the running event loop. Raises AddressTaken, CannotListen, NoSuchAccount."""
    shared = Shared(settings, intake, accounts(settings))
    addresses, servers = await accept(settings.address, lambda: Submission(shared))
    return Listening(addresses, servers, shared)


def accounts(settings: Listen) -> frozenset[int] | None:
    """Whom to let in, None for any. Raises NoSuchAccount."""
    try:
        return allowed_uids(settings.allow_users)
    except KeyError as unknown:
        raise NoSuchAccount(f"listen.allow_users: there is no account {unknown}") from None


async def accept(address: str, protocol: Callable[[], asyncio.Protocol]) -> tuple[list[str], list[asyncio.Server]]:
    """Accept connections on all of `address`. Returns where, and the servers. Raises AddressTaken, CannotListen."""
    loop = asyncio.get_running_loop()
    addresses: list[str] = []
    servers: list[asyncio.Server] = []
    for opened in open_sockets(address):
        if opened.family == socket.AF_UNIX:
            addresses.append(address)
            servers.append(await loop.create_unix_server(protocol, sock=opened))
        else:
            addresses.append(printable_address(*opened.getsockname()[:2]))
            servers.append(await loop.create_server(protocol, sock=opened))
    return addresses, servers
