"""Messages that are due, attempts to deliver them, and the outcomes of attempts.

Promises: an attempt has an open row from before it begins, so that no crash loses a message (`recover`); the outcome of an
attempt and the notices that it causes are one commit; only the node that opened an attempt can record it or put it back.
Never: a query whose cost grows with the whole queue.
"""

import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence

import apsw

from mailrelay.mail.completion import NOTHING_KNOWN, Completion
from mailrelay.mail.envelope import Message
from mailrelay.mail.outcome import Outcome, Stage
from mailrelay.mail.record import Place, Record
from mailrelay.mail.spool_errors import SpoolBroken
from mailrelay.ports import LARGE
from mailrelay.spool import exchanges, notice_lifecycle
from mailrelay.spool.completing import complete, move
from mailrelay.spool.database import IS_PENDING, rows
from mailrelay.spool.fallback import IS_FREE, give_back, take_over
from mailrelay.spool.relayhosts import relayhost_up
from mailrelay.spool.retiring import retire
from mailrelay.spool.settling import settle
from mailrelay.spool.stored import load_message

INTERRUPTED = Outcome(
    Stage.AFTER_DOT,
    text="mailrelay was stopped while this was being sent; the server may have it already",
)

EXTRA_SIZE = 32 * 1024
"""Octets. The messages that `take` gives beyond its `limit` have at most `limit` times as many together: they are sent in a
moment, even on a slow network."""

_DUE = (
    "SELECT id, size FROM message WHERE relayhost = ?1 AND next_attempt <= ?2"
    f" AND (attempts > 0) = {{tried}} AND (size > {LARGE}) = {{large}}{{and_free}} ORDER BY next_attempt LIMIT ?3"
)
_AND_FREE = f" AND {IS_FREE}"
# One query for each part of the index message_due, in the order in which to send: untried before tried, small before large;
# for a relayhost's own mail, and for that of another one.
_DUE_QUERIES = tuple(
    tuple(_DUE.format(tried=tried, large=large, and_free=and_free) for and_free in ("", _AND_FREE))
    for tried in (0, 1)
    for large in (0, 1)
)
_NEXT_DUE = tuple(
    "SELECT min(at) FROM ("
    + " UNION ALL ".join(
        "SELECT at FROM (SELECT next_attempt AS at FROM message WHERE relayhost = ?1 AND next_attempt IS NOT NULL"
        f" AND (attempts > 0) = {tried} AND (size > {LARGE}) = {large}{and_free} ORDER BY next_attempt LIMIT 1)"
        for tried in (0, 1)
        for large in (0, 1)
    )
    + ")"
    for and_free in ("", _AND_FREE)
)


def new_node_id() -> str:
    """A new node id: 16 random hexadecimal digits."""
    return os.urandom(8).hex()


def next_due(db: apsw.Connection, relayhost: str, others: Sequence[str] = ()) -> float | None:
    """When the next message of `relayhost` is due (epoch seconds, possibly past); None if none will be. others: the
    relayhosts in whose place it sends, as in `take`."""
    own, free = _NEXT_DUE
    found: list[float | None] = [db.execute(own, (relayhost,)).get, *(db.execute(free, (one,)).get for one in others)]
    return min((at for at in found if at is not None), default=None)


def next_due_of_any(db: apsw.Connection) -> float | None:
    """When the next message of any relayhost is due, also of one that is not in the settings; None if none will be."""
    names = [name for (name,) in rows(db, "SELECT DISTINCT relayhost FROM message WHERE retired IS NULL")]
    return min((at for name in names if (at := next_due(db, name)) is not None), default=None)


def count_due(db: apsw.Connection, relayhost: str, limit: int, now: float, others: Sequence[str] = ()) -> int:
    """The number of messages of `relayhost` that are due, at most `limit`. others: as in `take`."""
    count = 0
    for query, name in _due_queries(relayhost, others):
        if count < limit:
            count += len(rows(db, query, (name, now, limit - count)))
    return count


def _due_queries(relayhost: str, others: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The queries for due messages, each with the name of a relayhost, in the order in which to send."""
    for own, free in _DUE_QUERIES:
        yield own, relayhost
        for other in others:
            yield free, other


def take(
    db: apsw.Connection,
    relayhost: str,
    first: Sequence[int],
    limit: int,
    node: str,
    now: float,
    more: int = 0,
    completion: Completion = NOTHING_KNOWN,
    others: Sequence[str] = (),
) -> list[Message]:
    """Opens attempts of `node` at up to `limit` due messages and returns these, in the order in which to send them.

    first: keys of messages to take before the others, if they are due. more: how many messages to take beyond `limit`, if
    all are small. Those beyond `limit` have at most `limit` times EXTRA_SIZE octets together.
    completion: what bare addresses of these messages become, in the spool and in the result.
    others: relayhosts that cannot be reached, and in whose place `relayhost` takes their free messages, too
    (`fallback.IS_FREE`). These are at `relayhost` then.
    """
    is_due = "SELECT id, size FROM message WHERE id = ? AND relayhost = ? AND next_attempt <= ?"
    found: dict[int, int] = {}
    for key in first:
        found |= dict(rows(db, is_due, (key, relayhost, now)))
        for other in others:
            found |= dict(rows(db, is_due + _AND_FREE, (key, other, now)))
    for query, name in _due_queries(relayhost, others):
        if len(found) < limit + more:
            found |= dict(rows(db, query, (name, now, limit + more)))
    ids = _picked(list(found.items()), limit, more)
    db.executemany(
        "INSERT INTO attempt (message, node, opened, relayhost) VALUES (?,?,?,?)",
        ((key, node, now, relayhost) for key in ids),
    )
    for key in ids:
        db.execute("UPDATE message SET next_attempt = NULL WHERE id = ? AND next_attempt IS NOT NULL", (key,))
        if not db.changes():
            # The index says that it is due, and would say so for ever.
            raise SpoolBroken(f"the spool's file is damaged (an index does not fit the message with key {key})")
    messages = [load_message(db, key) for key in ids]
    taken = [one if one.relayhost == relayhost or not others else take_over(db, one, relayhost) for one in messages]
    return [complete(db, one, completion) for one in taken]


def _picked(found: Sequence[tuple[int, int]], limit: int, more: int) -> list[int]:
    """The keys to take; found: key and size of due messages, in the order of sending. limit, more: as in `take`."""
    picked = [key for key, _ in found[:limit]]
    left = limit * EXTRA_SIZE
    if all(size <= LARGE for _, size in found[:limit]):
        for key, size in found[limit : limit + more]:
            left -= size
            if size > LARGE or left < 0:
                break
            picked.append(key)
    return picked


def record(db: apsw.Connection, end: Record, node: str) -> bool:
    """Closes the open attempt of `node` at a message and writes its outcome, with the notices that it causes.

    Returns False, and changes nothing, where `node` has no open attempt at this message.
    """
    attempt = db.execute(
        "SELECT id FROM attempt WHERE message = ? AND node = ? AND closed IS NULL", (end.message, node)
    ).get
    if attempt is None:
        return False
    db.execute(
        "UPDATE attempt SET closed = ?, dialled = ?, transacted = ? WHERE id = ?",
        (end.now, end.dialled, end.transaction, attempt),
    )
    if not any(one.uncertain for one in end.settled):
        exchanges.forget(db, attempt)
    settle(db, attempt, end, end.now)
    db.execute(
        "UPDATE message SET attempts = attempts + ?, next_attempt = ?, scheduled = ? WHERE id = ?",
        (int(end.place is not Place.GOES_ON), end.next_attempt, end.now, end.message),
    )
    for notice in end.notices:
        notice_lifecycle.add_notice(db, end.message, notice, end.now, end.place)
    if end.place is Place.LAST:
        notice_lifecycle.release_notices(db, end.message, end.now)
    if end.place is not Place.GOES_ON:
        # After the notices, which name the relayhost of the attempt.
        give_back(db, end.message)
    retire(db, end.message, end.now)
    return True


def put_back(db: apsw.Connection, messages: Sequence[int], node: str, now: float) -> list[int]:
    """Deletes the open attempts of `node` at these messages. They have sent nothing and are not counted.

    The messages are due at `now`.

    Returns the messages at which `node` has no open attempt; for these nothing is changed.
    """
    others = []
    for key in messages:
        db.execute("DELETE FROM attempt WHERE message = ? AND node = ? AND closed IS NULL", (key, node))
        if db.changes():
            db.execute("UPDATE message SET next_attempt = ?1, scheduled = ?1 WHERE id = ?2", (now, key))
            give_back(db, key)
        else:
            others.append(key)
    return others


def retry_lost(db: apsw.Connection, relayhost: str, now: float) -> None:
    """Makes the messages due that wait only because a connection was lost, not those that the mail server has deferred, nor
    those that wait for their record."""
    # `IN (0, 1)` is always true: with it SQLite uses all columns of the index message_due.
    db.execute(
        "UPDATE message SET next_attempt = ?2, scheduled = ?2 WHERE relayhost = ?1 AND next_attempt > ?2"
        f" AND (attempts > 0) = 1 AND (size > {LARGE}) IN (0, 1) AND NOT EXISTS"
        " (SELECT 1 FROM recipient r WHERE r.message = message.id AND r.state = 'deferred' AND r.remote = 1)"
        " AND NOT EXISTS (SELECT 1 FROM attempt a JOIN exchange e ON e.attempt = a.id WHERE a.message = message.id)",
        (relayhost, now),
    )


def recover(db: apsw.Connection, now: float, node: str = "") -> int:
    """Closes the open attempts of all nodes except `node`; returns their number. node: "" if no node is excepted.

    Called while no other daemon runs. The final dot of each attempt may have been sent: the recipients are marked uncertain,
    and the messages are due at once, or after `exchanges.HOLD` if a record may say what became of them. Then only recipients
    that were offered are uncertain.
    """
    found = rows(db, "SELECT id, message FROM attempt WHERE closed IS NULL AND node <> ?", (node,))
    for attempt, message in found:
        db.execute("UPDATE attempt SET closed = ?, interrupted = 1 WHERE id = ?", (now, attempt))
        noted = exchanges.offered(db, attempt)
        db.execute(
            "UPDATE recipient SET state = 'deferred', status = '4.4.2', stage = ?, description = ?, remote = 0,"
            f" uncertain = coalesce(uncertain, ?), changed = ? WHERE message = ? AND state IN {IS_PENDING}"
            " AND (? OR id IN (SELECT value FROM json_each(?)))",
            (INTERRUPTED.stage.value, INTERRUPTED.description, now, now, message, noted is None, json.dumps(noted)),
        )
        db.execute(
            "INSERT INTO outcome SELECT ?, id, state, status, stage, description FROM recipient"
            " WHERE message = ? AND state = 'deferred' AND changed = ?",
            (attempt, message, now),
        )
        db.execute(
            "UPDATE message SET attempts = attempts + 1, next_attempt = ?, scheduled = ? WHERE id = ?",
            (now if noted is None else now + exchanges.HOLD, now, message),
        )
        retire(db, message, now)
    return len(found)


def reroute(
    db: apsw.Connection, names: Collection[str], choose: Callable[[bytes], str | None], now: float
) -> tuple[int, int]:
    """Moves mail for relayhosts that are not among `names` back to the relayhost in whose place a fallback has it, or to the
    one that `choose` gives for its reverse path.

    The faults of those relayhosts are over. Returns how many messages were moved, and for how many `choose` gave None: these
    stay. Called before any message is sent.
    """
    moved = left = 0
    for (gone,) in rows(db, "SELECT DISTINCT relayhost FROM message WHERE retired IS NULL"):
        if gone in names:
            continue
        for key, sender, home in rows(
            db, "SELECT id, sender, fallback_for FROM message WHERE relayhost = ? AND retired IS NULL", (gone,)
        ):
            new = home if home in names else choose(sender)
            if new is None:
                left += 1
                continue
            move(db, load_message(db, key, ()), new)
            db.execute("UPDATE message SET fallback_for = '' WHERE id = ?", (key,))
            db.execute("UPDATE notice SET relayhost = ? WHERE message = ?", (new, key))
            moved += 1
    for key, home in rows(db, "SELECT id, fallback_for FROM message WHERE retired IS NULL AND fallback_for <> ''"):
        if home not in names:
            db.execute("UPDATE message SET fallback_for = '' WHERE id = ?", (key,))
    db.execute("UPDATE relayhost SET stand_in = '' WHERE stand_in <> ''")
    for (name,) in rows(db, "SELECT name FROM relayhost WHERE failures > 0"):
        if name not in names:
            relayhost_up(db, name, (), now)
    return moved, left
