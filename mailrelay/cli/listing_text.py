"""A queue that is not empty: its rows, why relayhosts cannot be reached, and a summary."""

import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mailrelay.cli import rows
from mailrelay.cli.base import NO_DAEMON
from mailrelay.cli.listing_table import row_lines
from mailrelay.cli.terminal import is_terminal, line_width, wrapped
from mailrelay.control.daemon import is_served
from mailrelay.control.progress import sending
from mailrelay.control.system import Queue
from mailrelay.mail.overview import Listed, counts
from mailrelay.mail.quantity import number_of_messages, size
from mailrelay.mail.sending import progress_text


def print_messages(messages: Sequence[Listed], queue: Queue) -> None:
    """Prints the listing. queue: where the messages are."""
    for line in itertools.chain(*listing(messages, queue)):
        print(line)


def listing(messages: Sequence[Listed], queue: Queue) -> tuple[list[str], list[str]]:
    """The lines of the listing in the width of stdout: the rows, and what is below them."""
    now = time.time()
    found = sending(queue) if any(message.queue_name == "active" for message in messages) else []
    progress = {one.queue_id: progress_text(one) for one in found}
    listed = [row for message in messages for row in rows.rows(message, now, progress.get(message.queue_id, ""))]
    if line_width(sys.stdout) or is_terminal(sys.stdout):
        lines = row_lines(listed)
    else:
        lines = [rows.plain(row) for row in (rows.HEADINGS, *listed)]
    faults = (f"{fault.rstrip('.')}; see `mailrelay status`" for fault in rows.faults(messages, now))
    below = (*faults, _summary(messages, queue, now))
    return lines, [part for line in below for part in wrapped(line, sys.stdout)]


def _summary(messages: Sequence[Listed], queue: Queue, now: float) -> str:
    counted = counts(messages)
    by_word = ", ".join(f"{count} {word}" for word, count in counted.items())
    octets = size(sum(message.size for message in messages))
    line = f"{number_of_messages(len(messages))}, {octets}: {by_word}"
    if sum(counted.values()) > len(messages):
        line += " (a message counts once for each state of its recipients)"
    if scheduled := sum(message.waits_for_its_time(now) for message in messages):
        line += f"; {scheduled} of them {'waits for its' if scheduled == 1 else 'wait for their'} time"
    if "failed" in counted or "held" in counted:
        line += "; what to do: `mailrelay queue show ID`"
    return f"{line}; {NO_DAEMON}" if "pending" in counted and isinstance(queue, Path) and not is_served(queue) else line
