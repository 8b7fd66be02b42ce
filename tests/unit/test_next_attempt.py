"""The time of the next attempt follows the schedule, and a round that goes on is due at once."""

import dataclasses

import pytest

from mailrelay.mail.backoff import SPREAD
from mailrelay.mail.conclusion import RetryPolicy, accepted_before, all_refused, conclude, nothing_tried
from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.lifecycle import State
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.mail.record import NewNotice, Place, Record

SCHEDULE = (60.0, 120.0, 300.0, 900.0)
BOTH = (Backend.DESKTOP, Backend.DSN)
POLICY = RetryPolicy(SCHEDULE, 1000.0, lambda kind, sender, notify: BOTH if notify != b"NEVER" else ())
MESSAGE = Message(
    7,
    "bcdfghjkmn",
    "default",
    Envelope(b"a@example.org", (Recipient(b"b@example.net"), Recipient(b"c@example.net"), Recipient(b"d@example.net"))),
    (11, 12, 13),
    100,
    arrival=1000.0,
    attempts=0,
)
GOOD = Outcome(Stage.CONTENT, Reply(250, (b"ok",)))
BUSY = Outcome(Stage.RCPT, Reply(450, (b"4.2.0 later",)))
REFUSED = Outcome(Stage.RCPT, Reply(550, (b"5.1.1 no",)))
HELD = Outcome(Stage.CONTENT, cause=Cause.UNREADABLE)


def concluded(message: Message, *outcomes: Outcome, now: float = 1500.0, chance: float = 0.0) -> Record:
    return conclude(
        message,
        outcomes,
        POLICY,
        client_told=False,
        relays_dsn=False,
        now=now,
        chance=chance,
        dialled=0.5,
        transaction=0.25,
        is_followed=True,
    )


@pytest.mark.parametrize(("attempts", "step"), [(0, 60), (1, 120), (2, 300), (3, 900), (4, 900), (50, 900)])
@pytest.mark.parametrize("chance", [0.0, 0.5])
def test_each_attempt_is_followed_by_its_step_of_the_schedule(attempts: int, step: float, chance: float) -> None:
    message = dataclasses.replace(MESSAGE, attempts=attempts)
    record = concluded(message, BUSY, GOOD, GOOD, chance=chance)
    assert record.next_attempt == 1500.0 + step * (1 + SPREAD * chance)
    assert (record.message, record.now, record.dialled, record.transaction) == (7, 1500.0, 0.5, 0.25)
    assert (record.is_followed, record.place) == (True, Place.ALONE)


@pytest.mark.parametrize(
    ("attempts", "now", "state"),
    [
        (2, 2001.0, State.DEFERRED),
        (3, 1999.0, State.DEFERRED),
        (3, 2000.0, State.DEFERRED),
        (3, 2001.0, State.EXPIRED),
        (4, 2001.0, State.EXPIRED),
    ],
)
def test_a_message_expires_at_its_age_and_after_the_whole_schedule(attempts: int, now: float, state: State) -> None:
    record = concluded(dataclasses.replace(MESSAGE, attempts=attempts), BUSY, BUSY, BUSY, now=now)
    assert {one.state for one in record.settled} == {state}
    assert (record.next_attempt is None) is (state is State.EXPIRED)


@pytest.mark.parametrize(
    ("later", "waiting", "outcome", "waits"),
    [
        (0, 0, GOOD, False),
        (0, 0, REFUSED, False),
        (0, 0, HELD, False),
        (0, 0, BUSY, True),
        (0, 1, GOOD, True),
        (1, 0, GOOD, True),
    ],
)
def test_a_message_is_tried_again_while_a_recipient_waits(
    later: int, waiting: int, outcome: Outcome, waits: bool
) -> None:
    record = concluded(dataclasses.replace(MESSAGE, later=later, waiting=waiting), outcome, outcome, outcome)
    assert (record.next_attempt is not None) is waits
    assert record.place is (Place.GOES_ON if later else Place.ALONE)
    assert record.next_attempt in (None, 1500.0 if later else 1560.0)


def test_each_kind_and_set_of_backends_has_one_notice() -> None:
    never = Recipient(b"e@example.net", b"NEVER")
    wanted = Recipient(b"f@example.net", b"success,FAILURE")
    envelope = dataclasses.replace(MESSAGE.envelope, recipients=(*MESSAGE.envelope.recipients, never, wanted))
    message = dataclasses.replace(MESSAGE, envelope=envelope, recipient_ids=(11, 12, 13, 14, 15))
    record = concluded(message, REFUSED, HELD, REFUSED, REFUSED, GOOD)
    assert record.notices == (
        NewNotice(Kind.FAILED, (11, 13), BOTH),
        NewNotice(Kind.HELD, (12,), BOTH),
        NewNotice(Kind.RELAYED, (15,), BOTH),
    )


def test_a_number_of_outcomes_other_than_that_of_the_recipients_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        concluded(MESSAGE, GOOD, GOOD)


@pytest.mark.parametrize("relays_dsn", [False, True])
def test_what_an_earlier_attempt_has_sent_is_sent_for_these_recipients_only(relays_dsn: bool) -> None:
    wanted = Recipient(b"f@example.net", b"SUCCESS")
    message = dataclasses.replace(
        MESSAGE, envelope=Envelope(b"a@example.org", (*MESSAGE.envelope.recipients[:2], wanted))
    )
    record = accepted_before(
        message,
        (12, 13),
        Reply(250, (b"ok",)),
        POLICY.backends_for,
        relays_dsn=relays_dsn,
        now=5.0,
        next_attempt=6.0,
        dialled=0.5,
        transaction=0.25,
        is_followed=True,
    )
    assert [(one.recipient, one.state, one.uncertain) for one in record.settled] == [
        (12, State.SENT, False),
        (13, State.SENT, False),
    ]
    assert record.settled[0].outcome == GOOD
    assert (record.message, record.now, record.next_attempt, record.dialled, record.transaction) == (
        7,
        5.0,
        6.0,
        0.5,
        0.25,
    )
    assert record.notices == (() if relays_dsn else (NewNotice(Kind.RELAYED, (13,), BOTH),))
    assert (record.place, record.is_followed) == (Place.ALONE, True)


@pytest.mark.parametrize(
    ("outcomes", "refused", "untried"),
    [
        ((REFUSED, REFUSED), True, False),
        ((REFUSED, BUSY), False, False),
        ((GOOD, REFUSED), False, False),
        ((Outcome(Stage.EHLO, Reply(550, (b"no",))),) * 2, False, True),
        ((Outcome(Stage.EHLO, Reply(550, (b"no",))), BUSY), False, False),
    ],
)
def test_all_recipients_are_refused_or_untried_only_if_each_is(
    outcomes: tuple[Outcome, ...], refused: bool, untried: bool
) -> None:
    assert (all_refused(outcomes), nothing_tried(outcomes)) == (refused, untried)
