"""A message comes in: one function, which is the instant at which responsibility is taken once its commit is on disk.

Never called for a message that has been answered already; never answers itself.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import apsw

from mailrelay.mail.record import Arrival
from mailrelay.spool.database import PIECE, SpoolFull, row

_ALPHABET = "0123456789bcdfghjkmnpqrstvwxyz"
"""No vowels: an id is not to spell anything."""
QUEUE_ID_LENGTH = 10

ROWS = 16
"""Rows in one statement, at most: each number of them is a statement of its own in SQLite's memory."""

LOOK = 1.0
"""Seconds between two looks at the disk, at most, while mail comes in."""

RESERVE = 16 * 1024 * 1024
"""Octets of disk left free by accepting, so that what became of mail can still be recorded on a disk that we filled."""


def new_queue_id() -> str:
    """A random id of `QUEUE_ID_LENGTH` letters and digits: the first few are usually enough to name a message."""
    # More bits than are needed, so that the remainder favours no letter by more than one in 2**30.
    rest = int.from_bytes(os.urandom(10))
    letters = []
    for _ in range(QUEUE_ID_LENGTH):
        rest, letter = divmod(rest, len(_ALPHABET))
        letters.append(_ALPHABET[letter])
    return "".join(letters)


def accept(db: apsw.Connection, arrival: Arrival, max_size: int) -> int:
    """Writes a message down, due at once. Returns the spool's key of it.

    Raises SpoolFull if the spool would pass `max_size` octets or the disk be left without a reserve.
    """
    check_space(db, len(arrival.content), max_size)
    return write_down(db, (arrival,))[0]


def write_down(db: apsw.Connection, arrivals: Sequence[Arrival]) -> list[int]:
    """Writes messages down, due at once, for which there is room. Returns the spool's keys of them.

    Whoever calls rolls back what was written before an error.
    """
    # As SQLite itself would choose them, but known before they are written.
    first: int = row(db, "SELECT ifnull(max(id), 0) + 1 FROM message")[0]
    keyed = list(enumerate(arrivals, first))
    _insert(
        db,
        "message (id, queue_id, arrival, relayhost, sender, body, smtputf8, ret, envid, size, subject, next_attempt)",
        [
            (
                message,
                arrival.queue_id,
                arrival.arrival,
                arrival.relayhost,
                arrival.envelope.sender,
                arrival.envelope.body.decode("ascii"),
                int(arrival.envelope.smtputf8),
                arrival.envelope.ret.decode("ascii"),
                arrival.envelope.envid,
                len(arrival.content),
                arrival.subject,
                arrival.arrival,
            )
            for message, arrival in keyed
        ],
    )
    _insert(
        db,
        "recipient (message, address, notify, orcpt, state, changed)",
        [
            (message, to.address, to.notify, to.orcpt, "queued", arrival.arrival)
            for message, arrival in keyed
            for to in arrival.envelope.recipients
        ],
    )
    _insert(
        db,
        "content (message, seq, data)",
        [
            (message, at // PIECE, memoryview(arrival.content)[at : at + PIECE])
            for message, arrival in keyed
            for at in range(0, len(arrival.content), PIECE)
        ],
    )
    return [message for message, _ in keyed]


def _insert(db: apsw.Connection, table: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Many rows with few statements: this thread gives up the interpreter for each of them, and has to get it back."""
    for at in range(0, len(rows), ROWS):
        some = rows[at : at + ROWS]
        values = ",".join([f"({','.join('?' * len(some[0]))})"] * len(some))
        # OR FAIL keeps no record by which to undo a part of the statement: nobody keeps a part.
        db.execute(f"INSERT OR FAIL INTO {table} VALUES {values}", [value for one in some for value in one])


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
