"""Chooses the relayhost of a message: matches its reverse path with the `senders` patterns of the settings.

    user@domain      this address                  most specific
    *@domain         every address at this domain
    *@*.domain       every address below this domain, not at it; the longest such domain wins
    *                every address and the null reverse path     least specific

The case of letters is ignored (ASCII), in the local part too: the match chooses a relayhost, and changes no address. Domains
are compared as written, but for a dot at the end: without DNS, and without conversion between U-labels and A-labels.

Promises: the most specific pattern wins, wherever it is in the file; between equal ones, the first relayhost in the file.
Never: a relayhost that no pattern matches. For a sender without a match the result is None, and the caller refuses the mail.
"""

import re
from collections.abc import Iterable
from typing import Protocol

_DOMAIN_NAME = r"[^\s*@.]+(?:\.[^\s*@.]+)*"
_PATTERN = rf'\*|\*@(?:\*\.)?{_DOMAIN_NAME}|(?:[^\s*@"]+|"[^\x00-\x1f\x7f]*")@{_DOMAIN_NAME}'
_ANY, _BELOW, _DOMAIN, _ADDRESS = range(4)


class Route(Protocol):
    """A relayhost: its name, and the patterns of the senders whose mail it takes."""

    @property
    def name(self) -> str: ...
    @property
    def senders(self) -> tuple[str, ...]: ...


def is_pattern(text: str) -> bool:
    """Whether `text` has one of the four forms above. `user@*.domain` has none of them."""
    return re.fullmatch(_PATTERN, text) is not None


def choose(sender: bytes, routes: Iterable[Route]) -> str | None:
    """The name of the relayhost for this reverse path, or None where no pattern matches.

    sender: as in the envelope, without angle brackets; b"" is the null reverse path, which only `*` matches.
    routes: the relayhosts, in the order of the file.
    """
    wanted = sender.removesuffix(b".").lower() if b"@" in sender else sender.lower()
    best: tuple[int, int] | None = None
    name = None
    for route in routes:
        for pattern in route.senders:
            rank = _rank(pattern.encode().lower(), wanted)
            if rank is not None and (best is None or rank > best):
                best, name = rank, route.name
    return name


def _rank(pattern: bytes, sender: bytes) -> tuple[int, int] | None:
    """How specific a match is: greater is more specific; None if there is no match. Both arguments are in lower case."""
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
