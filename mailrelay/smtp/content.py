"""Content as it goes over the wire: dots doubled for DATA, untouched for BDAT, and line ends checked for both.

Promises: whatever the split into chunks, the octets that come out hold no CR without LF and no LF without CR, and with
DATA no line that is a dot alone but the last. A remote may trust mail from its own localhost enough to take a bare LF
for a line end, and then content could end early and go on as commands.
Never: a repair. What is not expressible is refused with `BareNewline`, before a wrong octet is out.
"""


class BareNewline(ValueError):
    """The content has a CR without LF, or an LF without CR."""

    def __init__(self) -> None:
        super().__init__("the content has a line end that is not CR LF")


class LineEnds:
    """Passes content on unchanged, once its line ends are known to be whole: what BDAT needs (RFC 3030).

    The last octet, or the last CR LF, is held back until the end: a remote has a message with the last octet of its BDAT,
    and must not have one that may yet turn out to be no whole message here.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """The next octets. Raises BareNewline."""
        octets = self._held + chunk
        self._held = b"\r\n" if octets.endswith(b"\r\n") else octets[-1:]
        octets = octets.removesuffix(self._held)
        if not octets.count(b"\r\n") == octets.count(b"\r") == octets.count(b"\n"):
            raise BareNewline
        return octets

    def end(self) -> bytes:
        """The last octets. Raises BareNewline."""
        if self._held in (b"\r", b"\n"):
            raise BareNewline
        return self._held


class Stuffer:
    """Doubles the dots that begin a line, and ends with a dot alone: what DATA needs (RFC 5321 section 4.5.2)."""

    def __init__(self) -> None:
        self._line_ends = LineEnds()
        self._at_line_start = True

    def feed(self, chunk: bytes) -> bytes:
        """The next octets. Raises BareNewline."""
        return self._stuffed(self._line_ends.feed(chunk))

    def end(self) -> bytes:
        """The last octets and the final dot, with the CR LF that a last line without one needs. Raises BareNewline."""
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
