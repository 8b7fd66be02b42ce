"""The interface of a DNS query and its result, for modules that do not depend on the resolver. Pure."""

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


class LookUpFailed(Exception):
    """The DNS gave no answer. The text is one sentence."""


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one type at a name; none if there is no such name or record. values: as in a zone file, names without
    the last dot; for TXT the text itself, its octets as Latin-1. secure: validated by DNSSEC, see `dns.resolver`."""

    values: tuple[str, ...] = ()
    secure: bool = False


LookUp = Callable[[str, str], Awaitable[Records]]
"""Takes a name and a record type, such as "MX". Raises LookUpFailed."""


def reverse_name(address: str) -> str:
    """The name at which an IP address has its PTR record: `1.2.0.192.in-addr.arpa`. Raises ValueError."""
    return ipaddress.ip_address(address).reverse_pointer


def is_address(name: str) -> bool:
    """Whether a host is an IP address, for which the DNS has records only at its `reverse_name`."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
