"""`mailrelay setup [USER@]HOST`: sets everything up until a test message has arrived, in eight steps that may be run again.

    1  a key: the one that ssh would use; an ed25519 key is made only if there is none
    2  the host key: shown, and accepted only after a yes (as `mailrelay trust`)
    3  the login: if the account does not accept the key yet, it is put into authorized_keys there, with the password
    4  the mail path: forwarding to the mail server's port, or a command, whichever reaches the mail server
    5  with --restricted, a separate key that can only send mail, and a test that it can do nothing else; with --track, too,
       it can also have conversations recorded, and ask what becomes of accepted messages
    6  the settings: a new file, or additions to the person's own; without a desktop, with how the person hears of failures
    7  the service: a unit for systemd or launchd is installed and started
    8  a test message, followed to its end

Each step first finds out whether it is done already; it prints what it did, and how to undo it. --yes answers every question
with yes, but does not accept a changed host key. Exit status: 0 only if the mail server took the test message; 1 if a step
failed, with its fix; 78 the settings are wrong.
Never: a password that is kept or shown.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import click

from mailrelay import config, grammar
from mailrelay.atomic_file import replace_file
from mailrelay.cli import setup_system
from mailrelay.cli.base import Failed, settings_path
from mailrelay.cli.questions import answer
from mailrelay.cli.setup_remote import (
    MAIL_KEY,
    OWN_SSH_CONFIG,
    ensure_login,
    find_mail_path,
    find_or_make_key,
    restrict,
    trust_hosts,
)
from mailrelay.cli.setup_service import start_service, temporary_daemon
from mailrelay.cli.steps import ask, fine, heading, note, tilde, undo
from mailrelay.cli.terminal import is_terminal, put
from mailrelay.cli.test import default_sender, send_and_follow, whole_address
from mailrelay.config import Relayhost, Settings
from mailrelay.endpoint import Endpoint, Unix
from mailrelay.grammar import SettingsError
from mailrelay.mail.printable import printable
from mailrelay.setup import notice_backend, restriction
from mailrelay.setup.addresses import own_address, sender_for
from mailrelay.setup.notice_backend import DEFAULT_MAILBOX, BackendChoice, with_backend
from mailrelay.setup.settings import Desired, SettingsPlan, of_host, plan

T = TypeVar("T")


@click.command("setup")
@click.argument("host", metavar="[USER@]HOST", required=False)
@click.option(
    "--to",
    "address",
    metavar="ADDRESS",
    help="The recipient of the test message; by default your account on that host.",
)
@click.option("--restricted", is_flag=True, help="Use a separate key that can only send mail there.")
@click.option("--track", is_flag=True, help="With --restricted: the key may follow mail there, too.")
@click.option("--system", "for_all", is_flag=True, help="As root: set it up for all accounts of this computer.")
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="With --system: the private key to use, without a passphrase; by default one is made.",
)
@click.option(
    "--sendmail/--no-sendmail",
    default=None,
    help="With --system: be /usr/sbin/sendmail, mailq and newaliases, or no longer.",
)
@click.option("--yes", is_flag=True, help="Answer every question with yes, for scripts.")
def command(
    host: str | None,
    address: str | None,
    restricted: bool,
    track: bool,
    for_all: bool,
    key: Path | None,
    sendmail: bool | None,
    yes: bool,
) -> None:
    """Set everything up, step by step, until a test message has arrived. May be run again at any time."""
    if host is None and not (for_all and sendmail is not None):
        raise click.UsageError("Missing argument '[USER@]HOST'.", click.get_current_context())
    if for_all:
        if restricted or track:
            raise click.UsageError("--restricted and --track do not go together with --system")
        setup_system.run(
            None if host is None else _destination(host),
            None if address is None else _option_to(address),
            key,
            sendmail,
            yes=yes,
        )
        return
    if key is not None or sendmail is not None:
        raise click.UsageError("--key and --sendmail go with --system")
    assert host is not None  # noqa: S101 - see above
    _set_up(host, address, restricted=restricted, track=track, yes=yes)


def _destination(host: str) -> str:
    try:
        host = grammar.destination(host)
        # Raises ValueError for a wrong host or port, which `grammar.destination` does not check.
        restriction.host(Relayhost(name="default", ssh=host, ssh_config=OWN_SSH_CONFIG.expanduser()))
    except (SettingsError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="HOST") from None
    return host


def _set_up(host: str, address: str | None, *, restricted: bool, track: bool, yes: bool) -> None:
    if track and not restricted:
        raise click.UsageError(
            "--track is for a restricted key: give --restricted, too; any other key follows mail anyway"
        )
    file = settings_path()
    host = _destination(host)
    new = Relayhost(name="default", ssh=host, ssh_config=OWN_SSH_CONFIG.expanduser())
    to = None if address is None else _option_to(address)
    before = config.load(file) if file.exists() else None
    relayhost = (of_host(before, host) if before else None) or new
    heading("1. A key")
    keys = find_or_make_key(relayhost, file, yes=yes)
    heading("2. The host key")
    trust_hosts(relayhost, yes=yes)
    heading("3. The login")
    ensure_login(relayhost, keys, file, yes=yes)
    heading("4. The path to the mail server")
    path = find_mail_path(relayhost)
    relayhost = relayhost._replace(command=path.command)
    heading("5. A restricted key")
    if restricted:
        relayhost = restrict(relayhost, file, yes=yes, track=track)
    elif relayhost.ssh_config == restriction.ssh_config_file(relayhost, file):
        fine("mail uses one already; --restricted tests it again")
    else:
        note("Not asked for: with --restricted mail uses a separate key, which can do nothing else there.")
    own = own_address(keys.user, path.server_names, host)
    if to is None:
        to = _answer("To which address is the test message sent?", own, whole_address, yes=yes)
    heading("6. The settings")
    settings, changed = _settings(relayhost, path.extensions.size or 0, file, to, own, yes=yes)
    heading("7. The service")
    serves = start_service(settings, file, changed=changed, yes=yes)
    heading("8. A test message")
    sender = sender_for(settings, host, (default_sender(settings, own), to))
    if sender is None:
        raise Failed(f"no mail uses {host}: other relayhosts take all of its senders; see `senders` in the settings")
    _send_test(settings, file, to, sender, serves=serves)
    put("")
    if not serves:
        put("Start `mailrelay serve` when you want to send mail.")
    put(f"Your mail client: {_server(settings.listen.address)}, no encryption, no password.")
    for line in _about_keys(relayhost, keys.tried, file, "send and follow mail" if track else "send mail"):
        put(line)
    put("Whether all is fine: `mailrelay status`. If anything is wrong: `mailrelay check`.")


def _option_to(address: str) -> bytes:
    try:
        return whole_address(address)
    except Failed as error:
        raise click.BadParameter(str(error), param_hint="--to") from None


def _answer(question: str, default: str, read: Callable[[str], T], *, yes: bool) -> T:
    """What `read` makes of the person's answer, or of `default` if `yes` or without a terminal."""
    if yes or not is_terminal(sys.stdin):
        return read(default)
    put("")
    return answer(f"  {question}", default, read)


def _about_keys(relayhost: Relayhost, keys: Sequence[str], file: Path, purpose: str) -> Iterator[str]:
    """Which key mail uses, and which one ssh uses. keys: those that step 1 found, as text for people. file: the settings.
    purpose: of a restricted key."""
    name = relayhost.ssh
    if relayhost.ssh_config == OWN_SSH_CONFIG.expanduser():
        yield f"`ssh {name}`, rsync and scp need no password either: they use the same key."
    elif relayhost.ssh_config == restriction.ssh_config_file(relayhost, file):
        yield f"Mail uses the key {MAIL_KEY}, which can do nothing on {name} but {purpose}."
        # When setup is run again, the login is with the restricted key.
        ordinary = "" if str(MAIL_KEY.expanduser()) in keys else f", {printable(tilde(', '.join(keys)))}"
        yield f"`ssh {name}`, rsync and scp do not use it: they use your ordinary key{ordinary}."


def _settings(
    relayhost: Relayhost, max_size: int, file: Path, to: bytes, own: str, *, yes: bool
) -> tuple[Settings, bool]:
    """Adds this relayhost to the settings, after a yes. Returns the settings, and whether they were changed.

    max_size: octets that the mail server takes, 0 if unknown. own: the address of the account there. Raises Failed after a
    no.
    """
    text = file.read_text("utf-8-sig") if file.exists() else None
    others = text is not None and of_host(config.load(file), relayhost.ssh) is None
    domain = printable(to).rpartition("@")[2] if b"@" in to else restriction.host(relayhost)
    question = "There are other relayhosts. Mail from which senders uses this one?"
    desired = Desired(
        relayhost.ssh,
        relayhost.command,
        "" if relayhost.ssh_config == OWN_SSH_CONFIG.expanduser() else tilde(relayhost.ssh_config),
        _answer(question, f"*@{domain}", grammar.sender, yes=yes) if others else "*",
        own,
        max_size,
    )
    planned = _with_notices(plan(text, desired, str(file), os.environ), file, yes=yes)
    if not planned.changes:
        fine(f"{file} has {relayhost.ssh} already")
        return config.load(file), False
    note(*planned.changes)
    if not ask(f"Write that to {file}?", yes=yes):
        raise Failed(f"{file} is left as it was; mail is sent through {relayhost.ssh} only when it is in the settings")
    _write(file, text, planned)
    return config.load(file), True


def _with_notices(planned: SettingsPlan, file: Path, *, yes: bool) -> SettingsPlan:
    """The plan; on a computer without a desktop, with the notice backend that the person chooses."""
    notify = config.parse(planned.text, str(file), os.environ).notify
    if not notice_backend.must_be_chosen(notify, os.environ) or not (yes or is_terminal(sys.stdin)):
        return planned
    note("This computer has no desktop on which mailrelay could show that mail has failed. You can get notices by:")
    for name, explanation in _BACKENDS.items():
        note(f"{name:<9}{explanation}")
    return with_backend(planned, _chosen_backend(yes=yes), str(file), os.environ)


_BACKENDS = {
    "mailbox": "a report in a Maildir; needs no network",
    "command": "a command of yours, which gets the notice as JSON; needs no network",
    "dsn": "only a report by mail to the sender, through the same server, which may be out of reach",
}


def _chosen_backend(*, yes: bool) -> BackendChoice:
    while True:
        name = _answer("Which one: mailbox, command or dsn?", "mailbox", _backend_name, yes=yes)
        # `_answer` does not check the Maildir or command: after a wrong one, the person may choose another backend.
        try:
            if name == "mailbox":
                return notice_backend.mailbox(
                    _answer("Which Maildir?", DEFAULT_MAILBOX, str.strip, yes=yes), os.environ
                )
            if name == "command":
                return notice_backend.command(_answer("Which command, with its arguments?", "", str, yes=yes))
            return BackendChoice()
        except SettingsError as error:
            if yes:
                raise
            why = str(error)
            note(f"{why[:1].upper()}{why[1:]}.")


def _backend_name(word: str) -> str:
    if word.lower() not in _BACKENDS:
        raise Failed(f"'{word}' is none of them. Type mailbox, command or dsn")
    return word.lower()


def _write(file: Path, text: str | None, planned: SettingsPlan) -> None:
    old = file.with_name(f"{file.name}.old")
    if text is not None:
        replace_file(old, text.encode())
    replace_file(file, planned.text.encode())
    fine(f"written: {file}")
    undo(f"rm {file}" if text is None else f"mv {old} {file}")


def _send_test(settings: Settings, file: Path, to: bytes, sender: bytes, *, serves: bool) -> None:
    if serves:
        send_and_follow(settings, to, sender, follows_there=False)
        return
    note("The daemon is not running, so it is started for this message only.")
    with temporary_daemon(settings, file):
        send_and_follow(settings, to, sender, follows_there=False)


def _server(address: Endpoint) -> str:
    if isinstance(address, Unix):
        return f"server {address}"
    return f"server {address.host}, port {address.port}"
