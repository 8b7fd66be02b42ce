"""What this machine has to have: a spool, the addresses that clients connect to, somebody who serves.

Asks nobody but this machine. Never: a spool that is made, a socket file that is left.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from mailrelay.check.finding import Finding
from mailrelay.config import Listen, Queue, Settings
from mailrelay.endpoint import Endpoint, Tcp, Unix
from mailrelay.listener.peer_account import Unowned, uid_of_connection
from mailrelay.listener.sockets import CannotListen, bound_endpoint, open_sockets
from mailrelay.spool.database import SpoolError, connect, prepare_directory, reading
from mailrelay.spool.space import check_space

GREETING = 5.0
"""Seconds for our own listener to greet."""


def examine(settings: Settings, pid: str | None) -> Iterator[Finding]:
    """The checks, in order. pid: of the daemon that serves, None if there is none."""
    yield _spool(settings.queue, settings.listen.max_message_size)
    if pid is None:
        yield Finding("service", False, "nobody serves", "start it: mailrelay serve, or its unit")
    else:
        yield Finding("service", True, f"process {pid or 'unknown'} serves")
    yield from _addresses(settings.listen, serving=pid is not None)


def _spool(queue: Queue, size: int) -> Finding:
    """size: octets of the largest message."""
    directory = queue.directory
    try:
        db = connect(directory, create=False)
    except FileNotFoundError:
        return _still_to_be_made(directory)
    except SpoolError as error:
        return _unusable(error)
    try:
        with reading(db):
            check_space(db, size, queue.max_size)
    except SpoolError as error:
        return _unusable(error)
    finally:
        db.close()
    return Finding("spool", True, f"{directory} is yours alone, and has room")


def _still_to_be_made(directory: Path) -> Finding:
    if directory.exists():
        try:
            # Of one that is there, it only looks.
            prepare_directory(directory)
        except SpoolError as error:
            return _unusable(error)
    above = nearest(directory)
    if os.access(above, os.W_OK | os.X_OK):
        return Finding("spool", True, f"{directory} is made when the first message comes")
    what = f"{directory} cannot be made: {above} is not yours to write"
    return Finding("spool", False, what, "make it yours, or name another queue.directory in the settings")


def _unusable(error: SpoolError) -> Finding:
    what, _, fix = str(error).partition("; ")
    return Finding("spool", False, what, fix or "fix that, or name another queue.directory in the settings")


def _addresses(listen: Listen, *, serving: bool) -> Iterator[Finding]:
    address = listen.address
    if not serving:
        if isinstance(address, Tcp):
            yield _is_free(address)
        return
    if isinstance(address, Unix):
        yield _greets(socket.AF_UNIX, address.path, str(address))
        return
    hosts = ("127.0.0.1", "::1") if address.host == "localhost" else (address.host,)
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if host != "::1" or address.host != "localhost" or _has_v6():
            yield _greets(family, (host, address.port), str(Tcp(host, address.port)))


def _is_free(address: Endpoint) -> Finding:
    try:
        opened = open_sockets(address)
    except CannotListen as error:
        return Finding("address", False, str(error), "stop it, or choose another listen.address in the settings")
    shown = " and ".join(str(bound_endpoint(each)) for each in opened)
    for each in opened:
        each.close()
    return Finding("address", True, f"{shown} can be had")


def _greets(family: socket.AddressFamily, place: str | tuple[str, int], shown: str) -> Finding:
    """Whether one of the service's addresses is held by us, and speaks SMTP."""
    stop = "stop whatever holds it, and start mailrelay again"
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(GREETING)
        try:
            client.connect(place)
            greeting = client.recv(512)
        except OSError as error:
            why = f"{shown} does not answer ({error.strerror or error}), though mailrelay serves"
            return Finding("address", False, why, "start it again; listen.address may have changed since")
        if family != socket.AF_UNIX and greeting:
            uid = uid_of_connection(client.getpeername()[:2], client.getsockname()[:2])
            if not isinstance(uid, Unowned) and uid != os.getuid():
                return Finding("address", False, f"{shown} is held by another account (uid {uid})", stop)
    if not greeting:
        return Finding("address", False, f"{shown} does not let you in", "add your account to listen.allow_users")
    if not greeting.startswith(b"220"):
        return Finding("address", False, f"what answers on {shown} is no mail server", stop)
    return Finding("address", True, f"{shown} is ours, and answers")


def _has_v6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def nearest(path: Path) -> Path:
    """Of a path and the directories above it, the first that is there."""
    return next(each for each in (path, *path.parents) if each.exists())
