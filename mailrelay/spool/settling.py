"""Writes the outcomes of an attempt, read during the attempt (`attempts`) or later (`exchanges`)."""

import apsw

from mailrelay.mail.lifecycle import State
from mailrelay.mail.record import Record
from mailrelay.spool import followed
from mailrelay.spool.correspondents import remember


def settle(db: apsw.Connection, attempt: int, end: Record, ended: float) -> None:
    """Writes the new states of recipients, and the outcomes of the attempt for them, in place of earlier ones. Those that
    were sent are followed from the end of the attempt on, if they are to be. ended: when that was, epoch seconds."""
    for one in end.settled:
        outcome = one.outcome
        values = (one.state.value, one.status, outcome.stage.value, outcome.description)
        db.execute(
            "UPDATE recipient SET state = ?, status = ?, stage = ?, description = ?, remote = ?, changed = ?,"
            " uncertain = coalesce(uncertain, iif(?, ?, NULL)) WHERE id = ?",
            (*values, int(outcome.reply is not None), end.now, one.uncertain, end.now, one.recipient),
        )
        db.execute("INSERT OR REPLACE INTO outcome VALUES (?,?,?,?,?,?)", (attempt, one.recipient, *values))
        if one.state is State.SENT:
            address: bytes = db.execute("SELECT address FROM recipient WHERE id = ?", (one.recipient,)).get
            remember(db, address, end.now)
            if end.is_followed:
                followed.begin(db, end.message, one.recipient, ended)
