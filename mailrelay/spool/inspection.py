"""Looks for damage in the whole file of the spool, and repairs what can be repaired without a loss.

A checksum (`stored`) shows damage in a message that is read. This finds damage because of which a message is not read: in
the pages of SQLite, in an index, in a state.

Promises: nothing that is damaged is deleted. `repair` builds the indexes again, holds recipients in a state that does not
exist, and schedules pending messages that have no next attempt. The person gets a notice about each message that is held.
What was found on the relayhost, and is damaged, is asked for again.
"""

import re
from enum import StrEnum

import apsw

from mailrelay.mail.backends import BackendsFor
from mailrelay.mail.lifecycle import State
from mailrelay.mail.notice import Kind
from mailrelay.mail.outcome import Stage
from mailrelay.mail.record import NewNotice
from mailrelay.mail.there import Source, There
from mailrelay.spool import notice_lifecycle
from mailrelay.spool.database import IS_LIVE, IS_PENDING, rows
from mailrelay.spool.stored import load_message

HELD = "its state in the spool was damaged; it may have been sent already"
_REPAIRABLE = re.compile(
    r"row \d+ missing from index \w+|wrong # of entries in index \w+|row \d+ values differ from index \w+"
    r"|rowid not at end-of-record for row \d+ of index \w+|CHECK constraint failed in (?:recipient|followed)"
)
_HEADING = re.compile(r"\*\*\* in database main \*\*\*\n?")


def findings(db: apsw.Connection) -> list[str]:
    """The damage that SQLite finds, in its own text, each in one line; [] if there is none. Reads the whole file: about a
    second for 1 GB. Raises apsw.Error where the file cannot be read."""
    # A row about damaged pages has many lines.
    found = [line for (text,) in rows(db, "PRAGMA integrity_check") for line in _HEADING.sub("", text).splitlines()]
    return [] if found == ["ok"] else [line for line in found if line]


def is_repairable(found: list[str]) -> bool:
    """Whether `repair` can repair all of these findings."""
    return all(_REPAIRABLE.fullmatch(line) for line in found)


def repair(db: apsw.Connection, backends_for: BackendsFor, now: float) -> int:
    """Repairs damage that `is_repairable`, with a notice about each message that it holds. Returns the number of these
    messages.

    now: epoch seconds. Raises apsw.Error."""
    db.execute("REINDEX")
    _repair_followed(db)
    damaged = rows(
        db, f"SELECT DISTINCT message FROM recipient WHERE CAST(state AS BLOB) NOT IN {_as_blobs()} ORDER BY message"
    )
    for (message,) in damaged:
        recipients = rows(
            db,
            f"SELECT id, notify FROM recipient WHERE message = ? AND CAST(state AS BLOB) NOT IN {_as_blobs()}",
            (message,),
        )
        db.executemany(
            "UPDATE recipient SET state = 'held', status = '4.3.0', stage = ?, description = ?, remote = 0, changed = ?,"
            " uncertain = ? WHERE id = ?",
            ((Stage.MAIL.value, HELD.encode(), now, now, key) for key, _ in recipients),
        )
        sender = load_message(db, message, ()).envelope.sender
        backends = backends_for(Kind.HELD, sender, b"")
        if backends:
            new = NewNotice(Kind.HELD, tuple(key for key, _ in recipients), backends)
            notice_lifecycle.add_notice(db, message, new, now)
    with_state = "SELECT 1 FROM recipient r WHERE r.message = message.id AND r.state IN"
    db.execute(f"UPDATE message SET retired = NULL WHERE retired IS NOT NULL AND EXISTS ({with_state} {IS_LIVE})")
    db.execute(
        "UPDATE message SET next_attempt = max(?1, coalesce(send_time, ?1)), scheduled = ?1"
        " WHERE retired IS NULL AND next_attempt IS NULL"
        f" AND EXISTS ({with_state} {IS_PENDING})"
        " AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.message = message.id AND a.closed IS NULL)",
        (now,),
    )
    return len(damaged)


def _repair_followed(db: apsw.Connection) -> None:
    """What was found of a recipient on the relayhost is asked for again, if its row contradicts itself."""
    db.execute(
        "UPDATE followed SET state = 'waiting', source = '', over = NULL, dealt_with = NULL, successor = ''"
        f" WHERE CAST(state AS BLOB) NOT IN {_as_blobs(There)} OR CAST(source AS BLOB) NOT IN {_as_blobs(Source)}"
        " OR (dealt_with IS NOT NULL AND over IS NULL) OR (successor <> '' AND dealt_with IS NULL)"
    )


def _as_blobs(values: type[StrEnum] = State) -> str:
    """All values as an SQL list of BLOBs, because a damaged text may be invalid UTF-8."""
    return "(" + ", ".join(f"x'{value.value.encode().hex()}'" for value in values) + ")"
