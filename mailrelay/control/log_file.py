"""Reads the daemon's log, and adds lines to it about messages that a command has stored and that are not sent. Needs no
daemon.

The daemon appends to the same file, and rotates it. Each call is one write at the end of the file, so lines do not mix.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from io import BufferedReader
from pathlib import Path

FILE = "mailrelay.log"
"""In the directory of the spool."""


def local_time(at: float) -> str:
    """The time at the beginning of a line: local, with its offset from UTC. at: epoch seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(at))


@lru_cache(maxsize=4)
def epoch_minute(minute: str, zone: str) -> float | None:
    """The minute of a line and its offset from UTC, as in "2026-11-28T14:03" and "+0900", in epoch seconds; None for other
    text."""
    try:
        return datetime.strptime(minute + zone, "%Y-%m-%dT%H:%M%z").timestamp()
    except (ValueError, OverflowError):
        return None


def open_for_append(file: Path) -> int:
    """A descriptor of the log, which is made if it is missing. Raises OSError, also for a named pipe without a reader: it is
    not waited for."""
    return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)


def append(directory: Path, lines: Sequence[str], now: float, severity: str = "ERROR") -> None:
    """Writes lines, with the severity ERROR if the person must act. now: epoch seconds.

    Does nothing if the file cannot be written.
    """
    if not lines:
        return
    text = "".join(f"{local_time(now)} {severity} {line}\n" for line in lines).encode("utf-8", "backslashreplace")
    with suppress(OSError):
        handle = open_for_append(directory / FILE)
        try:
            os.write(handle, text)
        finally:
            os.close(handle)


@contextmanager
def open_files(directory: Path) -> Iterator[list[BufferedReader]]:
    """The log file and the rotated ones, oldest first, opened for reading; none where there is no log. Raises OSError."""
    with ExitStack() as opened:
        yield [opened.enter_context(open_file(path)) for path in _files(directory)]


def _files(directory: Path) -> list[Path]:
    """The log file and the rotated ones (FILE.1, FILE.2 and so on), oldest first."""
    rotated = [path for path in directory.glob(f"{FILE}.*") if path.suffix[1:].isdecimal()]
    rotated.sort(key=lambda path: int(path.suffix[1:]), reverse=True)
    file = directory / FILE
    return [*rotated, file] if file.exists() else rotated


def whole_lines(file: BufferedReader) -> Iterator[str]:
    """The lines from the current position on, without line ends. An incomplete last line is left for the next call."""
    at = file.tell()
    for line in file:
        if not line.endswith(b"\n"):
            break
        at += len(line)
        yield line.decode("utf-8", "backslashreplace").removesuffix("\n")
    file.seek(at)


def open_file(path: Path) -> BufferedReader:
    """The file, opened for reading. Raises OSError."""
    # A named pipe in its place is an error, and is not waited for.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
