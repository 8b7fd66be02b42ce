"""Pending notices: the notifier reads them, and marks them as delivered, for each backend by itself.

A notice stays pending for a backend until the backend has delivered it, unless the person has dealt with its recipients
(`actions.act`), or its setup fault or delay is over, or the backend cannot exist on this computer.
"""

import apsw

from mailrelay.mail.notice import Backend, Concerned, Kind, Notice, PendingNotice
from mailrelay.mail.record import Arrival
from mailrelay.mail.spool_errors import Damaged
from mailrelay.spool.accepting import accept
from mailrelay.spool.correspondents import suggestion
from mailrelay.spool.database import as_text, row, rows
from mailrelay.spool.stored import content, load_message
from mailrelay.spool.verdicts import VERDICT, verdict

BATCH = 50
"""Notices that are read for one backend at once, at most."""
SUGGESTIONS = 5
"""Recipients of a notice for which a similar address is looked up, at most: a typing error concerns few of them."""
_IS_PENDING = "b.delivered IS NULL AND notice.over IS NULL"


def pending_notices(db: apsw.Connection, now: float) -> list[PendingNotice]:
    """The notices whose backend is due for a try at `now`, the longest due first.

    At most `BATCH` for each backend, so that a backend that fails does not keep the others from being found.
    """
    due = sorted(
        found
        for backend in Backend
        for found in rows(
            db,
            "SELECT b.next_try, notice.id, b.backend, b.tries"
            " FROM notice_backend b JOIN notice ON notice.id = b.notice"
            f" WHERE {_IS_PENDING} AND b.backend = ? AND b.next_try <= ? ORDER BY b.next_try, notice.id LIMIT ?",
            (backend.value, now, BATCH),
        )
    )
    notices: dict[int, Notice] = {}
    for _, key, _, _ in due:
        if key not in notices:
            notices[key] = _notice(db, key)
    return [PendingNotice(notices[key], Backend(backend), tries) for _, key, backend, tries in due]


def next_notice_due(db: apsw.Connection) -> float | None:
    """When the next backend is due for a try (epoch seconds); None if no notice is pending."""
    return min(
        (
            at
            for backend in Backend
            for (at,) in rows(
                db,
                f"SELECT b.next_try FROM notice_backend b JOIN notice ON notice.id = b.notice WHERE {_IS_PENDING}"
                " AND b.backend = ? ORDER BY b.next_try LIMIT 1",
                (backend.value,),
            )
        ),
        default=None,
    )


def _notice(db: apsw.Connection, key: int) -> Notice:
    kind, relayhost, created, text, fix, since, waiting, repeats, cause, message = row(
        db,
        "SELECT kind, relayhost, created, text, fix, since, waiting, repeats, cause, message FROM notice WHERE id = ?",
        (key,),
    )
    if message is None:
        fault = rows(db, "SELECT stand_in FROM relayhost WHERE name = ? AND failures > 0", (relayhost,))
        stand_in = fault[0][0] if fault else ""
        return Notice(
            key, Kind(kind), relayhost, created, text, fix, since, waiting, repeats, cause=cause, stand_in=stand_in
        )
    queue_id, sender, subject, arrival, size, smtputf8, ret, envid, fallback_for, owner = row(
        db,
        "SELECT CAST(queue_id AS BLOB), sender, CAST(subject AS BLOB), arrival, size, smtputf8, CAST(ret AS BLOB), envid,"
        " CAST(fallback_for AS BLOB), owner FROM message WHERE id = ?",
        (message,),
    )
    # The report goes to the sender. Whom other accounts write to is not for an account other than root.
    suggests = kind == Kind.FAILED and not owner
    concerned = tuple(
        Concerned(
            address,
            state,
            status,
            description,
            stage,
            bool(remote),
            uncertain is not None,
            notify,
            orcpt,
            suggestion(db, address, stage) if suggests and place < SUGGESTIONS else b"",
            accepted or 0.0,
            verdict(*columns) if accepted is not None else None,
        )
        for place, (
            address,
            state,
            status,
            description,
            stage,
            remote,
            uncertain,
            notify,
            orcpt,
            accepted,
            *columns,
        ) in (
            enumerate(
                rows(
                    db,
                    "SELECT r.address, r.state, r.status, r.description, r.stage, r.remote, r.uncertain, r.notify, r.orcpt,"
                    f" f.accepted, {VERDICT} FROM notice_recipient n JOIN recipient r ON r.id = n.recipient"
                    " LEFT JOIN followed f ON f.recipient = r.id WHERE n.notice = ? ORDER BY r.id",
                    (key,),
                )
            )
        )
    )
    return Notice(
        key,
        Kind(kind),
        relayhost,
        created,
        text,
        fix,
        since,
        waiting,
        repeats,
        message,
        as_text(queue_id),
        sender,
        as_text(subject),
        arrival,
        size,
        bool(smtputf8),
        ret,
        envid,
        concerned,
        load_message(db, message, ()).envelope.is_damaged,
        cause,
        bool(rows(db, "SELECT 1 FROM content WHERE message = ? LIMIT 1", (message,))),
        fallback_for=as_text(fallback_for),
    )


def notice_delivered(db: apsw.Connection, pending: PendingNotice, now: float) -> None:
    """A backend has delivered its notice."""
    db.execute(
        "UPDATE notice_backend SET delivered = ?, why = '' WHERE notice = ? AND backend = ?",
        (now, pending.notice.id, pending.backend.value),
    )


def notice_failed(db: apsw.Connection, pending: PendingNotice, next_try: float, why: str, now: float) -> None:
    """A backend failed: the notice stays pending, and is due again at `next_try`."""
    db.execute(
        "UPDATE notice_backend SET tries = tries + 1, next_try = ?, scheduled = ?, why = ? WHERE notice = ? AND backend = ?",
        (next_try, now, why, pending.notice.id, pending.backend.value),
    )


def notice_dropped(db: apsw.Connection, pending: PendingNotice) -> None:
    """A backend will never deliver its notice: the notice is not pending for it any more."""
    db.execute(
        "DELETE FROM notice_backend WHERE notice = ? AND backend = ? AND delivered IS NULL",
        (pending.notice.id, pending.backend.value),
    )


def content_start(db: apsw.Connection, message: int, limit: int) -> bytes:
    """The first `limit` octets of the content of a message, fewer if it is shorter; b"" if it is gone or damaged."""
    found = bytearray()
    try:
        for data in content(db, message):
            found += data[: limit - len(found)]
            if len(found) >= limit:
                break
    except Damaged:
        return b""
    return bytes(found)


def accept_report(db: apsw.Connection, pending: PendingNotice, arrival: Arrival, max_size: int, now: float) -> None:
    """Accepts a DSN and marks its notice as delivered. The caller commits both at once, so no DSN is lost or sent twice."""
    accept(db, arrival, max_size)
    notice_delivered(db, pending, now)
