"""`mailrelay setup [USER@]HOST`: from nothing to a test letter that has arrived, in eight steps that may be run again.

    1  a key: the one that ssh would use; an ed25519 key is made only if there is none
    2  the host key: shown, and pinned only after a yes (as `mailrelay trust`)
    3  the login: where the key is not let in yet, it is put into authorized_keys there, with the password asked for once
    4  the way: forwarding to the mail server's port, or a command, whichever greets
    5  with --restricted, a key of its own that can do nothing but that, and the proof that it cannot
    6  the settings: a new file, or what the person's own lacks
    7  the service: a unit for systemd or launchd, started
    8  a test letter, followed to its end

Each step finds out first whether it is done already, says what it did, and how to undo it. --yes answers every question,
but takes no host key in the place of a known one. Exit status: 0 only if the test letter was taken; 1 where something is in
the way, with the step that fixes it; 78 the settings are wrong.
Never: a password that is kept or shown.
"""

import os
import sys
from pathlib import Path

import click
import msgspec

from mailrelay import config, grammar
from mailrelay.atomic_file import replace_file
from mailrelay.cli import Failed, settings_path
from mailrelay.cli.setup_remote import OWN_SSH_CONFIG, find_key, find_way, let_in, restrict, trust_hosts
from mailrelay.cli.setup_service import serve_for_now, start_service
from mailrelay.cli.steps import ask, fine, heading, note, tilde, undo
from mailrelay.cli.terminal import is_terminal
from mailrelay.cli.test import mailbox, send_and_follow
from mailrelay.config import Relayhost, Settings
from mailrelay.endpoint import Endpoint, Unix
from mailrelay.grammar import SettingsError
from mailrelay.mail.printable import printable
from mailrelay.mail.routing import choose
from mailrelay.setup import restriction
from mailrelay.setup.settings import Desired, Plan, of_host, plan


@click.command()
@click.argument("host", metavar="[USER@]HOST")
@click.option("--to", "address", metavar="ADDRESS", help="Whom the test letter is for; you, on that host, by default.")
@click.option("--restricted", is_flag=True, help="Use a key of its own that can do nothing there but carry mail.")
@click.option("--yes", is_flag=True, help="Answer every question with yes, for scripts.")
def command(host: str, address: str | None, restricted: bool, yes: bool) -> None:
    """From nothing to a test letter that has arrived, step by step. May be run again at any time."""
    file = settings_path()
    try:
        host = grammar.destination(host)
    except SettingsError as error:
        raise click.BadParameter(str(error), param_hint="HOST") from None
    to = mailbox(address) if address else None
    before = config.load(file) if file.exists() else None
    relayhost = (of_host(before, host) if before else None) or Relayhost(
        name="default", ssh=host, ssh_config=OWN_SSH_CONFIG.expanduser()
    )
    is_ordinary = relayhost.ssh_config == OWN_SSH_CONFIG.expanduser()
    heading("1. A key")
    keys = find_key(relayhost, yes=yes)
    heading("2. The host key")
    trust_hosts(relayhost, yes=yes)
    heading("3. The login")
    let_in(relayhost, keys, file, yes=yes)
    heading("4. The way to the mail server")
    way = find_way(relayhost)
    relayhost = msgspec.structs.replace(relayhost, command=way.command)
    heading("5. A key for mail alone")
    if restricted:
        relayhost = restrict(relayhost, file, yes=yes)
    elif relayhost.ssh_config == restriction.ssh_config_file(relayhost, file):
        fine("mail goes with one already; --restricted proves it again")
    else:
        note("Not asked for: with --restricted mail goes with a key of its own, which can do nothing else there.")
    if to is None:
        to = mailbox(_asked("Whom is the test letter for?", _own_address(keys.user, way.greeting, host), yes=yes))
    heading("6. The settings")
    settings, changed = _settings(relayhost, way.extensions.size or 0, file, to, yes=yes)
    heading("7. The service")
    serves = start_service(settings, file, changed=changed, yes=yes)
    heading("8. A test letter")
    _letter(settings, file, to, _sender(settings, host, to), serves=serves)
    print()
    if not serves:
        print("Start `mailrelay serve` when you want to send mail.")
    print(f"Your mail client: {_server(settings.listen.address)}, no encryption, no password.")
    if is_ordinary:
        print(f"`ssh {host}`, rsync and scp need no password either: the same key lets you in.")
    print("How things stand: `mailrelay status`. If anything is wrong: `mailrelay check`.")


def _own_address(user: str, greeting: str, host: str) -> str:
    """The person's address on that host: under the name by which its mail server greets (RFC 5321 section 4.2)."""
    name = greeting[4:].partition(" ")[0]
    return f"{user}@{name if '.' in name else host.rpartition('@')[2]}"


def _asked(question: str, default: str, *, yes: bool) -> str:
    if yes or not is_terminal(sys.stdin):
        return default
    return str(click.prompt(f"\n  {question}", default=default))


def _settings(relayhost: Relayhost, takes: int, file: Path, to: bytes, *, yes: bool) -> tuple[Settings, bool]:
    """Settings with this relayhost in them, and whether they had to be changed. takes: octets, 0 if they are not known."""
    text = file.read_text("utf-8-sig") if file.exists() else None
    others = text is not None and of_host(config.load(file), relayhost.ssh) is None
    domain = printable(to).rpartition("@")[2] if b"@" in to else restriction.host(relayhost)
    question = "There are other relayhosts. Which senders go by this one?"
    desired = Desired(
        relayhost.ssh,
        relayhost.command,
        "" if relayhost.ssh_config == OWN_SSH_CONFIG.expanduser() else tilde(relayhost.ssh_config),
        grammar.sender(_asked(question, f"*@{domain}", yes=yes)) if others else "*",
        takes,
    )
    planned = plan(text, desired, str(file), os.environ)
    if not planned.changes:
        fine(f"{file} names {relayhost.ssh} already")
        return config.load(file), False
    note(*planned.changes)
    if not ask(f"Write that to {file}?", yes=yes):
        raise Failed(f"{file} is left as it was; mail does not go to {relayhost.ssh} before it is in the settings")
    _write(file, text, planned)
    return config.load(file), True


def _write(file: Path, text: str | None, planned: Plan) -> None:
    old = file.with_name(f"{file.name}.old")
    if text is not None:
        replace_file(old, text.encode())
    replace_file(file, planned.text.encode())
    fine(f"written: {file}")
    undo(f"rm {file}" if text is None else f"mv {old} {file}")


def _sender(settings: Settings, host: str, to: bytes) -> bytes:
    """A reverse path whose mail goes by this relayhost: the person's own, if it does."""
    relayhost = of_host(settings, host)
    patterns = relayhost.senders if relayhost else ()
    # Any address of a domain will do where a whole domain goes this way.
    made = (pattern.replace("*@*.", "*@any.").replace("*", "postmaster", 1) for pattern in patterns)
    for sender in (to, *(address.encode() for address in made)):
        if relayhost and choose(sender, settings.relayhosts) == relayhost.name:
            return sender
    raise Failed(f"no mail goes by {host}: other relayhosts take all of its senders; see `senders` in the settings")


def _letter(settings: Settings, file: Path, to: bytes, sender: bytes, *, serves: bool) -> None:
    if serves:
        send_and_follow(settings, to, sender)
        return
    note("Nobody serves, so it is served for this letter alone.")
    with serve_for_now(settings, file):
        send_and_follow(settings, to, sender)


def _server(address: Endpoint) -> str:
    if isinstance(address, Unix):
        return f"server {address}"
    return f"server {address.host}, port {address.port}"
