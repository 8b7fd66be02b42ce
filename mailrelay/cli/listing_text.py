"""Prints a queue that is not empty: its rows, what prevents delivery, and a summary."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mailrelay.cli import NOBODY_SERVES, load, rows
from mailrelay.cli.terminal import is_terminal, size
from mailrelay.spool import lock
from mailrelay.spool.listing import Listed


def show(messages: Sequence[Listed], directory: Path) -> None:
    """Prints the listing. directory: of the spool that the messages are from."""
    now = time.time()
    listed = (row for message in messages for row in rows.rows(message, now))
    if is_terminal(sys.stdout):
        load("table").show(listed)
    else:
        for row in (rows.HEADINGS, *listed):
            print(rows.plain(row))
    for trouble in rows.troubles(messages):
        print(f"{trouble.rstrip('.')}; see `mailrelay status`")
    print(_summary(messages, directory))


def _summary(messages: Sequence[Listed], directory: Path) -> str:
    counted = Counter(message.queue_name for message in messages)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))
    octets = size(sum(message.size for message in messages))
    line = f"{len(messages)} {'message' if len(messages) == 1 else 'messages'}, {octets}: {counts}"
    waits = any(to.state in rows.WAITING for message in messages for to in message.recipients)
    if counted["failed"]:
        line += "; what to do: `mailrelay queue show ID`"
    return f"{line}; {NOBODY_SERVES}" if waits and lock.holder(directory) is None else line
