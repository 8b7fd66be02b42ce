"""`mailrelay serve`: runs the daemon in the foreground. Service units call this.

It logs to `mailrelay.log` in the spool's directory, with rotation, and to stderr: warnings and above, with `--verbose`
everything. Exit status: 0 after a signal to stop, 78 the settings are wrong, 1 it could not start or the disk failed.
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
from mailrelay.cli.base import Failed, load_settings
from mailrelay.cli.terminal import wrapped
from mailrelay.control.daemon import prepare_directory
from mailrelay.control.log_file import FILE as LOG_FILE
from mailrelay.control.log_file import local_time

try:
    import uvloop
except ImportError:
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

LOG_SIZE, LOG_FILES = 5_000_000, 4
"""Octets of a log file, and the number of rotated files that are kept."""
GC_THRESHOLD = 10_000
"""Threshold of generation 0: new objects until a garbage collection."""


@click.command("serve")
@click.option("-v", "--verbose", is_flag=True, help="Log everything to stderr too.")
def command(verbose: bool) -> None:
    """Run the daemon in the foreground."""
    settings = load_settings()
    os.umask(0o077)
    prepare_directory(settings.queue.directory)
    _log_to(settings.queue.directory / LOG_FILE, logging.INFO if verbose else logging.WARNING)
    # The imports left garbage (see `mailrelay.__main__`). The other objects stay, so later collections skip them. Messages
    # leave few reference cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(daemon.serve(settings))
    except daemon.CannotStart as error:
        raise Failed(str(error)) from None


class _LogFile(logging.handlers.RotatingFileHandler):
    """Counts its octets: the library's check for rotation formats each record a second time and seeks twice."""

    def _open(self) -> io.TextIOWrapper:
        stream = super()._open()
        self._size = os.fstat(stream.fileno()).st_size
        return stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            if self._size + len(line) > self.maxBytes:
                self._change(record)
            # `doRollover` closes the stream, and leaves it closed if it fails.
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
            # The line goes to the old file.
            self.handleError(record)


class _LogLine(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _second(int(record.created))


class _TerminalLine(logging.Formatter):
    """A line on stderr: wrapped on a terminal, one line for a service manager."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(part for line in super().format(record).split("\n") for part in wrapped(line, sys.stderr))


@lru_cache(maxsize=1)
def _second(at: int) -> str:
    # The zone of a laptop changes while the daemon runs.
    time.tzset()
    return local_time(at)


def _log_to(file: os.PathLike[str], level: int) -> None:
    to_file = _LogFile(file, maxBytes=LOG_SIZE, backupCount=LOG_FILES)
    to_file.setFormatter(_LogLine("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(_TerminalLine("mailrelay: %(message)s"))
    to_terminal.setLevel(level)
    # Our lines do not show these fields, so they are not computed.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.addHandler(to_file)
    root.addHandler(to_terminal)
    logging.getLogger("mailrelay").setLevel(logging.INFO)
