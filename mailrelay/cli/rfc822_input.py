"""Turns a message as programs give it to sendmail(1) into content as SMTP carries it.

    read(file, limit, dot_ends)   the content in `file`, with CRLF line ends
    parse(content)                content as an Input: the fields of its header, and the rest
    take_recipients(message)      the recipients in its header, and the message without Bcc, for `-t`

Decisions: LF, CRLF and CR each end a line, because cron mails the output of any program. A NUL is refused: no mail server
has to take it. A line `From ` at the very top, as mailboxes have it, is removed. A message that does not begin with a
header gets an empty line first, so that all of it is body. Everything else stays the same, octet for octet.
"""

import re
from dataclasses import dataclass
from typing import BinaryIO

from mailrelay.cli.addresses import addresses

PIECE = 1 << 20
"""Octets in one read, at most."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)")
_MBOX = re.compile(rb"From [^\r\n]*\r\n")
_RECIPIENTS = (b"to", b"cc", b"bcc")
_RESENT = tuple(b"resent-" + name for name in _RECIPIENTS)
_BLIND = (b"bcc", b"resent-bcc")


class Unfit(ValueError):
    """The message cannot be sent. The text says why."""


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
    Raises Unfit.
    """
    found = bytearray()
    line_begins = True
    while piece := file.readline(PIECE):
        if dot_ends and line_begins and piece.rstrip(b"\r\n") == b".":
            break
        line_begins = piece.endswith(b"\n")
        found += piece
        if len(found) > limit:
            raise _too_big(limit)
    if b"\0" in found:
        raise Unfit("the message contains a NUL octet, which mail cannot carry; encode it, in base64 for example")
    content = _LINE_END.sub(b"\r\n", found)
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    if len(content) > limit:
        raise _too_big(limit)
    return content


def parse(content: bytes) -> Input:
    """Splits `content`, which has CRLF line ends."""
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


def take_recipients(message: Input) -> tuple[Input, list[bytes]]:
    """The message without its Bcc fields, and its recipients.

    They are those in To, Cc and Bcc, or if there are Resent-To, Resent-Cc or Resent-Bcc, those in these. Raises BadAddress.
    """
    resent = any(field.name in _RESENT for field in message.fields)
    named = _RESENT if resent else _RECIPIENTS
    found = [address for field in message.fields if field.name in named for address in addresses(field.value)]
    return Input(tuple(field for field in message.fields if field.name not in _BLIND), message.rest), found


def _too_big(limit: int) -> Unfit:
    return Unfit(f"the message is larger than listen.max_message_size ({limit} octets); send it in parts")
