"""A message comes in: one function, which is the instant at which responsibility is taken once its commit is on disk.

Never called for a message that has been answered already; never answers itself.
"""

import os
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
    """Writes a message down, due at once. Returns the spool's key of it. Raises SpoolFull, see `check_space`."""
    return accept_all(db, (arrival,), max_size)[0]


def accept_all(db: apsw.Connection, arrivals: Sequence[Arrival], max_size: int) -> list[int]:
    """Writes messages down, due at once. Returns the spool's keys of them.

    Raises SpoolFull if the spool would pass `max_size` octets or the disk be left without a reserve. Who calls rolls back
    what was written before an error.
    """
    check_space(db, sum(len(arrival.content) for arrival in arrivals), max_size)
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


def check_space(db: apsw.Connection, size: int, max_size: int) -> None:
    """Raises SpoolFull if `size` more octets would pass `max_size` or leave the disk without its reserve."""
    pages = db.pragma("page_count") - db.pragma("freelist_count")
    if pages * db.pragma("page_size") + size > max_size:
        raise SpoolFull("the spool has reached queue.max_size; see what waits with `mailrelay queue`")
    # Twice: once in the log, once in the file.
    disk = os.statvfs(Path(db.filename).parent)
    if disk.f_bavail * disk.f_frsize < 2 * size + RESERVE:
        raise SpoolFull(f"the spool's disk is full, but for {RESERVE // 1_048_576} MiB that are kept back; make space")
