"""What the person sees of the spool: listings, the events of one message, and the state of the spool.

Only reads. No function but `content` and `senders` reads the content of a message. Bytes from outside are not escaped.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from itertools import groupby
from operator import itemgetter
from typing import Any

import apsw

from mailrelay.mail.overview import Event, Listed, ListedRecipient, RelayhostFault, SpoolStatus
from mailrelay.mail.states import FAILED, PENDING, State
from mailrelay.spool.database import ARRIVAL, IS_FAILED, IS_LIVE, IS_PENDING, row, rows

RECENT = 200
"""The number of latest messages in which `senders` looks for reverse paths."""

_SELECT = (
    "SELECT m.id, m.queue_id, m.relayhost, m.arrival, m.size, m.sender, m.subject, m.attempts, m.next_attempt,"
    " coalesce(h.text, ''), h.next_dial, a.id, r.address, r.state, r.status, r.stage, r.description, r.uncertain"
    " FROM message m JOIN recipient r ON r.message = m.id"
    " LEFT JOIN attempt a ON a.message = m.id AND a.closed IS NULL"
    " LEFT JOIN relayhost h ON h.name = m.relayhost AND h.failures > 0"
)


def live(db: apsw.Connection) -> Iterator[Listed]:
    """The messages that are pending, held or failed, in order of arrival."""
    return _listed(db.execute(f"{_SELECT} WHERE m.retired IS NULL ORDER BY m.id, r.id"))


def everything(db: apsw.Connection) -> Iterator[Listed]:
    """All messages, history too, in order of arrival."""
    return _listed(db.execute(f"{_SELECT} ORDER BY m.id, r.id"))


def one(db: apsw.Connection, key: int) -> Listed:
    """The message with this key, which must exist."""
    return next(_listed(db.execute(f"{_SELECT} WHERE m.id = ? ORDER BY r.id", (key,))))


def _listed(found: Iterator[tuple[Any, ...]]) -> Iterator[Listed]:
    """found: rows of `_SELECT`, one for each recipient; those of one message are neighbours."""
    for _, group in groupby(found, key=itemgetter(0)):
        yield _one_listed(list(group))


def _one_listed(found: list[tuple[Any, ...]]) -> Listed:
    key, queue_id, relayhost, arrival, size, sender, subject, attempts, next_attempt, fault_text, next_dial, active = (
        found[0][:12]
    )
    states = {columns[13] for columns in found}
    if next_dial is not None and next_attempt is not None and not states.isdisjoint(PENDING):
        # No message is tried before its relayhost is dialled again.
        next_attempt = max(next_attempt, next_dial)
    recipients = tuple(
        ListedRecipient(
            address, "active" if active and state in PENDING else state, status, stage, description, uncertain
        )
        for address, state, status, stage, description, uncertain in (columns[12:] for columns in found)
    )
    return Listed(
        key,
        queue_id,
        _queue_name(states, active=active is not None, attempts=attempts),
        relayhost,
        arrival,
        size,
        sender,
        subject,
        attempts,
        next_attempt,
        fault_text,
        recipients,
    )


def _queue_name(states: AbstractSet[str], *, active: bool, attempts: int) -> str:
    """Postfix's name of the queue that a message is in; "failed", "sent" and "cancelled" are ours."""
    if active:
        return "active"
    if states & PENDING:
        return "deferred" if attempts else "incoming"
    if State.HELD in states:
        return "hold"
    if states & FAILED or states <= {State.REFUSED}:
        return "failed"
    return "sent" if State.SENT in states else "cancelled"


def events(db: apsw.Connection, key: int) -> list[Event]:
    """All events of a message, in order of time."""
    listed = one(db, key)
    found = [Event(listed.arrival, "accepted")]
    for attempt, node, opened, closed, interrupted, dialled in rows(
        db, "SELECT id, node, opened, closed, interrupted, dialled FROM attempt WHERE message = ? ORDER BY id", (key,)
    ):
        if dialled:
            found.append(Event(opened - dialled, f"dialled, in {dialled:.2f} s"))
        if node != ARRIVAL:
            found.append(Event(opened, "attempt"))
        if interrupted:
            found.append(Event(closed, "interrupted"))
        found.extend(
            Event(closed, state, address, status, description, stage)
            for state, address, status, description, stage in rows(
                db,
                "SELECT o.state, r.address, o.status, o.description, o.stage"
                " FROM outcome o JOIN recipient r ON r.id = o.recipient WHERE o.attempt = ? ORDER BY r.id",
                (attempt,),
            )
        )
    for kind, backend, delivered, next_try, why in rows(
        db,
        "SELECT n.kind, backend, delivered, next_try, why"
        " FROM notice n JOIN notice_backend b ON b.notice = n.id WHERE n.message = ?"
        " ORDER BY delivered, backend",
        (key,),
    ):
        if delivered is not None:
            found.append(Event(delivered, f"notice ({kind}) delivered by {backend}"))
        elif why:
            found.append(
                Event(next_try, f"notice ({kind}) not delivered by {backend}, next try", description=why.encode())
            )
    found.extend(
        Event(changed, state, address, description=b"replaced by %s" % successor.encode() if successor else b"")
        for state, address, changed, successor in rows(
            db,
            "SELECT state, address, changed, successor FROM recipient WHERE message = ? AND state = 'cancelled'",
            (key,),
        )
    )
    # The sort is stable: events of the same instant stay in the order of cause and effect.
    return sorted(found, key=lambda event: event.at)


def content(db: apsw.Connection, key: int) -> Iterator[bytes]:
    """The content of a message, piece by piece; nothing if it is no longer kept."""
    for (data,) in db.execute("SELECT data FROM content WHERE message = ? ORDER BY seq", (key,)):
        yield data


def senders(db: apsw.Connection) -> list[tuple[bytes, bytes]]:
    """The reverse path and the first `PIECE` octets of the content of recent messages, the latest first.

    The content is b"" if it is no longer kept. Messages with a null reverse path are left out.
    """
    return rows(
        db,
        "SELECT sender, coalesce(data, x'') FROM (SELECT * FROM message ORDER BY arrival DESC LIMIT ?) m"
        " LEFT JOIN content c ON c.message = m.id AND c.seq = 0 WHERE length(sender) > 0 ORDER BY arrival DESC",
        (RECENT,),
    )


def status(db: apsw.Connection) -> SpoolStatus:
    """The state of the whole spool."""
    counts: dict[str, int] = dict(
        db.execute(
            f"SELECT iif(state IN {IS_FAILED}, 'failed', state) AS kind, count(DISTINCT message) FROM recipient"
            f" WHERE state IN {IS_LIVE} GROUP BY kind"
        )
    )
    pending, oldest = row(
        db,
        "SELECT count(*), min(arrival) FROM message m WHERE retired IS NULL AND EXISTS"
        f" (SELECT 1 FROM recipient r WHERE r.message = m.id AND r.state IN {IS_PENDING})",
    )
    # Messages that an attempt held. If the person has held the recipient later, `changed` is later than `closed`.
    (stranded,) = row(
        db,
        "SELECT count(DISTINCT r.message) FROM recipient r JOIN outcome o ON o.recipient = r.id JOIN attempt a"
        " ON a.id = o.attempt WHERE r.state = 'held' AND o.state = 'held' AND a.closed = r.changed",
    )
    failing_notices = rows(
        db,
        "SELECT kind, backend, why FROM notice_backend JOIN notice ON notice.id = notice"
        " WHERE delivered IS NULL AND over IS NULL AND tries > 0 ORDER BY created LIMIT 20",
    )
    faults = tuple(
        RelayhostFault(name, since, next_dial, bool(setup), text, fix)
        for name, since, next_dial, setup, text, fix in rows(
            db, "SELECT name, since, next_dial, setup, text, fix FROM relayhost WHERE failures > 0 ORDER BY name"
        )
    )
    return SpoolStatus(
        pending,
        oldest,
        counts.get("held", 0),
        stranded,
        counts.get("failed", 0),
        tuple(failing_notices),
        faults,
    )
