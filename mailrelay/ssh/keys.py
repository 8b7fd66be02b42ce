"""What a host would be asked to let us in with, found out without asking it."""

from mailrelay.ssh.connection import Client
from mailrelay.ssh.hops import Hop


async def usable(hop: Hop) -> tuple[bool, list[str]]:
    """Whether there is any key to log in with, and what would be tried: key files and what is wrong with them, agents."""
    client = Client(hop)
    try:
        return bool(await client.public_key_auth_requested()), client.seen.tried
    finally:
        client.auth_completed()


def fix(hop: Hop) -> str:
    """The step that gives us a key where there is none that can be used."""
    steps = [identity.fix for identity in hop.identities if identity.fix]
    make = (
        f"Make a key (ssh-keygen -t ed25519), and add its .pub to ~/.ssh/authorized_keys of {hop.user} at {hop.place}"
    )
    return next(iter(steps), make)
