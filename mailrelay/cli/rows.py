"""Messages as the queue shows them: as rows for people, and as the records of `--json`.

    rows(message)      a row for each recipient, a cell for each of HEADINGS
    plain(row)         a row as one line of text, in columns that do not move
    troubles(messages) a line for each relayhost that mail waits for: the rows only name it
    record(message)    what `mailrelay queue --json` says of a message
    line(message)      that as one line of JSON, UTF-8

A record has the keys of `postqueue -j`: queue_name (active, incoming, deferred, hold, failed, sent), queue_id, arrival_time
(epoch seconds), message_size (octets), forced_expire (never), sender ("" for the null reverse path) and recipients; and
ours: relayhost, subject, attempts, next_attempt (epoch seconds, or null). A recipient has address, delay_reason (why it
waits: the last words said of it, or the trouble of its relayhost; "" if it does not wait), state (a word of the table of
states), status (enhanced code), reply (the last words said of it) and uncertain (an attempt may have delivered it although
nobody said so).

Pure. Promises: whatever is from outside comes out escaped (`mail.printable`).
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from mailrelay.cli.terminal import moment, size
from mailrelay.mail.lifecycle import PENDING
from mailrelay.mail.printable import printable
from mailrelay.spool.listing import Listed, ListedRecipient

Row = tuple[str, ...]

HEADINGS = ("ID", "STATE", "ARRIVED", "NEXT", "SIZE", "FROM", "TO", "WHY")
_WIDTHS = (10, 9, 10, 10, 8)

_encode = msgspec.json.Encoder().encode

WAITING = frozenset({"active", *PENDING})
_OVER_TWICE = WAITING | {"sent"}


def rows(message: Listed, now: float) -> list[Row]:
    """A row for each recipient. now: epoch seconds."""
    return [
        (
            message.queue_id,
            to.state,
            moment(message.arrival, now),
            _next(message, to, now),
            size(message.size),
            f"<{printable(message.sender)}>",
            f"<{printable(to.address)}>",
            "; ".join(filter(None, (uncertainty(to), printable(to.words) or _waits_for(message, to)))),
        )
        for to in message.recipients
    ]


def plain(row: Row) -> str:
    """A row as one line of text."""
    columns = [f"{cell:<{width}}" for cell, width in zip(row, _WIDTHS, strict=False)]
    return "  ".join((*columns, *row[len(_WIDTHS) :])).rstrip()


def troubles(messages: Iterable[Listed]) -> list[str]:
    """What keeps each relayhost from being reached that somebody's mail waits for, in order of appearance."""
    return list(
        dict.fromkeys(
            f"{why}: {printable(message.trouble)}"
            for message in messages
            for to in message.recipients
            if (why := _waits_for(message, to))
        )
    )


def uncertainty(to: ListedRecipient) -> str:
    """What the person is to know of a recipient whom an attempt may have reached although nobody said so; "" of others."""
    if to.uncertain is None:
        return ""
    return "may arrive twice" if to.state in _OVER_TWICE else "may have arrived all the same"


def record(message: Listed) -> dict[str, Any]:
    """What JSON says of a message."""
    return {
        "queue_name": message.queue_name,
        "queue_id": message.queue_id,
        "arrival_time": int(message.arrival),
        "message_size": message.size,
        "forced_expire": False,
        "sender": printable(message.sender),
        "recipients": [
            {
                "address": printable(to.address),
                "delay_reason": _reason(message, to),
                "state": to.state,
                "status": to.status,
                "reply": printable(to.words),
                "uncertain": to.uncertain is not None,
            }
            for to in message.recipients
        ],
        "relayhost": message.relayhost,
        "subject": printable(message.subject),
        "attempts": message.attempts,
        "next_attempt": None if message.next_attempt is None else int(message.next_attempt),
    }


def line(message: Listed) -> bytes:
    """What JSON says of a message, as UTF-8 with its line end."""
    return _encode(record(message)) + b"\n"


def _reason(message: Listed, to: ListedRecipient) -> str:
    return printable(to.words or message.trouble) if to.state in WAITING else ""


def _waits_for(message: Listed, to: ListedRecipient) -> str:
    return f"{message.relayhost} cannot be reached" if message.trouble and to.state in WAITING else ""


def _next(message: Listed, to: ListedRecipient, now: float) -> str:
    if to.state == "active":
        return "now"
    if to.state not in PENDING or message.next_attempt is None:
        return "-"
    return moment(max(message.next_attempt, now), now)
