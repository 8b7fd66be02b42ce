"""The service unit, with which systemd or launchd starts `mailrelay serve` in the person's session.

    unit = find(command_line(settings_file, environ), environ)     # None: no service manager in this session
    install(unit, restart=False)                                   # written, enabled, started

The templates are the files `mailrelay.*` and `mailrelay-on-demand.conf` in this directory. Filled in are the command
lines, for launchd the path of the log, and in the socket unit the addresses and the trigger. Promises: a unit that is
up to date is not touched. A command of the service manager that fails raises NotInstalled with its error text.
"""

import os
import plistlib
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mailrelay import grammar, service_manager
from mailrelay.atomic_file import replace_file
from mailrelay.config import Settings
from mailrelay.endpoint import Endpoint, Tcp, Unix
from mailrelay.mail.printable import printable

NAME = "mailrelay"
SOCKET_UNIT = "mailrelay.socket"
MANAGER_TIMEOUT = 60.0
"""Seconds for one command of a service manager; a start waits until the daemon is ready."""
TRIGGER = "trigger"
"""The name of the FIFO in the spool's directory (`spool.trigger`)."""
UNLOAD_INTERVAL = 0.2
"""Seconds between two looks at whether launchd has unloaded the agent."""

PACKAGED = Path("/usr/lib/systemd/user/mailrelay.service")
"""The unit of a package of the system (contrib/debian)."""

_PROGRAM = "%h/.local/bin/mailrelay"
"""The program in the template of the systemd unit."""


class NotInstalled(Exception):
    """A command of the service manager failed. The text is one sentence: the command and its error text, escaped."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A service unit, and the commands of its manager. file, text: path and content of the unit. check_manager:
    succeeds if the manager can be used. check_running: succeeds if the service runs, and if its output has `running`.
    unload: makes the manager unload the old unit; check_loaded: succeeds until that is done; both None if `reload`
    replaces a loaded unit. reload: run after `file` was written. start: enables and starts. restart: the same for a
    running service. undo: the shell command that removes the unit. more: further files, with their contents. stale:
    files of an earlier setup, to be removed."""

    manager: str
    file: Path
    text: bytes
    check_manager: tuple[str, ...]
    check_running: tuple[str, ...]
    running: bytes
    check_loaded: tuple[str, ...] | None
    unload: tuple[str, ...] | None
    reload: tuple[tuple[str, ...], ...]
    start: tuple[tuple[str, ...], ...]
    restart: tuple[tuple[str, ...], ...]
    undo: str
    more: tuple[tuple[Path, bytes], ...] = ()
    stale: tuple[Path, ...] = ()

    @property
    def is_installed(self) -> bool:
        """Whether the files exist with these contents, and no stale one does."""
        files = ((self.file, self.text), *self.more)
        return not self.stale and all(_has(file, text) for file, text in files)


def command_line(settings: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The command line of `mailrelay serve` with this settings file: the `mailrelay` script that runs now, or else
    `python -m mailrelay`."""
    script = shutil.which(sys.argv[0])
    program = (str(Path(script).absolute()),) if script and Path(script).name == NAME else (sys.executable, "-m", NAME)
    default = Path(environ.get("HOME", "~")) / ".config" / NAME / "config.toml"
    # A service manager does not see MAILRELAY_CONFIG of the person's shell.
    return (*program, "serve") if settings == default else (*program, "--config", str(settings.absolute()), "serve")


@dataclass(frozen=True, slots=True)
class OnDemand:
    """Where the service manager listens to start the daemon on demand: the addresses, and the path of the trigger."""

    addresses: tuple[Endpoint, ...]
    trigger: Path


def on_demand(settings: Settings) -> OnDemand | None:
    """Where the service manager listens with these settings; None if the daemon is to run always (no `listen.idle_exit`)."""
    if not settings.listen.idle_exit:
        return None
    named = (settings.listen.address, *(each.listen for each in settings.forwards))
    return OnDemand(tuple(one for each in named for one in _each_family(each)), settings.queue.directory / TRIGGER)


def _each_family(endpoint: Endpoint) -> tuple[Endpoint, ...]:
    """The endpoint; for "localhost" one endpoint for each of its addresses that this machine has."""
    if isinstance(endpoint, Unix) or endpoint.host != "localhost":
        return (endpoint,)
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return (Tcp("127.0.0.1", endpoint.port),)
    return Tcp("127.0.0.1", endpoint.port), Tcp("::1", endpoint.port)


def find(argv: Sequence[str], environ: Mapping[str, str], demand: OnDemand | None = None) -> Unit | None:
    """The unit for the service manager of this session; None if there is none, or its `check_manager` fails.

    demand: where systemd listens to start the daemon on demand; None if the daemon is to run always. Ignored with
    launchd, with which it always runs.
    """
    unit = launchd(argv, environ) if sys.platform == "darwin" else systemd(argv, environ, demand)
    if shutil.which(unit.check_manager[0]) is None:
        return None
    return unit if _run(unit.check_manager).returncode == 0 else None


def is_running(unit: Unit) -> bool:
    """Whether the service runs, according to its manager."""
    done = _run(unit.check_running)
    return done.returncode == 0 and re.search(unit.running, done.stdout) is not None


def install(unit: Unit, *, restart: bool) -> bool:
    """Writes the unit if it differs. Starts the service now and at the start of each session. Returns whether anything was
    done.

    restart: whether to restart a running service whose unit is up to date. Raises NotInstalled, OSError.
    """
    was_installed, was_running = unit.is_installed, is_running(unit)
    if was_installed and was_running and not restart:
        return False
    for file, text in ((unit.file, unit.text), *unit.more):
        if not _has(file, text):
            replace_file(file, text)
    if unit.unload is not None and unit.check_loaded is not None:
        _run(unit.unload)
        deadline = time.monotonic() + MANAGER_TIMEOUT
        while _run(unit.check_loaded).returncode == 0 and time.monotonic() < deadline:
            # Until the daemon has ended, launchd does not load the unit again.
            time.sleep(UNLOAD_INTERVAL)
    for argv in unit.reload:
        run_checked(argv)
    if was_running:
        for argv in unit.restart:
            run_checked(argv)
    else:
        for argv in unit.start:
            run_checked(argv)
    return True


def systemd(argv: Sequence[str], environ: Mapping[str, str], demand: OnDemand | None = None) -> Unit:
    """A systemd user unit that runs this command line, whose last word is "serve"."""
    directory = grammar.path("$XDG_CONFIG_HOME/systemd/user", environ)
    text = (
        _template("mailrelay.service")
        .replace(f"={_PROGRAM} serve", f"={_exec_start(argv)}")
        .replace(f"={_PROGRAM} reload", f"={_exec_start((*argv[:-1], 'reload'))}")
        .encode()
    )
    file, socket_file = directory / "mailrelay.service", directory / SOCKET_UNIT
    # A packaged unit that says the same is used as it is: so it changes with the package.
    is_packaged = not file.exists() and _has(PACKAGED, text)
    drop_in = directory / "mailrelay.service.d/on-demand.conf"
    systemctl = ("systemctl", "--user")
    enable = (*systemctl, "enable", NAME)
    reload: tuple[tuple[str, ...], ...] = ((*systemctl, "daemon-reload"),)
    start: tuple[tuple[str, ...], ...] = ((*systemctl, "enable", "--now", NAME),)
    restart: tuple[tuple[str, ...], ...] = (enable, (*systemctl, "restart", NAME))
    more: tuple[tuple[Path, bytes], ...] = ()
    stale: tuple[Path, ...] = ()
    if demand is not None:
        more = ((socket_file, _socket_unit(demand)), (drop_in, _template("mailrelay-on-demand.conf").encode()))
        # systemd opens no sockets for a service that runs.
        start = restart = (
            (*systemctl, "stop", NAME, SOCKET_UNIT),
            (*systemctl, "enable", "--now", SOCKET_UNIT),
            enable,
            (*systemctl, "start", NAME),
        )
    else:
        stale = tuple(path for path in (socket_file, drop_in) if path.exists())
    if stale:
        reload = ((*systemctl, "disable", "--now", SOCKET_UNIT), ("rm", *map(str, stale)), *reload)
    units = " ".join((NAME, SOCKET_UNIT) if demand else (NAME,))
    files = " ".join(map(str, (*(() if is_packaged else (file,)), *(path for path, _ in more))))
    return Unit(
        manager="systemd",
        file=PACKAGED if is_packaged else file,
        text=text,
        check_manager=(*systemctl, "show-environment"),
        check_running=(*systemctl, "is-active", "--quiet", NAME),
        running=b"",
        check_loaded=None,
        unload=None,
        reload=reload,
        start=start,
        restart=restart,
        undo=f"systemctl --user disable --now {units}" + (f"; rm {files}" if files else ""),
        more=more,
        stale=stale,
    )


def _has(file: Path, text: bytes) -> bool:
    return file.is_file() and file.read_bytes() == text


def _socket_unit(demand: OnDemand) -> bytes:
    """The socket unit: the template with these addresses and this trigger in place of its own, and without the comments
    on them."""
    lines = []
    for line in _template(SOCKET_UNIT).splitlines():
        if line == "[Socket]":
            addresses = [_escaped(str(one).removeprefix("unix:")) for one in demand.addresses]
            lines += [
                line,
                *(f"ListenStream={address}" for address in addresses),
                f"ListenFIFO={_escaped(str(demand.trigger))}",
            ]
        elif not line.startswith(("ListenStream=", "ListenFIFO=", "# All addresses", "# The file")):
            lines.append(line)
    return "\n".join((*lines, "")).encode()


def _escaped(path: str) -> str:
    """A path as a value in a unit, where `%` begins a specifier (systemd.unit(5))."""
    return path.replace("%", "%%")


def _template(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def launchd(argv: Sequence[str], environ: Mapping[str, str]) -> Unit:
    """A launchd agent that runs this command line: launchd.plist(5), launchctl(1)."""
    agent = plistlib.loads(resources.files(__package__).joinpath("mailrelay.plist").read_bytes())
    file = grammar.path("~/Library/LaunchAgents/mailrelay.plist", environ)
    # launchd expands no "~".
    log = grammar.path("~/Library/Logs/mailrelay.log", environ)
    domain = f"gui/{os.getuid()}"
    start = ("launchctl", "bootstrap", domain, str(file))
    return Unit(
        manager="launchd",
        file=file,
        text=plistlib.dumps(agent | {"ProgramArguments": list(argv), "StandardErrorPath": str(log)}),
        check_manager=("launchctl", "print", domain),
        # The status only says whether the agent is loaded. It may wait for its next start, or have ended.
        check_running=("launchctl", "list", NAME),
        running=rb'"PID" = [0-9]+;',
        check_loaded=("launchctl", "list", NAME),
        unload=("launchctl", "bootout", f"{domain}/{NAME}"),
        reload=(("launchctl", "enable", f"{domain}/{NAME}"),),
        start=(start,),
        restart=(start,),
        undo=f"launchctl bootout {domain}/{NAME}; rm {file}",
    )


def lingers() -> bool:
    """Whether the person's services run without a session too; also True if that cannot be found out."""
    if shutil.which("loginctl") is None:
        return True
    done = _run(("loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value"))
    return done.stdout.strip() != b"no"


def _exec_start(argv: Sequence[str]) -> str:
    """A command line in the syntax of systemd.service(5) and systemd.syntax(7). systemd expands no variables in the
    first word, so `$` is not doubled there."""
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
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=service_manager.session_environment(os.environ),
            timeout=MANAGER_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(argv, 124, b"", str(error).encode())


def run_checked(argv: Sequence[str]) -> None:
    """Runs a program of the service manager. Raises NotInstalled if it fails."""
    done = _run(argv)
    if done.returncode != 0:
        reason = printable((done.stderr or done.stdout).strip()[-300:]) or f"status {done.returncode}"
        raise NotInstalled(f"`{' '.join(argv)}` failed: {reason}")
