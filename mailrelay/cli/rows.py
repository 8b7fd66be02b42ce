"""Messages of the queue as rows for people.

    rows(message)      a row for each recipient, a cell for each of HEADINGS
    plain(row)         a row as one line of text, in columns of fixed width
    faults(messages)   a line for each relayhost that messages wait for: rows give only its name

Pure. Promises: text from outside is escaped (`mail.printable`).
"""

from collections.abc import Iterable

from mailrelay.cli.terminal import moment
from mailrelay.control.records import WAITING
from mailrelay.mail.overview import Listed, ListedRecipient
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import size
from mailrelay.mail.reply_text import reply_text
from mailrelay.mail.states import PENDING

Row = tuple[str, ...]

HEADINGS = ("ID", "STATE", "ARRIVED", "NEXT", "SIZE", "FROM", "TO", "WHY")
_WIDTHS = (10, 9, 10, 10, 8)
_MAY_ARRIVE_TWICE = WAITING | {"sent"}


def rows(message: Listed, now: float) -> list[Row]:
    """A row for each recipient. now: epoch seconds."""
    return [
        (
            message.queue_id,
            to.state,
            moment(min(message.arrival, now), now),
            _next(message, to, now),
            size(message.size),
            f"<{printable(message.sender)}>",
            f"<{printable(to.address)}>",
            "; ".join(filter(None, (uncertainty(to), _reason(message, to)))),
        )
        for to in message.recipients
    ]


def plain(row: Row) -> str:
    """A row as one line of text."""
    columns = [f"{cell:<{width}}" for cell, width in zip(row, _WIDTHS, strict=False)]
    return "  ".join((*columns, *row[len(_WIDTHS) :])).rstrip()


def faults(messages: Iterable[Listed]) -> list[str]:
    """One line for each relayhost that recipients wait for and that cannot be reached: its name and the reason. In order of
    appearance."""
    return list(
        dict.fromkeys(
            f"{why}: {reply_text(message.fault_text)}"
            for message in messages
            for to in message.recipients
            if (why := _waits_for(message, to))
        )
    )


def uncertainty(to: ListedRecipient) -> str:
    """A warning where an attempt may have delivered the message although no reply says so; "" otherwise."""
    if to.uncertain is None:
        return ""
    return "may arrive twice" if to.state in _MAY_ARRIVE_TWICE else "may have arrived all the same"


def replaced(to: ListedRecipient) -> str:
    """By which message a recipient's was replaced; "" if it was not."""
    return f"replaced by {to.successor}" if to.successor else ""


def _reason(message: Listed, to: ListedRecipient) -> str:
    return replaced(to) or reply_text(to.description) or _waits_for(message, to)


def _waits_for(message: Listed, to: ListedRecipient) -> str:
    return f"{message.relayhost} cannot be reached" if message.fault_text and to.state in WAITING else ""


def _next(message: Listed, to: ListedRecipient, now: float) -> str:
    if to.state == "active":
        return "now"
    if to.state not in PENDING or message.next_attempt is None:
        return "-"
    return moment(max(message.next_attempt, now), now)
