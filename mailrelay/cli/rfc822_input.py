"""A message as callers of sendmail(1) hand it in, made into one as SMTP carries it.

    read(file, limit, dot_ends)   what stands on stdin, as content: every line ended by CRLF
    parse(content)                content as a Letter: the fields of its header, and the rest
    take_recipients(letter)       what `-t` does

Decisions: LF, CRLF and CR each end a line, for cron mails whatever programs print. A NUL is refused: no mail server has to
take it. A line `From ` at the very top, as mailboxes have it, goes. What does not begin with a header gets an empty line
first, so that all of it is body. All else stays as it was, octet for octet.
"""

import re
from dataclasses import dataclass
from typing import BinaryIO

from mailrelay.cli.addresses import addresses

PIECE = 1 << 20
"""Octets that are read at once."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)")
_MBOX = re.compile(rb"From [^\r\n]*\r\n")
_RECIPIENTS = (b"to", b"cc", b"bcc")
_RESENT = tuple(b"resent-" + name for name in _RECIPIENTS)
_BLIND = (b"bcc", b"resent-bcc")


class Unfit(ValueError):
    """Not a message that can be sent. The text says why."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a header: its name in lower case, its value, and the whole of it as it stands, with its line end."""

    name: bytes
    value: bytes
    whole: bytes


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in two parts. `rest` is the empty line behind the header and the body."""

    fields: tuple[Field, ...]
    rest: bytes

    @property
    def content(self) -> bytes:
        return b"".join(field.whole for field in self.fields) + self.rest

    def has(self, name: bytes) -> bool:
        """Whether there is a field of this name, in lower case."""
        return any(field.name == name for field in self.fields)


def read(file: BinaryIO, limit: int, *, dot_ends: bool) -> bytes:
    """The content that stands in `file`, line ends made CRLF.

    limit: octets that it may have. dot_ends: whether a line that is a dot alone is the end, and no part of it.
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
        raise Unfit("the message holds a NUL octet, which mail cannot carry; encode it, in base64 for example")
    content = _LINE_END.sub(b"\r\n", found)
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    if len(content) > limit:
        raise _too_big(limit)
    return content


def parse(content: bytes) -> Letter:
    """The letter that `content`, with CRLF line ends, is."""
    mbox = _MBOX.match(content)
    at = mbox.end() if mbox else 0
    fields = []
    while field := _FIELD.match(content, at):
        fields.append(Field(field[1].lower(), field[2], field[0]))
        at = field.end()
    rest = content[at:]
    return Letter(tuple(fields), rest if rest.startswith(b"\r\n") else b"\r\n" + rest)


def with_field(letter: Letter, name: bytes, value: bytes) -> Letter:
    """The letter with one more field, at the end of its header."""
    field = Field(name.lower(), value, b"%s: %s\r\n" % (name, value))
    return Letter((*letter.fields, field), letter.rest)


def take_recipients(letter: Letter) -> tuple[Letter, list[bytes]]:
    """The letter without its Bcc fields, and those it is for: To, Cc and Bcc; if there are such fields with Resent-, these.

    Raises BadAddress.
    """
    resent = any(field.name in _RESENT for field in letter.fields)
    named = _RESENT if resent else _RECIPIENTS
    found = [address for field in letter.fields if field.name in named for address in addresses(field.value)]
    return Letter(tuple(field for field in letter.fields if field.name not in _BLIND), letter.rest), found


def _too_big(limit: int) -> Unfit:
    return Unfit(f"the message is larger than listen.max_message_size ({limit} octets); send it in parts")
