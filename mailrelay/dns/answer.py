"""What a question to the DNS is, and what an answer, for the rooms that ask without knowing how it is done. Pure."""

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


class Unanswered(Exception):
    """The DNS gave no answer. The text is one sentence."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The records of one kind that a name has. values: as in a zone file, names without the last dot; those of TXT are
    the text itself, its octets as Latin-1. secure: validated by DNSSEC, see above."""

    values: tuple[str, ...] = ()
    secure: bool = False


LookUp = Callable[[str, str], Awaitable[Answer]]
"""A name and a kind of record in; raises Unanswered."""


def reverse_name(address: str) -> str:
    """The name below which an IP address is looked up: `1.2.0.192.in-addr.arpa`. Raises ValueError."""
    return ipaddress.ip_address(address).reverse_pointer


def is_address(name: str) -> bool:
    """Whether a host is an IP address, of which the DNS has no records but by `reverse_name`."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
