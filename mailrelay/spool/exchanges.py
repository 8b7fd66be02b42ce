"""Attempts whose replies may be in a record on the relayhost: which replies, and what the record said.

    note(db, message, exchange, node)       while the attempt is open: its commands are about to be sent
    unread(db, relayhost, now)              attempts that have ended in doubt, or by a crash; their messages wait
    resolve(db, read, backends_for, now, …)    what their records said

Promises: a message is not due while its record is being read, for HOLD seconds at most, also if the person retries it.
What a record said is one commit: a recipient that was sent is `sent`, one that was not taken is not uncertain any more, and
the message is due at once for those that are left.
Column `uncertain` holds the end of the first attempt that may have delivered the message. The record of a later attempt does
not clear it.
Never: a change of the state of a recipient that the person has cancelled or sent again. One that the person has held becomes
`sent` if the record says so.
"""

from collections.abc import Sequence

import apsw

from mailrelay.mail.backends import BackendsFor
from mailrelay.mail.conclusion import accepted_before
from mailrelay.mail.envelope import Message
from mailrelay.mail.lifecycle import PENDING, State
from mailrelay.mail.record import Record
from mailrelay.mail.recorded import ReadExchange, RecordedExchange, UnreadExchange
from mailrelay.spool.database import IS_PENDING, row, rows
from mailrelay.spool.fallback import give_back
from mailrelay.spool.notice_lifecycle import add_notice
from mailrelay.spool.retiring import retire
from mailrelay.spool.settling import settle
from mailrelay.spool.stored import load_message

HOLD = 60.0
"""Seconds for which a message waits while its record is read."""
HELD = (
    "coalesce((SELECT max(e.held) FROM exchange e JOIN attempt a ON a.id = e.attempt"
    f" WHERE a.message = message.id AND e.held <= ?1 + {HOLD}), ?1)"
)
"""Until when message `message` is held because its record is being read; now (?1) if it is not. A time further ahead is that
of a clock that was set back since."""


def note(db: apsw.Connection, message: int, exchange: RecordedExchange, node: str) -> None:
    """Writes where the replies to the open attempt of `node` at a message will stand. Does nothing if it has ended."""
    recipients = " ".join(map(str, exchange.recipients))
    db.execute(
        "INSERT OR REPLACE INTO exchange SELECT id, ?, ?, ?, ?, ?, NULL FROM attempt WHERE message = ? AND node = ?"
        " AND closed IS NULL",
        (
            exchange.token,
            exchange.first,
            recipients,
            int(exchange.has_data),
            int(exchange.relays_dsn),
            message,
            node,
        ),
    )


def offered(db: apsw.Connection, attempt: int) -> list[int] | None:
    """The keys of the recipients that the attempt was for; None if they were not noted."""
    noted: str | None = db.execute("SELECT recipients FROM exchange WHERE attempt = ?", (attempt,)).get
    return None if noted is None else [int(key) for key in noted.split()]


def forget(db: apsw.Connection, attempt: int) -> None:
    """The replies to this attempt were read, or nobody will read them."""
    db.execute("DELETE FROM exchange WHERE attempt = ?", (attempt,))


def unread(db: apsw.Connection, relayhost: str, now: float) -> list[UnreadExchange]:
    """The attempts by `relayhost` that have ended, and whose records may say what became of them. Their messages are not due
    before HOLD has passed."""
    found = _unread(db, relayhost)
    db.executemany(
        "UPDATE message SET next_attempt = ?2, scheduled = ?3 WHERE id = ?1 AND next_attempt < ?2",
        ((one.message, now + HOLD, now) for one in found),
    )
    db.executemany("UPDATE exchange SET held = ? WHERE attempt = ?", ((now + HOLD, one.attempt) for one in found))
    return found


def _unread(db: apsw.Connection, relayhost: str) -> list[UnreadExchange]:
    return [
        UnreadExchange(
            attempt,
            message,
            queue_id,
            RecordedExchange(token, first, tuple(map(int, recipients.split())), bool(has_data), bool(relays_dsn)),
        )
        for attempt, message, queue_id, token, first, recipients, has_data, relays_dsn in rows(
            db,
            "SELECT e.attempt, m.id, m.queue_id, e.token, e.first, e.recipients, e.has_data, e.relays_dsn FROM exchange e"
            " JOIN attempt a ON a.id = e.attempt JOIN message m ON m.id = a.message"
            " WHERE a.closed IS NOT NULL AND m.relayhost = ? ORDER BY e.attempt",
            (relayhost,),
        )
    ]


def resolve(
    db: apsw.Connection,
    read: Sequence[ReadExchange],
    backends_for: BackendsFor,
    now: float,
    *,
    is_followed: bool = False,
) -> list[tuple[Message, Record]]:
    """Writes what records have said, with the notices that follow. Returns the messages that were accepted. Nothing changes
    for a message that is being sent again.

    is_followed: whether recipients that were sent are followed on the relayhost.
    """
    accepted = []
    for one in read:
        found = _resolve(db, one, backends_for, now, is_followed=is_followed)
        if found is not None:
            accepted.append(found)
        forget(db, one.attempt)
        give_back(db, one.message)
    return accepted


def _resolve(
    db: apsw.Connection, one: ReadExchange, backends_for: BackendsFor, now: float, *, is_followed: bool
) -> tuple[Message, Record] | None:
    if rows(db, "SELECT 1 FROM attempt WHERE message = ? AND closed IS NULL", (one.message,)):
        return None
    closed = row(db, "SELECT closed FROM attempt WHERE id = ?", (one.attempt,))[0]
    accepted = _accepted(db, one, backends_for, now, is_followed=is_followed)
    for key in (*one.sent, *one.not_taken):
        # Unless an earlier attempt may have delivered it.
        db.execute("UPDATE recipient SET uncertain = NULL WHERE id = ? AND uncertain = ?", (key, closed))
    if rows(db, f"SELECT 1 FROM recipient WHERE message = ? AND state IN {IS_PENDING}", (one.message,)):
        db.execute("UPDATE message SET next_attempt = ?1, scheduled = ?1 WHERE id = ?2", (now, one.message))
    else:
        db.execute("UPDATE message SET next_attempt = NULL WHERE id = ?", (one.message,))
    retire(db, one.message, now)
    return accepted


def _accepted(
    db: apsw.Connection, one: ReadExchange, backends_for: BackendsFor, now: float, *, is_followed: bool
) -> tuple[Message, Record] | None:
    """Writes for which recipients the mail server has the message; None if there are none."""
    if one.reply is None:
        return None
    message = load_message(db, one.message, PENDING | {State.HELD})
    ended, dialled, transaction, relays_dsn = row(
        db,
        "SELECT closed, dialled, transacted, relays_dsn FROM attempt JOIN exchange ON attempt = id WHERE id = ?",
        (one.attempt,),
    )
    record = accepted_before(
        message,
        one.sent,
        one.reply,
        backends_for,
        relays_dsn=bool(relays_dsn),
        now=now,
        next_attempt=now,
        dialled=dialled,
        transaction=transaction,
        is_followed=is_followed,
    )
    settle(db, one.attempt, record, ended)
    for notice in record.notices:
        add_notice(db, one.message, notice, now)
    return (message, record) if record.settled else None
