"""One message, read again and again until it is settled.

The daemon tells no other process what becomes of a message, so the spool is read at intervals.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mailrelay.control.daemon import daemon_pid
from mailrelay.mail.overview import Event, Listed, RelayhostFault
from mailrelay.ports import SpoolView
from mailrelay.spool.command_spool import CommandSpool

INTERVAL = 0.1
"""Seconds between two reads."""

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Progress:
    """A message and its timeline at one instant. fault: why its relayhost cannot be reached, None if nothing is known."""

    message: Listed
    timeline: list[Event]
    fault: RelayhostFault | None
    daemon_runs: bool


def follow(directory: Path, key: int, seconds: float) -> Iterator[Listed]:
    """The message with this key, now and every INTERVAL; for the last time after `seconds`. Raises SpoolError."""
    return _reads(directory, lambda view: view.one(key), seconds)


def follow_progress(directory: Path, key: int, seconds: float) -> Iterator[Progress]:
    """As `follow`, with the timeline, the fault of the relayhost, and whether the daemon runs."""

    def read(view: SpoolView) -> Progress:
        # Before the first query, so that the last commit of a daemon that ends is seen.
        daemon_runs = daemon_pid(directory) is not None
        message = view.one(key)
        faults = view.status().faults
        fault = next((one for one in faults if one.relayhost == message.relayhost), None)
        return Progress(message, view.events(key), fault, daemon_runs)

    return _reads(directory, read, seconds)


def _reads(directory: Path, read: Callable[[SpoolView], Read], seconds: float) -> Iterator[Read]:
    deadline = time.monotonic() + seconds
    spool = CommandSpool(directory)
    while True:
        with spool.reading() as view:
            found = read(view)
        left = deadline - time.monotonic()
        yield found
        if left <= 0:
            return
        time.sleep(min(INTERVAL, left))
