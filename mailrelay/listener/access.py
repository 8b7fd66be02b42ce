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
from typing import Any, Protocol

from mailrelay.listener.peer_account import NoOwner, account_name, uid_of_connection

_CREDENTIALS = struct.Struct("=iII")
"""ucred of unix(7): process, user, group."""


class Access(enum.Enum):
    """What becomes of a connection."""

    ALLOWED = enum.auto()
    CLIENT_CLOSED = enum.auto()
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


class Connected(Protocol):
    """A transport or a stream of asyncio's."""

    def get_extra_info(self, name: str, /) -> Any: ...


def check_access(connection: Connected, allowed: frozenset[int] | None) -> tuple[Access, str]:
    """Whether the client's account is one of `allowed` (user ids, None for any); if refused, with the account's name."""
    if allowed is None or sys.platform != "linux":
        return Access.ALLOWED, ""
    # The event loop knows both ends since it accepted; asking a socket of its own costs ten system calls.
    client_end, own_end = connection.get_extra_info("peername"), connection.get_extra_info("sockname")
    owner: int | NoOwner
    if not isinstance(own_end, tuple):
        # A UNIX socket: its ends are paths.
        credentials = connection.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
        owner = _CREDENTIALS.unpack(credentials)[1]
    elif client_end is None:
        return Access.CLIENT_CLOSED, ""
    else:
        owner = uid_of_connection(client_end[:2], own_end[:2])
    if owner in allowed:
        return Access.ALLOWED, ""
    if owner is NoOwner.CLOSED or (owner is NoOwner.UNKNOWN and _is_closed(connection)):
        return Access.CLIENT_CLOSED, ""
    return Access.REFUSED, account_name(owner) if isinstance(owner, int) else "an account that is not known"


def _is_closed(connection: Connected) -> bool:
    """Whether the client has closed the connection: then the kernel knows no owner of its end."""
    try:
        connection.get_extra_info("socket").getpeername()
    except OSError:
        return True
    return False
