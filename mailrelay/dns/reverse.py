"""DNS records of an IP address: its names, and whether a blacklist lists it. Pure except for the `LookUp`."""

import ipaddress

from mailrelay.dns.lookup import LookUp, reverse_name

MAX_NAMES = 10
"""Names of an address that are looked up."""
BLACKLISTS = ("zen.spamhaus.org", "bl.spamcop.net", "b.barracudacentral.org", "psbl.surriel.com", "all.s5h.net")
_LISTED = ipaddress.ip_network("127.0.0.0/8")
_REFUSED = ipaddress.ip_network("127.255.255.0/24")
"""The addresses by which blacklists report that they do not serve this resolver."""


async def names(look_up: LookUp, address: str) -> tuple[tuple[str, ...], str]:
    """The names of an address, and the first of them that resolves to the address, "" if none does. Raises LookUpFailed."""
    found = (await look_up(reverse_name(address), "PTR")).values[:MAX_NAMES]
    ip = ipaddress.ip_address(address)
    for name in found:
        values = (await look_up(name, "A" if ip.version == 4 else "AAAA")).values
        if any(ipaddress.ip_address(value) == ip for value in values):
            return found, name
    return found, ""


async def is_listed(look_up: LookUp, address: str, blacklist: str) -> bool | None:
    """Whether a blacklist (RFC 5782) lists the address, None if it does not serve this resolver. Raises LookUpFailed."""
    name = reverse_name(address).rpartition(".")[0].rpartition(".")[0]
    answers = [ipaddress.ip_address(value) for value in (await look_up(f"{name}.{blacklist}", "A")).values]
    if any(answer in _REFUSED for answer in answers):
        return None
    return any(answer in _LISTED for answer in answers)
