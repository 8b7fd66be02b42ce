"""The steps of `mailrelay setup` that concern the relayhost: key, host key, login, mail path, and a restricted key.

Each step first finds out whether it is done already. It raises Failed, with the fix, where it cannot be done.
"""

import asyncio
import getpass
import socket
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TypeVar

from mailrelay.atomic_file import replace_file
from mailrelay.cli import trust
from mailrelay.cli.base import Failed
from mailrelay.cli.questions import secret
from mailrelay.cli.steps import ask, fine, note, stop, undo
from mailrelay.cli.terminal import is_terminal
from mailrelay.cli.waiting import waiting_for
from mailrelay.config import Relayhost
from mailrelay.dns.resolver import Resolver
from mailrelay.mail.outcome import Cause, Outcome
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import size
from mailrelay.setup import mail_paths, restriction
from mailrelay.smtp.extensions import Extensions
from mailrelay.ssh import authorized_keys
from mailrelay.ssh.authorized_keys import ChangeFailed, LoginFailure
from mailrelay.ssh.authorized_keys import OfferedKeys as OfferedKeys
from mailrelay.ssh.dial import read_hops
from mailrelay.ssh.host_key_scan import scan
from mailrelay.ssh.interface import Fault, NotRecorded
from mailrelay.ssh.known_hosts import HostKeyStatus
from mailrelay.ssh.mail_path import MailPath
from mailrelay.ssh.restriction_probe import tracking_uses, trials

T = TypeVar("T")

PASSWORD_TRIES = 3
"""Times that the password is asked for."""
OWN_SSH_CONFIG = Path("~/.ssh/config")
MAIL_KEY = Path("~/.ssh/id_mailrelay")
MAX_OPTIONS = 300
"""Characters of the options of a line in authorized_keys that are shown."""


def find_or_make_key(relayhost: Relayhost, settings_file: Path, *, yes: bool) -> OfferedKeys:
    """The keys that mail would offer. Makes a key if there is none. Raises Failed if the person says no, or on failure."""
    found = _keys(relayhost)
    if found.lines:
        is_restricted = relayhost.ssh_config == restriction.ssh_config_file(relayhost, settings_file)
        fine(f"{'mail' if is_restricted else 'ssh'} offers {', '.join(found.tried)}")
        return found
    for file, why, fix in found.unusable:
        raise stop(f"{file} {why}", fix)
    if not ask(
        f"There is no key. Make {found.new_key_file}, without a passphrase (a service cannot ask for it)?", yes=yes
    ):
        raise stop("without a key a login needs a password", "Make one (ssh-keygen)")
    try:
        authorized_keys.make_key(found.new_key_file, f"{getpass.getuser()}@{socket.gethostname()}")
    except OSError as error:
        raise stop(f"{found.new_key_file} cannot be made: {error.strerror or error}") from None
    fine(f"made {found.new_key_file}")
    undo(f"rm {found.new_key_file} {found.new_key_file}.pub")
    return _keys(relayhost)


def trust_hosts(relayhost: Relayhost, *, yes: bool) -> None:
    """Makes sure that the host keys of all hops are trusted. Asks for each that is not, as `mailrelay trust` does."""
    found, fault = _run(f"the host keys of {relayhost.ssh}", scan(relayhost))
    if fault is not None:
        raise _stop(fault)
    if all(offer.status is HostKeyStatus.TRUSTED for offer in found):
        for offer in found:
            fine(f"{offer.place} offers the known key: {offer.fingerprint}")
        return
    if yes and found[-1].status is HostKeyStatus.CHANGED:
        # --yes does not accept a changed key: the person has not seen it.
        raise stop(f"the host key of {found[-1].place} has changed", f"See `mailrelay trust {relayhost.ssh}`")
    if not trust.trust_hops(relayhost, Resolver(""), yes=yes):
        raise Failed(f"{relayhost.ssh} is not trusted yet; run `mailrelay setup` again when it is")


def ensure_login(
    relayhost: Relayhost, keys: OfferedKeys, settings_file: Path, *, yes: bool, by_line: bool = False
) -> None:
    """Tries the login; if the account on the relayhost does not accept the key yet, puts it into authorized_keys there.

    by_line: for the work by hand, the line is shown; otherwise, the command of ssh that does it."""
    host = relayhost.ssh
    refused = _run(f"the login to {host}", authorized_keys.try_login(relayhost))
    if refused is None:
        fine(f"{host} lets {keys.user} in without a password")
        return
    if not refused.at_relayhost or refused.outcome.cause is not Cause.AUTH_REFUSED or not refused.key_is_unknown:
        raise _stop(refused.outcome)
    if relayhost.ssh_config == restriction.ssh_config_file(relayhost, settings_file):
        # Only the restricted key must be put there, and only with its restriction.
        line = restriction.authorized_keys_line(_restricted_key(), relayhost)
        by_hand = f"put this line into ~/.ssh/authorized_keys there: {line}"
    else:
        line, by_hand = keys.lines[0], f"ssh-copy-id{keys.login_command.removeprefix('ssh')}"
        if by_line:
            by_hand = f"put this line into ~/.ssh/authorized_keys there: {line}"
    note(f"{host} does not know the key yet. It has to be in ~/.ssh/authorized_keys of {keys.user} there.")
    if not is_terminal(sys.stdin):
        raise stop(f"{host} asks for a password, and there is no terminal to type it in", f"By hand: {by_hand}")
    if not ask(f"Put it there? This needs the password of {keys.user} once; it is not kept.", yes=yes):
        raise stop(f"{host} does not let {keys.user} in", f"By hand: {by_hand}")
    _put_key(relayhost, keys.user, line, by_hand)
    refused = _run(f"the login to {host}", authorized_keys.try_login(relayhost))
    if refused is not None:
        raise _stop(refused.outcome)
    fine(f"the key is in authorized_keys there: {host} lets {keys.user} in without a password")
    undo(f"remove the line that ends in {line.split()[-1]!r} from ~/.ssh/authorized_keys of {host}")


def _put_key(relayhost: Relayhost, user: str, line: str, by_hand: str) -> None:
    """Puts `line` into authorized_keys of the account `user`, with the password. by_hand: how the person can do it."""
    host = relayhost.ssh
    for _ in range(PASSWORD_TRIES):
        password = secret(f"  Password of {user} on {host}")
        try:
            refused = _run(f"{host} to take the key", authorized_keys.authorize(relayhost, line, password=password))
        except ChangeFailed as error:
            raise stop(f"{host} did not take the key: {error}", f"By hand: {by_hand}") from None
        if refused is None:
            return
        if refused.outcome.cause is not Cause.AUTH_REFUSED:
            raise _stop(refused.outcome)
        if not refused.password_was_sent:
            raise stop(f"{host} takes no password", f"Have this line put into ~/.ssh/authorized_keys there: {line}")
        note("Wrong password.")
    raise stop(f"{host} did not take the password", f"By hand: {by_hand}")


def find_mail_path(relayhost: Relayhost) -> MailPath:
    """The mail path: forwarding or a command, the first that reaches the mail server."""
    found, failures = _run(f"the mail server of {relayhost.ssh}", mail_paths.find_mail_path(relayhost))
    if found is None:
        for tried, outcome in failures:
            note(f"{tried or 'forwarding'}: {_words(outcome)}")
        raise _stop(failures[0][1])
    fine(f"the command {found.command!r} there" if found.command else f"forwarding to {relayhost.smtp} there")
    note(found.greeting, f"EHLO: {', '.join(_offers(found.extensions)) or 'no extensions'}")
    return found


def restrict(relayhost: Relayhost, settings_file: Path, *, yes: bool, track: bool = False) -> Relayhost:
    """The relayhost with a restricted key: made and put into authorized_keys there if needed, and tested in any case.

    track: the key may record conversations, and ask about accepted messages."""
    key = MAIL_KEY.expanduser()
    file = restriction.ssh_config_file(relayhost, settings_file)
    if relayhost.ssh_config == file:
        if not _test_restriction(relayhost, key):
            raise stop(f"{key} is not restricted to mail there", f"Remove it from authorized_keys of {relayhost.ssh}")
        if track and not _test_tracking(relayhost, key):
            line = _line(_restricted_key(), relayhost, track=True)
            raise stop(
                f"{key} cannot follow mail there", f"Put this line in place of its line in authorized_keys: {line}"
            )
        return relayhost
    purpose = "send and follow mail" if track else "send mail"
    if not ask(f"Make {key}, and let it do nothing on {relayhost.ssh} but {purpose}?", yes=yes):
        return relayhost
    public = _restricted_key()
    replace_file(file, restriction.ssh_config(relayhost, key).encode())
    for candidate in _restrictable(relayhost):
        line = _line(public, candidate, track=track)
        _change(
            authorized_keys.authorize(relayhost, line), relayhost, f"Put this line into authorized_keys there: {line}"
        )
        fine(f"{key} is in authorized_keys there, with")
        options = line.removesuffix(public).strip()
        note(options if len(options) <= MAX_OPTIONS else f"{options[:MAX_OPTIONS]}… ({len(options)} characters)")
        undo(f"remove that line from ~/.ssh/authorized_keys of {relayhost.ssh}; rm {key} {key}.pub {file}")
        restricted = candidate._replace(ssh_config=file)
        if _test_restriction(restricted, key) and (not track or _test_tracking(restricted, key)):
            return restricted
    file.unlink()
    _change(
        authorized_keys.withdraw(relayhost, public), relayhost, f"Remove this line from authorized_keys there: {line}"
    )
    if track:
        raise stop("the key cannot do this and nothing else there, so it was removed again", "Go on without --track")
    raise stop("the key is not restricted to mail there, so it was removed again", "Go on without --restricted")


def _line(public: str, relayhost: Relayhost, *, track: bool) -> str:
    try:
        return restriction.authorized_keys_line(public, relayhost, track=track)
    except (ValueError, NotRecorded) as error:
        raise stop(f"no line of authorized_keys can be made: {error}", "Change the command in the settings") from None


def _restrictable(relayhost: Relayhost) -> Iterator[Relayhost]:
    """The relayhost as it is, then with the first command that reaches the mail server: some servers (dropbear, old sshd)
    cannot restrict forwarding."""
    yield relayhost
    if not relayhost.command:
        command = _run(f"the mail server of {relayhost.ssh}", mail_paths.find_command(relayhost))
        if command:
            note(f"again, without forwarding, with {command!r}:")
            yield relayhost._replace(command=command)


def _restricted_key() -> str:
    """The public line of the restricted key, which is made if there is none."""
    key = MAIL_KEY.expanduser()
    try:
        return authorized_keys.read_key(key) if key.exists() else authorized_keys.make_key(key, "mailrelay")
    except (OSError, ValueError) as error:
        raise stop(f"{key} cannot be read or made: {error}", "Move it away") from None


def _change(change: Coroutine[None, None, LoginFailure | None], relayhost: Relayhost, by_hand: str) -> None:
    """Runs `change`, which changes authorized_keys on the relayhost. by_hand: how the person can do it."""
    try:
        refused = _run(f"{relayhost.ssh} to change its authorized_keys", change)
    except ChangeFailed as error:
        raise stop(f"{relayhost.ssh} did not change its authorized_keys: {error}", by_hand) from None
    if refused is not None:
        raise _stop(refused.outcome)


def _test_restriction(relayhost: Relayhost, key: Path) -> bool:
    """Tries what the key must not be able to do, and prints each result. Returns whether all of it was refused and the mail
    server was reached."""
    try:
        tried = _run(f"{relayhost.ssh} to refuse what the key must not do", trials(relayhost, key))
    except Fault as fault:
        note(fault.outcome.text)
        return False
    for trial in tried:
        said = f": {trial.detail}" if trial.detail else ""
        if trial.is_refused:
            fine(f"refused: {trial.what}{said}")
        else:
            note(f"NOT REFUSED: {trial.what}{said}")
    found, failures = _run(f"the mail server of {relayhost.ssh}", mail_paths.find_mail_path(relayhost))
    for _, outcome in failures if found is None else ():
        note(_words(outcome))
    if found is not None:
        fine(f"allowed: mail: {found.greeting}")
    return found is not None and all(trial.is_refused for trial in tried)


def _test_tracking(relayhost: Relayhost, key: Path) -> bool:
    """Tries what a key for tracking is to do, and prints each result. Returns whether mail can be followed there: it can
    where no conversation can be recorded."""
    try:
        uses = _run(f"{relayhost.ssh} to answer a question about mail", tracking_uses(relayhost, key))
    except Fault as fault:
        note(fault.outcome.text)
        return False
    for use in uses:
        if use.why_not:
            note(f"not allowed: {use.what}: {use.why_not}")
        else:
            fine(f"allowed: {use.what}")
    return not uses[-1].why_not


def _offers(found: Extensions) -> Iterator[str]:
    for name in ("pipelining", "chunking", "eightbitmime", "smtputf8", "dsn"):
        if getattr(found, name):
            yield name.upper().replace("EIGHTBIT", "8BIT")
    if found.size:
        yield f"SIZE {size(found.size)}"


def _keys(relayhost: Relayhost) -> OfferedKeys:
    async def offered() -> OfferedKeys:
        return await authorized_keys.offered_keys((await read_hops(relayhost))[-1])

    try:
        return _run("ssh's settings and the agent", offered())
    except Fault as fault:
        raise _stop(fault.outcome) from None


def _run(what: str, awaited: Coroutine[None, None, T]) -> T:
    """Runs `awaited`. what: what the person waits for."""
    with waiting_for(what):
        return asyncio.run(awaited)


def _stop(outcome: Outcome) -> Failed:
    return stop(_words(outcome), outcome.fix)


def _words(outcome: Outcome) -> str:
    return outcome.text or f"the mail server said {printable(outcome.description)}"
