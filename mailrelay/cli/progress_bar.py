"""The progress of a message that is being sent, as one line on a terminal:

    [####------] 1.2 of 5.0 MB, 130 kB/s, 30 s left

    with waiting_for("the mail server to take the message") as wait:
        bar = ProgressBar(queue, wait)
        for message in follow(…):
            bar.show(message, "the mail server to take the message")     the bar, or this text

The daemon is asked twice a second at most, and only on a terminal. The bar is shown only while octets are left to send: a
small message is sent at once, and has no bar.
"""

import time
from typing import TYPE_CHECKING

from mailrelay.cli.waiting import Wait
from mailrelay.control.progress import sending
from mailrelay.mail.overview import Listed
from mailrelay.mail.sending import Sending, fraction, progress_text

if TYPE_CHECKING:
    from mailrelay.control.system import Queue

ASK_INTERVAL = 0.5
"""Seconds between two questions to the daemon, at least."""
LONGEST, SHORTEST = 30, 8
"""Columns of the bar without its text. If there is space for fewer than SHORTEST, only the text is shown."""


class ProgressBar:
    """The bar, in place of the line of `wait`. queue: the one that the message is in."""

    def __init__(self, queue: "Queue", wait: Wait) -> None:
        self._queue = queue
        self._wait = wait
        self._next = 0.0
        self._progress: Sending | None = None

    def show(self, message: Listed, awaited: str) -> None:
        """Shows the progress of the message; if it is not known, "waiting for" and `awaited`."""
        now = time.monotonic()
        is_active = message.queue_name == "active"
        if is_active and self._wait.can_redraw and now >= self._next:
            self._next = now + ASK_INTERVAL
            self._progress = next((one for one in sending(self._queue) if one.queue_id == message.queue_id), None)
        if is_active and self._progress is not None and self._progress.octets < self._progress.size:
            self._wait.shows(bar(self._progress, self._wait.width))
        else:
            self._wait.goes_on(awaited)


def bar(progress: Sending, width: int) -> str:
    """The bar and its text. width: columns, at most."""
    text = progress_text(progress)
    columns = min(LONGEST, width - len(text) - len("[] "))
    if columns < SHORTEST:
        return text[: max(0, width)]
    done = int(fraction(progress) * columns)
    return f"[{'#' * done}{'-' * (columns - done)}] {text}"
