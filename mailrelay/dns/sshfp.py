"""Compares an offered host key with the keys that a domain publishes in the DNS (SSHFP, RFC 4255). Pure.

Only records that were validated by DNSSEC count: an attacker who impersonates a host can forge the others.
"""

import enum
import re
from collections.abc import Mapping

from mailrelay.dns.lookup import LookUp

_RECORD = re.compile(r"(\d{1,3}) (\d{1,3}) ([0-9a-fA-F ]+)")


class Match(enum.StrEnum):
    """The result of comparing a key with a domain's records."""

    NONE = "none"
    """No key is published, or none of this type."""
    SAME = "same"
    OTHER = "other"
    """Another key of this type is published."""
    UNSECURED = "unsecured"
    """Records exist, but they were not validated by DNSSEC: they do not count."""


async def compare(look_up: LookUp, host: str, algorithm: int, digests: Mapping[int, bytes]) -> Match:
    """Compares a key of `host` with the records of the domain. algorithm: its number in SSHFP, 0 for none. digests: of the
    key, by their type (1 is SHA-1, 2 SHA-256). If a SHA-256 is published, the SHA-1 is ignored. Raises LookUpFailed."""
    records = await look_up(host, "SSHFP")
    published: dict[int, set[bytes]] = {}
    for value in records.values:
        found = _RECORD.fullmatch(value)
        if found and int(found[1]) == algorithm and int(found[2]) in digests:
            published.setdefault(int(found[2]), set()).add(_octets(found[3]))
    if not published:
        return Match.NONE
    if not records.secure:
        return Match.UNSECURED
    best = max(published)
    return Match.SAME if digests[best] in published[best] else Match.OTHER


def _octets(text: str) -> bytes:
    digits = text.replace(" ", "")
    return bytes.fromhex(digits) if len(digits) % 2 == 0 else b""
