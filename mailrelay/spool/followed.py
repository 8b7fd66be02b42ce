"""The recipients that are followed on the relayhost after they were sent, and what was found of them there.

    begin(db, message, recipient, now)         in the commit that makes the recipient `sent`
    followed(db, relayhost)                    those that the relayhost is to be asked about
    found(db, found, backends_for, now)        what its answer has shown
    want_retry, retry_told, retry_there        the person wants the mail server there to try again
    deal_with(db, message, now, successor)     the person has dealt with bounces there
    end_old(db, now, limit)                    nobody has asked for too long

Promises: a verdict and the notice that it causes are one commit. A message that has bounced there is not retired before the
person has dealt with it (`retiring`).
Never: the state of a recipient changes, which is `sent`.
"""

from collections.abc import Sequence
from dataclasses import replace

import apsw

from mailrelay.mail.backends import BackendsFor
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.record import NewNotice
from mailrelay.mail.there import MAX_WORDS, RetryThere, There, Verdict
from mailrelay.spool.database import as_text, row, rows
from mailrelay.spool.notice_lifecycle import add_notice
from mailrelay.spool.retiring import update_retirement
from mailrelay.spool.verdicts import BOUNCED, VERDICT, verdict
from mailrelay.tracking.followed import Followed, Found
from mailrelay.tracking.schedule import LIFETIME

LONGEST = LIFETIME + 86_400.0
"""Seconds after the mail server's reply for which a recipient is followed, at most, also if nobody asks."""
NOBODY_ASKED = b"the server was not asked about it"

_OF_MESSAGE = "recipient IN (SELECT id FROM recipient WHERE message = ?)"


def begin(db: apsw.Connection, message: int, recipient: int, now: float) -> None:
    """The mail server has accepted a message for this recipient, which is followed from now on."""
    db.execute(
        "INSERT OR IGNORE INTO followed (recipient, relayhost, accepted, changed)"
        " SELECT ?1, relayhost, ?2, ?2 FROM message WHERE id = ?3",
        (recipient, now, message),
    )


def followed(db: apsw.Connection, relayhost: str) -> list[Followed]:
    """The recipients that were sent by `relayhost` and are still followed, the latest accepted first."""
    return [
        Followed(
            recipient,
            message,
            as_text(queue_id),
            address,
            sender,
            envid,
            reply,
            accepted,
            verdict(*columns),
            is_retry_wanted=retry_wanted is not None,
            is_successor=bool(is_successor),
        )
        for (
            recipient,
            message,
            queue_id,
            address,
            sender,
            envid,
            reply,
            accepted,
            retry_wanted,
            is_successor,
            *columns,
        ) in rows(
            db,
            "SELECT r.id, m.id, CAST(m.queue_id AS BLOB), r.address, m.sender, m.envid, r.description, f.accepted,"
            " f.retry_wanted, m.queue_id IN (SELECT successor FROM followed WHERE successor <> ''),"
            f" {VERDICT}"
            " FROM followed f JOIN recipient r ON r.id = f.recipient JOIN message m ON m.id = r.message"
            " WHERE f.over IS NULL AND f.relayhost = ? ORDER BY f.accepted DESC, r.id DESC",
            (relayhost,),
        )
    ]


def found(db: apsw.Connection, found: Sequence[Found], backends_for: BackendsFor, now: float) -> bool:
    """Writes verdicts, and one notice for each message with recipients that have bounced there.

    Returns whether a notice became pending, or mail may be delayed there (`notice_lifecycle.update_delays`).

    After a bounce no other verdict is written, and none after the person has dealt with it. Repeating a verdict changes
    nothing.
    """
    changed: dict[int, None] = {}
    bounced: dict[int, list[int]] = {}
    concerns_notices = False
    for one in found:
        before = rows(
            db,
            f"SELECT r.message, f.over, f.dealt_with, f.is_blind, {VERDICT} FROM followed f"
            " JOIN recipient r ON r.id = f.recipient WHERE f.recipient = ?",
            (one.recipient,),
        )
        for message, over, dealt_with, was_blind, *columns in before:
            old = verdict(*columns)
            new = _bounded(one.verdict)
            if dealt_with is not None or (old.state is There.BOUNCED and new.state is not There.BOUNCED):
                new = old
            ends = one.is_over and over is None
            if new == old and not ends and was_blind == one.is_blind:
                continue
            _write(db, replace(one, verdict=new, is_over=ends), now, is_new=new.state is not old.state)
            changed[message] = None
            if new.state is There.BOUNCED and old.state is not There.BOUNCED:
                bounced.setdefault(message, []).append(one.recipient)
            concerns_notices |= new.state is There.DEFERRED and old.state is not There.DEFERRED
    for message, recipients in bounced.items():
        concerns_notices |= _add_notices(db, message, recipients, backends_for, now)
    for message in changed:
        update_retirement(db, message, now)
    return concerns_notices


def _bounded(verdict: Verdict) -> Verdict:
    return verdict._replace(words=verdict.words[:MAX_WORDS], by=verdict.by[:MAX_WORDS])


def _write(db: apsw.Connection, found: Found, now: float, *, is_new: bool) -> None:
    """found.is_over: nobody asks from now on. is_new: the state is another one than before."""
    verdict = found.verdict
    db.execute(
        "UPDATE followed SET state = ?1, source = ?2, words = ?3, said_by = ?4, since = ?5, is_blind = ?10,"
        " changed = iif(?6, ?7, changed), over = iif(?8, ?7, over) WHERE recipient = ?9",
        (
            verdict.state.value,
            verdict.source.value,
            verdict.words,
            verdict.by,
            verdict.since,
            is_new,
            now,
            found.is_over,
            found.recipient,
            found.is_blind,
        ),
    )


def _add_notices(
    db: apsw.Connection, message: int, recipients: Sequence[int], backends_for: BackendsFor, now: float
) -> bool:
    """Makes a notice about recipients that have bounced there pending. Returns whether it has a backend."""
    (sender,) = row(db, "SELECT sender FROM message WHERE id = ?", (message,))
    groups: dict[tuple[Backend, ...], list[int]] = {}
    for recipient in recipients:
        (notify,) = row(db, "SELECT notify FROM recipient WHERE id = ?", (recipient,))
        # The server there reports to the reverse path itself.
        backends: tuple[Backend, ...] = tuple(
            one for one in backends_for(Kind.FAILED, sender, notify) if one is not Backend.DSN
        )
        if backends:
            groups.setdefault(backends, []).append(recipient)
    for backends, keys in groups.items():
        add_notice(db, message, NewNotice(Kind.FAILED, tuple(keys), backends), now)
    return bool(groups)


def want_retry(db: apsw.Connection, message: int, now: float) -> bool:
    """The person wants the mail server there to try a message again at once. Returns whether it has recipients that are
    still in the queue there, as far as is known."""
    db.execute(
        "UPDATE followed SET retry_wanted = ?, retry_text = '' WHERE state IN ('waiting', 'deferred') AND over IS NULL"
        f" AND {_OF_MESSAGE}",
        (now, message),
    )
    return db.changes() > 0


def is_retry_wanted(db: apsw.Connection, relayhost: str) -> bool:
    """Whether the mail server of `relayhost` is to be told to try messages again."""
    sql = "SELECT 1 FROM followed WHERE retry_wanted IS NOT NULL AND over IS NULL AND relayhost = ?"
    return bool(rows(db, sql, (relayhost,)))


def retry_told(db: apsw.Connection, messages: Sequence[int], text: str) -> None:
    """The mail server was told to try these messages again, or why not."""
    db.executemany(
        f"UPDATE followed SET retry_wanted = NULL, retry_text = ? WHERE retry_wanted IS NOT NULL AND {_OF_MESSAGE}",
        ((text, message) for message in messages),
    )


def retry_there(db: apsw.Connection, message: int) -> RetryThere | None:
    """What became of the last wish that the mail server there try a message again; None if nobody had it."""
    found = rows(
        db,
        "SELECT retry_wanted IS NOT NULL, retry_text FROM followed"
        f" WHERE (retry_wanted IS NOT NULL OR retry_text <> '') AND {_OF_MESSAGE} ORDER BY 1 DESC",
        (message,),
    )
    return RetryThere(bool(found[0][0]), found[0][1]) if found else None


def bounced_there(db: apsw.Connection, message: int) -> list[int]:
    """The recipients of a message that have bounced there, and that the person has not dealt with."""
    sql = f"SELECT f.recipient FROM followed f WHERE {BOUNCED} AND {_OF_MESSAGE}"
    return [recipient for (recipient,) in rows(db, sql, (message,))]


def deal_with(db: apsw.Connection, message: int, now: float, successor: str = "") -> int:
    """The person has dealt with the recipients of a message that have bounced there. Returns their number.

    successor: the queue id of the message that replaces it for them, "" if none does.
    """
    db.execute(
        f"UPDATE followed AS f SET dealt_with = ?, over = coalesce(over, ?), successor = ? WHERE {BOUNCED}"
        f" AND {_OF_MESSAGE}",
        (now, now, successor, message),
    )
    return db.changes()


def end_old(db: apsw.Connection, now: float, limit: int) -> None:
    """Ends the following of at most `limit` recipients that are followed for too long: their relayhost is not asked any
    more."""
    found = rows(
        db,
        "SELECT f.recipient, r.message FROM followed f JOIN recipient r ON r.id = f.recipient"
        " WHERE f.over IS NULL AND f.accepted < ? LIMIT ?",
        (now - LONGEST, limit),
    )
    for recipient, message in found:
        db.execute("UPDATE followed SET over = ? WHERE recipient = ?", (now, recipient))
        db.execute(
            "UPDATE followed SET state = 'not followed', words = ? WHERE recipient = ? AND state = 'waiting'"
            " AND source = ''",
            (NOBODY_ASKED, recipient),
        )
        update_retirement(db, message, now)
