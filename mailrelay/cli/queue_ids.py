"""Queue ids for the completion in a shell. Never fails and prints nothing: without a spool or settings there are none."""

import click
from click.shell_completion import CompletionItem

from mailrelay import config
from mailrelay.cli.base import CONFIG
from mailrelay.control.listing import messages
from mailrelay.mail.printable import printable

_MOST = 200
"""The most ids that are offered: a long queue must not delay the shell."""


def queue_ids(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The ids of messages that wait, are held or failed and that begin with `incomplete`, each with its subject."""
    found: list[CompletionItem] = []
    given = context.params.get("ids") or ()
    try:
        directory = config.load(context.meta.get(CONFIG)).queue.directory
        for message in messages(directory, history=False):
            if message.queue_id.startswith(incomplete) and message.queue_id not in given:
                found.append(CompletionItem(message.queue_id, help=printable(message.subject) or None))
            if len(found) == _MOST:
                break
    # An error text would be printed into the line that the person types.
    except Exception:
        return []
    return found
