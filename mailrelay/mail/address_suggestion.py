"""Suggests a known address in place of a mistyped one ("Did you mean ...?").

An address is a local part and a domain, as `mail.address` returns them; an address without a domain has an empty one.
Domains and local parts are compared in lower case (RFC 5321 section 2.4 allows servers to distinguish case; people do not).

Promises: pure; the time is linear in the number of known addresses and bounded for each. An address is never suggested for
itself. Nothing is suggested for a known address: mail to it was delivered before.
"""

import shlex
from collections.abc import Iterable

from mailrelay.mail.printable import printable

SHORTEST = 3
"""Characters of the shorter text below which no two texts are similar: one of two letters is not a typing error."""
LONG = 6
"""Characters of the shorter text from which two typing errors are allowed; below it is one."""
MAX_SUGGESTED = 100
"""Characters of a suggested address at most: a truncated one would be another address."""
UNLIKE = 3
"""A number of typing errors that is never allowed."""


def parts(address: bytes) -> tuple[bytes, bytes]:
    """The local part as written, and the domain in lower case, b"" where there is none."""
    local, at, domain = address.rpartition(b"@")
    return (local, domain.lower()) if at else (domain, b"")


def normal(address: bytes) -> bytes:
    """The form in which an address is stored: its domain in lower case."""
    local, domain = parts(address)
    return b"%s@%s" % (local, domain) if domain else local


def nearest(address: bytes, known: Iterable[bytes]) -> bytes | None:
    """The address in `known` that is most similar to `address`, the first of equals; None if none is similar or `address`
    is known.

    The same local part at a similar domain goes before a similar local part at the same domain.
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
    """The question whether `likely` was meant, and the command that fixes the message; () if `likely` is b"" or cannot be
    shown as it is.

    alone: whether no other recipient of the message needs a fix. The command can be pasted into a shell.
    """
    address = printable(likely)
    # An escaped or truncated text is another address.
    if not likely or address.encode() != likely or len(address) > MAX_SUGGESTED:
        return ()
    command = f"resend {queue_id} --to {shlex.quote(address)}" if alone else f"edit {queue_id}"
    return f"Did you mean {address}?", f"mailrelay queue {command}"


def distance(one: str, other: str, most: int) -> int:
    """The number of letters to insert, delete, change or swap with their neighbour to turn `one` into `other`; `most` + 1 if
    it is more than `most`. No letter is edited twice (optimal string alignment)."""
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
        # A swap uses the row before the last one, so both rows must be beyond the bound.
        if min(here) > most and min(above) > most:
            return most + 1
        before, above = above, here
    return min(above[-1], most + 1)


def _folded(address: bytes) -> tuple[str, str]:
    local, domain = parts(address)
    return local.decode("utf-8", "replace").lower(), domain.decode("utf-8", "replace").lower()


def _between_domains(one: str, other: str) -> int:
    """As `_between`, but a different top-level domain alone counts as at most two errors, however different it is."""
    errors = _between(one, other)
    name, _, _ = one.rpartition(".")
    return min(2, errors) if name and name == other.rpartition(".")[0] else errors


def _between(one: str, other: str) -> int:
    """The number of typing errors between two texts, `UNLIKE` if it is too large for texts of this length."""
    shorter = min(len(one), len(other))
    if shorter < SHORTEST:
        return UNLIKE
    most = 1 if shorter < LONG else 2
    return found if (found := distance(one, other, most)) <= most else UNLIKE
