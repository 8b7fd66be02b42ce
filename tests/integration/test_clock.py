"""A clock that was wrong, by any step, delays nothing and makes no message older; with the daemon running or not."""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from harness.messages import BUSY, LIMIT, NO_SUCH_USER, NOW, TAKEN, ending, letter
from harness.spool_engine import Engine
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrelay.mail.lifecycle import State
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.record import Record, Settled
from mailrelay.spool import accepting, attempts, clock, notice_lifecycle, relayhosts
from mailrelay.spool.database import connect, row, rows, transaction

LONGEST = 3960.0
HOUR, DAY, YEAR = 3600.0, 86_400.0, 365 * 86_400.0
STEPS = (60.0, 600.0, HOUR, 3 * HOUR, DAY, YEAR, 10 * YEAR)
UNREACHABLE = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="no network")
NO_KEY = Outcome(Stage.AUTH, cause=Cause.AUTH_REFUSED, text="no key", fix="ssh-add")
BACKENDS = (Backend.MAILBOX,)


def accept(engine: Engine) -> int:
    return engine.do(engine.spool.accept(letter(at=engine.now)))


def defer(engine: Engine, wait: float) -> None:
    """Ends an attempt at the message that is due: another one is due in `wait` seconds."""
    (key,) = engine.take()
    recipients = engine.taken[key].recipient_ids
    deferred = ending(key, recipients, {State.DEFERRED: BUSY}, now=engine.now, next_attempt=engine.now + wait)
    assert engine.do(engine.spool.record(deferred))


def shut(engine: Engine, outcome: Outcome = UNREACHABLE, *, wait: float = 60.0) -> None:
    setup = outcome is NO_KEY
    engine.do(engine.spool.relayhost_failed("default", outcome, engine.now + wait, setup, BACKENDS))


def next_dial(engine: Engine) -> float:
    known = engine.do(engine.spool.relayhost_failure("default"))
    assert known is not None
    return known.next_dial


def told(engine: Engine) -> list[Kind]:
    engine.do(engine.spool.update_delays(900.0, BACKENDS))
    return [one.notice.kind for one in engine.pending()]


def restart(engine: Engine) -> None:
    """What a daemon does at its start."""
    engine.restart()
    engine.do(engine.spool.cap_waits(LONGEST))


def look(engine: Engine) -> None:
    """What a daemon does that nobody has told of the step: it looks what is due."""
    engine.do(engine.spool.next_due("default"))


AFTERWARDS: Sequence[Callable[[Engine], None]] = (restart, look)


@pytest.mark.parametrize("then", AFTERWARDS)
@pytest.mark.parametrize("ahead", STEPS)
class TestAClockThatWasAheadDelaysNothing:
    @pytest.fixture(autouse=True)
    def _ahead(self, engine: Engine, ahead: float) -> None:
        engine.do(engine.spool.cap_waits(LONGEST))
        engine.now = NOW + ahead
        look(engine)

    def test_mail_that_was_never_tried(self, engine: Engine, then: Callable[[Engine], None]) -> None:
        key = accept(engine)
        engine.now = NOW
        assert engine.take() == []
        then(engine)
        assert engine.take() == [key]

    def test_mail_that_was_deferred(self, engine: Engine, then: Callable[[Engine], None]) -> None:
        key = accept(engine)
        defer(engine, 50.0)
        engine.now = NOW
        then(engine)
        assert engine.take() == [key]

    def test_mail_that_the_person_has_made_due(
        self, engine: Engine, then: Callable[[Engine], None], ahead: float
    ) -> None:
        engine.now = NOW - 100
        key = accept(engine)
        defer(engine, 1000.0)
        engine.now = NOW + ahead
        look(engine)
        with engine.commands.changing() as change:
            change.retry_all()
        engine.now = NOW
        then(engine)
        assert engine.take() == [key]

    def test_the_dial_of_a_relayhost_that_had_failed_before_too(
        self, engine: Engine, then: Callable[[Engine], None], ahead: float
    ) -> None:
        engine.now = NOW - 100
        shut(engine)
        engine.now = NOW + ahead
        look(engine)
        shut(engine)
        engine.now = NOW
        then(engine)
        assert next_dial(engine) == NOW

    def test_a_notice_that_is_tried_again(self, engine: Engine, then: Callable[[Engine], None], ahead: float) -> None:
        engine.now = NOW - 100
        shut(engine, NO_KEY)
        (pending,) = engine.pending()
        engine.now = NOW + ahead
        look(engine)
        engine.do(engine.spool.notice_failed(pending, engine.now + 60, "full"))
        engine.now = NOW
        assert not engine.pending()
        then(engine)
        assert engine.pending()

    def test_the_reminder_of_a_fault(self, engine: Engine, then: Callable[[Engine], None]) -> None:
        accept(engine)
        shut(engine, NO_KEY)
        (pending,) = engine.pending()
        engine.do(engine.spool.notice_delivered(pending))
        engine.now = NOW
        then(engine)
        engine.now = NOW + 1
        assert told(engine) == [Kind.SETUP]

    def test_the_notice_of_a_delay(self, engine: Engine, then: Callable[[Engine], None]) -> None:
        accept(engine)
        shut(engine, NO_KEY)
        engine.do(engine.spool.relayhost_up("default", ()))
        engine.now = NOW
        then(engine)
        engine.now = NOW + 901
        assert Kind.DELAYED in told(engine)


def test_what_was_over_while_the_clock_was_ahead_is_over_now(engine: Engine) -> None:
    engine.now = NOW + DAY
    shut(engine, NO_KEY)
    engine.do(engine.spool.relayhost_up("default", ()))
    engine.now = NOW
    restart(engine)
    with closing(connect(engine.directory)) as db:
        assert rows(db, "SELECT created, over FROM notice") == [(NOW, NOW)]


@pytest.mark.parametrize("wait", [60.0, HOUR])
def test_a_wait_that_a_right_clock_has_begun_goes_on(engine: Engine, wait: float) -> None:
    accept(engine)
    defer(engine, wait)
    shut(engine, NO_KEY, wait=wait)
    (pending,) = engine.pending()
    engine.do(engine.spool.notice_failed(pending, NOW + wait, "full"))
    engine.now = NOW + 1
    restart(engine)
    assert engine.do(engine.spool.next_due("default")) == NOW + wait
    assert next_dial(engine) == NOW + wait
    assert engine.do(engine.spool.next_notice_due()) == NOW + wait


def test_a_wait_that_no_schedule_has_is_over(engine: Engine) -> None:
    accept(engine)
    defer(engine, LONGEST + 1)
    restart(engine)
    assert len(engine.take()) == 1


@pytest.mark.parametrize("by", [sign * step for step in STEPS for sign in (1, -1)])
class TestAStepThatIsReportedMovesNothing:
    """`since`: when the daemon began to watch the clock."""

    def step(self, engine: Engine, by: float, *, reported_after: float = 0.0) -> None:
        engine.now += by + reported_after
        engine.do(engine.spool.clock_jumped(by, NOW - 10 * HOUR))
        engine.do(engine.spool.cap_waits(LONGEST))

    def test_mail_keeps_its_age_and_its_wait(self, engine: Engine, by: float) -> None:
        engine.now = NOW - 700
        key = accept(engine)
        defer(engine, 1000.0)
        engine.now = NOW
        self.step(engine, by)
        assert engine.one(key).arrival == engine.now - 700
        assert engine.do(engine.spool.next_due("default")) == engine.now + 300

    def test_what_is_followed_on_the_relayhost_keeps_its_age(self, engine: Engine, by: float) -> None:
        engine.now = NOW - 700
        key = accept(engine)
        assert engine.take() == [key]
        record = ending(key, engine.taken[key].recipient_ids, {State.SENT: TAKEN}, now=engine.now)
        assert engine.do(engine.spool.record(dataclasses.replace(record, is_followed=True)))
        engine.now = NOW
        self.step(engine, by)
        (one,) = engine.do(engine.spool.followed("default"))
        assert one.accepted == engine.now - 700

    def test_of_mail_from_before_the_clock_was_watched_the_clock_is_not_known(self, engine: Engine, by: float) -> None:
        engine.now = NOW - 20 * HOUR
        key = accept(engine)
        engine.now = NOW
        self.step(engine, by)
        assert engine.one(key).arrival == min(NOW - 20 * HOUR, engine.now)

    def test_what_came_in_before_the_step_was_reported_is_not_older(self, engine: Engine, by: float) -> None:
        engine.now = NOW + by
        key = accept(engine)
        engine.now = NOW
        self.step(engine, by, reported_after=2.0)
        assert engine.one(key).arrival == engine.now - 2.0

    def test_a_dial_waits_as_long_as_it_had_to(self, engine: Engine, by: float) -> None:
        shut(engine, wait=900.0)
        self.step(engine, by)
        assert next_dial(engine) == engine.now + 900.0

    def test_a_notice_waits_as_long_as_it_had_to(self, engine: Engine, by: float) -> None:
        shut(engine, NO_KEY)
        (pending,) = engine.pending()
        engine.do(engine.spool.notice_failed(pending, NOW + 60, "full"))
        self.step(engine, by)
        assert engine.do(engine.spool.next_notice_due()) == engine.now + 60

    def test_no_notice_comes_of_it(self, engine: Engine, by: float) -> None:
        engine.now = NOW - 700
        accept(engine)
        defer(engine, 1000.0)
        shut(engine, NO_KEY)
        (pending,) = engine.pending()
        engine.do(engine.spool.notice_delivered(pending))
        engine.now = NOW
        self.step(engine, by)
        assert told(engine) == []
        engine.now += HOUR - 700 - 1
        assert told(engine) == []
        engine.now += 2
        assert told(engine) == [Kind.SETUP]

    def test_no_history_is_deleted(self, engine: Engine, by: float) -> None:
        accept(engine)
        (key,) = engine.take()
        failed = ending(key, engine.taken[key].recipient_ids, {State.REFUSED: NO_SUCH_USER}, now=NOW)
        assert engine.do(engine.spool.record(failed))
        self.step(engine, by)
        assert engine.do(engine.spool.purge(DAY)) == 0
        assert engine.content(key)


class World:
    """A spool whose clock is `offset` seconds ahead of the real time."""

    def __init__(self, db: apsw.Connection) -> None:
        self.db = db
        self.real = NOW
        self.offset = 0.0
        self.started = NOW
        self.born: dict[int, float] = {}
        self.made_while_watched: set[int] = set()

    @property
    def now(self) -> float:
        return self.real + self.offset

    def accept(self) -> None:
        key = accepting.accept(self.db, letter(at=self.now), LIMIT)
        self.born[key] = self.real
        self.made_while_watched.add(key)

    def defer(self, wait: float) -> None:
        for message in attempts.take(self.db, "default", (), 100, "1", self.now):
            settled = (Settled(message.recipient_ids[0], State.DEFERRED, BUSY, uncertain=False),)
            attempts.record(self.db, Record(message.id, self.now, settled, self.now + wait, ()), "1")

    def fail(self, wait: float) -> None:
        relayhosts.relayhost_failed(self.db, "default", NO_KEY, self.now + wait, True, BACKENDS, self.now)

    def step(self, by: float, *, is_reported: bool) -> None:
        self.offset += by
        if is_reported:
            self.real += 1.0
            clock.clock_jumped(self.db, by, self.started, self.now)
            self.started += by
        else:
            self.made_while_watched.clear()
            self.started = self.now
        clock.cap_waits(self.db, LONGEST, self.now)

    def check(self) -> None:
        for key, arrival, tries, next_attempt in rows(
            self.db, "SELECT id, arrival, attempts, next_attempt FROM message"
        ):
            assert arrival <= self.now
            assert next_attempt <= (self.now + LONGEST if tries else self.now)
            if key in self.made_while_watched:
                assert self.now - arrival < self.real - self.born[key] + 0.01
        assert row(self.db, "SELECT coalesce(max(next_dial), 0) FROM relayhost")[0] <= self.now + LONGEST
        assert row(self.db, "SELECT coalesce(max(next_try), 0) FROM notice_backend")[0] <= self.now + LONGEST
        last = notice_lifecycle.REMINDERS[-1]
        assert row(self.db, "SELECT coalesce(max(reminder), 0) FROM notice")[0] <= self.now + last


OFFSETS = st.sampled_from(STEPS) | st.floats(1.0, 10 * YEAR)
EVENTS = st.one_of(
    st.tuples(st.just("pass"), st.floats(0.0, DAY)),
    st.just(("accept",)),
    st.tuples(st.just("defer"), st.floats(1.0, 3600.0)),
    st.tuples(st.just("fail"), st.floats(1.0, 3600.0)),
    st.tuples(st.just("ahead"), OFFSETS, st.booleans()),
    st.tuples(st.just("right"), st.booleans()),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=20))
def test_whatever_the_clock_does_nothing_waits_longer_than_a_schedule(events: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        db = connect(Path(directory) / "spool")
        world = World(db)
        with transaction(db):
            for event in events:
                match event:
                    case "pass", float(seconds):
                        world.real += seconds + 10.0
                    case "defer", float(wait):
                        world.defer(wait)
                    case "fail", float(wait):
                        world.fail(wait)
                    case "ahead", float(by), bool(is_reported):
                        world.real += 10.0
                        world.step(by, is_reported=is_reported)
                        world.check()
                    case "right", bool(is_reported):
                        world.real += 10.0
                        world.step(-world.offset, is_reported=is_reported)
                        world.check()
                    case _:
                        world.accept()
        db.close()
