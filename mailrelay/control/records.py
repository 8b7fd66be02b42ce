"""Messages as programs read them: the JSON records of `mailrelay queue --json` and `queue show --json`.

A record has the keys of `postqueue -j`: queue_name (active, incoming, deferred, hold, failed, sent, refused,
cancelled), queue_id, arrival_time (epoch seconds), message_size (octets), forced_expire (always false), sender ("" for the
null reverse path) and recipients; and ours: relayhost, fallback_for (the relayhost of its sender, where relayhost is a
fallback that has taken it; else ""), subject, attempts, next_attempt (epoch seconds, or null), send_time (epoch seconds: the
time before which it is not sent; null if there is none).

Pure. Promises: text from outside is escaped (`mail.printable`).
"""

import json
from typing import NotRequired, TypedDict

from mailrelay.mail.overview import Event, Listed, ListedRecipient
from mailrelay.mail.printable import printable
from mailrelay.mail.states import PENDING
from mailrelay.mail.there import ThereRecord, there_record

WAITING = frozenset({"active", *PENDING})
"""States in which the daemon tries a recipient without the person: the pending ones, and "active"."""

_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


class ListedThereRecord(ThereRecord):
    """What became of a recipient on the relayhost. dealt_with: it has bounced there, and was sent again or cancelled."""

    dealt_with: bool


class RecipientRecord(TypedDict):
    """delay_reason: why it waits, the last reply or the fault of its relayhost; "" if it does not wait, or only for its
    time. state: a name in `mail.states`, or "active" while an attempt is open. status: enhanced status code. reply: the last
    reply. uncertain: whether an attempt may have delivered the message although no reply says so. there: null if it was
    never followed. did_you_mean: only in `queue show`; an address that was reached before and that this one is similar to,
    or ""."""

    address: str
    delay_reason: str
    state: str
    status: str
    reply: str
    uncertain: bool
    there: ListedThereRecord | None
    did_you_mean: NotRequired[str]


class MessageRecord(TypedDict):
    """The keys that the docstring of this file lists."""

    queue_name: str
    queue_id: str
    arrival_time: int
    message_size: int
    forced_expire: bool
    sender: str
    recipients: list[RecipientRecord]
    relayhost: str
    fallback_for: str
    subject: str
    attempts: int
    next_attempt: int | None
    send_time: int | None


class EventRecord(TypedDict):
    """One event of a message's timeline. at: epoch seconds. stage: where in the transaction the reply came. planned: it has
    not happened, and is due then. relayhost: by which an attempt was made; "" for other events."""

    at: float
    what: str
    address: str
    status: str
    stage: str
    reply: str
    planned: bool
    relayhost: str


def message_record(message: Listed, now: float) -> MessageRecord:
    """The record of a message. now: epoch seconds."""
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
                "delay_reason": _delay_reason(message, to, now),
                "state": to.state,
                "status": to.status,
                "reply": printable(to.description),
                "uncertain": to.uncertain is not None,
                "there": to.there and {**there_record(to.there), "dealt_with": to.is_dealt_with},
            }
            for to in message.recipients
        ],
        "relayhost": message.relayhost,
        "fallback_for": message.fallback_for,
        "subject": printable(message.subject),
        "attempts": message.attempts,
        "next_attempt": None if message.next_attempt is None else int(message.next_attempt),
        "send_time": None if message.send_time is None else int(message.send_time),
    }


def line(message: Listed, now: float) -> bytes:
    """The record of a message as one line of JSON, UTF-8, with its line end. now: epoch seconds."""
    return _encode(message_record(message, now)).encode() + b"\n"


def event_record(event: Event) -> EventRecord:
    """The record of one event."""
    return {
        "at": event.at,
        "what": event.what,
        "address": printable(event.address),
        "status": event.status,
        "stage": event.stage,
        "reply": printable(event.description),
        "planned": event.planned,
        "relayhost": event.relayhost,
    }


def _delay_reason(message: Listed, to: ListedRecipient, now: float) -> str:
    if to.state not in WAITING or message.waits_for_its_time(now):
        return ""
    return printable(to.description or message.fault_text)
