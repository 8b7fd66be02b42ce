"""The mailboxes in an address list (RFC 5322 section 3.4): the value of To, Cc and Bcc, and arguments of sendmail(1).

Display names, comments and group names are removed; addresses stay as they were written. Beyond the grammar, this is
accepted because people and programs write it: nothing between two commas, `;` instead of a comma, nothing but a space
between two whole addresses, dots, spaces and backslashes in display names, a mailbox without a domain, and the mailboxes
that `mail.address` accepts besides. sendmail and Postfix accept all of this. Python's own header parser is not used: it
decodes encoded words within addresses, and silently leaves out what it cannot parse.

    addresses(text)   all of them; raises if one part of the list is not a mailbox
    parse_list(text)  those that are mailboxes, and the parts that are not

A part that is not a mailbox ends at the next comma or semicolon, so an open quote or parenthesis costs one part, not
the list.

Promises: no mailbox is lost, no part of a list either. `mail.address` accepts every address that is returned, and no
`BadAddress.text`. Pure, in time linear in the length.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mailrelay.mail.address import BadPath, is_address, parse_path
from mailrelay.mail.address_tokens import Damaged, tokens

Token = tuple[str, bytes]

_END = re.compile(rb"[,;]")
_UNPRINTABLE = re.compile(rb"[\x00-\x20\x7f]+")
MAX_BAD = 100
"""Parts of a list that are not mailboxes, at most. The rest of a list with more is one part."""
MAX_TEXT = 300
"""Octets of `BadAddress.text`, at most, before the "..." that marks a longer one."""


class BadAddress(ValueError):
    """A part of a list is not a mailbox. The exception's sentence contains the part, which is not escaped.

    text: the part, cut at MAX_TEXT, with a blank in place of control characters. `mail.address` does not accept it.
    """

    def __init__(self, text: bytes, reason: str = "") -> None:
        super().__init__(f"{_shown(text)} is not an address{reason and f': {reason}'}")
        self.text = _never_an_address(text)


def addresses(text: bytes) -> list[bytes]:
    """The mailboxes in `text`, in order, without angle brackets; [] for an empty list. Raises BadAddress."""
    found, bad = parse_list(text)
    if bad:
        raise bad[0]
    return found


def parse_list(text: bytes) -> tuple[list[bytes], list[BadAddress]]:
    """The mailboxes in `text`, in order, without angle brackets, and the parts that are not mailboxes."""
    found: list[bytes] = []
    bad: list[BadAddress] = []
    at = 0
    while at < len(text):
        if len(bad) == MAX_BAD:
            bad.append(BadAddress(text[at:]))
            break
        part = _part(text, at)
        try:
            if isinstance(part.tokens, BadAddress):
                raise part.tokens
            found.extend(_mailboxes(part.tokens, text[at : part.end]))
        except BadAddress as error:
            bad.append(error)
        at = part.next
    return found, bad


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a list: its tokens, or why it has none. end: where it ends. next: where the next one begins."""

    tokens: list[Token] | BadAddress
    end: int
    next: int


def _part(text: bytes, start: int) -> _Part:
    """The part of the list that begins at `start`: up to a comma, a semicolon, or the colon after the name of a group."""
    found: list[Token] = []
    try:
        for kind, token, end in tokens(text, start):
            if kind == "separator":
                return _Part(found, end - 1, end)
            if kind == "group":
                named = any(_may_be_of_an_address(*part) for part in found)
                return _Part(BadAddress(text[start:end]) if named else [], end, end)
            found.append((kind, token))
    except Damaged as error:
        comma = _END.search(text, error.at)
        end = comma.start() if comma else len(text)
        return _Part(BadAddress(text[start:end]), end, end + 1)
    return _Part(found, len(text), len(text))


def _may_be_of_an_address(kind: str, token: bytes) -> bool:
    """Whether a token must not be in the name of a group, because an address would be lost with it."""
    return kind == "angle" or token == b"@" or (b"\\@" in token and not token.startswith(b'"'))


def _mailboxes(parts: list[Token], text: bytes) -> list[bytes]:
    """The mailboxes in the tokens of the part `text`: one, none, or several whole ones. Raises BadAddress."""
    if not parts:
        return []
    try:
        return [_mailbox(parts, text)]
    except BadAddress:
        found = [_mailbox(one, text) for one in _between_spaces(parts)]
        # A word alone may be part of a name: `john smith@example.org` is not for smith.
        if len(found) > 1 and all(b"@" in one for one in found):
            return found
        raise


def _between_spaces(parts: list[Token]) -> Iterator[list[Token]]:
    """The tokens of each mailbox in a part that has no commas: a mailbox ends behind an address."""
    mailbox: list[Token] = []
    last = ""
    has_domain = False
    for kind, text in parts:
        if last == "angle" or (has_domain and kind == last == "word"):
            yield mailbox
            mailbox = []
            has_domain = False
        mailbox.append((kind, text))
        last = kind
        has_domain = has_domain or text == b"@"
    yield mailbox


def _mailbox(parts: list[Token], text: bytes) -> bytes:
    """The mailbox in the tokens of the part `text`, at least one. Raises BadAddress."""
    angles = [at for at, (kind, _) in enumerate(parts) if kind == "angle"]
    if angles and angles != [len(parts) - 1]:
        raise BadAddress(text)
    try:
        inner = parts[-1][1][1:-1]
        words = [(kind, token) for kind, token, _ in tokens(inner)] if angles else parts
        return parse_path(b"<%s>" % _joined(words, text), smtputf8=True, null=False)[0]
    except Damaged:
        raise BadAddress(text) from None
    except BadPath as error:
        raise BadAddress(text, str(error)) from None


def _joined(words: Iterable[Token], text: bytes) -> bytes:
    """An address without spaces and comments. Raises BadAddress(text) for two words with nothing between them."""
    parts: list[Token] = []
    for kind, token in words:
        if kind == "word" and parts and parts[-1][0] == "word":
            raise BadAddress(text)
        parts.append((kind, token))
    return b"".join(token for _, token in parts)


def _shown(text: bytes) -> str:
    return "'" + text[:60].decode("utf-8", "backslashreplace").strip() + "'"


def _never_an_address(text: bytes) -> bytes:
    """`text` for the spool, in place of an address: changed, if need be, so that `mail.address` does not accept it."""
    kept = _UNPRINTABLE.sub(b" ", text).strip()
    kept = kept if len(kept) <= MAX_TEXT else kept[:MAX_TEXT] + b" ..."
    return kept if kept and not is_address(kept) else b"%s (not an address)" % kept
