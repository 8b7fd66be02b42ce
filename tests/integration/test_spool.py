"""The spool on a real file: what comes in, what is due, what came of it, and what the person may do."""

import dataclasses
from pathlib import Path

import apsw
import pytest
from harness.messages import BUSY, LIMIT, NO_SUCH_USER, NOW, TAKEN, ending, letter, new_queue_id

from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.lifecycle import Act, State
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.record import Owing, arrive
from mailrelay.spool import accepting, actions, attempts, clock, listing, notice_lifecycle, notices, space
from mailrelay.spool.database import PIECE, SpoolError, SpoolFull, connect, transaction

UNREACHABLE = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="no network")
NO_KEY = Outcome(Stage.AUTH, cause=Cause.AUTH_REFUSED, text="the key was refused", fix="install the key")


def accept(db: apsw.Connection, *recipients: bytes, **how: object) -> int:
    with transaction(db):
        return accepting.accept(db, letter(*recipients, **how), LIMIT)  # type: ignore[arg-type]


def take(db: apsw.Connection, *first: int, limit: int = 100, now: float = NOW, more: int = 0) -> list[int]:
    with transaction(db):
        return [message.id for message in attempts.take(db, "default", first, limit, "test", now, more)]


def end(db: apsw.Connection, key: int, states: dict[State, Outcome], **how: object) -> None:
    recipients = tuple(row[0] for row in db.execute("SELECT id FROM recipient WHERE message = ? ORDER BY id", (key,)))
    with transaction(db):
        attempts.record(db, ending(key, recipients, states, **how))  # type: ignore[arg-type]


def states(db: apsw.Connection, key: int) -> list[str]:
    return [to.state for to in listing.one(db, key).recipients]


# A message comes in.


def test_what_was_accepted_is_taken_out_octet_for_octet(db: apsw.Connection) -> None:
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
    with transaction(db):
        key = accepting.accept(db, arrival, LIMIT)
    with transaction(db):
        (message,) = attempts.take(db, "default", (), 1, "test", NOW)
    assert message.envelope == envelope
    assert message.size == len(arrival.content) > 4 * PIECE
    pieces, goes_on = [], True
    while goes_on:
        piece = attempts.piece(db, key, len(pieces))
        assert piece is not None
        pieces.append(piece[0])
        goes_on = piece[1]
    assert b"".join(pieces) == arrival.content
    assert attempts.piece(db, key, len(pieces)) is None


def of_size(db: apsw.Connection, size: int) -> int:
    return accept(db, content=b"x" * size)


def test_beyond_the_limit_only_what_is_small_is_taken(db: apsw.Connection) -> None:
    small = [of_size(db, 100) for _ in range(4)]
    large = [of_size(db, attempts.LARGE) for _ in range(2)]
    assert take(db, limit=2, more=9) == small
    assert take(db, limit=1, more=9) == large[:1], "beside what is large nothing is taken"
    assert take(db, limit=9, more=9) == large[1:]


def test_nothing_is_taken_beside_a_large_message_that_goes_ahead(db: apsw.Connection) -> None:
    small = [of_size(db, 100) for _ in range(3)]
    large = of_size(db, attempts.LARGE)
    assert take(db, large, limit=1, more=9) == [large]
    assert take(db, limit=1, more=1) == small[:2]


def test_what_is_taken_beyond_the_limit_is_a_moments_sending(db: apsw.Connection) -> None:
    some = [of_size(db, attempts.LIGHT // 2 - 1000) for _ in range(9)]
    assert take(db, limit=1, more=9) == some[:3]
    assert take(db, limit=2, more=9) == some[3:9]


def test_a_spool_at_its_limit_takes_nothing_and_keeps_what_it_has(db: apsw.Connection) -> None:
    key = accept(db)
    with pytest.raises(SpoolFull, match="max_size"), transaction(db):
        accepting.accept(db, letter(content=b"x" * 100_000), 100_000)
    assert [message.id for message in listing.live(db)] == [key]


def test_a_full_disk_is_a_full_spool(db: apsw.Connection) -> None:
    key = accept(db)
    db.pragma("max_page_count", db.pragma("page_count"))
    with pytest.raises(SpoolFull, match="full"), transaction(db):
        accepting.accept(db, letter(content=b"x" * 100_000), LIMIT)
    assert [message.id for message in listing.live(db)] == [key]


def test_the_limit_holds_for_one_who_takes_in_much_and_seldom_looks(db: apsw.Connection) -> None:
    limit = 2_000_000
    room = space.Room(limit)
    with pytest.raises(SpoolFull, match="max_size"):
        for _ in range(1000):
            with transaction(db):
                one = letter(content=b"x" * 10_000)
                room.check(db, len(one.content))
                accepting.write_down(db, (one,))
    assert 0.9 * limit < db.pragma("page_count") * db.pragma("page_size") <= limit


# What is due.


def test_new_mail_goes_ahead_of_mail_that_was_tried_and_small_ahead_of_large(db: apsw.Connection) -> None:
    tried = accept(db, at=NOW - 100)
    assert take(db, now=NOW - 100) == [tried]
    end(db, tried, {State.DEFERRED: BUSY}, next_attempt=NOW - 50)
    large = accept(db, at=NOW - 20, content=b"x" * 70_000)
    small = accept(db, at=NOW - 10)
    assert take(db) == [small, large, tried]


def test_mail_that_has_just_come_in_goes_first(db: apsw.Connection) -> None:
    waiting = [accept(db, at=NOW - 100 + number) for number in range(20)]
    last = accept(db)
    assert take(db, last, limit=3) == [last, *waiting[:2]]


def test_a_message_is_taken_once(db: apsw.Connection) -> None:
    key = accept(db)
    assert take(db) == [key]
    assert take(db, key) == []
    assert attempts.next_due(db, "default") is None


def test_mail_of_another_relayhost_is_not_taken(db: apsw.Connection) -> None:
    key = accept(db, relayhost="other")
    assert take(db, key) == []
    assert attempts.next_due(db, "default") is None
    assert attempts.next_due(db, "other") == NOW


def test_what_is_put_back_is_due_and_nothing_is_counted(db: apsw.Connection) -> None:
    key = accept(db)
    take(db)
    with transaction(db):
        attempts.put_back(db, [key], NOW + 1)
    assert attempts.next_due(db, "default") == NOW + 1
    assert (listing.one(db, key).attempts, states(db, key)) == (0, ["queued"])


@pytest.mark.parametrize("sql", [*attempts._DUE_RUNS])
def test_what_is_due_is_found_without_reading_the_queue(db: apsw.Connection, sql: str) -> None:
    plan = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", ("default", NOW, 10)))
    assert "SEARCH message USING" in plan
    assert "message_due" in plan
    assert "TEMP B-TREE" not in plan


def test_a_listing_reads_no_content(db: apsw.Connection) -> None:
    key = accept(db, content=b"x" * 3_000_000)
    before = db.status(apsw.SQLITE_DBSTATUS_CACHE_MISS)[0]
    fresh = connect(Path(db.filename).parent)
    assert [message.id for message in listing.live(fresh)] == [key]
    assert fresh.status(apsw.SQLITE_DBSTATUS_CACHE_MISS)[0] < 60
    fresh.close()
    assert before >= 0


# What came of it.


def test_a_mixed_transaction_leaves_each_recipient_in_its_own_state(db: apsw.Connection) -> None:
    key = accept(db, b"b@example.net", b"c@example.net", b"d@example.net")
    take(db)
    end(
        db,
        key,
        {State.SENT: TAKEN, State.BOUNCED: NO_SUCH_USER, State.DEFERRED: BUSY},
        next_attempt=NOW + 60,
    )
    assert states(db, key) == ["sent", "bounced", "deferred"]
    with transaction(db):
        (again,) = attempts.take(db, "default", (), 10, "test", NOW + 60)
    assert [to.address for to in again.envelope.recipients] == [b"d@example.net"]


def test_a_sent_message_keeps_its_story_and_not_its_content(db: apsw.Connection) -> None:
    key = accept(db)
    take(db)
    end(db, key, {State.SENT: TAKEN})
    assert list(listing.live(db)) == []
    assert [message.queue_name for message in listing.everything(db)] == ["sent"]
    assert list(listing.content(db, key)) == []
    assert [event.what for event in listing.story(db, key)] == ["accepted", "attempt", "sent"]


def test_the_story_tells_of_the_dial_and_of_the_stage_at_which_the_remote_spoke(db: apsw.Connection) -> None:
    key = accept(db)
    with transaction(db):
        (message,) = attempts.take(db, "default", (), 1, "test", NOW + 1)
        record = ending(key, message.recipient_ids, {State.DEFERRED: BUSY}, now=NOW + 2, next_attempt=NOW + 60)
        attempts.record(db, dataclasses.replace(record, dialled=0.5))
    told = [(event.at - NOW, event.what, event.stage) for event in listing.story(db, key)]
    assert told == [(0, "accepted", ""), (0.5, "dialled, in 0.50 s", ""), (1, "attempt", ""), (2, "deferred", "RCPT")]


def test_a_failed_message_is_kept_whole(db: apsw.Connection) -> None:
    key = accept(db)
    take(db)
    end(db, key, {State.BOUNCED: NO_SUCH_USER})
    assert b"hello" in b"".join(listing.content(db, key))
    (listed,) = listing.live(db)
    assert (listed.queue_name, listed.recipients[0].words) == ("failed", b"550 5.1.1 no such user")


def test_a_refused_message_is_history_but_can_still_be_read(db: apsw.Connection) -> None:
    key = accept(db)
    take(db)
    end(db, key, {State.REFUSED: NO_SUCH_USER})
    assert list(listing.live(db)) == []
    assert b"hello" in b"".join(listing.content(db, key))
    with transaction(db):
        actions.purge(db, NOW + actions.KEEP_REFUSED + 1, 365 * 86_400.0)
    assert list(listing.content(db, key)) == []


def test_an_interrupted_attempt_may_have_arrived_and_is_tried_again(db: apsw.Connection) -> None:
    key = accept(db)
    take(db)
    with transaction(db):
        assert attempts.recover(db, NOW + 5) == 1
    (listed,) = listing.live(db)
    assert (listed.recipients[0].state, listed.recipients[0].uncertain) == ("deferred", NOW + 5)
    assert take(db, now=NOW + 5) == [key]


def test_the_database_refuses_a_state_that_the_table_does_not_know(db: apsw.Connection) -> None:
    key = accept(db)
    with pytest.raises(apsw.ConstraintError):
        db.execute("UPDATE recipient SET state = 'lost' WHERE message = ?", (key,))


@pytest.mark.parametrize("state", ["sent", "bounced", "refused"])
def test_nothing_is_sent_bounced_or_refused_without_the_words_of_the_remote(db: apsw.Connection, state: str) -> None:
    key = accept(db)
    with pytest.raises(apsw.ConstraintError):
        db.execute("UPDATE recipient SET state = ?, stage = 'content' WHERE message = ?", (state, key))


def test_every_state_of_the_lifecycle_is_a_state_of_the_database(db: apsw.Connection) -> None:
    key = accept(db)
    for state in State:
        db.execute(
            "UPDATE recipient SET state = ?, remote = 1, stage = 'content' WHERE message = ?", (state.value, key)
        )


def test_what_a_clock_that_was_ahead_has_put_off_is_due_once_it_is_right(db: apsw.Connection) -> None:
    ahead, fine = accept(db, at=NOW + 365 * 86_400), accept(db, at=NOW + 60)
    with transaction(db):
        attempts.relayhost_failed(db, "default", UNREACHABLE, NOW + 365 * 86_400, False, (), NOW)
        assert clock.set_right(db, NOW, 7200.0) == 1
    assert take(db) == [ahead]
    assert take(db, now=NOW + 60) == [fine]
    failure = attempts.relayhost_failure(db, "default")
    assert failure is not None
    assert failure.next_dial == NOW


def test_notices_that_a_clock_that_was_ahead_has_put_off_are_told_once_it_is_right(db: apsw.Connection) -> None:
    ahead = NOW + 365 * 86_400
    accept(db)
    with transaction(db):
        attempts.relayhost_failed(db, "default", NO_KEY, ahead, True, (Backend.MAILBOX,), ahead)
        (owed,) = notices.owed(db, ahead)
        notices.not_told(db, owed, ahead + 60, "full")
        assert not notices.owed(db, NOW)
        clock.set_right(db, NOW, 7200.0)
    assert [one.notice.kind for one in notices.owed(db, NOW)] == [Kind.SETUP]
    reminder = "SELECT reminder FROM notice"
    assert db.execute(reminder).get == NOW


def test_mail_that_a_clock_that_was_ahead_has_taken_in_can_be_late(db: apsw.Connection) -> None:
    accept(db, at=NOW + 365 * 86_400)
    with transaction(db):
        clock.set_right(db, NOW, 7200.0)
        assert notice_lifecycle.look(db, NOW + 901, 900.0, (Backend.MAILBOX,))


@pytest.mark.parametrize("by", [365 * 86_400.0, -365 * 86_400.0])
def test_mail_keeps_its_age_when_the_clock_is_set(db: apsw.Connection, by: float) -> None:
    """Of what came in before anybody watched the clock, nobody knows by which clock that was."""
    before, watched = accept(db, at=NOW - 7200), accept(db, at=NOW - 600)
    with transaction(db):
        clock.leapt(db, by, NOW - 3600, NOW + by)
    arrival = "SELECT arrival FROM message WHERE id = ?"
    assert db.execute(arrival, (watched,)).get == NOW + by - 600
    assert db.execute(arrival, (before,)).get == NOW - 7200


# The way to a relayhost.


def test_failures_of_a_relayhost_are_counted_until_it_is_up_again(db: apsw.Connection) -> None:
    with transaction(db):
        for number in range(3):
            attempts.relayhost_failed(db, "default", UNREACHABLE, NOW + 60 * number, False, (), NOW)
    failure = attempts.relayhost_failure(db, "default")
    assert failure == attempts.Failure(3, NOW + 120, Cause.UNREACHABLE, "no network")
    with transaction(db):
        attempts.relayhost_up(db, "default", (), NOW)
    assert attempts.relayhost_failure(db, "default") is None


def test_one_cause_is_one_notice_however_often_it_is_met(db: apsw.Connection) -> None:
    backends = (Backend.MAILBOX, Backend.COMMAND)
    with transaction(db):
        assert attempts.relayhost_failed(db, "default", NO_KEY, NOW + 60, True, backends, NOW)
        assert not attempts.relayhost_failed(db, "default", NO_KEY, NOW + 120, True, backends, NOW)
    owed = notices.owed(db, NOW)
    assert [(one.backend, one.notice.kind, one.notice.fix) for one in owed] == [
        (Backend.COMMAND, Kind.SETUP, "install the key"),
        (Backend.MAILBOX, Kind.SETUP, "install the key"),
    ]


def test_a_fault_that_is_over_is_no_longer_owed_and_told_anew_when_it_comes_back(db: apsw.Connection) -> None:
    with transaction(db):
        attempts.relayhost_failed(db, "default", NO_KEY, NOW + 60, True, (Backend.MAILBOX,), NOW)
        attempts.relayhost_up(db, "default", (), NOW)
    assert notices.owed(db, NOW) == []
    with transaction(db):
        assert attempts.relayhost_failed(db, "default", NO_KEY, NOW + 60, True, (Backend.MAILBOX,), NOW)


# What is owed.


def test_a_notice_is_owed_from_the_commit_of_its_failure_until_its_backend_has_told_it(db: apsw.Connection) -> None:
    key = accept(db, b"b@example.net", b"c@example.net")
    take(db)
    end(db, key, {State.SENT: TAKEN, State.BOUNCED: NO_SUCH_USER}, backends=(Backend.DESKTOP, Backend.MAILBOX))
    desktop, mailbox = notices.owed(db, NOW)
    assert (desktop.backend, mailbox.backend) == (Backend.DESKTOP, Backend.MAILBOX)
    assert [(one.address, one.words, one.remote) for one in desktop.notice.concerned] == [
        (b"c@example.net", b"550 5.1.1 no such user", True)
    ]
    with transaction(db):
        notices.told(db, mailbox, NOW)
        notices.not_told(db, desktop, NOW + 60, "no session")
    assert notices.owed(db, NOW) == []
    assert notices.next_owed(db) == NOW + 60
    (again,) = notices.owed(db, NOW + 60)
    assert (again.backend, again.tries) == (Backend.DESKTOP, 1)
    assert listing.standing(db).untold == (("failed", "desktop", "no session"),)


def test_a_report_and_the_word_that_it_is_told_are_one_commit(db: apsw.Connection) -> None:
    key = accept(db)
    take(db)
    end(db, key, {State.BOUNCED: NO_SUCH_USER}, backends=(Backend.DSN,))
    (owed,) = notices.owed(db, NOW)
    with pytest.raises(SpoolFull), transaction(db):
        notices.report(db, owed, letter(b"a@example.org"), 1, NOW)
    assert notices.owed(db, NOW) == [owed]
    with transaction(db):
        notices.report(db, owed, letter(b"a@example.org"), LIMIT, NOW)
    assert notices.owed(db, NOW) == []
    assert len(list(listing.live(db))) == 2


def test_the_original_is_read_no_further_than_asked(db: apsw.Connection) -> None:
    key = accept(db, content=b"y" * 1_000_000)
    assert len(notices.original(db, key, 300_000)) == 300_000


# What the person may do.


def named(db: apsw.Connection, key: int) -> str:
    return listing.one(db, key).queue_id


def test_held_mail_is_not_due_until_it_is_released(db: apsw.Connection) -> None:
    key = accept(db)
    with transaction(db):
        assert actions.act(db, key, named(db, key), Act.HOLD, NOW) == 1
    assert (states(db, key), take(db, key)) == (["held"], [])
    with transaction(db):
        actions.act(db, key, named(db, key), Act.RELEASE, NOW)
    assert take(db) == [key]


def test_cancelled_mail_is_history(db: apsw.Connection) -> None:
    key = accept(db)
    with transaction(db):
        actions.act(db, key, named(db, key), Act.CANCEL, NOW)
    assert list(listing.live(db)) == []
    assert take(db, key) == []


def test_dropping_failed_mail_drops_what_was_still_to_be_told_of_it(db: apsw.Connection) -> None:
    key = accept(db)
    take(db)
    end(db, key, {State.BOUNCED: NO_SUCH_USER}, backends=(Backend.DESKTOP,))
    with transaction(db):
        actions.act(db, key, named(db, key), Act.DROP, NOW)
    assert list(listing.live(db)) == []
    assert notices.owed(db, NOW) == []


@pytest.mark.parametrize("what", list(Act))
def test_nothing_can_be_done_to_mail_that_is_being_sent(db: apsw.Connection, what: Act) -> None:
    key = accept(db)
    take(db)
    with pytest.raises(actions.NotAllowed, match="being sent"), transaction(db):
        actions.act(db, key, named(db, key), what, NOW)
    with pytest.raises(actions.NotAllowed, match="being sent"), transaction(db):
        actions.retry(db, key, named(db, key), NOW)


def test_retrying_makes_mail_and_its_relayhost_due_now(db: apsw.Connection) -> None:
    key = accept(db)
    take(db)
    end(db, key, {State.DEFERRED: BUSY}, next_attempt=NOW + 3600)
    with transaction(db):
        attempts.relayhost_failed(db, "default", UNREACHABLE, NOW + 1800, False, (), NOW)
    with transaction(db):
        actions.retry(db, key, named(db, key), NOW)
    assert take(db) == [key]
    failure = attempts.relayhost_failure(db, "default")
    assert failure is not None
    assert failure.next_dial == NOW


def test_failed_mail_is_not_retried(db: apsw.Connection) -> None:
    key = accept(db)
    take(db)
    end(db, key, {State.BOUNCED: NO_SUCH_USER})
    with pytest.raises(actions.NotAllowed, match="nothing waiting"), transaction(db):
        actions.retry(db, key, named(db, key), NOW)


def test_an_id_may_be_shortened_as_long_as_it_is_one_messages_own(db: apsw.Connection) -> None:
    key, other = accept(db), accept(db)
    queue_id = named(db, key)
    db.execute("UPDATE message SET queue_id = 'zzzzz00000' WHERE id = ?", (other,))
    assert actions.find(db, queue_id[:6].upper()) == (key, queue_id)
    with pytest.raises(actions.NoSuchMessage, match="no message"):
        actions.find(db, "aeiou")
    db.execute("UPDATE message SET queue_id = ? WHERE id = ?", (queue_id[:5] + "zzzzz", other))
    with pytest.raises(actions.NoSuchMessage, match="more than one"):
        actions.find(db, queue_id[:5])


def test_a_whole_id_names_its_message_though_an_older_and_longer_id_begins_with_it(db: apsw.Connection) -> None:
    key, other = accept(db), accept(db)
    queue_id = named(db, key)
    db.execute("UPDATE message SET queue_id = ? WHERE id = ?", (f"{queue_id}zz", other))
    assert actions.find(db, queue_id) == (key, queue_id)
    assert actions.find(db, f"{queue_id}zz") == (other, f"{queue_id}zz")


def test_history_goes_after_its_time_and_failed_mail_stays(db: apsw.Connection) -> None:
    sent, failed = accept(db), accept(db)
    take(db)
    end(db, sent, {State.SENT: TAKEN})
    end(db, failed, {State.BOUNCED: NO_SUCH_USER})
    with transaction(db):
        assert actions.purge(db, NOW + 8 * 86_400, 7 * 86_400.0) == 1
    assert [message.id for message in listing.everything(db)] == [failed]


def test_history_waits_for_what_can_still_be_fixed_or_is_still_to_be_told(db: apsw.Connection) -> None:
    refused, reported = accept(db), accept(db)
    take(db)
    end(db, refused, {State.REFUSED: NO_SUCH_USER})
    end(db, reported, {State.SENT: TAKEN})
    with transaction(db):
        to = db.execute("SELECT id FROM recipient WHERE message = ?", (reported,)).get
        notice_lifecycle.owe(db, reported, Owing(Kind.RELAYED, (to,), (Backend.DSN,)), NOW)  # type: ignore[arg-type]
        actions.purge(db, NOW + 2, 1.0)
    assert [message.id for message in listing.everything(db)] == [refused, reported]
    (owed,) = notices.owed(db, NOW)
    with transaction(db):
        notices.told(db, owed, NOW)
        actions.purge(db, NOW + actions.KEEP_REFUSED + 1, 1.0)
    assert list(listing.everything(db)) == []


def test_a_failed_transaction_leaves_nothing_behind(db: apsw.Connection) -> None:
    with pytest.raises(SpoolError), transaction(db):
        accepting.accept(db, letter(), LIMIT)
        raise SpoolError("on purpose")
    assert list(listing.everything(db)) == []
