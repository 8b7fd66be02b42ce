"""Adds header fields to a message, and reads some of its fields.

The Received field names neither the client's address nor this machine, because these reveal where a laptop is. So it has no
FROM clause, like the fields that other servers write for mail from their own machine. Times are in UTC for the same reason.

Promises: content is changed only by additions at its top. A field whose absence is signed is not added, so signed mail stays
valid. Every function accepts any bytes as content; its time is bounded by MAX_HEADER and one copy.
Never: the repair of a header; an addition other than Received to a malformed header.

Content is a message of RFC 5322 with CRLF line ends. A bare CR or LF makes a header malformed.
"""

import re
import unicodedata
from binascii import Error as Base64Error
from binascii import a2b_base64, a2b_qp
from datetime import UTC, datetime
from functools import lru_cache

MAX_HEADER = 1 << 18
"""Octets of content that are searched for header fields; a longer header counts as malformed."""
MAX_RECEIVED = 50
"""A message with this many Received fields is in a mail loop (RFC 5321 section 6.3)."""
MAX_SUBJECT = 200
"""Characters of a subject that are kept."""

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\r\n]*)")
_CONTINUATION = re.compile(rb"[ \t][^\r\n]*")
_SIGNED_NAMES = re.compile(rb"(?:^|;)\s*h\s*=([^;]*)")
_MESSAGE_ID = re.compile(rb"<[^<>\x00-\x20\x7f]{1,900}>")
_ENCODED_WORD = re.compile(r"=\?([^?*\s]+)(?:\*[^?\s]*)?\?([bBqQ])\?([^?\s]*)\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)\s+(?==\?)")
_BIDIRECTIONAL_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def stamp(content: bytes, *, queue_id: str, now: float, message_id: bytes) -> bytes:
    """`content` with a Received field at its top (RFC 5321 section 4.4), and with Date and Message-ID if it lacks them (RFC
    6409 section 8).

    queue_id: an atom, as in the log. now: epoch seconds, before the year 10000. message_id: the value of the Message-ID to
    add, with its angle brackets.
    """
    date = _date(int(now))
    head = b"Received: by localhost (mailrelay) with ESMTP id %s;\r\n\t%s\r\n" % (queue_id.encode("ascii"), date)
    fields, is_well_formed = _fields(content)
    if is_well_formed:
        # RFC 6376 section 5.4: a name in h= without a field signs the absence of that field.
        present_or_signed = {name for name, _ in fields} | {
            signed for field in fields for signed in _signed_names(*field)
        }
        if b"date" not in present_or_signed:
            head += b"Date: %s\r\n" % date
        if b"message-id" not in present_or_signed:
            head += b"Message-ID: %s\r\n" % message_id
    # Mail servers take such a first line for the start of the body. Without an empty line it would continue our field.
    if content.startswith((b" ", b"\t")):
        head += b"\r\n"
    return head + content


def count_received(content: bytes) -> int:
    """The number of Received fields; each server that the message passes adds one."""
    return sum(name == b"received" for name, _ in _fields(content)[0])


def message_id(content: bytes) -> bytes:
    """The Message-ID with its angle brackets; b"" if there is none, or if it contains spaces or control characters."""
    for name, value in _fields(content)[0]:
        if name == b"message-id":
            found = _MESSAGE_ID.search(value)
            return found[0] if found else b""
    return b""


def subject(content: bytes) -> str:
    """The subject for people: encoded words decoded (RFC 2047), on one line, without control characters and bidirectional
    controls, at most MAX_SUBJECT characters; "" if there is none. Not escaped for any display."""
    for name, value in _fields(content)[0]:
        if name == b"subject":
            # No encoding needs more than 20 octets for a character. What follows would be cut off below.
            text = _decode(value[: 20 * MAX_SUBJECT].decode("utf-8", "replace"))
            shown = (" " if char == "\t" else char for char in text if char == "\t" or _is_shown(char))
            return "".join(shown).strip()[:MAX_SUBJECT].rstrip()
    return ""


def is_signed(content: bytes) -> bool:
    """Whether the message has a signature that a change invalidates: DKIM (RFC 6376), or multipart/signed."""
    return any(
        name == b"dkim-signature" or (name == b"content-type" and value.lower().startswith(b"multipart/signed"))
        for name, value in _fields(content)[0]
    )


def _fields(content: bytes) -> tuple[list[tuple[bytes, bytes]], bool]:
    """The fields of the header as names in lower case and unfolded values, and whether the header is well-formed."""
    if content.startswith(b"\r\n"):
        return [], True
    end = content.find(b"\r\n\r\n", 0, MAX_HEADER)
    fields, is_well_formed = _parse(content[: end if end >= 0 else MAX_HEADER])
    return list(fields), is_well_formed and (end >= 0 or len(content) <= MAX_HEADER)


@lru_cache(maxsize=1)
def _parse(header: bytes) -> tuple[tuple[tuple[bytes, bytes], ...], bool]:
    # Cached: several functions read the same header one after the other.
    is_well_formed = True
    found: list[tuple[bytes, list[bytes]]] = []
    for line in header.removesuffix(b"\r\n").split(b"\r\n") if header else []:
        if field := _FIELD.fullmatch(line):
            found.append((field[1].lower(), [field[2]]))
        elif found and _CONTINUATION.fullmatch(line):
            found[-1][1].append(line)
        else:
            is_well_formed = False
    return tuple((name, b"".join(parts).strip()) for name, parts in found), is_well_formed


def _signed_names(name: bytes, value: bytes) -> list[bytes]:
    """The field names that a signature covers (RFC 6376 section 3.5, RFC 8617 section 4.1.2), in lower case."""
    if name not in (b"dkim-signature", b"arc-message-signature"):
        return []
    return [signed.strip().lower() for tag in _SIGNED_NAMES.findall(value) for signed in tag.split(b":")]


@lru_cache(maxsize=1)
def _date(now: int) -> bytes:
    """The date-time of RFC 5322 section 3.3. Not by strftime, because its names of days and months depend on the locale."""
    at = datetime.fromtimestamp(now, UTC)
    day, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]
    return f"{day}, {at.day} {month} {at.year:04} {at:%H:%M:%S} +0000".encode("ascii")


def _decode(text: str) -> str:
    """`text` with its encoded words decoded. A word with invalid base64 stays; an unknown charset is read as UTF-8."""
    text = _BETWEEN_WORDS.sub("", text)
    out: list[str] = []
    octets, charset, at = b"", "", 0
    for word in _ENCODED_WORD.finditer(text):
        decoded = _decode_word(word)
        if decoded is None:
            continue
        # Adjacent encoded words may split a character between them: RFC 2047 forbids it, but clients do it.
        if word.start() != at or word[1].lower() != charset:
            out += _in_charset(octets, charset), text[at : word.start()]
            octets, charset = b"", word[1].lower()
        octets += decoded
        at = word.end()
    return "".join((*out, _in_charset(octets, charset), text[at:]))


def _decode_word(word: re.Match[str]) -> bytes | None:
    """The octets of an encoded word; None if its base64 is invalid."""
    encoded = word[3].encode()
    if word[2] in "qQ":
        return a2b_qp(encoded, header=True)
    try:
        return a2b_base64(encoded + b"=" * (-len(encoded) % 4))
    except Base64Error:
        return None


def _in_charset(octets: bytes, charset: str) -> str:
    try:
        return octets.decode(charset or "ascii", "replace")
    except (LookupError, ValueError):
        return octets.decode("utf-8", "replace")


def _is_shown(char: str) -> bool:
    return char not in _BIDIRECTIONAL_CONTROLS and unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp")
