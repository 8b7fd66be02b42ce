"""The option `--since`: how long ago ("2h", "3d"), or a date and time.

90m  2h  1.5d  1w                    a duration before now, written as in the settings
2026-11-28  "2026-11-28 14:03"       local time; midnight if only the date is given
"2026-11-28 14:03:00 +0900"          a time with its offset from UTC, as `queue show` and `log` print it
today  yesterday                     local midnight at the beginning of that day
14:03                                that time of today
"""

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import click

from mailrelay.grammar import DURATIONS, WEEK, SettingsError, duration

Command = TypeVar("Command", bound=Callable[..., Any])
"""The function of a command, which an option decorates."""

_FORMS = 'a duration such as "2h" or "3d", or a time such as "2026-11-28", "2026-11-28 14:03", "yesterday" or "14:03"'

_seconds_of = duration(0, 5200 * WEEK, "")
"""Reads a duration of at most about a century; returns seconds. Raises SettingsError."""


def moment_of(word: str, now: float) -> float:
    """The time that the value of `--since` means, epoch seconds. now: epoch seconds. Raises ValueError."""
    word = " ".join(word.split())
    if re.fullmatch(rf"[0-9.]+({'|'.join(DURATIONS)})", word):
        try:
            return now - _seconds_of(word)
        except SettingsError:
            raise ValueError(word) from None
    try:
        today = datetime.fromtimestamp(now).astimezone().replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
        if word in ("today", "yesterday"):
            at = today - timedelta(days=word == "yesterday")
        elif re.fullmatch(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", word):
            # fromisoformat wants two digits for the hour.
            at = datetime.fromisoformat(f"{today:%Y-%m-%d}T{word:0>{8 if word.count(':') > 1 else 5}}")
        elif re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", word):
            # `queue show` prints a blank before the offset, which fromisoformat does not read.
            at = datetime.fromisoformat(re.sub(r" (?=[+-][0-9]{4}$)", "", word))
        else:
            raise ValueError(word)
        return at.timestamp()
    except OverflowError:
        raise ValueError(word) from None


def _read(_context: click.Context, _option: click.Parameter, word: str | None) -> float | None:
    if word is None:
        return None
    try:
        return moment_of(word, time.time())
    except ValueError:
        raise click.BadParameter(f"{word!r} is no time; give {_FORMS}", param_hint="--since") from None


def since_option(what: str) -> Callable[[Command], Command]:
    """Adds the option, whose value is epoch seconds or None. what: the beginning of its help text."""
    return click.option("--since", metavar="TIME", callback=_read, help=f"{what}: such as 2h, 3d or 2026-11-28.")
