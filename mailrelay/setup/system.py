"""What `mailrelay setup --system` installs for all accounts of this computer: files, units, and the settings of the system's
mailrelay.

The units are the files in `system` in this directory; a package installs them unchanged. Here only the path of the program
is changed, where it is another one; a drop-in names a key of the person. Files that a package has installed are not changed.
Promises: a file that has the right content is not written. NotInstalled has the error text of the program that failed.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import tomlkit

from mailrelay.atomic_file import replace_file
from mailrelay.setup.unit import NotInstalled as NotInstalled
from mailrelay.setup.unit import run_checked

ACCOUNT = "mailrelay"
DIRECTORY = Path("/etc/mailrelay")
SETTINGS, CLIENT, SSH_CONFIG, KNOWN_HOSTS = (
    DIRECTORY / name for name in ("config.toml", "client.toml", "ssh_config", "known_hosts")
)
KEY = DIRECTORY / "ssh/id_ed25519"
SPOOL = Path("/var/lib/mailrelay")
CREDENTIAL = "/run/credentials/mailrelay.service/ssh_key"
"""Where the daemon finds its key: LoadCredential in the unit."""
SMTP, CONTROL = "/run/mailrelay/smtp", "/run/mailrelay/control"
SOCKETS = ("mailrelay.socket", "mailrelay-trigger.socket", "mailrelay-control.socket")
UNITS = (*SOCKETS, "mailrelay.service", "mailrelay-control@.service")
ENABLED = (*SOCKETS, "mailrelay.service")
ENVIRON = {"HOME": str(SPOOL)}
"""The variables for paths in the settings, as the daemon has them."""
ALTERNATIVES = (
    ("sendmail", "/usr/sbin/sendmail"),
    ("mailq", "/usr/bin/mailq"),
    ("newaliases", "/usr/bin/newaliases"),
)
PRIORITY = "60"
"""The priority of mailrelay for update-alternatives."""
_PROGRAM = "/usr/bin/mailrelay"
_PLACES = (
    ("mailrelay.sysusers", "sysusers.d/mailrelay.conf"),
    ("mailrelay.tmpfiles", "tmpfiles.d/mailrelay.conf"),
)


@dataclass(frozen=True, slots=True)
class File:
    """A file to be installed. mode: permissions. is_for_group: its group is that of the account, not root's."""

    path: Path
    text: str
    mode: int = 0o644
    is_for_group: bool = False


def make_account() -> list[Path]:
    """Makes the account and the directories. Returns the files that were written. Raises NotInstalled, OSError."""
    written = []
    for name, place in _PLACES:
        packaged = Path("/usr/lib") / place
        file = packaged if packaged.exists() else Path("/etc") / place
        if file is not packaged:
            written += install([File(file, _template(name))])
        run_checked(
            ("systemd-sysusers", str(file)) if "sysusers" in name else ("systemd-tmpfiles", "--create", str(file))
        )
    return written


def install(files: Sequence[File]) -> list[Path]:
    """Writes the files whose content differs, and sets mode and owner of all. Returns the paths of those that were written.
    Raises OSError."""
    written = []
    for file in files:
        if not file.path.is_file() or file.path.read_text("utf-8") != file.text:
            file.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            replace_file(file.path, file.text.encode())
            written.append(file.path)
        # A new file has mode 0600.
        file.path.chmod(file.mode)
        shutil.chown(file.path, "root", ACCOUNT if file.is_for_group else "root")
    return written


def units(program: str, key: Path) -> Iterator[File]:
    """The units, and the drop-in for a key that is not `KEY`. program: the path of `mailrelay`."""
    for name in UNITS:
        if not any((Path(place) / name).exists() for place in ("/usr/lib/systemd/system", "/lib/systemd/system")):
            text = _template(name).replace(f"={_PROGRAM} ", f"={program} ")
            yield File(Path("/etc/systemd/system") / name, text)
    if key != KEY:
        lines = (
            "# Written by `mailrelay setup --system --key`.",
            "[Service]",
            "LoadCredential=",
            f"LoadCredential=ssh_key:{key}",
        )
        yield File(key_drop_in(), "\n".join((*lines, "")))


def key_drop_in() -> Path:
    """The file that names a person's own key."""
    return Path("/etc/systemd/system/mailrelay.service.d/key.conf")


def start(*, restart: bool) -> None:
    """Enables and starts the units. restart: stop those that run first. Raises NotInstalled."""
    run_checked(("systemctl", "daemon-reload"))
    if restart:
        # systemd opens no sockets for a service that runs.
        run_checked(("systemctl", "stop", "mailrelay.service", *SOCKETS))
    run_checked(("systemctl", "enable", "--now", *ENABLED))


def ssh_config(key: str) -> str:
    """The ssh_config of the system's mailrelay. key: the path of the private key."""
    return (
        "# Written by `mailrelay setup --system`, for the system's mailrelay. Hosts may be added below.\n"
        f'IdentityFile "{key}"\n'
        "IdentitiesOnly yes\n"
        "IdentityAgent none\n"
        f"UserKnownHostsFile {KNOWN_HOSTS}\n"
        # ssh(1) does not read it by itself if a file is named with -F.
        'Include "/etc/ssh/ssh_config"\n'
    )


def client_file() -> str:
    """The text of `CLIENT`, for all accounts."""
    return (
        "# How the accounts of this computer reach the system's mailrelay. Every account reads this: it holds no secret.\n"
        f'control = "{CONTROL}"\nsmtp = "{SMTP}"\naccount = "{ACCOUNT}"\n'
    )


def with_system(text: str, allowed: Sequence[str]) -> str:
    """The settings file `text` with the settings that the units need; settings that are in it stay. allowed: accounts that
    may use the port."""
    document: Any = tomlkit.parse(text)
    wanted: Mapping[str, Mapping[str, object]] = {
        "listen": {"address": "127.0.0.1:7777", "everyone": f"unix:{SMTP}", "allow_users": list(allowed)},
        "queue": {"directory": str(SPOOL)},
        "notify": {"desktop": False, "mailbox": str(SPOOL / "Notices")},
    }
    is_changed = False
    for table, values in wanted.items():
        if table not in document:
            document[table] = tomlkit.table()
        for name, value in values.items():
            if name not in document[table]:
                document[table][name] = value
                is_changed = True
    return tomlkit.dumps(document) if is_changed else text


def use_as_sendmail(program: str) -> None:
    """Makes `program` the sendmail, mailq and newaliases of this computer. Raises NotInstalled."""
    (name, link), *slaves = ALTERNATIVES
    words = [word for slave, place in slaves for word in ("--slave", place, slave, program)]
    run_checked(("update-alternatives", "--install", link, name, program, PRIORITY, *words))
    run_checked(("update-alternatives", "--set", name, program))


def no_longer_as_sendmail(program: str) -> None:
    """Undoes `use_as_sendmail`: the program that comes next is used again. Raises NotInstalled."""
    run_checked(("update-alternatives", "--remove", ALTERNATIVES[0][0], program))


def _template(name: str) -> str:
    return resources.files(__package__).joinpath("system").joinpath(name).read_text("utf-8")
