"""Encodes content for sending: dots doubled for DATA, unchanged for BDAT, line ends checked for both.

Promises: however the content is split into chunks, the output holds no CR without LF and no LF without CR, and with DATA no
line with a dot alone except the last. A mail server may take a bare LF as a line end; then a content could end early, and
its rest would be read as commands.
Never: a repair. `BareNewline` is raised before a wrong octet is in the output.
"""


class BareNewline(ValueError):
    """The content has a CR without LF, or an LF without CR."""

    def __init__(self) -> None:
        super().__init__("the content has a line end that is not CR LF")


class LineEnds:
    """Returns content unchanged after checking its line ends: the encoding for BDAT (RFC 3030).

    The last octet, or the last CR LF, is held back until `end`. The mail server accepts the message with the last octet of a
    BDAT, so this octet must not be sent before the whole content has been checked.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """The octets to send next, for the next octets of the content. Raises BareNewline."""
        octets = self._held + chunk
        self._held = b"\r\n" if octets.endswith(b"\r\n") else octets[-1:]
        octets = octets.removesuffix(self._held)
        if not octets.count(b"\r\n") == octets.count(b"\r") == octets.count(b"\n"):
            raise BareNewline
        return octets

    def end(self) -> bytes:
        """The last octets to send. Raises BareNewline."""
        if self._held in (b"\r", b"\n"):
            raise BareNewline
        return self._held


class Stuffer:
    """Doubles the dots that begin a line, and ends with a dot alone: the encoding for DATA (RFC 5321 section 4.5.2)."""

    def __init__(self) -> None:
        self._line_ends = LineEnds()
        self._at_line_start = True

    def feed(self, chunk: bytes) -> bytes:
        """The octets to send next, for the next octets of the content. Raises BareNewline."""
        return self._stuffed(self._line_ends.feed(chunk))

    def end(self) -> bytes:
        """The last octets and the final dot, with a CR LF before it if the last line has none. Raises BareNewline."""
        last = self._stuffed(self._line_ends.end())
        return last + (b".\r\n" if self._at_line_start else b"\r\n.\r\n")

    def _stuffed(self, octets: bytes) -> bytes:
        if not octets:
            return b""
        stuffed = octets.replace(b"\r\n.", b"\r\n..")
        if self._at_line_start and octets.startswith(b"."):
            stuffed = b"." + stuffed
        self._at_line_start = octets.endswith(b"\n")
        return stuffed
