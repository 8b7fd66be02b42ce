"""`mailrelay setup [USER@]HOST`: sets everything up until a test message has arrived, in eight steps that may be run again.

    1  a key: the one that ssh would use; an ed25519 key is made only if there is none
    2  the host key: shown, and accepted only after a yes (as `mailrelay trust`)
    3  the login: if the account does not accept the key yet, it is put into authorized_keys there, with the password
    4  the mail path: forwarding to the mail server's port, or a command, whichever reaches the mail server
    5  with --restricted, a separate key that can only send mail, and a test that it can do nothing else
    6  the settings: a new file, or additions to the person's own
    7  the service: a unit for systemd or launchd is installed and started
    8  a test message, followed to its end

Each step first finds out whether it is done already; it prints what it did, and how to undo it. --yes answers every question
with yes, but does not accept a changed host key. Exit status: 0 only if the mail server took the test message; 1 if a step
failed, with its fix; 78 the settings are wrong.
Never: a password that is kept or shown.
"""

import os
import sys
from pathlib import Path

import click
import msgspec

from mailrelay import config, grammar
from mailrelay.atomic_file import replace_file
from mailrelay.cli.base import Failed, settings_path
from mailrelay.cli.setup_remote import (
    OWN_SSH_CONFIG,
    ensure_login,
    find_mail_path,
    find_or_make_key,
    restrict,
    trust_hosts,
)
from mailrelay.cli.setup_service import start_service, temporary_daemon
from mailrelay.cli.steps import ask, fine, heading, note, tilde, undo
from mailrelay.cli.terminal import is_terminal
from mailrelay.cli.test import default_sender, mailbox, send_and_follow
from mailrelay.config import Relayhost, Settings
from mailrelay.endpoint import Endpoint, Unix
from mailrelay.grammar import SettingsError
from mailrelay.mail.printable import printable
from mailrelay.setup import restriction
from mailrelay.setup.addresses import own_address, sender_for
from mailrelay.setup.settings import Desired, SettingsPlan, of_host, plan


@click.command("setup")
@click.argument("host", metavar="[USER@]HOST")
@click.option(
    "--to", "address", metavar="ADDRESS", help="The recipient of the test message; you, on that host, by default."
)
@click.option("--restricted", is_flag=True, help="Use a separate key that can only send mail there.")
@click.option("--yes", is_flag=True, help="Answer every question with yes, for scripts.")
def command(host: str, address: str | None, restricted: bool, yes: bool) -> None:
    """Set everything up, step by step, until a test message has arrived. May be run again at any time."""
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
    keys = find_or_make_key(relayhost, yes=yes)
    heading("2. The host key")
    trust_hosts(relayhost, yes=yes)
    heading("3. The login")
    ensure_login(relayhost, keys, file, yes=yes)
    heading("4. The path to the mail server")
    path = find_mail_path(relayhost)
    relayhost = msgspec.structs.replace(relayhost, command=path.command)
    heading("5. A restricted key")
    if restricted:
        relayhost = restrict(relayhost, file, yes=yes)
    elif relayhost.ssh_config == restriction.ssh_config_file(relayhost, file):
        fine("mail uses one already; --restricted tests it again")
    else:
        note("Not asked for: with --restricted mail uses a separate key, which can do nothing else there.")
    own = own_address(keys.user, path.server_names, host)
    if to is None:
        to = mailbox(_answer("To which address is the test message sent?", own, yes=yes))
    heading("6. The settings")
    settings, changed = _settings(relayhost, path.extensions.size or 0, file, to, own, yes=yes)
    heading("7. The service")
    serves = start_service(settings, file, changed=changed, yes=yes)
    heading("8. A test message")
    sender = sender_for(settings, host, (default_sender(settings, own), to))
    if sender is None:
        raise Failed(f"no mail uses {host}: other relayhosts take all of its senders; see `senders` in the settings")
    _send_test(settings, file, to, sender, serves=serves)
    print()
    if not serves:
        print("Start `mailrelay serve` when you want to send mail.")
    print(f"Your mail client: {_server(settings.listen.address)}, no encryption, no password.")
    if is_ordinary:
        print(f"`ssh {host}`, rsync and scp need no password either: they use the same key.")
    print("Whether all is fine: `mailrelay status`. If anything is wrong: `mailrelay check`.")


def _answer(question: str, default: str, *, yes: bool) -> str:
    if yes or not is_terminal(sys.stdin):
        return default
    return str(click.prompt(f"\n  {question}", default=default))


def _settings(
    relayhost: Relayhost, max_size: int, file: Path, to: bytes, own: str, *, yes: bool
) -> tuple[Settings, bool]:
    """Settings with this relayhost in them, and whether they were changed.

    max_size: octets that the mail server takes, 0 if unknown. own: the address of the account there.
    """
    text = file.read_text("utf-8-sig") if file.exists() else None
    others = text is not None and of_host(config.load(file), relayhost.ssh) is None
    domain = printable(to).rpartition("@")[2] if b"@" in to else restriction.host(relayhost)
    question = "There are other relayhosts. Mail from which senders uses this one?"
    desired = Desired(
        relayhost.ssh,
        relayhost.command,
        "" if relayhost.ssh_config == OWN_SSH_CONFIG.expanduser() else tilde(relayhost.ssh_config),
        grammar.sender(_answer(question, f"*@{domain}", yes=yes)) if others else "*",
        own,
        max_size,
    )
    planned = plan(text, desired, str(file), os.environ)
    if not planned.changes:
        fine(f"{file} has {relayhost.ssh} already")
        return config.load(file), False
    note(*planned.changes)
    if not ask(f"Write that to {file}?", yes=yes):
        raise Failed(f"{file} is left as it was; mail is sent through {relayhost.ssh} only when it is in the settings")
    _write(file, text, planned)
    return config.load(file), True


def _write(file: Path, text: str | None, planned: SettingsPlan) -> None:
    old = file.with_name(f"{file.name}.old")
    if text is not None:
        replace_file(old, text.encode())
    replace_file(file, planned.text.encode())
    fine(f"written: {file}")
    undo(f"rm {file}" if text is None else f"mv {old} {file}")


def _send_test(settings: Settings, file: Path, to: bytes, sender: bytes, *, serves: bool) -> None:
    if serves:
        send_and_follow(settings, to, sender)
        return
    note("The daemon is not running, so it is started for this message only.")
    with temporary_daemon(settings, file):
        send_and_follow(settings, to, sender)


def _server(address: Endpoint) -> str:
    if isinstance(address, Unix):
        return f"server {address}"
    return f"server {address.host}, port {address.port}"
