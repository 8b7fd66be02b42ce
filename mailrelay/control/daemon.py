"""The daemon as other processes see it: whether it runs, and how to wake it."""

import os
import signal
import time
from pathlib import Path

from mailrelay.spool import liveness, lock, trigger
from mailrelay.spool.database import prepare_directory as prepare_directory
from mailrelay.spool.liveness import NoAnswer as NoAnswer

RELOAD_TIMEOUT = 30.0
"""Seconds within which a daemon has read its settings again."""
_LOOK_INTERVAL = 0.05


def daemon_pid(directory: Path) -> str | None:
    """The process id of the daemon that serves the spool in `directory`; "" if it is unknown, None if none runs."""
    return lock.holder(directory)


def is_served(directory: Path) -> bool:
    """Whether a daemon serves the spool in `directory`, or a service manager starts one with the next mail."""
    return lock.holder(directory) is not None or trigger.is_listened_to(directory)


def is_asleep(directory: Path) -> bool:
    """Whether no daemon runs, and a service manager starts one with the next mail."""
    return lock.holder(directory) is None and trigger.is_listened_to(directory)


def wake(directory: Path) -> bool:
    """Wakes the daemon, so that it reads the spool again. Returns whether one runs."""
    return trigger.fire(directory)


def report_network_change(directory: Path) -> bool:
    """Tells the daemon that the network has changed: relayhosts that could not be reached are dialled.

    Returns whether a daemon runs.
    """
    return trigger.fire(directory, trigger.NETWORK)


def reload(directory: Path) -> str | None:
    """Makes the daemon read its settings again, and waits for that. Returns why it did not take them, "" if it did, or
    if it reads them when it is started with the next mail; None if no daemon runs, or it has not started yet.

    Raises NoAnswer if it does not answer, and OSError if it belongs to another account.
    """
    end = time.monotonic() + RELOAD_TIMEOUT
    before = liveness.ask(directory, liveness.ANSWER_TIMEOUT)
    if before is None:
        return "" if is_asleep(directory) else None
    os.kill(before.pid, signal.SIGHUP)
    while time.monotonic() < end:
        time.sleep(_LOOK_INTERVAL)
        now = liveness.ask(directory, liveness.ANSWER_TIMEOUT)
        if now is None:
            if is_asleep(directory):
                return ""
            if lock.holder(directory) is None:
                return None
        elif now.pid != before.pid:
            # It was started after that, with the settings of the file.
            return ""
        elif now.reloads > before.reloads:
            return now.refusal
    raise NoAnswer
