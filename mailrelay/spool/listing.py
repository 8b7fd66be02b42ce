"""What the person sees of the spool: listings, the events of one message, and the state of the spool.

Only reads. Only `content_as_stored` and `senders` read the content of a message. Bytes from outside are not escaped.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import groupby
from operator import itemgetter
from typing import Any

import apsw

from mailrelay.mail.overview import Event, Listed, ListedRecipient, RelayhostFault, SpoolStatus
from mailrelay.mail.states import COUNTED_AS, FAILED, OPEN, PENDING, State
from mailrelay.mail.there import There
from mailrelay.spool import ownership
from mailrelay.spool.database import ARRIVAL, WAITS_SINCE, as_text, row, rows, states
from mailrelay.spool.verdicts import BOUNCED, DEFERRED, SUCCESSOR, VERDICT, verdict

RECENT = 200
"""The number of latest messages in which `senders` looks for reverse paths."""

_SELECT = (
    "SELECT m.id, CAST(m.queue_id AS BLOB), CAST(m.relayhost AS BLOB), m.arrival, m.size, m.sender,"
    " CAST(m.subject AS BLOB), m.attempts, m.next_attempt, m.owner,"
    " m.send_time, coalesce(h.text, ''), h.next_dial, CAST(h.stand_in AS BLOB), CAST(m.fallback_for AS BLOB),"
    " a.id, r.address, r.state, r.status, r.stage, r.description, r.uncertain,"
    f" {SUCCESSOR}, f.recipient, {VERDICT}, f.dealt_with IS NOT NULL"
    " FROM message m JOIN recipient r ON r.message = m.id LEFT JOIN followed f ON f.recipient = r.id"
    " LEFT JOIN attempt a ON a.message = m.id AND a.closed IS NULL"
    " LEFT JOIN relayhost h ON h.name = m.relayhost AND h.failures > 0"
)


def live(db: apsw.Connection) -> Iterator[Listed]:
    """The messages that are pending, held or failed, also on the relayhost, in order of arrival."""
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
        message = _one_listed(list(group))
        if ownership.may_see(message.owner):
            yield message


def _one_listed(found: list[tuple[Any, ...]]) -> Listed:
    (
        key,
        queue_id,
        relayhost,
        arrival,
        size,
        sender,
        subject,
        attempts,
        next_attempt,
        owner,
        send_time,
        fault_text,
        next_dial,
        stand_in,
        fallback_for,
        active,
    ) = found[0][:16]
    states = {columns[17] for columns in found}
    # A message in doubt waits for its own relayhost.
    if any(columns[17] in OPEN and columns[21] is not None for columns in found):
        stand_in = b""
    if next_dial is not None and next_attempt is not None and not stand_in and not states.isdisjoint(PENDING):
        # No message is tried before its relayhost is dialled again.
        next_attempt = max(next_attempt, next_dial)
    recipients = tuple(
        ListedRecipient(
            address,
            "active" if active and state in PENDING else state,
            status,
            stage,
            description,
            uncertain,
            successor,
            verdict(*columns) if followed is not None else None,
            bool(is_dealt_with),
        )
        for address, state, status, stage, description, uncertain, successor, followed, *columns, is_dealt_with in (
            columns[16:] for columns in found
        )
    )
    return Listed(
        key,
        as_text(queue_id),
        _queue_name(states, recipients, active=active is not None, attempts=attempts),
        as_text(relayhost),
        arrival,
        size,
        sender,
        as_text(subject),
        attempts,
        next_attempt,
        fault_text,
        recipients,
        send_time,
        as_text(stand_in),
        as_text(fallback_for),
        owner,
    )


def _queue_name(states: AbstractSet[str], recipients: Sequence[ListedRecipient], *, active: bool, attempts: int) -> str:
    """Postfix's name of the queue that a message is in; "failed", "refused", "sent" and "cancelled" are ours."""
    if active:
        return "active"
    if states & PENDING:
        return "deferred" if attempts else "incoming"
    if State.HELD in states:
        return "hold"
    if states & FAILED or any(to.has_bounced_there for to in recipients):
        return "failed"
    return next((name for name in (State.SENT, State.REFUSED) if name in states), State.CANCELLED)


def events(db: apsw.Connection, key: int) -> list[Event]:
    """All events of a message, in the order in which they happened; then those that are planned, in order of time.

    No event stands before its cause, also where the clock was set back between them.
    """
    message = one(db, key)
    arrival = message.arrival
    found, ends, settled = _attempt_events(db, key, arrival)
    planned: list[Event] = []
    if message.send_time is not None and message.next_attempt is not None and not message.attempts:
        planned.append(Event(message.send_time, "first attempt", planned=True))
    for kind, created, backend, delivered, next_try, why in rows(
        db,
        "SELECT n.kind, n.created, backend, delivered, next_try, why"
        " FROM notice n JOIN notice_backend b ON b.notice = n.id WHERE n.message = ?"
        " ORDER BY delivered, backend",
        (key,),
    ):
        if delivered is not None:
            at = max(delivered, ends.get(created, created))
            found.append((at, Event(delivered, f"notice ({kind}) delivered by {backend}")))
        elif why:
            what = f"notice ({kind}) not delivered by {backend}, next try"
            planned.append(Event(next_try, what, description=why.encode(), planned=True))
    for recipient, state, address, changed, successor in rows(
        db,
        "SELECT id, state, address, changed, successor FROM recipient WHERE message = ? AND state = 'cancelled'"
        " ORDER BY id",
        (key,),
    ):
        description = b"replaced by %s" % successor.encode() if successor else b""
        at = max(changed, settled.get(recipient, arrival))
        found.append((at, Event(changed, state, address, description=description)))
    found.extend(_events_there(db, key, settled))
    # The sort is stable: events of the same instant stay in the order of cause and effect.
    happened = [event for _, event in sorted(found, key=itemgetter(0))]
    return happened + sorted(planned, key=lambda event: event.at)


def _events_there(db: apsw.Connection, key: int, settled: Mapping[int, float]) -> Iterator[tuple[float, Event]]:
    """What became of the recipients on the relayhost, and what the person did about it, with the times for the order.

    settled: the time of each recipient's last outcome.
    """
    for recipient, address, changed, dealt_with, successor, *columns in rows(
        db,
        f"SELECT r.id, r.address, f.changed, f.dealt_with, f.successor, {VERDICT}"
        " FROM followed f JOIN recipient r ON r.id = f.recipient WHERE r.message = ? ORDER BY r.id",
        (key,),
    ):
        seen = verdict(*columns)
        at = max(changed, settled.get(recipient, changed))
        if seen.state is not There.WAITING:
            yield at, Event(changed, seen.heading, address, description=seen.words)
        if dealt_with is not None:
            description = b"replaced by %s" % successor.encode() if successor else b""
            yield max(at, dealt_with), Event(dealt_with, "dealt with", address, description=description)


def _attempt_events(
    db: apsw.Connection, key: int, arrival: float
) -> tuple[list[tuple[float, Event]], dict[float, float], dict[int, float]]:
    """The arrival and the attempts as events, with their times for the order: an event's own time, or that of the event
    before it, if the clock was set back. Also that time for each end of an attempt, and for each recipient's last outcome.
    """
    found = [(arrival, Event(arrival, "accepted"))]
    latest = arrival
    ends: dict[float, float] = {}
    settled: dict[int, float] = {}
    for attempt, node, opened, closed, interrupted, dialled, relayhost in rows(
        db,
        "SELECT id, node, opened, closed, interrupted, dialled, CAST(relayhost AS BLOB) FROM attempt WHERE message = ?"
        " ORDER BY id",
        (key,),
    ):
        if dialled:
            # The dial may have begun before the message came.
            begun = max(opened - dialled, min(arrival, opened))
            found.append((max(latest, begun), Event(begun, f"dialled, in {dialled:.2f} s")))
        latest = max(latest, opened)
        if node != ARRIVAL:
            found.append((latest, Event(opened, "attempt", relayhost=as_text(relayhost))))
        if closed is None:
            continue
        latest = ends[closed] = max(latest, closed)
        if interrupted:
            found.append((latest, Event(closed, "interrupted")))
        for recipient, state, address, status, description, stage in rows(
            db,
            "SELECT r.id, o.state, r.address, o.status, o.description, o.stage"
            " FROM outcome o JOIN recipient r ON r.id = o.recipient WHERE o.attempt = ? ORDER BY r.id",
            (attempt,),
        ):
            settled[recipient] = latest
            found.append((latest, Event(closed, state, address, status, description, stage)))
    return found, ends, settled


def content_as_stored(db: apsw.Connection, key: int) -> bytes:
    """The content of a message as it is in the spool, damaged or not; `stored.content` verifies it."""
    return b"".join(data for (data,) in rows(db, "SELECT data FROM content WHERE message = ? ORDER BY seq", (key,)))


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


def status(db: apsw.Connection, late_before: float = -math.inf, now: float = math.inf) -> SpoolStatus:
    """The state of the whole spool. late_before: pending messages that have waited since an earlier time are late. now:
    those whose send time is later wait for it. Both are epoch seconds."""
    # Not through `counts`, which reads every message: prompts and monitoring ask often.
    since = WAITS_SINCE.format("")
    (pending, oldest, late, scheduled), (held, *_), (failed, *_) = (
        row(
            db,
            f"SELECT count(*), min({since}) FILTER (WHERE {since} <= ?2), count(*) FILTER (WHERE {since} < ?1),"
            " count(*) FILTER (WHERE send_time > ?2 AND next_attempt IS NOT NULL) FROM message m WHERE retired IS NULL"
            f" AND EXISTS (SELECT 1 FROM recipient r WHERE r.message = m.id AND r.state IN {states(COUNTED_AS[word])})",
            (late_before, now),
        )
        for word in ("pending", "held", "failed")
    )
    # Messages that an attempt held. If the person has held the recipient later, `changed` is later than `closed`.
    (stranded,) = row(
        db,
        "SELECT count(DISTINCT r.message) FROM recipient r JOIN outcome o ON o.recipient = r.id JOIN attempt a"
        " ON a.id = o.attempt WHERE r.state = 'held' AND o.state = 'held' AND a.closed = r.changed",
    )
    bounced_there, deferred_there = (
        row(
            db,
            "SELECT count(DISTINCT r.message) FROM followed f JOIN recipient r ON r.id = f.recipient"
            f" WHERE {condition}",
            bindings,
        )[0]
        for condition, bindings in ((BOUNCED, ()), (f"{DEFERRED} AND f.accepted < ?", (late_before,)))
    )
    failing_notices = rows(
        db,
        "SELECT kind, backend, why FROM notice_backend JOIN notice ON notice.id = notice"
        " WHERE delivered IS NULL AND over IS NULL AND tries > 0 ORDER BY created LIMIT 20",
    )
    faults = tuple(
        RelayhostFault(name, since, next_dial, bool(setup), text, fix, stand_in)
        for name, since, next_dial, setup, text, fix, stand_in in rows(
            db,
            "SELECT name, since, next_dial, setup, text, fix, stand_in FROM relayhost WHERE failures > 0 ORDER BY name",
        )
    )
    return SpoolStatus(
        pending,
        oldest,
        late,
        held,
        stranded,
        failed,
        tuple(failing_notices),
        faults,
        bounced_there,
        deferred_there,
        scheduled,
    )
