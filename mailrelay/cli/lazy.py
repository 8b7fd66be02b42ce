"""Late imports of what only some runs of a command need: an empty queue loads nothing that shows mail, and a message with a
From field nothing that makes one.

The imports are statements: the linter and mypy check them. `command_line` does the same for the commands themselves.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mailrelay.endpoint import Endpoint
from mailrelay.mail.overview import Listed


def print_messages(messages: Sequence[Listed], directory: Path) -> None:
    """Prints a queue that is not empty (`listing_text`). directory: of its spool."""
    from mailrelay.cli import listing_text

    listing_text.print_messages(messages, directory)


def record_lines(messages: Iterable[Listed]) -> list[bytes]:
    """A line of JSON for each message (`control.records.line`)."""
    from mailrelay.control.records import line

    return list(map(line, messages))


def print_json(record: Mapping[str, object]) -> None:
    """Prints one JSON object on one line."""
    import json

    print(json.dumps(record))


def mailbox(name: str, address: str) -> str:
    """An address with a display name, as a header has it; the address alone if the name is ""."""
    from email.utils import formataddr

    return formataddr((name, address))


def retry_all(directory: Path) -> bool:
    """Makes all mail due now (`control.acts.retry_all`). Returns whether no daemon runs."""
    from mailrelay.control.acts import retry_all

    return retry_all(directory)[1]


def run_dialogue(address: Endpoint) -> None:
    """SMTP on stdin and stdout, with the daemon (`dialogue.run`)."""
    from mailrelay.cli.dialogue import run

    run(address)
