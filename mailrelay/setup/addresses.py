"""Addresses for the test message of `mailrelay setup`. Pure."""

from collections.abc import Sequence

from mailrelay.config import Settings
from mailrelay.mail.completion import account_address
from mailrelay.mail.routing import choose
from mailrelay.setup.settings import of_host


def own_address(user: str, server_names: Sequence[bytes], host: str) -> str:
    """The person's address on `host`; "" if there is none (`mail.completion.account_address`).

    server_names: the mail server's names for itself. host: as given to ssh(1).
    """
    return account_address(user, server_names, host.rpartition("@")[2]).decode()


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
