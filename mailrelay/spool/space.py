"""Checks whether there is space for more mail: below queue.max_size, and on the disk."""

import os
import time
from pathlib import Path

import apsw

from mailrelay.mail.spool_errors import SpoolFull, SpoolUnavailable

ORDINARY = 16 * 1024
"""Octets of an ordinary message: the spool counts as full if there is no space for one."""
CHECK_INTERVAL = 1.0
"""Seconds for which a check stays valid."""
RESERVE = 16 * 1024 * 1024
"""Octets of disk that incoming mail leaves free, so that outcomes can still be recorded on a disk that mail has filled."""


def check_space(db: apsw.Connection, size: int, max_size: int) -> int:
    """Raises SpoolFull if `size` more octets would exceed `max_size` or use the reserve. Returns how many would not.

    Raises SpoolUnavailable if the disk does not say how much of it is free.
    """
    pages = db.pragma("page_count") - db.pragma("freelist_count")
    below_limit: int = max_size - pages * db.pragma("page_size")
    if size > below_limit:
        raise SpoolFull(
            "the spool has reached queue.max_size; see what waits with `mailrelay queue`", max(below_limit, 0)
        )
    try:
        disk = os.statvfs(Path(db.filename).parent)
    except OSError as error:
        raise SpoolUnavailable(
            f"the free space on the spool's disk is not known ({error.strerror}); look at the disk"
        ) from None
    # Half: every octet is written twice, to SQLite's log and to the file.
    on_disk = (disk.f_bavail * disk.f_frsize - RESERVE) // 2
    if size > on_disk:
        reserve = RESERVE // 1_048_576
        raise SpoolFull(f"the spool's disk is full, except for a reserve of {reserve} MiB; make space", max(on_disk, 0))
    return min(below_limit, on_disk)


class SpaceCheck:
    """`check_space`, whose result is used for CHECK_INTERVAL seconds, or until a quarter of the space has been used."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._left = 0
        self._checked = 0.0

    def check(self, db: apsw.Connection, size: int) -> None:
        """Raises SpoolFull if there is no space for `size` more octets."""
        now = time.monotonic()
        if size > self._left or now > self._checked + CHECK_INTERVAL:
            # A quarter: a message takes more space than its octets, and commands write too.
            self._left = check_space(db, size, self._max_size) // 4
            self._checked = now
        self._left -= size
