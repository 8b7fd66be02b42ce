"""Adds lines to the daemon's log from a command, about messages that it has stored and that are not sent. Needs no daemon.

The daemon appends to the same file, and rotates it. Each call is one write at the end of the file, so lines do not mix.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

FILE = "mailrelay.log"
"""In the directory of the spool."""


def local_time(at: float) -> str:
    """The time at the beginning of a line: local, with its offset from UTC. at: epoch seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(at))


def open_for_append(file: Path) -> int:
    """A descriptor of the log, which is made if it is missing. Raises OSError, also for a named pipe without a reader: it is
    not waited for."""
    return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)


def append(directory: Path, lines: Sequence[str], now: float) -> None:
    """Writes lines with the severity ERROR: the person must act. now: epoch seconds.

    Does nothing if the file cannot be written.
    """
    if not lines:
        return
    text = "".join(f"{local_time(now)} ERROR {line}\n" for line in lines).encode("utf-8", "backslashreplace")
    with suppress(OSError):
        handle = open_for_append(directory / FILE)
        try:
            os.write(handle, text)
        finally:
            os.close(handle)
