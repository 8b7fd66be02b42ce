"""Text for a terminal: lines as wide as the terminal, colour, times.

Promises: colour only on a terminal, and never where NO_COLOR is set. Lengths of time are rounded down. Text is wrapped on a
terminal, and elsewhere only where COLUMNS is set: a program that reads a pipe finds each fact on one line.
"""

import os
import sys
import time
from typing import TextIO

from mailrelay.cli.wrapping import wrap
from mailrelay.mail.quantity import length

_COLOURS = {
    "red": "31",
    "green": "32",
    "yellow": "33",
    "magenta": "35",
    "cyan": "36",
    "bold": "1",
    "bold red": "1;31",
    "dim": "2",
}
MAX_DIGITS = 6
"""Digits of COLUMNS; a number with more is no width."""


def is_terminal(stream: TextIO | None) -> bool:
    """Whether `stream` is a terminal. None is a stream that was closed when the process started."""
    return stream is not None and stream.isatty()


def line_width(stream: TextIO | None) -> int:
    """The columns in which text for `stream` is wrapped: COLUMNS, else the width of the terminal. 0: text is not
    wrapped, because there is no terminal or its width is not known."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and len(given) <= MAX_DIGITS and int(given) > 0:
        return int(given)
    if stream is None or not is_terminal(stream):
        return 0
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0


def wrapped(line: str, stream: TextIO, hang: int | None = None, spare: int = 0) -> list[str]:
    """The lines of printable text as they are printed on `stream` (`wrapping.wrap`). spare: columns that they leave free."""
    width = max(line_width(stream) - spare, 0)
    if width and not line.isascii():
        # With the escapes for characters that its encoding lacks, which take more columns.
        encoding = stream.encoding or "utf-8"
        line = line.encode(encoding, "backslashreplace").decode(encoding)
    return wrap(line, width, hang)


def put(*lines: str, stream: TextIO | None = None, hang: int | None = None) -> None:
    """Prints lines of printable text, each wrapped at the width that `stream` (stdout without it) has at that moment."""
    stream = stream or sys.stdout
    # stdout was closed when the process started.
    if stream is None:
        return
    for line in lines:
        print("\n".join(wrapped(line, stream, hang)), file=stream)
    stream.flush()


def colour(text: str, name: str, stream: TextIO) -> str:
    """`text` in the colour `name`, a key of `_COLOURS`, if `stream` is a terminal; else `text` as it is."""
    if not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def moment(at: float, now: float) -> str:
    """A time relative to now, both in epoch seconds: "in 4 min", "12 min ago", "now"."""
    if abs(at - now) < 1:
        return "now"
    return f"in {length(at - now)}" if at > now else f"{length(now - at)} ago"


def age(at: float, now: float) -> str:
    """How long ago something happened, both in epoch seconds: "12 min ago", "now"; for a time after `now`, "the clock was
    set back since"."""
    return moment(at, now) if at < now + 1 else "the clock was set back since"


def clock(at: float) -> str:
    """A time, in epoch seconds, as local date and time with the zone: "2026-11-28 14:03:00 +0900". As in `mailrelay log`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))
