"""Prints a queue that is not empty: its rows, why relayhosts cannot be reached, and a summary."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mailrelay.cli import rows
from mailrelay.cli.base import NO_DAEMON
from mailrelay.cli.listing_table import print_rows
from mailrelay.cli.terminal import is_terminal, line_width, put
from mailrelay.control.daemon import daemon_pid
from mailrelay.mail.overview import Listed, counts
from mailrelay.mail.quantity import size


def print_messages(messages: Sequence[Listed], directory: Path) -> None:
    """Prints the listing. directory: of the spool that the messages are from."""
    now = time.time()
    listed = [row for message in messages for row in rows.rows(message, now)]
    if line_width(sys.stdout) or is_terminal(sys.stdout):
        print_rows(listed)
    else:
        for row in (rows.HEADINGS, *listed):
            print(rows.plain(row))
    put(*(f"{fault.rstrip('.')}; see `mailrelay status`" for fault in rows.faults(messages)))
    put(_summary(messages, directory))


def _summary(messages: Sequence[Listed], directory: Path) -> str:
    counted = counts(messages)
    by_word = ", ".join(f"{count} {word}" for word, count in counted.items())
    octets = size(sum(message.size for message in messages))
    line = f"{len(messages)} {'message' if len(messages) == 1 else 'messages'}, {octets}: {by_word}"
    if sum(counted.values()) > len(messages):
        line += " (a message counts once for each state of its recipients)"
    if "failed" in counted or "held" in counted:
        line += "; what to do: `mailrelay queue show ID`"
    return f"{line}; {NO_DAEMON}" if "pending" in counted and daemon_pid(directory) is None else line
