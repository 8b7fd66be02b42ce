"""Who may connect: which accounts may use the listener, and whether what speaks is a mail client at all.

A port on loopback is open to every account of the machine and to every web page in its browsers. So on Linux the kernel
is asked for the owner of the client's end of a connection, and what speaks another protocol is sent away at its first line.

Promises: an owner that cannot be known is nobody that is allowed. Never: to believe what a client says of itself.

Limits: on other systems than Linux nobody can be asked about TCP, and the port is open to all local accounts. A UNIX
socket is guarded by its mode everywhere, on Linux by its owner too. A connection from another machine has no owner
here, and only "any" lets it in.
"""

import enum
import os
import pwd
import socket
import struct
import sys
from collections.abc import Iterable

from mailrelay.listener.peer_account import Unowned, account_name, uid_of_connection

LAST_IN_GROUP = frozenset(
    {b"EHLO", b"HELO", b"DATA", b"VRFY", b"EXPN", b"NOOP", b"HELP", b"QUIT", b"AUTH", b"STARTTLS"}
)
"""Commands behind which nothing may be sent before their reply was read (RFC 2920 section 3.1)."""

_HTTP = frozenset({b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PRI", b"PUT", b"TRACE"})
_CREDENTIALS = struct.Struct("=iII")
"""ucred of unix(7): process, user, group."""


class Admission(enum.Enum):
    """What becomes of a connection."""

    ALLOWED = enum.auto()
    GONE = enum.auto()
    """The client has closed it before anybody could ask for its owner: nobody is refused."""
    REFUSED = enum.auto()


def allowed_uids(allow_users: Iterable[str]) -> frozenset[int] | None:
    """The accounts that "self", names and numbers stand for; None for "any". Raises KeyError with an unknown name."""
    if "any" in allow_users:
        return None
    return frozenset(_uid(user) for user in allow_users)


def _uid(user: str) -> int:
    if user == "self":
        return os.getuid()
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise KeyError(user) from None


def admit(connection: socket.socket, allowed: frozenset[int] | None) -> tuple[Admission, str]:
    """Whether the account at the other end of `connection` is one of `allowed`; with its name where it is refused."""
    if allowed is None or sys.platform != "linux":
        return Admission.ALLOWED, ""
    if connection.family == socket.AF_UNIX:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        owner: int | Unowned = _CREDENTIALS.unpack(credentials)[1]
    else:
        try:
            near, far = connection.getpeername()[:2], connection.getsockname()[:2]
        except OSError:
            return Admission.GONE, ""
        owner = uid_of_connection(near, far)
    if owner in allowed:
        return Admission.ALLOWED, ""
    if owner is Unowned.CLOSED or (owner is Unowned.UNKNOWN and _is_closed(connection)):
        return Admission.GONE, ""
    return Admission.REFUSED, account_name(owner) if isinstance(owner, int) else "an account that is not known"


def _is_closed(connection: socket.socket) -> bool:
    """Whether the client's end is gone: then the kernel knows no owner of it any more."""
    try:
        connection.getpeername()
    except OSError:
        return True
    return False


def speaks_http(verb: bytes) -> bool:
    """Whether the first word of a line, in capitals, is one of a web browser's: a method or the name of a header field."""
    return verb in _HTTP or verb.endswith(b":")
