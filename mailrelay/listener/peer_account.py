"""Asks the kernel for the owner of a socket: the account at the client's end of a connection, or the process that listens on
a port or a path.

Linux only: the socket diagnosis of netlink (sock_diag(7)), and /proc where netlink is not available. Elsewhere the result
is "not known" (`NoOwner.UNKNOWN` or ""). The result is never a guess.

A client may connect to an IPv4 address through an IPv6 socket, as Java does (RFC 4291 section 2.5.5.2): for the listener
such a connection is IPv4, but in the kernel's tables the client's end is IPv6.
"""

import enum
import itertools
import pwd
import socket
import struct
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

Address = tuple[str, int]
"""Numeric host and port."""

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_ALL = 0xFFFFFFFF
_request_numbers = itertools.count(1)
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI")
_IDENTITY = struct.Struct("!HH16s16s")
_NO_INTERFACE_NO_COOKIE = struct.pack("=III", 0, _ALL, _ALL)
_REPLY = struct.Struct("=B3x36s12s3I2I")
"""inet_diag_msg: family, the 4-tuple, interface and cookie, timers and queues, uid, inode."""

_TCP_LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp."""
_SO_ACCEPTCON = "00010000"
"""The flag of a listening socket in /proc/net/unix."""


class NoOwner(enum.Enum):
    """Why the owner of a socket cannot be named."""

    CLOSED = enum.auto()
    """No process has the socket open any more. The kernel reports such a socket as one of root."""
    UNKNOWN = enum.auto()
    """There is no such socket on this machine, or this is not Linux."""


def uid_of_connection(near: Address, far: Address) -> int | NoOwner:
    """The user id of the account that owns the TCP socket of this machine with the local end `near` and the remote end
    `far`."""
    try:
        return uid_by_netlink(near, far)
    except (OSError, struct.error, LookupError):
        # Netlink for TCP is not available, or there is no such socket; then it is searched twice.
        return uid_by_proc(near, far)


def uid_by_netlink(near: Address, far: Address) -> int | NoOwner:
    """As `uid_of_connection`, by sock_diag(7). Raises OSError, struct.error or LookupError if that is not available."""
    family = _family(near)
    ends = _IDENTITY.pack(near[1], far[1], _octets(near[0]), _octets(far[0]))
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL) + ends + _NO_INTERFACE_NO_COOKIE
    number = next(_request_numbers) & _ALL
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, number, 0)
    netlink = _netlink_socket()
    # The kernel replies before `send` returns.
    netlink.send(header + request)
    reply = netlink.recv(4096)
    while _HEADER.unpack_from(reply)[3] != number:
        # The reply to an earlier request.
        reply = netlink.recv(4096)
    if _HEADER.unpack_from(reply)[1] != _SOCK_DIAG_BY_FAMILY:
        raise LookupError
    found_family, found_ends, *_, uid, inode = _REPLY.unpack_from(reply, _HEADER.size)
    if (found_family, found_ends) != (family, ends):
        mapped = _IDENTITY.pack(near[1], far[1], _octets(_as_ipv6(near[0])), _octets(_as_ipv6(far[0])))
        if (found_family, found_ends) != (socket.AF_INET6, mapped):
            # For a connection that is gone, the kernel may return a listening socket on that port.
            return NoOwner.UNKNOWN
    return int(uid) if inode else NoOwner.CLOSED


@cache
def _netlink_socket() -> socket.socket:
    """The netlink socket of this process, opened at the first call, non-blocking. Raises OSError."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG)
    netlink.setblocking(False)
    netlink.connect((0, 0))
    return netlink


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _as_ipv6(host: str) -> str:
    """An IPv4 address in the form that IPv6 sockets use."""
    return host if ":" in host else f"::ffff:{host}"


@lru_cache(maxsize=8)
def _octets(host: str) -> bytes:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.inet_pton(family, host.partition("%")[0]).ljust(16, b"\0")


def uid_by_proc(near: Address, far: Address) -> int | NoOwner:
    """As `uid_of_connection`, by /proc/net/tcp and tcp6."""
    tables = {"/proc/net/tcp6": (_as_in_proc(_as_ipv6(near[0]), near[1]), _as_in_proc(_as_ipv6(far[0]), far[1]))}
    if _family(near) == socket.AF_INET:
        tables["/proc/net/tcp"] = (_as_in_proc(*near), _as_in_proc(*far))
    for table, ends in tables.items():
        for fields in _rows(Path(table)):
            if (fields[1], fields[2]) == ends:
                return int(fields[7]) if fields[9] != "0" else NoOwner.CLOSED
    return NoOwner.UNKNOWN


def _as_in_proc(host: str, port: int) -> str:
    """An address as /proc prints it: 32-bit words in the byte order of this machine."""
    octets = _octets(host) if ":" in host else _octets(host)[:4]
    words = struct.unpack(f"={len(octets) // 4}I", octets)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def holder_of_port(port: int) -> str:
    """The process that listens on TCP `port`, on any address: `process 4711 (name)`, or `a process of ` and the
    `account_name` if this account may not inspect it; "" if not known."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for fields in _rows(Path(table)):
            if fields[3] == _TCP_LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                return _process_with_socket(fields[9]) or f"a process of {account_name(int(fields[7]))}"
    return ""


def holder_of_path(path: Path) -> str:
    """The process that listens on the UNIX socket at `path`: `process 4711 (name)`; "" if not known."""
    for fields in _rows(Path("/proc/net/unix")):
        # Sockets of connections to it have the same path.
        if fields[3] == _SO_ACCEPTCON and " ".join(fields[7:]) == str(path):
            return _process_with_socket(fields[6])
    return ""


def _process_with_socket(inode: str) -> str:
    """The process that has socket `inode` open, if this account may inspect it; else ""."""
    wanted = f"socket:[{inode}]"
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(descriptor.readlink()) == wanted:
                process = descriptor.parent.parent
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue
    return ""


def account_name(uid: int) -> str:
    """`account me (uid 1000)`, or `account 1000` if the user id has no name."""
    try:
        return f"account {pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"account {uid}"


def _rows(table: Path) -> Iterator[list[str]]:
    """The rows of one of the kernel's tables, split into fields, without the heading."""
    try:
        rows = table.read_text(errors="replace").splitlines()[1:]
    except OSError:
        return
    for row in rows:
        yield row.split()
