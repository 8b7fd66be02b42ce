"""Delivery reports (RFC 3464, RFC 6533) in a mailbox on the relayhost: an mbox, or files of a Maildir one after the other.

Promises: a report counts for one of our messages only if every id in it that is ours is an id of that message. Work and
memory are bounded by the octets read. Only the top-level parts of a message that says that it is a report are read; nothing
is decoded.

Never: trust. A recipient knows our Message-ID and can send a forged report: name the source where its words are shown, and
let it change no state of a recipient.

Not with the parser of Python's email package: it recurses into nested parts, and raises on some malformed fields.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from mailrelay.tracking.sighting import MAX_RECIPIENT, Seen, Sighting, bounded

MAX_REPORT = 256 * 1024
"""Octets of a report that are read: its text and fields come before the returned message."""
MAX_REPORTS = 5000
MAX_GROUPS = 1000
"""Recipients in a report."""
_MAX_PARTS = 10
_MAX_FIELDS = 400
_MAX_FIELD = 8 * 1024


@dataclass(frozen=True, slots=True)
class Ours:
    """One of our messages. queue_ids: the first is the one under which sightings name it; the others are those under which
    that host handed it on. envid: our ENVID, as text, not xtext, b"" if none. message_id: without its angle brackets.

    not_before: a report that came earlier is about another message; epoch seconds by the clock there, 0 if none is."""

    queue_ids: tuple[str, ...]
    envid: bytes = b""
    message_id: bytes = b""
    not_before: float = 0.0


def read_reports(mailbox: bytes, ours: Sequence[Ours]) -> tuple[Sighting, ...]:
    """What the reports about our messages say, oldest first; `since` is not set. DELIVERED stands for delivered, relayed and
    expanded (RFC 3464 section 2.3.3).

    Before each file of a Maildir, the caller puts a line that begins with "From ".
    """
    sightings: list[Sighting] = []
    known = _Known.of(ours)
    for text in re.split(rb"^From [^\n]*\n", mailbox, maxsplit=MAX_REPORTS, flags=re.MULTILINE):
        sightings.extend(_report(text[:MAX_REPORT].replace(b"\r\n", b"\n"), known))
    return tuple(sightings)


@dataclass(frozen=True, slots=True)
class _Known:
    """An id of more than one message, such as the Message-ID of a message that was sent again, names all of them."""

    by_queue_id: dict[bytes, set[str]]
    by_envid: dict[bytes, set[str]]
    by_message_id: dict[bytes, set[str]]
    not_before: dict[str, float]

    @classmethod
    def of(cls, ours: Iterable[Ours]) -> "_Known":
        known = cls({}, {}, {}, {})
        for one in ours:
            name = one.queue_ids[0]
            known.not_before[name] = one.not_before
            for queue_id in one.queue_ids:
                known.by_queue_id.setdefault(queue_id.encode(), set()).add(name)
            if one.envid:
                known.by_envid.setdefault(one.envid, set()).add(name)
            if one.message_id:
                known.by_message_id.setdefault(one.message_id, set()).add(name)
        return known


# A report: its type, its fields, the header of the returned message.

_REPORT_TYPE = re.compile(rb"multipart/report\b", re.IGNORECASE)
_BOUNDARY = re.compile(rb"\bboundary\s{0,20}=\s{0,20}(?:\"([^\"\n]{1,200})\"|([^\s;\"]{1,200}))", re.IGNORECASE)
_STATUS_TYPES = (b"message/delivery-status", b"message/global-delivery-status")
_RETURNED_TYPES = (b"message/rfc822", b"text/rfc822-headers", b"message/global", b"message/global-headers")
_MESSAGE_ID = re.compile(rb"<([^<>\s]{1,998})>")
_ACTIONS = {
    b"failed": Seen.BOUNCED,
    b"delayed": Seen.DEFERRED,
    b"delivered": Seen.DELIVERED,
    b"relayed": Seen.DELIVERED,
    b"expanded": Seen.DELIVERED,
}
_Fields = dict[bytes, bytes]


def _report(text: bytes, known: _Known) -> list[Sighting]:
    head, _, body = text.partition(b"\n\n")
    header = _fields(head)
    content_type = header.get(b"content-type", b"")
    boundary = _BOUNDARY.search(content_type)
    if boundary is None or not _REPORT_TYPE.match(content_type):
        return []
    status, returned = _parts(body, boundary[1] or boundary[2])
    groups = [_fields(group) for group in re.split(rb"\n(?:[ \t]*\n)+", status.strip(b"\n"), maxsplit=MAX_GROUPS)]
    about = _about(groups[0], returned, known)
    if about is None or (known.not_before[about] and _came(header) < known.not_before[about]):
        return []
    return [found for group in groups[1:] if (found := _recipient(about, group)) is not None]


def _came(header: _Fields) -> float:
    """When the relayhost got the report, by its own Received field, the first one (RFC 5321 section 4.4); inf if unknown."""
    stamp = header.get(b"received", b"").rpartition(b";")[2][:100].decode("ascii", "replace")
    try:
        return parsedate_to_datetime(stamp).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return math.inf


def _parts(body: bytes, boundary: bytes) -> tuple[bytes, _Fields]:
    """The delivery status, and the header fields of the returned message; empty if they are missing."""
    status = b""
    returned: _Fields = {}
    # RFC 2046 section 5.1.1: white space may follow a boundary.
    delimiter = rb"(?:\A|\n)--" + re.escape(boundary) + rb"(?:--)?[ \t]*(?=\n|\Z)"
    for part in re.split(delimiter, body, maxsplit=_MAX_PARTS)[1:]:
        head, _, content = part.removeprefix(b"\n").partition(b"\n\n")
        kind = _fields(head).get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind in _STATUS_TYPES and not status:
            status = content
        elif kind in _RETURNED_TYPES and not returned:
            returned = _fields(content.lstrip(b"\n").partition(b"\n\n")[0])
    return status, returned


def _about(fields: _Fields, returned: _Fields, known: _Known) -> str | None:
    """The one message that all ids in the report agree on."""
    message_id = _MESSAGE_ID.search(returned.get(b"message-id", b""))
    candidates = [
        known.by_envid.get(fields.get(b"original-envelope-id", b"")),
        known.by_queue_id.get(fields.get(b"x-postfix-queue-id", b"")),
        known.by_message_id.get(message_id[1]) if message_id else None,
    ]
    named = [one for one in candidates if one]
    agreed = set.intersection(*named) if named else set()
    return agreed.pop() if len(agreed) == 1 else None


def _recipient(queue_id: str, fields: _Fields) -> Sighting | None:
    """RFC 3464 section 2.3. The original recipient is the one of our RCPT."""
    final = _typed(fields.get(b"final-recipient", b""))
    recipient = _typed(fields.get(b"original-recipient", b"")) or final
    seen = _ACTIONS.get(fields.get(b"action", b"").partition(b" ")[0].lower())
    if not recipient or seen is None:
        return None
    words = _typed(fields.get(b"diagnostic-code", b"")) or fields.get(b"status", b"")
    return Sighting(
        queue_id,
        recipient[:MAX_RECIPIENT],
        seen,
        bounded(words),
        by=_typed(fields.get(b"remote-mta", b""))[:300],
        final=final[:MAX_RECIPIENT] if final != recipient else b"",
    )


def _typed(value: bytes) -> bytes:
    """The value after its type (`rfc822; me@example.org`). An address may stand in angle brackets."""
    text = value.partition(b";")[2].strip()
    return text[1:-1] if text.startswith(b"<") and text.endswith(b">") else text


def _fields(text: bytes) -> _Fields:
    """The first field of each name, lower case, unfolded; a line that is none is passed over."""
    fields: dict[bytes, bytes] = {}
    name = b""
    for line in text.split(b"\n", _MAX_FIELDS)[:_MAX_FIELDS]:
        if line[:1] in (b" ", b"\t"):
            if name and len(fields[name]) < _MAX_FIELD:
                fields[name] += b" " + line[:_MAX_FIELD].strip()
            continue
        name, colon, value = line.partition(b":")
        name = name.strip().lower()
        if not colon or not name or name in fields:
            name = b""
            continue
        fields[name] = value[:_MAX_FIELD].strip()
    return fields
