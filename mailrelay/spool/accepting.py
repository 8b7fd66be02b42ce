"""A message comes in: one function, which is the instant at which responsibility is taken once its commit is on disk.

Never called for a message that has been answered already; never answers itself.
"""

import os
import secrets
from pathlib import Path

import apsw

from mailrelay.mail.record import Arrival
from mailrelay.spool.database import PIECE, SpoolFull

_ALPHABET = "0123456789bcdfghjkmnpqrstvwxyz"
"""No vowels: an id is not to spell anything."""
QUEUE_ID_LENGTH = 10

RESERVE = 16 * 1024 * 1024
"""Octets of disk left free by accepting, so that what became of mail can still be recorded on a disk that we filled."""


def new_queue_id() -> str:
    """A random id of `QUEUE_ID_LENGTH` letters and digits: the first few are usually enough to name a message."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(QUEUE_ID_LENGTH))


def accept(db: apsw.Connection, arrival: Arrival, max_size: int) -> int:
    """Writes a message down, due at once. Returns the spool's key of it.

    Raises SpoolFull if the spool would pass `max_size` octets or the disk be left without a reserve.
    """
    check_space(db, len(arrival.content), max_size)
    envelope = arrival.envelope
    db.execute(
        "INSERT INTO message (queue_id, arrival, relayhost, sender, body, smtputf8, ret, envid, size, subject,"
        " next_attempt) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        (
            arrival.queue_id,
            arrival.arrival,
            arrival.relayhost,
            envelope.sender,
            envelope.body.decode("ascii"),
            int(envelope.smtputf8),
            envelope.ret.decode("ascii"),
            envelope.envid,
            len(arrival.content),
            arrival.subject,
            arrival.arrival,
        ),
    )
    message = db.last_insert_rowid()
    db.executemany(
        "INSERT INTO recipient (message, address, notify, orcpt, state, changed) VALUES (?,?,?,?,'queued',?)",
        ((message, to.address, to.notify, to.orcpt, arrival.arrival) for to in envelope.recipients),
    )
    content = memoryview(arrival.content)
    db.executemany(
        "INSERT INTO content (message, seq, data) VALUES (?,?,?)",
        ((message, at // PIECE, content[at : at + PIECE]) for at in range(0, len(content), PIECE)),
    )
    return message


def check_space(db: apsw.Connection, size: int, max_size: int) -> None:
    """Raises SpoolFull if `size` more octets would pass `max_size` or leave the disk without its reserve."""
    pages = db.pragma("page_count") - db.pragma("freelist_count")
    if pages * db.pragma("page_size") + size > max_size:
        raise SpoolFull("the spool has reached queue.max_size; see what waits with `mailrelay queue`")
    # Twice: once in the log, once in the file.
    disk = os.statvfs(Path(db.filename).parent)
    if disk.f_bavail * disk.f_frsize < 2 * size + RESERVE:
        raise SpoolFull(f"the spool's disk is full, but for {RESERVE // 1_048_576} MiB that are kept back; make space")
