"""The actions of the person on messages in the spool, and the deletion of old history.

An action on a message that is being sent is refused: the mail server may have accepted it already. To cancel one, the daemon
stops sending it first (`cancel_stopped`).
"""

import apsw

from mailrelay.mail.lifecycle import ACT_TABLE, ENDS_BOUNCE, FAILED, Act, State
from mailrelay.mail.spool_errors import BeingSent, NoSuchMessage, NotAllowed
from mailrelay.mail.there import Retried
from mailrelay.spool import attempts, correspondents, fallback, followed, ownership
from mailrelay.spool.database import IS_PENDING, rows, states
from mailrelay.spool.exchanges import HELD
from mailrelay.spool.retiring import retire
from mailrelay.spool.space import give_pages_back
from mailrelay.spool.successors import not_allowed
from mailrelay.spool.verdicts import BOUNCED

KEEP_REFUSED = 7 * 86_400.0
"""Seconds for which the content of a message is kept that was refused or has bounced on the relayhost, to correct and resend
it."""
PURGE_BATCH = 500
"""Messages deleted in one commit, at most."""


def find(db: apsw.Connection, prefix: str) -> tuple[int, str]:
    """The key and the whole id of the message whose id is `prefix` or begins with it. Raises NoSuchMessage, also for the
    messages of other accounts (`ownership`)."""
    prefix = prefix.lower()
    # A command line that is not valid UTF-8 comes with lone surrogates, which SQLite does not accept.
    found: list[tuple[int, str]] = []
    if prefix and prefix.isascii():
        found = rows(
            db,
            "SELECT id, queue_id FROM message WHERE queue_id >= ?1 AND queue_id < ?1 || '~'"
            " AND (?2 IS NULL OR owner = ?2) ORDER BY queue_id LIMIT 2",
            (prefix, ownership.limit()),
        )
    if not found:
        raise NoSuchMessage(f"no message has the id {prefix or '(empty)'}; see `mailrelay queue --all`")
    # Ids of older spools are longer: one may begin with the whole id of a newer message.
    if len(found) > 1 and found[0][1] != prefix:
        raise NoSuchMessage(f"more than one message has an id that begins with {prefix}; give more letters of it")
    key, queue_id = found[0]
    return key, queue_id


def retry(db: apsw.Connection, key: int, queue_id: str, now: float) -> Retried:
    """Makes a message due now, also before its send time, or as soon as its record has been read, and lets its relayhost be
    dialled now, in spite of the back-off. If recipients are in the queue of the mail server there, it is to be asked to try
    them again. Raises NotAllowed if none waits here or there."""
    check_not_active(db, key, queue_id)
    is_there = followed.want_retry(db, key, now)
    # Its age counts from now on if its send time has not come.
    db.execute(
        f"UPDATE message SET next_attempt = max(?1, {HELD}), scheduled = ?1, send_time = min(send_time, ?1), by_clock = 0"
        " WHERE id = ?2 AND next_attempt IS NOT NULL",
        (now, key),
    )
    is_here = db.changes() > 0
    if not is_here and not is_there:
        why = f"{queue_id} has nothing waiting to be sent; see `mailrelay queue show {queue_id}`"
        raise not_allowed(db, queue_id, "retry", why)
    db.execute(
        "UPDATE relayhost SET next_dial = ?1, scheduled = ?1"
        " WHERE failures > 0 AND name = (SELECT relayhost FROM message WHERE id = ?2)",
        (now, key),
    )
    return Retried.HERE if is_here else Retried.THERE


def retry_all(db: apsw.Connection, now: float) -> int:
    """Makes all messages with a next attempt due now, but for those that wait for their time, and lets every relayhost be
    dialled now. Returns the number of messages."""
    mine = " AND (?2 IS NULL OR owner = ?2)"
    values = (now, ownership.limit())
    db.execute(
        f"UPDATE message SET next_attempt = max(?1, {HELD}), scheduled = ?1"
        f" WHERE next_attempt IS NOT NULL AND coalesce(send_time, ?1) <= ?1{mine}",
        values,
    )
    due = db.changes()
    db.execute(
        "UPDATE relayhost SET next_dial = ?1, scheduled = ?1 WHERE failures > 0 AND (?2 IS NULL OR"
        f" name IN (SELECT relayhost FROM message WHERE next_attempt IS NOT NULL{mine}))",
        values,
    )
    return due


def dial_now(db: apsw.Connection, relayhost: str, now: float) -> None:
    """Lets a relayhost with a fault be dialled now, in spite of the back-off."""
    db.execute("UPDATE relayhost SET next_dial = ?1, scheduled = ?1 WHERE failures > 0 AND name = ?2", (now, relayhost))


def act(db: apsw.Connection, key: int, queue_id: str, what: Act, now: float, successor: str = "") -> int:
    """Does `what` to every recipient whose state allows it, and returns their number. Raises NotAllowed if there is none.

    Recipients that have bounced on the relayhost are dealt with by the acts of ENDS_BOUNCE. Their state stays `sent`.
    successor: the queue id of the message that replaces this one for them, "" if none does.
    """
    check_not_active(db, key, queue_id)
    moved = followed.deal_with(db, key, now, successor) if what in ENDS_BOUNCE else 0
    for recipient, state in rows(db, "SELECT id, state FROM recipient WHERE message = ?", (key,)):
        to = ACT_TABLE.get((State(state), what))
        if to is not None:
            db.execute("UPDATE recipient SET state = ?, changed = ? WHERE id = ?", (to.value, now, recipient))
            moved += 1
    if not moved:
        why = f"the state of {queue_id} does not allow {what}; see `mailrelay queue show {queue_id}`"
        raise not_allowed(db, queue_id, what, why)
    pending = db.execute(f"SELECT count(*) FROM recipient WHERE message = ? AND state IN {IS_PENDING}", (key,)).get
    if not pending:
        db.execute("UPDATE message SET next_attempt = NULL WHERE id = ?", (key,))
    elif what is Act.RELEASE:
        db.execute(
            f"UPDATE message SET next_attempt = max(?1, coalesce(send_time, ?1), {HELD}), scheduled = ?1 WHERE id = ?2",
            (now, key),
        )
        fallback.give_back(db, key)
    # A notice is needless once the person has dealt with all of its recipients.
    db.execute(
        "DELETE FROM notice_backend WHERE delivered IS NULL AND notice IN (SELECT id FROM notice n WHERE message = ?"
        " AND kind IN ('failed', 'held') AND NOT EXISTS (SELECT 1 FROM notice_recipient t JOIN recipient r"
        " ON r.id = t.recipient LEFT JOIN followed f ON f.recipient = r.id WHERE notice = n.id"
        f" AND (r.state IN {states(FAILED | {State.HELD})} OR {BOUNCED})))",
        (key,),
    )
    retire(db, key, now)
    return moved


def cancel_stopped(db: apsw.Connection, key: int, node: str, now: float) -> bool:
    """Undoes the open attempt of `node` at a message, which has sent no whole content, and cancels the message.

    Returns False where there is no such attempt, or no recipient that could be cancelled."""
    if attempts.put_back(db, [key], node, now):
        return False
    queue_id = db.execute("SELECT queue_id FROM message WHERE id = ?", (key,)).get
    try:
        act(db, key, str(queue_id), Act.CANCEL, now)
    except NotAllowed:
        return False
    return True


def check_not_active(db: apsw.Connection, key: int, queue_id: str) -> None:
    """Raises BeingSent if the message has an open attempt."""
    if db.execute("SELECT 1 FROM attempt WHERE message = ? AND closed IS NULL", (key,)).get:
        raise BeingSent(f"{queue_id} is being sent at this moment; look again with `mailrelay queue show {queue_id}`")


def purge(db: apsw.Connection, now: float, keep_sent: float) -> int:
    """Deletes messages that were retired more than `keep_sent` seconds ago, except those that are in the queue of the
    relayhost's mail server, as far as is known, and those with a pending notice.

    Ends what is followed for too long. Deletes also old content of messages that were refused or have bounced on the
    relayhost (KEEP_REFUSED), old notices about relayhosts and surplus correspondents, and gives free pages back to the file
    system. Deletes at most PURGE_BATCH messages and returns their number.
    """
    has_content = "EXISTS (SELECT 1 FROM content WHERE message = m.id)"
    is_pending = (
        "EXISTS (SELECT 1 FROM notice n JOIN notice_backend b ON b.notice = n.id"
        " WHERE n.message = m.id AND b.delivered IS NULL)"
    )
    is_queued_there = (
        "EXISTS (SELECT 1 FROM recipient r JOIN followed f ON f.recipient = r.id WHERE r.message = m.id AND f.over IS NULL"
        " AND (f.state = 'deferred' OR f.state = 'waiting' AND f.source <> ''))"
    )
    was_refused = "EXISTS (SELECT 1 FROM recipient r WHERE r.message = m.id AND r.state = 'refused')"
    followed.end_old(db, now, PURGE_BATCH)
    db.execute(
        "DELETE FROM content WHERE message IN"
        f" (SELECT id FROM message m WHERE retired < ? AND {has_content} ORDER BY retired LIMIT ?)",
        (now - KEEP_REFUSED, PURGE_BATCH),
    )
    # Only if nothing else keeps it.
    db.execute(
        "DELETE FROM content WHERE message IN (SELECT r.message FROM followed f JOIN recipient r ON r.id = f.recipient"
        f" WHERE {BOUNCED} AND NOT EXISTS (SELECT 1 FROM recipient o LEFT JOIN followed p ON p.recipient = o.id"
        " WHERE o.message = r.message AND (o.state NOT IN ('sent', 'cancelled', 'refused')"
        " OR (p.recipient IS NOT NULL AND p.over IS NULL))) GROUP BY r.message HAVING max(f.changed) < ?)",
        (now - KEEP_REFUSED,),
    )
    db.execute(
        "DELETE FROM message WHERE id IN"
        f" (SELECT id FROM message m WHERE retired < ? AND NOT ({has_content} AND {was_refused}) AND NOT {is_pending}"
        f" AND NOT {is_queued_there} ORDER BY retired LIMIT ?)",
        (now - keep_sent, PURGE_BATCH),
    )
    gone = db.changes()
    db.execute(
        "DELETE FROM notice WHERE id IN (SELECT id FROM notice WHERE message IS NULL AND reminder IS NULL"
        " AND coalesce(over, created) < ? LIMIT ?)",
        (now - keep_sent, PURGE_BATCH),
    )
    correspondents.forget(db)
    give_pages_back(db, 1000)
    return gone
