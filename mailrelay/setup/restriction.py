"""A key that is for mail alone: what authorized_keys says of it on the remote, and ssh_config here.

Over there the key may be used for one thing: forwarding to the mail server's port, or running the one command. `restrict`
takes everything away that sshd knows of, also what later versions will; but it leaves commands, so one is forced that does
nothing, and forwarding brings listening with it, which is limited to a port that this account cannot have. Pure.
"""

from pathlib import Path

from mailrelay.config import Relayhost
from mailrelay.ssh.hops import destination


def authorized(public: str, relayhost: Relayhost) -> str:
    """The line of authorized_keys that lets the key do what the relayhost needs, and nothing else (sshd(8)).

    public: the key's public line.
    """
    if relayhost.command:
        return f"restrict,command={_quoted(relayhost.command)} {public}"
    return f'restrict,port-forwarding,permitopen="{relayhost.smtp}",permitlisten="localhost:1",command="false" {public}'


def file(relayhost: Relayhost, settings: Path) -> Path:
    """Where that ssh_config is: beside the settings."""
    return settings.absolute().with_name(f"ssh_config.{host(relayhost)}")


def ssh_config(relayhost: Relayhost, key: Path) -> str:
    """An ssh_config with which the relayhost is reached with this key, and everything else stays as it was."""
    name = host(relayhost)
    return (
        f"# By `mailrelay setup --restricted`: mail to {name} goes with a key of its own, everything else as before.\n"
        f"Host {name}\n"
        f'  IdentityFile "{key}"\n'
        "  IdentitiesOnly yes\n"
        "  IdentityAgent none\n"
        "Match all\n"
        f'  Include "{relayhost.ssh_config}"\n'
        # Which ssh(1) reads by itself only where no file is named.
        '  Include "/etc/ssh/ssh_config"\n'
    )


def host(relayhost: Relayhost) -> str:
    """The host alone of what is given to ssh(1)."""
    return destination(relayhost.ssh)[1]


def _quoted(value: str) -> str:
    """As sshd(8) has it: in double quotes, those within escaped."""
    escaped = value.replace('"', '\\"')
    return f'"{escaped}"'
