"""What the person is owed: read by the notifier, struck off backend by backend.

Never forgets a backend that has not carried its notice, unless the person has dealt with what it tells of
(`actions.act`), or the setup fault is over.
"""

import apsw

from mailrelay.mail.notice import Backend, Concerned, Kind, Notice, Owed
from mailrelay.mail.record import Arrival
from mailrelay.spool.accepting import accept
from mailrelay.spool.correspondents import likely
from mailrelay.spool.database import row, rows

BATCH = 50
QUESTIONED = 5
"""Of how many recipients of a notice it is asked whether somebody else was meant: a slip of the pen concerns few."""
_STANDS = "b.told IS NULL AND notice.over IS NULL"


def owed(db: apsw.Connection, now: float) -> list[Owed]:
    """The backends that are due for a try at `now`, longest due first.

    At most `BATCH` of each backend, so that one that is blocked hides none of the others.
    """
    due = sorted(
        found
        for backend in Backend
        for found in rows(
            db,
            "SELECT b.next_try, notice.id, b.backend, b.tries"
            " FROM notice_backend b JOIN notice ON notice.id = b.notice"
            f" WHERE {_STANDS} AND b.backend = ? AND b.next_try <= ? ORDER BY b.next_try, notice.id LIMIT ?",
            (backend.value, now, BATCH),
        )
    )
    notices: dict[int, Notice] = {}
    for _, key, _, _ in due:
        if key not in notices:
            notices[key] = _notice(db, key)
    return [Owed(notices[key], Backend(backend), tries) for _, key, backend, tries in due]


def next_owed(db: apsw.Connection) -> float | None:
    """When the next backend is due for a try (epoch seconds), or None if nothing is owed."""
    return min(
        (
            at
            for backend in Backend
            for (at,) in rows(
                db,
                f"SELECT b.next_try FROM notice_backend b JOIN notice ON notice.id = b.notice WHERE {_STANDS}"
                " AND b.backend = ? ORDER BY b.next_try LIMIT 1",
                (backend.value,),
            )
        ),
        default=None,
    )


def _notice(db: apsw.Connection, key: int) -> Notice:
    kind, relayhost, created, text, fix, since, waiting, repeats, message = row(
        db,
        "SELECT kind, relayhost, created, text, fix, since, waiting, repeats, message FROM notice WHERE id = ?",
        (key,),
    )
    if message is None:
        return Notice(key, Kind(kind), relayhost, created, text, fix, since, waiting, repeats)
    queue_id, sender, subject, arrival, size, smtputf8, ret, envid = row(
        db,
        "SELECT queue_id, sender, subject, arrival, size, smtputf8, ret, envid FROM message WHERE id = ?",
        (message,),
    )
    concerned = tuple(
        Concerned(
            address,
            state,
            status,
            words,
            stage,
            bool(remote),
            uncertain is not None,
            notify,
            orcpt,
            likely(db, address, stage) if kind == Kind.FAILED and place < QUESTIONED else b"",
        )
        for place, (address, state, status, words, stage, remote, uncertain, notify, orcpt) in enumerate(
            rows(
                db,
                "SELECT address, state, status, words, stage, remote, uncertain, notify, orcpt FROM recipient"
                " JOIN notice_recipient ON recipient = recipient.id WHERE notice = ? ORDER BY recipient.id",
                (key,),
            )
        )
    )
    return Notice(
        key,
        Kind(kind),
        relayhost,
        created,
        text,
        fix,
        since,
        waiting,
        repeats,
        message,
        queue_id,
        sender,
        subject,
        arrival,
        size,
        bool(smtputf8),
        ret.encode("ascii"),
        envid,
        concerned,
    )


def told(db: apsw.Connection, owed_one: Owed, now: float) -> None:
    """A backend has carried its notice."""
    db.execute(
        "UPDATE notice_backend SET told = ?, why = '' WHERE notice = ? AND backend = ?",
        (now, owed_one.notice.id, owed_one.backend.value),
    )


def not_told(db: apsw.Connection, owed_one: Owed, next_try: float, why: str) -> None:
    """A backend failed: the notice stays owed by it."""
    db.execute(
        "UPDATE notice_backend SET tries = tries + 1, next_try = ?, why = ? WHERE notice = ? AND backend = ?",
        (next_try, why, owed_one.notice.id, owed_one.backend.value),
    )


def original(db: apsw.Connection, message: int, limit: int) -> bytes:
    """The first `limit` octets of a message's content, fewer if it is shorter or gone."""
    found = bytearray()
    for (data,) in rows(db, "SELECT data FROM content WHERE message = ? ORDER BY seq", (message,)):
        found += data[: limit - len(found)]
        if len(found) >= limit:
            break
    return bytes(found)


def report(db: apsw.Connection, owed_one: Owed, arrival: Arrival, max_size: int, now: float) -> None:
    """Queues a DSN and strikes its backend off, in one commit: it is neither lost nor sent twice."""
    accept(db, arrival, max_size)
    told(db, owed_one, now)
