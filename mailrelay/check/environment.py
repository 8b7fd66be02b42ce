"""The environment in which the service runs: what a check sees in a person's own shell, the service may not have.

An agent that was started in one terminal is unknown to a unit of the service manager. So this process takes the environment
of the daemon that serves, or, where nobody serves but a unit is installed, that of the systemd user manager.
"""

import os
import shlex
import subprocess
from pathlib import Path

from mailrelay.check.finding import Finding

UNIT = "mailrelay.service"
PATIENCE = 5.0
_OURS = ("TERM", "COLUMNS", "LINES", "LANG", "LC_ALL", "LC_CTYPE", "NO_COLOR", "MAILRELAY_CONFIG")
"""What concerns how we show things, and what we were asked to look at."""


def adopt(pid: str | None) -> Finding:
    """Makes the service's environment this process's own. pid: of the daemon, "" if it is unknown, None if nobody serves."""
    found = _of_process(pid) if pid else None
    if found is not None:
        return _take(found, f"that of process {pid}, which serves")
    found = _of_user_manager()
    if found is not None:
        return _take(found, f"that of the systemd user manager, in which {UNIT} starts")
    if pid is not None:
        return Finding("environment", None, "your own, for that of the process which serves cannot be read")
    return Finding("environment", True, "your own: no process serves, and no unit of yours is installed here")


def _take(found: dict[str, str], whose: str) -> Finding:
    ours, theirs = os.environ.get("SSH_AUTH_SOCK", ""), found.get("SSH_AUTH_SOCK", "")
    kept = {name: value for name in _OURS if (value := os.environ.get(name)) is not None}
    os.environ.clear()
    os.environ.update(found | kept)
    if ours in ("", theirs):
        return Finding("environment", True, whose)
    return Finding("environment", True, f"{whose}; its SSH_AUTH_SOCK is {theirs or 'not set'}, yours {ours}")


def _of_process(pid: str) -> dict[str, str] | None:
    try:
        pairs = Path("/proc", pid, "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return dict(os.fsdecode(pair).partition("=")[::2] for pair in pairs if b"=" in pair)


def _of_user_manager() -> dict[str, str] | None:
    """None where there is no unit of ours, or nobody to ask."""
    if _systemctl("cat", UNIT) is None:
        return None
    found: dict[str, str] = {}
    # The manager's, and what the unit adds.
    for line in (_systemctl("show-environment") or "").splitlines():
        name, _, value = line.partition("=")
        found[name] = unquoted(value)
    for pair in shlex.split(_systemctl("show", "--property=Environment", "--value", UNIT) or ""):
        name, _, value = pair.partition("=")
        found[name] = value
    return found or None


def _systemctl(*words: str) -> str | None:
    """What it prints, None if it fails."""
    try:
        done = subprocess.run(
            ["systemctl", "--user", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return os.fsdecode(done.stdout) if done.returncode == 0 else None


def unquoted(value: str) -> str:
    """Values are shown as a shell takes them; $'…' is one more way of it."""
    if value.startswith("$'") and value.endswith("'"):
        return value[2:-1].encode("latin-1", "backslashreplace").decode("unicode_escape")
    try:
        return "".join(shlex.split(value))
    except ValueError:
        return value
