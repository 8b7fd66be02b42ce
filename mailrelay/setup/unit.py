"""The service unit: `mailrelay serve` started with the person's session, by systemd or launchd, where there is one of them.

    unit = find(command_line(settings_file, environ), environ)     # None: nobody starts services here
    install(unit, again=False)                                    # written, enabled, started

The units are the files `mailrelay.service` and `mailrelay.plist` beside this one; only the words of the command line are
put into them. Promises: a unit that is as it should be is left alone. Raises NotInstalled with the manager's own words.
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
ANSWER = 60.0
"""Seconds for a service manager to do what it was told; starting waits until the daemon is ready."""

_EXEC_START = "ExecStart=%h/.local/bin/mailrelay serve"


class NotInstalled(Exception):
    """The service manager did not do what it was told. The text is one sentence: what, and its words."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A service unit. `text` is what `file` is to be. asks: succeeds where the manager can be used. state: succeeds where
    the service runs. before: what to do once the file is there. start, restart: as they say. undo: for a shell."""

    manager: str
    file: Path
    text: bytes
    asks: tuple[str, ...]
    state: tuple[str, ...]
    before: tuple[tuple[str, ...], ...]
    start: tuple[str, ...]
    restart: tuple[tuple[str, ...], ...]
    undo: str

    @property
    def is_there(self) -> bool:
        """Whether the file is as it should be."""
        return self.file.is_file() and self.file.read_bytes() == self.text


def command_line(settings: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The words that serve with these settings, as whoever calls us now has it: the script, or the interpreter."""
    script = shutil.which(sys.argv[0])
    program = (str(Path(script).absolute()),) if script and Path(script).name == NAME else (sys.executable, "-m", NAME)
    usual = Path(environ.get("HOME", "~")) / ".config" / NAME / "config.toml"
    # A service manager does not know what the person's shell has set.
    return (*program, "serve") if settings == usual else (*program, "--config", str(settings.absolute()), "serve")


def find(words: Sequence[str], environ: Mapping[str, str]) -> Unit | None:
    """The unit for the service manager of this session; None where there is none that answers."""
    unit = launchd(words, environ) if sys.platform == "darwin" else systemd(words, environ)
    if shutil.which(unit.asks[0]) is None:
        return None
    return unit if _run(unit.asks).returncode == 0 else None


def is_running(unit: Unit) -> bool:
    """Whether the service runs, as far as its manager knows."""
    return _run(unit.state).returncode == 0


def install(unit: Unit, *, again: bool) -> bool:
    """Writes the unit if it is another one, has it started now and with each session; returns whether anything was done.

    again: a service that runs already is started afresh in any case. Raises NotInstalled, OSError.
    """
    was_there, was_running = unit.is_there, is_running(unit)
    if was_there and was_running and not again:
        return False
    if not was_there:
        replace_file(unit.file, unit.text)
    for words in unit.before:
        _must(words)
    if was_running:
        for words in unit.restart:
            _must(words)
    else:
        _must(unit.start)
    return True


def systemd(words: Sequence[str], environ: Mapping[str, str]) -> Unit:
    """A systemd user unit that runs these words."""
    text = resources.files(__package__).joinpath("mailrelay.service").read_text("utf-8")
    file = grammar.path("$XDG_CONFIG_HOME/systemd/user/mailrelay.service", environ)
    control = ("systemctl", "--user")
    return Unit(
        manager="systemd",
        file=file,
        text=text.replace(_EXEC_START, f"ExecStart={_exec_start(words)}").encode(),
        asks=(*control, "show-environment"),
        state=(*control, "is-active", "--quiet", NAME),
        before=((*control, "daemon-reload"),),
        start=(*control, "enable", "--now", NAME),
        restart=((*control, "enable", NAME), (*control, "restart", NAME)),
        undo=f"systemctl --user disable --now {NAME}; rm {file}",
    )


def launchd(words: Sequence[str], environ: Mapping[str, str]) -> Unit:
    """A launchd agent that runs these words."""
    agent = plistlib.loads(resources.files(__package__).joinpath("mailrelay.plist").read_bytes())
    file = grammar.path("~/Library/LaunchAgents/mailrelay.plist", environ)
    load = ("launchctl", "load", "-w", str(file))
    return Unit(
        manager="launchd",
        file=file,
        text=plistlib.dumps(agent | {"ProgramArguments": list(words)}),
        asks=("launchctl", "list"),
        state=("launchctl", "list", NAME),
        before=(),
        start=load,
        restart=(("launchctl", "unload", str(file)), load),
        undo=f"launchctl unload -w {file}; rm {file}",
    )


def lingers(environ: Mapping[str, str]) -> bool:
    """Whether the person's services run without a session too, or it cannot be told."""
    if shutil.which("loginctl") is None:
        return True
    done = _run(("loginctl", "show-user", environ.get("USER", ""), "--property=Linger", "--value"))
    return done.stdout.strip() != b"no"


def _exec_start(words: Sequence[str]) -> str:
    """Words as systemd.service(5) and systemd.syntax(7) have them. Variables are looked for behind the first one only."""
    program, *rest = words
    return " ".join((_systemd_word(program), *(_systemd_word(word).replace("$", "$$") for word in rest)))


def _systemd_word(word: str) -> str:
    doubled = word.replace("\\", "\\\\").replace("%", "%%")
    if any(char in doubled for char in " \t\"';"):
        escaped = doubled.replace('"', '\\"')
        return f'"{escaped}"'
    return doubled


def _run(words: Sequence[str]) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(words, 124, b"", str(error).encode())


def _must(words: Sequence[str]) -> None:
    done = _run(words)
    if done.returncode != 0:
        said = printable((done.stderr or done.stdout).strip()[-300:]) or f"status {done.returncode}"
        raise NotInstalled(f"`{' '.join(words)}` failed: {said}")
