"""Repairs what a wrong clock has written into the spool.

Beside each time at which something is due is the time at which it was set (`scheduled`; `created` of a notice). If that
lies in the future, or if the wait is longer than any schedule allows, a clock that was ahead has set it. This holds for any
step of the clock, with the daemon running or not.

A message with a send time (`mail.send_time`) waits for it until it is due: `next_attempt` equals `send_time`. If the send
time is a length of time, it is treated like other waits. If it is a time of the clock, it stays as it was given, unless the
clock was more than `ROUGHLY_RIGHT` ahead when it was set.

Promises: nothing waits for a time that only a wrong clock can have set, and no message ages because the clock is set. A
message that waits for its time waits no longer than it was to wait, and no shorter for a length of time."""

import apsw

from mailrelay.mail.send_time import MAX_WAIT
from mailrelay.spool.notice_lifecycle import REMINDERS

REPORT_DELAY = 5.0
"""Seconds, at most, from the moment at which the clock was set to the call of `clock_jumped`."""

ROUGHLY_RIGHT = 86_400.0
"""Seconds. A time of the clock that the person or a client gave while the clock was ahead by more is taken as a length."""


def cap_waits(db: apsw.Connection, longest: float, now: float) -> int:
    """Makes due what waits for a time that only a wrong clock can have set; returns the number of messages.

    Messages, dials, notices and reminders. longest: seconds of the longest wait of any schedule. A waiting message that
    seems to come from the future gets `now` as its arrival: otherwise its delay would be noticed far too late. The same
    holds for the other times from which something is counted.
    """
    db.execute(
        "UPDATE message SET next_attempt = ?1, scheduled = ?1"
        f" WHERE {_is_wrong('next_attempt')} AND next_attempt IS NOT send_time",
        (now, longest),
    )
    moved = db.changes() + _cap_send_times(db, now)
    db.execute("UPDATE message SET arrival = ?1 WHERE next_attempt IS NOT NULL AND arrival > ?1", (now,))
    db.execute("UPDATE message SET retired = ?1 WHERE retired > ?1", (now,))
    db.execute("UPDATE followed SET accepted = ?1 WHERE over IS NULL AND accepted > ?1", (now,))
    db.execute(f"UPDATE relayhost SET next_dial = ?1, scheduled = ?1 WHERE {_is_wrong('next_dial')}", (now, longest))
    db.execute("UPDATE relayhost SET since = min(since, ?1), fixed = min(fixed, ?1)", (now,))
    db.execute(
        f"UPDATE notice_backend SET next_try = ?1, scheduled = ?1 WHERE delivered IS NULL AND {_is_wrong('next_try')}",
        (now, longest),
    )
    db.execute(
        "UPDATE notice SET reminder = ?1 WHERE reminder > ?1 AND (created > ?1 OR reminder > created + ?2)",
        (now, REMINDERS[-1]),
    )
    db.execute("UPDATE notice SET created = min(created, ?1), over = min(over, ?1) WHERE message IS NULL", (now,))
    return moved


def _cap_send_times(db: apsw.Connection, now: float) -> int:
    """The same for messages that wait for their time. Returns the number of those that are due now."""
    waits = "next_attempt = send_time AND send_time > ?1"
    # Nobody can have given such a time.
    db.execute(
        "UPDATE message SET next_attempt = ?1, send_time = ?1, scheduled = ?1, by_clock = 0"
        f" WHERE {waits} AND send_time - coalesce(scheduled, ?1) > ?2",
        (now, MAX_WAIT + REPORT_DELAY),
    )
    due = db.changes()
    db.execute(
        "UPDATE message SET next_attempt = ?1 + (send_time - scheduled), send_time = ?1 + (send_time - scheduled),"
        f" scheduled = ?1 WHERE {waits} AND scheduled > ?1 + iif(by_clock, ?2, 0.0)",
        (now, ROUGHLY_RIGHT),
    )
    # Only damage makes such a row: a message that is tried before its time.
    db.execute("UPDATE message SET send_time = NULL WHERE next_attempt < send_time")
    return due


def _is_wrong(at: str) -> str:
    """The condition that a wrong clock has set the time in column `at`. ?1: now. ?2: seconds of the longest wait."""
    # Rows of formats before 5 may have no `scheduled`.
    return f"{at} > ?1 AND (scheduled > ?1 OR {at} > coalesce(scheduled, ?1) + ?2)"


def clock_jumped(db: apsw.Connection, by: float, since: float, now: float) -> None:
    """The clock was set ahead by `by` seconds (back, if negative), at most REPORT_DELAY ago.

    What the old clock has written moves with the clock: messages and delays keep their age, and waits their length.
    since: epoch seconds on the old clock, from which on it is known to have been the old clock. now: on the new clock.
    """
    # Times of the clock that the step has passed over: these messages have waited for none of it.
    db.execute(
        "UPDATE message SET next_attempt = ?1, send_time = ?1, scheduled = ?1 WHERE next_attempt = send_time AND by_clock"
        " AND send_time > ?2 AND send_time <= ?1",
        (now, now - by),
    )
    for table, origin, moving, condition in (
        ("message", "arrival", (), "retired IS NULL"),
        ("message", "retired", (), "TRUE"),
        # A time of the clock that has not come stays.
        (
            "message",
            "scheduled",
            ("next_attempt", "send_time"),
            "next_attempt = send_time AND (NOT by_clock OR send_time <= ?3)",
        ),
        ("message", "scheduled", ("next_attempt",), "next_attempt IS NOT NULL AND next_attempt IS NOT send_time"),
        ("message", "send_time", (), "retired IS NULL AND next_attempt IS NOT send_time"),
        ("followed", "accepted", (), "over IS NULL"),
        ("relayhost", "scheduled", ("next_dial",), "TRUE"),
        ("relayhost", "since", (), "TRUE"),
        ("relayhost", "fixed", (), "TRUE"),
        ("notice", "created", ("reminder",), "message IS NULL"),
        ("notice", "since", (), "message IS NULL"),
        ("notice", "over", (), "message IS NULL"),
        ("notice_backend", "scheduled", ("next_try",), "delivered IS NULL"),
    ):
        moves = ", ".join(f"{column} = {column} + ?1" for column in (origin, *moving))
        # The last part: what the new clock has written since it was set.
        db.execute(
            f"UPDATE {table} SET {moves} WHERE {condition} AND {origin} BETWEEN ?2 AND ?3"
            f" AND {origin} NOT BETWEEN ?4 AND ?5",
            (by, since, now - by, now - REPORT_DELAY, now),
        )
