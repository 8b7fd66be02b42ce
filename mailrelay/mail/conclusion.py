"""Turns the outcomes of an attempt into its record: the recipients' new states, the next attempt, and the notices.

Pure. Every combination of outcomes has a record.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mailrelay.mail.backends import BackendsFor
from mailrelay.mail.backoff import wait
from mailrelay.mail.envelope import Message, Recipient
from mailrelay.mail.lifecycle import PENDING, State, after_attempt
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Outcome
from mailrelay.mail.record import NewNotice, Record, Settled
from mailrelay.mail.triage import Disposition, classify


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The settings for attempts and their notices.

    schedule: as in `mail.backoff`. expire_after: seconds after which a message expires.
    """

    schedule: tuple[float, ...]
    expire_after: float
    backends_for: BackendsFor


def all_refused(outcomes: Sequence[Outcome]) -> bool:
    """Whether the mail server refused every recipient for good: then the client can get this refusal instead of a 250."""
    return all(classify(outcome) is Disposition.BOUNCED for outcome in outcomes)


def nothing_tried(outcomes: Sequence[Outcome]) -> bool:
    """Whether no recipient was tried: then no attempt is counted and nothing is recorded."""
    return all(classify(outcome) is Disposition.NOT_TRIED for outcome in outcomes)


def conclude(
    message: Message,
    outcomes: Sequence[Outcome],
    policy: RetryPolicy,
    *,
    client_told: bool,
    relays_dsn: bool,
    now: float,
    chance: float,
    dialled: float = 0.0,
    transaction: float = 0.0,
) -> Record:
    """The record of an attempt at `message`, with one outcome for each of its recipients, in their order.

    client_told: whether the client got the refusal as the reply to the message. relays_dsn: whether the mail server accepted
    the DSN parameters (RFC 3461); then mailrelay does not report a success. now: epoch seconds. chance: a random number in
    [0, 1). dialled, transaction: seconds that the dial and the transaction took. Raises ValueError if the numbers
    of recipients and outcomes differ.
    """
    settled = []
    # Its age is not enough: the clock may have been wrong when the message arrived. It must not expire before the whole
    # schedule was used.
    schedule_is_used = message.attempts + 1 >= len(policy.schedule)
    concerned: list[tuple[Kind, Recipient, int]] = []
    for recipient, key, outcome in zip(message.envelope.recipients, message.recipient_ids, outcomes, strict=True):
        # `message` does not say which recipients were queued. One that was not tried now becomes deferred with the others.
        change = after_attempt(
            State.DEFERRED,
            classify(outcome),
            client_told=client_told,
            age=now - message.arrival,
            expire_after=policy.expire_after if schedule_is_used else math.inf,
        )
        settled.append(Settled(key, change.state, outcome, change.uncertain))
        if change.needs_notice:
            concerned.append((Kind.HELD if change.state is State.HELD else Kind.FAILED, recipient, key))
        elif change.state is State.SENT and b"SUCCESS" in recipient.notify.upper() and not relays_dsn:
            concerned.append((Kind.RELAYED, recipient, key))
    waits = any(one.state in PENDING for one in settled)
    return Record(
        message.id,
        now,
        tuple(settled),
        now + wait(policy.schedule, message.attempts + 1, chance) if waits else None,
        _new_notices(message.envelope.sender, concerned, policy.backends_for),
        dialled,
        transaction,
    )


def _new_notices(
    sender: bytes, concerned: Sequence[tuple[Kind, Recipient, int]], backends_for: BackendsFor
) -> tuple[NewNotice, ...]:
    """One notice for each kind and set of backends. concerned: kind, recipient and its key."""
    groups: dict[tuple[Kind, tuple[Backend, ...]], list[int]] = {}
    for kind, recipient, key in concerned:
        backends = backends_for(kind, sender, recipient.notify)
        if backends:
            groups.setdefault((kind, backends), []).append(key)
    return tuple(NewNotice(kind, tuple(keys), backends) for (kind, backends), keys in groups.items())
