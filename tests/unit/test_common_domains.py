"""Mistyped addresses at the domains at which many people have their mailboxes."""

import pytest

from mailrelay.mail.address import is_address
from mailrelay.mail.common_domains import DOMAINS, at_common_domain

# Those of which no other one is as similar when the last letter before the dot is doubled.
LIKELY = (
    "gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "yahoo.com", "icloud.com", "protonmail.com", "fastmail.com",
    "mailbox.org", "posteo.de", "t-online.de", "freenet.de", "orange.fr", "laposte.net", "wanadoo.fr", "libero.it",
    "virgilio.it", "tiscali.it", "bluewin.ch", "telenet.be", "skynet.be", "ziggo.nl", "kpnmail.nl", "btinternet.com",
    "comcast.net", "verizon.net", "sbcglobal.net", "rogers.com", "bigpond.com", "docomo.ne.jp", "yandex.ru", "seznam.cz",
    "interia.pl", "uol.com.br", "bol.com.br", "terra.com.br", "rediffmail.com", "web.de", "gmx.de", "mail.ru",
)  # fmt: skip


@pytest.mark.parametrize("domain", DOMAINS)
def test_an_address_at_a_common_domain_is_not_mistyped(domain: str) -> None:
    address = b"someone@%s" % domain.encode()
    assert is_address(address)
    assert domain == domain.lower()
    assert at_common_domain(address) == b""
    assert at_common_domain(address.upper()) == b""


def test_each_common_domain_is_named_once() -> None:
    assert len(set(DOMAINS)) == len(DOMAINS)


@pytest.mark.parametrize("domain", LIKELY)
def test_an_address_at_a_domain_with_a_typing_error_gets_the_common_domain(domain: str) -> None:
    name, _, rest = domain.partition(".")
    assert at_common_domain(f"Someone@{name}{name[-1]}.{rest}".encode()) == f"Someone@{domain}".encode()


@pytest.mark.parametrize("address", [b"someone@example.org", b"someone", b"@gmial.com", b"", b"gmial.com@"])
def test_other_addresses_get_no_common_domain(address: bytes) -> None:
    assert at_common_domain(address) == b""
