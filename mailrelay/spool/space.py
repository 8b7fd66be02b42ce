"""Checks the room for more mail: queue.max_size, and the disk."""

import os
import time
from pathlib import Path

import apsw

from mailrelay.spool.database import SpoolFull

CHECK_INTERVAL = 1.0
"""Seconds for which a check stays valid."""
RESERVE = 16 * 1024 * 1024
"""Octets of disk that accepting leaves free, so that results can still be recorded on a disk that we filled."""


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
    """`check_space`, kept for CHECK_INTERVAL seconds or until a quarter of the room has been used."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._left = 0
        self._checked = 0.0

    def check(self, db: apsw.Connection, size: int) -> None:
        """Raises SpoolFull if there is no room for `size` more octets."""
        now = time.monotonic()
        if size > self._left or now > self._checked + CHECK_INTERVAL:
            # Messages take more than their octets, and others write too.
            self._left = check_space(db, size, self._max_size) // 4
            self._checked = now
        self._left -= size
