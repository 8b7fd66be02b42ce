"""`mailrelay setup --system [USER@]HOST`: the system's mailrelay, for root, services and accounts without settings of
their own.

The first step makes the account `mailrelay`; the others are those of `mailrelay setup`, for files in /etc/mailrelay and for
units of the system (`setup.system`). --key FILE names a key of the person, which must have no passphrase; without it a key
is made. With --sendmail, /usr/sbin/sendmail, mailq and newaliases become links to mailrelay, by update-alternatives;
--no-sendmail undoes that.
"""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

from mailrelay import config
from mailrelay.cli.base import Failed
from mailrelay.cli.setup_remote import OfferedKeys, ensure_login, find_mail_path, find_or_make_key, trust_hosts
from mailrelay.cli.steps import ask, fine, heading, note, stop, undo
from mailrelay.cli.terminal import put
from mailrelay.cli.waiting import waiting_for
from mailrelay.config import Relayhost
from mailrelay.mail.printable import printable
from mailrelay.setup import system
from mailrelay.setup.addresses import own_address
from mailrelay.setup.settings import Desired, SettingsPlan, plan
from mailrelay.setup.system import File
from mailrelay.setup.unit import NotInstalled

SETUP_SSH_CONFIG = system.KEY.with_name("ssh_config.setup")
"""The daemon's ssh_config, but with the key's own file, which only root can read. Setup removes it at its end."""

HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"), Path("/tmp"))  # noqa: S108
"""Directories that the units hide from the daemon."""


def run(host: str | None, to: bytes | None, key: Path | None, sendmail: bool | None, *, yes: bool) -> None:
    """Sets the system's mailrelay up, and sends a test message. host: None only with sendmail. sendmail: whether to become
    the computer's sendmail, None to leave it as it is. Raises Failed."""
    if os.geteuid() != 0:
        raise Failed("only root can set up the system's mailrelay: sudo mailrelay setup --system HOST")
    program = _program()
    try:
        if host is not None:
            _set_up(host, to, key, program, yes=yes)
        if sendmail is not None:
            _sendmail(program, wanted=sendmail)
    except NotInstalled as error:
        raise stop(str(error)) from None


def _set_up(host: str, to: bytes | None, key: Path | None, program: str, *, yes: bool) -> None:
    heading("1. The account")
    for written in system.make_account():
        note(f"written: {written}")
    fine(f"the account {system.ACCOUNT}, with {system.SPOOL} and {system.DIRECTORY}")
    key = (key or _key_in_use()).absolute()
    system.install([File(SETUP_SSH_CONFIG, system.ssh_config(str(key)), 0o600)])
    try:
        relayhost = Relayhost(name="default", ssh=host, ssh_config=SETUP_SSH_CONFIG)
        heading("2. A key")
        keys = _find_key(relayhost, key, yes=yes)
        heading("3. The host key")
        trust_hosts(relayhost, yes=yes)
        if system.KNOWN_HOSTS.exists():
            system.KNOWN_HOSTS.chmod(0o644)
        heading("4. The login")
        ensure_login(relayhost, keys, system.SETTINGS, yes=yes, by_line=True)
        heading("5. The path to the mail server")
        path = find_mail_path(relayhost)
    finally:
        SETUP_SSH_CONFIG.unlink(missing_ok=True)
    own = own_address(keys.user, path.server_names, host)
    heading("6. The settings")
    desired = Desired(host, path.command, str(system.SSH_CONFIG), "*", own, path.extensions.size or 0)
    changed = _write_settings(desired, yes=yes)
    heading("7. The service")
    changed += system.install([*system.units(program, key)])
    if key == system.KEY and system.key_drop_in().exists():
        system.key_drop_in().unlink()
        changed.append(system.key_drop_in())
    with waiting_for("systemd to start the service"):
        system.start(restart=bool(changed))
    fine(f"systemd runs mailrelay.service as {system.ACCOUNT}; every account reaches it at {system.SMTP}")
    made = [path for path in changed if path.exists()]
    undo("; ".join([f"systemctl disable --now {' '.join(system.ENABLED)}", *(f"rm {path}" for path in made)]))
    heading("8. A test message")
    _test(program, to or own.encode())
    put("")
    put("`mailrelay sendmail` and `mailrelay queue` of accounts without settings of their own use it from now on.")


def _program() -> str:
    """The path of this script, which other accounts must be able to run."""
    script = shutil.which(sys.argv[0])
    if script is None or Path(script).name not in ("mailrelay", "sendmail"):
        raise Failed(
            "install mailrelay for all accounts first, so that there is a script /usr/bin/mailrelay or the like"
        )
    path = Path(script).absolute()
    closed = next(
        (one for one in (path, *path.resolve().parents, *path.parents) if not one.stat().st_mode & 0o001), None
    )
    if closed is not None:
        raise Failed(f"other accounts cannot run {path}: {closed} is closed to them; install mailrelay in /usr or /opt")
    hidden = next((one for one in HIDDEN if path.resolve().is_relative_to(one)), None)
    if hidden is not None:
        raise Failed(
            f"{path.resolve()} is below {hidden}, which the service does not see; install mailrelay in /usr or /opt"
        )
    return str(path)


def _find_key(relayhost: Relayhost, key: Path, *, yes: bool) -> OfferedKeys:
    try:
        return find_or_make_key(relayhost, system.SETTINGS, yes=yes)
    except Failed as error:
        if not key.exists():
            raise
        # Leaves out the fix in the error: it is for a person with an agent.
        why = str(error).partition(". ")[0]
        raise stop(f"a service cannot use this key: {why}", "Name another one with --key, or have one made") from None


def _key_in_use() -> Path:
    """The key that an earlier setup was given, else the one that setup makes."""
    drop_in = system.key_drop_in()
    for line in drop_in.read_text().splitlines() if drop_in.exists() else ():
        if line.startswith("LoadCredential=ssh_key:"):
            return Path(line.partition(":")[2])
    return system.KEY


def _write_settings(desired: Desired, *, yes: bool) -> list[Path]:
    """Writes the settings and the files beside them, after a yes. Returns the files that have changed."""
    file = system.SETTINGS
    text = file.read_text("utf-8-sig") if file.exists() else None
    planned = plan(text, desired, str(file), system.ENVIRON)
    whole = system.with_system(planned.text, _allowed())
    # Only for its SettingsError.
    config.parse(whole, str(file), system.ENVIRON)
    if whole != text:
        note(*_changes(planned, whole, text))
        if not ask(f"Write that to {file}?", yes=yes):
            raise Failed(f"{file} is left as it was; without these settings nothing can be sent")
    files = [File(file, whole, 0o640, is_for_group=True), File(system.CLIENT, system.client_file())]
    if not system.SSH_CONFIG.exists():
        files.append(File(system.SSH_CONFIG, system.ssh_config(system.CREDENTIAL)))
    written = system.install(files)
    for one in written:
        fine(f"written: {one}")
    if not written:
        fine(f"{file} has {desired.ssh} already")
    return written


def _changes(planned: SettingsPlan, whole: str, text: str | None) -> list[str]:
    if text is None:
        return whole.splitlines()
    before = set(text.splitlines())
    return [
        *planned.changes,
        *(line for line in whole.splitlines() if line not in before and line not in planned.changes),
    ]


def _allowed() -> list[str]:
    """The accounts that may use the port: the daemon's own, for `check`, root, and the person who runs sudo."""
    person = os.environ.get("SUDO_USER", "")
    try:
        pwd.getpwnam(person)
    except KeyError:
        return ["self", "root"]
    return list(dict.fromkeys(["self", "root", person]))


def _test(program: str, to: bytes) -> None:
    # In a process that runs as the account.
    environ = {name: value for name, value in os.environ.items() if name != "MAILRELAY_CONFIG"}
    words = [program, "--config", str(system.SETTINGS), "test", os.fsdecode(to)]
    account = pwd.getpwnam(system.ACCOUNT)
    done = subprocess.run(
        words,
        env=environ | {"HOME": account.pw_dir},
        cwd="/",
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        raise Failed("the test message did not arrive; see above, and `mailrelay check` as root")


def _sendmail(program: str, *, wanted: bool) -> None:
    heading("sendmail")
    names = ", ".join(link for _, link in system.ALTERNATIVES)
    if not wanted:
        system.no_longer_as_sendmail(program)
        fine(f"{names} are no longer mailrelay")
        return
    try:
        system.use_as_sendmail(program)
    except NotInstalled as error:
        raise stop(str(error), "Remove the package of the other mail server, which has these commands") from None
    for _, link in system.ALTERNATIVES:
        if Path(link).resolve() != Path(program).resolve():
            raise stop(
                f"{link} belongs to another program, and update-alternatives leaves it alone",
                f"Remove its package, or divert the file: dpkg-divert --local --rename --add {printable(link)}",
            )
    fine(f"{names} are mailrelay")
    undo("mailrelay setup --system --no-sendmail")
