"""Domains in ASCII: the A-labels of an internationalized domain (RFC 5890), for mail servers without SMTPUTF8.

A domain that is not ASCII needs no SMTPUTF8, only a local part that is not does (RFC 6531 section 3.7.1, RFC 5891). Letters
are mapped as RFC 5895 recommends: lower case, full-width and half-width forms replaced, NFC. The standard library's codec
`idna` follows the older IDNA2003, which gives other domains for some letters (`ß`), so only its Punycode is used. The
library `idna` is not used: another dependency and 4 ms of `mailrelay sendmail`, for checks that the mail server makes.

Pure. `mail.address` checks that a domain has only characters that U-labels may have.
"""

import unicodedata

from mailrelay.mail.address import MAX_DOMAIN, MAX_LABEL


def with_a_labels(address: bytes) -> bytes | None:
    """The address with its domain in A-labels; None if it is bare, its local part is not ASCII, or the domain would be too
    long.

    address: valid for `mail.address`, in UTF-8.
    """
    local, at, domain = address.rpartition(b"@")
    converted = domain_in_a_labels(domain) if at and local.isascii() else None
    return None if converted is None else b"%b@%b" % (local, converted)


def domain_in_a_labels(domain: bytes) -> bytes | None:
    """The domain in A-labels; None if it would be too long. domain: valid for `mail.address`, in UTF-8.

    Raises UnicodeDecodeError if it is not UTF-8.
    """
    labels = [_a_label(label) for label in domain.decode().split(".")]
    converted = b".".join(labels)
    if len(converted) > MAX_DOMAIN or any(len(label) > MAX_LABEL for label in labels):
        return None
    return converted


def _a_label(label: str) -> bytes:
    if label.isascii():
        return label.encode()
    # Character by character: str.lower() maps a sigma at the end of a word to another letter (final sigma).
    mapped = unicodedata.normalize("NFC", "".join(_narrowed(char).lower() for char in label))
    return mapped.encode() if mapped.isascii() else b"xn--" + mapped.encode("punycode")


def _narrowed(char: str) -> str:
    """A full-width or half-width form replaced by the ordinary character (RFC 5895 section 2)."""
    is_form = unicodedata.decomposition(char).startswith(("<wide>", "<narrow>"))
    return unicodedata.normalize("NFKC", char) if is_form else char
