"""A step of `mailrelay setup`: a daemon that serves, by a service manager or, for one test letter, as a child of ours."""

import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mailrelay.cli.steps import ask, fine, note, stop, undo
from mailrelay.config import Settings
from mailrelay.setup import unit
from mailrelay.setup.unit import NotInstalled
from mailrelay.spool import lock

START = 20.0
"""Seconds for a daemon to begin to serve."""
END = 40.0
"""Seconds for it to end, as in the units."""


def start_service(settings: Settings, file: Path, *, changed: bool, yes: bool) -> bool:
    """Has a service manager run the daemon; returns whether it does. changed: the settings are new to a daemon that runs."""
    directory = settings.queue.directory
    words = unit.command_line(file, os.environ)
    found = unit.find(words, os.environ)
    holder = lock.holder(directory)
    if holder is not None and not (found and unit.is_running(found)):
        if changed:
            raise stop(f"process {holder} serves, with the old settings", f"End it: kill {holder}")
        fine(f"process {holder} serves already, started by hand")
        return True
    if found is None:
        note(
            "No service manager of your session answers here (systemd, launchd). Start it yourself, whenever you log in:"
        )
        note(shlex.join(words))
        return False
    runs_it = found.is_installed and holder is not None
    if runs_it and not changed:
        fine(f"{found.manager} runs it: {found.file}")
        return True
    if not runs_it and not ask(f"Have {found.manager} run `mailrelay serve`, now and whenever you log in?", yes=yes):
        note("Start it yourself:", shlex.join(words))
        return False
    try:
        unit.install(found, restart=changed)
    except (NotInstalled, OSError) as error:
        raise stop(f"the service does not run: {error}", f"See what it says: {shlex.join(words)}") from None
    if not _serves(directory):
        raise stop(f"{found.manager} was told to run it, and nobody serves", f"See what it says: {shlex.join(words)}")
    fine(f"{found.manager} runs it: {found.file}")
    undo(found.undo)
    if found.manager == "systemd" and not unit.lingers(os.environ):
        note("It ends when you log out. To have it run always: loginctl enable-linger")
    return True


@contextmanager
def serve_for_now(settings: Settings, file: Path) -> Iterator[None]:
    """A daemon of ours, for as long as the context lasts."""
    words = unit.command_line(file, os.environ)
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        if not _serves(settings.queue.directory, process):
            raise stop("the daemon does not begin to serve", f"See what it says: {shlex.join(words)}")
        yield
    finally:
        process.terminate()
        process.wait(END)


def _serves(directory: Path, process: subprocess.Popen[bytes] | None = None) -> bool:
    """Whether somebody serves, or begins to in time. process: who is to do so."""
    deadline = time.monotonic() + START
    while lock.holder(directory) is None:
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            return False
        time.sleep(0.05)
    return True
