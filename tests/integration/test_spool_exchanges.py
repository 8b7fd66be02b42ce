"""Attempts whose replies a record may hold: what the spool keeps of them, and what a record changes."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from harness.messages import LIMIT, TAKEN, letter

from mailrelay.mail.conclusion import RetryPolicy, conclude
from mailrelay.mail.envelope import Message, Recipient
from mailrelay.mail.lifecycle import State
from mailrelay.mail.notice import Backend
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.mail.recorded import ReadExchange, RecordedExchange, Recording, RecordingState
from mailrelay.spool import actions, attempts, exchanges, listing
from mailrelay.spool.database import connect
from mailrelay.spool.spool import Spool

TOKEN = "0123456789abcdef" * 2
ACCEPTED = Reply(250, (b"2.0.0 Ok: queued as 4ABC",))
IN_DOUBT = Outcome(Stage.AFTER_DOT, cause=Cause.LOST, text="the connection was lost")
POLICY = RetryPolicy((600.0,), 432_000.0, lambda *_: ())


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    spool = Spool(tmp_path / "spool", LIMIT, lambda _: None)
    yield spool
    spool.close()


@pytest.fixture
def db(tmp_path: Path, spool: Spool) -> apsw.Connection:
    return connect(tmp_path / "spool")


async def taken(spool: Spool, *, offered: int = 2) -> Message:
    """A message with two recipients and an open attempt, of which so many were offered."""
    await spool.accept(letter(b"one@example.net", b"two@example.net", at=time.time()))
    (message,) = await spool.take("default", (), 1)
    await spool.note_exchange(
        message.id, RecordedExchange(TOKEN, 2, message.recipient_ids[:offered], has_data=False, relays_dsn=False)
    )
    return message


async def ended(spool: Spool, message: Message, outcome: Outcome) -> None:
    record = conclude(
        message, [outcome, outcome], POLICY, client_told=False, relays_dsn=False, now=time.time(), chance=0.5
    )
    assert await spool.record(record)


async def read(spool: Spool, *, sent: bool, is_followed: bool = False) -> None:
    """The record of the only unread attempt is read; it is about the first recipient that was offered, or all others."""
    (one,) = await spool.unread_exchanges("default")
    keys = one.exchange.recipients
    found = (
        ReadExchange(one.attempt, one.message, sent=keys[:1], not_taken=keys[1:], reply=ACCEPTED)
        if sent
        else ReadExchange(one.attempt, one.message, not_taken=keys)
    )
    await spool.resolve_exchanges([found], POLICY.backends_for, is_followed=is_followed)


def states(db: apsw.Connection, message: Message) -> list[tuple[str, bool]]:
    """State and mark of each recipient."""
    return [(one.state, one.uncertain is not None) for one in listing.one(db, message.id).recipients]


async def test_a_recipient_that_the_record_calls_accepted_is_sent_in_the_mail_servers_words(
    spool: Spool, db: apsw.Connection
) -> None:
    message = await taken(spool)
    await ended(spool, message, IN_DOUBT)
    assert states(db, message) == [("deferred", True), ("deferred", True)]
    assert await spool.next_due("default") > time.time() + 60  # type: ignore[operator]
    await read(spool, sent=True)
    assert states(db, message) == [("sent", False), ("deferred", False)]
    assert listing.one(db, message.id).recipients[0].description == b"250 2.0.0 Ok: queued as 4ABC"
    assert await spool.unread_exchanges("default") == []
    (again,) = await spool.take("default", (), 1)
    assert again.recipient_ids == message.recipient_ids[1:], "the other one is due at once"


async def test_a_retry_does_not_send_a_message_again_while_its_record_is_read(
    spool: Spool, db: apsw.Connection
) -> None:
    message = await taken(spool)
    await ended(spool, message, IN_DOUBT)
    now = time.time()
    (one,) = exchanges.unread(db, "default", now)
    actions.retry(db, message.id, "id", now + 1)
    assert attempts.next_due(db, "default") == now + exchanges.HOLD
    actions.retry_all(db, now + 2)
    assert attempts.next_due(db, "default") == now + exchanges.HOLD
    actions.retry_all(db, now - 3600)
    assert attempts.next_due(db, "default") == now - 3600, "the clock was set back"
    exchanges.forget(db, one.attempt)
    actions.retry(db, message.id, "id", now + 3)
    assert attempts.next_due(db, "default") == now + 3


async def test_a_message_that_the_record_calls_accepted_for_all_but_a_held_one_waits_no_more(
    spool: Spool, db: apsw.Connection
) -> None:
    message = await taken(spool, offered=1)
    await ended(spool, message, IN_DOUBT)
    db.execute("UPDATE recipient SET state = 'held', uncertain = NULL WHERE id = ?", message.recipient_ids[1:])
    await spool.accept(letter(at=time.time() + 600))
    await read(spool, sent=True)
    found = listing.one(db, message.id)
    assert (found.queue_name, found.next_attempt) == ("hold", None)


async def test_a_message_that_the_record_does_not_name_is_due_at_once_and_not_uncertain(
    spool: Spool, db: apsw.Connection
) -> None:
    message = await taken(spool)
    await ended(spool, message, IN_DOUBT)
    await read(spool, sent=False)
    assert states(db, message) == [("deferred", False), ("deferred", False)]
    assert len(await spool.take("default", (), 1)) == 1


async def test_a_message_without_a_record_stays_uncertain_and_is_due_at_once(spool: Spool, db: apsw.Connection) -> None:
    message = await taken(spool)
    await ended(spool, message, IN_DOUBT)
    (one,) = await spool.unread_exchanges("default")
    await spool.resolve_exchanges([ReadExchange(one.attempt, one.message)], POLICY.backends_for)
    assert states(db, message) == [("deferred", True), ("deferred", True)]
    assert len(await spool.take("default", (), 1)) == 1


async def test_a_reply_that_was_read_needs_no_record(spool: Spool) -> None:
    message = await taken(spool)
    await ended(spool, message, TAKEN)
    assert await spool.unread_exchanges("default") == []


async def test_the_return_of_the_network_does_not_send_a_message_whose_record_can_be_read(spool: Spool) -> None:
    message = await taken(spool)
    await ended(spool, message, IN_DOUBT)
    await spool.retry_lost("default")
    assert await spool.take("default", (), 1) == []


async def test_after_a_crash_only_the_recipients_that_were_offered_are_uncertain_and_the_record_is_awaited(
    tmp_path: Path, spool: Spool, db: apsw.Connection
) -> None:
    message = await taken(spool, offered=1)
    other = Spool(tmp_path / "spool", LIMIT, lambda _: None)
    try:
        assert await other.recover() == 1
        assert states(db, message) == [("deferred", True), ("queued", False)]
        due = await other.next_due("default")
        assert due is not None
        assert 0 < due - time.time() <= exchanges.HOLD
        await read(other, sent=True)
        assert states(db, message) == [("sent", False), ("queued", False)]
        assert len(await other.take("default", (), 1)) == 1
    finally:
        other.close()


async def test_a_message_that_is_being_sent_again_is_not_changed_by_its_record(
    spool: Spool, db: apsw.Connection
) -> None:
    message = await taken(spool)
    await ended(spool, message, IN_DOUBT)
    db.execute("UPDATE message SET next_attempt = 0")
    assert len(await spool.take("default", (), 1)) == 1
    await read(spool, sent=True)
    assert states(db, message) == [("active", True), ("active", True)]
    assert await spool.unread_exchanges("default") == []


async def test_a_message_that_is_due_is_not_sent_while_its_record_is_being_read(
    spool: Spool, db: apsw.Connection
) -> None:
    message = await taken(spool)
    await ended(spool, message, IN_DOUBT)
    db.execute("UPDATE message SET next_attempt = 0")
    (_unread,) = await spool.unread_exchanges("default")
    assert await spool.take("default", (), 1) == []
    await read(spool, sent=False)
    assert len(await spool.take("default", (), 1)) == 1


async def test_the_last_recipient_that_a_record_calls_sent_ends_the_message(spool: Spool, db: apsw.Connection) -> None:
    await spool.accept(letter(b"one@example.net", at=time.time()))
    (message,) = await spool.take("default", (), 1)
    await spool.note_exchange(
        message.id, RecordedExchange(TOKEN, 2, message.recipient_ids, has_data=True, relays_dsn=False)
    )
    record = conclude(message, [IN_DOUBT], POLICY, client_told=False, relays_dsn=False, now=time.time(), chance=0.5)
    assert await spool.record(record)
    await read(spool, sent=True)
    assert states(db, message) == [("sent", False)]
    assert await spool.next_due("default") is None
    assert db.execute("SELECT count(*) FROM content").get == 0


async def test_a_recipient_that_a_record_calls_sent_is_followed_from_the_end_of_its_attempt(
    spool: Spool, db: apsw.Connection
) -> None:
    message = await taken(spool)
    await ended(spool, message, IN_DOUBT)
    closed = db.execute("SELECT closed FROM attempt").get
    await read(spool, sent=True, is_followed=True)
    (one,) = await spool.followed("default")
    assert (one.recipient, one.accepted, one.reply) == (
        message.recipient_ids[0],
        closed,
        b"250 2.0.0 Ok: queued as 4ABC",
    )


async def test_the_mark_of_an_earlier_attempt_without_a_record_stays(spool: Spool, db: apsw.Connection) -> None:
    message = await taken(spool)
    await ended(spool, message, IN_DOUBT)
    (one,) = await spool.unread_exchanges("default")
    await spool.resolve_exchanges([ReadExchange(one.attempt, one.message)], POLICY.backends_for)
    (again,) = await spool.take("default", (), 1)
    await spool.note_exchange(
        again.id, RecordedExchange(TOKEN, 2, again.recipient_ids, has_data=False, relays_dsn=False)
    )
    await ended(spool, again, IN_DOUBT)
    await read(spool, sent=True)
    assert states(db, message) == [("sent", True), ("deferred", True)]


@pytest.mark.parametrize(
    ("notify", "relays_dsn", "reported"),
    [(b"SUCCESS", False, True), (b"success,FAILURE", False, True), (b"SUCCESS", True, False), (b"", False, False)],
)
async def test_a_success_that_a_record_shows_is_reported_as_any_other(
    spool: Spool, db: apsw.Connection, notify: bytes, *, relays_dsn: bool, reported: bool
) -> None:
    arrival = letter(at=time.time())
    envelope = replace(arrival.envelope, recipients=(Recipient(b"one@example.net", notify),))
    await spool.accept(replace(arrival, envelope=envelope))
    (message,) = await spool.take("default", (), 1)
    exchange = RecordedExchange(TOKEN, 2, message.recipient_ids, has_data=False, relays_dsn=relays_dsn)
    await spool.note_exchange(message.id, exchange)
    record = conclude(
        message, [IN_DOUBT], POLICY, client_told=False, relays_dsn=relays_dsn, now=time.time(), chance=0.5
    )
    assert await spool.record(record)
    (one,) = await spool.unread_exchanges("default")
    found = ReadExchange(one.attempt, one.message, sent=message.recipient_ids, reply=ACCEPTED)
    ((_, written),) = await spool.resolve_exchanges([found], lambda *_: (Backend.DSN,))
    assert [settled.state for settled in written.settled] == [State.SENT]
    expected = [("relayed", message.recipient_ids[0])] if reported else []
    assert db.execute("SELECT kind, recipient FROM notice JOIN notice_recipient ON notice = id").fetchall() == expected


async def test_a_delay_is_over_when_a_record_shows_that_its_message_was_sent(spool: Spool, db: apsw.Connection) -> None:
    await spool.accept(letter(at=time.time() - 3600))
    (message,) = await spool.take("default", (), 1)
    await spool.note_exchange(
        message.id, RecordedExchange(TOKEN, 2, message.recipient_ids, has_data=False, relays_dsn=False)
    )
    record = conclude(message, [IN_DOUBT], POLICY, client_told=False, relays_dsn=False, now=time.time(), chance=0.5)
    assert await spool.record(record)
    await spool.update_delays(900.0, (Backend.MAILBOX,))
    db.execute("UPDATE notice_backend SET delivered = 1")
    await read(spool, sent=True)
    await spool.update_delays(900.0, (Backend.MAILBOX,))
    assert [kind for (kind,) in db.execute("SELECT kind FROM notice ORDER BY id")] == ["delayed", "resumed"]


async def test_what_is_known_of_the_records_of_a_relayhost_is_kept_beside_its_fault(
    spool: Spool, db: apsw.Connection
) -> None:
    assert await spool.recording("default") == Recording()
    for known in (Recording(RecordingState.IMPOSSIBLE, 7.0), Recording(RecordingState.POSSIBLE)):
        await spool.note_recording("default", known)
        assert await spool.recording("default") == known
    await spool.relayhost_failed("default", Outcome(Stage.CHANNEL, cause=Cause.LOST, text="no route"), 9.0, False, ())
    await spool.note_recording("default", Recording())
    failure = await spool.relayhost_failure("default")
    assert failure is not None and failure.text == "no route"
    await spool.relayhost_up("default", ())
    assert await spool.recording("default") == Recording()
