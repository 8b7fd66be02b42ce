"""Messages that are over: no recipient is open or failed any more, or has bounced on the relayhost without the person having
dealt with it.

The content of such a message is kept while one of its recipients is followed (`followed`) and a bounce could be seen of
it, or was refused.
"""

from typing import NamedTuple

import apsw

from mailrelay.mail.lifecycle import FAILED, OPEN, State
from mailrelay.spool.database import row, states
from mailrelay.spool.verdicts import BOUNCED

_OVER = states(set(State) - OPEN - FAILED)


class _Followed(NamedTuple):
    """Whether recipients of a message are followed, and whether some have bounced there and need the person."""

    is_followed: bool
    has_bounced: bool


def retire(db: apsw.Connection, message: int, now: float) -> None:
    """Marks a message as retired if it is over, and deletes its content if nothing keeps it.

    A refused message keeps its content for a while: the person may want to correct and resend it (`actions.purge`).
    """
    live, refused = _states(db, message)
    # Two queries: a join of both tables takes several times as long, and most messages are live.
    if live or (there := _there(db, message)).has_bounced:
        return
    db.execute("UPDATE message SET retired = ?, next_attempt = NULL WHERE id = ?", (now, message))
    if not refused and not there.is_followed:
        _delete_content(db, message)


def update_retirement(db: apsw.Connection, message: int, now: float) -> None:
    """The same after something was found out about recipients that are followed: a message that has bounced there is not
    over any more."""
    live, refused = _states(db, message)
    there = _there(db, message)
    if live or there.has_bounced:
        db.execute("UPDATE message SET retired = NULL WHERE id = ? AND retired IS NOT NULL", (message,))
        return
    db.execute("UPDATE message SET retired = ? WHERE id = ? AND retired IS NULL", (now, message))
    if not refused and not there.is_followed:
        _delete_content(db, message)


def _delete_content(db: apsw.Connection, message: int) -> None:
    db.execute("DELETE FROM content WHERE message = ?", (message,))


def _states(db: apsw.Connection, message: int) -> tuple[int, int]:
    """How many recipients are open or failed, and how many were refused."""
    live, refused = row(
        db,
        # A state that does not exist comes from damage: it may hide a recipient that waits.
        f"SELECT coalesce(sum(state NOT IN {_OVER}), 0), coalesce(sum(state = 'refused'), 0)"
        " FROM recipient WHERE message = ?",
        (message,),
    )
    return live, refused


def _there(db: apsw.Connection, message: int) -> _Followed:
    followed, bounced = row(
        db,
        f"SELECT coalesce(sum(over IS NULL AND NOT is_blind), 0), coalesce(sum({BOUNCED}), 0) FROM followed f"
        " WHERE recipient IN (SELECT id FROM recipient WHERE message = ?)",
        (message,),
    )
    return _Followed(bool(followed), bool(bounced))
