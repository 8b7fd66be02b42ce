"""`mailrelay serve`: the daemon in the foreground. Service units call this.

Logs to `mailrelay.log` in the spool's directory, rotated, and warnings and worse to stderr; `--verbose` sends everything
there. Exit status: 0 when it was asked to stop, 78 for wrong settings, 1 when it could not start or the disk failed.
"""

import asyncio
import gc
import io
import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Callable
from functools import lru_cache

import click

from mailrelay import daemon
from mailrelay.cli import Failed, load_settings
from mailrelay.cli.log import FILE as LOG_FILE
from mailrelay.spool.database import prepare_directory

try:
    import uvloop
except ImportError:
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

LOG_SIZE, LOG_FILES = 5_000_000, 4
"""Octets of a log file, and how many older ones are kept."""
GARBAGE = 10_000
"""Objects more than there were before circles among them are looked for."""


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="Log everything to stderr too.")
def command(verbose: bool) -> None:
    """Run the relay in the foreground."""
    settings = load_settings()
    os.umask(0o077)
    prepare_directory(settings.queue.directory)
    _log_to(settings.queue.directory / LOG_FILE, logging.INFO if verbose else logging.WARNING)
    # What is loaded by now stays for good, but for what loading left behind (see `mailrelay.__main__`), and hardly anything
    # that a message leaves behind is a circle.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(daemon.serve(settings))
    except daemon.CannotStart as error:
        raise Failed(str(error)) from None


class _LogFile(logging.handlers.RotatingFileHandler):
    """Counts its octets itself: the library formats a record a second time, and asks twice for the end of the file."""

    def _open(self) -> io.TextIOWrapper:
        stream = super()._open()
        self._size = os.fstat(stream.fileno()).st_size
        return stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            if self._size + len(line) > self.maxBytes:
                self._change(record)
            # Closed while the files change their names, and still so where that failed.
            if self.stream is None or self.stream.closed:
                self.stream = self._open()
            self.stream.buffer.write(line)
            self.stream.buffer.flush()
            self._size += len(line)
        except Exception:
            self.handleError(record)

    def _change(self, record: logging.LogRecord) -> None:
        try:
            self.doRollover()
        except OSError:
            # The line goes where the others are.
            self.handleError(record)


class _LogLine(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _second(int(record.created))


@lru_cache(maxsize=1)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(at))


def _log_to(file: os.PathLike[str], level: int) -> None:
    to_file = _LogFile(file, maxBytes=LOG_SIZE, backupCount=LOG_FILES)
    to_file.setFormatter(_LogLine("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter("mailrelay: %(message)s"))
    to_terminal.setLevel(level)
    # What no line of ours shows need not be found out for each.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.addHandler(to_file)
    root.addHandler(to_terminal)
    logging.getLogger("mailrelay").setLevel(logging.INFO)
