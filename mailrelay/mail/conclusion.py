"""From the outcomes of an attempt to its record: judged, moved along the state table, the next attempt and notices set.

Pure and total: every list of outcomes has a conclusion.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailrelay.mail.backoff import wait
from mailrelay.mail.envelope import Message, Recipient
from mailrelay.mail.lifecycle import PENDING, State, after_attempt
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Outcome
from mailrelay.mail.record import NewNotice, Record, Settled
from mailrelay.mail.triage import Disposition, classify

BackendsFor = Callable[[Kind, bytes, bytes], tuple[Backend, ...]]
"""(kind, reverse path, NOTIFY of the recipient) -> the backends by which such a notice is owed."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What the settings say about trying again. Seconds throughout; `schedule` as in `mail.backoff`."""

    schedule: tuple[float, ...]
    expire_after: float
    backends_for: BackendsFor


def all_refused(outcomes: Sequence[Outcome]) -> bool:
    """Whether the remote refused every recipient for good: then the client can be told so in place of a 250."""
    return all(classify(outcome) is Disposition.BOUNCED for outcome in outcomes)


def nothing_tried(outcomes: Sequence[Outcome]) -> bool:
    """Whether nothing was tried at all: no attempt is counted and nothing is recorded."""
    return all(classify(outcome) is Disposition.NOT_TRIED for outcome in outcomes)


def conclude(
    message: Message,
    outcomes: Sequence[Outcome],
    terms: RetryPolicy,
    *,
    client_told: bool,
    relays_dsn: bool,
    now: float,
    chance: float,
    dialled: float = 0.0,
    transaction: float = 0.0,
) -> Record:
    """The record of an attempt at `message`, with one outcome for each of its recipients, in their order.

    client_told: the client got the refusal as its answer. relays_dsn: the remote took over the DSN parameters (RFC 3461),
    so that a success is its to report. now: epoch seconds. chance: a random number in [0, 1). dialled, transaction: seconds.
    """
    settled = []
    # A clock that was wrong when the message came in must not make it old before the schedule was gone through.
    was_tried_long = message.attempts + 1 >= len(terms.schedule)
    concerned: list[tuple[Kind, Recipient, int]] = []
    for recipient, key, outcome in zip(message.envelope.recipients, message.recipient_ids, outcomes, strict=True):
        move = after_attempt(
            State.DEFERRED,
            classify(outcome),
            client_told=client_told,
            age=now - message.arrival,
            expire_after=terms.expire_after if was_tried_long else math.inf,
        )
        settled.append(Settled(key, move.state, outcome, move.uncertain))
        if move.needs_notice:
            concerned.append((Kind.HELD if move.state is State.HELD else Kind.FAILED, recipient, key))
        elif move.state is State.SENT and b"SUCCESS" in recipient.notify.upper() and not relays_dsn:
            concerned.append((Kind.RELAYED, recipient, key))
    waits = any(one.state in PENDING for one in settled)
    return Record(
        message.id,
        now,
        tuple(settled),
        now + wait(terms.schedule, message.attempts + 1, chance) if waits else None,
        _owings(message.envelope.sender, concerned, terms.backends_for),
        dialled,
        transaction,
    )


def _owings(
    sender: bytes, concerned: Sequence[tuple[Kind, Recipient, int]], backends_for: BackendsFor
) -> tuple[NewNotice, ...]:
    """One notice for all recipients of a kind that are told by the same backends."""
    groups: dict[tuple[Kind, tuple[Backend, ...]], list[int]] = {}
    for kind, recipient, key in concerned:
        backends = backends_for(kind, sender, recipient.notify)
        if backends:
            groups.setdefault((kind, backends), []).append(key)
    return tuple(NewNotice(kind, tuple(keys), backends) for (kind, backends), keys in groups.items())
