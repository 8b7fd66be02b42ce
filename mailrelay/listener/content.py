"""Receives the content of a message, as the octets come in after DATA (RFC 5321 sections 4.1.1.4 and 4.5.2).

Promises: the end of the content is CRLF.CRLF and nothing else; what is accepted holds no CR without LF, no LF without CR
and no NUL, and is otherwise the client's, octet for octet, with the dots of transparency removed. Content that is
refused is read to its end and given up, so that the client reads the reply and not a broken connection.

Decisions:
- A bare CR or LF is refused (550 5.6.11) and not mended: two servers that disagree about where a line ends disagree
  about where a message ends. With one of them in the content, the first lone dot between any two line ends may be what
  the client takes for the end: there the reply is given, and `ambiguous` says that the connection cannot go on.
- Lines may be of any length that the message may have. RFC 5321 section 4.5.3.1.6 guarantees 998 octets; whether a longer
  one is right is for the remote to say, and the person hears it.
- The size is counted without the dots of transparency.

Pure: no I/O. Every pass over the octets is a search or a count of the interpreter's own.
"""

import re

from mailrelay.listener import replies
from mailrelay.mail.outcome import Reply

_CRLF = b"\r\n"
_END = b"\r\n.\r\n"
_ANY_END = re.compile(rb"[\r\n]\.[\r\n]")


class ContentReceiver:
    """One content on its way in.

    refusal: why it will not be taken; None as long as nothing speaks against it.
    ambiguous: whether the end that was seen may not be the one that the client means.
    """

    def __init__(self, size_limit: int) -> None:
        """size_limit: octets that the content may have."""
        self.refusal: Reply | None = None
        self.ambiguous = False
        self._size_limit = size_limit
        # As if the line end of the DATA command were part of it, so that the first line is a line like any other.
        self._buffer = bytearray(_CRLF)
        self._crlf = self._cr = self._lf = 1
        self._size = self._stuffed = 0

    @property
    def held(self) -> int:
        """Octets in memory."""
        return len(self._buffer)

    def refuse(self, reply: Reply) -> None:
        """Do not take this content, whatever else comes; the first reason stays."""
        self.refusal = self.refusal or reply
        self._forget()

    def feed(self, data: bytes) -> bytes | None:
        """Take more octets. None: the end has not been seen. Otherwise: what came behind the end."""
        known = len(self._buffer)
        self._buffer += data
        if not self.ambiguous:
            end = self._buffer.find(_END, max(0, known - len(_END) + 1))
            stop = len(self._buffer) if end < 0 else end + len(_END)
            self._count(known, stop)
            if not self.ambiguous:
                if end < 0:
                    if self.refusal is not None:
                        self._forget()
                    return None
                leftover = bytes(self._buffer[stop:])
                del self._buffer[end + len(_CRLF) :]
                if b"\0" in self._buffer:
                    self.refuse(replies.NUL_IN_CONTENT)
                return leftover
        # A lone dot that ends with the CR on which the last octets ended came into doubt only now.
        if _ANY_END.search(self._buffer, max(0, known - 3)):
            return b""
        self._forget()
        return None

    def content(self) -> bytes:
        """The content, once `feed` has seen its end and if there is no `refusal`. To be asked for once."""
        buffer, self._buffer = self._buffer, bytearray()
        # The end has one of its own.
        if self._stuffed > 1:
            buffer = buffer.replace(b"\r\n.", _CRLF)
        return bytes(memoryview(buffer)[len(_CRLF) :])

    def _count(self, known: int, stop: int) -> None:
        """Look at the octets from `known` to `stop`, which are new."""
        new = self._buffer
        self._crlf += new.count(_CRLF, known - 1, stop)
        self._cr += new.count(b"\r", known, stop)
        self._lf += new.count(b"\n", known, stop)
        stuffed = new.count(b"\r\n.", known - 2, stop)
        self._stuffed += stuffed
        self._size += stop - known - stuffed
        pending_cr = new.endswith(b"\r", 0, stop)
        if self._lf != self._crlf or self._cr != self._crlf + pending_cr:
            self.ambiguous = True
            self.refusal = self.refusal or replies.BARE_LINE_END
        # The dot of a complete end is gone from the size already, its line end is not.
        elif self._size > self._size_limit + len(_CRLF):
            self.refuse(replies.TOO_BIG)

    def _forget(self) -> None:
        """Keep only what finds an end that is cut in two."""
        del self._buffer[: -len(_END) + 1]
