"""SQLite in the spool: its constraints, its plans, its pages."""

from pathlib import Path

import apsw
import pytest
from harness.messages import LIMIT, NOW, letter

from mailrelay.mail.lifecycle import State
from mailrelay.mail.notice import Kind
from mailrelay.mail.spool_errors import SpoolError, SpoolFull
from mailrelay.spool import accepting, actions, attempts, correspondents, listing, space, successors
from mailrelay.spool.database import connect, reading, rows, transaction


def accept(db: apsw.Connection, content: bytes = b"hello\r\n") -> int:
    with transaction(db):
        return accepting.accept(db, letter(content=content), LIMIT)


def test_a_full_disk_is_a_full_spool(db: apsw.Connection) -> None:
    key = accept(db)
    db.pragma("max_page_count", db.pragma("page_count"))
    with pytest.raises(SpoolFull, match="full"), transaction(db):
        accepting.accept(db, letter(content=b"x" * 100_000), LIMIT)
    assert [message.id for message in listing.live(db)] == [key]


def test_the_limit_holds_for_one_who_takes_in_much_and_seldom_looks(db: apsw.Connection) -> None:
    limit = 2_000_000
    check = space.SpaceCheck(limit)
    with pytest.raises(SpoolFull, match="max_size"):
        for _ in range(1000):
            with transaction(db):
                one = letter(content=b"x" * 10_000)
                check.check(db, len(one.content))
                accepting.write_messages(db, (one,))
    assert 0.9 * limit < db.pragma("page_count") * db.pragma("page_size") <= limit


@pytest.mark.parametrize("sql", [sql for own_and_free in attempts._DUE_QUERIES for sql in own_and_free])
def test_what_is_due_is_found_without_reading_the_queue(db: apsw.Connection, sql: str) -> None:
    plan = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", ("default", NOW, 10)))
    assert "SEARCH message USING" in plan
    assert "message_due" in plan
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize("sql", attempts._NEXT_DUE)
def test_when_mail_is_due_is_found_without_reading_the_queue(db: apsw.Connection, sql: str) -> None:
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", ("default",))]
    assert sum("message_due" in step for step in plan) == 4
    assert not any("TEMP B-TREE" in step or step.startswith("SCAN message") for step in plan)


def test_asking_when_mail_will_be_late_reads_no_queue(db: apsw.Connection) -> None:
    accept(db)
    plan = " ".join(
        line[3]
        for line in db.execute("EXPLAIN QUERY PLAN SELECT min(arrival) FROM message WHERE next_attempt IS NOT NULL")
    )
    assert "message_waiting" in plan


def test_a_listing_reads_no_content(db: apsw.Connection) -> None:
    key = accept(db, content=b"x" * 3_000_000)
    fresh = connect(Path(db.filename).parent)
    assert [message.id for message in listing.live(fresh)] == [key]
    assert fresh.status(apsw.SQLITE_DBSTATUS_CACHE_MISS)[0] < 60
    fresh.close()


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
        assert rows(db, "SELECT state FROM recipient WHERE message = ?", (key,)) == [(state.value,)]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.SPOOL])
def test_every_kind_of_notice_but_that_of_a_failing_spool_is_one_of_the_database(
    db: apsw.Connection, kind: Kind
) -> None:
    about = None if kind in (Kind.SETUP, Kind.DELAYED, Kind.RESUMED) else accept(db)
    reminder = NOW if kind in (Kind.SETUP, Kind.DELAYED) else None
    db.execute(
        "INSERT INTO notice (kind, relayhost, message, created, reminder) VALUES (?, 'default', ?, ?, ?)",
        (kind.value, about, NOW, reminder),
    )
    assert rows(db, "SELECT kind FROM notice") == [(kind.value,)]


def test_an_attempt_names_a_node_that_is_new_each_time() -> None:
    made = {attempts.new_node_id() for _ in range(100)}
    assert len(made) == 100
    assert {(len(one), one.isalnum()) for one in made} == {(16, True)}


def test_a_message_of_which_a_part_was_replaced_again_stands_beside_what_replaced_it(db: apsw.Connection) -> None:
    both = (b"b@example.net", b"c@example.net")
    old, new, newest = letter(*both), letter(*both), letter(*both[:1])
    with transaction(db):
        keys = accepting.write_messages(db, (old, new, newest))
        replaced = "UPDATE recipient SET state = 'cancelled', successor = ? WHERE message = ? AND address = ?"
        db.executemany(replaced, [(new.queue_id, keys[0], address) for address in both])
        db.execute(replaced, (newest.queue_id, keys[1], both[0]))
    assert successors.successors(db, old.queue_id) == [new.queue_id, newest.queue_id]
    db.execute(replaced, (newest.queue_id, keys[1], both[1]))
    assert successors.successors(db, old.queue_id) == [newest.queue_id]
    assert successors.successors(db, newest.queue_id) == []


def test_a_failed_transaction_leaves_nothing_behind(db: apsw.Connection) -> None:
    with pytest.raises(SpoolError), transaction(db):
        accepting.accept(db, letter(), LIMIT)
        raise SpoolError("on purpose")
    assert list(listing.everything(db)) == []


def test_a_view_that_ends_or_fails_leaves_no_transaction_open(db: apsw.Connection) -> None:
    key = accept(db)
    with reading(db):
        assert [message.id for message in listing.live(db)] == [key]
    with pytest.raises(SpoolError, match="on purpose"), reading(db):
        raise SpoolError("on purpose")
    assert accept(db) == key + 1


def test_only_the_last_correspondents_are_remembered(db: apsw.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correspondents, "KEPT", 3)
    with transaction(db):
        for number in range(6):
            correspondents.remember(db, b"%d@example.net" % number, NOW + number)
        correspondents.remember(db, b"0@example.net", NOW + 10)
        actions.purge(db, NOW, 0.0)
    kept = {address for (address,) in db.execute("SELECT address FROM correspondent")}
    assert kept == {b"0@example.net", b"4@example.net", b"5@example.net"}
