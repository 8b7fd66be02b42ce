"""The daemon's log. Commands write there what they have put in the spool and is not sent, with or without a daemon.

The daemon appends to the same file, and rotates it. Each call is one write at the end of the file, so no line is torn.
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


def append(directory: Path, lines: Sequence[str], now: float) -> None:
    """Writes lines of the severity that needs the person. now: epoch seconds. Does nothing if the file cannot be written."""
    if not lines:
        return
    text = "".join(f"{local_time(now)} ERROR {line}\n" for line in lines).encode("utf-8", "backslashreplace")
    with suppress(OSError):
        handle = os.open(directory / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, text)
        finally:
            os.close(handle)
