"""Completes the bare addresses in a header, as sendmail does: `From: root (Cron Daemon)`, `To: root`, `Cc: Me <me>`.

    complete(content, domain)    content with `@domain` behind each bare address

Only mail that local programs hand in through sendmail(1) is completed; what comes by SMTP stays as it is. The domain is put
behind the local part. In a Message-ID that mailrelay has added while no domain was known, the domain replaces `localhost`.
Nothing else changes.

Promises: pure; accepts any octets, in linear time; a second call changes nothing. A field whose value is not a list of
addresses stays as it is, and so does a header with a DKIM signature.
"""

import itertools
import re
from collections.abc import Iterator
from contextlib import suppress

from mailrelay.mail.a_labels import domain_in_a_labels
from mailrelay.mail.address import BadPath, parse_path
from mailrelay.mail.address_tokens import Damaged, Token, tokens
from mailrelay.mail.completion import is_bare

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\n]*\n)(?:[ \t][^\n]*\n)*)")
_NAMES = frozenset((b"from", b"sender", b"reply-to", b"to", b"cc"))
_NAMES |= {b"resent-" + name for name in _NAMES}
_OUR_MESSAGE_ID = re.compile(rb"\.mailrelay@localhost>\s*")
"""The end of a Message-ID that mailrelay has added while no domain was known (`mail.record`)."""


def complete(content: bytes, domain: bytes) -> bytes:
    """`content` with its bare addresses completed. content: a header, or the beginning of one, and what follows it. domain:
    not empty; one that is not ASCII is written in A-labels (RFC 5890), so that the header stays ASCII."""
    with suppress(UnicodeError):
        domain = domain_in_a_labels(domain) or domain
    parts: list[bytes] = []
    at = 0
    while field := _FIELD.match(content, at):
        name = field[1].lower()
        if name == b"dkim-signature":
            return content
        value = field[2]
        if name in _NAMES:
            value = _completed(value, domain)
        elif name == b"message-id" and (ours := _OUR_MESSAGE_ID.search(value)):
            value = b"%b.mailrelay@%b>%b" % (value[: ours.start()], domain, b"\r\n")
        parts += content[at : field.start(2)], value
        at = field.end()
    return b"".join((*parts, content[at:]))


def needs_completion(content: bytes) -> bool:
    """Whether `complete` changes the header: it has bare addresses, or a Message-ID of ours that has no domain yet."""
    return complete(content, b"x") != content


def _completed(value: bytes, domain: bytes) -> bytes:
    try:
        ends = list(_ends_of_bare(value))
    except Damaged:
        return value
    cuts = [0, *ends, len(value)]
    return (b"@" + domain).join(value[start:end] for start, end in itertools.pairwise(cuts))


def _ends_of_bare(value: bytes) -> Iterator[int]:
    """The offset of the end of each bare address in an address list (RFC 5322 section 3.4). Raises Damaged."""
    mailbox: list[Token] = []
    for token in tokens(value):
        match token[0]:
            case "separator":
                yield from _end_if_bare(mailbox)
                mailbox = []
            case "group":
                mailbox = []
            case _:
                mailbox.append(token)
    yield from _end_if_bare(mailbox)


def _end_if_bare(mailbox: list[Token]) -> Iterator[int]:
    """The offset of the end of the mailbox's address if it is bare, else nothing. mailbox: its tokens."""
    if not mailbox:
        return
    kinds = [kind for kind, _, _ in mailbox]
    _, last, end = mailbox[-1]
    if kinds.count("angle") == 1 and kinds[-1] == "angle":
        inner = last[1:-1].rstrip()
        address, end = inner.lstrip(), end - len(last) + 1 + len(inner)
    # An address without angle brackets: words with a joint between each two.
    elif set(kinds[::2]) == {"word"} and set(kinds[1::2]) <= {"joint"}:
        address = b"".join(octets for _, octets, _ in mailbox)
    else:
        return
    # An encoded word is text for people, not an address.
    if not address.startswith(b"=?") and _is_bare_path(address):
        yield end


def _is_bare_path(address: bytes) -> bool:
    try:
        return is_bare(parse_path(b"<%b>" % address, smtputf8=True, null=False)[0])
    except BadPath:
        return False
