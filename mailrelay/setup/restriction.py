"""A key that only delivers mail: its line in authorized_keys on the remote, and its ssh_config here. Pure.

On the remote the key is allowed one use: forwarding to the mail server's port, or running the one command. The option
`restrict` disables everything that sshd can disable, in later versions too, except commands. So a command that does nothing
is forced, or the one that records and follows mail (`ssh.forced_command`). `port-forwarding` also permits remote forwarding,
which is limited to a port that the account cannot bind.
"""

from pathlib import Path

from mailrelay.config import Relayhost
from mailrelay.ssh.forced_command import forced_command
from mailrelay.ssh.hops import parse_destination


def authorized_keys_line(public: str, relayhost: Relayhost, *, track: bool = False) -> str:
    """The line of authorized_keys that allows the key what the relayhost needs, and nothing else (sshd(8)).

    public: the key's public line. track: allow it, too, to record conversations and to ask about accepted messages. Raises
    ValueError if a command of the settings cannot be quoted.
    """
    command = relayhost.command or "false"
    if track:
        list_queue = "" if relayhost.track in ("auto", "off") else relayhost.track
        command = forced_command(relayhost.smtp, list_queue=list_queue, speak_smtp=relayhost.command)
    if relayhost.command:
        return f"restrict,command={_quoted(command)} {public}"
    forwarding = f'port-forwarding,permitopen="{relayhost.smtp}",permitlisten="localhost:1"'
    return f"restrict,{forwarding},command={_quoted(command)} {public}"


def ssh_config_file(relayhost: Relayhost, settings: Path) -> Path:
    """The path of that ssh_config: in the directory of the settings."""
    return settings.absolute().with_name(f"ssh_config.{host(relayhost)}")


def ssh_config(relayhost: Relayhost, key: Path) -> str:
    """An ssh_config that uses this key for the relayhost, and includes the person's own for everything else."""
    name = host(relayhost)
    return (
        f"# Written by `mailrelay setup --restricted`: mail to {name} uses a key of its own, all else is as before.\n"
        f"Host {name}\n"
        f'  IdentityFile "{key}"\n'
        "  IdentitiesOnly yes\n"
        "  IdentityAgent none\n"
        "Match all\n"
        f'  Include "{relayhost.ssh_config}"\n'
        # ssh(1) does not read it by itself if a file is named with -F.
        '  Include "/etc/ssh/ssh_config"\n'
    )


def host(relayhost: Relayhost) -> str:
    """The host in the destination for ssh(1), without user and port."""
    return parse_destination(relayhost.ssh)[1]


def _quoted(value: str) -> str:
    """In double quotes, with the inner ones escaped, as sshd(8) requires."""
    escaped = value.replace('"', '\\"')
    return f'"{escaped}"'
