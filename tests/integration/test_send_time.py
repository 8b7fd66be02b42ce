"""A message with a send time in the spool: it waits for its time, and for nothing else; also when the clock is set."""

import dataclasses
from collections.abc import Callable

import pytest
from harness.messages import BUSY, NOW, TAKEN, ending, letter
from harness.spool_engine import Engine

from mailrelay.mail.conclusion import RetryPolicy, conclude
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.handed_in import HandedIn, bad_sender
from mailrelay.mail.lifecycle import Act, State
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.send_time import MAX_WAIT, SendTime
from mailrelay.mail.spool_errors import NotAllowed
from mailrelay.spool import inspection, listing
from mailrelay.spool.database import connect, transaction

HOUR, DAY, YEAR = 3600.0, 86_400.0, 365 * 86_400.0
AFTER = 900.0
"""As delay_notice_after."""
LONGEST = 3960.0
BACKENDS = (Backend.MAILBOX,)
AWAY = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="no network")
NO_KEY = Outcome(Stage.AUTH, cause=Cause.AUTH_REFUSED, text="no key", fix="ssh-add")


def accept(engine: Engine, wait: float | None = DAY, *, by_clock: bool = False, large: bool = False) -> int:
    arrival = letter(at=engine.now, content=b"x" * 99_999 + b"\r\n" if large else b"hello\r\n")
    send_time = None if wait is None else SendTime(engine.now + wait, by_clock)
    envelope = dataclasses.replace(arrival.envelope, send_time=send_time)
    return engine.do(engine.spool.accept(dataclasses.replace(arrival, envelope=envelope)))


def act(engine: Engine, key: int, what: Act) -> None:
    with engine.commands.changing() as change:
        change.act(key, change.one(key).queue_id, what)


def retry(engine: Engine, key: int) -> None:
    with engine.commands.changing() as change:
        change.retry(key, change.one(key).queue_id)


def due(engine: Engine) -> float | None:
    return engine.do(engine.spool.next_due("default"))


def told(engine: Engine) -> list[Kind]:
    engine.do(engine.spool.update_delays(AFTER, BACKENDS))
    return [one.notice.kind for one in engine.pending()]


def test_it_is_due_at_its_time_and_not_before(engine: Engine) -> None:
    key = accept(engine)
    assert due(engine) == NOW + DAY
    engine.now = NOW + DAY - 1
    assert engine.take(key) == []
    assert engine.do(engine.spool.count_due("default", 9)) == 0
    engine.now = NOW + DAY
    assert engine.take() == [key]


def test_it_holds_back_no_other_mail(engine: Engine) -> None:
    waiting = [accept(engine, large=number % 2 == 1) for number in range(4)]
    other = accept(engine, None)
    assert due(engine) == NOW
    assert engine.take(*waiting) == [other]


def test_a_restart_keeps_it_and_a_daemon_that_was_down_at_its_time_sends_it(engine: Engine) -> None:
    key = accept(engine)
    engine.restart()
    engine.do(engine.spool.recover())
    engine.do(engine.spool.cap_waits(LONGEST))
    assert due(engine) == NOW + DAY
    engine.stop()
    engine.now = NOW + 2 * DAY
    engine.start()
    engine.do(engine.spool.cap_waits(LONGEST))
    assert engine.take() == [key]


def test_a_change_of_the_network_and_retry_all_do_not_send_it_early(engine: Engine) -> None:
    accept(engine)
    engine.do(engine.spool.retry_lost("default"))
    with engine.commands.changing() as change:
        assert change.retry_all() == 0
    assert due(engine) == NOW + DAY
    assert engine.take() == []


def test_retry_sends_it_now_and_its_age_counts_from_now(engine: Engine) -> None:
    key = accept(engine)
    engine.now = NOW + 2 * AFTER
    retry(engine, key)
    assert told(engine) == []
    assert engine.take() == [key]
    assert engine.taken[key].waits_since == NOW + 2 * AFTER
    assert engine.one(key).send_time == NOW + 2 * AFTER


def test_it_can_be_cancelled(engine: Engine) -> None:
    key = accept(engine)
    act(engine, key, Act.CANCEL)
    assert engine.states(key) == ["cancelled"]
    engine.now = NOW + 2 * DAY
    assert engine.take() == []
    assert due(engine) is None
    with pytest.raises(NotAllowed):
        retry(engine, key)


def test_held_and_released_it_waits_for_its_time_again(engine: Engine) -> None:
    key = accept(engine)
    act(engine, key, Act.HOLD)
    assert due(engine) is None
    assert engine.one(key).queue_name == "hold"
    act(engine, key, Act.RELEASE)
    assert due(engine) == NOW + DAY
    act(engine, key, Act.HOLD)
    engine.now = NOW + 2 * DAY
    act(engine, key, Act.RELEASE)
    assert due(engine) == NOW + 2 * DAY


def test_an_edited_message_keeps_the_time(engine: Engine) -> None:
    key = accept(engine, by_clock=True)
    with engine.commands.changing() as change:
        old, content = change.replaceable(change.one(key).queue_id, Act.EDIT)
        new = change.replace(old, Act.EDIT, old.envelope, content, "default")
    assert engine.states(key) == ["cancelled"]
    assert due(engine) == NOW + DAY
    (listed,) = engine.live()
    assert (listed.queue_id, listed.send_time) == (new, NOW + DAY)


def test_a_message_sent_again_after_its_time_goes_at_once_and_is_young(engine: Engine) -> None:
    key = accept(engine)
    engine.now = NOW + 2 * DAY
    act(engine, key, Act.HOLD)
    with engine.commands.changing() as change:
        old, content = change.replaceable(change.one(key).queue_id, Act.RESEND)
        change.replace(old, Act.RESEND, old.envelope, content, "default")
    (new,) = engine.take()
    assert engine.taken[new].waits_since == NOW + 2 * DAY


def test_a_held_message_of_a_program_waits_for_its_time_after_its_release(engine: Engine) -> None:
    envelope = Envelope(
        b"me@example.org", (Recipient(b"b@example.net"),), send_time=SendTime(NOW + DAY, by_clock=False)
    )
    handed_in = HandedIn(envelope, b"Subject: x\r\n\r\nx\r\n", bad_sender(b"?", b"me@example.org"))
    key, _ = engine.commands.hand_in(handed_in, "default", lambda *_: BACKENDS)
    assert due(engine) is None
    act(engine, key, Act.RELEASE)
    assert due(engine) == NOW + DAY


class TestItIsNotLate:
    def test_before_its_time(self, engine: Engine) -> None:
        accept(engine)
        engine.do(engine.spool.relayhost_failed("default", AWAY, NOW + 5, False, BACKENDS))
        engine.now = NOW + DAY - 1
        assert told(engine) == []
        status = engine.status()
        assert (status.pending, status.scheduled, status.late, status.oldest) == (1, 1, 0, None)

    def test_nor_is_it_the_oldest(self, engine: Engine) -> None:
        accept(engine)
        engine.now = NOW + 10
        accept(engine, None)
        assert engine.status().oldest == NOW + 10

    def test_until_it_has_waited_after_its_time(self, engine: Engine) -> None:
        accept(engine)
        engine.do(engine.spool.relayhost_failed("default", AWAY, NOW + 5, False, BACKENDS))
        assert engine.do(engine.spool.update_delays(AFTER, BACKENDS)) == NOW + DAY + AFTER
        engine.now = NOW + DAY + AFTER - 1
        assert told(engine) == []
        engine.now = NOW + DAY + AFTER
        assert told(engine) == [Kind.DELAYED]
        (pending,) = engine.pending()
        assert pending.notice.since == NOW + DAY
        assert engine.status().oldest == NOW + DAY
        with engine.commands.reading():
            db = connect(engine.directory)
            assert listing.status(db, engine.now - AFTER + 1, engine.now).late == 1
            assert listing.status(db, engine.now - AFTER, engine.now).late == 0
            db.close()

    def test_it_is_no_reason_to_repeat_the_notice_of_a_setup_fault(self, engine: Engine) -> None:
        accept(engine)
        engine.do(engine.spool.relayhost_failed("default", NO_KEY, NOW + 5, True, BACKENDS))
        assert told(engine) == [Kind.SETUP]
        for one in engine.pending():
            engine.do(engine.spool.notice_delivered(one))
        engine.now = NOW + DAY - 1
        assert told(engine) == []
        engine.now = NOW + DAY
        assert told(engine) == [Kind.SETUP]
        (pending,) = engine.pending()
        assert (pending.notice.waiting, pending.notice.since) == (1, NOW + DAY)

    def test_it_expires_only_after_its_time(self, engine: Engine) -> None:
        accept(engine, 10 * DAY)
        policy = RetryPolicy((60.0,), 5 * DAY, lambda *_: BACKENDS)
        engine.now = NOW + 10 * DAY
        (key,) = engine.take()
        for age, state in ((5 * DAY, State.DEFERRED), (5 * DAY + 1, State.EXPIRED)):
            record = conclude(
                engine.taken[key], [BUSY], policy, client_told=False, relays_dsn=False, now=engine.now + age, chance=0.5
            )
            assert [one.state for one in record.settled] == [state]


def test_the_timeline_says_when_the_first_attempt_is_planned(engine: Engine) -> None:
    key = accept(engine)
    with engine.commands.reading() as view:
        assert [(event.what, event.at, event.planned) for event in view.events(key)] == [
            ("accepted", NOW, False),
            ("first attempt", NOW + DAY, True),
        ]
    engine.now = NOW + DAY
    engine.take()
    engine.do(engine.spool.record(ending(key, engine.taken[key].recipient_ids, {State.SENT: TAKEN}, now=engine.now)))
    with engine.commands.reading() as view:
        assert not any(event.planned for event in view.events(key))


def test_a_repair_of_the_spool_does_not_send_it_early(engine: Engine) -> None:
    key = accept(engine)
    engine.stop()
    db = connect(engine.directory)
    db.execute("UPDATE message SET next_attempt = NULL WHERE id = ?", (key,))
    with transaction(db):
        inspection.repair(db, lambda *_: BACKENDS, NOW)
    db.close()
    engine.start()
    assert due(engine) == NOW + DAY


def restart(engine: Engine, by: float) -> None:
    """The clock was set while no daemon ran."""
    engine.stop()
    engine.now += by
    engine.start()
    engine.do(engine.spool.cap_waits(LONGEST))


def report(engine: Engine, by: float) -> None:
    """The clock was set while the daemon ran, and the kernel has said so."""
    engine.now += by
    engine.do(engine.spool.clock_jumped(by, NOW - 1))
    engine.do(engine.spool.cap_waits(LONGEST))


def look(engine: Engine, by: float) -> None:
    """The clock was set while the daemon ran, and nobody has said so."""
    engine.do(engine.spool.cap_waits(LONGEST))
    due(engine)
    engine.now += by
    due(engine)


STEPS = (60.0, HOUR, 3 * DAY, 10 * YEAR)
SETTERS: tuple[Callable[[Engine, float], None], ...] = (restart, report, look)


class TestTheClockIsSet:
    @pytest.mark.parametrize("by", [*STEPS, *(-step for step in STEPS)])
    def test_a_length_of_time_stays_if_the_daemon_hears_of_it(self, engine: Engine, by: float) -> None:
        accept(engine)
        engine.now += 2 * HOUR
        report(engine, by)
        assert due(engine) == NOW + DAY + by
        assert engine.one(1).send_time == NOW + DAY + by
        assert told(engine) == []

    @pytest.mark.parametrize("setter", SETTERS)
    @pytest.mark.parametrize("by", STEPS)
    def test_back_a_length_of_time_is_not_exceeded(
        self, engine: Engine, setter: Callable[[Engine, float], None], by: float
    ) -> None:
        accept(engine)
        setter(engine, -by)
        at = due(engine)
        assert at is not None
        assert NOW - by < at <= engine.now + DAY
        assert told(engine) == []

    @pytest.mark.parametrize("setter", SETTERS)
    @pytest.mark.parametrize("by", [60.0, HOUR, -60.0, -HOUR, -DAY])
    def test_a_time_of_the_clock_stays(
        self, engine: Engine, setter: Callable[[Engine, float], None], by: float
    ) -> None:
        accept(engine, by_clock=True)
        setter(engine, by)
        assert due(engine) == NOW + DAY
        assert engine.take() == []

    @pytest.mark.parametrize("setter", SETTERS)
    @pytest.mark.parametrize("by", [2 * DAY, 10 * YEAR])
    def test_a_time_of_the_clock_that_the_step_passes_over_is_due_now(
        self, engine: Engine, setter: Callable[[Engine, float], None], by: float
    ) -> None:
        key = accept(engine, by_clock=True)
        setter(engine, by)
        if setter is report:
            assert told(engine) == [], "it has waited for none of the step"
        assert engine.take() == [key]

    @pytest.mark.parametrize("setter", SETTERS)
    @pytest.mark.parametrize("by", [3 * DAY, 10 * YEAR])
    def test_a_time_of_a_clock_that_was_days_ahead_does_not_keep_mail_for_days(
        self, engine: Engine, setter: Callable[[Engine, float], None], by: float
    ) -> None:
        accept(engine, by_clock=True)
        setter(engine, -by)
        at = due(engine)
        assert at is not None
        assert at <= engine.now + DAY

    def test_what_is_due_or_was_tried_keeps_its_age(self, engine: Engine) -> None:
        first = accept(engine, 60.0, by_clock=True)
        engine.now = NOW + 120
        (key,) = engine.take()
        assert key == first
        end = ending(
            key, engine.taken[key].recipient_ids, {State.DEFERRED: BUSY}, now=engine.now, next_attempt=NOW + 400
        )
        engine.do(engine.spool.record(end))
        accept(engine, 60.0, by_clock=True)
        engine.now = NOW + 200
        report(engine, YEAR)
        assert [engine.one(one).send_time for one in (first, 2)] == [NOW + 60 + YEAR, NOW + 180 + YEAR]
        assert [engine.one(one).next_attempt for one in (first, 2)] == [NOW + 400 + YEAR, NOW + 180 + YEAR]
        assert told(engine) == []

    def test_a_time_that_nobody_can_have_given_is_due_now(self, engine: Engine) -> None:
        key = accept(engine, by_clock=True)
        engine.stop()
        db = connect(engine.directory)
        db.execute("UPDATE message SET send_time = ?1, next_attempt = ?1", (NOW + MAX_WAIT + 60,))
        db.close()
        engine.start()
        engine.do(engine.spool.cap_waits(LONGEST))
        assert engine.take() == [key]

    def test_one_that_is_tried_before_its_time_has_none(self, engine: Engine) -> None:
        key = accept(engine)
        engine.stop()
        db = connect(engine.directory)
        db.execute("UPDATE message SET send_time = ?1", (float("inf"),))
        db.close()
        engine.start()
        engine.do(engine.spool.cap_waits(LONGEST))
        assert engine.one(key).send_time is None
