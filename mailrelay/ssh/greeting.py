"""Finds the greeting of a mail server in the output of a command. A login shell may have printed text before it.

A line of a shell may look like a reply ("427 packages can be updated."). So only a greeting at the end of the output counts:
the mail server sends nothing more before EHLO. The less certain it is that the line comes from the mail server, the longer
the output must be quiet before the line counts. Shells end lines with LF, mail servers with CR LF. What a shell prints may
end without a newline, as the title of a terminal does; then the greeting does not begin its line.
"""

import re
from dataclasses import dataclass

# ECMA-48: control sequences, and strings such as the title of a terminal.
_ESCAPES = (
    rb"(?:\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]P^_X][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-Z\\^-~]|[\x00-\x09\x0b-\x1a])*"
)
_REPLY = re.compile(rb"%b((?:220|[45]\d\d))(?:([ -]).*)?" % _ESCAPES, re.DOTALL)
_BEHIND_TEXT = re.compile(rb".*[^\d.](220)([ -]).*", re.DOTALL)
SHORT_QUIET = 2.0
"""Seconds for which the output must be quiet behind a 4xx or 5xx, behind a 220 whose line ends with LF only, or behind one
that does not begin its line."""
LONG_QUIET = 20.0
"""The same for a 4xx or 5xx whose line ends with LF only, and for a 220 behind which there is other output."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What may be a greeting. start, end: its place in the output. quiet: seconds without output after which it counts."""

    start: int
    end: int
    quiet: float


def find_greeting(output: bytes, *, is_complete: bool = False) -> Greeting | None:
    """The greeting at the end of `output`, or a 220 before its end; None if there is none yet.

    is_complete: the command has ended. Then a refusal need not be at the end, and a 220 must be: a program that has lost its
    connection may print a line behind it.
    """
    found: Greeting | None = None
    refusal: Greeting | None = None
    # A 220 behind which there is other output.
    passed: Greeting | None = None
    # The code and the start of a reply whose last line has not come.
    begun: tuple[bytes, int] | None = None
    start = 0
    for line in _lines(output):
        end = start + len(line)
        text = line.rstrip(b"\r\n")
        is_of_server = line.endswith(b"\r\n")
        reply = _REPLY.fullmatch(text)
        is_behind_text = reply is None
        if reply is None and is_of_server:
            reply = _BEHIND_TEXT.fullmatch(text)
        found = None
        if reply is None or not line.endswith(b"\n"):
            begun = None
        else:
            code = reply[1]
            first = begun[1] if begun is not None and begun[0] == code else start + reply.start(1)
            begun = (code, first) if reply[2] == b"-" else None
            if begun is None:
                quiet = _quiet(code, is_certain=is_of_server and not is_behind_text)
                found = Greeting(first, end, quiet)
                if is_of_server and code == b"220":
                    passed = Greeting(first, end, LONG_QUIET)
                elif is_of_server:
                    refusal = found
        start = end
    return found or (refusal if is_complete else passed)


def _lines(output: bytes) -> list[bytes]:
    """The lines with their LF; the last one may have none."""
    return re.findall(rb"[^\n]*\n|[^\n]+", output)


def _quiet(code: bytes, *, is_certain: bool) -> float:
    """Seconds without output after which a line counts. is_certain: the line begins with the code and ends with CR LF."""
    if code == b"220":
        return 0.0 if is_certain else SHORT_QUIET
    return SHORT_QUIET if is_certain else LONG_QUIET
