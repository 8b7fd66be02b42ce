"""Flow control of the TCP connection below all channels of an SSH connection, which asyncssh leaves alone.

A writer would not learn that the connection is full. Then all data that a channel's window allows would queue up before the
data of another channel: a small message would wait behind a large one.

The kernel delays acknowledgements of received data. On a forwarded connection sshd leaves Nagle's algorithm on, and so holds
back its next data until it gets the acknowledgement. Therefore we acknowledge at once.
"""

import asyncio
import contextlib
import socket

from mailrelay.ssh.asyncssh_patches import call_after_receive, watch_transport
from mailrelay.ssh.hop_connection import HopConnection


class FlowControl:
    """connection: the first hop's, which has the TCP connection."""

    def __init__(self, connection: HopConnection) -> None:
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._socket = connection.get_extra_info("socket")
        watch_transport(connection, self._has_room.clear, self._has_room.set)
        if self._socket is not None and hasattr(socket, "TCP_QUICKACK"):
            call_after_receive(connection, self.acknowledge)

    async def drain(self) -> None:
        """Waits until the transport has room for more data."""
        await self._has_room.wait()

    def release(self) -> None:
        """Ends all waiting: the connection has ended."""
        self._has_room.set()

    def acknowledge(self) -> None:
        """Acknowledges received data at once. The kernel forgets this setting, so it must be repeated after each receive."""
        # The socket of a ProxyCommand is not TCP.
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
