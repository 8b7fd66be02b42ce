"""The SSH connections to the hops of a relayhost, one through the other.

    async with connected(hops) as connections: ...      # all of them, the relayhost's last; closed at the end

Promises: every failure is a `Fault`. The host key of a hop is verified before anything else is sent to it. Every wait has a
time limit. Nothing stays open after a failure or a cancellation.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import asyncssh

from mailrelay.ssh import errors
from mailrelay.ssh.authentication import HopClient
from mailrelay.ssh.hops import Hop
from mailrelay.ssh.interface import Fault
from mailrelay.ssh.proxy_command import ProxyCommand, start
from mailrelay.ssh.tcp import open_tcp

T = TypeVar("T")

LOGIN_TIMEOUT = 60.0
"""Seconds from the TCP connection to the end of the authentication."""
CLOSE_TIMEOUT = 5.0

asyncssh.set_log_level("WARNING")

HopConnection = asyncssh.SSHClientConnection
"""A connection to one hop. Packages other than `ssh` may pass it on but do not use it."""
Connect = Callable[[Hop, HopConnection | None], Awaitable[HopConnection | None]]
"""Connects to a hop through the connection to the hop before it; returns None to go no further. Raises Fault."""


async def connect(hop: Hop, through: HopConnection | None, client: HopClient | None = None) -> HopConnection:
    """Connects and logs in to one hop. client: for another login than the usual one. Raises Fault."""
    client = client or HopClient(hop)
    sock: socket.socket | None = None
    proxy: ProxyCommand | None = None
    try:
        if through is None and hop.proxy:
            proxy = await start(hop.proxy)
            sock = proxy.sock
        elif through is None:
            sock = await open_tcp(hop)
        connection = await _log_in(hop, sock, through, client)
    except BaseException as error:
        if sock is not None:
            sock.close()
        try:
            if isinstance(error, Exception) and proxy is not None:
                client.progress.proxy_status, client.progress.proxy_stderr = await proxy.result()
        finally:
            if proxy is not None:
                proxy.close()
                await proxy.wait_closed()
        if isinstance(error, Exception):
            raise Fault(errors.login_failed(error, hop, client.progress)) from error
        raise
    if proxy is not None:
        connection.set_tunnel(proxy)
        if connection.is_closed():
            proxy.close()
    return connection


async def connect_hops(hops: Sequence[Hop], connect: Connect = connect) -> list[HopConnection]:
    """Connects to each hop through the one before it, until `connect` returns None. Raises Fault; then none stays open."""
    connections: list[HopConnection] = []
    try:
        for hop in hops:
            connection = await connect(hop, connections[-1] if connections else None)
            if connection is None:
                break
            connections.append(connection)
    except BaseException:
        await close(connections)
        raise
    return connections


@contextlib.asynccontextmanager
async def connected(hops: Sequence[Hop], connect: Connect = connect) -> AsyncIterator[list[HopConnection]]:
    """`connect_hops`, closed at the end."""
    connections = await connect_hops(hops, connect)
    try:
        yield connections
    finally:
        await close(connections)


async def with_session(connection: HopConnection, open_session: Callable[[], Awaitable[T]]) -> T:
    """The result of `open_session`, which opens a session on `connection`. Raises what it raises.

    It runs again if the server closes the session at once: dropbear 2022.83 does so if another session is just ending.
    """
    try:
        return await open_session()
    except asyncssh.ChannelOpenError as error:
        if error.code != asyncssh.OPEN_REQUEST_SESSION_FAILED or connection.is_closed():
            raise
        return await open_session()


async def close(connections: Sequence[HopConnection]) -> None:
    """Closes the connections, the last one first. Takes at most CLOSE_TIMEOUT seconds and never raises."""
    for connection in reversed(connections):
        connection.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            for connection in connections:
                await connection.wait_closed()
    for connection in connections:
        connection.abort()


async def _log_in(
    hop: Hop, sock: socket.socket | None, through: HopConnection | None, client: HopClient
) -> HopConnection:
    async with asyncio.timeout(LOGIN_TIMEOUT):
        return await asyncssh.connect(
            hop.host,
            hop.port,
            options=hop.options,
            config=None,
            encryption_algs=_quick_first(hop.options.encryption_algs),
            sock=sock,
            tunnel=through,
            client_factory=lambda: client,
        )


def _quick_first(ciphers: Sequence[bytes]) -> list[str]:
    """The same ciphers; those that cost asyncssh least time for each packet come first."""
    names = [name.decode("ascii") for name in ciphers]
    return sorted(names, key=lambda name: "-gcm" not in name)
