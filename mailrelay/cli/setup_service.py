"""A step of `mailrelay setup`: starts the daemon, by a service manager, or for one test message as a child process."""

import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mailrelay.cli.steps import ask, fine, note, stop, undo
from mailrelay.cli.waiting import waiting_for
from mailrelay.config import Settings
from mailrelay.control.daemon import daemon_pid, is_asleep
from mailrelay.setup import unit
from mailrelay.setup.unit import NotInstalled

START_TIMEOUT = 20.0
"""Seconds for a daemon to start."""
END_TIMEOUT = 40.0
"""Seconds for it to end, as in the service units."""


def start_service(settings: Settings, file: Path, *, changed: bool, yes: bool) -> bool:
    """Has a service manager run the daemon; returns whether a daemon runs. changed: the settings were changed just now."""
    directory = settings.queue.directory
    words = unit.command_line(file, os.environ)
    found = unit.find(words, os.environ, unit.on_demand(settings))
    holder = daemon_pid(directory)
    if holder is not None and not (found and unit.is_running(found)):
        if changed:
            raise stop(f"the daemon (process {holder}) still has the old settings", f"End it: kill {holder}")
        fine(f"the daemon (process {holder}) runs already, started by hand")
        return True
    if found is None:
        note(
            "No service manager of your session was found (systemd, launchd). Start the daemon yourself after each login:"
        )
        note(shlex.join(words))
        return False
    runs_it = found.is_installed and (holder is not None or is_asleep(directory))
    if runs_it and not changed:
        fine(f"{found.manager} runs the daemon: {found.file}")
        return True
    if not runs_it and not ask(f"Have {found.manager} run `mailrelay serve`, now and after each login?", yes=yes):
        note("Start the daemon yourself:", shlex.join(words))
        return False
    try:
        with waiting_for(f"{found.manager} to start the daemon"):
            unit.install(found, restart=changed)
    except (NotInstalled, OSError) as error:
        raise stop(f"the service does not run: {error}", f"See its output: {shlex.join(words)}") from None
    if not _starts(directory):
        raise stop(
            f"{found.manager} was told to run the daemon, but it does not run", f"See its output: {shlex.join(words)}"
        )
    fine(f"{found.manager} runs the daemon: {found.file}")
    undo(found.undo)
    if found.manager == "systemd" and not unit.lingers():
        note("The daemon ends when you log out. To keep it running: loginctl enable-linger")
    return True


@contextmanager
def temporary_daemon(settings: Settings, file: Path) -> Iterator[None]:
    """Runs a daemon as a child process inside the block."""
    words = unit.command_line(file, os.environ)
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        if not _starts(settings.queue.directory, process):
            raise stop("the daemon does not start", f"See its output: {shlex.join(words)}")
        yield
    finally:
        process.terminate()
        with waiting_for("the daemon to end"):
            process.wait(END_TIMEOUT)


def _starts(directory: Path, process: subprocess.Popen[bytes] | None = None) -> bool:
    """Whether a daemon runs, or starts in time. process: the one that is expected to."""
    deadline = time.monotonic() + START_TIMEOUT
    with waiting_for("the daemon to start"):
        while daemon_pid(directory) is None:
            if time.monotonic() > deadline or (process is not None and process.poll() is not None):
                return False
            time.sleep(0.05)
    return True
