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
from mailrelay.mail.there import NOTHING_FOUND
from mailrelay.mail.there_wording import there_text

Row = tuple[str, ...]

HEADINGS = ("ID", "STATE", "ARRIVED", "NEXT", "SIZE", "FROM", "TO", "WHY")
_WIDTHS = (10, 9, 10, 10, 8)
WAITS_FOR_ITS_TIME = "waits for its time"
_MAY_ARRIVE_TWICE = WAITING | {"sent"}


def rows(message: Listed, now: float, progress: str = "") -> list[Row]:
    """A row for each recipient. now: epoch seconds. progress: how far the message is that is being sent, "" if not known."""
    return [
        (
            message.queue_id,
            to.state,
            moment(min(message.arrival, now), now),
            _next(message, to, now),
            size(message.size),
            f"<{printable(message.sender)}>",
            f"<{printable(to.address)}>",
            "; ".join(filter(None, (uncertainty(to), _reason(message, to, now, progress)))),
        )
        for to in message.recipients
    ]


def plain(row: Row) -> str:
    """A row as one line of text."""
    columns = [f"{cell:<{width}}" for cell, width in zip(row, _WIDTHS, strict=False)]
    return "  ".join((*columns, *row[len(_WIDTHS) :])).rstrip()


def faults(messages: Iterable[Listed], now: float) -> list[str]:
    """One line for each relayhost that recipients wait for and that cannot be reached: its name and the reason. In order of
    appearance. now: epoch seconds."""
    return list(
        dict.fromkeys(
            f"{why}: {reply_text(message.fault_text)}"
            for message in messages
            if not message.waits_for_its_time(now)
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


def there(to: ListedRecipient, now: float) -> str:
    """What became of it on the relayhost; "" if it was never followed. now: epoch seconds."""
    if to.there is None:
        return ""
    return f"{there_text(to.there, now)}{'; you have dealt with it' if to.is_dealt_with else ''}"


def _reason(message: Listed, to: ListedRecipient, now: float, progress: str) -> str:
    if to.state == "active" and progress:
        return progress
    found = "" if to.there == NOTHING_FOUND else there(to, now)
    if to.state in PENDING and message.waits_for_its_time(now):
        return WAITS_FOR_ITS_TIME
    return replaced(to) or found or reply_text(to.description) or _waits_for(message, to)


def _waits_for(message: Listed, to: ListedRecipient) -> str:
    if not message.fault_text or to.state not in WAITING:
        return ""
    return f"{message.relayhost} cannot be reached{f', {message.stand_in} sends it' if message.stand_in else ''}"


def _next(message: Listed, to: ListedRecipient, now: float) -> str:
    if to.state == "active":
        return "now"
    if to.state not in PENDING or message.next_attempt is None:
        return "-"
    return moment(max(message.next_attempt, now), now)
