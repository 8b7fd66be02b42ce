"""Text for a terminal: colour, times, lengths of time, sizes.

Promises: colour only on a terminal, and never where NO_COLOR is set. Numbers are rounded down.
"""

import os
import time
from typing import TextIO

from mailrelay.mail.quantity import length

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "bold": 1}


def is_terminal(stream: TextIO | None) -> bool:
    """Whether `stream` is a terminal. None is a stream that was closed when the process started."""
    return stream is not None and stream.isatty()


def colour(text: str, name: str, stream: TextIO) -> str:
    """`text` in the colour `name` (red, green, yellow or bold) if `stream` is a terminal; else `text` as it is."""
    if not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def moment(at: float, now: float) -> str:
    """A time relative to now, both in epoch seconds: "in 4 min", "12 min ago", "now"."""
    if abs(at - now) < 1:
        return "now"
    return f"in {length(at - now)}" if at > now else f"{length(now - at)} ago"


def age(at: float, now: float) -> str:
    """How long ago something happened, both in epoch seconds: "12 min ago", "now". For a time after `now` it says why."""
    return moment(at, now) if at < now + 1 else "the clock was set back since"


def clock(at: float) -> str:
    """A time, in epoch seconds, as local date and time with the zone: "2026-11-28 14:03:00 +0900". As in `mailrelay log`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))
