"""Checks on this machine: the spool, the daemon, and the addresses that clients connect to.

Uses no network. Never: create a spool, or leave a socket file behind.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from mailrelay.check.finding import Finding
from mailrelay.config import Listen, Queue, Settings
from mailrelay.endpoint import Endpoint, Tcp, Unix
from mailrelay.listener.peer_account import NoOwner, uid_of_connection
from mailrelay.listener.sockets import CannotListen, Sockets, bound_endpoint
from mailrelay.mail import quantity
from mailrelay.mail.spool_errors import SpoolError
from mailrelay.spool import trigger
from mailrelay.spool.database import opened_for_reading, prepare_directory
from mailrelay.spool.inspection import findings
from mailrelay.spool.space import ORDINARY, check_space

GREETING_TIMEOUT = 5.0
"""Seconds until the daemon's listener must have sent its greeting."""


def examine(settings: Settings, pid: str | None) -> Iterator[Finding]:
    """The findings, in order. pid: of the running daemon, "" if it is unknown, None if no daemon runs."""
    yield _spool(settings.queue, settings.listen.max_message_size)
    is_asleep = pid is None and trigger.is_listened_to(settings.queue.directory)
    if is_asleep:
        yield Finding("service", True, "asleep; starts with the next mail")
    elif pid is None:
        yield Finding("service", False, "no daemon runs", "start `mailrelay serve`, or its service unit")
    else:
        yield Finding("service", True, f"the daemon runs as process {pid}" if pid else "the daemon runs")
    yield from _addresses(settings.listen, serving=pid is not None or is_asleep)


def _spool(queue: Queue, size: int) -> Finding:
    """Whether the spool can be used and has space. size: octets of the largest message that clients may send."""
    directory = queue.directory
    try:
        with opened_for_reading(directory) as db:
            largest = check_space(db, ORDINARY, queue.max_size, size)
            damage = findings(db)
    except FileNotFoundError:
        return _not_created(directory)
    except SpoolError as error:
        return _unusable(error)
    if damage:
        what = f"the spool's file is damaged: {damage[0]}"
        fix = "look at the disk; `mailrelay serve` repairs it at its start, where that is possible"
        return Finding("spool", False, what, fix)
    room = "the largest message" if largest >= size else f"messages up to {quantity.size(largest)}"
    return Finding("spool", True, f"{directory} is private and whole, and has space for {room}")


def _not_created(directory: Path) -> Finding:
    if directory.exists():
        try:
            # Changes nothing in a directory that exists.
            prepare_directory(directory)
        except SpoolError as error:
            return _unusable(error)
    parent = nearest_existing(directory)
    if os.access(parent, os.W_OK | os.X_OK):
        return Finding("spool", True, f"the first message creates {directory}")
    what = f"{directory} cannot be created: you cannot write to {parent}"
    return Finding("spool", False, what, f"make {parent} writable, or set another queue.directory")


def _unusable(error: SpoolError) -> Finding:
    """The text of a SpoolError is the reason, and after "; " the fix if there is one."""
    what, _, fix = str(error).partition("; ")
    return Finding("spool", False, what, fix or "repair that, or set another queue.directory")


def _addresses(listen: Listen, *, serving: bool) -> Iterator[Finding]:
    address = listen.address
    if not serving:
        if isinstance(address, Tcp):
            yield _free_address(address)
        return
    if isinstance(address, Unix):
        yield _greeting(socket.AF_UNIX, address.path, str(address))
        return
    hosts: tuple[str, ...] = (address.host,)
    if address.host == "localhost":
        hosts = ("127.0.0.1", "::1") if _has_v6() else ("127.0.0.1",)
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        yield _greeting(family, (host, address.port), str(Tcp(host, address.port)))


def _free_address(address: Endpoint) -> Finding:
    sockets = Sockets()
    try:
        opened = sockets.open(address)
    except CannotListen as error:
        return Finding("address", False, str(error), "stop what uses it, or set another listen.address")
    addresses = [bound_endpoint(each) for each in opened]
    for each in opened:
        each.close()
    sockets.release(addresses)
    shown = " and ".join(map(str, addresses))
    return Finding("address", True, f"{shown} {'is' if len(opened) == 1 else 'are'} free")


def _greeting(family: socket.AddressFamily, address: str | tuple[str, int], shown: str) -> Finding:
    """Whether a process of this account listens at the address and greets as an SMTP server."""
    stop = "stop that program, then restart mailrelay"
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(GREETING_TIMEOUT)
        try:
            client.connect(address)
            greeting = client.recv(512)
        except OSError as error:
            why = f"{shown} does not respond ({error.strerror or error}), but the daemon runs"
            return Finding("address", False, why, "restart mailrelay: listen.address may have changed since its start")
        if family != socket.AF_UNIX and greeting:
            uid = uid_of_connection(client.getpeername()[:2], client.getsockname()[:2])
            if not isinstance(uid, NoOwner) and uid != os.getuid():
                return Finding("address", False, f"another account (uid {uid}) listens on {shown}", stop)
    if not greeting:
        return Finding(
            "address",
            False,
            f"{shown} closes your connection without a greeting",
            "add your account to listen.allow_users",
        )
    if not greeting.startswith(b"220"):
        return Finding("address", False, f"the program that listens on {shown} is not a mail server", stop)
    return Finding("address", True, f"mailrelay listens on {shown}")


def _has_v6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def nearest_existing(path: Path) -> Path:
    """The path if it exists, or else its nearest parent directory that does."""
    return next(each for each in (path, *path.parents) if each.exists())
