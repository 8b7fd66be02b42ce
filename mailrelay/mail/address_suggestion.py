"""Which known address a mistyped one may have been meant to be, and the question to the person.

An address is a local part and a domain, as `mail.address` lets them through; one without a domain has an empty one. Domains
are compared in lower case, local parts too (RFC 5321 section 2.4 lets servers tell cases apart; people do not).

Promises: pure, in time linear in the number of the known addresses and bounded for each; never the address itself, nor
anything at all for one that is known: that one has worked.
"""

import shlex
from collections.abc import Iterable

from mailrelay.mail.printable import printable

SHORTEST = 3
"""Characters below which nothing is like anything else: one letter of two is not a slip."""
LONG = 6
"""Characters from which on two slips are forgiven, and not one alone."""
SUGGESTED_LIMIT = 100
"""Characters of an address beyond which it is not suggested: what was cut off would be another address."""
UNLIKE = 3
"""More slips than are ever forgiven."""


def parts(address: bytes) -> tuple[bytes, bytes]:
    """The local part as written, and the domain in lower case, b"" where there is none."""
    local, at, domain = address.rpartition(b"@")
    return (local, domain.lower()) if at else (domain, b"")


def normal(address: bytes) -> bytes:
    """The form in which an address is remembered: its domain in lower case."""
    local, domain = parts(address)
    return b"%s@%s" % (local, domain) if domain else local


def nearest(address: bytes, known: Iterable[bytes]) -> bytes | None:
    """The address in `known` that comes nearest to `address`, the first of equals; None where none is near or it is known.

    First the same local part at a similar domain, then a similar local part at the same domain.
    """
    local, domain = _folded(address)
    best: tuple[int, int] | None = None
    found = None
    for one in known:
        its_local, its_domain = _folded(one)
        if (its_local, its_domain) == (local, domain):
            return None
        if its_local == local and domain and its_domain:
            rank = 0, _between_domains(domain, its_domain)
        elif its_domain == domain:
            rank = 1, _between(local, its_local)
        else:
            continue
        if rank[1] < UNLIKE and (best is None or rank < best):
            best, found = rank, one
    return found


def suggestion(queue_id: str, likely: bytes, *, alone: bool) -> tuple[str, ...]:
    """The question whether `likely` was meant, and the command that fixes the message; () where nobody is likely.

    alone: whether nobody else of the message waits to be fixed. The command is fit to be pasted into a shell.
    """
    address = printable(likely)
    # What had to be escaped is not the address any more.
    if not likely or address.encode() != likely or len(address) > SUGGESTED_LIMIT:
        return ()
    command = f"resend {queue_id} --to {shlex.quote(address)}" if alone else f"edit {queue_id}"
    return f"Did you mean {address}?", f"mailrelay queue {command}"


def distance(one: str, other: str, most: int) -> int:
    """How many letters must be put in, taken out, changed, or swapped with their neighbour, to make one of the other;
    `most` + 1 if it is more than `most`. No letter is touched twice (optimal string alignment)."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    above = list(range(len(other) + 1))
    for row, left in enumerate(one, 1):
        here = [row]
        for column, right in enumerate(other, 1):
            cost = min(above[column] + 1, here[-1] + 1, above[column - 1] + (left != right))
            if row > 1 and column > 1 and left == other[column - 2] and right == one[row - 2]:
                cost = min(cost, before[column - 2] + 1)
            here.append(cost)
        # A swap reaches back over one row, so two must be beyond the bound.
        if min(here) > most and min(above) > most:
            return most + 1
        before, above = above, here
    return min(above[-1], most + 1)


def _folded(address: bytes) -> tuple[str, str]:
    local, domain = parts(address)
    return local.decode("utf-8", "replace").lower(), domain.decode("utf-8", "replace").lower()


def _between_domains(one: str, other: str) -> int:
    """As `_between`; another top-level domain alone counts as two slips, however it is spelt."""
    slips = _between(one, other)
    name, _, _ = one.rpartition(".")
    return min(2, slips) if name and name == other.rpartition(".")[0] else slips


def _between(one: str, other: str) -> int:
    """How many slips two words are apart, `UNLIKE` if they are too many for words of this length."""
    shorter = min(len(one), len(other))
    if shorter < SHORTEST:
        return UNLIKE
    most = 1 if shorter < LONG else 2
    return found if (found := distance(one, other, most)) <= most else UNLIKE
