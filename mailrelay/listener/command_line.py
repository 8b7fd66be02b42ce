"""Checks a line that a client sent in place of a command: a command, an error, or another protocol than SMTP.

A web page can make a browser connect to a local port and send an HTTP request as lines. Such a connection is dropped at
its first line. Pure: no I/O.
"""

import enum
import re

LAST_IN_GROUP = frozenset(
    {b"EHLO", b"HELO", b"DATA", b"VRFY", b"EXPN", b"NOOP", b"HELP", b"QUIT", b"AUTH", b"STARTTLS"}
)
"""Commands that must be the last of a pipelined group (RFC 2920 section 3.1)."""

_HTTP = frozenset({b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PRI", b"PUT", b"TRACE"})
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class LineError(enum.Enum):
    """Why a line is not run as a command."""

    BAD = enum.auto()
    """A command with control characters in its line."""
    UNKNOWN = enum.auto()
    EARLY = enum.auto()
    """The client sent more before the reply to a command after which it must wait."""
    CONTENT = enum.auto()
    """The content of a message whose DATA was refused: some clients send it nevertheless."""
    NOT_SMTP = enum.auto()


def check_line(line: bytes, verb: bytes, is_known: bool, is_followed: bool) -> LineError | None:
    """The error of a line by itself; None if it is a command.

    line: without its line end. verb: its first word, in capitals. is_known: the listener has a command `verb`. is_followed:
    octets were received behind the line.
    """
    if is_followed and verb in LAST_IN_GROUP:
        return LineError.EARLY
    if not is_known:
        return LineError.UNKNOWN
    return LineError.BAD if _CONTROL.search(line) else None


def check_in_session(verb: bytes, error: LineError, is_first: bool, is_data_refused: bool) -> LineError:
    """What an error of a line means in its session.

    is_first: there was no command before. is_data_refused: the last DATA was refused.
    """
    if error is not LineError.EARLY:
        if is_data_refused:
            return LineError.CONTENT
        if is_first or verb in _HTTP or verb.endswith(b":"):
            return LineError.NOT_SMTP
    return error
