"""Domains at which many people have their mailboxes: an address at a domain that is similar to one of them is mistyped,
more likely than not. For a refused address that is similar to none of the person's own correspondents.

Pure. `mail.address_suggestion` compares.
"""

from mailrelay.mail.address_suggestion import nearest, parts

DOMAINS = (
    "gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "hotmail.co.uk", "hotmail.fr", "live.com", "msn.com",
    "yahoo.com", "yahoo.co.uk", "yahoo.co.jp", "yahoo.fr", "yahoo.de", "icloud.com", "me.com", "mac.com", "aol.com",
    "proton.me", "protonmail.com", "fastmail.com", "zoho.com", "mailbox.org", "posteo.de", "gmx.de", "gmx.net", "gmx.com",
    "gmx.at", "gmx.ch", "web.de", "t-online.de", "freenet.de", "orange.fr", "free.fr", "laposte.net", "sfr.fr", "wanadoo.fr",
    "libero.it", "virgilio.it", "tiscali.it", "bluewin.ch", "telenet.be", "skynet.be", "ziggo.nl", "kpnmail.nl", "xs4all.nl",
    "btinternet.com", "sky.com", "comcast.net", "verizon.net", "att.net", "sbcglobal.net", "rogers.com", "shaw.ca",
    "bigpond.com", "qq.com", "163.com", "126.com", "naver.com", "daum.net", "docomo.ne.jp", "mail.ru", "yandex.ru",
    "seznam.cz", "wp.pl", "o2.pl", "interia.pl", "uol.com.br", "bol.com.br", "terra.com.br", "rediffmail.com",
)  # fmt: skip


def at_common_domain(address: bytes) -> bytes:
    """`address` at the common domain that its own is most similar to; b"" if it is similar to none, or is one itself."""
    local, domain = parts(address)
    if not local or not domain:
        return b""
    return nearest(address, (b"%s@%s" % (local, known.encode()) for known in DOMAINS)) or b""
