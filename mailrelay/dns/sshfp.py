"""Host keys that a domain publishes in the DNS (SSHFP, RFC 4255), held against the one on offer. Pure.

Only records that were validated by DNSSEC say anything: others can be put there by whoever puts a false host there.
"""

import enum
import re
from collections.abc import Mapping

from mailrelay.dns.answer import LookUp

_RECORD = re.compile(r"(\d{1,3}) (\d{1,3}) ([0-9a-fA-F ]+)")


class Word(enum.StrEnum):
    """What a domain's records say of a key."""

    NONE = "none"
    """None is published, or none for this kind of key."""
    SAME = "same"
    OTHER = "other"
    """A key of this kind is published, and it is another one."""
    UNSECURED = "unsecured"
    """Records are there, but nobody has validated them: they count for nothing."""


async def compare(look_up: LookUp, host: str, algorithm: int, digests: Mapping[int, bytes]) -> Word:
    """What the DNS says of a key of `host`. algorithm: its number in SSHFP, 0 for none. digests: of the key, by their type
    (1 is SHA-1, 2 SHA-256). Where there is a SHA-256 the others are not looked at. Raises Unanswered."""
    answer = await look_up(host, "SSHFP")
    published: dict[int, set[bytes]] = {}
    for value in answer.values:
        found = _RECORD.fullmatch(value)
        if found and int(found[1]) == algorithm and int(found[2]) in digests:
            published.setdefault(int(found[2]), set()).add(_octets(found[3]))
    if not published:
        return Word.NONE
    if not answer.secure:
        return Word.UNSECURED
    best = max(published)
    return Word.SAME if digests[best] in published[best] else Word.OTHER


def _octets(text: str) -> bytes:
    digits = text.replace(" ", "")
    return bytes.fromhex(digits) if len(digits) % 2 == 0 else b""
