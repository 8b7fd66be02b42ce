"""Which accounts may use the listener.

A port on loopback is open to every account of the machine. So on Linux the kernel is asked for the owner of the client's end
of a connection.

Promises: a client whose account cannot be known is refused. Never: to believe what a client says of itself.

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

_CREDENTIALS = struct.Struct("=iII")
"""ucred of unix(7): process, user, group."""


class Admission(enum.Enum):
    """What becomes of a connection."""

    ALLOWED = enum.auto()
    GONE = enum.auto()
    """The client closed it before its owner could be asked for: this is no refusal."""
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
    """Whether the client's account is one of `allowed` (user ids, None for any); if it is refused, with the account's
    name."""
    if allowed is None or sys.platform != "linux":
        return Admission.ALLOWED, ""
    if connection.family == socket.AF_UNIX:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        owner: int | Unowned = _CREDENTIALS.unpack(credentials)[1]
    else:
        try:
            client_end, own_end = connection.getpeername()[:2], connection.getsockname()[:2]
        except OSError:
            return Admission.GONE, ""
        owner = uid_of_connection(client_end, own_end)
    if owner in allowed:
        return Admission.ALLOWED, ""
    if owner is Unowned.CLOSED or (owner is Unowned.UNKNOWN and _is_closed(connection)):
        return Admission.GONE, ""
    return Admission.REFUSED, account_name(owner) if isinstance(owner, int) else "an account that is not known"


def _is_closed(connection: socket.socket) -> bool:
    """Whether the client has closed the connection: then the kernel knows no owner of its end."""
    try:
        connection.getpeername()
    except OSError:
        return True
    return False
