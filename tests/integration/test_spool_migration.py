"""A spool of an older version is brought to this one, with all that is in it."""

from pathlib import Path

import apsw
import pytest
from harness.messages import LIMIT, letter

from mailrelay.spool import actions, listing
from mailrelay.spool.accepting import accept
from mailrelay.spool.database import FILE, VERSION, connect, transaction

SPOOLS = Path(__file__).parents[1] / "spools"


def old(directory: Path, version: int) -> None:
    """Makes a spool of this version in `directory`."""
    directory.mkdir(0o700)
    db = apsw.Connection(str(directory / FILE))
    db.pragma("auto_vacuum", "INCREMENTAL")
    db.pragma("journal_mode", "wal")
    db.execute((SPOOLS / f"version{version}.sql").read_text())
    assert db.pragma("user_version") == version
    db.close()


def schema(db: apsw.Connection) -> dict[str, str]:
    rows = db.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    return {name: " ".join(line.partition("--")[0] for line in sql.splitlines()) for name, sql in rows}


def words(sql: str) -> list[str]:
    # SQLite quotes a name that it has changed.
    return sql.replace('"', "").replace("(", " ( ").replace(")", " ) ").replace(";", " ; ").split()


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
        assert b"".join(listing.content(db, key)).endswith(b"a" * 300 + b"b" * 200 + b"\r\n")
        with transaction(db):
            new = accept(db, letter(), LIMIT)
        assert new > key
        with transaction(db):
            db.execute("DELETE FROM message WHERE id = ?", (new,))
        assert db.execute("SELECT count(*) FROM content WHERE message = ?", (new,)).get == 0
        db.close()
