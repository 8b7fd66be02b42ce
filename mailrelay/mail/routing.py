"""Which relayhost takes a message: its reverse path against the `senders` patterns of the settings.

    user@domain      this address                  most specific
    *@domain         every address at this domain
    *@*.domain       every address below this domain, not at it; the longest such domain wins
    *                every address and the null reverse path     least specific

Letters match in either case (ASCII), in the local part too: this chooses a route out, it changes no address. Domains are
compared as written: no pattern is looked up, and U-labels and A-labels are not turned into each other.

Promises: the most specific pattern wins wherever it stands; between equals, the relayhost that comes first in the file.
Never: a route out that no pattern names. A sender that matches nothing gets None, and the caller refuses it at MAIL.
"""

import re
from collections.abc import Iterable
from typing import Protocol

_DOMAIN_NAME = r"[^\s*@.]+(?:\.[^\s*@.]+)*"
_PATTERN = rf'\*|\*@(?:\*\.)?{_DOMAIN_NAME}|(?:[^\s*@"]+|"[^\x00-\x1f\x7f]*")@{_DOMAIN_NAME}'
_ANY, _BELOW, _DOMAIN, _ADDRESS = range(4)


class Route(Protocol):
    """What is needed of a relayhost: its name, and the patterns of the senders that go this route."""

    @property
    def name(self) -> str: ...
    @property
    def senders(self) -> tuple[str, ...]: ...


def is_pattern(text: str) -> bool:
    """Whether `text` is one of the four forms above. `user@*.domain` is none of them."""
    return re.fullmatch(_PATTERN, text) is not None


def choose(sender: bytes, routes: Iterable[Route]) -> str | None:
    """The name of the relayhost for this reverse path, or None where no pattern matches.

    sender: as in the envelope, without angle brackets; b"" is the null reverse path, which only `*` matches.
    routes: the relayhosts in the order of the file.
    """
    best: tuple[int, int] | None = None
    name = None
    for route in routes:
        for pattern in route.senders:
            rank = _rank(pattern.encode().lower(), sender.lower())
            if rank is not None and (best is None or rank > best):
                best, name = rank, route.name
    return name


def _rank(pattern: bytes, sender: bytes) -> tuple[int, int] | None:
    """How specific a match is, greater for more; None where there is no match. Both are in lower case."""
    if pattern == b"*":
        return _ANY, 0
    if pattern == sender:
        return _ADDRESS, 0
    _, at, domain = sender.rpartition(b"@")
    if not at:
        return None
    if pattern.startswith(b"*@*."):
        below = pattern[3:]
        return (_BELOW, len(below)) if domain.endswith(below) and domain != below else None
    return (_DOMAIN, 0) if pattern == b"*@" + domain else None
