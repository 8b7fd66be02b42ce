"""Makes notices pending: once for an event of a message, and repeatedly while a setup fault or a delay lasts.

There is one notice for each cause of a setup fault or a delay, whatever the number of messages that wait. The notice is open
until its cause is over. While mail waits it is repeated, at growing intervals. When no such notice is open any more, one
"resumed" notice says that mail moves again, if any of them was delivered.

On a bad network several causes may alternate. A cause that comes back before mail has moved reopens its old notice, which is
repeated at its own intervals: a change between known causes makes no new notice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import apsw

from mailrelay.mail.notice import THERE, Backend, Kind
from mailrelay.mail.record import NewNotice, Place
from mailrelay.spool.database import IS_PENDING, WAITS_SINCE, row, rows
from mailrelay.spool.verdicts import DEFERRED, UNSEEN, VERDICT, verdict

REMINDERS = (3600.0, 4 * 3600.0, 12 * 3600.0, 86_400.0)
"""Seconds from the opening of a notice to its first repetition, from that to the second, and so on; the last one repeats."""
ROUND_WAIT = 60.0
"""Seconds for which a notice waits for the next attempt of its round, which may have more recipients for it."""
RELAYHOST = "relayhost"
"""The cause of a delay where the relayhost cannot be reached, or its mail server has not replied yet."""
NO_REPLY_YET = "The mail server has not replied yet."
"""The text of a delay without any known failure."""

# The id of the last "resumed" notice of a relayhost, 0 if there is none.
_LAST_RESUMED = "coalesce((SELECT max(id) FROM notice WHERE kind = 'resumed' AND relayhost = ?), 0)"
# A repeated notice is pending again, but was delivered before.
_WAS_DELIVERED = (
    "(repeats OR EXISTS (SELECT 1 FROM notice_backend b WHERE b.notice = notice.id AND delivered IS NOT NULL))"
)
# Mail of a relayhost that waits, and not for its time. ?1: now.
_WAITING = (
    "FROM message m WHERE m.relayhost = {relayhost} AND m.next_attempt IS NOT NULL AND coalesce(m.send_time, ?1) <= ?1"
)
# Without mail and without a fallback there is no dial, and nothing shows whether a setup fault still exists: its notice is
# not repeated.
_CONCERNS_MAIL = (
    f"(kind = 'delayed' OR EXISTS (SELECT 1 {_WAITING.format(relayhost='notice.relayhost')})"
    " OR EXISTS (SELECT 1 FROM relayhost h WHERE h.name = notice.relayhost AND h.failures > 0 AND h.stand_in <> ''))"
)


def add_notice(db: apsw.Connection, message: int, new: NewNotice, now: float, place: Place = Place.ALONE) -> None:
    """Makes a notice about `new.recipients` of a message pending.

    place: that of the attempt in its round. A round has one notice of a kind, for all of its recipients. It is delivered
    after the last attempt, or after ROUND_WAIT if the round is interrupted.
    """
    if place is not Place.ALONE and (notice := _notice_of_round(db, message, new, now)):
        db.executemany("INSERT INTO notice_recipient VALUES (?,?)", ((notice, to) for to in new.recipients))
        db.execute(
            "UPDATE notice_backend SET next_try = ?, scheduled = ? WHERE notice = ?", (now + ROUND_WAIT, now, notice)
        )
        return
    db.execute(
        "INSERT INTO notice (kind, relayhost, message, created) SELECT ?, relayhost, id, ? FROM message WHERE id = ?",
        (new.kind.value, now, message),
    )
    notice = db.last_insert_rowid()
    db.executemany("INSERT INTO notice_recipient VALUES (?,?)", ((notice, to) for to in new.recipients))
    _add_backends(db, notice, new.backends, now, 0.0 if place is Place.ALONE else ROUND_WAIT)


def _notice_of_round(db: apsw.Connection, message: int, new: NewNotice, now: float) -> int:
    """The notice of this kind, for the same backends, that waits for the rest of its round; 0 if there is none. No backend
    reads it before it is due, so recipients can be added."""
    backends = sorted(backend.value for backend in new.backends)
    found = rows(
        db,
        "SELECT id FROM notice WHERE message = ? AND kind = ? AND over IS NULL ORDER BY id DESC",
        (message, new.kind.value),
    )
    for (notice,) in found:
        waiting = rows(
            db,
            "SELECT backend FROM notice_backend WHERE notice = ? AND delivered IS NULL AND tries = 0 AND next_try > ?"
            " ORDER BY backend",
            (notice, now),
        )
        if [backend for (backend,) in waiting] == backends:
            return int(notice)
    return 0


def release_notices(db: apsw.Connection, message: int, now: float) -> None:
    """Makes the notices about a message due that wait for the rest of a round: it has ended."""
    db.execute(
        "UPDATE notice_backend SET next_try = ?1, scheduled = ?1 WHERE delivered IS NULL AND tries = 0 AND next_try > ?1"
        " AND notice IN (SELECT id FROM notice WHERE message = ?2)",
        (now, message),
    )


@dataclass(frozen=True, slots=True)
class OpenNotice:
    """The content of a notice to open.

    since: from when on the first of the messages has waited, epoch seconds. waiting: the number of these messages.
    """

    kind: Kind
    relayhost: str
    cause: str
    text: str
    fix: str = ""
    since: float = 0.0
    waiting: int = 0


def open_notice(db: apsw.Connection, new: OpenNotice, backends: Iterable[Backend], now: float) -> bool:
    """Opens a notice. Returns whether it became pending.

    Returns False if a notice of this kind and cause is open already, or if a delivered one was reopened instead.
    """
    found = rows(
        db,
        "SELECT 1 FROM notice WHERE kind = ? AND relayhost = ? AND cause = ? AND reminder IS NOT NULL",
        (new.kind.value, new.relayhost, new.cause),
    )
    if found:
        return False
    # Cancel undelivered "resumed" notices: mail is blocked again.
    db.execute(
        "UPDATE notice SET over = ? WHERE kind = 'resumed' AND relayhost = ? AND over IS NULL", (now, new.relayhost)
    )
    if _reopen(db, new):
        return False
    db.execute(
        "INSERT INTO notice (kind, relayhost, cause, text, fix, since, waiting, created, reminder)"
        " VALUES (?,?,?,?,?,?,?,?,?)",
        (
            new.kind.value,
            new.relayhost,
            new.cause,
            new.text,
            new.fix,
            new.since,
            new.waiting,
            now,
            now + REMINDERS[0],
        ),
    )
    _add_backends(db, db.last_insert_rowid(), backends, now)
    return True


def _reopen(db: apsw.Connection, new: OpenNotice) -> bool:
    """Reopens a delivered notice whose cause has come back before mail moved. Returns whether there is one.

    It is repeated at the time at which it would have been repeated without the interruption.
    """
    found = rows(
        db,
        "SELECT id, created, repeats FROM notice WHERE kind = ? AND relayhost = ? AND cause = ? AND over IS NOT NULL"
        f" AND id > {_LAST_RESUMED} AND {_WAS_DELIVERED} ORDER BY id DESC LIMIT 1",
        (new.kind.value, new.relayhost, new.cause, new.relayhost),
    )
    for key, created, repeats in found:
        db.execute(
            "UPDATE notice SET over = NULL, reminder = ?, text = ?, fix = ?, since = ?, waiting = ? WHERE id = ?",
            (_next_reminder(created, repeats), new.text, new.fix, new.since, new.waiting, key),
        )
    return bool(found)


def close_notices(
    db: apsw.Connection, relayhost: str, kind: Kind, causes: Sequence[str], backends: Iterable[Backend], now: float
) -> bool:
    """Closes the open notices of these causes. Returns whether a "resumed" notice became pending.

    Returns True only if something was closed, a notice after the last "resumed" one was delivered, and no other notice of
    the relayhost is open.
    """
    closed = sum(_close(db, relayhost, kind, cause, now) for cause in causes)
    others = "SELECT 1 FROM notice WHERE relayhost = ? AND reminder IS NOT NULL"
    # Look at earlier notices too: the delivered one may have been closed when another cause came.
    delivered = (
        "SELECT 1 FROM notice WHERE kind IN ('setup', 'delayed') AND relayhost = ?"
        f" AND id > {_LAST_RESUMED} AND {_WAS_DELIVERED}"
    )
    if not closed or rows(db, others, (relayhost,)) or not rows(db, delivered, (relayhost, relayhost)):
        return False
    waiting = row(db, f"SELECT count(*) {_WAITING.format(relayhost='?2')}", (now, relayhost))[0]
    db.execute(
        "INSERT INTO notice (kind, relayhost, cause, waiting, created) VALUES (?,?,?,?,?)",
        (Kind.RESUMED.value, relayhost, THERE if list(causes) == [THERE] else "", waiting, now),
    )
    _add_backends(db, db.last_insert_rowid(), backends, now)
    return True


def _close(db: apsw.Connection, relayhost: str, kind: Kind, cause: str, now: float) -> int:
    """Closes the open notice of this cause. Returns the number of notices closed."""
    db.execute(
        "UPDATE notice SET over = ?, reminder = NULL"
        " WHERE kind = ? AND relayhost = ? AND cause = ? AND reminder IS NOT NULL",
        (now, kind.value, relayhost, cause),
    )
    return db.changes()


def open_causes(db: apsw.Connection, relayhost: str, kind: Kind) -> list[str]:
    """The causes for which notices of a relayhost are open."""
    sql = "SELECT cause FROM notice WHERE relayhost = ? AND kind = ? AND reminder IS NOT NULL"
    return [cause for (cause,) in rows(db, sql, (relayhost, kind.value))]


def next_update(db: apsw.Connection, after: float, now: float) -> float | None:
    """When `update_delays` may next have something to do (epoch seconds); None if no mail waits, here or in the queue of a
    relayhost, and no notice is open. now: epoch seconds."""
    oldest = f"SELECT min({WAITS_SINCE.format('')}) FROM message WHERE next_attempt IS NOT NULL"
    since = WAITS_SINCE.format("m.")
    active = f"SELECT min({since}) FROM attempt a JOIN message m ON m.id = a.message WHERE a.closed IS NULL"
    there = f"SELECT min(f.accepted) FROM followed f WHERE {DEFERRED}"
    late = [at + after for (at,) in (row(db, oldest), row(db, active), row(db, there)) if at is not None]
    # A delay may be over at any moment, without an event: with an open one, return a time in the past.
    open_ones = (
        "SELECT CASE kind WHEN 'delayed' THEN created ELSE reminder END FROM notice"
        f" WHERE reminder IS NOT NULL AND {_CONCERNS_MAIL}"
    )
    return min((*late, *(at for (at,) in rows(db, open_ones, (now,)))), default=None)


def update_delays(db: apsw.Connection, after: float, backends: Sequence[Backend], now: float) -> bool:
    """Opens, closes and repeats delay notices, and repeats those of setup faults. Returns whether a notice became pending.

    after: a message that waits for longer is delayed, seconds. Mail that waits because of a setup fault does not count as
    delayed, because the fault has its own notice. When the fault has ended, the time starts again.
    """
    delays = {(delay.relayhost, delay.cause): delay for delay in _delays(db, now - after)}
    is_pending = False
    open_before = rows(db, "SELECT relayhost, cause FROM notice WHERE kind = 'delayed' AND reminder IS NOT NULL")
    # Open new ones first: mail that now waits for another cause has not moved, and must get no "resumed" notice.
    for delay in delays.values():
        is_pending |= open_notice(db, delay, backends, now)
    for relayhost, cause in open_before:
        if (relayhost, cause) in delays:
            continue
        if cause == THERE and rows(db, f"SELECT 1 FROM followed f WHERE {UNSEEN} AND f.relayhost = ?", (relayhost,)):
            # Whether the mail has moved there is not known.
            _close(db, relayhost, Kind.DELAYED, cause, now)
        else:
            is_pending |= close_notices(db, relayhost, Kind.DELAYED, (cause,), backends, now)
    for key, kind, relayhost, cause, repeats in rows(
        db,
        f"SELECT id, kind, relayhost, cause, repeats FROM notice WHERE reminder <= ?1 AND {_CONCERNS_MAIL}",
        (now,),
    ):
        repeated = delays.get((relayhost, cause)) if kind == Kind.DELAYED else None
        _repeat(db, key, relayhost, repeated, repeats + 1, now)
        is_pending = True
    return is_pending


def _delays(db: apsw.Connection, before: float) -> list[OpenNotice]:
    """The present delays: one for each relayhost and cause, of the messages that have waited since before `before`; and
    those of messages that the mail server of a relayhost accepted before that, and has deferred."""
    found = rows(
        db,
        "SELECT m.relayhost,"
        " CASE WHEN (coalesce(h.failures, 0) AND h.stand_in = '') OR r.stage = '' THEN ?2 ELSE r.stage END AS cause,"
        f" min({WAITS_SINCE.format('m.')}), count(DISTINCT m.id), min(iif(h.stand_in = '', h.text, '')), min(r.description)"
        " FROM message m JOIN recipient r ON r.message = m.id LEFT JOIN relayhost h ON h.name = m.relayhost"
        " WHERE (m.next_attempt IS NOT NULL OR EXISTS (SELECT 1 FROM attempt a WHERE a.message = m.id AND a.closed IS NULL))"
        f" AND m.retired IS NULL AND {WAITS_SINCE.format('m.')} <= ?1 AND coalesce(h.fixed, 0) <= ?1"
        # With a fallback, the fault is not why it waits.
        " AND (coalesce(h.setup, 0) = 0 OR h.stand_in <> '')"
        f" AND r.state IN {IS_PENDING}"
        " GROUP BY 1, 2",
        (before, RELAYHOST),
    )
    return [
        OpenNotice(
            Kind.DELAYED,
            relayhost,
            cause,
            text or description.decode("utf-8", "replace") or NO_REPLY_YET,
            "",
            since,
            waiting,
        )
        for relayhost, cause, since, waiting, text, description in found
    ] + [
        OpenNotice(Kind.DELAYED, relayhost, THERE, verdict(*columns).sentence, "", since, waiting)
        # SQLite takes the other columns from the row with the minimum.
        for relayhost, since, waiting, *columns in rows(
            db,
            f"SELECT f.relayhost, min(f.accepted), count(DISTINCT r.message), {VERDICT}"
            " FROM followed f JOIN recipient r ON r.id = f.recipient"
            f" WHERE {DEFERRED} AND f.accepted <= ? GROUP BY f.relayhost",
            (before,),
        )
    ]


def _repeat(db: apsw.Connection, key: int, relayhost: str, delay: OpenNotice | None, repeats: int, now: float) -> None:
    """Makes an open notice pending again for all its backends, with the present numbers. delay: None for a setup fault."""
    if delay is not None:
        since, waiting = delay.since, delay.waiting
        db.execute("UPDATE notice SET text = ? WHERE id = ?", (delay.text, key))
    else:
        since, waiting = row(
            db,
            f"SELECT coalesce(min({WAITS_SINCE.format('m.')}), 0), count(*) {_WAITING.format(relayhost='?2')}",
            (now, relayhost),
        )
    db.execute(
        "UPDATE notice SET created = ?, repeats = ?, since = ?, waiting = ?, reminder = ? WHERE id = ?",
        (now, repeats, since, waiting, _next_reminder(now, repeats), key),
    )
    db.execute(
        "UPDATE notice_backend SET delivered = NULL, tries = 0, next_try = ?1, scheduled = ?1, why = '' WHERE notice = ?2",
        (now, key),
    )


def _next_reminder(created: float, repeats: int) -> float:
    return created + REMINDERS[min(repeats, len(REMINDERS) - 1)]


def _add_backends(db: apsw.Connection, notice: int, backends: Iterable[Backend], now: float, wait: float = 0.0) -> None:
    """Makes a notice pending for these backends, due in `wait` seconds."""
    db.executemany(
        "INSERT INTO notice_backend (notice, backend, next_try, scheduled) VALUES (?,?,?,?)",
        ((notice, backend.value, now + wait, now) for backend in backends),
    )
