"""Late imports of what only some runs of a command need: an empty queue loads nothing that shows mail, and a message with a
From field nothing that makes one.

The imports are statements: the linter and mypy check them. `command_line` does the same for the commands themselves.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mailrelay.endpoint import Endpoint
from mailrelay.mail.overview import Event, Listed
from mailrelay.mail.selection import Filter

if TYPE_CHECKING:
    from mailrelay.control.system import Queue


def print_messages(messages: Sequence[Listed], queue: "Queue") -> None:
    """Prints a queue that is not empty (`listing_text`). queue: where they are."""
    from mailrelay.cli import listing_text

    listing_text.print_messages(messages, queue)


def watch(queue: "Queue", wanted: Filter, *, history: bool) -> None:
    """Shows the queue until Ctrl-C (`watch.watch`)."""
    from mailrelay.cli.watch import watch

    watch(queue, wanted, history=history)


def follow_events(queue: "Queue", queue_id: str, shown: Iterable[Event], line: Callable[[Event, float], str]) -> None:
    """Prints what still happens to a message (`follow.follow_events`)."""
    from mailrelay.cli.follow import follow_events

    follow_events(queue, queue_id, shown, line)


def record_lines(messages: Iterable[Listed]) -> list[bytes]:
    """A line of JSON for each message (`control.records.line`)."""
    from mailrelay.control.records import line

    now = time.time()
    return [line(message, now) for message in messages]


def print_json(record: Mapping[str, object]) -> None:
    """Prints one JSON object on one line."""
    import json

    print(json.dumps(record))


def mailbox(name: str, address: str) -> str:
    """An address with a display name, as a header has it; the address alone if the name is ""."""
    from email.utils import formataddr

    return formataddr((name, address))


def retry_all(queue: "Queue") -> bool:
    """Makes all mail due now (`control.acts.retry_all`). Returns whether no daemon runs."""
    from mailrelay.control.acts import retry_all

    return retry_all(queue)[1]


def run_dialogue(address: Endpoint) -> None:
    """SMTP on stdin and stdout, with the daemon (`dialogue.run`)."""
    from mailrelay.cli.dialogue import run

    run(address)
