"""Checks whether there is space for more mail, below queue.max_size and on the disk, and makes space.

Content that is kept only because its recipients are followed on the relayhost (`followed`) takes no space from new mail: it
counts as free, and is deleted when its space is needed. Content goes first of which all was delivered or has left the mail
server there, then what waits there, then what has bounced there; of each the oldest.

Promises: no message is refused, and none is announced as too large, because of such content.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

import apsw

from mailrelay.mail.spool_errors import SpoolFull, SpoolUnavailable
from mailrelay.spool.verdicts import BOUNCED

ORDINARY = 16 * 1024
"""Octets of an ordinary message: the spool counts as full if there is no space for one."""
CHECK_INTERVAL = 1.0
"""Seconds for which a check stays valid."""
RESERVE = 16 * 1024 * 1024
"""Octets of disk that incoming mail leaves free, so that outcomes can still be recorded on a disk that mail has filled."""
MARGIN = 4 * 1024 * 1024
"""Octets of content that are deleted beyond what is needed, so that not each message has to delete some."""

# Content that nothing else keeps, in the order in which it is deleted.
_KEPT = (
    "SELECT m.id, m.size FROM followed f JOIN recipient r ON r.id = f.recipient JOIN message m ON m.id = r.message"
    " WHERE f.recipient IN (SELECT recipient FROM followed WHERE over IS NULL UNION ALL"
    f" SELECT recipient FROM followed f WHERE {BOUNCED})"
    " AND NOT EXISTS (SELECT 1 FROM recipient o WHERE o.message = m.id AND o.state NOT IN ('sent', 'cancelled'))"
    " AND EXISTS (SELECT 1 FROM content c WHERE c.message = m.id) GROUP BY m.id"
    " ORDER BY max(CASE f.state WHEN 'bounced' THEN 2 WHEN 'deferred' THEN 1 WHEN 'waiting' THEN 1 ELSE 0 END),"
    " min(f.accepted), m.id"
)


class _Left(NamedTuple):
    """Octets of mail for which there is space below queue.max_size, and on the disk. Negative if there is none."""

    below_limit: int
    on_disk: int


class _Measured(NamedTuple):
    """Octets. limit: queue.max_size. file: of the spool's file; free: those of them that are not used. disk: those that are
    free on the disk, without the reserve."""

    limit: int
    file: int
    free: int
    disk: int

    def left(self) -> _Left:
        """The space as it is."""
        # Half: what does not fit into free pages is written twice, to SQLite's log and to the file.
        return _Left(self.limit - self.file + self.free, min(self.disk, (self.disk + self.free) // 2))

    def left_without(self, kept: int) -> _Left:
        """The space after `kept` octets of content were deleted, and free pages given back to the disk."""
        free = self.free + kept
        return _Left(self.limit - self.file + free, (self.disk + free) // 2)


def check_space(db: apsw.Connection, size: int, max_size: int, enough: int = 0) -> int:
    """Raises SpoolFull if `size` more octets would exceed `max_size` or use the reserve. Returns how many would not.

    enough: a result of at least so many octets need not be exact. Raises SpoolUnavailable if the disk does not say how much
    of it is free.
    """
    measured = _measure(db, max_size)
    left = measured.left()
    if min(left) < max(size, enough):
        left = measured.left_without(sum(kept for _, kept in db.execute(_KEPT)))
    return _checked(left, size)


def make_space(db: apsw.Connection, size: int, max_size: int) -> int:
    """As `check_space`, for octets that are written in the same transaction. Deletes content if they need its space."""
    measured = _measure(db, max_size)
    left = measured.left()
    if size > min(left):
        kept = list(db.execute(_KEPT))
        _checked(measured.left_without(sum(octets for _, octets in kept)), size)
        _delete(db, kept, size, measured)
        left = _measure(db, max_size).left()
    return _checked(left, size)


def give_pages_back(db: apsw.Connection, pages: int) -> None:
    """Gives up to so many free pages back to the file system, at the next checkpoint."""
    # Each row of the result is a page: all must be read.
    db.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()


def _measure(db: apsw.Connection, max_size: int) -> _Measured:
    page_size = db.pragma("page_size")
    file = db.pragma("page_count") * page_size
    try:
        disk = os.statvfs(Path(db.filename).parent)
        # The next checkpoint makes the file shorter, if pages were given back.
        shrinking = max(Path(db.filename).stat().st_size - file, 0)
    except OSError as error:
        raise SpoolUnavailable(
            f"the free space on the spool's disk is not known ({error.strerror}); look at the disk"
        ) from None
    return _Measured(
        max_size,
        file,
        db.pragma("freelist_count") * page_size,
        disk.f_bavail * disk.f_frsize - RESERVE + shrinking,
    )


def _checked(left: _Left, size: int) -> int:
    if size > left.below_limit:
        raise SpoolFull(
            "the spool has reached queue.max_size; see what waits with `mailrelay queue`", max(left.below_limit, 0)
        )
    if size > left.on_disk:
        reserve = RESERVE // 1_048_576
        raise SpoolFull(
            f"the spool's disk is full, except for a reserve of {reserve} MiB; make space", max(left.on_disk, 0)
        )
    return min(left)


def _delete(db: apsw.Connection, kept: list[tuple[int, int]], size: int, measured: _Measured) -> None:
    """Deletes content until `size` octets fit, and gives pages back to the disk if it needs them.

    kept: keys and sizes of the messages, in the order in which they go.
    """
    without = measured.left_without(0)
    needed = max(size - without.below_limit, 2 * (size - without.on_disk))
    if needed > 0:
        needed += MARGIN
    deleted = 0
    for message, octets in kept:
        if deleted >= needed:
            break
        db.execute("DELETE FROM content WHERE message = ?", (message,))
        deleted += octets
    if size > measured.disk:
        # Not all free pages: each one may move another page.
        give_pages_back(db, (size - measured.disk + MARGIN) // db.pragma("page_size") + 1)


class SpaceCheck:
    """`make_space`, whose result is used for CHECK_INTERVAL seconds, or until a quarter of the space has been used."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._left = 0
        self._checked = 0.0

    def limit(self, max_size: int) -> None:
        """Replaces `max_size`."""
        self._max_size = max_size
        self._left = 0

    def check(self, db: apsw.Connection, size: int) -> None:
        """Raises SpoolFull if there is no space for `size` more octets. Inside the transaction that writes them."""
        now = time.monotonic()
        if size > self._left or now > self._checked + CHECK_INTERVAL:
            # A quarter: a message takes more space than its octets, and commands write too.
            self._left = make_space(db, size, self._max_size) // 4
            self._checked = now
        self._left -= size
