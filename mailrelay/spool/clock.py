"""Repairs what a wrong clock has written into the spool.

Promises: nothing waits for a time that only a wrong clock can have set, and no message ages because the clock is set.
"""

import apsw

from mailrelay.spool.notice_lifecycle import REMINDERS


def cap_waits(db: apsw.Connection, longest: float, now: float) -> int:
    """Makes due whatever waits for longer than `longest` seconds from `now`; returns the number of messages.

    Messages, dials, notices and reminders. A waiting message that seems to come from the future gets `now` as its arrival:
    otherwise its delay would be noticed far too late.
    """
    db.execute("UPDATE message SET next_attempt = ? WHERE next_attempt > ?", (now, now + longest))
    moved = db.changes()
    db.execute("UPDATE message SET arrival = ?1 WHERE next_attempt IS NOT NULL AND arrival > ?2", (now, now + longest))
    db.execute("UPDATE relayhost SET next_dial = ? WHERE next_dial > ?", (now, now + longest))
    db.execute("UPDATE notice_backend SET next_try = ? WHERE delivered IS NULL AND next_try > ?", (now, now + longest))
    db.execute("UPDATE notice SET reminder = ? WHERE reminder > ?", (now, now + REMINDERS[-1]))
    return moved


def clock_jumped(db: apsw.Connection, by: float, since: float, now: float) -> None:
    """The clock was set ahead by `by` seconds (back, if negative): messages that came in by the old clock keep their age.

    since: epoch seconds on the old clock, from which on it is known to have been the old clock. now: on the new clock.
    """
    db.execute(
        "UPDATE message SET arrival = arrival + ?1 WHERE retired IS NULL AND arrival BETWEEN ?2 AND ?3",
        (by, since, now - by),
    )
