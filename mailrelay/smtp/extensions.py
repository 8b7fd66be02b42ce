"""The extensions that a mail server offers in its reply to EHLO (RFC 5321 section 4.1.1.1), as far as they are used here."""

from dataclasses import dataclass

from mailrelay.mail.outcome import Reply


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
