"""The mailboxes in an address list (RFC 5322 section 3.4): the value of To, Cc and Bcc, and arguments of sendmail(1).

Display names, comments and group names are removed; addresses stay as they were written. Beyond the grammar, this is
accepted because people and programs write it: nothing between two commas, `;` instead of a comma, dots and spaces in
display names, a mailbox without a domain, and the mailboxes that `mail.address` accepts besides. Python's own header parser
is not used: it decodes encoded words within addresses, and silently leaves out what it cannot parse.

Promises: no mailbox is lost; text that is not a mailbox raises. Every address that is returned is valid for `mail.address`.
Pure, in time linear in the length.
"""

import re
from collections.abc import Iterable, Iterator

from mailrelay.mail.address import BadPath, parse_path

_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_CHAR = r'[^\s()<>\[\]:;@\\,."\x00-\x1f\x7f]'
_TOKEN = re.compile(
    rf"""(?P<space>[ \t\r\n]+)
    | (?P<comment>\()
    | (?P<angle> < [^<>"]* (?:{_QUOTED}[^<>"]*)* > )
    | (?P<word> =\?[^?\s]+\?[BbQq]\?[^?\s]*\?= | {_QUOTED} | \[[^\[\]\\]*\] | (?:{_CHAR}|\\(?:{_CHAR}|[.\\]))+ )
    | (?P<joint>[.@])
    | (?P<end>[,;])
    | (?P<group>:)
    """.encode(),
    re.VERBOSE | re.DOTALL,
)
_COMMENT_PART = re.compile(rb"[^()\\]*(?:\\.[^()\\]*)*([()])", re.DOTALL)

Token = tuple[str, bytes]


class BadAddress(ValueError):
    """Not a list of addresses. The text names the part that is not one; it is from outside, not escaped."""


def addresses(text: bytes) -> list[bytes]:
    """The mailboxes in `text`, in order, without angle brackets; [] for an empty list. Raises BadAddress."""
    found: list[bytes] = []
    parts: list[Token] = []
    for kind, token in _tokens(text):
        if kind == "end":
            found.extend(_mailbox(parts))
            parts = []
        elif kind == "group":
            # The name of a group, which is removed: it must not contain an address.
            if any(part == ("joint", b"@") or part[0] == "angle" for part in parts):
                raise _bad(text)
            parts = []
        else:
            parts.append((kind, token))
    found.extend(_mailbox(parts))
    return found


def _mailbox(parts: list[Token]) -> Iterator[bytes]:
    """The mailbox in the tokens between two commas; nothing if there are none. Raises BadAddress."""
    if not parts:
        return
    angles = [at for at, (kind, _) in enumerate(parts) if kind == "angle"]
    if angles and angles != [len(parts) - 1]:
        raise _bad(b" ".join(token for _, token in parts))
    mailbox = _joined(_tokens(parts[-1][1][1:-1]) if angles else parts)
    try:
        yield parse_path(b"<%s>" % mailbox, smtputf8=True, null=False)[0]
    except BadPath as error:
        raise BadAddress(f"{_shown(mailbox)} is not an address: {error}") from None


def _joined(tokens: Iterable[Token]) -> bytes:
    """An address without spaces and comments. Raises BadAddress for two words with nothing between them."""
    parts: list[Token] = []
    for kind, token in tokens:
        if kind == "word" and parts and parts[-1][0] == "word":
            raise _bad(parts[-1][1] + b" " + token)
        parts.append((kind, token))
    return b"".join(token for _, token in parts)


def _tokens(text: bytes) -> Iterator[Token]:
    """The tokens of `text`, without spaces and comments."""
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise _bad(text[at:])
        at = token.end()
        if token.lastgroup == "comment":
            at = _comment_end(text, at)
        elif token.lastgroup is not None and token.lastgroup != "space":
            yield token.lastgroup, token[0]


def _comment_end(text: bytes, at: int) -> int:
    """The end of the comment whose opening parenthesis is right before `at`. Comments nest."""
    depth = 1
    while depth:
        part = _COMMENT_PART.match(text, at)
        if part is None:
            raise _bad(text[at - 1 :])
        depth += 1 if part[1] == b"(" else -1
        at = part.end()
    return at


def _bad(text: bytes) -> BadAddress:
    return BadAddress(f"{_shown(text)} is not an address")


def _shown(text: bytes) -> str:
    return "'" + text[:60].decode("utf-8", "backslashreplace").strip() + "'"
