"""Judges a line that a client sent where a command belongs: a command, a mistake, or no mail client at all.

A web page can make a browser connect to a local port, and send its request as lines: such a connection is dropped at its
first line. Pure: no I/O.
"""

import enum
import re

LAST_IN_GROUP = frozenset(
    {b"EHLO", b"HELO", b"DATA", b"VRFY", b"EXPN", b"NOOP", b"HELP", b"QUIT", b"AUTH", b"STARTTLS"}
)
"""Commands that must be the last of a pipelined group (RFC 2920 section 3.1)."""

_HTTP = frozenset({b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PRI", b"PUT", b"TRACE"})
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class Line(enum.Enum):
    """What a line is."""

    COMMAND = enum.auto()
    BAD = enum.auto()
    """A command with control characters in its line."""
    UNKNOWN = enum.auto()
    EARLY = enum.auto()
    """A command behind which the client did not wait for the reply, where it must."""
    CONTENT = enum.auto()
    """The content of a message whose DATA was refused: some clients send it all the same."""
    NOT_SMTP = enum.auto()


def judge(
    line: bytes, verb: bytes, *, is_known: bool, is_first: bool, is_followed: bool, is_data_refused: bool
) -> Line:
    """What `line` is.

    line: without its line end. verb: its first word, in capitals. is_known: `verb` is a command of ours. is_first: there was
    no command before it. is_followed: octets came behind it. is_data_refused: the last DATA was refused.
    """
    if is_known and not _CONTROL.search(line):
        return Line.EARLY if is_followed and verb in LAST_IN_GROUP else Line.COMMAND
    if is_data_refused:
        return Line.CONTENT
    if is_first or verb in _HTTP or verb.endswith(b":"):
        return Line.NOT_SMTP
    if is_followed and verb in LAST_IN_GROUP:
        return Line.EARLY
    return Line.BAD if is_known else Line.UNKNOWN
