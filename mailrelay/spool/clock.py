"""What a clock that was wrong has written into the spool, and how that is put right.

Promises: nothing waits for a time that only a wrong clock could have meant, and no mail grows old by the setting of a clock.
"""

import apsw

from mailrelay.spool.notice_lifecycle import REMINDERS


def set_right(db: apsw.Connection, now: float, longest: float) -> int:
    """Makes due what a clock that was ahead has put further off than `longest` seconds; returns how many messages.

    Mail and notices alike; and what seems to come from the future has come in now, or it could not be late for long.
    """
    db.execute("UPDATE message SET next_attempt = ? WHERE next_attempt > ?", (now, now + longest))
    moved = db.changes()
    db.execute("UPDATE message SET arrival = ?1 WHERE next_attempt IS NOT NULL AND arrival > ?2", (now, now + longest))
    db.execute("UPDATE relayhost SET next_dial = ? WHERE next_dial > ?", (now, now + longest))
    db.execute("UPDATE notice_backend SET next_try = ? WHERE told IS NULL AND next_try > ?", (now, now + longest))
    db.execute("UPDATE notice SET reminder = ? WHERE reminder > ?", (now, now + REMINDERS[-1]))
    return moved


def leapt(db: apsw.Connection, by: float, since: float, now: float) -> None:
    """The clock was set ahead by `by` seconds (back, if negative): what came in by the clock of before keeps its age.

    since, now: epoch seconds; from when on the clock of before was trusted, and what the new one shows.
    """
    db.execute(
        "UPDATE message SET arrival = arrival + ?1 WHERE retired IS NULL AND arrival BETWEEN ?2 AND ?3",
        (by, since, now - by),
    )
