"""Finds the greeting of a mail server in the output of a command, behind what a login shell prints before it.

A line of a shell may look like a reply ("427 packages can be updated."). So only a greeting at the end of the output counts:
the mail server says nothing behind it before EHLO. How long the output must be quiet until it is believed depends on how
unlikely it is that a shell printed the line. Shells end lines with LF, mail servers with CR LF.
"""

import re
from dataclasses import dataclass

_REPLY = re.compile(rb"(220|[45]\d\d)(?:([ -]).*)?", re.DOTALL)
REFUSAL_QUIET = 2.0
"""Seconds for which the output must be quiet behind a 4xx or 5xx, or behind a 220 whose line ends with LF only."""
SHELL_QUIET = 20.0
"""The same for a 4xx or 5xx whose line ends with LF only."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What may be a greeting. start: its first octet in the output. quiet: seconds without output until it is believed."""

    start: int
    quiet: float


def find_greeting(output: bytes, *, is_complete: bool = False) -> Greeting | None:
    """The greeting at the end of `output`, None if there is none yet.

    is_complete: the command has ended. Then a refusal need not be at the end: a program that has lost its connection may
    print a line behind it.
    """
    found: Greeting | None = None
    refusal: Greeting | None = None
    # The code and the start of a reply whose last line has not come.
    begun: tuple[bytes, int] | None = None
    start = 0
    for line in _lines(output):
        reply = _REPLY.fullmatch(line.rstrip(b"\r\n"))
        found = None
        if reply is None or not line.endswith(b"\n"):
            begun = None
        else:
            code, first = reply[1], begun[1] if begun is not None and begun[0] == reply[1] else start
            begun = (code, first) if reply[2] == b"-" else None
            if begun is None:
                found = Greeting(first, _quiet(code, line))
                refusal = found if code != b"220" and line.endswith(b"\r\n") else refusal
        start += len(line)
    return found or (refusal if is_complete else None)


def _lines(output: bytes) -> list[bytes]:
    """The lines with their LF; the last one may have none."""
    return re.findall(rb"[^\n]*\n|[^\n]+", output)


def _quiet(code: bytes, line: bytes) -> float:
    is_of_server = line.endswith(b"\r\n")
    if code == b"220":
        return 0.0 if is_of_server else REFUSAL_QUIET
    return REFUSAL_QUIET if is_of_server else SHELL_QUIET
