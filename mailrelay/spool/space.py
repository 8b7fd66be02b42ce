"""Whether there is room for more mail: in the settings and on the disk."""

import os
import time
from pathlib import Path

import apsw

from mailrelay.spool.database import SpoolFull

LOOK = 1.0
"""Seconds between two looks at the disk, at most, while mail comes in."""
RESERVE = 16 * 1024 * 1024
"""Octets of disk left free by accepting, so that what became of mail can still be recorded on a disk that we filled."""


def check_space(db: apsw.Connection, size: int, max_size: int) -> int:
    """Raises SpoolFull if `size` more octets would pass `max_size` or leave the disk without its reserve. Returns how many
    more would not."""
    pages = db.pragma("page_count") - db.pragma("freelist_count")
    below_limit: int = max_size - pages * db.pragma("page_size")
    if size > below_limit:
        raise SpoolFull("the spool has reached queue.max_size; see what waits with `mailrelay queue`")
    disk = os.statvfs(Path(db.filename).parent)
    # Twice: once in the log, once in the file.
    on_disk = (disk.f_bavail * disk.f_frsize - RESERVE) // 2
    if size > on_disk:
        raise SpoolFull(f"the spool's disk is full, but for {RESERVE // 1_048_576} MiB that are kept back; make space")
    return min(below_limit, on_disk)


class Room:
    """`check_space` for one who takes in much: what was found holds for LOOK seconds, or until a good part of it is used."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._left = 0
        self._looked = 0.0

    def check(self, db: apsw.Connection, size: int) -> None:
        """Raises SpoolFull if there is no room for `size` more octets."""
        now = time.monotonic()
        if size > self._left or now > self._looked + LOOK:
            # Messages take more than their octets, and others write too.
            self._left = check_space(db, size, self._max_size) // 4
            self._looked = now
        self._left -= size
