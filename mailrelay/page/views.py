"""Messages, recipients and events as the templates show them, as printable text; the verbs; and the filter. Pure.

The text is plain: the templates escape it.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from mailrelay.control.bulk import RETRY
from mailrelay.control.details import Details
from mailrelay.control.records import WAITING
from mailrelay.mail.common_domains import at_common_domain
from mailrelay.mail.lifecycle import ACT_TABLE, FAILED, PENDING, Act, State
from mailrelay.mail.outcome import Stage
from mailrelay.mail.overview import Event, Listed, ListedRecipient
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import length, size
from mailrelay.mail.reply_text import reply_text
from mailrelay.mail.selection import EVERYTHING, Filter
from mailrelay.mail.sender_refusal import is_sender_refused
from mailrelay.mail.there import There
from mailrelay.mail.there_wording import there_text
from mailrelay.mail.wording import meaning
from mailrelay.page.forms import Form

ASKED_BEFORE = {Act.CANCEL, Act.DROP}
"""The verbs before which the person is asked."""
VERBS = (RETRY, Act.HOLD, Act.RELEASE, Act.CANCEL, Act.DROP)
EXPLAINED = {
    RETRY: "try to send it now",
    Act.HOLD: "do not send it until you release it",
    Act.RELEASE: "end the hold, so that it is sent",
    Act.CANCEL: "do not send it any more",
    Act.DROP: "you have dealt with the failure: do not keep it",
}
"""What each verb does, for tooltips and for the question."""
STATE_CHOICES = ("pending", "held", "failed", "sent", "refused", "cancelled")
"""The states to filter by; the last three are in the history only."""
AGES = {"": "at any time", "1h": "in the last hour", "1d": "in the last day", "7d": "in the last week"}
"""The values of the filter's age, and their texts."""
_AGE_SECONDS = {"1h": 3600.0, "1d": 86_400.0, "7d": 604_800.0}
_SIGNS = {
    "queued": "○", "active": "▸", "deferred": "○", "held": "‖", "sent": "✓", "bounced": "✗", "refused": "✗",
    "expired": "✗", "cancelled": "–",
}  # fmt: skip
_PREDICATES = {
    "queued": "waits to be sent",
    "active": "is being sent at this moment",
    "deferred": "waits, and is tried again",
    "held": "is held until you release it",
    "sent": "was sent: your server has accepted it",
    "bounced": "was refused",
    "refused": "was refused, and the program that sent it got the refusal",
    "expired": "was given up: it could not be sent in time",
    "cancelled": "was cancelled",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A message in a list, as printable text. state: of the recipient in the worst state, also a class of the style sheet.
    sign: a character for the state. to: that recipient, and the number of others. why: the reason for the state, "" for
    none."""

    queue_id: str
    state: str
    sign: str
    subject: str
    sender: str
    to: str
    arrived: str
    size: str
    why: str


@dataclass(frozen=True, slots=True)
class RecipientView:
    """A recipient of a message, as printable text. state, sign: as in `Row`. words: the state as the end of a sentence.

    reply: of the mail server, or the reason that mailrelay gives; "" if there is none. is_of_server: whether it is a reply
    of the mail server. meaning: what the reply means for the person, "" if that is not known. notes: further sentences,
    each without a full stop.
    """

    address: str
    state: str
    sign: str
    words: str
    reply: str
    is_of_server: bool
    meaning: str
    notes: tuple[str, ...]


def row(message: Listed, now: float) -> Row:
    """A message as a row of the list. now: epoch seconds."""
    first = _worst(message)
    state = "bounced" if first.has_bounced_there else first.state
    more = len(message.recipients) - 1
    why = reply_text(first.description, 200) if first.state != "sent" else ""
    if message.waits_for_its_time(now):
        why = f"waits until {clock(message.send_time or now)}"
    elif first.has_bounced_there and first.there is not None:
        why = there_text(first.there, now)
    elif not why and message.fault_text and first.state in WAITING:
        why = f"{printable(message.relayhost)} cannot be reached"
    elif first.successor:
        why = f"replaced by {first.successor}"
    return Row(
        message.queue_id,
        state,
        _SIGNS.get(state, "?"),
        printable(message.subject, 120) or "(no subject)",
        printable(message.sender, 80) or "<>",
        printable(first.address, 80) + (f" and {more} more" if more else ""),
        ago(message.arrival, now),
        size(message.size),
        why,
    )


def _worst(message: Listed) -> ListedRecipient:
    """The recipient in the worst state: the first one in `order`; before all, one that has bounced on the relayhost."""
    order = ("bounced", "expired", "held", "refused", "active", "deferred", "queued", "sent", "cancelled")
    return min(
        message.recipients,
        key=lambda to: -1 if to.has_bounced_there else order.index(to.state) if to.state in order else len(order),
    )


def headline(message: Listed, now: float) -> str:
    """The state of a message in a sentence."""
    first = _worst(message)
    if len(message.recipients) == 1 or len({(to.state, to.has_bounced_there) for to in message.recipients}) == 1:
        return f"This message {_words(message, first, now)}."
    counted: dict[str, int] = {}
    for to in message.recipients:
        words = _words(message, to, now)
        counted[words] = counted.get(words, 0) + 1
    return (
        "This message "
        + "; ".join(f"{words} ({count} of {len(message.recipients)})" for words, count in counted.items())
        + "."
    )


def _words(message: Listed, to: ListedRecipient, now: float) -> str:
    """The state of a recipient as the end of a sentence that begins with "This message"."""
    if to.has_bounced_there:
        return "was sent, and then refused by the next server"
    if to.state in PENDING and message.waits_for_its_time(now):
        return f"waits for its time, {clock(message.send_time or now)}"
    if to.successor:
        return f"was sent again as {to.successor}"
    if to.there is not None and to.there.state is There.DELIVERED:
        return "was delivered to the next server"
    return _PREDICATES.get(to.state, f"is {to.state}")


def recipients(message: Listed, now: float) -> list[RecipientView]:
    """The recipients of a message, the failed ones first."""
    found = [_recipient(message, to, now) for to in message.recipients]
    return sorted(found, key=lambda one: one.sign != "✗")


def _recipient(message: Listed, to: ListedRecipient, now: float) -> RecipientView:
    reply = reply_text(to.description, 900)
    notes = []
    if to.uncertain is not None:
        may = "the message may arrive twice" if to.state in (*WAITING, "sent") else "the message may have arrived"
        notes.append(f"The connection was lost before the reply: {may}")
    if to.there is not None:
        notes.append(f"{there_text(to.there, now)}{'; you have dealt with it' if to.is_dealt_with else ''}")
    if to.state in WAITING and message.fault_text and not message.waits_for_its_time(now):
        meanwhile = f"; {printable(message.stand_in)} sends it" if message.stand_in else ""
        why = reply_text(message.fault_text, 400).rstrip(".")
        notes.append(f"{printable(message.relayhost)} cannot be reached: {why}{meanwhile}")
    is_of_server = reply[:1] in "2345" and reply[:3].isdecimal()
    is_sender = to.state == State.BOUNCED and is_sender_refused(to.stage, to.status, to.description)
    means = (
        "The mail server refused the sender. Send the message with a sender that the mail server accepts."
        if is_sender
        else ""
    )
    if not means and to.state in (*FAILED, State.REFUSED):
        means = meaning(to.status)
    if not means and to.has_bounced_there and to.there is not None:
        means = meaning(to.there.status)
    state = "bounced" if to.has_bounced_there else to.state
    return RecipientView(
        printable(to.address),
        state,
        _SIGNS.get(state, "?"),
        _words(message, to, now),
        reply,
        is_of_server,
        means,
        tuple(notes),
    )


def possible_verbs(message: Listed) -> list[str]:
    """The verbs of VERBS that can change a message in its state."""
    if message.queue_name == "active":
        # The daemon stops it if the end of its content was not written yet.
        return [Act.CANCEL]
    states = {to.state for to in message.recipients}
    found = [
        str(verb) for verb in VERBS if verb != RETRY and any((state, verb) in ACT_TABLE for state in _states(states))
    ]
    if any(to.has_bounced_there for to in message.recipients) and Act.CANCEL not in found:
        found.append(Act.CANCEL)
    there = {to.there.state for to in message.recipients if to.there is not None}
    if states & PENDING or there & {There.WAITING, There.DEFERRED}:
        found.insert(0, RETRY)
    return found


def _states(names: Collection[str]) -> list[State]:
    """Those of the names that are a `State`: "active" is none."""
    return [State(name) for name in names if name in list(State)]


def mending_act(message: Listed) -> Act | None:
    """The act by which the form replaces a message: RESEND if it failed or is held, EDIT if it waits; None if neither
    can."""
    if message.queue_name == "active":
        return None
    for act in (Act.RESEND, Act.EDIT):
        if any((state, act) in ACT_TABLE for state in _states({to.state for to in message.recipients})):
            return act
        if any(to.has_bounced_there for to in message.recipients):
            return act
    return None


def suggestions(found: Details) -> dict[bytes, bytes]:
    """For each recipient with a suggestion: the address that may have been meant. It is one that mail was sent to before
    (`Details.likely`), or, for a refused recipient, one at a common domain."""
    return {
        to.address: meant
        for to, likely in zip(found.message.recipients, found.likely, strict=True)
        if (
            meant := likely or (at_common_domain(to.address) if to.stage == Stage.RCPT or to.has_bounced_there else b"")
        )
    }


@dataclass(frozen=True, slots=True)
class EventView:
    """An event of the timeline, as printable text. at: a local time, or a length of time if it is planned."""

    at: str
    what: str
    address: str
    reply: str
    is_planned: bool


def events(timeline: Sequence[Event], now: float) -> list[EventView]:
    """The timeline as rows of a table."""
    return [
        EventView(
            clock(event.at) if not event.planned else f"in {length(max(0.0, event.at - now))}",
            event.what,
            printable(event.address),
            " ".join(
                filter(
                    None,
                    (f"at {event.stage}:" if event.stage and event.description else "", reply_text(event.description)),
                )
            ),
            event.planned,
        )
        for event in timeline
    ]


def wanted(form: Form, now: float) -> Filter:
    """The filter of the fields of the list. Unknown values select everything. now: epoch seconds."""
    state, age = form.one("state"), form.one("age")
    return Filter(
        senders=tuple(filter(None, (form.one("from").strip(),))),
        recipients=tuple(filter(None, (form.one("to").strip(),))),
        since=now - _AGE_SECONDS[age] if age in _AGE_SECONDS else None,
        states=(state,) if state in STATE_CHOICES else (),
    )


def is_narrow(found: Filter) -> bool:
    """Whether a filter is not the one that selects everything."""
    return found != EVERYTHING


def clock(at: float) -> str:
    """A local time, to the second: "2026-11-28 14:03:00"."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def ago(at: float, now: float) -> str:
    """How long ago: "now", "5 min ago"; after a day the local date and time."""
    if now - at < 60:
        return "now"
    if now - at < 86_400:
        return f"{length(now - at)} ago"
    return datetime.fromtimestamp(at).astimezone().strftime("%d %b %H:%M")
