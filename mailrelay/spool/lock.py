"""One daemon at a time: a lock on a file of its own, never on the database (closing that would drop SQLite's locks).

The kernel releases the lock when the process ends, however it ends. The file contains the id of the process that holds it.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mailrelay.mail.spool_errors import SpoolError

FILE = "lock"


class Held(Exception):
    """Another process holds the lock. `pid` is its id as text, "" if it is not known."""

    def __init__(self, pid: str) -> None:
        super().__init__(f"another mailrelay serves this spool (process {pid or 'unknown'}); stop that one first")
        self.pid = pid


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Holds the lock of the spool in `directory`. Raises Held at once if another process holds it; SpoolError."""
    try:
        handle = os.open(directory / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SpoolError(
            f"{directory / FILE} cannot be opened ({error.strerror}); look at the disk and the permissions"
        ) from None
    try:
        if not _try_lock(handle):
            raise Held(os.pread(handle, 20, 0).decode("ascii", "replace").strip())
        # On a full disk the lock holds all the same; only the process id is missing.
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        yield
        # A disk that has become read-only must not hide why the daemon ends.
        with suppress(OSError):
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    # Several tries: `holder` has it for an instant.
    for _ in range(5):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def holder(directory: Path) -> str | None:
    """The process id of the daemon that holds the lock, "" if it is not known, None if no process holds it."""
    try:
        handle = os.open(directory / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(handle, 20, 0).decode("ascii", "replace").strip()
    else:
        return None
    finally:
        os.close(handle)
