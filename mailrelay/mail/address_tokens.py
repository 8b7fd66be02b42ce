"""The tokens of an address list (RFC 5322 section 3.4): of To, Cc and Bcc, and of arguments of sendmail(1).

    tokens(text)    each token as (kind, octets, end): the kind is word, angle, joint, group or separator

Spaces and comments are left out. A word is an atom, a quoted string, a domain literal or an encoded word; an angle is all
from `<` to `>`; a joint is `.` or `@`; a group is the colon after the name of a group; a separator is `,` or `;`. Other
than in the RFC, an atom may contain a backslash and the character after it (`CORP\\alice`).

Promises: pure, in time linear in the length. The octets of the tokens are those of the text.
"""

import re
from collections.abc import Iterator

_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_CHAR = r'[^\s()<>\[\]:;@\\,."\x00-\x1f\x7f]'
_TOKEN = re.compile(
    rf"""(?P<space>[ \t\r\n]+)
    | (?P<comment>\()
    | (?P<angle> < [^<>"]* (?:{_QUOTED}[^<>"]*)* > )
    | (?P<word> =\?[^?\s]+\?[BbQq]\?[^?\s]*\?= | {_QUOTED} | \[[^\[\]\\]*\] | (?:{_CHAR}|\\[!-~\x80-\xff])+ )
    | (?P<joint>[.@])
    | (?P<separator>[,;])
    | (?P<group>:)
    """.encode(),
    re.VERBOSE | re.DOTALL,
)
_COMMENT_PART = re.compile(rb"[^()\\]*(?:\\.[^()\\]*)*([()])", re.DOTALL)

Token = tuple[str, bytes, int]
"""The kind, the octets, and the offset in the text right after them."""


class Damaged(ValueError):
    """No token begins at the offset `at`, or the comment that begins there has no end."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


def tokens(text: bytes, at: int = 0) -> Iterator[Token]:
    """The tokens of `text` from the offset `at` on. Raises Damaged."""
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise Damaged(at)
        at = token.end()
        if token.lastgroup == "comment":
            at = _comment_end(text, at)
        elif token.lastgroup is not None and token.lastgroup != "space":
            yield token.lastgroup, token[0], at


def _comment_end(text: bytes, start: int) -> int:
    """The end of the comment whose opening parenthesis is right before `start`. Comments nest. Raises Damaged."""
    depth = 1
    at = start
    while depth:
        part = _COMMENT_PART.match(text, at)
        if part is None:
            raise Damaged(start - 1)
        depth += 1 if part[1] == b"(" else -1
        at = part.end()
    return at
