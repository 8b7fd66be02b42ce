"""The queue of the mail server, as its own program lists it: `sendmail -bp -v` (also with -qI), `postqueue -j`, `exim -bp`.

Promises: a recipient that is not listed has left the queue only if the listing is `Listed`. A refusal is `NotPermitted`,
whatever the status of the program. Everything else that is not a listing from its first to its last line is `Unreadable`.
A line counts by its place in the listing: the reason of one message, whatever is in it, is never another message.

Never: delivered. A recipient that is no longer listed, or that Exim marks as done, may have bounced.
"""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from mailrelay.tracking.queue_id import Server, is_safe
from mailrelay.tracking.sighting import MAX_RECIPIENT, Seen, Sighting, bounded

MAX_LISTING = 16 * 1024 * 1024
"""Octets of a listing. A longer one is Unreadable: it would take seconds."""
_MAX_LINE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Listed:
    """What is in the queue. ids: also of messages without a sighting."""

    sightings: tuple[Sighting, ...]
    ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class NotPermitted:
    """The account may not see the queue, in the words of the program."""

    words: bytes


@dataclass(frozen=True, slots=True)
class Unreadable:
    """No listing: another failure of the program, or an output that is not understood. words: of the output, may be b""."""

    words: bytes


Listing = Listed | NotPermitted | Unreadable

_REFUSAL = re.compile(
    rb".{0,200}\b(?:not permitted|permission denied|not allowed|need root privileges|requires special privileges"
    rb"|must be setgid)\b.*",
    re.IGNORECASE | re.DOTALL,
)
_MAX_REFUSAL_LINES = 8


def read_listing(server: Server, output: bytes, status: int) -> Listing:
    """What `output` (stdout and stderr) of the listing program says. status: its exit status.

    Of a server that is OTHER (a command of the person's), the kind of listing is taken from its first line.
    """
    if len(output) > MAX_LISTING:
        return Unreadable(b"the listing is longer than %d octets" % MAX_LISTING)
    lines = [line.removesuffix(b"\r") for line in output.split(b"\n")]
    found: Listed | None = None
    if status == 0:
        match _kind(lines) if server is Server.OTHER else server:
            case Server.POSTFIX:
                found = _postfix(lines)
            case Server.SENDMAIL:
                found = _sendmail(lines)
            case Server.EXIM:
                found = _exim(lines)
    return found or _failure(lines)


def _kind(lines: list[bytes]) -> Server:
    first = next((line for line in lines if line.strip()), b"")
    if first.startswith(b"{"):
        return Server.POSTFIX
    return Server.EXIM if not first or _EXIM_MESSAGE.fullmatch(first) else Server.SENDMAIL


def _failure(lines: list[bytes]) -> NotPermitted | Unreadable:
    """A refusal stands in the first lines. After a line of a listing, such words are those of another server."""
    said = [line for line in lines if line.strip()][:_MAX_REFUSAL_LINES]
    for line in said:
        if line[:1] in (b" ", b"\t", b"{") or _SENDMAIL_MESSAGE.fullmatch(line):
            break
        if _REFUSAL.fullmatch(line[:_MAX_LINE]):
            return NotPermitted(bounded(line))
    return Unreadable(bounded(said[0]) if said else b"")


# Postfix: one JSON object a line.


def _postfix(lines: list[bytes]) -> Listed | None:
    sightings: list[Sighting] = []
    ids = set()
    for line in lines:
        if not line.strip() or line.startswith(b"postqueue: warning: "):
            continue
        entry = _json_object(line)
        name = entry.get("queue_id") if entry else None
        recipients = entry.get("recipients") if entry else None
        if entry is None or not isinstance(name, str) or not is_safe(name) or not isinstance(recipients, list):
            return None
        ids.add(name)
        arrival = entry.get("arrival_time")
        # A larger number is not a time.
        since = float(arrival) if isinstance(arrival, int) and 0 <= arrival < 1 << 40 else None
        for one in recipients:
            if not isinstance(one, dict) or not isinstance(address := one.get("address"), str):
                return None
            reason = one.get("delay_reason")
            words = bounded(_octets(reason)) if isinstance(reason, str) else b""
            seen = Seen.DEFERRED if words else Seen.WAITING
            sightings.append(Sighting(name, _octets(address)[:MAX_RECIPIENT], seen, words, since=since))
    return Listed(tuple(sightings), frozenset(ids))


def _json_object(line: bytes) -> dict[str, Any] | None:
    if len(line) > _MAX_LINE or not line.startswith(b"{"):
        return None
    try:
        entry = json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _octets(text: str) -> bytes:
    """Octets that are not UTF-8 have become surrogates; so have escapes of JSON, which may be any surrogate."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


# sendmail: a message begins at the left; its reason, its recipients and their reasons follow, indented.

_SENDMAIL_HEADER = re.compile(
    rb"\t\t/[^\n]* \(\d+ requests?[^)\n]*\)|-----Q-ID-----[^\n]*|MSP Queue status\.\.\.|\s*"
    # On its stderr, in every answer of a host without a domain.
    rb"|WARNING: local host name [^\n]*"
)
_SENDMAIL_END = re.compile(rb"\t\tTotal requests: \d+[^\n]*|/[^\n]* is empty")
_SENDMAIL_MESSAGE = re.compile(rb"([0-9A-Za-z]{8}\d{5,10})[*X+? -]* +(?:\d|-1 |\()[^\n]*")
"""The size is -1 for the moment in which the file of the content is gone and the one of the envelope is not."""
_SENDMAIL_REASON = re.compile(rb"(?: {8,20}|\t\t ) *\(([^\n]*?)\)?")
_SENDMAIL_CONTROL = re.compile(rb"[ \t]+\(---[^\n]*")
_SENDMAIL_RECIPIENT = re.compile(rb"\t{4,} ?([^\s(][^\n]*)")
_SENDMAIL_WIDTH = 78
"""Octets of an address that sendmail shows with -v."""


def _sendmail(lines: list[bytes]) -> Listed | None:
    blocks: list[tuple[str, list[bytes]]] = []
    ended = False
    for line in lines:
        if _SENDMAIL_END.fullmatch(line):
            ended = True
        elif found := _SENDMAIL_MESSAGE.fullmatch(line):
            blocks.append((found[1].decode("ascii"), []))
        elif _SENDMAIL_HEADER.fullmatch(line):
            continue
        elif blocks:
            blocks[-1][1].append(line)
        else:
            return None
    read = [_sendmail_recipients(name, block) for name, block in blocks]
    sightings = [sighting for one in read if one is not None for sighting in one]
    return Listed(tuple(sightings), frozenset(name for name, _ in blocks)) if ended and None not in read else None


def _sendmail_recipients(name: str, lines: list[bytes]) -> list[Sighting] | None:
    recipients: list[Sighting] = []
    common = b""
    for line in lines:
        if _SENDMAIL_CONTROL.fullmatch(line):
            continue
        if found := _SENDMAIL_REASON.fullmatch(line):
            words = bounded(found[1].removeprefix(b"Deferred: ")) or b"Deferred"
            if recipients:
                recipients[-1] = replace(recipients[-1], seen=Seen.DEFERRED, words=words)
            elif found[1].startswith(b"Deferred"):
                common = words
        elif found := _SENDMAIL_RECIPIENT.fullmatch(line):
            address, is_cut = _sendmail_address(found[1])
            recipients.append(Sighting(name, address, Seen.WAITING, is_cut=is_cut))
        else:
            return None
    # The reason of the message is that of its last failure: of any recipient, if one has a reason of its own.
    if common and not any(one.words for one in recipients):
        return [replace(one, seen=Seen.DEFERRED, words=common) for one in recipients]
    return recipients


def _sendmail_address(text: bytes) -> tuple[bytes, bool]:
    """The address without its brackets, and whether the end is missing."""
    is_cut = not text.endswith(b">") if text.startswith(b"<") else len(text) >= _SENDMAIL_WIDTH
    return text.removeprefix(b"<").removesuffix(b">")[:MAX_RECIPIENT], is_cut


# Exim: age, size, id and sender; each recipient on a line of its own, D before those that are done.

_EXIM_MESSAGE = re.compile(
    rb" *\d{1,10}[smhdw] +[\d.]{1,10}[KMG]? +([0-9A-Za-z]{6}-[0-9A-Za-z]{6,11}-[0-9A-Za-z]{2,4}) <[^\n]*"
)
_EXIM_RECIPIENT = re.compile(rb"(?:       \+D|        [ D]) (\S[^\n]*)")
_EXIM_ABSENT = re.compile(
    rb"^ +[0-9A-Za-z]{6}-[0-9A-Za-z]{6,11}-[0-9A-Za-z]{2,4}\n"
    rb" +\*\*\* spool read error: No such file or directory \*\*\*$",
    re.MULTILINE,
)
"""For an id in the command that is not in the queue."""


def _exim(lines: list[bytes]) -> Listed | None:
    sightings: list[Sighting] = []
    ids = set()
    name = ""
    for line in _EXIM_ABSENT.sub(b"", b"\n".join(lines)).split(b"\n"):
        if not line.strip():
            name = ""
        elif found := _EXIM_MESSAGE.fullmatch(line):
            name = found[1].decode("ascii")
            ids.add(name)
        elif name and (found := _EXIM_RECIPIENT.fullmatch(line)):
            if line[7:9] == b"  ":
                sightings.append(Sighting(name, found[1][:MAX_RECIPIENT], Seen.WAITING))
        else:
            return None
    return Listed(tuple(sightings), frozenset(ids))
