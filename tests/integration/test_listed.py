"""What a spool shows of its messages: each value of a listing, planned events, and the counts of the status."""

import dataclasses

import pytest
from harness.messages import BUSY, NO_SUCH_USER, NOW, TAKEN, ending, letter
from harness.spool_engine import Engine

from mailrelay.mail.lifecycle import Act, State
from mailrelay.mail.notice import Backend
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.overview import Event, Listed, ListedRecipient, RelayhostFault
from mailrelay.mail.record import Record, Settled
from mailrelay.mail.send_time import SendTime

NO_NETWORK = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="no network")
NO_KEY = Outcome(Stage.AUTH, cause=Cause.AUTH_REFUSED, text="the key was refused", fix="install the key")
UNREADABLE = Outcome(Stage.CONTENT, cause=Cause.UNREADABLE, text="it is damaged")
LOST = Outcome(Stage.AFTER_DOT, cause=Cause.LOST, text="the connection was lost")


def accept(engine: Engine, *recipients: bytes, send_time: float | None = None, at: float = NOW) -> int:
    arrival = letter(*recipients, at=at)
    later = SendTime(send_time, by_clock=False) if send_time is not None else None
    envelope = dataclasses.replace(arrival.envelope, send_time=later)
    return engine.do(engine.spool.accept(dataclasses.replace(arrival, envelope=envelope)))


def end(engine: Engine, key: int, *states: State, **how: object) -> None:
    """An attempt that ends with these states."""
    assert engine.take(key, limit=1) == [key]
    by_state = {
        State.SENT: TAKEN,
        State.BOUNCED: NO_SUCH_USER,
        State.REFUSED: NO_SUCH_USER,
        State.DEFERRED: BUSY,
        State.EXPIRED: BUSY,
        State.HELD: UNREADABLE,
    }
    record = ending(key, engine.taken[key].recipient_ids, {one: by_state[one] for one in states}, **how)  # type: ignore[arg-type]
    assert engine.do(engine.spool.record(record))


def act(engine: Engine, key: int, what: Act) -> None:
    with engine.commands.changing() as change:
        change.act(key, change.one(key).queue_id, what)


def fail(engine: Engine, outcome: Outcome, next_dial: float, relayhost: str = "default", stand_in: str = "") -> None:
    engine.do(engine.spool.relayhost_failed(relayhost, outcome, next_dial, outcome is NO_KEY, ()))
    if stand_in:
        engine.do(engine.spool.note_stand_in(relayhost, stand_in))


def events(engine: Engine, key: int) -> list[Event]:
    with engine.commands.reading() as view:
        return view.events(key)


def test_each_value_of_a_message_is_listed(engine: Engine) -> None:
    arrival = letter(b"b@example.net", b"c@example.net", at=NOW - 5)
    key = engine.do(engine.spool.accept(arrival))
    queued = ListedRecipient(b"b@example.net", "queued", "", "", b"", None)
    listed = Listed(
        key,
        arrival.queue_id,
        "incoming",
        "default",
        NOW - 5,
        len(arrival.content),
        b"a@example.org",
        "a letter",
        0,
        NOW - 5,
        "",
        (queued, queued._replace(address=b"c@example.net")),
    )
    assert (engine.one(key), engine.live(), engine.everything()) == (listed, [listed], [listed])
    end(engine, key, State.SENT, State.DEFERRED, next_attempt=NOW + 60)
    deferred = ListedRecipient(b"c@example.net", "deferred", "4.2.1", "RCPT", b"451 4.2.1 busy", None)
    sent = ListedRecipient(b"b@example.net", "sent", "2.0.0", "content", b"250 2.0.0 taken", None)
    listed = listed._replace(queue_name="deferred", attempts=1, next_attempt=NOW + 60, recipients=(sent, deferred))
    assert engine.one(key) == listed


@pytest.mark.parametrize(
    ("states", "name", "is_live"),
    [
        ((), "incoming", True),
        ((State.DEFERRED,), "deferred", True),
        ((State.SENT, State.DEFERRED), "deferred", True),
        ((State.HELD, State.DEFERRED), "deferred", True),
        ((State.HELD,), "hold", True),
        ((State.HELD, State.BOUNCED), "hold", True),
        ((State.BOUNCED,), "failed", True),
        ((State.EXPIRED,), "failed", True),
        ((State.EXPIRED, State.SENT), "failed", True),
        ((State.SENT,), "sent", False),
        ((State.REFUSED,), "refused", False),
    ],
)
def test_the_queue_of_a_message_follows_from_its_recipients(
    engine: Engine, states: tuple[State, ...], name: str, is_live: bool
) -> None:
    key = accept(engine, *(b"%d@example.net" % number for number, _ in enumerate(states or (State.QUEUED,))))
    if states:
        end(engine, key, *states, next_attempt=NOW if State.DEFERRED in states else None)
    (listed,) = engine.everything()
    assert listed.queue_name == name
    assert engine.live() == ([listed] if is_live else [])
    if name in ("incoming", "deferred"):
        engine.take(key, limit=1)
        assert engine.one(key).queue_name == "active"
        assert engine.one(key).next_attempt is None
        pending = [to.state for to in engine.one(key).recipients if to.state not in states or to.state == "deferred"]
        assert set(pending) == {"active"}


def test_cancelled_mail_is_in_the_queue_cancelled(engine: Engine) -> None:
    key = accept(engine)
    act(engine, key, Act.CANCEL)
    assert engine.one(key).queue_name == "cancelled"


@pytest.mark.parametrize(
    ("next_attempt", "next_dial", "shown"),
    [(NOW + 60, NOW + 30, NOW + 60), (NOW + 60, NOW + 90, NOW + 90), (NOW + 60, NOW - 5, NOW + 60)],
)
def test_no_message_is_tried_before_its_relayhost_is_dialled(
    engine: Engine, next_attempt: float, next_dial: float, shown: float
) -> None:
    key, held = accept(engine), accept(engine)
    end(engine, key, State.DEFERRED, next_attempt=next_attempt)
    end(engine, held, State.HELD)
    fail(engine, NO_NETWORK, next_dial)
    listed = engine.one(key)
    assert (listed.next_attempt, listed.fault_text, listed.stand_in) == (shown, "no network", "")
    assert (engine.one(held).next_attempt, engine.one(held).fault_text) == (None, "no network")
    engine.take(key, limit=1)
    engine.do(engine.spool.relayhost_up("default", ()))
    assert (engine.one(key).next_attempt, engine.one(key).fault_text) == (next_attempt, "")


def test_a_fallback_that_sends_the_mail_does_not_wait_for_the_relayhost(engine: Engine) -> None:
    key = accept(engine)
    end(engine, key, State.DEFERRED, next_attempt=NOW + 60)
    fail(engine, NO_KEY, NOW + 90, stand_in="office")
    assert (engine.one(key).next_attempt, engine.one(key).stand_in) == (NOW + 60, "office")


@pytest.mark.parametrize("state", [State.DEFERRED, State.HELD])
def test_a_message_in_doubt_waits_for_its_own_relayhost(engine: Engine, state: State) -> None:
    key = accept(engine)
    engine.take(key, limit=1)
    (recipient,) = engine.taken[key].recipient_ids
    settled = (Settled(recipient, state, LOST, uncertain=True),)
    next_attempt = NOW + 60 if state is State.DEFERRED else None
    assert engine.do(engine.spool.record(Record(key, NOW + 1, settled, next_attempt, ())))
    fail(engine, NO_KEY, NOW + 90, stand_in="office")
    listed = engine.one(key)
    assert (listed.stand_in, listed.recipients[0].uncertain) == ("", NOW + 1)
    assert listed.next_attempt == (NOW + 90 if next_attempt else None)


def test_mail_in_doubt_that_was_sent_then_is_no_reason_to_wait(engine: Engine) -> None:
    key = accept(engine, b"b@example.net", b"c@example.net")
    engine.take(key, limit=1)
    first, second = engine.taken[key].recipient_ids
    settled = (Settled(first, State.EXPIRED, LOST, uncertain=True), Settled(second, State.DEFERRED, BUSY, False))
    assert engine.do(engine.spool.record(Record(key, NOW, settled, NOW + 60, ())))
    fail(engine, NO_KEY, NOW + 90, stand_in="office")
    assert (engine.one(key).next_attempt, engine.one(key).stand_in) == (NOW + 60, "office")


@pytest.mark.parametrize("send_time", [None, NOW + 600])
def test_a_first_attempt_is_planned_for_the_send_time_until_it_is_made(engine: Engine, send_time: float | None) -> None:
    key = accept(engine, send_time=send_time)
    planned = [Event(NOW + 600, "first attempt", planned=True)] if send_time else []
    assert events(engine, key) == [Event(NOW, "accepted"), *planned]
    listed = engine.one(key)
    assert listed.send_time == send_time
    assert (listed.waits_for_its_time(NOW), listed.waits_for_its_time(NOW + 600)) == (bool(send_time), False)
    engine.now = NOW + 600
    end(engine, key, State.DEFERRED, now=NOW + 601, next_attempt=NOW + 660)
    assert not any(event.planned for event in events(engine, key))
    assert [event.what for event in events(engine, key)] == ["accepted", "attempt", "deferred"]


def test_mail_that_is_held_before_its_send_time_has_no_planned_attempt(engine: Engine) -> None:
    key = accept(engine, send_time=NOW + 600)
    act(engine, key, Act.HOLD)
    assert not any(event.planned for event in events(engine, key))


def test_planned_events_come_last_and_in_the_order_of_time(engine: Engine) -> None:
    key = accept(engine)
    backends = (Backend.DESKTOP, Backend.MAILBOX, Backend.COMMAND)
    end(engine, key, State.BOUNCED, backends=backends)
    waits = {Backend.DESKTOP: 30.0, Backend.MAILBOX: 10.0}
    for pending in engine.pending():
        if pending.backend in waits:
            engine.do(engine.spool.notice_failed(pending, NOW + waits[pending.backend], f"no {pending.backend}"))
        else:
            engine.now = NOW + 2
            engine.do(engine.spool.notice_delivered(pending))
    found = events(engine, key)
    assert found[:2] == [Event(NOW, "accepted"), Event(NOW, "attempt", relayhost="default")]
    assert found[2] == Event(NOW, "bounced", b"b@example.net", "5.1.1", b"550 5.1.1 no such user", "RCPT")
    assert found[3:] == [
        Event(NOW + 2, "notice (failed) delivered by command"),
        Event(NOW + 10, "notice (failed) not delivered by mailbox, next try", description=b"no mailbox", planned=True),
        Event(NOW + 30, "notice (failed) not delivered by desktop, next try", description=b"no desktop", planned=True),
    ]


def test_a_message_that_was_cancelled_or_interrupted_says_so(engine: Engine) -> None:
    key = accept(engine, b"b@example.net", b"c@example.net")
    engine.take(key, limit=1)
    engine.restart()
    engine.now = NOW + 5
    engine.do(engine.spool.recover())
    engine.now = NOW + 9
    act(engine, key, Act.CANCEL)
    found = events(engine, key)
    assert [(event.at - NOW, event.what, event.address) for event in found] == [
        (0, "accepted", b""),
        (0, "attempt", b""),
        (5, "interrupted", b""),
        (5, "deferred", b"b@example.net"),
        (5, "deferred", b"c@example.net"),
        (9, "cancelled", b"b@example.net"),
        (9, "cancelled", b"c@example.net"),
    ]
    assert {event.description for event in found if event.what == "cancelled"} == {b""}


def test_the_status_counts_messages_by_what_they_wait_for(engine: Engine) -> None:
    status = engine.status()
    assert (status.pending, status.held, status.failed, status.oldest) == (0, 0, 0, None)
    accept(engine, at=NOW - 50)
    accept(engine, send_time=NOW + 600, at=NOW - 70)
    twice = accept(engine, b"b@example.net", b"c@example.net", at=NOW - 60)
    end(engine, twice, State.HELD, State.DEFERRED, next_attempt=NOW + 60)
    held = accept(engine)
    act(engine, held, Act.HOLD)
    for states in ((State.BOUNCED, State.SENT), (State.EXPIRED,), (State.SENT,), (State.REFUSED,)):
        end(engine, accept(engine, *(b"%d@example.net" % number for number in range(len(states)))), *states)
    status = engine.status()
    assert (status.pending, status.scheduled, status.oldest) == (3, 1, NOW - 60)
    assert (status.held, status.stranded, status.failed) == (2, 1, 2)
    assert (status.bounced_there, status.deferred_there, status.faults, status.failing_notices) == (0, 0, (), ())


def test_mail_that_the_person_has_held_again_is_not_stranded(engine: Engine) -> None:
    key = accept(engine)
    end(engine, key, State.HELD, now=NOW)
    assert engine.status().stranded == 1
    engine.now = NOW + 5
    act(engine, key, Act.RELEASE)
    assert engine.status().stranded == 0
    act(engine, key, Act.HOLD)
    assert (engine.status().stranded, engine.status().held) == (0, 1)


def test_the_faults_of_relayhosts_are_listed_by_name(engine: Engine) -> None:
    fail(engine, NO_KEY, NOW + 90, "office", stand_in="home")
    engine.now = NOW + 1
    fail(engine, NO_NETWORK, NOW + 30, "home")
    engine.now = NOW + 2
    fail(engine, NO_NETWORK, NOW + 60, "home")
    assert engine.status().faults == (
        RelayhostFault("home", NOW + 1, NOW + 60, False, "no network", ""),
        RelayhostFault("office", NOW, NOW + 90, True, "the key was refused", "install the key", "home"),
    )
    engine.do(engine.spool.relayhost_up("home", ()))
    assert [fault.relayhost for fault in engine.status().faults] == ["office"]


def test_only_notices_whose_backend_failed_are_failing_and_the_oldest_come_first(engine: Engine) -> None:
    for at in (5, 0):
        engine.now = NOW + at
        key = accept(engine, at=NOW)
        end(engine, key, State.BOUNCED, now=NOW + at, backends=(Backend.DESKTOP, Backend.MAILBOX))
    engine.now = NOW + 9
    for pending in engine.pending():
        if pending.backend is Backend.DESKTOP:
            why = f"why {pending.notice.created - NOW:.0f}"
            engine.do(engine.spool.notice_failed(pending, NOW + 60, why))
    assert engine.status().failing_notices == (("failed", "desktop", "why 0"), ("failed", "desktop", "why 5"))
    engine.now = NOW + 60
    for pending in engine.pending():
        engine.do(engine.spool.notice_delivered(pending))
    assert engine.status().failing_notices == ()


def test_the_senders_are_those_of_the_latest_messages_first(engine: Engine) -> None:
    first, second = accept(engine, at=NOW + 5), accept(engine, at=NOW)
    null = letter(at=NOW + 9)
    envelope = dataclasses.replace(null.envelope, sender=b"")
    engine.do(engine.spool.accept(dataclasses.replace(null, envelope=envelope)))
    engine.now = NOW + 10
    contents = [engine.content(key) for key in (first, second)]
    with engine.commands.reading() as view:
        assert view.senders() == [(b"a@example.org", content) for content in contents]
    end(engine, first, State.SENT)
    with engine.commands.reading() as view:
        assert view.senders() == [(b"a@example.org", b""), (b"a@example.org", contents[1])]
