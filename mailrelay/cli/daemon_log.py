"""The daemon's log: the file `mailrelay.log` in the spool's directory, with rotation, and stderr.

Promises: a file that was deleted, moved or replaced is made again within a second, if `look` is called each second. While
the file cannot be written, there is one line about it on stderr, and the write is tried again with each new line. Once it
can be written, a line in it gives the number of missing lines. No error of the log reaches the code that logs.
"""

import errno
import logging
import os
import sys
import time
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from mailrelay import journal
from mailrelay.cli.base import say
from mailrelay.cli.terminal import wrapped
from mailrelay.control.log_file import FILE, local_time, open_for_append

LOG_SIZE, LOG_FILES = 5_000_000, 4
"""Octets of a log file, and the number of rotated files that are kept."""
ROTATION_RETRY = 100_000
"""Octets until the rotation is tried again after it has failed."""


class LogFile(logging.Handler):
    """Appends to `file`. max_size: octets. kept: the number of rotated files (`file`.1 is the newest)."""

    def __init__(self, file: Path, max_size: int = LOG_SIZE, kept: int = LOG_FILES) -> None:
        super().__init__()
        self._file = file
        self._max_size = max_size
        self._kept = kept
        self._handle: int | None = None
        # Device and inode of the open file, and its octets.
        self._identity = (0, 0)
        self._size = 0
        self._rotate_at = max_size
        self._is_failing = False
        self._missing = 0
        # Whether the last write ended within a line.
        self._is_torn = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception as error:
            # For instance, the arguments do not fit the text.
            line = f"{local_time(record.created)} ERROR a log line could not be formatted: {error}\n".encode()
        try:
            self._open()
            if self._size + len(line) > self._rotate_at:
                self._rotate()
            self._write_missing()
            self._write(line)
        except OSError as error:
            self._fail(error)
            self._missing += 1
        else:
            self._is_failing = False

    def look(self) -> None:
        """Makes the file again if it is not at its path, and writes the number of missing lines. Call it each second.

        Does nothing where the directory of the file does not exist yet.
        """
        if self._handle is None and not self._file.parent.is_dir():
            return
        self.acquire()
        try:
            self._close_if_gone()
            self._open()
            self._write_missing()
        except OSError as error:
            self._fail(error)
        else:
            self._is_failing = False
        finally:
            self.release()

    def close(self) -> None:
        self._close_file()
        super().close()

    def _open(self) -> None:
        if self._handle is None:
            self._handle = open_for_append(self._file)
            found = os.fstat(self._handle)
            self._identity = (found.st_dev, found.st_ino)
            self._size, self._rotate_at, self._is_torn = found.st_size, self._max_size, False

    def _close_if_gone(self) -> None:
        try:
            found = self._file.stat()
        except FileNotFoundError:
            self._close_file()
            return
        if (found.st_dev, found.st_ino) == self._identity:
            # Commands also write to this file.
            self._size = found.st_size
        else:
            self._close_file()

    def _close_file(self) -> None:
        if self._handle is not None:
            with suppress(OSError):
                os.close(self._handle)
            self._handle = None

    def _write(self, line: bytes) -> None:
        assert self._handle is not None  # noqa: S101 - `_open` was called
        whole = b"\n" + line if self._is_torn else line
        written = os.write(self._handle, whole)
        self._size += written
        self._is_torn = written < len(whole)
        if self._is_torn:
            # A short write to a file means that the disk is full.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _write_missing(self) -> None:
        if self._missing:
            lines = "1 line is" if self._missing == 1 else f"{self._missing} lines are"
            self._write(f"{local_time(time.time())} WARNING the log could not be written: {lines} missing\n".encode())
            self._missing = 0

    def _fail(self, error: OSError) -> None:
        if not self._is_failing:
            self._is_failing = True
            _say(f"the log {self._file} cannot be written: {error.strerror}; until it can, lines are only counted")

    def _rotate(self) -> None:
        """Renames the file to `file`.1, and opens a new one. If that fails, the old one stays in use."""
        numbered = [self._file.with_name(f"{self._file.name}.{number}") for number in range(self._kept, 0, -1)]
        try:
            for older, newer in pairwise([*numbered, self._file]):
                with suppress(FileNotFoundError):
                    newer.replace(older)
        except OSError as error:
            if self._rotate_at == self._max_size:
                _say(f"the log {self._file} cannot be rotated: {error.filename2 or error.filename}: {error.strerror}")
            self._rotate_at = self._size + ROTATION_RETRY
            return
        self._close_file()
        self._open()


def _say(line: str) -> None:
    # stderr may be closed.
    with suppress(OSError, ValueError):
        say(line)


class _LogLine(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _second(int(record.created))


class _TerminalLine(logging.Formatter):
    """A line on stderr: wrapped on a terminal, one line for a service manager."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(part for line in super().format(record).split("\n") for part in wrapped(line, sys.stderr))


class _JournalLine(logging.Formatter):
    """A line on stderr, for the journal: with its priority. The handler adds the last line end."""

    def format(self, record: logging.LogRecord) -> str:
        return journal.lines(super().format(record), record.levelno).removesuffix("\n")


@lru_cache(maxsize=1)
def _second(at: int) -> str:
    # The time zone of a laptop may change while the daemon runs.
    time.tzset()
    return local_time(at)


def log_to(directory: Path, level: int) -> LogFile:
    """Sends the log of this process to the file in `directory`, and records of at least this level to stderr."""
    to_file = LogFile(directory / FILE)
    to_file.setFormatter(_LogLine("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = logging.StreamHandler(sys.stderr)
    is_journal = journal.is_journal(sys.stderr)
    to_terminal.setFormatter(_JournalLine("%(message)s") if is_journal else _TerminalLine("mailrelay: %(message)s"))
    to_terminal.setLevel(level)
    # Our lines do not show these fields, so they are not computed.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # No traceback for a line that cannot be written to stderr.
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.addHandler(to_file)
    root.addHandler(to_terminal)
    logging.getLogger("mailrelay").setLevel(logging.INFO)
    return to_file
