"""The promises of every engine behind the ports: what comes in, what is due, outcomes, notices, actions of the person."""

import dataclasses

import pytest
from harness.messages import BUSY, NO_SUCH_USER, NOW, TAKEN, ending, letter, new_queue_id
from harness.spool_engine import Engine

from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.lifecycle import Act, State
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.record import NewNotice, Place, Record, Settled, arrive
from mailrelay.mail.spool_errors import NoSuchMessage, NotAllowed, SpoolFull
from mailrelay.ports import LARGE, RelayhostFailure
from mailrelay.spool.actions import KEEP_REFUSED
from mailrelay.spool.attempts import EXTRA_SIZE
from mailrelay.spool.database import PIECE

UNREACHABLE = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="no network")
NO_KEY = Outcome(Stage.AUTH, cause=Cause.AUTH_REFUSED, text="the key was refused", fix="install the key")


def accept(engine: Engine, *recipients: bytes, **how: object) -> int:
    return engine.do(engine.spool.accept(letter(*recipients, **how)))  # type: ignore[arg-type]


def take(engine: Engine, *first: int, limit: int = 100, now: float = NOW, more: int = 0) -> list[int]:
    engine.now = now
    return engine.take(*first, limit=limit, more=more)


def record_of(engine: Engine, key: int, states: dict[State, Outcome], **how: object) -> Record:
    return ending(key, engine.taken[key].recipient_ids, states, **how)  # type: ignore[arg-type]


def end(engine: Engine, key: int, states: dict[State, Outcome], **how: object) -> None:
    assert engine.do(engine.spool.record(record_of(engine, key, states, **how)))


def act(engine: Engine, key: int, what: Act) -> int:
    with engine.commands.changing() as change:
        return change.act(key, engine.one(key).queue_id, what)


def shut(
    engine: Engine, outcome: Outcome, next_dial: float, *, setup: bool = False, backends: tuple[Backend, ...] = ()
) -> None:
    engine.do(engine.spool.relayhost_failed("default", outcome, next_dial, setup, backends))


def failure(engine: Engine) -> RelayhostFailure | None:
    return engine.do(engine.spool.relayhost_failure("default"))


def next_due(engine: Engine, relayhost: str = "default") -> float | None:
    return engine.do(engine.spool.next_due(relayhost))


async def pieces(engine: Engine, key: int) -> list[bytes]:
    return [piece async for piece in engine.spool.pieces(key)]


# A message comes in.


def test_what_was_accepted_is_taken_out_octet_for_octet(engine: Engine) -> None:
    envelope = Envelope(
        b'"a b"@example.org',
        (Recipient(b"b@example.net", b"SUCCESS,FAILURE", b"rfc822;b@example.net"), Recipient(b"c@example.net")),
        b"8BITMIME",
        smtputf8=True,
        ret=b"HDRS",
        envid=b"x+2By",
    )
    content = bytes(range(256)) * 5000
    arrival = arrive(envelope, content, queue_id=new_queue_id(), token="", relayhost="default", now=NOW)
    key = engine.do(engine.spool.accept(arrival))
    assert engine.take() == [key]
    message = engine.taken[key]
    assert message.envelope == envelope
    assert message.size == len(arrival.content) > 4 * PIECE
    found = engine.do(pieces(engine, key))
    assert b"".join(found) == arrival.content
    assert max(map(len, found)) <= PIECE


def test_a_message_is_there_after_a_restart(engine: Engine) -> None:
    key = accept(engine)
    before = engine.content(key)
    engine.restart()
    assert take(engine) == [key]
    assert engine.content(key) == before


def of_size(engine: Engine, size: int) -> int:
    return accept(engine, content=b"x" * size)


def test_beyond_the_limit_only_what_is_small_is_taken(engine: Engine) -> None:
    small = [of_size(engine, 100) for _ in range(4)]
    large = [of_size(engine, LARGE) for _ in range(2)]
    assert take(engine, limit=2, more=9) == small
    assert take(engine, limit=1, more=9) == large[:1], "beside what is large nothing is taken"
    assert take(engine, limit=9, more=9) == large[1:]


def test_nothing_is_taken_beside_a_large_message_that_goes_ahead(engine: Engine) -> None:
    small = [of_size(engine, 100) for _ in range(3)]
    large = of_size(engine, LARGE)
    assert take(engine, large, limit=1, more=9) == [large]
    assert take(engine, limit=1, more=1) == small[:2]


def test_what_is_taken_beyond_the_limit_is_a_moments_sending(engine: Engine) -> None:
    some = [of_size(engine, EXTRA_SIZE // 2 - 1000) for _ in range(9)]
    assert take(engine, limit=1, more=9) == some[:3]
    assert take(engine, limit=2, more=9) == some[3:9]


def test_a_spool_at_its_limit_takes_nothing_and_keeps_what_it_has(engine: Engine) -> None:
    key = accept(engine)
    engine.restart(max_size=100_000)
    with pytest.raises(SpoolFull, match="max_size"):
        accept(engine, content=b"x" * 100_000)
    assert [message.id for message in engine.live()] == [key]
    with engine.commands.reading() as view, pytest.raises(SpoolFull, match="max_size"):
        view.check_space(100_000)


# What is due.


def test_new_mail_goes_ahead_of_mail_that_was_tried_and_small_ahead_of_large(engine: Engine) -> None:
    tried = accept(engine, at=NOW - 100)
    assert take(engine, now=NOW - 100) == [tried]
    end(engine, tried, {State.DEFERRED: BUSY}, next_attempt=NOW - 50)
    large = accept(engine, at=NOW - 20, content=b"x" * 70_000)
    small = accept(engine, at=NOW - 10)
    assert take(engine) == [small, large, tried]


def test_mail_that_has_just_come_in_goes_first(engine: Engine) -> None:
    waiting = [accept(engine, at=NOW - 100 + number) for number in range(20)]
    last = accept(engine)
    assert take(engine, last, limit=3) == [last, *waiting[:2]]


def test_a_message_is_taken_once(engine: Engine) -> None:
    key = accept(engine)
    assert engine.do(engine.spool.count_due("default", 10)) == 1
    assert take(engine) == [key]
    assert take(engine, key) == []
    assert next_due(engine) is None
    assert engine.do(engine.spool.count_due("default", 10)) == 0


def test_what_is_due_is_counted_up_to_a_limit(engine: Engine) -> None:
    for number in range(5):
        accept(engine, at=NOW + number)
    engine.now = NOW + 2
    assert engine.do(engine.spool.count_due("default", 10)) == 3
    assert engine.do(engine.spool.count_due("default", 2)) == 2


def test_mail_of_another_relayhost_is_not_taken(engine: Engine) -> None:
    key = accept(engine, relayhost="other")
    assert take(engine, key) == []
    assert next_due(engine) is None
    assert next_due(engine, "other") == NOW


def test_what_is_put_back_is_due_and_nothing_is_counted(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    engine.now = NOW + 1
    assert engine.do(engine.spool.put_back([key])) == []
    assert next_due(engine) == NOW + 1
    assert (engine.one(key).attempts, engine.states(key)) == (0, ["queued"])


def test_what_is_stopped_is_cancelled_and_nothing_is_counted(engine: Engine) -> None:
    key = accept(engine)
    assert not engine.do(engine.spool.cancel_stopped(key)), "it is not being sent"
    take(engine)
    assert engine.do(engine.spool.cancel_stopped(key))
    assert (engine.states(key), next_due(engine), engine.one(key).attempts) == (["cancelled"], None, 0)
    assert engine.one(key).queue_name == "cancelled"
    assert not engine.do(engine.spool.cancel_stopped(key))


def test_mail_that_waits_only_because_a_connection_was_lost_is_due_when_that_is_asked_for(engine: Engine) -> None:
    lost, busy = accept(engine), accept(engine, at=NOW + 1)
    take(engine, now=NOW + 1)
    gone = Outcome(Stage.CONTENT, cause=Cause.LOST, text="the connection was lost")
    end(engine, lost, {State.DEFERRED: gone}, next_attempt=NOW + 3600)
    end(engine, busy, {State.DEFERRED: BUSY}, next_attempt=NOW + 3600)
    engine.do(engine.spool.retry_lost("other"))
    assert take(engine, now=NOW + 60) == []
    engine.do(engine.spool.retry_lost("default"))
    assert take(engine, now=NOW + 60) == [lost], "what the mail server has deferred waits on"


# Whose attempt it is.


def test_an_attempt_of_another_node_is_neither_recorded_nor_put_back(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    other = engine.another()
    try:
        assert engine.do(other.put_back([key])) == [key]
        assert not engine.do(other.cancel_stopped(key))
        assert not engine.do(
            other.record(record_of(engine, key, {State.BOUNCED: NO_SUCH_USER}, backends=tuple(Backend)))
        )
        assert (engine.states(key), engine.pending(), engine.one(key).attempts) == (["active"], [], 0)
    finally:
        other.close()
    end(engine, key, {State.SENT: TAKEN})
    assert engine.states(key) == ["sent"]


def test_of_several_messages_those_are_put_back_whose_attempts_are_our_own(engine: Engine) -> None:
    ours, theirs, untried = accept(engine), accept(engine, at=NOW + 1), accept(engine, at=NOW + 2)
    assert take(engine) == [ours]
    other = engine.another()
    try:
        engine.now = NOW + 1
        assert [message.id for message in engine.do(other.take("default", (), 9))] == [theirs]
        assert engine.do(engine.spool.put_back([ours, theirs, untried])) == [theirs, untried]
    finally:
        other.close()
    assert [engine.states(key) for key in (ours, theirs, untried)] == [["queued"], ["active"], ["queued"]]
    assert engine.one(untried).next_attempt == NOW + 2


@pytest.mark.parametrize("again", [False, True])
def test_a_recorded_attempt_is_not_recorded_again_though_another_one_is_open_elsewhere(
    engine: Engine, again: bool
) -> None:
    """A record that comes late, of an attempt that somebody else has closed."""
    key = accept(engine)
    take(engine)
    late = record_of(engine, key, {State.SENT: TAKEN})
    end(engine, key, {State.DEFERRED: BUSY}, next_attempt=NOW + 60)
    other = engine.another()
    try:
        if again:
            engine.now = NOW + 60
            assert engine.do(other.take("default", (), 1))
        before = engine.one(key)
        assert not engine.do(engine.spool.record(late))
        assert engine.do(engine.spool.put_back([key])) == [key]
        assert engine.one(key) == before
    finally:
        other.close()


def test_an_attempt_that_was_closed_as_interrupted_can_not_be_recorded_by_its_node_any_more(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    other = engine.another()
    try:
        assert engine.do(other.recover()) == 1
    finally:
        other.close()
    assert not engine.do(engine.spool.record(record_of(engine, key, {State.SENT: TAKEN})))
    assert engine.states(key) == ["deferred"]


def test_recovery_leaves_the_attempts_of_its_own_node_open(engine: Engine) -> None:
    crashed, ours = accept(engine), accept(engine, at=NOW + 1)
    take(engine)
    engine.restart()
    engine.now = NOW + 1
    assert engine.take() == [ours]
    assert engine.do(engine.spool.recover()) == 1
    assert [engine.states(key) for key in (crashed, ours)] == [["deferred"], ["active"]]
    assert engine.do(engine.spool.recover()) == 0


def test_a_restarted_daemon_is_another_node(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    engine.restart()
    assert engine.do(engine.spool.put_back([key])) == [key]


# What came of it.


def test_a_mixed_transaction_leaves_each_recipient_in_its_own_state(engine: Engine) -> None:
    key = accept(engine, b"b@example.net", b"c@example.net", b"d@example.net")
    take(engine)
    end(
        engine,
        key,
        {State.SENT: TAKEN, State.BOUNCED: NO_SUCH_USER, State.DEFERRED: BUSY},
        next_attempt=NOW + 60,
    )
    assert engine.states(key) == ["sent", "bounced", "deferred"]
    assert take(engine, now=NOW + 60) == [key]
    assert [to.address for to in engine.taken[key].envelope.recipients] == [b"d@example.net"]


def test_a_sent_message_keeps_its_story_and_not_its_content(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    end(engine, key, {State.SENT: TAKEN})
    assert engine.live() == []
    assert [message.queue_name for message in engine.everything()] == ["sent"]
    assert engine.content(key) == b""
    with engine.commands.reading() as view:
        assert [event.what for event in view.events(key)] == ["accepted", "attempt", "sent"]


def test_the_story_tells_of_the_dial_and_of_the_stage_at_which_the_remote_spoke(engine: Engine) -> None:
    key = accept(engine)
    take(engine, now=NOW + 1)
    record = record_of(engine, key, {State.DEFERRED: BUSY}, now=NOW + 2, next_attempt=NOW + 60)
    assert engine.do(engine.spool.record(dataclasses.replace(record, dialled=0.5)))
    with engine.commands.reading() as view:
        told = [(event.at - NOW, event.what, event.stage) for event in view.events(key)]
    assert told == [(0, "accepted", ""), (0.5, "dialled, in 0.50 s", ""), (1, "attempt", ""), (2, "deferred", "RCPT")]


def test_the_story_has_attempts_in_their_order_and_recipients_and_backends_in_theirs(engine: Engine) -> None:
    key = accept(engine, b"b@example.net", b"c@example.net")
    take(engine)
    end(engine, key, {State.DEFERRED: BUSY, State.HELD: BUSY}, next_attempt=NOW)
    with engine.commands.changing() as change:
        change.act(key, engine.one(key).queue_id, Act.HOLD)
        change.act(key, engine.one(key).queue_id, Act.RELEASE)
    take(engine)
    both = {State.BOUNCED: NO_SUCH_USER, State.SENT: TAKEN}
    end(engine, key, both, backends=(Backend.DESKTOP, Backend.MAILBOX))
    for pending in reversed(engine.pending()):
        engine.do(engine.spool.notice_delivered(pending))
    with engine.commands.reading() as view:
        told = [(event.what, event.address) for event in view.events(key)]
    assert told == [
        ("accepted", b""),
        ("attempt", b""),
        ("deferred", b"b@example.net"),
        ("held", b"c@example.net"),
        ("attempt", b""),
        ("bounced", b"b@example.net"),
        ("sent", b"c@example.net"),
        ("notice (failed) delivered by desktop", b""),
        ("notice (failed) delivered by mailbox", b""),
    ]


def test_where_the_clock_was_put_back_no_event_of_the_story_stands_before_its_cause(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    end(engine, key, {State.DEFERRED: BUSY}, now=NOW + 5, next_attempt=NOW - 60)
    take(engine, now=NOW - 60)
    bounced = record_of(engine, key, {State.BOUNCED: NO_SUCH_USER}, now=NOW - 50, backends=(Backend.DESKTOP,))
    assert engine.do(engine.spool.record(dataclasses.replace(bounced, dialled=0.5)))
    engine.now = NOW - 40
    engine.do(engine.spool.notice_delivered(engine.pending()[0]))
    with engine.commands.reading() as view:
        told = [(event.what, event.at - NOW) for event in view.events(key)]
    assert told == [
        ("accepted", 0),
        ("attempt", 0),
        ("deferred", 5),
        ("dialled, in 0.50 s", -60),
        ("attempt", -60),
        ("bounced", -50),
        ("notice (failed) delivered by desktop", -40),
    ]


def test_a_failed_message_is_kept_whole(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    end(engine, key, {State.BOUNCED: NO_SUCH_USER})
    assert b"hello" in engine.content(key)
    (listed,) = engine.live()
    assert (listed.queue_name, listed.recipients[0].description) == ("failed", b"550 5.1.1 no such user")


def test_a_message_with_a_bounced_and_an_expired_recipient_counts_as_one_that_failed(engine: Engine) -> None:
    key = accept(engine, b"bob@example.net", b"ann@example.net")
    take(engine)
    end(engine, key, {State.BOUNCED: NO_SUCH_USER, State.EXPIRED: BUSY})
    with engine.commands.reading() as view:
        assert view.status().failed == 1


def test_a_refused_message_is_history_but_can_still_be_read(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    end(engine, key, {State.REFUSED: NO_SUCH_USER})
    assert engine.live() == []
    assert b"hello" in engine.content(key)
    engine.now = NOW + KEEP_REFUSED + 1
    engine.do(engine.spool.purge(365 * 86_400.0))
    assert engine.content(key) == b""


def test_an_interrupted_attempt_may_have_arrived_and_is_tried_again(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    engine.restart()
    engine.now = NOW + 5
    assert engine.do(engine.spool.recover()) == 1
    (listed,) = engine.live()
    assert (listed.recipients[0].state, listed.recipients[0].uncertain) == ("deferred", NOW + 5)
    assert take(engine, now=NOW + 5) == [key]


def test_a_command_closes_what_a_crash_left_open_if_no_daemon_runs(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    with engine.commands.changing():
        pass
    assert engine.states(key) == ["active"], "its daemon runs"
    engine.stop()
    with engine.commands.changing() as change:
        assert change.one(key).recipients[0].uncertain == NOW
        assert change.act(key, change.one(key).queue_id, Act.HOLD) == 1
    assert engine.states(key) == ["held"]


def test_mail_for_a_relayhost_that_is_gone_is_moved_where_its_reverse_path_belongs(engine: Engine) -> None:
    key = accept(engine, relayhost="gone")
    engine.do(engine.spool.relayhost_failed("gone", UNREACHABLE, NOW + 60, False, ()))
    assert engine.do(engine.spool.reroute({"default"}, lambda _sender: None)) == (0, 1)
    assert engine.do(engine.spool.reroute({"default"}, {b"a@example.org": "default"}.get)) == (1, 0)
    assert take(engine) == [key]
    assert engine.do(engine.spool.relayhost_failure("gone")) is None


# The state of a relayhost.


def test_failures_of_a_relayhost_are_counted_until_it_is_up_again(engine: Engine) -> None:
    for number in range(3):
        shut(engine, UNREACHABLE, NOW + 60 * number)
    assert failure(engine) == RelayhostFailure(3, NOW + 120, Cause.UNREACHABLE, "no network")
    engine.restart()
    assert failure(engine) == RelayhostFailure(3, NOW + 120, Cause.UNREACHABLE, "no network")
    assert not engine.do(engine.spool.relayhost_up("default", ()))
    assert failure(engine) is None


def test_one_cause_is_one_notice_however_often_it_is_met(engine: Engine) -> None:
    backends = (Backend.MAILBOX, Backend.COMMAND)
    shut(engine, NO_KEY, NOW + 60, setup=True, backends=backends)
    first = engine.pending()
    shut(engine, NO_KEY, NOW + 120, setup=True, backends=backends)
    assert engine.pending() == first
    assert [(one.backend, one.notice.kind, one.notice.fix) for one in first] == [
        (Backend.COMMAND, Kind.SETUP, "install the key"),
        (Backend.MAILBOX, Kind.SETUP, "install the key"),
    ]


def test_a_fault_that_is_over_is_no_longer_owed_and_told_anew_when_it_comes_back(engine: Engine) -> None:
    shut(engine, NO_KEY, NOW + 60, setup=True, backends=(Backend.MAILBOX,))
    engine.do(engine.spool.relayhost_up("default", ()))
    assert engine.pending() == []
    shut(engine, NO_KEY, NOW + 60, setup=True, backends=(Backend.MAILBOX,))
    assert len(engine.pending()) == 1


# Pending notices.


def test_a_notice_is_pending_from_the_commit_of_its_failure_until_its_backend_has_delivered_it(engine: Engine) -> None:
    key = accept(engine, b"b@example.net", b"c@example.net")
    take(engine)
    end(engine, key, {State.SENT: TAKEN, State.BOUNCED: NO_SUCH_USER}, backends=(Backend.DESKTOP, Backend.MAILBOX))
    desktop, mailbox = engine.pending()
    assert (desktop.backend, mailbox.backend) == (Backend.DESKTOP, Backend.MAILBOX)
    assert [(one.address, one.description, one.remote) for one in desktop.notice.concerned] == [
        (b"c@example.net", b"550 5.1.1 no such user", True)
    ]
    engine.do(engine.spool.notice_delivered(mailbox))
    engine.do(engine.spool.notice_failed(desktop, NOW + 60, "no session"))
    assert engine.pending() == []
    assert engine.do(engine.spool.next_notice_due()) == NOW + 60
    engine.now = NOW + 60
    (again,) = engine.pending()
    assert (again.backend, again.tries) == (Backend.DESKTOP, 1)
    assert engine.status().failing_notices == (("failed", "desktop", "no session"),)


def test_the_notifier_is_woken_for_the_backend_that_is_due_first(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    end(engine, key, {State.BOUNCED: NO_SUCH_USER}, backends=(Backend.DESKTOP, Backend.MAILBOX))
    desktop, mailbox = engine.pending()
    for pending, wait in ((desktop, 60), (mailbox, 90)):
        engine.do(engine.spool.notice_failed(pending, NOW + wait, "no session"))
    assert engine.do(engine.spool.next_notice_due()) == NOW + 60


def test_each_of_two_rounds_has_one_notice_for_all_of_its_recipients(engine: Engine) -> None:
    messages = [accept(engine, b"b@example.net", b"c@example.net") for _ in range(2)]
    for index, place in enumerate((Place.GOES_ON, Place.LAST)):
        take(engine)
        for key in messages:
            to = engine.taken[key].recipient_ids[0]
            settled = (Settled(to, State.BOUNCED, NO_SUCH_USER, uncertain=False),)
            notice = NewNotice(Kind.FAILED, (to,), (Backend.DESKTOP,))
            next_attempt = None if index else NOW
            assert engine.do(engine.spool.record(Record(key, NOW, settled, next_attempt, (notice,), place=place)))
    assert [len(pending.notice.concerned) for pending in engine.pending()] == [2, 2]


def test_a_notice_that_is_dropped_for_one_backend_stays_pending_for_the_others_and_is_no_longer_failing(
    engine: Engine,
) -> None:
    key = accept(engine)
    take(engine)
    end(engine, key, {State.BOUNCED: NO_SUCH_USER}, backends=(Backend.DESKTOP, Backend.MAILBOX))
    desktop, mailbox = engine.pending()
    engine.do(engine.spool.notice_failed(desktop, NOW + 60, "no session"))
    assert engine.status().failing_notices != ()
    engine.do(engine.spool.notice_dropped(desktop))
    assert engine.status().failing_notices == ()
    engine.now = NOW + 60
    assert engine.pending() == [mailbox]


def test_a_pending_notice_is_there_after_a_restart(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    end(engine, key, {State.BOUNCED: NO_SUCH_USER}, backends=(Backend.DESKTOP,))
    before = engine.pending()
    engine.restart()
    assert engine.pending() == before != []


def test_a_report_and_the_word_that_it_is_told_are_one_commit(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    end(engine, key, {State.BOUNCED: NO_SUCH_USER}, backends=(Backend.DSN,))
    (pending,) = engine.pending()
    report = Envelope(b"", (Recipient(b"a@example.org"),))
    engine.restart(max_size=1)
    with pytest.raises(SpoolFull):
        engine.do(engine.spool.accept_report(pending, report, b"Subject: failed\r\n\r\n"))
    assert engine.pending() == [pending]
    assert len(engine.everything()) == 1
    engine.restart()
    engine.do(engine.spool.accept_report(pending, report, b"Subject: failed\r\n\r\n"))
    assert engine.pending() == []
    assert len(engine.live()) == 2


def test_a_report_to_a_bare_sender_gets_a_whole_header_before_it_is_sent(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    end(engine, key, {State.BOUNCED: NO_SUCH_USER}, backends=(Backend.DSN,))
    (pending,) = engine.pending()
    report = Envelope(b"", (Recipient(b"root"),))
    engine.do(engine.spool.accept_report(pending, report, b"To: <root>\r\nSubject: failed\r\n\r\n"))
    (report_key,) = take(engine)
    assert engine.taken[report_key].has_bare_header


def test_the_original_is_read_no_further_than_asked(engine: Engine) -> None:
    key = accept(engine, content=b"y" * 1_000_000)
    assert engine.do(engine.spool.content_start(key, 300_000)) == engine.content(key)[:300_000]
    assert engine.do(engine.spool.content_start(key + 1, 300_000)) == b""


# What the person may do.


def test_what_a_command_enqueues_is_due(engine: Engine) -> None:
    envelope = Envelope(b"a@example.org", (Recipient(b"b@example.net"),))
    key, queue_id = engine.commands.enqueue(envelope, b"Subject: hello\r\n\r\nhello\r\n", "default")
    assert take(engine) == [key]
    assert (engine.taken[key].queue_id, engine.taken[key].envelope) == (queue_id, envelope)
    assert engine.content(key).endswith(b"hello\r\n")


def test_held_mail_is_not_due_until_it_is_released(engine: Engine) -> None:
    key = accept(engine)
    assert act(engine, key, Act.HOLD) == 1
    assert (engine.states(key), take(engine, key)) == (["held"], [])
    act(engine, key, Act.RELEASE)
    assert take(engine) == [key]


def test_cancelled_mail_is_history(engine: Engine) -> None:
    key = accept(engine)
    act(engine, key, Act.CANCEL)
    assert engine.live() == []
    assert take(engine, key) == []


def test_dropping_failed_mail_drops_what_was_still_to_be_told_of_it(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    end(engine, key, {State.BOUNCED: NO_SUCH_USER}, backends=(Backend.DESKTOP,))
    act(engine, key, Act.DROP)
    assert engine.live() == []
    assert engine.pending() == []


@pytest.mark.parametrize("what", list(Act))
def test_nothing_can_be_done_to_mail_that_is_being_sent(engine: Engine, what: Act) -> None:
    key = accept(engine)
    take(engine)
    with pytest.raises(NotAllowed, match="being sent"):
        act(engine, key, what)
    with pytest.raises(NotAllowed, match="being sent"), engine.commands.changing() as change:
        change.retry(key, change.one(key).queue_id)


@pytest.mark.parametrize("everything", [False, True])
def test_retrying_makes_mail_and_its_relayhost_due_now(engine: Engine, everything: bool) -> None:
    key = accept(engine)
    take(engine)
    end(engine, key, {State.DEFERRED: BUSY}, next_attempt=NOW + 3600)
    shut(engine, UNREACHABLE, NOW + 1800)
    with engine.commands.changing() as change:
        if everything:
            assert change.retry_all() == 1
        else:
            change.retry(key, change.one(key).queue_id)
    assert take(engine) == [key]
    known = failure(engine)
    assert known is not None
    assert known.next_dial == NOW


def test_a_relayhost_can_be_dialled_now_without_its_mail(engine: Engine) -> None:
    shut(engine, UNREACHABLE, NOW + 1800)
    with engine.commands.changing() as change:
        change.dial_now("default")
    known = failure(engine)
    assert known is not None
    assert (known.next_dial, known.failures) == (NOW, 1)


def test_failed_mail_is_not_retried(engine: Engine) -> None:
    key = accept(engine)
    take(engine)
    end(engine, key, {State.BOUNCED: NO_SUCH_USER})
    with pytest.raises(NotAllowed, match="nothing waiting"), engine.commands.changing() as change:
        change.retry(key, change.one(key).queue_id)


def test_a_change_that_raises_leaves_nothing_behind(engine: Engine) -> None:
    key = accept(engine)
    with pytest.raises(KeyError), engine.commands.changing() as change:
        change.act(key, change.one(key).queue_id, Act.CANCEL)
        raise KeyError
    assert engine.states(key) == ["queued"]


def accept_as(engine: Engine, queue_id: str) -> int:
    return engine.do(engine.spool.accept(dataclasses.replace(letter(), queue_id=queue_id)))


def test_an_id_may_be_shortened_as_long_as_it_is_one_messages_own(engine: Engine) -> None:
    key = accept_as(engine, "bcd0fgh1")
    accept_as(engine, "zzzzz00000")
    with engine.commands.reading() as view:
        assert view.find("BCD0FG") == (key, "bcd0fgh1")
        for unknown in ("aeiou", "", "bcd0fgh12", "\udcff"):
            with pytest.raises(NoSuchMessage, match="no message"):
                view.find(unknown)
    accept_as(engine, "bcd0fzzz")
    with engine.commands.reading() as view, pytest.raises(NoSuchMessage, match="more than one"):
        view.find("bcd0f")


def test_a_whole_id_names_its_message_though_an_older_and_longer_id_begins_with_it(engine: Engine) -> None:
    key, other = accept_as(engine, "bcd0fgh1"), accept_as(engine, "bcd0fgh1zz")
    with engine.commands.reading() as view:
        assert view.find("bcd0fgh1") == (key, "bcd0fgh1")
        assert view.find("bcd0fgh1zz") == (other, "bcd0fgh1zz")


def test_history_goes_after_its_time_and_failed_mail_stays(engine: Engine) -> None:
    sent, failed = accept(engine), accept(engine)
    take(engine)
    end(engine, sent, {State.SENT: TAKEN})
    end(engine, failed, {State.BOUNCED: NO_SUCH_USER})
    engine.now = NOW + 8 * 86_400
    assert engine.do(engine.spool.purge(7 * 86_400.0)) == 1
    assert [message.id for message in engine.everything()] == [failed]


def test_history_waits_for_what_can_still_be_fixed_or_is_still_to_be_told(engine: Engine) -> None:
    refused, reported = accept(engine), accept(engine)
    take(engine)
    end(engine, refused, {State.REFUSED: NO_SUCH_USER})
    record = record_of(engine, reported, {State.SENT: TAKEN})
    relayed = NewNotice(Kind.RELAYED, engine.taken[reported].recipient_ids, (Backend.DSN,))
    assert engine.do(engine.spool.record(dataclasses.replace(record, notices=(relayed,))))
    engine.now = NOW + 2
    engine.do(engine.spool.purge(1.0))
    assert [message.id for message in engine.everything()] == [refused, reported]
    (pending,) = engine.pending()
    engine.do(engine.spool.notice_delivered(pending))
    engine.now = NOW + KEEP_REFUSED + 1
    engine.do(engine.spool.purge(1.0))
    assert engine.everything() == []


def test_a_view_that_is_open_does_not_see_what_is_written_meanwhile(engine: Engine) -> None:
    key = accept(engine)
    with engine.commands.reading() as view:
        assert view.status().pending == 1
        accept(engine)
        assert [message.id for message in view.live()] == [key]


def test_where_there_is_no_spool_nothing_is_made_for_a_look(engine: Engine) -> None:
    engine.stop()
    for file in engine.directory.iterdir():
        file.unlink()
    for context in (engine.commands.reading, engine.commands.changing):
        with pytest.raises(FileNotFoundError), context():
            pass
    assert [file.name for file in engine.directory.iterdir()] == []
