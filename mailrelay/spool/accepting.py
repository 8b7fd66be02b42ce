"""Writes incoming messages. With the commit of `write_messages`, mailrelay is responsible for the message.

Large content is written before that commit: `stage` writes its pieces under a key that is reserved for the message,
`write_messages` makes the message, `unstage` removes the pieces if the message is not completed. All functions run inside
the caller's transaction.
"""

from collections.abc import Iterator, Sequence

import apsw

from mailrelay.mail.record import Arrival, Staged
from mailrelay.mail.send_time import effective_send_time
from mailrelay.mail.spool_errors import SpoolError
from mailrelay.spool import checksums
from mailrelay.spool.database import PIECE, row, rows
from mailrelay.spool.space import make_space

ROWS = 16
"""Rows in one INSERT, at most. Each number of rows is a statement of its own in the statement cache."""


def accept(db: apsw.Connection, arrival: Arrival, max_size: int) -> int:
    """Writes a message, due at once or at its send time. Returns its key.

    Raises SpoolFull if the spool would exceed `max_size` octets, or if the message would use the reserve of the disk
    (`space.make_space`).
    """
    make_space(db, arrival.size, max_size)
    return write_messages(db, (arrival,))[0]


def write_messages(db: apsw.Connection, arrivals: Sequence[Arrival]) -> list[int]:
    """Writes messages, due at once or at their send times. Returns their keys. The caller has checked the space, and rolls
    back after an error."""
    unused = next_key(db)
    keyed: list[tuple[int, Arrival]] = []
    for arrival in arrivals:
        if arrival.staged is None:
            keyed.append((unused, arrival))
            unused += 1
        else:
            keyed.append((_end_staging(db, arrival.staged), arrival))
    _insert(
        db,
        "message (id, queue_id, arrival, relayhost, sender, body, smtputf8, ret, envid, size, subject, next_attempt,"
        " bare_header, scheduled, checksum, send_time, by_clock, owner)",
        [_message_row(message, arrival) for message, arrival in keyed],
    )
    _insert(
        db,
        "recipient (message, address, notify, orcpt, state, changed, checksum)",
        [
            (
                message,
                to.address,
                to.notify,
                to.orcpt,
                "queued",
                arrival.arrival,
                checksums.of_recipient(message, to.address, to.notify, to.orcpt),
            )
            for message, arrival in keyed
            for to in arrival.envelope.recipients
        ],
    )
    _insert(
        db,
        "content (message, seq, data, checksum)",
        [
            piece
            for message, arrival in keyed
            for piece in _pieces(message, arrival.staged.pieces if arrival.staged is not None else 0, arrival.content)
        ],
    )
    return [message for message, _ in keyed]


def _message_row(message: int, arrival: Arrival) -> tuple[object, ...]:
    """The columns of a message, in the order of `write_messages`. message: its key."""
    send_time = effective_send_time(arrival.envelope.send_time, 0.0, arrival.arrival)
    return (
        message,
        arrival.queue_id,
        arrival.arrival,
        arrival.relayhost,
        arrival.envelope.sender,
        arrival.envelope.body.decode("ascii"),
        int(arrival.envelope.smtputf8),
        arrival.envelope.ret.decode("ascii"),
        arrival.envelope.envid,
        arrival.size,
        arrival.subject,
        arrival.arrival if send_time is None else send_time.at,
        int(arrival.has_bare_header),
        arrival.arrival,
        _checksum(message, arrival),
        None if send_time is None else send_time.at,
        int(send_time is not None and send_time.by_clock),
        arrival.envelope.owner,
    )


def next_key(db: apsw.Connection) -> int:
    """The key of the next message: one above the highest of all messages and incoming messages."""
    highest: int = row(
        db, "SELECT max(ifnull((SELECT max(id) FROM message), 0), ifnull((SELECT max(message) FROM incoming), 0))"
    )[0]
    return highest + 1


def stage(db: apsw.Connection, staged: Staged | None, octets: bytes) -> Staged:
    """Appends octets to `staged`, None for the first piece. The caller has checked the space."""
    if staged is None:
        staged = Staged(next_key(db), 0, 0)
        db.execute("INSERT INTO incoming (message) VALUES (?)", (staged.key,))
    pieces = list(_pieces(staged.key, staged.pieces, octets))
    _insert(db, "content (message, seq, data, checksum)", pieces)
    return Staged(staged.key, staged.pieces + len(pieces), staged.size + len(octets))


def unstage(db: apsw.Connection, key: int) -> None:
    """Removes the content staged under `key`; does nothing if it has become a message."""
    db.execute("DELETE FROM content WHERE message IN (SELECT message FROM incoming WHERE message = ?)", (key,))
    db.execute("DELETE FROM incoming WHERE message = ?", (key,))


def unstage_all(db: apsw.Connection) -> int:
    """Removes all incoming messages, which a crash has left; returns their number. Must not be called while a daemon
    runs."""
    left = rows(db, "SELECT message FROM incoming")
    for (key,) in left:
        unstage(db, key)
    return len(left)


def _end_staging(db: apsw.Connection, staged: Staged) -> int:
    """Ends the reservation of the key, which a message takes over, and returns it. Raises SpoolError if it is gone."""
    db.execute("DELETE FROM incoming WHERE message = ?", (staged.key,))
    if not db.changes():
        raise SpoolError("the beginning of a message is no longer in the spool; send it again")
    return staged.key


def _checksum(message: int, arrival: Arrival) -> bytes:
    envelope = arrival.envelope
    return checksums.of_message(
        message,
        arrival.relayhost.encode(),
        envelope.sender,
        envelope.body,
        int(envelope.smtputf8),
        envelope.ret,
        envelope.envid,
        arrival.size,
        int(arrival.has_bare_header),
        len(envelope.recipients),
    )


def _pieces(message: int, first: int, octets: bytes) -> Iterator[tuple[int, int, memoryview, bytes]]:
    """`octets` as rows of `content`, numbered from `first` on."""
    for seq, at in enumerate(range(0, len(octets), PIECE), first):
        data = memoryview(octets)[at : at + PIECE]
        yield message, seq, data, checksums.of_piece(message, seq, data)


def _insert(db: apsw.Connection, into: str, values: Sequence[tuple[object, ...]]) -> None:
    """Inserts many rows in few statements: each statement releases the GIL and has to get it back."""
    for at in range(0, len(values), ROWS):
        some = values[at : at + ROWS]
        marks = ",".join([f"({','.join('?' * len(some[0]))})"] * len(some))
        # OR FAIL needs no statement journal: the caller rolls back everything.
        db.execute(f"INSERT OR FAIL INTO {into} VALUES {marks}", [value for one in some for value in one])
