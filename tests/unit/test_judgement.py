"""The disposition of outcomes and the change of state, over the whole table: stage x reply class x state."""

import dataclasses
import itertools

import pytest

from mailrelay.mail.backoff import SPREAD, wait
from mailrelay.mail.conclusion import RetryPolicy, accepted_before, all_refused, conclude, nothing_tried
from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.lifecycle import (
    ACT_TABLE,
    ATTEMPT_TABLE,
    FAILED,
    OPEN,
    PENDING,
    Act,
    State,
    after_attempt,
)
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome, Reply, Scope, Stage
from mailrelay.mail.recipient_limit import dispositions, recipient_limit
from mailrelay.mail.record import Place, Settled
from mailrelay.mail.triage import (
    PENALISED,
    Disposition,
    classify,
    is_reply_to_mail,
    is_setup_fault,
)

BEFORE_MAIL = (Stage.DIAL, Stage.HOST_KEY, Stage.AUTH, Stage.CHANNEL, Stage.GREETING, Stage.EHLO)
IN_TRANSACTION = (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT, Stage.AFTER_DOT)
CODES = (200, 250, 251, 299, 300, 354, 399, 400, 421, 450, 451, 452, 499, 500, 550, 552, 554, 599)
ALL_CAUSES = [cause for cause in Cause if cause is not Cause.REPLY]


def reply(stage: Stage, code: int) -> Outcome:
    return Outcome(stage, Reply(code, (b"words",)))


@pytest.mark.parametrize(
    ("outcome", "ends", "judges_mail"),
    [
        (reply(Stage.RCPT, 550), False, True),
        (reply(Stage.RCPT, 250), False, True),
        (reply(Stage.DATA, 451), False, True),
        (reply(Stage.CONTENT, 250), False, True),
        (reply(Stage.MAIL, 550), False, False),
        (reply(Stage.EHLO, 550), False, False),
        (dataclasses.replace(reply(Stage.RCPT, 530), cause=Cause.LOGIN_WANTED), False, False),
        (reply(Stage.RCPT, 421), True, False),
        (reply(Stage.RCPT, 354), True, False),
        (Outcome(Stage.RCPT, cause=Cause.LOST), True, False),
        (Outcome(Stage.RCPT, cause=Cause.NO_SMTPUTF8), False, False),
    ],
)
def test_a_reply_behind_mail_judges_the_mail_unless_it_ends_the_conversation_or_refuses_us(
    outcome: Outcome, ends: bool, judges_mail: bool
) -> None:
    assert outcome.ends_conversation is ends
    assert is_reply_to_mail(outcome) is judges_mail


@pytest.mark.parametrize(("stage", "code"), [*itertools.product(Stage, CODES)])
def test_only_a_2xx_to_the_content_is_sent(stage: Stage, code: int) -> None:
    sent = classify(reply(stage, code)) is Disposition.SENT
    assert sent == (stage is Stage.CONTENT and 200 <= code < 300)


@pytest.mark.parametrize(("stage", "code"), [*itertools.product(Stage, CODES)])
def test_only_a_5xx_of_the_mail_server_inside_a_transaction_bounces(stage: Stage, code: int) -> None:
    bounced = classify(reply(stage, code)) is Disposition.BOUNCED
    assert bounced == (stage in IN_TRANSACTION and code >= 500)


@pytest.mark.parametrize(("stage", "cause"), [*itertools.product(Stage, ALL_CAUSES)])
def test_no_fault_of_ours_or_of_the_network_bounces(stage: Stage, cause: Cause) -> None:
    assert classify(Outcome(stage, cause=cause)) in (
        Disposition.DEFERRED,
        Disposition.UNCERTAIN,
        Disposition.HELD,
        Disposition.NOT_TRIED,
    )


@pytest.mark.parametrize(("stage", "code"), [*itertools.product(BEFORE_MAIL, CODES)])
def test_what_breaks_before_mail_concerns_the_relayhost_and_counts_no_attempt(stage: Stage, code: int) -> None:
    assert (reply(stage, code).scope, classify(reply(stage, code))) == (Scope.RELAYHOST, Disposition.NOT_TRIED)


def test_a_connection_lost_after_the_dot_is_uncertain_and_before_it_is_not() -> None:
    dispositions = {stage: classify(Outcome(stage, cause=Cause.LOST)) for stage in IN_TRANSACTION}
    assert dispositions.pop(Stage.AFTER_DOT) is Disposition.UNCERTAIN
    assert set(dispositions.values()) == {Disposition.DEFERRED}


def said(code: int, words: str, stage: Stage = Stage.RCPT) -> Outcome:
    return Outcome(stage, Reply(code, (words.encode(),)))


GOOD = Outcome(Stage.CONTENT, Reply(250, (b"2.0.0 taken",)))
MANY, DEFER, BOUNCE, SENT = Disposition.TOO_MANY, Disposition.DEFERRED, Disposition.BOUNCED, Disposition.SENT


@pytest.mark.parametrize(
    ("code", "words", "first", "behind"),
    [
        (452, "4.5.3 Too many recipients", DEFER, MANY),
        (452, "4.5.3 Error: too many recipients", DEFER, MANY),
        (452, "4.5.3 Maximum limit of 100 recipients reached", DEFER, MANY),
        (452, "4.5.3 Domain policy size per transaction exceeded, please try this recipient later", DEFER, MANY),
        (452, "too many recipients", DEFER, MANY),
        (452, "Too many envelope recipients", DEFER, MANY),
        (452, "Recipient limit exceeded", DEFER, MANY),
        (452, "maximum number of recipients exceeded", DEFER, MANY),
        (452, "4.5.3 Requested action not taken: max recipients reached", DEFER, MANY),
        (450, "<x@example.net>: Recipient address rejected: rate limit", DEFER, DEFER),
        (550, "<x@example.net>: Recipient address rejected: quota exceeded", BOUNCE, BOUNCE),
        (452, "No more than 50 rcpts, please: more than 50 recipients", DEFER, MANY),
        (452, "4.3.1 Too many recipients", DEFER, MANY),
        (451, "4.5.3 Too many recipients", DEFER, MANY),
        (450, "4.5.3 <x@example.net>: Recipient address rejected: Policy", DEFER, MANY),
        (552, "5.5.3 Too many recipients", DEFER, MANY),
        (552, "Too many recipients", BOUNCE, MANY),
        (552, "Requested mail action aborted", BOUNCE, MANY),
        (550, "Too many recipients.", BOUNCE, MANY),
        (552, "5.2.2 Mailbox full", BOUNCE, BOUNCE),
        (552, "5.3.4 Too large", BOUNCE, BOUNCE),
        (550, "5.1.1 No such user", BOUNCE, BOUNCE),
        (452, "4.2.2 Mailbox full", DEFER, DEFER),
        (452, "4.3.1 Insufficient system storage", DEFER, DEFER),
        (452, "Insufficient system storage", DEFER, DEFER),
        (450, "4.7.1 Error: too many recipients from 192.0.2.1", DEFER, DEFER),
        (421, "4.5.3 Too many recipients", DEFER, MANY),
        (421, "4.3.2 Service shutting down", DEFER, DEFER),
        (452, "Requested action not taken", DEFER, MANY),
        (452, "Mailbox full", DEFER, DEFER),
        (451, "4.3.0 too many connections", DEFER, DEFER),
        (250, "2.1.5 Too many recipients, but fine", DEFER, DEFER),
    ],
)
def test_a_reply_to_rcpt_means_too_many_recipients_only_behind_an_accepted_one(
    code: int, words: str, first: Disposition, behind: Disposition
) -> None:
    odd = said(code, words)
    assert classify(odd) is first
    assert dispositions((odd,)) == (first,)
    assert dispositions((said(550, "5.1.1 no such user"), odd)) == (BOUNCE, first)
    assert dispositions((GOOD, odd, odd)) == (SENT, behind, behind)


def test_the_accepted_recipients_go_again_if_the_content_is_refused_because_there_were_too_many() -> None:
    surplus = said(552, "too many recipients")
    refused = said(554, "too many recipients", Stage.DATA)
    assert dispositions((refused, refused, surplus)) == (MANY, MANY, MANY)
    assert recipient_limit((refused, refused, surplus)) == 2
    assert dispositions((refused, refused)) == (BOUNCE, BOUNCE)
    other = said(554, "5.7.1 spam", Stage.DATA)
    assert dispositions((other, surplus)) == (BOUNCE, MANY)
    # Without a limit that makes the next transaction smaller, the round would not end.
    assert dispositions((refused, surplus, refused)) == (BOUNCE, MANY, BOUNCE)


def test_the_limit_is_the_number_of_accepted_recipients_if_none_behind_them_was_accepted() -> None:
    surplus, unknown = said(452, "4.5.3 too many"), said(550, "5.1.1 no such user")
    lost = Outcome(Stage.RCPT, cause=Cause.LOST)
    assert recipient_limit((GOOD, unknown, GOOD, surplus, surplus)) == 2
    assert recipient_limit((GOOD, surplus, unknown)) == 1
    assert recipient_limit((GOOD, surplus, GOOD)) is None
    assert recipient_limit((surplus, surplus)) is None
    assert recipient_limit((GOOD, unknown)) is None
    assert recipient_limit((lost, surplus, said(421, "4.7.0 too many errors"))) == 1


@pytest.mark.parametrize("end", [said(421, "4.7.0 too many errors"), Outcome(Stage.RCPT, cause=Cause.LOST)])
def test_a_server_that_ends_the_conversation_after_it_said_too_many_has_shown_its_limit(end: Outcome) -> None:
    surplus, lost = said(452, "4.5.3 too many"), Outcome(Stage.RCPT, cause=Cause.LOST)
    outcomes = (lost, lost, surplus, surplus, end, lost, lost)
    assert recipient_limit(outcomes) == 2
    assert dispositions(outcomes) == (MANY,) * 7
    after_dot = Outcome(Stage.AFTER_DOT, cause=Cause.LOST)
    assert dispositions((after_dot, surplus, end)) == (Disposition.UNCERTAIN, MANY, MANY)
    assert recipient_limit((lost, surplus, lost, surplus, end)) is None
    assert recipient_limit((lost, lost, end, lost)) is None


@pytest.mark.parametrize("cause", [Cause.NO_SMTPUTF8, Cause.UNREADABLE])
def test_what_cannot_be_sent_as_it_is_waits_for_the_person(cause: Cause) -> None:
    outcome = Outcome(Stage.EHLO, cause=cause)
    assert (outcome.scope, classify(outcome), is_setup_fault(outcome)) == (Scope.MESSAGE, Disposition.HELD, False)


@pytest.mark.parametrize("cause", ALL_CAUSES)
def test_a_network_that_is_away_heals_itself_and_the_rest_needs_the_person(cause: Cause) -> None:
    quiet = (Cause.UNREACHABLE, Cause.LOST, Cause.TURNED_AWAY, Cause.NO_SMTPUTF8, Cause.UNREADABLE)
    assert is_setup_fault(Outcome(Stage.DIAL, cause=cause)) == (cause not in quiet)


@pytest.mark.parametrize(("stage", "code"), [*itertools.product((Stage.GREETING, Stage.EHLO), (421, 450, 500, 554))])
def test_a_mail_server_that_refuses_the_session_is_a_setup_fault_and_one_that_is_busy_is_not(
    stage: Stage, code: int
) -> None:
    assert is_setup_fault(reply(stage, code)) == (code >= 500)


@pytest.mark.parametrize("stage", IN_TRANSACTION)
def test_a_refused_message_is_no_setup_fault(stage: Stage) -> None:
    assert not is_setup_fault(reply(stage, 550))


def test_every_penalised_cause_is_a_setup_fault() -> None:
    assert all(is_setup_fault(Outcome(Stage.AUTH, cause=cause)) for cause in PENALISED)


# Where it takes a recipient.


def move(state: State, disposition: Disposition, *, told: bool = False, age: float = 0.0) -> tuple[State, bool, bool]:
    moved = after_attempt(state, disposition, client_told=told, age=age, expire_after=100.0)
    return moved.state, moved.needs_notice, moved.uncertain


@pytest.mark.parametrize(
    ("state", "disposition", "told", "age"), [*itertools.product(sorted(PENDING), Disposition, (True, False), (0, 101))]
)
def test_every_disposition_changes_the_state_as_in_the_table(
    state: State, disposition: Disposition, told: bool, age: float
) -> None:
    expected = {
        Disposition.SENT: (State.SENT, False, False),
        Disposition.DEFERRED: (State.EXPIRED, True, False) if age else (State.DEFERRED, False, False),
        Disposition.UNCERTAIN: (State.EXPIRED, True, True) if age else (State.DEFERRED, False, True),
        Disposition.BOUNCED: (State.REFUSED, False, False) if told else (State.BOUNCED, True, False),
        Disposition.HELD: (State.HELD, True, False),
        Disposition.TOO_MANY: (state, False, False),
        Disposition.NOT_TRIED: (state, False, False),
    }
    assert move(state, disposition, told=told, age=age) == expected[disposition]


@pytest.mark.parametrize("state", sorted(set(State) - PENDING))
def test_a_recipient_that_is_not_pending_cannot_have_been_tried(state: State) -> None:
    with pytest.raises(ValueError, match=state.value):
        move(state, Disposition.SENT)


@pytest.mark.parametrize("disposition", Disposition)
def test_no_failure_is_silent(disposition: Disposition) -> None:
    """Whoever ends up failed or held is owed a notice, unless the client was told."""
    for age in (0.0, 101.0):
        state, owed, _ = move(State.QUEUED, disposition, age=age)
        assert owed == (state in FAILED or state is State.HELD)


def test_mail_that_could_not_be_tried_never_expires() -> None:
    assert move(State.DEFERRED, Disposition.NOT_TRIED, age=1e9)[0] is State.DEFERRED


@pytest.mark.parametrize(("state", "act"), [*itertools.product(State, Act)])
def test_the_person_changes_only_states_that_the_table_allows(state: State, act: Act) -> None:
    allowed = {
        Act.HOLD: PENDING,
        Act.RELEASE: {State.HELD},
        Act.CANCEL: OPEN,
        Act.DROP: FAILED,
        Act.RESEND: {State.HELD, State.REFUSED, *FAILED},
        Act.EDIT: {State.REFUSED, *OPEN, *FAILED},
    }
    to = {Act.HOLD: State.HELD, Act.RELEASE: State.QUEUED}.get(act, State.CANCELLED)
    assert ACT_TABLE.get((state, act)) == (to if state in allowed[act] else None)


def test_every_state_has_an_exit_until_the_person_or_the_mail_server_has_decided() -> None:
    leads_on = {state for state, _ in ACT_TABLE} | PENDING
    ends = set(State) - leads_on
    assert ends == {State.SENT, State.CANCELLED}
    assert set(ATTEMPT_TABLE) == set(Disposition)


# When to try again.


@pytest.mark.parametrize(("failures", "step"), [(1, 60), (2, 120), (3, 300), (4, 300), (1000, 300)])
def test_the_schedule_is_followed_and_its_last_step_repeats(failures: int, step: float) -> None:
    schedule = (60.0, 120.0, 300.0)
    assert wait(schedule, failures, 0.0) == step
    assert step < wait(schedule, failures, 0.999) <= step * (1 + SPREAD)


# The record of an attempt.


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome(Stage.RCPT, Reply(550, (b"5.1.1 no such user",))), "5.1.1"),
        (Outcome(Stage.EHLO, cause=Cause.NO_SMTPUTF8), "5.6.7"),
        (Outcome(Stage.CONTENT, cause=Cause.UNREADABLE), "4.3.0"),
        (Outcome(Stage.CONTENT, cause=Cause.LOST), "4.4.2"),
    ],
)
def test_an_outcome_has_the_status_of_its_reply_or_of_its_cause(outcome: Outcome, status: str) -> None:
    assert Settled(1, State.DEFERRED, outcome, uncertain=False).status == status


MESSAGE = Message(
    7,
    "bcdfghjkmn",
    "default",
    Envelope(b"a@example.org", (Recipient(b"b@example.net"), Recipient(b"c@example.net", b"SUCCESS"))),
    (1, 2),
    100,
    arrival=1000.0,
    attempts=1,
)
TERMS = RetryPolicy((60.0, 120.0), 432_000.0, lambda kind, sender, notify: (Backend.DESKTOP,))
TAKEN, REFUSED, BUSY = reply(Stage.CONTENT, 250), reply(Stage.RCPT, 550), reply(Stage.RCPT, 450)


def test_a_mixed_attempt_is_repeated_for_deferred_recipients_and_makes_notices_for_failed_ones() -> None:
    record = conclude(MESSAGE, (REFUSED, BUSY), TERMS, client_told=False, relays_dsn=True, now=2000.0, chance=0.0)
    assert [one.state for one in record.settled] == [State.BOUNCED, State.DEFERRED]
    assert record.next_attempt == 2120.0
    assert [(owing.kind, owing.recipients) for owing in record.notices] == [(Kind.FAILED, (1,))]


def test_nothing_is_tried_again_without_pending_recipients() -> None:
    record = conclude(MESSAGE, (TAKEN, REFUSED), TERMS, client_told=False, relays_dsn=True, now=2000.0, chance=0.0)
    assert record.next_attempt is None


def test_a_refusal_that_the_client_got_makes_no_notice() -> None:
    record = conclude(MESSAGE, (REFUSED, REFUSED), TERMS, client_told=True, relays_dsn=True, now=2000.0, chance=0.0)
    assert ([one.state for one in record.settled], record.notices) == ([State.REFUSED] * 2, ())


@pytest.mark.parametrize(("relays_dsn", "kinds"), [(True, []), (False, [Kind.RELAYED])])
def test_a_requested_success_report_is_ours_if_the_mail_server_reports_none(
    relays_dsn: bool, kinds: list[Kind]
) -> None:
    record = conclude(MESSAGE, (TAKEN, TAKEN), TERMS, client_told=False, relays_dsn=relays_dsn, now=2000.0, chance=0.0)
    assert [owing.kind for owing in record.notices] == kinds


def test_a_client_gets_a_refusal_only_if_all_recipients_were_refused() -> None:
    assert all_refused((REFUSED, REFUSED))
    assert not all_refused((REFUSED, TAKEN))
    assert not all_refused((REFUSED, BUSY))


def test_a_conversation_that_ends_before_mail_is_no_attempt() -> None:
    away = Outcome(Stage.EHLO, cause=Cause.LOST)
    assert nothing_tried((away, away))
    assert not nothing_tried((away, BUSY))


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((b"5.1.1 no such user",), "5.1.1"),
        ((b"5.1.1",), "5.1.1"),
        ((b"4.2.1 later",), "5.0.0"),
        ((b"5.1.1x no",), "5.0.0"),
        ((b"no",), "5.0.0"),
        ((), "5.0.0"),
    ],
)
def test_the_status_of_a_reply_is_its_enhanced_code_if_that_fits_the_code(
    lines: tuple[bytes, ...], status: str
) -> None:
    assert Reply(550, lines).status == status


@pytest.mark.parametrize("code", [200, 299, 400, 499, 500, 599])
def test_each_code_of_a_class_fits_the_enhanced_codes_of_its_class(code: int) -> None:
    first = str(code)[0]
    for digit in "245":
        reply = Reply(code, (f"{digit}.7.1 words".encode(),))
        assert reply.has_status is (digit == first)
        assert reply.status == (f"{digit}.7.1" if digit == first else f"{first}.0.0")


@pytest.mark.parametrize(("attempts", "state"), [(0, State.DEFERRED), (1, State.EXPIRED)])
def test_a_wrong_clock_at_arrival_expires_nothing_before_the_end_of_the_schedule(attempts: int, state: State) -> None:
    message = dataclasses.replace(MESSAGE, arrival=0.0, attempts=attempts)
    record = conclude(message, (BUSY, BUSY), TERMS, client_told=False, relays_dsn=True, now=1.7e9, chance=0.0)
    assert {one.state for one in record.settled} == {state}


# Rounds.


@pytest.mark.parametrize(
    ("outcomes", "later", "place", "states"),
    [
        ((GOOD, said(452, "4.5.3 too many")), 0, Place.GOES_ON, [State.SENT]),
        ((GOOD, GOOD), 3, Place.GOES_ON, [State.SENT] * 2),
        ((REFUSED, REFUSED), 3, Place.GOES_ON, [State.BOUNCED] * 2),
        ((BUSY, BUSY), 3, Place.GOES_ON, [State.DEFERRED] * 2),
        ((said(553, "5.1.8 no", Stage.MAIL),) * 2, 3, Place.GOES_ON, [State.BOUNCED] * 2),
        ((GOOD, GOOD), 0, Place.ALONE, [State.SENT] * 2),
        ((BUSY, said(452, "4.5.3 too many")), 0, Place.ALONE, [State.DEFERRED] * 2),
        ((said(451, "later", Stage.MAIL),) * 2, 3, Place.ALONE, [State.DEFERRED] * 2),
        ((said(451, "later", Stage.DATA), said(452, "4.5.3 too many")), 0, Place.ALONE, [State.DEFERRED] * 2),
        ((said(421, "closing"), Outcome(Stage.RCPT, cause=Cause.LOST)), 3, Place.ALONE, [State.DEFERRED] * 2),
        ((Outcome(Stage.RCPT, cause=Cause.LOST), said(452, "4.5.3 too many")), 0, Place.GOES_ON, []),
        ((Outcome(Stage.AFTER_DOT, cause=Cause.LOST),) * 2, 3, Place.ALONE, [State.DEFERRED] * 2),
    ],
)
@pytest.mark.parametrize("is_continued", [False, True])
def test_a_round_goes_on_only_after_progress_and_counts_once(
    outcomes: tuple[Outcome, ...], later: int, place: Place, states: list[State], is_continued: bool
) -> None:
    message = dataclasses.replace(MESSAGE, later=later, is_continued=is_continued)
    record = conclude(message, outcomes, TERMS, client_told=False, relays_dsn=True, now=2000.0, chance=0.0)
    assert record.place is (Place.LAST if is_continued and place is Place.ALONE else place)
    assert [one.state for one in record.settled] == states
    if place is Place.GOES_ON:
        assert record.next_attempt == 2000.0
    else:
        assert record.next_attempt == (2120.0 if later or State.DEFERRED in states else None)


def test_recipients_that_a_round_has_deferred_are_tried_again_by_the_schedule_after_its_end() -> None:
    message = dataclasses.replace(MESSAGE, waiting=1, is_continued=True)
    record = conclude(message, (TAKEN, TAKEN), TERMS, client_told=False, relays_dsn=True, now=2000.0, chance=0.0)
    assert (record.place, record.next_attempt) == (Place.LAST, 2120.0)


@pytest.mark.parametrize(("attempts", "step"), [(0, 60.0), (1, 120.0), (2, 300.0), (3, 300.0)])
@pytest.mark.parametrize("chance", [0.0, 0.5])
def test_the_wait_after_an_attempt_is_that_of_its_number_and_at_most_a_tenth_longer(
    attempts: int, step: float, chance: float
) -> None:
    policy = RetryPolicy((60.0, 120.0, 300.0), 432_000.0, lambda *_: ())
    message = dataclasses.replace(MESSAGE, attempts=attempts)
    record = conclude(message, (BUSY, BUSY), policy, client_told=False, relays_dsn=True, now=2000.0, chance=chance)
    assert record.next_attempt == pytest.approx(2000.0 + step * (1 + chance / 10))


@pytest.mark.parametrize(("age", "state"), [(100.0, State.DEFERRED), (100.5, State.EXPIRED)])
def test_a_message_expires_when_it_is_older_than_the_limit_and_the_whole_schedule_was_used(
    age: float, state: State
) -> None:
    policy = RetryPolicy((60.0, 120.0), 100.0, lambda *_: (Backend.DESKTOP,))
    now = MESSAGE.arrival + age
    record = conclude(MESSAGE, (BUSY, TAKEN), policy, client_told=False, relays_dsn=True, now=now, chance=0.0)
    assert [one.state for one in record.settled] == [state, State.SENT]
    expired = state is State.EXPIRED
    assert record.next_attempt == (None if expired else now + 120.0)
    assert [(one.kind, one.recipients) for one in record.notices] == ([(Kind.FAILED, (1,))] if expired else [])
    early = dataclasses.replace(MESSAGE, attempts=0)
    record = conclude(early, (BUSY, TAKEN), policy, client_told=False, relays_dsn=True, now=now, chance=0.0)
    assert (record.settled[0].state, record.next_attempt) == (State.DEFERRED, now + 60.0)


def test_a_record_has_the_message_the_lengths_and_whether_it_is_followed() -> None:
    terms = {"client_told": False, "relays_dsn": True, "now": 2000.0, "chance": 0.0}
    plain = conclude(MESSAGE, (TAKEN, TAKEN), TERMS, **terms)
    assert (plain.message, plain.now) == (MESSAGE.id, 2000.0)
    assert (plain.dialled, plain.transaction, plain.is_followed) == (0.0, 0.0, False)
    measured = conclude(MESSAGE, (TAKEN, TAKEN), TERMS, **terms, dialled=1.5, transaction=2.5, is_followed=True)
    assert (measured.dialled, measured.transaction, measured.is_followed) == (1.5, 2.5, True)
    assert [(one.recipient, one.outcome, one.uncertain) for one in measured.settled] == [
        (1, TAKEN, False),
        (2, TAKEN, False),
    ]
    with pytest.raises(ValueError, match="zip"):
        conclude(MESSAGE, (TAKEN,), TERMS, **terms)


THREE = dataclasses.replace(
    MESSAGE,
    envelope=Envelope(
        b"a@example.org",
        (Recipient(b"b@example.net"), Recipient(b"c@example.net", b"success"), Recipient(b"d@example.net", b"NEVER")),
    ),
    recipient_ids=(1, 2, 3),
)


def by_notify(kind: Kind, sender: bytes, notify: bytes) -> tuple[Backend, ...]:
    """Backends as in the settings: none for a success, a report by mail where it is not declined."""
    assert sender == b"a@example.org"
    if notify == b"NEVER":
        return () if kind is Kind.HELD else (Backend.DESKTOP,)
    return (Backend.DSN,) if kind is Kind.RELAYED else (Backend.DESKTOP, Backend.DSN)


@pytest.mark.parametrize(
    ("outcomes", "notices"),
    [
        (
            (REFUSED,) * 3,
            [(Kind.FAILED, (1, 2), (Backend.DESKTOP, Backend.DSN)), (Kind.FAILED, (3,), (Backend.DESKTOP,))],
        ),
        ((TAKEN,) * 3, [(Kind.RELAYED, (2,), (Backend.DSN,))]),
        ((BUSY,) * 3, []),
        (
            (REFUSED, TAKEN, REFUSED),
            [
                (Kind.FAILED, (1,), (Backend.DESKTOP, Backend.DSN)),
                (Kind.RELAYED, (2,), (Backend.DSN,)),
                (Kind.FAILED, (3,), (Backend.DESKTOP,)),
            ],
        ),
        (
            (Outcome(Stage.CONTENT, cause=Cause.UNREADABLE, text="x"),) * 3,
            [(Kind.HELD, (1, 2), (Backend.DESKTOP, Backend.DSN))],
        ),
    ],
)
def test_recipients_of_the_same_kind_and_backends_share_a_notice_and_without_a_backend_there_is_none(
    outcomes: tuple[Outcome, ...], notices: list[tuple[Kind, tuple[int, ...], tuple[Backend, ...]]]
) -> None:
    policy = RetryPolicy((60.0,), 432_000.0, by_notify)
    record = conclude(THREE, outcomes, policy, client_told=False, relays_dsn=False, now=2000.0, chance=0.0)
    assert [(one.kind, one.recipients, one.backends) for one in record.notices] == notices


@pytest.mark.parametrize("relays_dsn", [False, True])
@pytest.mark.parametrize("keys", [(1,), (2, 3), (1, 2, 3)])
def test_what_an_earlier_attempt_has_sent_is_recorded_for_its_recipients_alone(
    keys: tuple[int, ...], relays_dsn: bool
) -> None:
    record = accepted_before(
        THREE,
        keys,
        Reply(250, (b"2.0.0 taken",)),
        by_notify,
        relays_dsn=relays_dsn,
        now=2000.0,
        next_attempt=2060.0,
        dialled=1.5,
        transaction=2.5,
        is_followed=True,
    )
    assert [(one.recipient, one.state, one.uncertain) for one in record.settled] == [
        (key, State.SENT, False) for key in keys
    ]
    assert {(one.outcome.stage, one.outcome.description) for one in record.settled} == {
        (Stage.CONTENT, b"250 2.0.0 taken")
    }
    is_reported = 2 in keys and not relays_dsn
    assert [(one.kind, one.recipients) for one in record.notices] == ([(Kind.RELAYED, (2,))] if is_reported else [])
    assert (record.message, record.now, record.next_attempt) == (THREE.id, 2000.0, 2060.0)
    assert (record.dialled, record.transaction, record.place, record.is_followed) == (1.5, 2.5, Place.ALONE, True)


def test_a_recipient_that_was_too_many_at_the_end_of_a_round_expires_like_the_others() -> None:
    policy = RetryPolicy((60.0,), 100.0, lambda *_: (Backend.DESKTOP,))
    surplus = said(452, "4.5.3 too many")
    later = said(451, "later", Stage.DATA)
    assert dispositions((later, surplus)) == (DEFER, MANY)
    for age, state in ((100.0, State.DEFERRED), (101.0, State.EXPIRED)):
        now = MESSAGE.arrival + age
        record = conclude(MESSAGE, (later, surplus), policy, client_told=False, relays_dsn=True, now=now, chance=0.0)
        assert (record.place, [one.state for one in record.settled]) == (Place.ALONE, [state] * 2)


@pytest.mark.parametrize(
    ("end", "disposition"),
    [
        (said(552, "too many recipients", Stage.CONTENT), MANY),
        (said(554, "5.5.3 no", Stage.DATA), MANY),
        (said(552, "the message is too big", Stage.CONTENT), BOUNCE),
        (said(452, "not now", Stage.DATA), DEFER),
        (said(250, "taken; the recipient limit is 1", Stage.CONTENT), SENT),
        (said(400, "too many recipients", Stage.DATA), MANY),
    ],
)
def test_behind_a_limit_the_reply_to_the_content_sends_recipients_again_only_if_it_names_their_number(
    end: Outcome, disposition: Disposition
) -> None:
    assert dispositions((end, said(452, "4.5.3 too many"))) == (disposition, MANY)
