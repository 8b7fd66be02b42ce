"""What is due, the attempts at it, and what came of them.

Promises: no attempt without an open row, so that a crash strands nothing (`recover`); what an attempt made of a message,
and the notices owed for it, are one commit. Never: a query whose cost grows with the whole queue.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import apsw

from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.lifecycle import PENDING, State
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.record import Record
from mailrelay.spool import notice_lifecycle
from mailrelay.spool.correspondents import reached
from mailrelay.spool.database import IS_LIVE, IS_PENDING, row, rows, states

INTERRUPTED = Outcome(
    Stage.AFTER_DOT,
    text="mailrelay was stopped while this was being sent; the remote may have it already",
)

LARGE = 65536
"""Octets above which a message goes behind the small ones."""
LIGHT = 32 * 1024
"""Octets for each message of a limit that those beyond the limit may have: a moment's sending, even on a slow line."""

_DUE = (
    "SELECT id, size FROM message WHERE relayhost = ?1 AND next_attempt <= ?2"
    f" AND (attempts > 0) = {{tried}} AND (size > {LARGE}) = {{large}} ORDER BY next_attempt LIMIT ?3"
)
_DUE_RUNS = tuple(_DUE.format(tried=tried, large=large) for tried in (0, 1) for large in (0, 1))


def next_due(db: apsw.Connection, relayhost: str) -> float | None:
    """When the next message of `relayhost` is due (epoch seconds, maybe past), or None if nothing is pending."""
    runs = (
        f"(SELECT next_attempt AS at FROM message WHERE relayhost = ?1 AND next_attempt IS NOT NULL"
        f" AND (attempts > 0) = {tried} AND (size > {LARGE}) = {large} ORDER BY next_attempt LIMIT 1)"
        for tried in (0, 1)
        for large in (0, 1)
    )
    found: float | None = db.execute(
        "SELECT min(at) FROM (" + " UNION ALL ".join(f"SELECT at FROM {run}" for run in runs) + ")",
        (relayhost,),
    ).get
    return found


def count_due(db: apsw.Connection, relayhost: str, limit: int, now: float) -> int:
    """How many messages of `relayhost` are due, `limit` at most."""
    count = 0
    for run in _DUE_RUNS:
        if count < limit:
            count += len(rows(db, run, (relayhost, now, limit - count)))
    return count


def take(
    db: apsw.Connection, relayhost: str, first: Sequence[int], limit: int, node: str, now: float, more: int = 0
) -> list[Message]:
    """Opens attempts at up to `limit` due messages and returns them, in the order in which to send them.

    first: keys of messages that go ahead of the others, if they are due. node: the start of a daemon that makes the
    attempts. more: how many there may be beyond the limit, if all that is found is small, and what is beyond it no more than
    LIGHT for each within.
    """
    is_due = "SELECT id, size FROM message WHERE id = ? AND relayhost = ? AND next_attempt <= ?"
    found: dict[int, int] = {}
    for key in first:
        found |= dict(rows(db, is_due, (key, relayhost, now)))
    for run in _DUE_RUNS:
        if len(found) < limit + more:
            found |= dict(rows(db, run, (relayhost, now, limit + more)))
    ids = _picked(list(found.items()), limit, more)
    db.executemany("INSERT INTO attempt (message, node, opened) VALUES (?,?,?)", ((key, node, now) for key in ids))
    db.executemany("UPDATE message SET next_attempt = NULL WHERE id = ?", ((key,) for key in ids))
    return [message(db, key) for key in ids]


def _picked(found: Sequence[tuple[int, int]], limit: int, more: int) -> list[int]:
    """Which of the keys and sizes that were found to take."""
    picked = [key for key, _ in found[:limit]]
    light = limit * LIGHT
    if all(size <= LARGE for _, size in found[:limit]):
        for key, size in found[limit : limit + more]:
            light -= size
            if size > LARGE or light < 0:
                break
            picked.append(key)
    return picked


def message(db: apsw.Connection, key: int, of: Iterable[State] = PENDING) -> Message:
    """The message with this key, to those of its recipients who are in one of `of`."""
    queue_id, relayhost, sender, body, smtputf8, ret, envid, size, arrival, attempts = row(
        db,
        "SELECT queue_id, relayhost, sender, body, smtputf8, ret, envid, size, arrival, attempts FROM message"
        " WHERE id = ?",
        (key,),
    )
    recipients = rows(
        db,
        f"SELECT id, address, notify, orcpt FROM recipient WHERE message = ? AND state IN {states(of)} ORDER BY id",
        (key,),
    )
    envelope = Envelope(
        sender,
        tuple(Recipient(address, notify, orcpt) for _, address, notify, orcpt in recipients),
        body.encode("ascii"),
        bool(smtputf8),
        ret.encode("ascii"),
        envid,
    )
    return Message(key, queue_id, relayhost, envelope, tuple(key for key, *_ in recipients), size, arrival, attempts)


def piece(db: apsw.Connection, message: int, seq: int) -> tuple[bytes, bool] | None:
    """The `seq`th piece of a message's content, and whether another one follows; None past the end."""
    found: tuple[bytes, int] | None = db.execute(
        "SELECT data, EXISTS (SELECT 1 FROM content WHERE message = ?1 AND seq = ?2 + 1) FROM content"
        " WHERE message = ?1 AND seq = ?2",
        (message, seq),
    ).fetchone()
    return None if found is None else (found[0], bool(found[1]))


def record(db: apsw.Connection, end: Record) -> None:
    """Closes the open attempt at a message and writes what came of it, with the notices owed for it."""
    attempt = db.execute("SELECT id FROM attempt WHERE message = ? AND closed IS NULL", (end.message,)).get
    db.execute(
        "UPDATE attempt SET closed = ?, dialled = ?, transacted = ? WHERE id = ?",
        (end.now, end.dialled, end.transaction, attempt),
    )
    for one in end.settled:
        outcome = one.outcome
        told = (one.state.value, one.status, outcome.stage.value, outcome.description)
        db.execute(
            "UPDATE recipient SET state = ?, status = ?, stage = ?, words = ?, remote = ?, changed = ?,"
            " uncertain = CASE WHEN ? THEN ? ELSE uncertain END WHERE id = ?",
            (*told, int(outcome.reply is not None), end.now, one.uncertain, end.now, one.recipient),
        )
        db.execute("INSERT INTO outcome VALUES (?,?,?,?,?,?)", (attempt, one.recipient, *told))
        if one.state is State.SENT:
            address: bytes = db.execute("SELECT address FROM recipient WHERE id = ?", (one.recipient,)).get
            reached(db, address, end.now)
    db.execute(
        "UPDATE message SET attempts = attempts + 1, next_attempt = ? WHERE id = ?", (end.next_attempt, end.message)
    )
    for notice in end.notices:
        notice_lifecycle.owe(db, end.message, notice, end.now)
    retire(db, end.message, end.now)


def retire(db: apsw.Connection, message: int, now: float) -> None:
    """Puts a message with no recipient open or failed into history, without its content.

    A refused message keeps its content for a while: the person may want to fix and resend it (`verbs.purge`).
    """
    live, refused = row(
        db,
        f"SELECT coalesce(sum(state IN {IS_LIVE}), 0), coalesce(sum(state = 'refused'), 0)"
        " FROM recipient WHERE message = ?",
        (message,),
    )
    if live:
        return
    db.execute("UPDATE message SET retired = ?, next_attempt = NULL WHERE id = ?", (now, message))
    if not refused:
        db.execute("DELETE FROM content WHERE message = ?", (message,))


def put_back(db: apsw.Connection, messages: Sequence[int], now: float) -> None:
    """Takes back attempts that were opened but never began: nothing happened, nothing is counted, due at `now`."""
    for key in messages:
        db.execute("DELETE FROM attempt WHERE message = ? AND closed IS NULL", (key,))
        db.execute("UPDATE message SET next_attempt = ? WHERE id = ?", (now, key))


def recall(db: apsw.Connection, relayhost: str, now: float) -> None:
    """Makes due what waits only because a connection was lost. What the remote has asked to come back later with does not
    come sooner."""
    db.execute(
        "UPDATE message SET next_attempt = ?2 WHERE relayhost = ?1 AND next_attempt > ?2"
        f" AND (attempts > 0) = 1 AND (size > {LARGE}) IN (0, 1) AND NOT EXISTS"
        " (SELECT 1 FROM recipient r WHERE r.message = message.id AND r.state = 'deferred' AND r.remote = 1)",
        (relayhost, now),
    )


def recover(db: apsw.Connection, now: float) -> int:
    """Closes the attempts that a crash left open; returns how many. Called when no daemon is running.

    The final dot of each may have been sent, so their recipients are marked uncertain; they are due at once.
    """
    found = rows(db, "SELECT id, message FROM attempt WHERE closed IS NULL")
    for attempt, message in found:
        db.execute("UPDATE attempt SET closed = ?, interrupted = 1 WHERE id = ?", (now, attempt))
        db.execute(
            "UPDATE recipient SET state = 'deferred', status = '4.4.2', stage = ?, words = ?, remote = 0,"
            f" uncertain = ?, changed = ? WHERE message = ? AND state IN {IS_PENDING}",
            (INTERRUPTED.stage.value, INTERRUPTED.description, now, now, message),
        )
        db.execute(
            "INSERT INTO outcome SELECT ?, id, state, status, stage, words FROM recipient"
            " WHERE message = ? AND state = 'deferred'",
            (attempt, message),
        )
        db.execute("UPDATE message SET attempts = attempts + 1, next_attempt = ? WHERE id = ?", (now, message))
        retire(db, message, now)
    return len(found)


def reroute(
    db: apsw.Connection, names: Collection[str], choose: Callable[[bytes], str | None], now: float
) -> tuple[int, int]:
    """Lets mail for relayhosts that are not among `names` go the way that `choose` gives for its reverse path.

    The faults of those relayhosts are over. Returns how many messages were moved, and how many stay where nobody looks.
    Called when no daemon is running.
    """
    moved = left = 0
    for (gone,) in rows(db, "SELECT DISTINCT relayhost FROM message WHERE retired IS NULL"):
        if gone in names:
            continue
        for key, sender in rows(db, "SELECT id, sender FROM message WHERE relayhost = ? AND retired IS NULL", (gone,)):
            way = choose(sender)
            if way is None:
                left += 1
                continue
            db.execute("UPDATE message SET relayhost = ? WHERE id = ?", (way, key))
            db.execute("UPDATE notice SET relayhost = ? WHERE message = ?", (way, key))
            moved += 1
    for (name,) in rows(db, "SELECT name FROM relayhost WHERE failures > 0"):
        if name not in names:
            relayhost_up(db, name, (), now)
    return moved, left


def relayhost_failed(
    db: apsw.Connection,
    name: str,
    outcome: Outcome,
    next_dial: float,
    setup: bool,
    backends: Sequence[Backend],
    now: float,
) -> bool:
    """Writes that the way to a relayhost is shut; for a setup fault not told yet, with the notice owed for it.

    Returns whether a notice became owed. No attempt is counted for the mail that waits.
    """
    text = outcome.description.decode("utf-8", "replace")
    db.execute(
        "INSERT INTO relayhost (name, failures, since, next_dial, setup, cause, text, fix) VALUES (?,1,?,?,?,?,?,?)"
        " ON CONFLICT (name) DO UPDATE SET failures = failures + 1, since = coalesce(since, excluded.since),"
        " next_dial = excluded.next_dial, setup = excluded.setup, cause = excluded.cause, text = excluded.text,"
        " fix = excluded.fix",
        (name, now, next_dial, int(setup), outcome.cause.value, text, outcome.fix),
    )
    if not setup:
        return False
    cause = outcome.cause.value
    owed = notice_lifecycle.stand(
        db, notice_lifecycle.Standing(Kind.SETUP, name, cause, text, outcome.fix), backends, now
    )
    others = [other for other in notice_lifecycle.causes(db, name, Kind.SETUP) if other != cause]
    notice_lifecycle.end(db, name, Kind.SETUP, others, backends, now)
    return owed


@dataclass(frozen=True, slots=True)
class Failure:
    """How the way to a relayhost is shut: how often in a row, until when (epoch seconds), why, and in whose words."""

    failures: int
    next_dial: float
    cause: Cause
    text: str


def relayhost_failure(db: apsw.Connection, name: str) -> Failure | None:
    """What is known to be wrong with the way to a relayhost; None if nothing is."""
    found = rows(db, "SELECT failures, next_dial, cause, text FROM relayhost WHERE name = ? AND failures > 0", (name,))
    return next((Failure(failures, dial, Cause(cause), text) for failures, dial, cause, text in found), None)


def relayhost_up(db: apsw.Connection, name: str, backends: Sequence[Backend], now: float) -> bool:
    """Writes that the way to a relayhost is open again; its setup faults are over. Returns whether word of it is owed."""
    db.execute(
        "UPDATE relayhost SET failures = 0, since = NULL, next_dial = NULL, setup = 0, cause = '', text = '',"
        " fix = '', fixed = iif(setup, ?, fixed) WHERE name = ?",
        (now, name),
    )
    return notice_lifecycle.end(db, name, Kind.SETUP, notice_lifecycle.causes(db, name, Kind.SETUP), backends, now)
