"""Questions to the DNS, with a bound on the time of each.

    resolver = Resolver()                             # as /etc/resolv.conf says; or Resolver("192.0.2.53:53")
    answer = await resolver.look_up("example.org", "MX")

Promises: an answer within `PATIENCE` seconds, or `Unanswered`. That there is no such name or record is an answer, an empty
one. What comes from the DNS is text from outside: it is not escaped here.
Secure is an answer only where the resolver says that it was validated (the AD bit, RFC 4035 section 3.2.3) and that word
cannot have been put in on the way: the resolver is on this machine, or resolv.conf(5) has `trust-ad`, by which whoever
administers the machine vouches for the way to it. We validate nothing ourselves.
"""

import ipaddress
import re
from pathlib import Path

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.name
import dns.rdata
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.TXT
import dns.resolver

from mailrelay.dns.answer import Answer, Unanswered

PATIENCE = 6.0
"""Seconds for an answer, with all retries."""
PORT = 53
RESOLV_CONF = Path("/etc/resolv.conf")
_NAMESERVER = re.compile(r"(?P<v4>[^:]+)(?::(?P<port>\d+))?|\[(?P<v6>[^]]+)\](?::(?P<port6>\d+))?|(?P<bare>[^]\[]+)")


class Resolver:
    """Asks the machine's own resolvers. nameserver: `ADDRESS` or `ADDRESS:PORT` of another one, IPv6 in brackets.

    is_trusted: whether its word that an answer was validated counts. Raises ValueError for a nameserver that is none.
    """

    def __init__(self, nameserver: str = "") -> None:
        self._broken = ""
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        if not nameserver:
            try:
                self._resolver.read_resolv_conf(str(RESOLV_CONF))
            except (dns.exception.DNSException, OSError) as error:
                self._broken = f"this machine names no DNS resolver: {error}"
        if nameserver:
            address, self._resolver.port = _address_and_port(nameserver)
            self._resolver.nameservers = [address]
        self._resolver.cache = dns.resolver.LRUCache()
        self._resolver.lifetime = PATIENCE
        # Without asking for signatures: only whether somebody has looked at them (RFC 6840 section 5.7).
        self._resolver.flags = dns.flags.RD | dns.flags.AD
        self._resolver.use_edns(0, 0, 1232)
        here = all(_is_loopback(str(server)) for server in self._resolver.nameservers)
        self.is_trusted = here or (not nameserver and _trusts_ad(RESOLV_CONF))

    async def look_up(self, name: str, kind: str) -> Answer:
        """The records of a kind, "TXT" or "MX", that `name` has. A name that cannot exist has none. Raises Unanswered."""
        if self._broken:
            raise Unanswered(self._broken)
        try:
            asked = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError):
            return Answer()
        try:
            found = await self._resolver.resolve(asked, kind, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return Answer()
        except dns.exception.Timeout:
            raise Unanswered(f"the DNS did not answer in {PATIENCE:.0f} s when asked for {kind} of {name}") from None
        except (dns.exception.DNSException, OSError):
            raise Unanswered(f"the DNS has no answer for {kind} of {name}") from None
        secure = self.is_trusted and bool(found.response.flags & dns.flags.AD)
        return Answer(tuple(_text(record) for record in found.rrset or ()), secure)


def _text(record: dns.rdata.Rdata) -> str:
    if isinstance(record, dns.rdtypes.ANY.TXT.TXT):
        return b"".join(record.strings).decode("latin-1")
    text = record.to_text()
    return text if text == "0 ." else text.removesuffix(".")


def _address_and_port(nameserver: str) -> tuple[str, int]:
    found = _NAMESERVER.fullmatch(nameserver)
    port = int(found["port"] or found["port6"] or PORT) if found else 0
    if found is None or not 0 < port < 65536:
        raise ValueError(f"{nameserver!r} is not ADDRESS or ADDRESS:PORT")
    return str(ipaddress.ip_address(found["v4"] or found["v6"] or found["bare"])), port


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _trusts_ad(resolv_conf: Path) -> bool:
    try:
        lines = resolv_conf.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(words[:1] == ["options"] and "trust-ad" in words for words in map(str.split, lines))
