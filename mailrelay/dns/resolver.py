"""DNS queries through dnspython, with a limit on the time of each.

    resolver = Resolver()                             # as /etc/resolv.conf says; or Resolver("192.0.2.53:53")
    records = await resolver.look_up("example.org", "MX")

Promises: a result within `TIMEOUT` seconds, or `LookUpFailed`. A name or record that does not exist gives an empty result.
Results are text from outside and are not escaped.
A result is secure only if the resolver reports it as validated by DNSSEC (the AD bit, RFC 4035 section 3.2.3) and nothing
between the resolver and this program can have set that bit: the resolver is on this machine, or resolv.conf(5) has
`trust-ad`, with which the administrator declares the network path to it trustworthy. This module validates no signatures.
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

from mailrelay.dns.lookup import LookUpFailed, Records

TIMEOUT = 6.0
"""Seconds for one query, with all retries."""
PORT = 53
RESOLV_CONF = Path("/etc/resolv.conf")
_NAMESERVER = re.compile(r"(?P<v4>[^:]+)(?::(?P<port>\d+))?|\[(?P<v6>[^]]+)\](?::(?P<port6>\d+))?|(?P<bare>[^]\[]+)")


class Resolver:
    """Queries this machine's resolvers. nameserver: `ADDRESS` or `ADDRESS:PORT` of another one, IPv6 in brackets.

    is_trusted: whether the AD bit of its replies counts. Raises ValueError for an invalid `nameserver`.
    """

    def __init__(self, nameserver: str = "") -> None:
        self._config_error = ""
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        if not nameserver:
            try:
                self._resolver.read_resolv_conf(str(RESOLV_CONF))
            except (dns.exception.DNSException, OSError) as error:
                self._config_error = f"this machine names no DNS resolver: {error}"
        else:
            address, self._resolver.port = _address_and_port(nameserver)
            self._resolver.nameservers = [address]
        self._resolver.cache = dns.resolver.LRUCache()
        self._resolver.lifetime = TIMEOUT
        # AD in a query requests the AD bit in the reply, without the signatures (RFC 6840 section 5.7).
        self._resolver.flags = dns.flags.RD | dns.flags.AD
        self._resolver.use_edns(0, 0, 1232)
        is_local = all(_is_loopback(str(server)) for server in self._resolver.nameservers)
        self.is_trusted = is_local or (not nameserver and _trusts_ad(RESOLV_CONF))

    async def look_up(self, name: str, kind: str) -> Records:
        """The records of a type, such as "TXT", at `name`; none for an invalid name. Raises LookUpFailed."""
        if self._config_error:
            raise LookUpFailed(self._config_error)
        try:
            parsed = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError):
            return Records()
        try:
            found = await self._resolver.resolve(parsed, kind, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return Records()
        except dns.exception.Timeout:
            raise LookUpFailed(f"the DNS did not answer within {TIMEOUT:.0f} s: {kind} of {name}") from None
        except (dns.exception.DNSException, OSError):
            raise LookUpFailed(f"the DNS has no answer for {kind} of {name}") from None
        secure = self.is_trusted and bool(found.response.flags & dns.flags.AD)
        return Records(tuple(_text(record) for record in found.rrset or ()), secure)


def _text(record: dns.rdata.Rdata) -> str:
    if isinstance(record, dns.rdtypes.ANY.TXT.TXT):
        return b"".join(record.strings).decode("latin-1")
    text = record.to_text()
    # The null MX of RFC 7505 stays as it is.
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
