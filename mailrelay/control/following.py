"""One message, read again and again until it is settled.

The daemon tells no other process what becomes of a message, so the spool is read at intervals.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mailrelay.control.daemon import is_served
from mailrelay.mail.overview import Event, Listed, RelayhostFault
from mailrelay.mail.there import RetryThere
from mailrelay.ports import SpoolView
from mailrelay.spool.command_spool import CommandSpool

if TYPE_CHECKING:
    from mailrelay.control.system import Queue

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


@dataclass(frozen=True, slots=True)
class AskedThere:
    """A message that the mail server of this relayhost is asked to try again."""

    queue_id: str
    relayhost: str
    retry: RetryThere


def follow(queue: "Queue", key: int, seconds: float) -> Iterator[Listed]:
    """The message with this key, now and every INTERVAL; for the last time after `seconds`. Raises SpoolError."""
    if not isinstance(queue, Path):
        return _repeat(lambda: queue.ask(Listed, "one", key), seconds)
    return _reads(queue, lambda view: view.one(key), seconds)


def follow_progress(directory: Path, key: int, seconds: float) -> Iterator[Progress]:
    """As `follow`, with the timeline, the fault of the relayhost, and whether the daemon runs."""

    def read(view: SpoolView) -> Progress:
        # Before the first query, so that the last commit of a daemon that ends is seen.
        daemon_runs = is_served(directory)
        message = view.one(key)
        faults = view.status().faults
        fault = next((one for one in faults if one.relayhost == message.relayhost), None)
        return Progress(message, view.events(key), fault, daemon_runs)

    return _reads(directory, read, seconds)


def await_retries(queue: "Queue", queue_ids: Sequence[str], seconds: float) -> list[AskedThere]:
    """What became of the wish that mail servers try these messages again, as soon as nothing more is awaited, or after
    `seconds`. queue_ids: whole. Raises NoSuchMessage, SpoolError."""
    if not isinstance(queue, Path):
        return queue.ask(list[AskedThere], "await_retries", queue_ids, seconds)

    def read(view: SpoolView) -> list[AskedThere]:
        found = []
        for queue_id in queue_ids:
            key, _ = view.find(queue_id)
            found.append(AskedThere(queue_id, view.one(key).relayhost, view.retry_there(key) or RetryThere(False, "")))
        return found

    asked: list[AskedThere] = []
    for asked in _reads(queue, read, seconds):
        if not any(one.retry.is_wanted for one in asked):
            break
    return asked


def _reads(directory: Path, read: Callable[[SpoolView], Read], seconds: float) -> Iterator[Read]:
    spool = CommandSpool(directory)

    def look() -> Read:
        with spool.reading() as view:
            return read(view)

    return _repeat(look, seconds)


def _repeat(look: Callable[[], Read], seconds: float) -> Iterator[Read]:
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        left = deadline - time.monotonic()
        yield found
        if left <= 0:
            return
        time.sleep(min(INTERVAL, left))
