"""The messages that have replaced a message: what `queue resend` and `queue edit` left as its newest form.

The person may give an old id to a command: from a notice, a log line or the reply to a mail client.
"""

import apsw

from mailrelay.mail.lifecycle import ACT_TABLE, ENDS_BOUNCE, PENDING, Act, State
from mailrelay.mail.spool_errors import NotAllowed
from mailrelay.spool.database import rows
from mailrelay.spool.verdicts import BOUNCED, SUCCESSOR

_RECIPIENTS = "recipient r JOIN message m ON m.id = r.message LEFT JOIN followed f ON f.recipient = r.id"


def successors(db: apsw.Connection, queue_id: str) -> list[str]:
    """The ids of the newest messages that stand for this one; [] if it was not replaced.

    Several, if its recipients were replaced at different times. A message whose recipients were all
    replaced is not in the list; the messages that replaced it are.
    """
    found: list[str] = []
    new = seen = _replacements(db, queue_id)
    while new:
        following = []
        for one in new:
            later = _replacements(db, one)
            if not later or _is_needed(db, one):
                found.append(one)
            following += later
        new = [one for one in dict.fromkeys(following) if one not in seen]
        seen = [*seen, *new]
    return found


def not_allowed(db: apsw.Connection, queue_id: str, command: str, why: str) -> NotAllowed:
    """The error, to be raised by the caller, for a command that is not possible on a message.

    It says that the message was replaced, and by which; else `why`. command: of `mailrelay queue`. The text names it only
    with the id of a message whose state allows it.
    """
    new = successors(db, queue_id)
    if not new:
        return NotAllowed(why)
    usable = next((one for one in new if _allows(db, one, command)), "")
    next_step = (
        f"use that id: `mailrelay queue {command} {usable}`" if usable else f"see `mailrelay queue show {new[0]}`"
    )
    return NotAllowed(f"{queue_id} was replaced by {' and '.join(new)}; {next_step}")


def _allows(db: apsw.Connection, queue_id: str, command: str) -> bool:
    """Whether the state of a message allows a command of `mailrelay queue`."""
    sql = "SELECT DISTINCT state FROM recipient r JOIN message m ON m.id = r.message WHERE queue_id = ?"
    found = [State(state) for (state,) in rows(db, sql, (queue_id,))]
    if command not in list(Act):
        return not PENDING.isdisjoint(found)
    if any((state, Act(command)) in ACT_TABLE for state in found):
        return True
    sql = (
        "SELECT 1 FROM recipient r JOIN message m ON m.id = r.message JOIN followed f ON f.recipient = r.id"
        f" WHERE queue_id = ? AND {BOUNCED}"
    )
    return command in ENDS_BOUNCE and bool(rows(db, sql, (queue_id,)))


def _replacements(db: apsw.Connection, queue_id: str) -> list[str]:
    """The ids of the messages that replaced this one directly, the oldest replacement first."""
    found = rows(
        db,
        f"SELECT {SUCCESSOR} FROM {_RECIPIENTS} WHERE queue_id = ? ORDER BY coalesce(f.dealt_with, r.changed), r.id",
        (queue_id,),
    )
    return list(dict.fromkeys(successor for (successor,) in found if successor))


def _is_needed(db: apsw.Connection, queue_id: str) -> bool:
    """Whether the message has a recipient that is neither cancelled nor replaced."""
    sql = f"SELECT 1 FROM {_RECIPIENTS} WHERE queue_id = ? AND r.state <> 'cancelled' AND {SUCCESSOR} = ''"
    return bool(rows(db, sql, (queue_id,)))
