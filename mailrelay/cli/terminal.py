"""What a person reads in a terminal: lengths of time, sizes, and a little colour.

Promises: colour only on a terminal, and never where NO_COLOR is set. Numbers are rounded down: nothing seems older, nearer
or larger than it is.
"""

import os
import time
from typing import TextIO

from mailrelay.mail.quantity import size as size

_LENGTHS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_COLOURS = {"red": 31, "green": 32, "yellow": 33, "bold": 1}


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at `stream`, which is None where somebody called us with it closed."""
    return stream is not None and stream.isatty()


def colour(text: str, name: str, stream: TextIO) -> str:
    """`text` in red, green, yellow or bold, if `stream` can show it."""
    if not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def length(seconds: float) -> str:
    """A length of time in its largest unit: "4 min"."""
    for unit, name in _LENGTHS:
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return "0 s"


def moment(at: float, now: float) -> str:
    """A moment as seen from now, both in epoch seconds: "in 4 min", "12 min ago", "now"."""
    if abs(at - now) < 1:
        return "now"
    return f"in {length(at - now)}" if at > now else f"{length(now - at)} ago"


def clock(at: float) -> str:
    """A moment, in epoch seconds, as the clock on this machine's wall shows it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
