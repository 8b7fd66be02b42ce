"""Turns the outcomes of an attempt into its record: the recipients' new states, the next attempt, and the notices.

Pure. Every combination of outcomes has a record.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mailrelay.mail.backends import BackendsFor
from mailrelay.mail.backoff import wait
from mailrelay.mail.envelope import Message, Recipient
from mailrelay.mail.lifecycle import PENDING, State, after_attempt
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome, Reply, Scope, Stage
from mailrelay.mail.recipient_limit import dispositions
from mailrelay.mail.record import NewNotice, Place, Record, Settled
from mailrelay.mail.triage import Disposition, classify


@dataclass(slots=True)
class RetryPolicy:
    """The settings for attempts and their notices. A reload changes them in place.

    schedule: as in `mail.backoff`. expire_after: seconds after which a message expires.
    """

    schedule: tuple[float, ...]
    expire_after: float
    backends_for: BackendsFor


def all_refused(outcomes: Sequence[Outcome]) -> bool:
    """Whether the mail server refused every recipient for good: then the client can get this refusal instead of a 250."""
    return all(disposition is Disposition.BOUNCED for disposition in dispositions(outcomes))


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
    is_followed: bool = False,
) -> Record:
    """The record of an attempt at `message`, with one outcome for each of its recipients, in their order.

    client_told: whether the client got the refusal as the reply to the message. relays_dsn: whether the mail server accepted
    the DSN parameters (RFC 3461); then mailrelay does not report a success. now: epoch seconds. chance: a random number in
    [0, 1). dialled, transaction: seconds that the dial and the transaction took. is_followed: as in
    `Record`. Raises ValueError if the numbers of recipients and outcomes differ.
    """
    settled = []
    judged = dispositions(outcomes)
    place = _place(message, outcomes, judged)
    # Its age is not enough: the clock may have been wrong when the message arrived. It must not expire before the whole
    # schedule was used.
    schedule_is_used = message.attempts + 1 >= len(policy.schedule)
    concerned: list[tuple[Kind, Recipient, int]] = []
    for recipient, key, outcome, disposition in zip(
        message.envelope.recipients, message.recipient_ids, outcomes, judged, strict=True
    ):
        if disposition is Disposition.TOO_MANY and place is Place.GOES_ON:
            continue
        # `message` does not say which recipients were queued. One that was not tried now becomes deferred with the others.
        change = after_attempt(
            State.DEFERRED,
            # At the end of a round they wait like others.
            Disposition.DEFERRED if disposition is Disposition.TOO_MANY else disposition,
            client_told=client_told,
            age=now - message.waits_since,
            expire_after=policy.expire_after if schedule_is_used else math.inf,
        )
        settled.append(Settled(key, change.state, outcome, change.uncertain))
        if change.needs_notice:
            concerned.append((Kind.HELD if change.state is State.HELD else Kind.FAILED, recipient, key))
        elif change.state is State.SENT and _is_reported(recipient, relays_dsn=relays_dsn):
            concerned.append((Kind.RELAYED, recipient, key))
    waits = message.later or message.waiting or any(one.state in PENDING for one in settled)
    if place is Place.GOES_ON:
        next_attempt: float | None = now
    else:
        next_attempt = now + wait(policy.schedule, message.attempts + 1, chance) if waits else None
    return Record(
        message.id,
        now,
        tuple(settled),
        next_attempt,
        _new_notices(message.envelope.sender, concerned, policy.backends_for),
        dialled,
        transaction,
        place,
        is_followed,
    )


def accepted_before(
    message: Message,
    keys: Collection[int],
    reply: Reply,
    backends_for: BackendsFor,
    *,
    relays_dsn: bool,
    now: float,
    next_attempt: float | None,
    dialled: float,
    transaction: float,
    is_followed: bool,
) -> Record:
    """The record of an earlier attempt at `message`, in which the mail server has accepted it for the recipients `keys`, as
    its `reply` shows that was read only now. The other arguments: as in `conclude` and in its result."""
    outcome = Outcome(Stage.CONTENT, reply)
    accepted = [
        (key, recipient)
        for key, recipient in zip(message.recipient_ids, message.envelope.recipients, strict=True)
        if key in keys
    ]
    concerned = [
        (Kind.RELAYED, recipient, key) for key, recipient in accepted if _is_reported(recipient, relays_dsn=relays_dsn)
    ]
    return Record(
        message.id,
        now,
        tuple(Settled(key, State.SENT, outcome, uncertain=False) for key, _ in accepted),
        next_attempt,
        _new_notices(message.envelope.sender, concerned, backends_for),
        dialled,
        transaction,
        is_followed=is_followed,
    )


def _is_reported(recipient: Recipient, *, relays_dsn: bool) -> bool:
    """Whether mailrelay reports to the sender that the mail server has accepted the message for a recipient."""
    return b"SUCCESS" in recipient.notify.upper() and not relays_dsn


def _place(message: Message, outcomes: Sequence[Outcome], judged: Sequence[Disposition]) -> Place:
    """Whether the round of `message` goes on at once: there are recipients left for another transaction, and this one has
    made progress. So every round ends.

    Progress: the mail server has decided about a recipient, or it has shown its limit by refusing the content, or by ending
    the conversation, because of too many recipients; then the next transaction has fewer of them.
    """
    if (message.later or Disposition.TOO_MANY in judged) and any(
        disposition in (Disposition.SENT, Disposition.BOUNCED, Disposition.HELD)
        or (disposition is Disposition.TOO_MANY and (outcome.stage is not Stage.RCPT or outcome.cause is Cause.LOST))
        or (disposition is Disposition.DEFERRED and _is_about_recipient(outcome))
        for outcome, disposition in zip(outcomes, judged, strict=True)
    ):
        return Place.GOES_ON
    return Place.LAST if message.is_continued else Place.ALONE


def _is_about_recipient(outcome: Outcome) -> bool:
    """Whether the outcome of a recipient says nothing of the others. 421 ends the conversation for all."""
    return outcome.scope is Scope.RECIPIENT and not outcome.is_421


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
