"""Addresses for the test message of `mailrelay setup`. Pure."""

from collections.abc import Sequence

from mailrelay.config import Settings
from mailrelay.mail.routing import choose
from mailrelay.setup.settings import of_host


def own_address(user: str, greeting: str, host: str) -> str:
    """The person's address on `host`, at the name in its mail server's greeting (RFC 5321 section 4.2).

    greeting: the first line, with its code. host: as given to ssh(1), for a greeting without a domain.
    """
    name = greeting[4:].partition(" ")[0]
    return f"{user}@{name if '.' in name else host.rpartition('@')[2]}"


def sender_for(settings: Settings, host: str, own: Sequence[bytes]) -> bytes | None:
    """A reverse path for which the relayhost of `host` is used: the first of `own` for which it is used, else one that its
    `senders` match; None if there is none."""
    relayhost = of_host(settings, host)
    if relayhost is None:
        return None
    # For a pattern of a whole domain, any address of the domain.
    made = (pattern.replace("*@*.", "*@any.").replace("*", "postmaster", 1) for pattern in relayhost.senders)
    candidates = (*own, *(address.encode() for address in made))
    return next((one for one in candidates if choose(one, settings.relayhosts) == relayhost.name), None)
