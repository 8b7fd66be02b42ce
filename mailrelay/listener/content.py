"""Receives the content of a message from the octets after DATA (RFC 5321 sections 4.1.1.4 and 4.5.2).

Promises: the end of the content is CRLF.CRLF and nothing else. An accepted content holds no CR without LF, no LF without CR
and no NUL; otherwise it is what the client sent, octet for octet, with the dots of transparency removed. A refused content
is read to its end and dropped, so that the client can read the reply. With `take`, the caller can remove octets while the
content is received, so that a large content is never whole in memory.

Decisions:
- A bare CR or LF is refused (550 5.6.11) and not corrected: two servers that disagree about where a line ends disagree
  about where a message ends. After a bare CR or LF, the first lone dot between any two line ends is taken as the end: the
  reply is sent there, and `ambiguous` means that the connection must be closed.
- Lines may be as long as the message. RFC 5321 section 4.5.3.1.6 guarantees 998 octets; the mail server decides about
  longer ones, and the person gets its refusal.
- The size is counted without the dots of transparency.

Pure: no I/O. Every pass over the octets is a built-in search or count of the interpreter.
"""

import re

from mailrelay.listener import replies
from mailrelay.mail.outcome import Reply
from mailrelay.mail.trace import MAX_HEADER

_CRLF = b"\r\n"
_LINE_WITH_DOT = b"\r\n."
"""The start of a line that begins with a dot: a dot of transparency, or the dot of the end."""
_END = b"\r\n.\r\n"
_ANY_END = re.compile(rb"[\r\n]\.[\r\n]")
"""What another server might take for the end."""
BLOCK = 16 * 1024
"""Octets that are checked at once, at most: each check copies them."""
_TAIL = len(_END) - 1
"""Octets that always stay in the buffer, to find an end that is received in parts."""
MAX_KEPT = _TAIL + len(_CRLF) + len(_CRLF)
"""Upper bound of the octets that stay in the buffer after `take` without a limit: the tail, a line end before it, and the
line end of the DATA command."""


class ContentReceiver:
    """Receives one content.

    refusal: the reply if the content is refused, else None.
    ambiguous: the content has a bare CR or LF, so the end that is found may not be the client's end.
    received: octets up to the end, kept or dropped.
    """

    def __init__(self, size_limit: int) -> None:
        """size_limit: octets that the content may have."""
        self.refusal: Reply | None = None
        self.ambiguous = False
        self.received = 0
        self._size_limit = size_limit
        # Begins with the line end of the DATA command, so that the first line is like any other.
        self._buffer = bytearray(_CRLF)
        self._has_pending_cr = False
        self._size = self._stuffed = 0
        # Octets of the buffer that are not content: that line end, until the first `take`.
        self._prefix_size = len(_CRLF)

    @property
    def held(self) -> int:
        """Octets in memory."""
        return len(self._buffer)

    @property
    def header_size(self) -> int | None:
        """Octets of the buffer up to the end of the header; of a header longer than MAX_HEADER (`mail.trace`), those that
        hold its first MAX_HEADER octets. None before they are received. Valid before the first `take`."""
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEADER)
        if end >= 0:
            return end + 4
        return MAX_HEADER + self._stuffed if self._size > MAX_HEADER else None

    def refuse(self, reply: Reply) -> None:
        """Refuse this content with `reply` and drop its octets. If it was refused before, the first refusal stays."""
        self.refusal = self.refusal or reply
        self._drop_octets()

    def feed(self, data: bytes) -> bytes | None:
        """Receive more octets. Returns None before the end is found, then the octets after the end; b"" if the content is
        `ambiguous`."""
        self.received += len(data)
        known = len(self._buffer)
        self._buffer += data
        if not self.ambiguous:
            dots = self._buffer.count(_LINE_WITH_DOT, max(0, known - 2))
            end = self._find_end(known, dots)
            stop = len(self._buffer) if end < 0 else end + len(_END)
            stuffed = dots if stop == len(self._buffer) else self._buffer.count(_LINE_WITH_DOT, max(0, known - 2), stop)
            self._stuffed += stuffed
            self._size += stop - known - stuffed
            for start in range(known, stop, BLOCK):
                self._check(start, min(start + BLOCK, stop))
            if not self.ambiguous:
                leftover = None
                if end >= 0:
                    self._stuffed -= 1
                    leftover = bytes(self._buffer[stop:])
                    self.received -= len(leftover)
                    del self._buffer[end + len(_CRLF) :]
                if self.refusal is not None:
                    self._drop_octets()
                return leftover
        # From known - 3 on: the octets before may have ended with a lone dot and a CR, which now is an end.
        if _ANY_END.search(self._buffer, max(0, known - 3)):
            return b""
        self._drop_octets()
        return None

    def take(self, limit: int) -> bytes:
        """Remove content from the buffer and return it; b"" if there is none yet. The last octets, MAX_KEPT at most, stay.
        Must not be called after a `refusal`.

        limit: octets removed at most, counted with the dots of transparency.
        """
        cut = min(len(self._buffer) - _TAIL, limit)
        # A line end stays with what follows: the next octet may be a dot of transparency.
        if self._buffer.endswith(_CRLF, 0, cut):
            cut -= 2
        elif self._buffer.endswith(b"\r", 0, cut):
            cut -= 1
        if cut <= self._prefix_size:
            return b""
        taken = self._clean(cut)
        del self._buffer[:cut]
        self._prefix_size = 0
        return taken

    def content(self) -> bytes:
        """The content that was not taken. To be called once, after `feed` has found the end, and not after a `refusal`."""
        content = self._clean(len(self._buffer))
        self._buffer = bytearray()
        return content

    def _clean(self, stop: int) -> bytes:
        """The octets of the buffer up to `stop`, without the dots of transparency and without the line end of DATA."""
        if self._stuffed:
            return bytes(memoryview(self._buffer[:stop].replace(_LINE_WITH_DOT, _CRLF))[self._prefix_size :])
        return bytes(memoryview(self._buffer)[self._prefix_size : stop])

    def _find_end(self, known: int, dots: int) -> int:
        """The index of the end in the buffer, -1 if it has not been received. known: octets of the buffer that were searched
        before. dots: lines in the others that begin with a dot."""
        buffer = self._buffer
        if not buffer.endswith((_LINE_WITH_DOT, _LINE_WITH_DOT + b"\r"), 0, known):
            # Usually no line begins with a dot, or only the last one. A search would take as long as the count did.
            if dots == 0:
                return -1
            if dots == 1 and buffer.endswith(_END):
                return len(buffer) - len(_END)
        return buffer.find(_END, max(0, known - _TAIL))

    def _check(self, known: int, stop: int) -> None:
        """Check the octets from `known` to `stop` for bare line ends, NUL and the size. Sets `refusal` and `ambiguous`."""
        new = self._buffer
        # A CR at the end is checked with the next octets: it may become a CRLF.
        start = known - self._has_pending_cr
        self._has_pending_cr = new.endswith(b"\r", start, stop)
        # With the CRLFs removed, any remaining CR or LF is a bare one.
        lines = b"".join(new[start : stop - self._has_pending_cr].split(_CRLF))
        if b"\r" in lines or b"\n" in lines:
            self.ambiguous = True
            self.refusal = self.refusal or replies.BARE_LINE_END
        # `_size` counts the CRLF of the end, but not its dot.
        elif self._size > self._size_limit + len(_CRLF):
            self.refusal = self.refusal or replies.too_big(self._size_limit)
        elif b"\0" in lines:
            self.refusal = self.refusal or replies.NUL_IN_CONTENT

    def _drop_octets(self) -> None:
        """Keep only the octets needed to find an end that is received in parts."""
        del self._buffer[:-_TAIL]
