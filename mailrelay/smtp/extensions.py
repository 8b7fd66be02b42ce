"""The extensions that a mail server offers in its reply to EHLO (RFC 5321 section 4.1.1.1), as far as they are used here."""

import dataclasses
import enum
from collections.abc import Collection
from dataclasses import dataclass

from mailrelay.mail.outcome import Reply


class Extension(enum.StrEnum):
    """An extension that a session can do without. The values are the fields of `Extensions`."""

    PIPELINING = "pipelining"
    CHUNKING = "chunking"
    EIGHTBITMIME = "eightbitmime"
    SMTPUTF8 = "smtputf8"
    DSN = "dsn"
    SIZE = "size"


@dataclass(frozen=True, slots=True)
class Extensions:
    """The extensions offered. size: the limit in octets (RFC 1870): 0 if SIZE names none, None if it is not offered."""

    pipelining: bool = False
    chunking: bool = False
    eightbitmime: bool = False
    smtputf8: bool = False
    dsn: bool = False
    enhancedstatuscodes: bool = False
    size: int | None = None

    @property
    def uses_bdat(self) -> bool:
        """Whether content is sent with BDAT: without PIPELINING it saves no round trip."""
        return self.chunking and self.pipelining

    def without(self, unusable: Collection[Extension]) -> "Extensions":
        """These extensions, except for those that are not to be used."""
        kept = dataclasses.asdict(self) | {one.value: None if one is Extension.SIZE else False for one in unusable}
        return Extensions(**kept)


def extensions(reply: Reply) -> Extensions:
    """The extensions in a 2xx reply to EHLO. Its first line is a greeting; unknown and malformed lines are ignored."""
    offers: dict[bytes, bytes] = {}
    for line in reply.lines[1:]:
        keyword, _, parameters = line.strip().partition(b" ")
        offers[keyword.upper()] = parameters.strip()
    limit = offers.get(b"SIZE")
    return Extensions(
        pipelining=b"PIPELINING" in offers,
        chunking=b"CHUNKING" in offers,
        eightbitmime=b"8BITMIME" in offers,
        smtputf8=b"SMTPUTF8" in offers,
        dsn=b"DSN" in offers,
        enhancedstatuscodes=b"ENHANCEDSTATUSCODES" in offers,
        # RFC 1870 section 4: at most 20 digits.
        size=None if limit is None else int(limit) if limit.isdigit() and len(limit) <= 20 else 0,
    )
