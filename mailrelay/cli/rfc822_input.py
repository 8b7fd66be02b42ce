"""Turns a message as programs give it to sendmail(1) into content as SMTP carries it.

    read(file, limit, dot_ends)   the content in `file`, with CRLF line ends
    parse(content)                content as an Input: the fields of its header, and the rest
    recipient_values(message)     the values of the fields that name recipients, for `-t`
    without_bcc(message)          the message without its Bcc fields

Line ends. LF ends a line, with all CRs right before it (sendmail and Postfix do the same). In the value of a header
field any other CR becomes a blank, as in Postfix; before the colon and at the beginning of a line it is removed. So no
CR ends a header, and no Bcc field becomes text that all recipients see. In the body any other CR ends a line, because
cron mails the output of any program, progress bars too.

A NUL stays in a value and in the body: the caller decides. It is removed from addresses, as in sendmail, and all control
characters are removed from the name of a field. A line `From ` at the very top, as mailboxes have it, and lines
`>From ` right after it are removed. A message that does not begin with a header gets an empty line first, so that all
of it is body. Everything else stays the same, octet for octet.
"""

import re
from dataclasses import dataclass
from typing import BinaryIO

PIECE = 1 << 20
"""Octets in one read, at most."""

_LINE_END_WITH_CR = re.compile(rb"(?<!\r)\r+\n")
_HEADER_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")
_NAME = re.compile(rb"[!-9;-~]+[ \t]*")
_CONTROL = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")
_PLAIN_NAME = re.compile(rb"[A-Za-z-]+[ \t]*")
"""A field name from which control characters are removed. Other names keep them, and then are no field names: a line of a
progress bar must not become a field."""
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)")
_MBOX = re.compile(rb"From [^\r\n]*\r\n(?:>From [^\r\n]*\r\n)*")
_RECIPIENTS = (b"to", b"cc", b"bcc")
_RESENT = tuple(b"resent-" + name for name in _RECIPIENTS)
_BLIND = (b"bcc", b"resent-bcc")


class TooLarge(ValueError):
    """The message has more octets than the limit. beginning: its first octets, with CRLF line ends, at most PIECE."""

    def __init__(self, limit: int, beginning: bytes) -> None:
        super().__init__(f"the message is larger than {limit} octets")
        self.beginning = beginning


@dataclass(frozen=True, slots=True)
class Field:
    """A header field: its name in lower case, its value, and the whole field as it was, with its line end."""

    name: bytes
    value: bytes
    whole: bytes


@dataclass(frozen=True, slots=True)
class Input:
    """A message in two parts. `rest` is the empty line after the header, and the body."""

    fields: tuple[Field, ...]
    rest: bytes

    @property
    def content(self) -> bytes:
        return b"".join(field.whole for field in self.fields) + self.rest

    def has(self, name: bytes) -> bool:
        """Whether there is a field with this name, given in lower case."""
        return any(field.name == name for field in self.fields)


def read(file: BinaryIO, limit: int, *, dot_ends: bool) -> bytes:
    """The content in `file`, with CRLF line ends.

    limit: octets of content, at most. dot_ends: whether a line with only a dot ends the message; it is not part of it.
    Raises TooLarge.
    """
    found = bytearray()
    line_begins = True
    while piece := file.readline(PIECE):
        if dot_ends and line_begins and piece.rstrip(b"\r\n") == b".":
            break
        line_begins = piece.endswith(b"\n")
        found += piece
        if len(found) > limit:
            raise _too_large(limit, found)
    content = _with_crlf(found)
    if len(content) > limit:
        raise _too_large(limit, found)
    return content


def _with_crlf(found: bytearray) -> bytes:
    header, at = _header(found)
    body = _LINE_END_WITH_CR.sub(b"\n", found[at:]).replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    content = header + body
    return content if not content or content.endswith(b"\r\n") else content + b"\r\n"


def _too_large(limit: int, found: bytearray) -> TooLarge:
    # It is cut at the end of a line: half an address may be another address.
    return TooLarge(limit, _with_crlf(found[: found.rfind(b"\n", 0, PIECE) + 1]))


def _header(found: bytearray) -> tuple[bytes, int]:
    """The lines of the header, with CRLF line ends, and where the rest begins in `found`."""
    lines: list[bytes] = []
    at = 0
    in_field = is_mbox = False
    while line := _HEADER_LINE.match(found, at):
        text = line[0].rstrip(b"\r\n").lstrip(b"\r")
        is_mbox = text.startswith(b"From ") if at == 0 else is_mbox and text.startswith(b">From ")
        if not is_mbox and not (in_field and text[:1] in (b" ", b"\t")):
            text = _field(text)
            if not text:
                break
            in_field = True
        lines.append(text.replace(b"\r", b" ") + b"\r\n")
        at = line.end()
    return b"".join(lines), at


def _field(text: bytes) -> bytes:
    """The first line of a header field, without control characters in its name; b"" if `text` is not one."""
    name, colon, value = text.partition(b":")
    allowed = _PLAIN_NAME if _CONTROL.search(name.rstrip(b" \t\r\v\f\0")) else _NAME
    name = _CONTROL.sub(b"", name)
    return name + colon + value if colon and allowed.fullmatch(name) else b""


def parse(content: bytes) -> Input:
    """Splits `content`, which has CRLF line ends. The lines of a mailbox at its top are removed (module docstring)."""
    mbox = _MBOX.match(content)
    at = mbox.end() if mbox else 0
    fields = []
    while field := _FIELD.match(content, at):
        fields.append(Field(field[1].lower(), field[2], field[0]))
        at = field.end()
    rest = content[at:]
    return Input(tuple(fields), rest if rest.startswith(b"\r\n") else b"\r\n" + rest)


def with_field(message: Input, name: bytes, value: bytes) -> Input:
    """The message with one more field, at the end of its header."""
    field = Field(name.lower(), value, b"%s: %s\r\n" % (name, value))
    return Input((*message.fields, field), message.rest)


def recipient_values(message: Input) -> list[bytes]:
    """The values of the fields that name the recipients.

    They are To, Cc and Bcc, or if there are Resent-To, Resent-Cc or Resent-Bcc, these.
    """
    resent = any(field.name in _RESENT for field in message.fields)
    named = _RESENT if resent else _RECIPIENTS
    return [field.value.replace(b"\0", b"") for field in message.fields if field.name in named]


def without_bcc(message: Input) -> Input:
    """The message without Bcc and Resent-Bcc, as sendmail and Postfix send it, with -t and without."""
    return Input(tuple(field for field in message.fields if field.name not in _BLIND), message.rest)
