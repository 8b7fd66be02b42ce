"""Flow control of the connections below all channels of an SSH connection, which asyncssh leaves alone.

A writer would not learn that the connection is full. Then all data that a channel's window allows would queue up before the
data of another channel: a small message would wait behind a large one. Behind a jump host whose own connection is slow, and
while keys are exchanged, whole messages would wait in memory.

The kernel delays acknowledgements of received data. On a forwarded connection sshd leaves Nagle's algorithm on, and so holds
back its next data until it gets the acknowledgement. Therefore we acknowledge at once.
"""

import asyncio
import contextlib
import socket
from collections.abc import Sequence

from mailrelay.ssh.asyncssh_patches import call_after_receive, keys_exchanged, octets_unsent, watch_transport
from mailrelay.ssh.hop_connection import HopConnection
from mailrelay.ssh.tcp import octets_unacknowledged


class FlowControl:
    """connections: to all hops. The first one has the TCP connection; each of the others is a channel of the one before."""

    def __init__(self, connections: Sequence[HopConnection]) -> None:
        self._connections = connections
        self._full: set[HopConnection] = set()
        self._is_released = False
        # Set when a connection may have room again.
        self._changed = asyncio.Event()
        self._socket = connections[0].get_extra_info("socket")
        for connection in connections:
            self._watch(connection)
        if self._socket is not None and hasattr(socket, "TCP_QUICKACK"):
            call_after_receive(connections[0], self.acknowledge)

    def _watch(self, connection: HopConnection) -> None:
        def has_room() -> None:
            self._full.discard(connection)
            self._changed.set()

        watch_transport(connection, lambda: self._full.add(connection), has_room)
        # The last packet of a key exchange comes from the server.
        call_after_receive(connection, self._changed.set)

    async def drain(self) -> None:
        """Waits until every connection has room for more data, and none exchanges keys."""
        while not self._is_released and (self._full or not all(map(keys_exchanged, self._connections))):
            self._changed.clear()
            await self._changed.wait()

    @property
    def queued(self) -> int:
        """Octets of all channels that the first hop has not acknowledged, or that wait here for a later hop."""
        in_kernel = octets_unacknowledged(self._socket) if self._socket is not None else 0
        return in_kernel + sum(map(octets_unsent, self._connections))

    def release(self) -> None:
        """Ends all waiting: the connection has ended."""
        self._is_released = True
        self._changed.set()

    def acknowledge(self) -> None:
        """Acknowledges received data at once. The kernel forgets this setting, so it must be repeated after each receive."""
        # The socket of a ProxyCommand is not TCP.
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
