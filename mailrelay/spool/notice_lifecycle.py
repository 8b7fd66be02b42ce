"""Notices become owed: what has happened to a message once, and what stands until it is over.

A setup fault or a delay is one notice for its cause, however much mail waits for it. It stands until it is over, is told
again at growing distances while mail waits, and is followed by one word that mail moves again, if anybody heard of it at
all. Causes that take turns on a bad line are no news each time: until mail moves again, each is told when it is first met,
and then at its own growing distances.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import apsw

from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.record import Owing
from mailrelay.spool.database import IS_PENDING, row, rows

REMINDERS = (3600.0, 4 * 3600.0, 12 * 3600.0, 86_400.0)
"""Seconds until something that stands is told again; the last one repeats."""
WAY = "way"
"""The cause of mail that waits for a relayhost which cannot be reached, or has said nothing about it yet."""
NO_WORD_YET = "The server has not answered yet."

_LAST_RESUMED = "coalesce((SELECT max(id) FROM notice WHERE kind = 'resumed' AND relayhost = ?), 0)"
_HEARD = "(repeats OR EXISTS (SELECT 1 FROM notice_backend b WHERE b.notice = notice.id AND told IS NOT NULL))"
# Without mail nobody dials, and so nobody knows whether a setup fault still stands: its reminder waits for mail.
_CONCERNS_MAIL = (
    "(kind = 'delayed' OR EXISTS"
    " (SELECT 1 FROM message m WHERE m.relayhost = notice.relayhost AND m.next_attempt IS NOT NULL))"
)


def owe(db: apsw.Connection, message: int, owing: Owing, now: float) -> None:
    """Writes down that the person is to hear of `owing.recipients` of a message."""
    db.execute(
        "INSERT INTO notice (kind, relayhost, message, created) SELECT ?, relayhost, id, ? FROM message WHERE id = ?",
        (owing.kind.value, now, message),
    )
    notice = db.last_insert_rowid()
    db.executemany("INSERT INTO notice_recipient VALUES (?,?)", ((notice, to) for to in owing.recipients))
    _by(db, notice, owing.backends, now)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a notice that stands says: `since` epoch seconds, the arrival of what waits longest; `waiting` messages."""

    kind: Kind
    relayhost: str
    cause: str
    text: str
    fix: str = ""
    since: float = 0.0
    waiting: int = 0


def stand(db: apsw.Connection, what: Standing, backends: Iterable[Backend], now: float) -> bool:
    """Lets a notice stand. Returns whether one became owed: not if one of this kind and cause stands already, or again."""
    found = rows(
        db,
        "SELECT 1 FROM notice WHERE kind = ? AND relayhost = ? AND cause = ? AND reminder IS NOT NULL",
        (what.kind.value, what.relayhost, what.cause),
    )
    if found:
        return False
    # Whoever has not heard yet that mail moves again need not: it does not any more.
    db.execute(
        "UPDATE notice SET over = ? WHERE kind = 'resumed' AND relayhost = ? AND over IS NULL", (now, what.relayhost)
    )
    if _stands_again(db, what):
        return False
    db.execute(
        "INSERT INTO notice (kind, relayhost, cause, text, fix, since, waiting, created, reminder)"
        " VALUES (?,?,?,?,?,?,?,?,?)",
        (
            what.kind.value,
            what.relayhost,
            what.cause,
            what.text,
            what.fix,
            what.since,
            what.waiting,
            now,
            now + REMINDERS[0],
        ),
    )
    _by(db, db.last_insert_rowid(), backends, now)
    return True


def _stands_again(db: apsw.Connection, what: Standing) -> bool:
    """Lets a notice that was heard stand again, where its cause comes back before mail moved: its next reminder stays where
    it was. Returns whether there is one."""
    found = rows(
        db,
        "SELECT id, created, repeats FROM notice WHERE kind = ? AND relayhost = ? AND cause = ? AND over IS NOT NULL"
        f" AND id > {_LAST_RESUMED} AND {_HEARD} ORDER BY id DESC LIMIT 1",
        (what.kind.value, what.relayhost, what.cause, what.relayhost),
    )
    for key, created, repeats in found:
        db.execute(
            "UPDATE notice SET over = NULL, reminder = ?, text = ?, fix = ?, since = ?, waiting = ? WHERE id = ?",
            (_next_reminder(created, repeats), what.text, what.fix, what.since, what.waiting, key),
        )
    return bool(found)


def end(
    db: apsw.Connection, relayhost: str, kind: Kind, causes: Sequence[str], backends: Iterable[Backend], now: float
) -> bool:
    """Ends what stands for these causes. Returns whether word of it became owed: that mail moves again.

    It does only if the person had heard of the trouble and nothing else stops this relayhost's mail.
    """
    ended = 0
    for cause in causes:
        db.execute(
            "UPDATE notice SET over = ?, reminder = NULL"
            " WHERE kind = ? AND relayhost = ? AND cause = ? AND reminder IS NOT NULL",
            (now, kind.value, relayhost, cause),
        )
        ended += db.changes()
    others = "SELECT 1 FROM notice WHERE relayhost = ? AND reminder IS NOT NULL"
    # Also of what was over before, and did not let mail move.
    heard = (
        "SELECT 1 FROM notice WHERE kind IN ('setup', 'delayed') AND relayhost = ?"
        f" AND id > {_LAST_RESUMED} AND {_HEARD}"
    )
    if not ended or rows(db, others, (relayhost,)) or not rows(db, heard, (relayhost, relayhost)):
        return False
    waiting = row(db, "SELECT count(*) FROM message WHERE relayhost = ? AND next_attempt IS NOT NULL", (relayhost,))[0]
    db.execute(
        "INSERT INTO notice (kind, relayhost, waiting, created) VALUES (?,?,?,?)",
        (Kind.RESUMED.value, relayhost, waiting, now),
    )
    _by(db, db.last_insert_rowid(), backends, now)
    return True


def causes(db: apsw.Connection, relayhost: str, kind: Kind) -> list[str]:
    """The causes of what stands for a relayhost."""
    sql = "SELECT cause FROM notice WHERE relayhost = ? AND kind = ? AND reminder IS NOT NULL"
    return [cause for (cause,) in rows(db, sql, (relayhost, kind.value))]


def next_look(db: apsw.Connection, after: float) -> float | None:
    """When `look` may next have something to do (epoch seconds), None if nothing waits and nothing stands."""
    oldest = "SELECT min(arrival) FROM message WHERE next_attempt IS NOT NULL"
    active = "SELECT min(m.arrival) FROM attempt a JOIN message m ON m.id = a.message WHERE a.closed IS NULL"
    unheard = [at + after for (at,) in (row(db, oldest), row(db, active)) if at is not None]
    # A delay may be over at any moment; nothing else says so.
    stands = (
        "SELECT CASE kind WHEN 'delayed' THEN created ELSE reminder END FROM notice"
        f" WHERE reminder IS NOT NULL AND {_CONCERNS_MAIL}"
    )
    return min((*unheard, *(at for (at,) in rows(db, stands))), default=None)


def look(db: apsw.Connection, now: float, after: float, backends: Sequence[Backend]) -> bool:
    """Lets delays stand, ends them and reminds of what stands. Returns whether a notice became owed.

    after: seconds of waiting that are a delay. Mail that waits for a setup fault is that fault's, which was told at once;
    when it has ended, the time runs anew, for now mail moves.
    """
    delays = {(delay.relayhost, delay.cause): delay for delay in _delays(db, now - after)}
    owed = False
    stood = rows(db, "SELECT relayhost, cause FROM notice WHERE kind = 'delayed' AND reminder IS NOT NULL")
    # Before the others end: mail that now waits for another cause does not move again.
    for delayed in delays.values():
        owed |= stand(db, delayed, backends, now)
    for relayhost, cause in stood:
        if (relayhost, cause) not in delays:
            owed |= end(db, relayhost, Kind.DELAYED, (cause,), backends, now)
    for key, kind, relayhost, cause, repeats in rows(
        db,
        f"SELECT id, kind, relayhost, cause, repeats FROM notice WHERE reminder <= ? AND {_CONCERNS_MAIL}",
        (now,),
    ):
        delay = delays.get((relayhost, cause)) if kind == Kind.DELAYED else None
        _remind(db, key, relayhost, delay, repeats + 1, now)
        owed = True
    return owed


def _delays(db: apsw.Connection, before: float) -> list[Standing]:
    found = rows(
        db,
        "SELECT m.relayhost,"
        " CASE WHEN coalesce(h.failures, 0) OR r.stage = '' THEN ?2 ELSE r.stage END AS cause,"
        " min(m.arrival), count(DISTINCT m.id), min(h.text), min(r.words)"
        " FROM message m JOIN recipient r ON r.message = m.id LEFT JOIN relayhost h ON h.name = m.relayhost"
        " WHERE (m.next_attempt IS NOT NULL OR EXISTS (SELECT 1 FROM attempt a WHERE a.message = m.id AND a.closed IS NULL))"
        " AND m.retired IS NULL AND m.arrival <= ?1 AND coalesce(h.fixed, 0) <= ?1 AND coalesce(h.setup, 0) = 0"
        f" AND r.state IN {IS_PENDING}"
        " GROUP BY 1, 2",
        (before, WAY),
    )
    return [
        Standing(
            Kind.DELAYED, relayhost, cause, text or words.decode("utf-8", "replace") or NO_WORD_YET, "", since, waiting
        )
        for relayhost, cause, since, waiting, text, words in found
    ]


def _remind(db: apsw.Connection, key: int, relayhost: str, delay: Standing | None, repeats: int, now: float) -> None:
    """Makes what stands owed again by all its backends, with today's figures."""
    if delay is not None:
        since, waiting = delay.since, delay.waiting
        db.execute("UPDATE notice SET text = ? WHERE id = ?", (delay.text, key))
    else:
        since, waiting = row(
            db,
            "SELECT coalesce(min(arrival), 0), count(*) FROM message WHERE relayhost = ? AND next_attempt IS NOT NULL",
            (relayhost,),
        )
    db.execute(
        "UPDATE notice SET created = ?, repeats = ?, since = ?, waiting = ?, reminder = ? WHERE id = ?",
        (now, repeats, since, waiting, _next_reminder(now, repeats), key),
    )
    db.execute("UPDATE notice_backend SET told = NULL, tries = 0, next_try = ?, why = '' WHERE notice = ?", (now, key))


def _next_reminder(created: float, repeats: int) -> float:
    return created + REMINDERS[min(repeats, len(REMINDERS) - 1)]


def _by(db: apsw.Connection, notice: int, backends: Iterable[Backend], now: float) -> None:
    db.executemany(
        "INSERT INTO notice_backend (notice, backend, next_try) VALUES (?,?,?)",
        ((notice, backend.value, now) for backend in backends),
    )
