"""What the person is owed: read by the notifier, struck off road by road.

Never forgets a road that has not carried its notice, unless the person has dealt with what it tells of (`verbs.act`), or the
setup fault is over.
"""

import apsw

from mailrelay.mail.notice import Concerned, Kind, Notice, Owed, Road
from mailrelay.mail.record import Arrival
from mailrelay.spool.accepting import accept
from mailrelay.spool.correspondents import likely
from mailrelay.spool.database import row, rows

BATCH = 50
QUESTIONED = 5
"""Of how many recipients of a notice it is asked whether somebody else was meant: a slip of the pen concerns few."""
_STANDS = "road.told IS NULL AND notice.over IS NULL"


def owed(db: apsw.Connection, now: float) -> list[Owed]:
    """The roads that are due for a try at `now`, longest due first.

    At most `BATCH` of each road, so that one that is blocked hides none of the others.
    """
    due = sorted(
        found
        for road in Road
        for found in rows(
            db,
            "SELECT road.next_try, notice.id, road.road, road.tries FROM road JOIN notice ON notice.id = road.notice"
            f" WHERE {_STANDS} AND road.road = ? AND road.next_try <= ? ORDER BY road.next_try, notice.id LIMIT ?",
            (road.value, now, BATCH),
        )
    )
    notices: dict[int, Notice] = {}
    for _, key, _, _ in due:
        if key not in notices:
            notices[key] = _notice(db, key)
    return [Owed(notices[key], Road(road), tries) for _, key, road, tries in due]


def next_owed(db: apsw.Connection) -> float | None:
    """When the next road is due for a try (epoch seconds), or None if nothing is owed."""
    return min(
        (
            at
            for road in Road
            for (at,) in rows(
                db,
                f"SELECT road.next_try FROM road JOIN notice ON notice.id = road.notice WHERE {_STANDS}"
                " AND road.road = ? ORDER BY road.next_try LIMIT 1",
                (road.value,),
            )
        ),
        default=None,
    )


def _notice(db: apsw.Connection, key: int) -> Notice:
    kind, relayhost, created, text, mend, since, waiting, repeats, message = row(
        db,
        "SELECT kind, relayhost, created, text, mend, since, waiting, repeats, message FROM notice WHERE id = ?",
        (key,),
    )
    if message is None:
        return Notice(key, Kind(kind), relayhost, created, text, mend, since, waiting, repeats)
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
        mend,
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
    """A road has carried its notice."""
    db.execute(
        "UPDATE road SET told = ?, why = '' WHERE notice = ? AND road = ?",
        (now, owed_one.notice.id, owed_one.road.value),
    )


def not_told(db: apsw.Connection, owed_one: Owed, next_try: float, why: str) -> None:
    """A road failed: the notice stays owed by it."""
    db.execute(
        "UPDATE road SET tries = tries + 1, next_try = ?, why = ? WHERE notice = ? AND road = ?",
        (next_try, why, owed_one.notice.id, owed_one.road.value),
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
    """Queues a DSN and strikes its road off, in one commit: it is neither lost nor sent twice."""
    accept(db, arrival, max_size)
    told(db, owed_one, now)
