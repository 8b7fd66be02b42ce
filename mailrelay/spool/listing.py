"""What the person sees of the spool: listings, one message's story, and how things stand.

Reads only, and no content but where content is asked for. Bytes from outside are given as they came: whoever shows them
escapes them.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import apsw

from mailrelay.mail.states import FAILED, PENDING, State
from mailrelay.spool.database import IS_LIVE, IS_PENDING, row, rows


@dataclass(frozen=True, slots=True)
class ListedRecipient:
    """A recipient as listed. `state` is a word of the state table, `active` among them; `words` is not escaped."""

    address: bytes
    state: str
    status: str
    stage: str
    words: bytes
    uncertain: float | None


@dataclass(frozen=True, slots=True)
class Listed:
    """A message as listed. Times are epoch seconds; `trouble` says why its relayhost cannot be reached, if it cannot."""

    id: int
    queue_id: str
    queue_name: str
    relayhost: str
    arrival: float
    size: int
    sender: bytes
    subject: str
    attempts: int
    next_attempt: float | None
    trouble: str
    recipients: tuple[ListedRecipient, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a message's story. `words` are from outside, not escaped; `stage` is where they were said."""

    at: float
    what: str
    address: bytes = b""
    status: str = ""
    words: bytes = b""
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A relayhost that cannot be reached. `setup`: it waits for the person, and `fix` is the step."""

    relayhost: str
    since: float
    next_dial: float
    setup: bool
    text: str
    fix: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand: messages pending and failed, the oldest pending arrival, notices not told, relayhosts in trouble.

    stranded: those of the held that nobody held: they cannot be sent as they are.
    """

    pending: int
    oldest: float | None
    held: int
    stranded: int
    failed: int
    untold: tuple[tuple[str, str, str], ...]
    """(kind, backend, why the last try failed) of backends that failed at least once."""
    troubles: tuple[Trouble, ...]


LATELY = 200
"""How many messages say who sends."""

_SELECT = (
    "SELECT m.id, m.queue_id, m.relayhost, m.arrival, m.size, m.sender, m.subject, m.attempts, m.next_attempt,"
    " coalesce(h.text, ''), h.next_dial, a.id, r.address, r.state, r.status, r.stage, r.words, r.uncertain"
    " FROM message m JOIN recipient r ON r.message = m.id"
    " LEFT JOIN attempt a ON a.message = m.id AND a.closed IS NULL"
    " LEFT JOIN relayhost h ON h.name = m.relayhost AND h.failures > 0"
)


def live(db: apsw.Connection) -> Iterator[Listed]:
    """What is pending or failed, in order of arrival."""
    return _listed(db.execute(f"{_SELECT} WHERE m.retired IS NULL ORDER BY m.id, r.id"))


def everything(db: apsw.Connection) -> Iterator[Listed]:
    """History too, in order of arrival."""
    return _listed(db.execute(f"{_SELECT} ORDER BY m.id, r.id"))


def one(db: apsw.Connection, key: int) -> Listed:
    """The message with this key."""
    return next(_listed(db.execute(f"{_SELECT} WHERE m.id = ? ORDER BY r.id", (key,))))


def _listed(rows: Iterator[tuple[Any, ...]]) -> Iterator[Listed]:
    for _, group in groupby(rows, key=itemgetter(0)):
        yield _one_listed(list(group))


def _one_listed(rows: list[tuple[Any, ...]]) -> Listed:
    of_message = rows[0][:12]
    key, queue_id, relayhost, arrival, size, sender, subject, attempts, next_attempt, trouble, dial, active = of_message
    states = {row[13] for row in rows}
    if dial is not None and next_attempt is not None and not states.isdisjoint(PENDING):
        # Nothing of this relayhost's is tried before it is dialled again.
        next_attempt = max(next_attempt, dial)
    recipients = tuple(
        ListedRecipient(address, "active" if active and state in PENDING else state, status, stage, words, uncertain)
        for address, state, status, stage, words, uncertain in (row[12:] for row in rows)
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
        trouble,
        recipients,
    )


def _queue_name(states: AbstractSet[str], *, active: bool, attempts: int) -> str:
    """Postfix's word for where a message is; `failed`, `sent` and `cancelled` are ours."""
    if active:
        return "active"
    if states & PENDING:
        return "deferred" if attempts else "incoming"
    if State.HELD in states:
        return "hold"
    if states & FAILED or states <= {State.REFUSED}:
        return "failed"
    return "sent" if State.SENT in states else "cancelled"


def story(db: apsw.Connection, key: int) -> list[Event]:
    """All that happened to a message, in order of time."""
    listed = one(db, key)
    events = [Event(listed.arrival, "accepted")]
    for attempt, opened, closed, interrupted, dialled in rows(
        db, "SELECT id, opened, closed, interrupted, dialled FROM attempt WHERE message = ? ORDER BY id", (key,)
    ):
        if dialled:
            events.append(Event(opened - dialled, f"dialled, in {dialled:.2f} s"))
        events.append(Event(opened, "attempt"))
        if interrupted:
            events.append(Event(closed, "interrupted"))
        events.extend(
            Event(closed, state, address, status, words, stage)
            for state, address, status, words, stage in rows(
                db,
                "SELECT o.state, r.address, o.status, o.words, o.stage FROM outcome o JOIN recipient r ON r.id = o.recipient"
                " WHERE o.attempt = ? ORDER BY r.id",
                (attempt,),
            )
        )
    for kind, backend, told, next_try, why in rows(
        db,
        "SELECT n.kind, backend, told, next_try, why"
        " FROM notice n JOIN notice_backend b ON b.notice = n.id WHERE n.message = ?"
        " ORDER BY told, backend",
        (key,),
    ):
        if told is not None:
            events.append(Event(told, f"notice ({kind}) told by {backend}"))
        elif why:
            events.append(Event(next_try, f"notice ({kind}) owed by {backend}, next try", words=why.encode()))
    events.extend(
        Event(changed, state, address, words=b"goes again as %s" % successor.encode() if successor else b"")
        for state, address, changed, successor in rows(
            db,
            "SELECT state, address, changed, successor FROM recipient WHERE message = ? AND state = 'cancelled'",
            (key,),
        )
    )
    # Stable: what happened at the same instant stays in the order of its cause.
    return sorted(events, key=lambda event: event.at)


def content(db: apsw.Connection, key: int) -> Iterator[bytes]:
    """A message's content, piece by piece; nothing if it is no longer kept."""
    for (data,) in db.execute("SELECT data FROM content WHERE message = ? ORDER BY seq", (key,)):
        yield data


def senders(db: apsw.Connection) -> list[tuple[bytes, bytes]]:
    """Who has sent lately, latest first: the reverse path and, where it is still kept, the beginning of the content."""
    return rows(
        db,
        "SELECT sender, coalesce(data, x'') FROM (SELECT * FROM message ORDER BY arrival DESC LIMIT ?) m"
        " LEFT JOIN content c ON c.message = m.id AND c.seq = 0 WHERE length(sender) > 0 ORDER BY arrival DESC",
        (LATELY,),
    )


def standing(db: apsw.Connection) -> Standing:
    """How things stand."""
    counts: dict[str, int] = dict(
        db.execute(f"SELECT state, count(DISTINCT message) FROM recipient WHERE state IN {IS_LIVE} GROUP BY state")
    )
    pending, oldest = row(
        db,
        "SELECT count(*), min(arrival) FROM message m WHERE retired IS NULL AND EXISTS"
        f" (SELECT 1 FROM recipient r WHERE r.message = m.id AND r.state IN {IS_PENDING})",
    )
    # What an attempt left held. What the person held later, or again, has changed since.
    (stranded,) = row(
        db,
        "SELECT count(DISTINCT r.message) FROM recipient r JOIN outcome o ON o.recipient = r.id JOIN attempt a"
        " ON a.id = o.attempt WHERE r.state = 'held' AND o.state = 'held' AND a.closed = r.changed",
    )
    untold = rows(
        db,
        "SELECT kind, backend, why FROM notice_backend JOIN notice ON notice.id = notice WHERE told IS NULL AND over IS NULL"
        " AND tries > 0 ORDER BY created LIMIT 20",
    )
    troubles = tuple(
        Trouble(name, since, next_dial, bool(setup), text, fix)
        for name, since, next_dial, setup, text, fix in rows(
            db, "SELECT name, since, next_dial, setup, text, fix FROM relayhost WHERE failures > 0 ORDER BY name"
        )
    )
    return Standing(
        pending,
        oldest,
        counts.get("held", 0),
        stranded,
        counts.get("bounced", 0) + counts.get("expired", 0),
        tuple(untold),
        troubles,
    )
