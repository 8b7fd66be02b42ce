"""The ballast: a file of SIZE zeros, which is deleted when the disk is too full to record the outcome of an attempt.

Never: raises an error. The spool works without the ballast, too.
"""

import contextlib
import os
from pathlib import Path

FILE = "ballast"
SIZE = 8 * 1024 * 1024
"""Octets. The ballast is made only if the disk has four times as many free."""


def make(directory: Path) -> None:
    """Makes the ballast in `directory` if there is none, or only a part of it, and the disk has space for it."""
    path = directory / FILE
    # If it cannot be made (a quota, no inodes left), go on without it.
    with contextlib.suppress(OSError):
        # It is not synced, so a power cut may leave only a part of it.
        is_whole = path.exists() and path.stat().st_size >= SIZE
        disk = os.statvfs(directory)
        if is_whole or disk.f_bavail * disk.f_frsize < 4 * SIZE:
            return
        handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            # Written, not truncated to size: a file with holes uses no disk space.
            written = os.write(handle, bytes(SIZE))
        except OSError:
            written = 0
        finally:
            os.close(handle)
        if written < SIZE:
            path.unlink()


def drop(directory: Path) -> bool:
    """Deletes the ballast in `directory`. Returns whether there was one."""
    try:
        (directory / FILE).unlink()
    except OSError:
        return False
    return True
