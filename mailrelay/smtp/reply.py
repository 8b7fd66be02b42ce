"""Parses replies of the mail server (RFC 5321 section 4.2), however the octets arrive.

Promises: the parser is lenient where this is harmless (a bare LF ends a line, a code may have no text) and strict elsewhere.
Its memory is bounded: it raises `MalformedReply` for a line above MAX_LINE or a reply above MAX_REPLY.
Never: a reply from an incomplete line, or a code guessed from text.
"""

import re
from collections.abc import Iterator

from mailrelay.mail.outcome import Reply
from mailrelay.mail.printable import printable

MAX_LINE = 2048
"""Octets in a line, without its end. RFC 5321 section 4.5.3.1.5 allows 512; some servers send more."""
MAX_LINES = 128
"""Lines of a reply."""
MAX_REPLY = 64 * 1024
"""Octets in all lines of a reply, without their ends."""

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)


class MalformedReply(ValueError):
    """The octets are not an SMTP reply. The text is one sentence, with a short, escaped excerpt."""


class ReplyParser:
    """Returns the replies in a stream of octets. Must not be used after it has raised: the octets after a malformed reply
    cannot be trusted."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._code = b""
        self._lines: list[bytes] = []
        self._octets = 0

    @property
    def is_within_reply(self) -> bool:
        """Whether the last reply is not complete."""
        return bool(self._partial or self._lines)

    def feed(self, data: bytes) -> Iterator[Reply]:
        """The replies that `data` completes, in order. Raises MalformedReply after the replies before the malformed one."""
        self._partial += data
        start = 0
        while (end := self._partial.find(b"\n", start)) >= 0:
            line = bytes(self._partial[start:end]).removesuffix(b"\r")
            start = end + 1
            reply = self._add(line)
            if reply is not None:
                yield reply
        del self._partial[:start]
        # One more octet may be the CR of an incomplete line end.
        if len(self._partial) > MAX_LINE + 1:
            raise MalformedReply(f"the mail server sent a line of more than {MAX_LINE} octets")

    def _add(self, line: bytes) -> Reply | None:
        if len(line) > MAX_LINE:
            raise MalformedReply(f"the mail server sent a line of more than {MAX_LINE} octets")
        found = _LINE.fullmatch(line)
        if found is None:
            raise MalformedReply(f'the mail server said "{printable(line, 60)}", which is not an SMTP reply')
        code, separator, text = found[1], found[2], found[3] or b""
        if self._lines and code != self._code:
            raise MalformedReply(
                f"the mail server sent a reply with two codes, {self._code.decode()} and {code.decode()}"
            )
        self._code = code
        self._lines.append(text)
        self._octets += len(line)
        if len(self._lines) > MAX_LINES or self._octets > MAX_REPLY:
            raise MalformedReply(f"the mail server sent a reply of more than {MAX_LINES} lines or {MAX_REPLY} octets")
        if separator == b"-":
            return None
        lines = tuple(self._lines) if any(self._lines) else ()
        self._lines.clear()
        self._octets = 0
        return Reply(int(code), lines)
