"""Writes a message that a program has handed in, with the recipients that are not tried (`mail.handed_in`).

The problem of such a recipient is stored as the outcome of an attempt that ended when the message arrived. So every command
that shows outcomes shows it, also after the person has dealt with the recipient.

The function runs inside the caller's transaction.
"""

from collections.abc import Sequence

import apsw

from mailrelay.mail.backends import BackendsFor
from mailrelay.mail.handed_in import Problem
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.record import Arrival, NewNotice
from mailrelay.mail.states import State
from mailrelay.spool import notice_lifecycle
from mailrelay.spool.accepting import accept
from mailrelay.spool.database import ARRIVAL, rows


def hand_in(
    db: apsw.Connection, arrival: Arrival, problems: Sequence[Problem | None], backends_for: BackendsFor, max_size: int
) -> int:
    """Writes a message, and the problems of its recipients with their notices. Returns its key.

    problems: one for each recipient of the envelope, None for a recipient that can be tried. Raises SpoolFull.
    """
    key = accept(db, arrival, max_size)
    if not any(problems):
        return key
    now = arrival.arrival
    db.execute("INSERT INTO attempt (message, node, opened, closed) VALUES (?,?,?,?)", (key, ARRIVAL, now, now))
    attempt = db.last_insert_rowid()
    groups: dict[tuple[Kind, tuple[Backend, ...]], list[int]] = {}
    found = rows(db, "SELECT id, notify FROM recipient WHERE message = ? ORDER BY id", (key,))
    for (recipient, notify), problem in zip(found, problems, strict=True):
        if problem is None:
            continue
        values = (problem.state.value, problem.status, problem.stage.value, problem.text.encode("utf-8", "replace"))
        db.execute(
            "UPDATE recipient SET state = ?, status = ?, stage = ?, description = ? WHERE id = ?", (*values, recipient)
        )
        db.execute("INSERT INTO outcome VALUES (?,?,?,?,?,?)", (attempt, recipient, *values))
        kind = Kind.HELD if problem.state is State.HELD else Kind.FAILED
        backends = backends_for(kind, arrival.envelope.sender, notify)
        if backends:
            groups.setdefault((kind, backends), []).append(recipient)
    if None not in problems:
        db.execute("UPDATE message SET next_attempt = NULL WHERE id = ?", (key,))
    for (kind, backends), recipients in groups.items():
        notice_lifecycle.add_notice(db, key, NewNotice(kind, tuple(recipients), backends), now)
    return key
