"""Opens the listening sockets for an endpoint of the settings.

Promises: all sockets of an endpoint are open, or none is. "localhost" is 127.0.0.1 and ::1: a program that listened on the
other one would receive the mail of clients that try it first. A socket file has mode 0600 from the start. The socket file of
a server that died is replaced; that of a running server is not. A port is never shared (no SO_REUSEPORT).
"""

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from mailrelay.endpoint import Endpoint, Tcp, Unix
from mailrelay.listener.peer_account import holder_of_path, holder_of_port

BACKLOG = 128


class CannotListen(Exception):
    """Listening on the endpoint is not possible; the text is one line with the reason."""


class AddressTaken(CannotListen):
    """Another process listens there; the text names it, if it can be determined."""


def open_sockets(endpoint: Endpoint) -> list[socket.socket]:
    """Sockets that listen on a loopback address or a UNIX socket; for "localhost" one for each address family that this
    machine has. Port 0 is any free port. Raises CannotListen."""
    if isinstance(endpoint, Unix):
        return [_open_unix(endpoint)]
    hosts = ("127.0.0.1", "::1") if endpoint.host == "localhost" else (endpoint.host,)
    port = endpoint.port
    sockets: list[socket.socket] = []
    try:
        for host in hosts:
            opened = _open_tcp(Tcp(host, port))
            if opened is not None:
                sockets.append(opened)
                port = opened.getsockname()[1]
        if not sockets:
            raise CannotListen(f"{endpoint}: this machine has no such address")
    except BaseException:
        for opened in sockets:
            opened.close()
        raise
    return sockets


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
            raise AddressTaken(f"{endpoint} is taken{_by(holder_of_port(endpoint.port))}") from None
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
            raise AddressTaken(f"unix:{path} is taken{_by(holder_of_path(path))}") from None
        raise CannotListen(f"unix:{path}: {error.strerror or error}") from None
    finally:
        os.umask(umask)
    return opened


def _remove_stale(path: Path) -> None:
    """Remove the socket file of a server that died. Raises CannotListen for any other file."""
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
        raise AddressTaken(f"unix:{path} is taken{_by(holder_of_path(path))}")


def remove_socket_file(endpoint: Endpoint) -> None:
    """Removes the file of a UNIX socket that we opened; does nothing for TCP."""
    if isinstance(endpoint, Unix):
        Path(endpoint.path).unlink(missing_ok=True)


def bound_endpoint(opened: socket.socket) -> Endpoint:
    """Where a socket listens, with the port that the kernel chose for port 0."""
    if opened.family == socket.AF_UNIX:
        return Unix(opened.getsockname())
    host, port = opened.getsockname()[:2]
    return Tcp(host, port)


def _by(holder: str) -> str:
    return f" by {holder}" if holder else ""
