"""The mailboxes in an address list as RFC 5322 section 3.4 has it: the value of To, Cc and Bcc, and sendmail(1)'s arguments.

Display names, comments and groups go, the addresses stay as they were written. Besides the grammar, as people and programs
write it: empty places between commas, `;` in place of a comma, dots and spaces in display names, a mailbox without a
domain. Not Python's parser of headers: it decodes encoded words within addresses, and forgives by leaving out.

Promises: no mailbox is lost in silence; what does not read as one raises. Every address that comes out is one that
`mail.address` takes. Pure, in time linear in the length.
"""

import re

from mailrelay.mail.address import BadPath, parse_path

_TOKEN = re.compile(
    rb"""(?P<space>[ \t\r\n]+)
    | (?P<comment>\()
    | (?P<angle> < (?: "(?:[^"\\]|\\.)*+" | [^<>"] )*+ > )
    | (?P<word> "(?:[^"\\]|\\.)*+" | \[[^\[\]\\]*+\] | [^\s()<>\[\]:;@\\,."\x00-\x1f\x7f]++ )
    | (?P<joint>[.@])
    | (?P<end>[,;])
    | (?P<group>:)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_PART = re.compile(rb"[^()\\]*+(?:\\.[^()\\]*+)*+([()])", re.DOTALL)


class BadAddress(ValueError):
    """Not a list of addresses. The text says what does not read as one; it is from outside and not escaped."""


def addresses(text: bytes) -> list[bytes]:
    """The mailboxes in `text`, in its order; without angle brackets. [] for an empty list. Raises BadAddress."""
    found = []
    words: list[bytes] = []
    """What may be a bare mailbox, or the display name before one in angle brackets."""
    angle: bytes | None = None
    for kind, token in [*_tokens(text), ("end", b",")]:
        match kind:
            case "end":
                if angle is not None:
                    found.append(_checked(_joined(list(_tokens(angle[1:-1])), route=True)))
                elif any(word.strip() for word in words):
                    found.append(_checked(b"<"))
                words, angle = [], None
    return found
