"""One thing seen of one recipient on the relayhost, and which of our recipients it is about.

Promises: words are bounded, and bytes as the server has written them; `mail.printable` escapes them where they are shown. A
sighting that may be about two of our recipients is given to none.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mailrelay.mail.there import MAX_WORDS

MAX_RECIPIENT = 1000
"""Octets of an address, at most: more than any that SMTP can carry."""


class Seen(enum.StrEnum):
    """What a line or entry says of a recipient."""

    WAITING = "waiting"
    """In the queue, not tried since."""
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    HANDED_ON = "handed on"
    """Taken by a mail server on the same host under another queue id, by which it is to be followed."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """queue_id: the message over there; in a report, our own queue id. recipient: as that server knows it from our RCPT,
    without angle brackets. final: the address that the server made of it (alias, .forward), b"" if it is the same or not
    known.

    words: the reason or the reply, up to MAX_WORDS octets. by: the name of the server that said them, b"" if not known.
    since: epoch seconds, None if not known. next_id: with HANDED_ON. is_cut: the server shows only the first octets of the
    recipient.
    """

    queue_id: str
    recipient: bytes
    seen: Seen
    words: bytes = b""
    by: bytes = b""
    final: bytes = b""
    since: float | None = None
    next_id: str = ""
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Assigned:
    """`of`: the sightings of each of our recipients, in the order seen. `others`: those of nobody, such as the members of an
    alias, which the server does not always connect with our recipient."""

    of: dict[bytes, list[Sighting]]
    others: list[Sighting]


def assign(recipients: Sequence[bytes], sightings: Iterable[Sighting]) -> Assigned:
    """The sightings of one message, by our recipient.

    recipients: as in our RCPT. A server may have added a domain to a bare name, changed the case, or cut the address; that
    counts only where no other of our recipients may be meant.
    """
    assigned = Assigned({one: [] for one in recipients}, [])
    forms = {one: one.lower() for one in assigned.of}
    for sighting in sightings:
        theirs = sighting.recipient
        if theirs in forms and not sighting.is_cut:
            assigned.of[theirs].append(sighting)
            continue
        folded = theirs.lower()
        meant = [one for one, form in forms.items() if _may_be(form, folded, sighting.is_cut)]
        if len(meant) == 1:
            assigned.of[meant[0]].append(sighting)
        else:
            assigned.others.append(sighting)
    return assigned


def _may_be(ours: bytes, theirs: bytes, is_cut: bool) -> bool:
    if is_cut:
        return bool(theirs) and ours.startswith(theirs)
    if ours == theirs:
        return True
    # A bare name of ours is complete over there.
    local, at, _ = theirs.rpartition(b"@")
    return bool(at) and b"@" not in ours and ours == local


def bounded(words: bytes) -> bytes:
    """The first MAX_WORDS octets of `words`, without white space at both ends."""
    return words[: 4 * MAX_WORDS].strip()[:MAX_WORDS]
