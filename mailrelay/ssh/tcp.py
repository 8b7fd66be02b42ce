"""Opens the TCP connection to an SSH server. Works on networks that lose packets, and if some of the server's addresses do
not answer."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable, Coroutine

from mailrelay.ssh.hops import Hop
from mailrelay.ssh.interface import TcpState

CONNECT_RETRY = 3.0
"""Seconds without an answer after which one more connection attempt begins, beside those that still wait. The kernel repeats
its SYN at ever longer intervals: after an interruption of the network that it does not notice, its next SYN may be half a
minute away. On Linux 6.15 and later this is also the longest interval between retransmissions on an established
connection."""
MAX_UNSENT = 64 * 1024
"""Octets that the kernel may hold unsent. Data that is written later, of other channels too, is sent after them."""
_TCP_RTO_MAX_MS = 44
"""A socket option of linux/tcp.h that the socket module does not have."""
_TCP_INFO = struct.Struct("=56xI8xII")
"""Of struct tcp_info in linux/tcp.h: tcpi_last_ack_recv in milliseconds, tcpi_rtt and tcpi_rttvar in microseconds."""
_TCP_INFO_ACKNOWLEDGED = struct.Struct("=120xQ")
"""The same: tcpi_bytes_acked."""


async def open_tcp(hop: Hop) -> socket.socket:
    """A TCP connection to the first address that answers, in the resolver's order. Raises OSError: that of an address that
    refused the connection, else that of the first address."""
    loop = asyncio.get_running_loop()
    end = loop.time() + hop.connect_timeout
    async with asyncio.timeout_at(end):
        found = await loop.getaddrinfo(hop.host, hop.port, family=hop.options.family, type=socket.SOCK_STREAM)
    failures: list[OSError] = []
    for position, (family, kind, protocol, _, address) in enumerate(found):
        try:
            # An equal share of the time for each address: one that drops packets (often IPv6) leaves time for the next.
            async with asyncio.timeout((end - loop.time()) / (len(found) - position)):
                return await first_to_connect(lambda: _connect(hop, family, kind, protocol, address))  # noqa: B023
        except OSError as error:
            failures.append(error)
    raise next((each for each in failures if isinstance(each, ConnectionRefusedError)), failures[0])


async def first_to_connect(connect: Callable[[], Coroutine[None, None, socket.socket]]) -> socket.socket:
    """Calls `connect` every CONNECT_RETRY seconds until one call ends, and returns its socket or raises its OSError. Closes
    the sockets of the other calls."""
    attempts: set[asyncio.Task[socket.socket]] = set()
    try:
        while True:
            attempts.add(asyncio.create_task(connect()))
            ended, _ = await asyncio.wait(attempts, timeout=CONNECT_RETRY, return_when=asyncio.FIRST_COMPLETED)
            if ended:
                first = ended.pop()
                attempts.discard(first)
                return first.result()
    finally:
        for other in attempts:
            other.cancel()
            other.add_done_callback(_close_socket)


def tcp_state(sock: socket.socket) -> TcpState | None:
    """What the kernel knows of a connection; None if `sock` is not TCP, or the system is not Linux."""
    info = _tcp_info(sock, _TCP_INFO)
    if info is None:
        return None
    silence, mean, variation = info
    return TcpState(silence / 1e3, (mean + 4 * variation) / 1e6)


def octets_acknowledged(sock: socket.socket) -> int:
    """How many octets the other side has acknowledged; 0 if `sock` is not TCP, or the system is not Linux 4.1 or later."""
    info = _tcp_info(sock, _TCP_INFO_ACKNOWLEDGED)
    return info[0] if info is not None else 0


def octets_unacknowledged(sock: socket.socket) -> int:
    """How many written octets the other side has not acknowledged yet, sent or not; 0 if `sock` is not TCP or closed, or the
    system is not Linux."""
    if sys.platform != "linux" or sock.fileno() < 0:
        return 0
    try:
        # SIOCOUTQ of linux/sockios.h.
        (octets,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return 0
    return max(0, int(octets))


def _tcp_info(sock: socket.socket, fields: struct.Struct) -> tuple[int, ...] | None:
    """`fields` of the kernel's struct tcp_info; None if `sock` is not TCP or closed, or the kernel does not have them."""
    if sys.platform != "linux":
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, fields.size)
    except OSError:
        return None
    return fields.unpack(info) if len(info) == fields.size else None


async def _connect(hop: Hop, family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT)
        if sys.platform == "linux":
            # Kernels before 6.15 do not have this option.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, int(CONNECT_RETRY * 1000))
        if hop.options.local_addr:
            sock.bind(hop.options.local_addr)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _close_socket(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
