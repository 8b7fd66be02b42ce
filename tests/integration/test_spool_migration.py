"""A spool of an older version is brought to this one, with all that is in it."""

from pathlib import Path

import apsw
import pytest
from harness.messages import LIMIT, letter
from harness.old_spools import old

from mailrelay.mail.notice import Backend, Kind
from mailrelay.spool import actions, attempts, listing, notice_lifecycle, notices, relayhosts, stored
from mailrelay.spool.accepting import accept
from mailrelay.spool.database import FILE, VERSION, connect, transaction


def schema(db: apsw.Connection) -> dict[str, str]:
    rows = db.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    return {name: " ".join(line.partition("--")[0] for line in sql.splitlines()) for name, sql in rows}


def words(sql: str) -> list[str]:
    # SQLite quotes a name that it has changed.
    return sql.replace('"', "").replace("(", " ( ").replace(")", " ) ").replace(";", " ; ").replace(",", " , ").split()


@pytest.mark.parametrize("version", range(1, VERSION))
def test_an_older_spool_has_the_schema_of_a_new_one_afterwards(tmp_path: Path, version: int) -> None:
    old(tmp_path / "old", version)
    migrated, fresh = connect(tmp_path / "old"), connect(make(tmp_path / "new"))
    assert {name: words(sql) for name, sql in schema(migrated).items()} == {
        name: words(sql) for name, sql in schema(fresh).items()
    }
    assert migrated.pragma("user_version") == VERSION
    assert migrated.execute("PRAGMA integrity_check").get == "ok"
    assert migrated.execute("PRAGMA foreign_key_check").get is None
    migrated.close()
    fresh.close()


def make(directory: Path) -> Path:
    directory.mkdir(0o700)
    return directory


@pytest.mark.parametrize("version", range(1, VERSION))
def test_mail_of_an_older_spool_is_all_there_under_its_old_ids(tmp_path: Path, version: int) -> None:
    old(tmp_path / "old", version)
    # Twice: the second time there is nothing to do.
    for _ in range(2):
        db = connect(tmp_path / "old")
        listed = {one.queue_id: one.queue_name for one in listing.everything(db)}
        assert listed == {"bxq0v1z9kd": "incoming", "3h8w6mpt2r": "sent", "zzyt5r0d1c": "failed"}
        key, _ = actions.find(db, "bxq0")
        assert b"".join(stored.content(db, key)).endswith(b"a" * 300 + b"b" * 200 + b"\r\n")
        with transaction(db):
            new = accept(db, letter(), LIMIT)
        assert new > key
        with transaction(db):
            db.execute("DELETE FROM message WHERE id = ?", (new,))
        assert db.execute("SELECT count(*) FROM content WHERE message = ?", (new,)).get == 0
        db.close()


AT = 1_700_000_000.0
"""When the old spools were made."""


def test_the_fault_of_a_relayhost_keeps_its_fix(tmp_path: Path) -> None:
    old(tmp_path / "old", 2)
    db = connect(tmp_path / "old")
    (fault,) = listing.status(db).faults
    assert (fault.relayhost, fault.setup) == ("default", True)
    assert (fault.text, fault.fix) == ("port 25 is closed", "start the mail server")
    assert relayhosts.relayhost_failure(db, "default") is not None
    db.close()


@pytest.mark.parametrize("version", range(1, VERSION))
def test_pending_notices_stay_pending_for_their_backends(tmp_path: Path, version: int) -> None:
    old(tmp_path / "old", version)
    db = connect(tmp_path / "old")
    pending = notices.pending_notices(db, AT)
    found = [(one.notice.kind, one.backend, one.notice.fix) for one in pending]
    failed = (Kind.FAILED, Backend.MAILBOX, "")
    setup = [(Kind.SETUP, backend, "start the mail server") for backend in (Backend.DESKTOP, Backend.MAILBOX)]
    assert found == ([failed, *setup] if version >= 2 else [failed])
    for one in pending:
        notices.notice_delivered(db, one, AT)
    assert notices.next_notice_due(db) is None
    db.close()


def test_a_delivered_notice_is_not_delivered_again(tmp_path: Path) -> None:
    old(tmp_path / "old", 2)
    before = apsw.Connection(str(tmp_path / "old" / FILE))
    before.execute("UPDATE road SET told = ?", (AT,))
    before.close()
    db = connect(tmp_path / "old")
    assert notices.pending_notices(db, AT) == []
    db.close()


def test_an_open_delay_stays_the_same_notice(tmp_path: Path) -> None:
    old(tmp_path / "old", 2)
    before = apsw.Connection(str(tmp_path / "old" / FILE))
    before.execute("DELETE FROM notice WHERE kind = 'setup'")
    before.execute("UPDATE relayhost SET setup = 0")
    before.execute(
        "INSERT INTO notice (kind, relayhost, cause, text, created, reminder)"
        " VALUES ('delayed', 'default', 'way', '', ?1, ?2)",
        (AT, AT + 1e6),
    )
    before.close()
    db = connect(tmp_path / "old")
    assert not notice_lifecycle.update_delays(db, 900.0, (Backend.MAILBOX,), AT + 7200), "it was told before"
    assert notice_lifecycle.open_causes(db, "default", Kind.DELAYED) == [notice_lifecycle.RELAYHOST]
    db.close()


def test_an_attempt_that_an_older_daemon_left_open_is_closed_as_interrupted(tmp_path: Path) -> None:
    old(tmp_path / "old", 2)
    before = apsw.Connection(str(tmp_path / "old" / FILE))
    (key,) = before.execute("SELECT id FROM message WHERE queue_id = 'bxq0v1z9kd'").fetchone()  # type: ignore[misc]
    before.execute("INSERT INTO attempt (message, owner, opened) VALUES (?, '4711', ?)", (key, AT))
    before.execute("UPDATE message SET next_attempt = NULL WHERE id = ?", (key,))
    before.close()
    db = connect(tmp_path / "old")
    with transaction(db):
        assert attempts.recover(db, AT, attempts.new_node_id()) == 1
    assert listing.one(db, key).recipients[0].uncertain == AT
    db.close()
