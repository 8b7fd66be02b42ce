"""Addresses as SMTP commands carry them: the Path of RFC 5321 section 4.1.2, on raw bytes, with RFC 6531's UTF-8.

Promises: the mailbox returned is the mailbox in the argument, octet for octet. It holds no control character (C0, C1, DEL,
and so no CR, LF, NUL or ESC), no line separator and no invalid UTF-8, and outside a quoted string no space, no angle bracket
and no quote. So it can be written into another command as it is. A backslash outside a quoted string stands before a letter,
a digit, a dot or the like: the path has the same end for a reader that knows backslashes and for one that does not.

The mail server decides about the rest, as far as sendmail and Postfix take it. Accepted besides the grammar:
- spaces between the colon and the path, which some clients send;
- a local part without a domain (`root`, `postmaster`), which cron and callers of sendmail(1) use;
- dots at either end of a local part, and two or more in a row: such mailboxes exist (`taro..y.@docomo.ne.jp`). They are not
  quoted for the mail server: sendmail and Postfix take both forms, and this one is the name of the mailbox elsewhere;
- a backslash in a local part (`CORP\\alice@…`), and quoted strings between dots (section 4.4 of RFC 5322);
- in a domain, underscores, hyphens at the ends of labels, and a dot at the end.
A source route is checked and dropped (section 4.1.1.3, appendix C).

Lengths: section 4.5.3.1 limits a local part to 64 octets, but recommends to avoid limits, and VERP and SRS exceed this one;
so a local part has no limit of its own. A domain has at most 255 octets, a label 63. A mailbox has at most the octets that
fit into a command line of 512 octets, the longest that every mail server must accept.
"""

import ipaddress
import re
import unicodedata

MAX_MAILBOX = 512 - len("MAIL FROM:<>\r\n")
"""Octets of a mailbox, at most."""
MAX_DOMAIN = 255
MAX_LABEL = 63

# Sets of characters are negated: `re` takes milliseconds to compile a range up to U+10FFFF.
ATEXT = r'[^\x00-\x20"(),.:;<>@\[\\\]\x7f]'
"""A pattern of one character of an atom (RFC 5322 section 3.2.3, with RFC 6531's UTF-8)."""
_ATOM = rf'(?:{ATEXT}|\\[^\x00-\x20"(),:;<>@\[\]\x7f])+'
_QUOTED_STRING = r'"(?:[^\x00-\x1f"\\\x7f]|\\[ -~])*"'
_WORD = rf"(?:{_ATOM}|{_QUOTED_STRING})"
_LOCAL_PART = rf"\.*{_WORD}(?:\.+{_WORD})*\.*"
_DOMAIN = r"[^\s@<>\[\]:,\"\\()]+"
_LITERAL = r"\[[A-Za-z0-9:.\-]*\]"
_PATH = re.compile(
    rf"(?:(?P<route>@{_DOMAIN}(?:,@{_DOMAIN})*):)?"
    rf"(?P<mailbox>{_LOCAL_PART}(?:@(?P<domain>{_DOMAIN}|{_LITERAL}))?)>"
)
_ASCII_LABEL = re.compile(r"[A-Za-z0-9_\-]+")
_CONTEXTUAL = frozenset("\u200c\u200d\u00b7\u0375\u05f3\u05f4\u30fb")
"""Characters that RFC 5892 allows in a U-label besides letters, marks and numbers, in certain contexts. The context is not
checked."""


class BadPath(ValueError):
    """Not a path of RFC 5321. The text gives the reason, in ASCII, and repeats nothing of the argument."""


def is_address(text: bytes) -> bool:
    """Whether `text` is a mailbox as it is, without angle brackets."""
    try:
        return parse_path(b"<%s>" % text, smtputf8=True, null=False) == (text, b"")
    except BadPath:
        return False


def parse_path(arg: bytes, *, smtputf8: bool, null: bool) -> tuple[bytes, bytes]:
    """The mailbox in `arg`, as sent but without angle brackets and source route, and the ESMTP parameters after it.

    arg: the octets after `FROM:` or `TO:`, without the line end. smtputf8: whether UTF-8 may occur (RFC 6531). null:
    whether `<>`, the null reverse path, is accepted; it is returned as b"". The parameters are returned without the space
    before them (see `listener.parameters`). Raises BadPath.
    """
    try:
        text = arg.decode("utf-8" if smtputf8 else "ascii").lstrip(" ")
    except UnicodeDecodeError:
        raise BadPath("the path is not valid UTF-8" if smtputf8 else "the path is not ASCII") from None
    if not text.startswith("<"):
        raise BadPath("the path must be in angle brackets")
    if text.startswith("<>"):
        if not null:
            raise BadPath("the path is empty")
        return b"", _rest(text[2:])
    found = _PATH.match(text, 1)
    if found is None:
        raise BadPath("the path does not follow RFC 5321")
    _check_characters(found[0])
    if found["route"]:
        for domain in found["route"].split(","):
            _check_domain(domain.removeprefix("@"))
    if found["domain"]:
        _check_domain(found["domain"])
    mailbox = found["mailbox"].encode()
    if len(mailbox) > MAX_MAILBOX:
        raise BadPath(f"the address is longer than {MAX_MAILBOX} octets")
    return mailbox, _rest(text[found.end() :])


def _rest(text: str) -> bytes:
    if text and not text.startswith(" "):
        raise BadPath("a space is missing after the path")
    return text.lstrip(" ").encode()


def _check_characters(text: str) -> None:
    """Refuses characters that no address needs and that affect a terminal, a log or a parser of lines."""
    if not text.isascii() and any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in text):
        raise BadPath("the path contains a control character")


def _check_domain(domain: str) -> None:
    if domain.startswith("["):
        _check_literal(domain[1:-1])
        return
    if len(domain.encode()) > MAX_DOMAIN:
        raise BadPath(f"the domain is longer than {MAX_DOMAIN} octets")
    for label in domain.removesuffix(".").split("."):
        if label.isascii():
            if len(label) > MAX_LABEL or _ASCII_LABEL.fullmatch(label) is None:
                raise BadPath("the domain does not follow RFC 5321")
        elif any(not char.isascii() and not _in_u_label(char) for char in label) or not _has_valid_ascii(label):
            raise BadPath("the domain does not follow RFC 5890")


def _in_u_label(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMN" or char in _CONTEXTUAL


def _has_valid_ascii(label: str) -> bool:
    """Whether the ASCII in a U-label is letters, digits and hyphens, with no hyphen at either end (RFC 5891 4.2.3.1)."""
    ascii_part = "".join(char for char in label if char.isascii() and char != "-")
    return (not ascii_part or ascii_part.isalnum()) and not label.startswith("-") and not label.endswith("-")


def _check_literal(literal: str) -> None:
    """RFC 5321 section 4.1.3. IPv6 is the only registered tag; no other one is accepted."""
    try:
        if literal[:5].upper() == "IPV6:":
            ipaddress.IPv6Address(literal[5:])
        else:
            ipaddress.IPv4Address(literal)
    except ValueError:
        raise BadPath("the address literal is not an IP address") from None
