"""Whether the daemon answers: a UNIX socket in the spool's directory, on which it tells everyone who connects how it is.

An answer is one line of JSON, and then the end:

    pid      its process id
    full     why it accepts no mail: no space; "" if there is space
    failure  why it accepts no mail: the spool cannot be used; "" if it can

The socket can be missing: the daemon starts, or is of an older version. A socket that nobody listens on is what a killed
daemon has left. Commands use `ask`, so nothing here imports asyncio.
"""

import contextlib
import os
import stat
import sys
import time

# The part of `socket` that is written in C: the import of `socket` would lengthen `mailrelay status`.
from _socket import AF_UNIX, SOCK_STREAM, socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

FILE = "status"
ANSWER_TIMEOUT = 10.0
"""Seconds within which a daemon that runs has answered."""
BACKLOG = 128
"""Commands that wait for the answer of a daemon that hangs."""
MAX_ANSWER = 8192
"""Octets."""
_MAX_PATH = 100
"""Octets of the path of a socket. The kernels allow a few more."""
_RETRY = 0.05


class Answer(msgspec.Struct):
    """See above."""

    pid: int
    full: str
    failure: str


class NoAnswer(Exception):
    """The daemon runs and does not answer."""


def listen(directory: Path) -> int:
    """The daemon's end: the descriptor of a socket that does not block. Replaces the socket of an earlier daemon.

    Raises OSError. Call it while holding the lock.
    """
    with contextlib.suppress(FileNotFoundError):
        (directory / FILE).unlink()
    listening = socket(AF_UNIX, SOCK_STREAM)
    try:
        listening.setblocking(False)
        with _address(directory) as address:
            listening.bind(address)
        listening.listen(BACKLOG)
        return listening.detach()
    finally:
        # Does nothing after `detach`.
        listening.close()


def line(answer: Answer) -> bytes:
    """What the daemon sends to everyone who connects. It fits into the buffer of a new socket."""
    return msgspec.json.encode(answer) + b"\n"


def ask(directory: Path, timeout: float) -> Answer | None:
    """What the daemon says of itself; None if it has no socket. Raises NoAnswer after `timeout` seconds."""
    end = time.monotonic() + timeout
    try:
        if not stat.S_ISSOCK((directory / FILE).lstat().st_mode):
            return None
        with _address(directory) as address:
            return _ask(address, end)
    except TimeoutError:
        raise NoAnswer from None
    except (OSError, msgspec.DecodeError):
        # No socket; nobody listens on it; or the daemon ends at this moment.
        return None


def _ask(address: str, end: float) -> Answer:
    asking = socket(AF_UNIX, SOCK_STREAM)
    try:
        while True:
            try:
                asking.settimeout(max(end - time.monotonic(), _RETRY))
                asking.connect(address)
                break
            except BlockingIOError:
                # Others wait already, as many as fit.
                if time.monotonic() > end:
                    raise TimeoutError from None
                time.sleep(_RETRY)
        answer = b""
        while len(answer) <= MAX_ANSWER and (part := asking.recv(MAX_ANSWER)):
            answer += part
        return msgspec.json.decode(answer, type=Answer)
    finally:
        asking.close()


@contextlib.contextmanager
def _address(directory: Path) -> Iterator[str]:
    """The path of the socket, in a form that is short enough for the kernel."""
    path = str(directory / FILE)
    if len(os.fsencode(path)) <= _MAX_PATH or sys.platform != "linux":
        yield path
        return
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{FILE}"
    finally:
        os.close(handle)
