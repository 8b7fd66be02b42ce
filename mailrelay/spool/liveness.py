"""Whether the daemon answers: a UNIX socket in the spool's directory, on which it sends its state to each program that
connects.

An answer is one line of JSON; then the daemon closes the connection:

    pid      its process id
    full     the error because of which it has no space for mail; "" if it has space
    failure  the error because of which it cannot use the spool; "" if it can

The socket is missing while the daemon starts, and with a daemon of an older version. A killed daemon leaves a socket on
which no process listens. Commands use `ask`, so this module must not import asyncio, which loads slowly.
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
"""The number of commands that can wait for an answer while the daemon hangs."""
MAX_ANSWER = 8192
"""Octets of an answer, with the line end."""
_MAX_PATH = 100
"""Octets of the path of a socket. The kernels allow a few more."""
_RETRY = 0.05
"""Seconds between two tries to connect."""


class Answer(msgspec.Struct):
    """The fields are described in the module's docstring."""

    pid: int
    full: str
    failure: str


class NoAnswer(Exception):
    """The daemon runs, but does not answer in time."""


def listen(directory: Path) -> int:
    """The socket of the daemon: the descriptor of a socket that does not block. Replaces the socket of an earlier daemon.

    Raises OSError. Call it while holding the lock of the spool.
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
    """An answer, encoded as the daemon sends it. It fits into the buffer of a new socket."""
    return msgspec.json.encode(answer) + b"\n"


def ask(directory: Path, timeout: float) -> Answer | None:
    """The answer of the daemon; None if no daemon listens. timeout: seconds. Raises NoAnswer."""
    end = time.monotonic() + timeout
    try:
        if not stat.S_ISSOCK((directory / FILE).lstat().st_mode):
            return None
        with _address(directory) as address:
            return _ask(address, end)
    except TimeoutError:
        raise NoAnswer from None
    except (OSError, msgspec.DecodeError):
        # No socket; no process listens on it; or the daemon ends now.
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
                # BACKLOG other commands wait already.
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
