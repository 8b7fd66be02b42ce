"""Which accounts may use the listener.

Every account of the machine can connect to a port on loopback. So on Linux the kernel is asked for the owner of the
client's end of a connection.

Promises: a client whose account cannot be determined is refused. Never: relies on what a client says about itself.

Limits: on systems other than Linux, the owner of a TCP connection cannot be determined, and all local accounts may use the
port. A UNIX socket is protected by its mode on all systems, on Linux by its owner too. A connection from another machine has
no owner here; only the setting "any" allows it.
"""

import enum
import os
import pwd
import socket
import struct
import sys
from collections.abc import Iterable
from typing import Any, Protocol

from mailrelay.endpoint import Unix
from mailrelay.listener.peer_account import NoOwner, account_name, uid_of_connection

_CREDENTIALS = struct.Struct("=iII")
"""ucred of unix(7): process, user, group."""


class Access(enum.Enum):
    """Whether a connection may be used."""

    ALLOWED = enum.auto()
    CLIENT_CLOSED = enum.auto()
    """The client closed it before the kernel was asked for its owner: not a refusal."""
    REFUSED = enum.auto()


def allowed_uids(allow_users: Iterable[str]) -> frozenset[int] | None:
    """The user ids for "self", account names and numbers; None for "any". Raises KeyError with an unknown name."""
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


class HasExtraInfo(Protocol):
    """A transport or a stream writer of asyncio."""

    def get_extra_info(self, name: str, /) -> Any: ...


def check_access(connection: HasExtraInfo, allowed: frozenset[int] | None) -> tuple[Access, str]:
    """Whether the client's account is one of `allowed` (user ids, None for any). If refused, also the account's
    name; otherwise ""."""
    if allowed is None or sys.platform != "linux":
        return Access.ALLOWED, ""
    found = _owner(connection)
    if found in allowed:
        return Access.ALLOWED, ""
    if found is NoOwner.CLOSED or (found is NoOwner.UNKNOWN and _is_closed(connection)):
        return Access.CLIENT_CLOSED, ""
    return Access.REFUSED, account_name(found) if isinstance(found, int) else "an unknown account"


def owner(connection: HasExtraInfo) -> int | None:
    """The user id of the client's account; None if it cannot be determined."""
    if sys.platform != "linux":
        return None
    found = _owner(connection)
    return found if isinstance(found, int) else None


def is_on(connection: HasExtraInfo, endpoint: Unix | None) -> bool:
    """Whether the client has connected to this UNIX socket."""
    return endpoint is not None and connection.get_extra_info("sockname") == endpoint.path


def _owner(connection: HasExtraInfo) -> int | NoOwner:
    # The event loop has stored both ends; to ask the socket for them would cost ten system calls.
    client_end, own_end = connection.get_extra_info("peername"), connection.get_extra_info("sockname")
    if not isinstance(own_end, tuple):
        # A UNIX socket: its ends are paths.
        credentials = connection.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
        return int(_CREDENTIALS.unpack(credentials)[1])
    return NoOwner.CLOSED if client_end is None else uid_of_connection(client_end[:2], own_end[:2])


def _is_closed(connection: HasExtraInfo) -> bool:
    """Whether the client has closed the connection: then the kernel names no owner of its end."""
    try:
        connection.get_extra_info("socket").getpeername()
    except OSError:
        return True
    return False
