"""`mailrelay queue --watch`: shows the listing and the progress of mail that is being sent, and updates them until Ctrl-C.

On a terminal, the screen shows the listing of `mailrelay queue`, with the messages that are being sent at the top. It is
drawn again when something has changed. If the screen has too few lines, the last one gives the number of missing lines.
After Ctrl-C the listing stays on the screen.

Elsewhere, and on a terminal that cannot move its cursor (TERM=dumb), each change is a line: a row of the listing for each
recipient that is new or has changed, and one for each recipient of a message that has left the queue.

Promises: the daemon and the spool are read twice a second at most, and take a tenth of the time of one processor at most,
however long the queue is.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence

from mailrelay.cli import listing_text, rows
from mailrelay.cli.filters import nothing_text
from mailrelay.cli.terminal import is_terminal, line_width, put
from mailrelay.cli.wrapping import cells
from mailrelay.control.details import details
from mailrelay.control.errors import NoSuchMessage
from mailrelay.control.listing import messages
from mailrelay.control.system import Queue
from mailrelay.mail.overview import Listed
from mailrelay.mail.selection import Filter, matches

INTERVAL = 0.5
"""Seconds between two reads, at least."""
PAUSE_FACTOR = 9
"""A read and its output are followed by a pause of so many times their duration."""
DEFAULT_SIZE = os.terminal_size((80, 24))
"""Columns and lines, if the size of the terminal is not known."""

Seen = dict[str, tuple[object, ...]]
"""For each queue id, the values whose change prints its rows again."""


def watch(queue: Queue, wanted: Filter, *, history: bool) -> None:
    """Shows the messages that fit the filter, until Ctrl-C. history: also messages of the history. Raises SpoolError."""
    is_screen = is_terminal(sys.stdout) and os.environ.get("TERM", "dumb") != "dumb"
    show = _Screen(queue).show if is_screen else _Lines(queue).show
    try:
        while True:
            begun = time.monotonic()
            found = list(messages(queue, history=history or wanted.needs_history))
            show([message for message in found if matches(wanted, message)], len(found))
            time.sleep(max(INTERVAL, PAUSE_FACTOR * (time.monotonic() - begun)))
    finally:
        if is_screen:
            print(flush=True)


class _Screen:
    """Draws the listing on a terminal."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._drawn: tuple[object, ...] = ()

    def show(self, found: Sequence[Listed], queued: int) -> None:
        """found: the messages that fit the filter. queued: the number of all messages in the queue."""
        size = _screen_size()
        if found:
            active_first = sorted(found, key=lambda message: message.queue_name != "active")
            lines, last = listing_text.listing(active_first, self._queue)
        else:
            lines, last = [], [nothing_text(queued)]
        frame = fitted(lines, last, size)
        if (size, *frame) != self._drawn:
            # If the size has changed, the terminal has wrapped the old lines, so the screen is cleared.
            start = "\x1b[H" if self._drawn[:1] == (size,) else "\x1b[2J\x1b[H"
            # Each line is cleared before it is written: after a line of full width, that would clear its last character.
            print(start + "\n".join(f"\x1b[K{line}" for line in frame) + "\x1b[J", end="", flush=True)
            self._drawn = (size, *frame)


class _Lines:
    """Prints the rows that have changed, as plain lines."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._seen: Seen | None = None

    def show(self, found: Sequence[Listed], _queued: int) -> None:
        now = time.time()
        seen = {message.queue_id: _state_of(message) for message in found}
        if self._seen is None:
            put(rows.plain(rows.HEADINGS))
            before: Seen = {}
        else:
            before = self._seen
        changed = [message for message in found if before.get(message.queue_id) != seen[message.queue_id]]
        gone = [queue_id for queue_id in before if queue_id not in seen]
        changed += [message for queue_id in gone for message in self._from_history(queue_id)]
        put(*(rows.plain(row) for message in changed for row in rows.rows(message, now)))
        self._seen = seen

    def _from_history(self, queue_id: str) -> Iterator[Listed]:
        """The message that has left the listing; nothing if the history does not keep it."""
        try:
            yield details(self._queue, queue_id).message
        except NoSuchMessage:
            return


def _state_of(message: Listed) -> tuple[object, ...]:
    return (message.next_attempt, message.fault_text, message.recipients)


def fitted(lines: Sequence[str], last: Sequence[str], size: os.terminal_size) -> list[str]:
    """As many of `lines` as fit on the screen, and all of `last` below. If lines are left out, one line gives their
    number."""
    room = size.lines - sum(_height(line, size.columns) for line in last)
    needed = [_height(line, size.columns) for line in lines]
    if sum(needed) <= room:
        return [*lines, *last]
    kept = 0
    room -= 1
    while kept < len(lines) and needed[kept] <= room:
        room -= needed[kept]
        kept += 1
    left_out = f"… {len(lines) - kept} more lines"
    return [*lines[:kept], left_out[: size.columns], *last][-size.lines :]


def _height(line: str, columns: int) -> int:
    """The lines of the screen that a line takes."""
    return max(1, -(-cells(line) // columns))


def _screen_size() -> os.terminal_size:
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        size = DEFAULT_SIZE
    columns = line_width(sys.stdout) or DEFAULT_SIZE.columns
    return os.terminal_size((columns, size.lines or DEFAULT_SIZE.lines))
