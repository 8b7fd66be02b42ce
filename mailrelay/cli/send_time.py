"""The values of `sendmail --in` and `--at`: when a message is to be sent.

    --in    a number and one of s m h d w: "10m", "1.5h"
    --at    "8:00"                     the next time that the clock shows this
            "today 8:00", "tomorrow 8:00"
            "monday 9:00", "mon 9:00"  the next one; today if that is the day and the time has not passed
            "2026-12-01 08:00"         also with T between, with seconds, and with a zone (RFC 3339): "2026-12-01T08:00:00Z"

Times without a zone are local. A time that has passed is an error. A time that the clock leaves out (daylight saving time
begins) means the end of the gap; a time that it shows twice means the first one that has not passed. Upper and lower case
are the same.

Pure but for the time zone of this computer.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo

from mailrelay.grammar import SECOND, SettingsError, duration
from mailrelay.mail.send_time import MAX_WAIT, SendTime

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_AT = re.compile(
    rf"(?:(?P<day>today|tomorrow|{'|'.join(f'{day}|{day[:3]}' for day in _DAYS)}) +|(?P<date>\d{{4}}-\d\d-\d\d)(?: +|t))?"
    r"(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.\d{1,9})?)?"
    r"(?: *(?P<zone>z|[+-]\d\d:?[0-5]\d))?",
    re.ASCII,
)
_EXAMPLES = '"8:00", "tomorrow 8:00", "monday 9:00", "2026-12-01 08:00" or "2026-12-01T08:00:00Z"'
_WHOLE_WEEK = timedelta(days=7)


class BadTime(ValueError):
    """A value that is no time in the future. The text says what is wrong, and what is allowed."""


def parse_in(value: str, now: float) -> SendTime:
    """The send time for --in. now: epoch seconds. Raises BadTime."""
    try:
        seconds = duration(SECOND, MAX_WAIT, 'from "1s" to "365d"')(value)
    except SettingsError as error:
        raise BadTime(f"--in: {error}") from None
    return SendTime(now + seconds, by_clock=False)


def parse_at(value: str, now: float, zone: tzinfo | None = None) -> SendTime:
    """The send time for --at. now: epoch seconds. zone: of times without one; None: that of this computer. Raises
    BadTime."""
    found = _AT.fullmatch(value.strip().lower())
    if found is None:
        raise BadTime(f"--at: {value!r} is not a time; write {_EXAMPLES}")
    try:
        seconds = _next(found, now, zone)
    except (ValueError, OverflowError):
        raise BadTime(f"--at: {value!r} is not a time that exists; write {_EXAMPLES}") from None
    if seconds is None or seconds <= now:
        raise BadTime(f"--at: {value!r} has passed; give a time in the future")
    if seconds > now + MAX_WAIT:
        raise BadTime(f"--at: {value!r} is more than 365 days ahead")
    return SendTime(seconds, by_clock=True)


def _next(found: re.Match[str], now: float, zone: tzinfo | None) -> float | None:
    """When the time that was found comes next, epoch seconds; None if it has passed. Raises ValueError, OverflowError."""
    today = _clock(now, zone)
    at_today = today.replace(
        hour=int(found["hour"]), minute=int(found["minute"]), second=int(found["second"] or 0), microsecond=0
    )
    if found["zone"]:
        return _with_zone(found, at_today)
    if found["date"]:
        date = datetime.fromisoformat(found["date"])
        return _first_after(now, at_today.replace(year=date.year, month=date.month, day=date.day), zone)
    if found["day"] == "today":
        return _first_after(now, at_today, zone)
    if found["day"] == "tomorrow":
        return _first_after(now, at_today + timedelta(days=1), zone)
    if found["day"]:
        ahead = timedelta(days=([day[:3] for day in _DAYS].index(found["day"][:3]) - today.weekday()) % 7)
        this_week = _first_after(now, at_today + ahead, zone)
        return this_week or _first_after(now, at_today + ahead + _WHOLE_WEEK, zone)
    return _first_after(now, at_today, zone) or _first_after(now, at_today + timedelta(days=1), zone)


def _with_zone(found: re.Match[str], at_today: datetime) -> float:
    if not found["date"]:
        raise ValueError("a zone without a date")
    offset = "+00:00" if found["zone"] == "z" else found["zone"]
    whole = datetime.fromisoformat(f"{found['date']}T{at_today:%H:%M:%S}{offset}")
    return (whole - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


def _first_after(now: float, local: datetime, zone: tzinfo | None) -> float | None:
    """The first moment after `now` at which the clock shows `local`, or the end of the gap that holds it; None if it has
    passed."""
    first, second = _seconds(local, zone, fold=0), _seconds(local, zone, fold=1)
    if _clock(first, zone) != local:
        # In a gap, fold 0 uses the offset before it and gives a moment after it; fold 1 does the reverse (PEP 495).
        return moment if (moment := _end_of_gap(second, first, zone)) > now else None
    return next((moment for moment in (first, second) if moment > now), None)


def _end_of_gap(before: float, after: float, zone: tzinfo | None) -> float:
    """The first whole second at which the clock has been set forward. before, after: moments on both sides of it."""
    offset = _offset(before, zone)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(middle, zone) == offset:
            before = middle
        else:
            after = middle
    return after


def _offset(moment: float, zone: tzinfo | None) -> timedelta | None:
    return datetime.fromtimestamp(moment, UTC).astimezone(zone).utcoffset()


def _clock(moment: float, zone: tzinfo | None) -> datetime:
    """What the clock shows at a moment (epoch seconds), without its zone and fold."""
    return datetime.fromtimestamp(moment, UTC).astimezone(zone).replace(tzinfo=None, fold=0)


def _seconds(local: datetime, zone: tzinfo | None, *, fold: int) -> float:
    return local.replace(tzinfo=zone, fold=fold).timestamp()
