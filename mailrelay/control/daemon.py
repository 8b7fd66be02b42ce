"""The daemon as other processes see it: whether it runs, and how to wake it."""

from pathlib import Path

from mailrelay.spool import lock, trigger
from mailrelay.spool.database import prepare_directory as prepare_directory


def daemon_pid(directory: Path) -> str | None:
    """The process id of the daemon that serves the spool in `directory`; "" if it is unknown, None if none runs."""
    return lock.holder(directory)


def wake(directory: Path) -> bool:
    """Wakes the daemon, so that it reads the spool again. Returns whether one runs."""
    return trigger.fire(directory)


def report_network_change(directory: Path) -> bool:
    """Tells the daemon that the network has changed: relayhosts that could not be reached are dialled.

    Returns whether a daemon runs.
    """
    return trigger.fire(directory, trigger.NETWORK)
