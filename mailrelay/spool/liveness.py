"""Whether the daemon answers: a UNIX socket in the spool's directory, on which it sends its state to each program that
connects.

An answer is one line of JSON; then the daemon closes the connection:

    pid      its process id
    full     the error because of which it has no space for mail; "" if it has space
    failure  the error because of which it cannot use the spool; "" if it can
    errors     why relayhosts' mail cannot be sent although nothing is known to be wrong with them: name and text of each
    reloads    how often it has read its settings again
    refusal    why it has not taken the settings that it read last; "" if it has
    connected  the relayhosts to which it has a connection, MAX_CONNECTED at most; null from an older daemon
    sending    the messages whose content is being sent (`mail.sending`); those with most to send if there are many

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
from typing import NamedTuple

from mailrelay.mail.sending import Sending

FILE = "status"
ANSWER_TIMEOUT = 10.0
"""Seconds within which a daemon that runs has answered."""
BACKLOG = 128
"""The number of commands that can wait for an answer while the daemon hangs."""
MAX_ANSWER = 8192
"""Octets of an answer, with the line end."""
MAX_CONNECTED = 64
"""Names of relayhosts in an answer: they are as long as 64 characters."""
_MAX_PATH = 100
"""Octets of the path of a socket. The kernels allow a few more."""
_RETRY = 0.05
"""Seconds between two tries to connect."""


class Answer(NamedTuple):
    """The fields are described in the module's docstring."""

    pid: int
    full: str
    failure: str
    errors: tuple[tuple[str, str], ...] = ()
    reloads: int = 0
    refusal: str = ""
    connected: tuple[str, ...] | None = None
    sending: tuple[Sending, ...] = ()


class NoAnswer(Exception):
    """The daemon runs, but does not answer in time."""


def listen(directory: Path, name: str = FILE) -> int:
    """A socket of the daemon in the directory: the descriptor of a socket that does not block. Replaces the socket of an
    earlier daemon.

    Raises OSError. Call it while holding the lock of the spool.
    """
    with contextlib.suppress(FileNotFoundError):
        (directory / name).unlink()
    listening = socket(AF_UNIX, SOCK_STREAM)
    try:
        listening.setblocking(False)
        with address_of(directory / name) as address:
            listening.bind(address)
        listening.listen(BACKLOG)
        return listening.detach()
    finally:
        # Does nothing after `detach`.
        listening.close()


def line(answer: Answer) -> bytes:
    """An answer, encoded as the daemon sends it. It fits into the buffer of a new socket: messages that are being sent are
    left out if need be, those with little to send first."""
    encoded = _encoded(answer)
    while len(encoded) > MAX_ANSWER and answer.sending:
        kept = sorted(answer.sending, key=lambda one: one.octets - one.size)[: len(answer.sending) // 2]
        answer = answer._replace(sending=tuple(kept))
        encoded = _encoded(answer)
    return encoded


def _encoded(answer: Answer) -> bytes:
    import json  # noqa: PLC0415 - see `_decoded`

    return json.dumps(answer._asdict(), ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n"


def ask(directory: Path, timeout: float) -> Answer | None:
    """The answer of the daemon; None if no daemon listens. timeout: seconds. Raises NoAnswer."""
    end = time.monotonic() + timeout
    try:
        if not stat.S_ISSOCK((directory / FILE).lstat().st_mode):
            return None
        with address_of(directory / FILE) as address:
            return _ask(address, end)
    except TimeoutError:
        raise NoAnswer from None
    except (OSError, ValueError, RecursionError):
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
        return _decoded(answer)
    finally:
        asking.close()


def _decoded(line: bytes) -> Answer:
    """The answer of a daemon, which may be of another version: unknown keys are ignored. Raises ValueError."""
    # Imported here, because `status` loads this file and needs it only if there is a daemon.
    import json  # noqa: PLC0415

    match json.loads(line):
        case {"pid": int() as pid, "full": str() as full, "failure": str() as failure, **more}:
            pass
        case _:
            raise ValueError("no answer")
    errors, reloads, refusal = more.get("errors", []), more.get("reloads", 0), more.get("refusal", "")
    if not (isinstance(errors, list) and isinstance(reloads, int) and isinstance(refusal, str)):
        raise ValueError("no answer")
    names = more.get("connected")
    connected = tuple(map(str, names)) if isinstance(names, list) else None
    listed = more.get("sending", [])
    sending = tuple(one for each in listed if (one := _sending(each))) if isinstance(listed, list) else ()
    return Answer(pid, full, failure, tuple(map(_pair, errors)), reloads, refusal, connected, sending)


def _sending(value: object) -> Sending | None:
    """A message that is being sent; None from a daemon that says it in another way."""
    match value:
        case [str() as queue_id, str() as relayhost, int() as octets, int() as size, float() as rate, left, *_]:
            return Sending(queue_id, relayhost, octets, size, rate, left if isinstance(left, float) else None)
    return None


def _pair(value: object) -> tuple[str, str]:
    match value:
        case [str() as name, str() as text]:
            return name, text
    raise ValueError("no name and text")


@contextlib.contextmanager
def address_of(file: Path) -> Iterator[str]:
    """The path of a socket, in a form that is short enough for the kernel. Raises OSError."""
    path = str(file)
    if len(os.fsencode(path)) <= _MAX_PATH or sys.platform != "linux":
        yield path
        return
    handle = os.open(file.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{file.name}"
    finally:
        os.close(handle)
