"""The service unit, with which systemd or launchd starts `mailrelay serve` in the person's session.

    unit = find(command_line(settings_file, environ), environ)     # None: no service manager in this session
    install(unit, restart=False)                                   # written, enabled, started

The templates are the files `mailrelay.service` and `mailrelay.plist` in this directory; only the command line is filled in.
Promises: a unit that is up to date is not touched. Raises NotInstalled with the error text of the service manager.
"""

import plistlib
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mailrelay import grammar
from mailrelay.atomic_file import replace_file
from mailrelay.mail.printable import printable

NAME = "mailrelay"
MANAGER_TIMEOUT = 60.0
"""Seconds for one command of a service manager; a start waits until the daemon is ready."""

_EXEC_START = "ExecStart=%h/.local/bin/mailrelay serve"


class NotInstalled(Exception):
    """A command of the service manager failed. The text is one sentence: the command and its error text, escaped."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A service unit, and the commands of its manager. file, text: path and content of the unit. check_manager: succeeds if
    the manager can be used. check_running: succeeds if the service runs. reload: after `file` was written. start: enables
    and starts. restart: the same for a running service. undo: the shell command that removes the unit."""

    manager: str
    file: Path
    text: bytes
    check_manager: tuple[str, ...]
    check_running: tuple[str, ...]
    reload: tuple[tuple[str, ...], ...]
    start: tuple[str, ...]
    restart: tuple[tuple[str, ...], ...]
    undo: str

    @property
    def is_installed(self) -> bool:
        """Whether the file exists with this content."""
        return self.file.is_file() and self.file.read_bytes() == self.text


def command_line(settings: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The command line of `mailrelay serve` with these settings: through the script that runs now, or else the
    interpreter."""
    script = shutil.which(sys.argv[0])
    program = (str(Path(script).absolute()),) if script and Path(script).name == NAME else (sys.executable, "-m", NAME)
    default = Path(environ.get("HOME", "~")) / ".config" / NAME / "config.toml"
    # A service manager does not see MAILRELAY_CONFIG of the person's shell.
    return (*program, "serve") if settings == default else (*program, "--config", str(settings.absolute()), "serve")


def find(argv: Sequence[str], environ: Mapping[str, str]) -> Unit | None:
    """The unit for the service manager of this session; None if there is none, or its `check_manager` fails."""
    unit = launchd(argv, environ) if sys.platform == "darwin" else systemd(argv, environ)
    if shutil.which(unit.check_manager[0]) is None:
        return None
    return unit if _run(unit.check_manager).returncode == 0 else None


def is_running(unit: Unit) -> bool:
    """Whether the service runs, according to its manager."""
    return _run(unit.check_running).returncode == 0


def install(unit: Unit, *, restart: bool) -> bool:
    """Writes the unit if it differs. Starts the service now and at the start of each session. Returns whether anything was
    done.

    restart: whether to restart a running service whose unit is up to date. Raises NotInstalled, OSError.
    """
    was_installed, was_running = unit.is_installed, is_running(unit)
    if was_installed and was_running and not restart:
        return False
    if not was_installed:
        replace_file(unit.file, unit.text)
    for argv in unit.reload:
        _run_checked(argv)
    if was_running:
        for argv in unit.restart:
            _run_checked(argv)
    else:
        _run_checked(unit.start)
    return True


def systemd(argv: Sequence[str], environ: Mapping[str, str]) -> Unit:
    """A systemd user unit that runs this command line."""
    text = resources.files(__package__).joinpath("mailrelay.service").read_text("utf-8")
    file = grammar.path("$XDG_CONFIG_HOME/systemd/user/mailrelay.service", environ)
    systemctl = ("systemctl", "--user")
    return Unit(
        manager="systemd",
        file=file,
        text=text.replace(_EXEC_START, f"ExecStart={_exec_start(argv)}").encode(),
        check_manager=(*systemctl, "show-environment"),
        check_running=(*systemctl, "is-active", "--quiet", NAME),
        reload=((*systemctl, "daemon-reload"),),
        start=(*systemctl, "enable", "--now", NAME),
        restart=((*systemctl, "enable", NAME), (*systemctl, "restart", NAME)),
        undo=f"systemctl --user disable --now {NAME}; rm {file}",
    )


def launchd(argv: Sequence[str], environ: Mapping[str, str]) -> Unit:
    """A launchd agent that runs this command line."""
    agent = plistlib.loads(resources.files(__package__).joinpath("mailrelay.plist").read_bytes())
    file = grammar.path("~/Library/LaunchAgents/mailrelay.plist", environ)
    load = ("launchctl", "load", "-w", str(file))
    return Unit(
        manager="launchd",
        file=file,
        text=plistlib.dumps(agent | {"ProgramArguments": list(argv)}),
        check_manager=("launchctl", "list"),
        check_running=("launchctl", "list", NAME),
        reload=(),
        start=load,
        restart=(("launchctl", "unload", str(file)), load),
        undo=f"launchctl unload -w {file}; rm {file}",
    )


def lingers(environ: Mapping[str, str]) -> bool:
    """Whether the person's services run without a session too; also True if that cannot be found out."""
    if shutil.which("loginctl") is None:
        return True
    done = _run(("loginctl", "show-user", environ.get("USER", ""), "--property=Linger", "--value"))
    return done.stdout.strip() != b"no"


def _exec_start(argv: Sequence[str]) -> str:
    """A command line in the syntax of systemd.service(5) and systemd.syntax(7). systemd
    expands no variables in the first word, so `$` is not doubled there."""
    program, *rest = argv
    return " ".join((_systemd_word(program), *(_systemd_word(word).replace("$", "$$") for word in rest)))


def _systemd_word(word: str) -> str:
    doubled = word.replace("\\", "\\\\").replace("%", "%%")
    if any(char in doubled for char in " \t\"';"):
        escaped = doubled.replace('"', '\\"')
        return f'"{escaped}"'
    return doubled


def _run(argv: Sequence[str]) -> "subprocess.CompletedProcess[bytes]":
    """Raises nothing: a command that cannot be started, or takes too long, has status 124."""
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=MANAGER_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(argv, 124, b"", str(error).encode())


def _run_checked(argv: Sequence[str]) -> None:
    """Raises NotInstalled if the command fails."""
    done = _run(argv)
    if done.returncode != 0:
        reason = printable((done.stderr or done.stdout).strip()[-300:]) or f"status {done.returncode}"
        raise NotInstalled(f"`{' '.join(argv)}` failed: {reason}")
