"""Messages as the queue shows them to programs: the records of `--json`.

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

from typing import Any

import msgspec

from mailrelay.cli.rows import WAITING
from mailrelay.mail.printable import printable
from mailrelay.spool.listing import Listed, ListedRecipient

_encode = msgspec.json.Encoder().encode


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
