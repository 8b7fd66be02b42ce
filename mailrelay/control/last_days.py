"""The last days as the log shows them: how much mail was sent, late and failed, and when relayhosts could be reached.

It reads the log and not the history, because the history does not keep all messages of these days.
"""

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import pairwise
from pathlib import Path

from mailrelay.control.log_file import epoch_minute, open_files, whole_lines

DAYS = 7
"""Days that are counted, with today."""
_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d):(\d\d)([+-]\d{4}) [A-Z]+ (.*)")
_RECIPIENT = re.compile(r"\w+ to=<.*?> relay=\S+ delay=([0-9.e+]+) delays=\S+ dsn=\S+ status=(\w+)")
_THERE = re.compile(r"\w+ to=<.*?> relay=\S+ there=bounced ")
_RELAYHOST = re.compile(r"relay=(\S+) (connected in|closed|lost the connection|unusable|usable again)")
_FAILED = ("bounced", "expired", "refused")


@dataclass(slots=True)
class Day:
    """One local day: numbers of recipients. start, end: midnight, epoch seconds. late: those of `sent` that were sent
    late."""

    start: float
    end: float
    sent: int = 0
    late: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Period:
    """A time in which a relayhost was connected (`is_connected`), or could not be reached. start, end: epoch seconds."""

    relayhost: str
    is_connected: bool
    start: float
    end: float


@dataclass(slots=True)
class LastDays:
    """days: oldest first, today last. periods: in order of their start."""

    days: list[Day]
    periods: list[Period] = field(default_factory=list)


def read_last_days(directory: Path, now: float, late_after: float) -> LastDays:
    """The last DAYS days. now: epoch seconds. late_after: seconds; mail that took longer was sent late.

    Without a log all numbers are 0. Raises OSError.
    """
    found = LastDays(_days(now))
    with open_files(directory) as files:
        _count(found, _lines(files, found.days[0].start), now, late_after)
    return found


def _lines(files: Iterable[BufferedReader], since: float) -> Iterator[tuple[float, str]]:
    """The lines of the log from `since` on, each with its time. Epoch seconds."""
    for file in files:
        for line in whole_lines(file):
            if (found := _LINE.fullmatch(line)) is not None:
                minute = epoch_minute(found[1], found[3])
                if minute is not None and minute + 60 > since:
                    yield minute + int(found[2]), found[4]


def _count(last: LastDays, lines: Iterable[tuple[float, str]], now: float, late_after: float) -> None:
    """Adds the lines to the numbers and the periods."""
    # By relayhost: whether it is connected or could not be reached, and since when.
    current: dict[str, tuple[bool, float]] = {}
    for at, text in lines:
        if not last.days[0].start <= at <= now + 60:
            continue
        if (found := _RELAYHOST.match(text)) is not None:
            _end_or_begin_period(last, current, found[1], found[2], at)
        elif (found := _RECIPIENT.match(text)) is not None:
            day = _day_of(last, at)
            if found[2] == "sent":
                day.sent += 1
                day.late += _number(found[1]) > late_after
            elif found[2] in _FAILED:
                day.failed += 1
        elif _THERE.match(text):
            _day_of(last, at).failed += 1
    last.periods += [Period(name, is_connected, start, now) for name, (is_connected, start) in current.items()]
    last.periods.sort(key=lambda period: period.start)


def _end_or_begin_period(
    last: LastDays, current: dict[str, tuple[bool, float]], name: str, event: str, at: float
) -> None:
    """Ends the current period of a relayhost and begins the next one, as the event of a line says."""
    is_failing = event == "unusable"
    if (before := current.get(name)) is not None:
        was_connected, start = before
        # A relayhost that is still unusable after another attempt has one long period.
        if was_connected or not is_failing:
            last.periods.append(Period(name, was_connected, start, at))
            del current[name]
    if is_failing:
        current.setdefault(name, (False, at))
    elif event in ("connected in", "usable again"):
        current[name] = (True, at)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _day_of(last: LastDays, at: float) -> Day:
    return next((day for day in last.days if day.start <= at < day.end), last.days[-1])


def _days(now: float) -> list[Day]:
    """Local days: one may have 23 or 25 hours."""
    today = time.localtime(now)
    starts = [
        time.mktime((today.tm_year, today.tm_mon, today.tm_mday - back, 0, 0, 0, 0, 0, -1))
        for back in range(DAYS - 1, -2, -1)
    ]
    return [Day(start, end) for start, end in pairwise(starts)]
