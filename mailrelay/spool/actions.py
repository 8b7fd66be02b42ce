"""The actions of the person on messages in the spool, and the deletion of old history.

An action on a message that is being sent is refused: the mail server may have accepted it already.
"""

import apsw

from mailrelay.mail.lifecycle import ACT_TABLE, FAILED, Act, State
from mailrelay.mail.spool_errors import NoSuchMessage, NotAllowed
from mailrelay.spool import correspondents
from mailrelay.spool.attempts import retire
from mailrelay.spool.database import IS_PENDING, rows, states
from mailrelay.spool.successors import not_allowed

KEEP_REFUSED = 7 * 86_400.0
"""Seconds for which the content of a retired message with a refused recipient is kept, to correct and resend it."""
PURGE_BATCH = 500
"""Messages deleted in one commit, at most."""


def find(db: apsw.Connection, prefix: str) -> tuple[int, str]:
    """The key and the whole id of the message whose id is `prefix` or begins with it. Raises NoSuchMessage."""
    prefix = prefix.lower()
    # A command line that is not valid UTF-8 comes with lone surrogates, which SQLite does not accept.
    found: list[tuple[int, str]] = []
    if prefix and prefix.isascii():
        found = rows(
            db,
            "SELECT id, queue_id FROM message WHERE queue_id >= ?1 AND queue_id < ?1 || '~' ORDER BY queue_id LIMIT 2",
            (prefix,),
        )
    if not found:
        raise NoSuchMessage(f"no message has the id {prefix or '(empty)'}; see `mailrelay queue --all`")
    # Ids of older spools are longer: one may begin with the whole id of a newer message.
    if len(found) > 1 and found[0][1] != prefix:
        raise NoSuchMessage(f"more than one message has an id that begins with {prefix}; give more letters of it")
    key, queue_id = found[0]
    return key, queue_id


def retry(db: apsw.Connection, key: int, queue_id: str, now: float) -> None:
    """Makes a message due now, and lets its relayhost be dialled now, in spite of the back-off. Raises NotAllowed."""
    check_not_active(db, key, queue_id)
    db.execute(
        "UPDATE message SET next_attempt = ?1, scheduled = ?1 WHERE id = ?2 AND next_attempt IS NOT NULL", (now, key)
    )
    if not db.changes():
        why = f"{queue_id} has nothing waiting to be sent; see `mailrelay queue show {queue_id}`"
        raise not_allowed(db, queue_id, "retry", why)
    db.execute(
        "UPDATE relayhost SET next_dial = ?1, scheduled = ?1"
        " WHERE failures > 0 AND name = (SELECT relayhost FROM message WHERE id = ?2)",
        (now, key),
    )


def retry_all(db: apsw.Connection, now: float) -> int:
    """Makes all messages with a next attempt due now, and lets every relayhost be dialled now. Returns the number of
    messages."""
    db.execute("UPDATE message SET next_attempt = ?1, scheduled = ?1 WHERE next_attempt IS NOT NULL", (now,))
    due = db.changes()
    db.execute("UPDATE relayhost SET next_dial = ?1, scheduled = ?1 WHERE failures > 0", (now,))
    return due


def dial_now(db: apsw.Connection, relayhost: str, now: float) -> None:
    """Lets a relayhost with a fault be dialled now, in spite of the back-off."""
    db.execute("UPDATE relayhost SET next_dial = ?1, scheduled = ?1 WHERE failures > 0 AND name = ?2", (now, relayhost))


def act(db: apsw.Connection, key: int, queue_id: str, what: Act, now: float) -> int:
    """Does `what` to every recipient whose state allows it, and returns their number. Raises NotAllowed if there is none."""
    check_not_active(db, key, queue_id)
    moved = 0
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
        db.execute("UPDATE message SET next_attempt = ?1, scheduled = ?1 WHERE id = ?2", (now, key))
    # A notice is needless once the person has dealt with all of its recipients.
    db.execute(
        "DELETE FROM notice_backend WHERE delivered IS NULL AND notice IN (SELECT id FROM notice n WHERE message = ?"
        " AND kind IN ('failed', 'held') AND NOT EXISTS (SELECT 1 FROM notice_recipient JOIN recipient r"
        f" ON r.id = recipient WHERE notice = n.id AND r.state IN {states(FAILED | {State.HELD})}))",
        (key,),
    )
    retire(db, key, now)
    return moved


def check_not_active(db: apsw.Connection, key: int, queue_id: str) -> None:
    """Raises NotAllowed if the message has an open attempt."""
    if db.execute("SELECT 1 FROM attempt WHERE message = ? AND closed IS NULL", (key,)).get:
        raise NotAllowed(f"{queue_id} is being sent at this moment; look again with `mailrelay queue show {queue_id}`")


def purge(db: apsw.Connection, now: float, keep_sent: float) -> int:
    """Deletes messages that were retired more than `keep_sent` seconds ago, except those with a pending notice.

    Deletes also old content of refused messages (KEEP_REFUSED), old notices about relayhosts and surplus correspondents, and
    gives free pages back to the file system. Deletes at most PURGE_BATCH messages and returns their number.
    """
    has_content = "EXISTS (SELECT 1 FROM content WHERE message = m.id)"
    is_pending = (
        "EXISTS (SELECT 1 FROM notice n JOIN notice_backend b ON b.notice = n.id"
        " WHERE n.message = m.id AND b.delivered IS NULL)"
    )
    db.execute(
        "DELETE FROM content WHERE message IN"
        f" (SELECT id FROM message m WHERE retired < ? AND {has_content} ORDER BY retired LIMIT ?)",
        (now - KEEP_REFUSED, PURGE_BATCH),
    )
    db.execute(
        "DELETE FROM message WHERE id IN"
        f" (SELECT id FROM message m WHERE retired < ? AND NOT {has_content} AND NOT {is_pending} ORDER BY retired LIMIT ?)",
        (now - keep_sent, PURGE_BATCH),
    )
    gone = db.changes()
    db.execute(
        "DELETE FROM notice WHERE id IN (SELECT id FROM notice WHERE message IS NULL AND reminder IS NULL"
        " AND coalesce(over, created) < ? LIMIT ?)",
        (now - keep_sent, PURGE_BATCH),
    )
    correspondents.forget(db)
    db.execute("PRAGMA incremental_vacuum(1000)")
    return gone
