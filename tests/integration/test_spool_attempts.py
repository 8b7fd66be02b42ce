"""Attempts, notices and acts of the person in the spool, row by row: order, limits, and each value."""

import dataclasses

import apsw
import pytest
from harness.messages import BUSY, LIMIT, NO_SUCH_USER, NOW, TAKEN, ending, letter

from mailrelay.mail.envelope import Recipient
from mailrelay.mail.lifecycle import Act, State
from mailrelay.mail.notice import Backend, Concerned, Kind, Notice, PendingNotice
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.record import NewNotice, Place, Record, Settled
from mailrelay.mail.spool_errors import BeingSent, NoSuchMessage
from mailrelay.ports import LARGE
from mailrelay.spool import accepting, actions, attempts, notice_lifecycle, notices
from mailrelay.spool.attempts import EXTRA_SIZE, INTERRUPTED
from mailrelay.spool.database import row, rows, transaction
from mailrelay.spool.notice_lifecycle import REMINDERS, ROUND_WAIT, OpenNotice

LOST = Outcome(Stage.CHANNEL, cause=Cause.LOST, text="the connection was lost")


def message(db: apsw.Connection, *recipients: bytes, **columns: object) -> int:
    with transaction(db):
        key = accepting.accept(db, letter(*recipients), LIMIT)
        for name, value in columns.items():
            db.execute(f"UPDATE message SET {name} = ? WHERE id = ?", (value, key))
    return key


def recipients(db: apsw.Connection, key: int) -> tuple[int, ...]:
    return tuple(one for (one,) in rows(db, "SELECT id FROM recipient WHERE message = ? ORDER BY id", (key,)))


def take(
    db: apsw.Connection,
    *first: int,
    limit: int = 100,
    more: int = 0,
    now: float = NOW,
    node: str = "n",
    relayhost: str = "default",
) -> list[int]:
    with transaction(db):
        return [one.id for one in attempts.take(db, relayhost, first, limit, node, now, more)]


def end(db: apsw.Connection, key: int, *states: State, **how: object) -> bool:
    outcomes = {State.SENT: TAKEN, State.DEFERRED: BUSY, State.BOUNCED: NO_SUCH_USER}
    record = ending(key, recipients(db, key), {one: outcomes[one] for one in states}, **how)  # type: ignore[arg-type]
    with transaction(db):
        return attempts.record(db, record, "n")


# Attempts.


def test_untried_and_small_messages_go_first_and_each_in_the_order_of_time(db: apsw.Connection) -> None:
    keys = {
        (tried, large, at): message(db, attempts=tried, size=LARGE + large, next_attempt=NOW - at)
        for tried in (1, 0)
        for large in (1, 0)
        for at in (0, 5)
    }
    message(db, next_attempt=NOW + 0.5)
    message(db, relayhost="other")
    message(db, next_attempt=None)
    order = [keys[tried, large, at] for tried in (0, 1) for large in (0, 1) for at in (5, 0)]
    assert attempts.next_due(db, "default") == NOW - 5
    for limit, count in ((3, 3), (8, 8), (100, 8)):
        assert attempts.count_due(db, "default", limit, NOW) == count
    assert attempts.count_due(db, "default", 100, NOW + 0.5) == 9
    assert take(db, limit=1) == order[:1]
    assert take(db, order[6], limit=2) == [order[6], order[1]]
    assert take(db) == [one for one in order[2:] if one != order[6]]
    assert take(db, *order) == []
    assert (attempts.next_due(db, "default"), attempts.next_due(db, "none")) == (NOW + 0.5, None)
    assert attempts.next_due_of_any(db) == NOW
    assert len(take(db, limit=1, now=NOW + 0.5)) == 1


@pytest.mark.parametrize(
    ("sizes", "limit", "more", "taken"),
    [
        ((1, 1, 1), 1, 1, 2),
        ((1, 1, 1), 1, 9, 3),
        ((1, EXTRA_SIZE, 1), 1, 9, 2),
        ((1, EXTRA_SIZE + 1, 1), 1, 9, 1),
        ((1, EXTRA_SIZE - 1, 1), 1, 9, 3),
        ((1, 1, EXTRA_SIZE, EXTRA_SIZE), 2, 9, 4),
        ((LARGE, 1), 1, 9, 2),
        ((LARGE + 1, 1), 1, 9, 1),
        ((1, LARGE + 1), 3, 9, 2),
        ((1, 1, 1), 2, 0, 2),
    ],
)
def test_beyond_the_limit_go_small_messages_that_are_sent_in_a_moment(
    db: apsw.Connection, sizes: tuple[int, ...], limit: int, more: int, taken: int
) -> None:
    keys = [message(db, size=size, next_attempt=NOW - 100 + number) for number, size in enumerate(sizes)]
    first = keys[:1] if sizes[0] > LARGE else []
    assert take(db, *first, limit=limit, more=more) == keys[:taken]


def test_an_attempt_is_of_the_node_that_has_opened_it(db: apsw.Connection) -> None:
    key = message(db)
    assert take(db, node="other") == [key]
    assert row(db, "SELECT node, opened, closed, relayhost FROM attempt") == ("other", NOW, None, "default")
    assert not end(db, key, State.SENT)
    with transaction(db):
        assert attempts.put_back(db, [key], "n", NOW) == [key]
        assert attempts.recover(db, NOW, "other") == 0
        assert attempts.put_back(db, [key, 99], "other", NOW + 5) == [99]
    assert rows(db, "SELECT * FROM attempt") == []
    assert row(db, "SELECT attempts, next_attempt, scheduled FROM message") == (0, NOW + 5, NOW + 5)


def test_an_interrupted_attempt_counts_and_its_recipients_are_uncertain(db: apsw.Connection) -> None:
    key = message(db, b"b@x", b"c@x")
    first, second = recipients(db, key)
    take(db)
    end(db, key, State.SENT, State.DEFERRED, next_attempt=NOW)
    take(db)
    with transaction(db):
        assert attempts.recover(db, NOW + 9) == 1
        assert attempts.recover(db, NOW + 10) == 0
    assert rows(db, "SELECT closed, interrupted FROM attempt ORDER BY id") == [(NOW, 0), (NOW + 9, 1)]
    columns = "state, status, stage, description, remote, uncertain, changed"
    assert row(db, f"SELECT {columns} FROM recipient WHERE id = ?", (second,)) == (
        "deferred",
        "4.4.2",
        "after-dot",
        INTERRUPTED.description,
        0,
        NOW + 9,
        NOW + 9,
    )
    assert row(db, "SELECT state, uncertain FROM recipient WHERE id = ?", (first,)) == ("sent", None)
    assert row(db, "SELECT attempts, next_attempt, scheduled FROM message") == (2, NOW + 9, NOW + 9)
    assert rows(db, "SELECT recipient, state FROM outcome WHERE attempt = 2") == [(second, "deferred")]


def test_a_record_writes_each_value_of_an_attempt(db: apsw.Connection) -> None:
    key = message(db, b"b@x", b"c@x")
    first, second = recipients(db, key)
    take(db)
    settled = (
        Settled(first, State.SENT, TAKEN, uncertain=False),
        Settled(second, State.DEFERRED, LOST, uncertain=True),
    )
    record = Record(key, NOW + 4, settled, NOW + 60, (), dialled=0.5, transaction=0.25, is_followed=True)
    with transaction(db):
        assert attempts.record(db, record, "n")
        assert not attempts.record(db, record, "n")
    assert row(db, "SELECT closed, dialled, transacted, interrupted FROM attempt") == (NOW + 4, 0.5, 0.25, 0)
    assert row(db, "SELECT attempts, next_attempt, scheduled, retired FROM message") == (1, NOW + 60, NOW + 4, None)
    columns = "state, status, stage, description, remote, changed, uncertain"
    assert rows(db, f"SELECT {columns} FROM recipient ORDER BY id") == [
        ("sent", "2.0.0", "content", b"250 2.0.0 taken", 1, NOW + 4, None),
        ("deferred", "4.4.2", "channel", b"the connection was lost", 0, NOW + 4, NOW + 4),
    ]
    assert row(db, "SELECT recipient, accepted, relayhost FROM followed") == (first, NOW + 4, "default")
    take(db, now=NOW + 60)
    again = dataclasses.replace(record, now=NOW + 70, settled=settled[1:], place=Place.GOES_ON, is_followed=False)
    with transaction(db):
        assert attempts.record(db, again, "n")
    # A round counts once, and the first time of doubt stays.
    assert row(db, "SELECT attempts FROM message") == (1,)
    assert row(db, "SELECT uncertain, changed FROM recipient WHERE id = ?", (second,)) == (NOW + 4, NOW + 70)


@pytest.mark.parametrize(
    ("columns", "state", "outcome", "is_due"),
    [
        ({}, State.DEFERRED, LOST, True),
        ({"size": LARGE + 1}, State.DEFERRED, LOST, True),
        ({}, State.DEFERRED, BUSY, False),
        ({"attempts": 0}, State.DEFERRED, LOST, False),
        ({"relayhost": "other"}, State.DEFERRED, LOST, False),
    ],
)
def test_mail_that_waits_only_because_a_connection_was_lost_is_due_when_the_network_is_back(
    db: apsw.Connection, columns: dict[str, object], state: State, outcome: Outcome, is_due: bool
) -> None:
    key = message(db)
    take(db)
    settled = tuple(Settled(one, state, outcome, uncertain=False) for one in recipients(db, key))
    with transaction(db):
        assert attempts.record(db, Record(key, NOW, settled, NOW + 600, ()), "n")
        for name, value in columns.items():
            db.execute(f"UPDATE message SET {name} = ?", (value,))
        attempts.retry_lost(db, "default", NOW + 5)
    expected = (NOW + 5, NOW + 5) if is_due else (NOW + 600, NOW)
    assert row(db, "SELECT next_attempt, scheduled FROM message") == expected


# Notices.


def pending(db: apsw.Connection, now: float = NOW) -> list[PendingNotice]:
    return notices.pending_notices(db, now)


def test_each_value_of_a_notice_about_a_message(db: apsw.Connection) -> None:
    arrival = letter(b"b@x", b"c@x", at=NOW - 50)
    to = tuple(Recipient(b"%s@x" % name, b"FAILURE", b"rfc822;o") for name in (b"b", b"c", b"d"))
    envelope = dataclasses.replace(arrival.envelope, recipients=to, ret=b"HDRS", envid=b"env", smtputf8=True)
    with transaction(db):
        key = accepting.accept(db, dataclasses.replace(arrival, envelope=envelope), LIMIT)
    first, second, third = recipients(db, key)
    take(db)
    settled = (
        Settled(first, State.BOUNCED, NO_SUCH_USER, uncertain=False),
        Settled(second, State.EXPIRED, LOST, uncertain=True),
        Settled(third, State.SENT, TAKEN, uncertain=False),
    )
    new = NewNotice(Kind.FAILED, (first, second), (Backend.DSN, Backend.DESKTOP))
    with transaction(db):
        attempts.record(db, Record(key, NOW + 1, settled, None, (new,)), "n")
    assert pending(db, NOW) == []
    assert notices.next_notice_due(db) == NOW + 1
    expected = Notice(
        1,
        Kind.FAILED,
        "default",
        NOW + 1,
        message=key,
        queue_id=arrival.queue_id,
        sender=b"a@example.org",
        subject="a letter",
        arrival=NOW - 50,
        size=arrival.size,
        smtputf8=True,
        ret=b"HDRS",
        envid=b"env",
        concerned=(
            Concerned(
                b"b@x", "bounced", "5.1.1", b"550 5.1.1 no such user", "RCPT", True, False, b"FAILURE", b"rfc822;o"
            ),
            Concerned(
                b"c@x", "expired", "4.4.2", b"the connection was lost", "channel", False, True, b"FAILURE", b"rfc822;o"
            ),
        ),
    )
    found = pending(db, NOW + 1)
    assert {(one.backend, one.tries) for one in found} == {(Backend.DSN, 0), (Backend.DESKTOP, 0)}
    assert [one.notice for one in found] == [expected] * 2
    desktop = next(one for one in found if one.backend is Backend.DESKTOP)
    dsn = next(one for one in found if one.backend is Backend.DSN)
    notices.notice_failed(db, desktop, NOW + 30, "no session", NOW + 2)
    notices.notice_delivered(db, dsn, NOW + 3)
    columns = "tries, next_try, scheduled, why, delivered"
    sql = f"SELECT {columns} FROM notice_backend WHERE backend = ?"
    assert row(db, sql, ("desktop",)) == (1, NOW + 30, NOW + 2, "no session", None)
    assert row(db, sql, ("dsn",)) == (0, NOW + 1, NOW + 1, "", NOW + 3)
    assert (pending(db, NOW + 29), notices.next_notice_due(db)) == ([], NOW + 30)
    assert [one.tries for one in pending(db, NOW + 30)] == [1]
    notices.notice_dropped(db, desktop)
    notices.notice_dropped(db, dsn)
    assert rows(db, "SELECT backend FROM notice_backend") == [("dsn",)]
    assert (pending(db, NOW + 99), notices.next_notice_due(db)) == ([], None)
    whole = b"".join(data for (data,) in rows(db, "SELECT data FROM content ORDER BY seq"))
    for limit in (0, 1, len(whole) - 1, len(whole), len(whole) + 1):
        assert notices.content_start(db, key, limit) == whole[:limit]
    db.execute("UPDATE content SET data = x'00'")
    assert notices.content_start(db, key, 5) == b""
    db.execute("DELETE FROM content")
    db.execute("UPDATE message SET sender = x'00', fallback_for = 'home'")
    db.execute("UPDATE notice_backend SET delivered = NULL")
    (gone,) = pending(db, NOW + 99)
    assert (gone.notice.is_kept, gone.notice.is_damaged, gone.notice.fallback_for) == (False, True, "home")


def test_each_backend_has_its_oldest_notices_first_and_a_batch_at_most(
    db: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "BATCH", 2)
    for number in range(3):
        with transaction(db):
            new = OpenNotice(Kind.DELAYED, "default", f"c{number}", "text", "fix", NOW - 9, 4)
            assert notice_lifecycle.open_notice(db, new, (Backend.DSN, Backend.URLS), NOW - number)
            assert not notice_lifecycle.open_notice(db, new, (Backend.DSN,), NOW)
    found = [(one.notice.cause, one.backend.value) for one in pending(db)]
    assert found == [("c2", "dsn"), ("c2", "urls"), ("c1", "dsn"), ("c1", "urls")]
    assert pending(db)[0].notice == Notice(
        3, Kind.DELAYED, "default", NOW - 2, "text", "fix", NOW - 9, 4, cause="c2", stand_in=""
    )
    assert row(db, "SELECT reminder FROM notice WHERE id = 1") == (NOW + REMINDERS[0],)
    assert sorted(notice_lifecycle.open_causes(db, "default", Kind.DELAYED)) == ["c0", "c1", "c2"]
    assert notice_lifecycle.open_causes(db, "default", Kind.SETUP) == []
    assert notice_lifecycle.open_causes(db, "other", Kind.DELAYED) == []


def test_the_notices_of_a_round_wait_for_its_end(db: apsw.Connection) -> None:
    key = message(db, b"b@x", b"c@x", b"d@x")
    first, second, third = recipients(db, key)
    both = (Backend.DESKTOP, Backend.DSN)

    def add(
        of: int, at: float, place: Place, *, kind: Kind = Kind.FAILED, backends: tuple[Backend, ...] = both
    ) -> None:
        with transaction(db):
            notice_lifecycle.add_notice(db, key, NewNotice(kind, (of,), backends), at, place)

    add(first, NOW, Place.GOES_ON)
    add(second, NOW + 1, Place.LAST)
    add(third, NOW + 2, Place.GOES_ON, backends=(Backend.DSN,))
    add(third, NOW + 2, Place.GOES_ON, kind=Kind.HELD)
    assert rows(db, "SELECT notice, recipient FROM notice_recipient ORDER BY notice, recipient") == [
        (1, first),
        (1, second),
        (2, third),
        (3, third),
    ]
    sql = "SELECT DISTINCT notice, next_try, scheduled FROM notice_backend ORDER BY notice"
    assert rows(db, sql) == [
        (1, NOW + 1 + ROUND_WAIT, NOW + 1),
        (2, NOW + 2 + ROUND_WAIT, NOW + 2),
        (3, NOW + 2 + ROUND_WAIT, NOW + 2),
    ]
    with transaction(db):
        notice_lifecycle.release_notices(db, key + 1, NOW + 3)
        assert pending(db, NOW + 3) == []
        notice_lifecycle.release_notices(db, key, NOW + 3)
    assert rows(db, sql) == [(number, NOW + 3, NOW + 3) for number in (1, 2, 3)]
    add(first, NOW + 4, Place.ALONE)
    add(second, NOW + 4, Place.GOES_ON)
    assert rows(db, "SELECT notice, next_try FROM notice_backend WHERE notice > 3 ORDER BY notice, backend") == [
        (4, NOW + 4),
        (4, NOW + 4),
        (5, NOW + 4 + ROUND_WAIT),
        (5, NOW + 4 + ROUND_WAIT),
    ]


# Acts of the person.


def test_a_message_is_found_by_the_beginning_of_its_id(db: apsw.Connection) -> None:
    with transaction(db):
        keys = [
            accepting.accept(db, dataclasses.replace(letter(), queue_id=name), LIMIT)
            for name in ("bcd00000", "bcd00001", "bcd0000100", "bce00000")
        ]
    for text, key, name in (
        ("bce", keys[3], "bce00000"),
        ("BCE0", keys[3], "bce00000"),
        ("bcd00001", keys[1], "bcd00001"),
        ("bcd000010", keys[2], "bcd0000100"),
    ):
        assert actions.find(db, text) == (key, name)
    for text, why in (
        ("bcd", "more than one message has an id that begins with bcd; give more letters of it"),
        ("bcf", "no message has the id bcf; see `mailrelay queue --all`"),
        ("", "no message has the id (empty); see `mailrelay queue --all`"),
        ("é", "no message has the id é; see `mailrelay queue --all`"),
    ):
        with pytest.raises(NoSuchMessage) as raised:
            actions.find(db, text)
        assert str(raised.value) == why


def test_a_stopped_message_is_cancelled_by_its_node(db: apsw.Connection) -> None:
    key = message(db)
    take(db)
    with pytest.raises(BeingSent, match="is being sent at this moment"):
        actions.check_not_active(db, key, "x")
    with transaction(db):
        assert not actions.cancel_stopped(db, key, "other", NOW + 1)
        assert row(db, "SELECT state FROM recipient") == ("queued",)
        assert actions.cancel_stopped(db, key, "n", NOW + 1)
        assert not actions.cancel_stopped(db, key, "n", NOW + 2)
    actions.check_not_active(db, key, "x")
    assert row(db, "SELECT state, changed FROM recipient") == ("cancelled", NOW + 1)
    assert row(db, "SELECT next_attempt, retired FROM message") == (None, NOW + 1)
    assert rows(db, "SELECT 1 FROM content") == []


@pytest.mark.parametrize("send_time", [None, NOW + 500])
def test_released_mail_is_due_now_or_at_its_send_time(db: apsw.Connection, send_time: float | None) -> None:
    key = message(db, b"b@x", b"c@x", send_time=send_time)
    with transaction(db):
        assert actions.act(db, key, "x", Act.HOLD, NOW) == 2
        assert row(db, "SELECT next_attempt FROM message") == (None,)
        assert actions.act(db, key, "x", Act.RELEASE, NOW + 9) == 2
    assert row(db, "SELECT next_attempt, scheduled, retired FROM message") == (send_time or NOW + 9, NOW + 9, None)
    assert rows(db, "SELECT state, changed FROM recipient") == [("queued", NOW + 9)] * 2
