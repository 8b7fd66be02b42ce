"""The listening sockets of the daemon (`Sockets`).

A service manager may have opened some of them before the daemon started (socket activation); the others are opened here. A
socket is kept while a server uses it: at a reload the next server takes it over, so that no client is refused meanwhile.

Promises: all sockets of an endpoint are open, or none is. "localhost" is 127.0.0.1 and ::1: a program that listened on the
other one would receive the mail of clients that try it first. A socket file has mode 0600 from the start. The socket file of
a server that died is replaced; that of a running server is not. A port is never shared (no SO_REUSEPORT), and no address is
used twice by the same settings. The socket files that a service manager has made are not removed.
"""

import errno
import os
import socket
import stat
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mailrelay.endpoint import Endpoint, Tcp, Unix
from mailrelay.listener.peer_account import holder_of_path, holder_of_port

BACKLOG = 128
"""Connections of one socket that wait in the kernel to be accepted, at most."""


class CannotListen(Exception):
    """Listening on the endpoint is not possible; the text is one line with the reason."""


class AddressTaken(CannotListen):
    """Another process listens there, which the text names if it can be found; or the settings name the address twice."""


class Sockets:
    """The listening sockets, by their endpoints. inherited: those that the service manager has opened.

    A socket may have several uses at a reload: those of the old server and of the new one. A claimed address is used by the
    present settings, so they may not name it again.
    """

    def __init__(self, inherited: Iterable[socket.socket] = ()) -> None:
        self._sockets = {bound_endpoint(opened): opened for opened in inherited}
        self._inherited = frozenset(self._sockets)
        self._uses: Counter[Endpoint] = Counter()
        self._claimed: set[Endpoint] = set()

    @property
    def inherited(self) -> frozenset[Endpoint]:
        """Where the service manager listens: the next connection there starts a daemon."""
        return self._inherited

    def reset_claims(self, kept: Iterable[Endpoint] = ()) -> None:
        """To be called before sockets are opened for new settings, which may name each address once. kept: the
        addresses whose servers stay: the new settings have named them already."""
        self._claimed = set(kept)

    def open(self, endpoint: Endpoint) -> list[socket.socket]:
        """Duplicates, for a server, of the sockets that listen on a loopback address or a UNIX socket; for "localhost"
        one for each address family that this machine has. Port 0 is any free port. Raises AddressTaken,
        CannotListen."""
        if isinstance(endpoint, Unix):
            wanted: list[Endpoint] = [endpoint]
        else:
            hosts = ("127.0.0.1", "::1") if endpoint.host == "localhost" else (endpoint.host,)
            wanted = [Tcp(host, endpoint.port) for host in hosts]
        sockets: dict[Endpoint, socket.socket] = {}
        try:
            for each in wanted:
                # The port that the kernel chose for the first address.
                port = next((opened.getsockname()[1] for opened in sockets.values()), 0)
                one = Tcp(each.host, each.port or port) if isinstance(each, Tcp) else each
                if one in self._claimed:
                    raise AddressTaken(f"{one} is taken: the settings name it twice")
                if opened := self._sockets.get(one) or _open(one):
                    # O_NONBLOCK belongs to the socket, not to the descriptor: duplicates have it too.
                    opened.setblocking(False)
                    sockets[bound_endpoint(opened)] = opened
            if not sockets:
                raise CannotListen(f"{endpoint}: this machine has no such address")
            duplicates = [opened.dup() for opened in sockets.values()]
        except BaseException:
            for address, opened in sockets.items():
                if address not in self._sockets:
                    _close(opened, address)
            raise
        self._sockets |= sockets
        self._uses.update(sockets.keys())
        self._claimed |= sockets.keys()
        return duplicates

    def release(self, addresses: Iterable[Endpoint]) -> None:
        """A server has ended: closes the sockets at its addresses that no other server uses, and removes their files."""
        for address in addresses:
            self._uses[address] -= 1
            if (
                self._uses[address] <= 0
                and address not in self._inherited
                and (opened := self._sockets.pop(address, None))
            ):
                _close(opened, address)


def _close(opened: socket.socket, address: Endpoint) -> None:
    opened.close()
    if isinstance(address, Unix):
        Path(address.path).unlink(missing_ok=True)


def _open(endpoint: Endpoint) -> socket.socket | None:
    return _open_unix(endpoint) if isinstance(endpoint, Unix) else _open_tcp(endpoint)


def _open_tcp(endpoint: Tcp) -> socket.socket | None:
    """A listening socket; None if this machine does not have the address."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    try:
        opened = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        # Allows binding while connections of the last run time out. It does not share the port with a listening socket.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((endpoint.host, endpoint.port))
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRNOTAVAIL:
            return None
        if error.errno == errno.EADDRINUSE:
            raise AddressTaken(f"{endpoint} is taken{_by_holder(holder_of_port(endpoint.port))}") from None
        raise CannotListen(f"{endpoint}: {os.strerror(error.errno or 0)}") from None
    return opened


def _open_unix(endpoint: Unix) -> socket.socket:
    path = Path(endpoint.path)
    _remove_stale(path)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        opened.bind(str(path))
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressTaken(f"unix:{path} is taken{_by_holder(holder_of_path(path))}") from None
        raise CannotListen(f"unix:{path}: {error.strerror or error}") from None
    finally:
        os.umask(umask)
    return opened


def _remove_stale(path: Path) -> None:
    """Removes the socket file of a server that died. Raises AddressTaken if a server listens there, CannotListen for any
    other file."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CannotListen(
                f"unix:{path}: there is something that is not a socket; remove it or choose another path"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            # A running server with a full backlog would block us.
            probe.setblocking(False)
            with suppress(BlockingIOError):
                probe.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CannotListen(f"unix:{path}: {error.strerror or error}") from None
    else:
        raise AddressTaken(f"unix:{path} is taken{_by_holder(holder_of_path(path))}")


def bound_endpoint(opened: socket.socket) -> Endpoint:
    """Where a socket listens, with the port that the kernel chose for port 0."""
    if opened.family == socket.AF_UNIX:
        return Unix(opened.getsockname())
    host, port = opened.getsockname()[:2]
    return Tcp(host, port)


def _by_holder(holder: str) -> str:
    return f" by {holder}" if holder else ""
