"""`mailrelay queue show ID --follow`: prints each new event of a message as a line, until no recipient waits any more.

On a terminal, the last line is the progress of the message while it is being sent. Elsewhere there are only the events.
"""

import time
from collections.abc import Callable, Iterable

from mailrelay.cli.progress_bar import ProgressBar
from mailrelay.cli.terminal import put
from mailrelay.cli.waiting import waiting_for
from mailrelay.control.details import details
from mailrelay.control.records import WAITING
from mailrelay.control.system import Queue
from mailrelay.mail.lifecycle import State
from mailrelay.mail.overview import Event, Listed

INTERVAL = 0.5
"""Seconds between two reads of the spool."""


def follow_events(queue: Queue, queue_id: str, shown: Iterable[Event], line: Callable[[Event, float], str]) -> None:
    """Prints the events of a message that are not in `shown`, until no recipient waits any more.

    line: makes the text of an event; its second argument is now, in epoch seconds. Raises SpoolError, NoSuchMessage.
    """
    printed = set(shown)
    with waiting_for("the daemon") as wait:
        bar = ProgressBar(queue, wait)
        while True:
            found = details(queue, queue_id)
            new = [event for event in found.timeline if event not in printed and not event.planned]
            now = time.time()
            if new:
                printed.update(new)
                wait.pause()
                put(*(line(event, now) for event in new))
            if not any(to.state in WAITING for to in found.message.recipients):
                return
            bar.show(found.message, awaited(found.message, now))
            time.sleep(INTERVAL)


def awaited(message: Listed, now: float) -> str:
    """What a message that waits is waiting for, as the end of "waiting for …". now: epoch seconds."""
    states = {to.state for to in message.recipients}
    if "active" in states:
        return "the mail server to take the message"
    if message.waits_for_its_time(now):
        return "the time before which it is not sent"
    if State.QUEUED in states:
        return f"the connection to relayhost {message.relayhost}"
    return "the next attempt"
