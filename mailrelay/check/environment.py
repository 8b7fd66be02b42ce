"""Adopts the environment of the daemon, so that the checks see what the daemon sees.

The person's shell may have what the daemon lacks: an agent that was started in one terminal is unknown to a service unit.
So this process takes over the environment of the running daemon or, if none runs but a unit is installed, that of the
systemd user manager.
"""

import os
import shlex
import subprocess
from pathlib import Path

from mailrelay import service_manager
from mailrelay.check.finding import Finding

UNIT = "mailrelay.service"
SYSTEMCTL_TIMEOUT = 5.0
"""Seconds."""
_KEPT = ("TERM", "COLUMNS", "LINES", "LANG", "LC_ALL", "LC_CTYPE", "NO_COLOR", "MAILRELAY_CONFIG")
"""Variables that keep this process's value, or stay unset: how output is shown, and which settings are checked."""


def adopt(pid: str | None) -> Finding:
    """Replaces this process's environment by the daemon's. pid: of the daemon, "" if it is unknown, None if none runs."""
    found = _of_process(pid) if pid else None
    if found is not None:
        return _replace(found, f"taken from the daemon, process {pid}")
    found = _of_user_manager()
    if found is not None:
        return _replace(found, f"taken from the systemd user manager, which starts {UNIT}")
    if pid is not None:
        return Finding("environment", None, "this shell's: that of the daemon cannot be read")
    return Finding("environment", True, "this shell's: no daemon runs, and no service unit is installed")


def _replace(found: dict[str, str], source: str) -> Finding:
    ours, theirs = os.environ.get("SSH_AUTH_SOCK", ""), found.get("SSH_AUTH_SOCK", "")
    adopted = {name: value for name, value in found.items() if name not in _KEPT}
    kept = {name: value for name in _KEPT if (value := os.environ.get(name)) is not None}
    os.environ.clear()
    os.environ.update(adopted | kept)
    if ours in ("", theirs):
        return Finding("environment", True, source)
    return Finding("environment", True, f"{source}; its SSH_AUTH_SOCK is {theirs or 'not set'}, yours is {ours}")


def _of_process(pid: str) -> dict[str, str] | None:
    try:
        pairs = Path("/proc", pid, "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return dict(os.fsdecode(pair).partition("=")[::2] for pair in pairs if b"=" in pair)


def _of_user_manager() -> dict[str, str] | None:
    """None if mailrelay's unit is not installed, or there is no systemd user manager."""
    if _systemctl("cat", UNIT) is None:
        return None
    found: dict[str, str] = {}
    # The manager's own variables, then those that the unit adds.
    for line in (_systemctl("show-environment") or "").splitlines():
        name, _, value = line.partition("=")
        found[name] = unquoted(value)
    for pair in shlex.split(_systemctl("show", "--property=Environment", "--value", UNIT) or ""):
        name, _, value = pair.partition("=")
        found[name] = value
    return found or None


def _systemctl(*arguments: str) -> str | None:
    """Its stdout, None if it fails."""
    try:
        done = subprocess.run(
            ["systemctl", "--user", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=service_manager.session_environment(os.environ),
            timeout=SYSTEMCTL_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return os.fsdecode(done.stdout) if done.returncode == 0 else None


def unquoted(value: str) -> str:
    """A value as `systemctl show-environment` prints it, without the shell's quoting, which may be the $'…' of bash."""
    if value.startswith("$'") and value.endswith("'"):
        return value[2:-1].encode("latin-1", "backslashreplace").decode("unicode_escape")
    try:
        return "".join(shlex.split(value))
    except ValueError:
        return value
