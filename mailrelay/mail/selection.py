"""Which messages the filters of `mailrelay queue` select: by addresses, subject, time, state and relayhost.

A message must fit every filter that is given. Of several texts for one filter, one must fit. `Filter.recipients` and
`Filter.states` must fit the same recipient: `--to bob --state bounced` means that the message has bounced for bob.

A text fits if it is a part of the value that the listing shows, or a shell pattern (`*`, `?`, `[...]`) for the whole;
upper and lower case are the same. An address is compared with its angle brackets, too: `<bob@example.org>` is this
address alone, `<>` the null reverse path. The name of a relayhost is compared as a whole, or is a pattern; case
matters, as in the settings.

Pure. Loaded by every `mailrelay queue`, so it imports little.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

from mailrelay.mail.overview import Listed, ListedRecipient, counted_as
from mailrelay.mail.printable import printable
from mailrelay.mail.states import HISTORY, PENDING, State


class Filter(NamedTuple):
    """senders, recipients, subjects: texts that are not empty. since: the earliest arrival, epoch seconds. states: of
    `states.STATE_WORDS`. relayhosts: names or patterns. An empty tuple and None select everything."""

    senders: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    since: float | None = None
    states: tuple[str, ...] = ()
    relayhosts: tuple[str, ...] = ()

    @property
    def needs_history(self) -> bool:
        """Whether it names a state of messages that are listed only with the history."""
        return not HISTORY.isdisjoint(self.states)


EVERYTHING = Filter()


def matches(wanted: Filter, message: Listed) -> bool:
    """Whether a message fits the filter."""
    return wanted == EVERYTHING or (
        (wanted.since is None or message.arrival >= wanted.since)
        and (not wanted.relayhosts or any(_fits_name(message.relayhost, name) for name in wanted.relayhosts))
        and _fits_address(wanted.senders, message.sender)
        and _fits(wanted.subjects, printable(message.subject))
        and any(_fits_recipient(wanted, message, to) for to in message.recipients)
    )


def _fits_recipient(wanted: Filter, message: Listed, to: ListedRecipient) -> bool:
    return (not wanted.states or not _state_words(message, to).isdisjoint(wanted.states)) and _fits_address(
        wanted.recipients, to.address
    )


def _state_words(message: Listed, to: ListedRecipient) -> set[str]:
    """The words of `STATE_WORDS` that fit a recipient: its state, its `queue_name`, and the word under which it is
    counted."""
    counted = counted_as(to)
    queue = counted
    if to.state in PENDING:
        queue = "deferred" if message.attempts else "incoming"
    elif to.state == State.HELD:
        queue = "hold"
    return {to.state, queue, counted}


def _fits_name(relayhost: str, name: str) -> bool:
    return relayhost == name or fnmatchcase(relayhost, name)


def _fits_address(texts: Iterable[str], address: bytes) -> bool:
    shown = printable(address)
    return not texts or _fits(texts, shown) or _fits(texts, f"<{shown}>")


def _fits(texts: Iterable[str], value: str) -> bool:
    folded = value.casefold()
    return not texts or any(text in folded or fnmatchcase(folded, text) for text in map(str.casefold, texts))
