"""What the commands that act on selected messages have in common: their usage, and the lines about messages that were not
changed.

Promises: the exit status is 0 if a message was changed and the spool did not fail. Otherwise it is 1, and a line on
stderr says why.
"""

from collections.abc import Sequence

import click

from mailrelay.cli.base import NO_DAEMON, say
from mailrelay.control.acts import Done
from mailrelay.control.bulk import Selected
from mailrelay.mail.quantity import number_of_messages
from mailrelay.mail.selection import EVERYTHING, Filter

SHOWN = 5
"""The most ids in one line about messages that were not changed."""


def check_choice(ids: Sequence[str], *, everything: bool, wanted: Filter) -> None:
    """Raises UsageError unless the person gave either ids, or --all or filters."""
    if bool(ids) == (everything or wanted != EVERYTHING):
        what = "Give either ids, or filters or --all" if ids else "Give ids, filters or --all"
        raise click.UsageError(what, click.get_current_context())


def is_or_are(count: int) -> str:
    return "is" if count == 1 else "are"


def report_unchanged(selected: Selected, done: Done) -> int:
    """Prints on stderr which selected messages were not changed, and why. Returns the exit status of the command."""
    for why, ids in selected.skipped.items():
        named = ", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
        say(f"{number_of_messages(len(ids))} {is_or_are(len(ids))} left as before: {why} ({named})")
    for line in (*done.failures, done.error):
        if line:
            say(line)
    if not done.changed:
        say(f"no message was changed{_why_none(selected)}")
    if done.lacks_daemon:
        say(NO_DAEMON)
    return 0 if done.changed and not done.error else 1


def _why_none(selected: Selected) -> str:
    """Why nothing was selected, after a colon; "" if other lines say it."""
    if selected.ids or selected.skipped:
        return ""
    if not selected.looked_at:
        return ": the queue is empty"
    return f": none of {number_of_messages(selected.looked_at)} fits the filters; see `mailrelay queue`"
