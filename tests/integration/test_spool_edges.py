"""Edges of the spool: its numbers, ids and space, replaced messages, locked and missing files, and errors that it names."""

import dataclasses
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest
from harness.messages import BUSY, LIMIT, NO_SUCH_USER, NOW, TAKEN, ending, letter
from harness.spool_engine import Engine

from mailrelay.mail.draft import readdressed
from mailrelay.mail.lifecycle import Act, State
from mailrelay.mail.notice import Backend
from mailrelay.mail.spool_errors import NotAllowed, SpoolBroken, SpoolError, SpoolFull, SpoolUnavailable
from mailrelay.spool import counting, files, queue_ids, space
from mailrelay.spool.accepting import accept as accept_message
from mailrelay.spool.database import (
    BUSY_TIMEOUT_MS,
    FILE,
    OLDEST_SQLITE,
    check_library,
    connect,
    opened_for_reading,
    prepare_directory,
    reading,
    transaction,
    translate,
)
from mailrelay.spool.files import SpoolFiles
from mailrelay.spool.queue_ids import EPOCH, LENGTH, TICKS, QueueIds
from mailrelay.spool.space import CHECK_INTERVAL, RESERVE, SpaceCheck, check_space, make_space

STATES = {State.BOUNCED: NO_SUCH_USER, State.SENT: TAKEN, State.DEFERRED: BUSY, State.REFUSED: NO_SUCH_USER}


def accept(engine: Engine, *recipients: bytes, relayhost: str = "default") -> int:
    return engine.do(engine.spool.accept(letter(*recipients, relayhost=relayhost)))


def end(engine: Engine, key: int, *states: State, backends: tuple[Backend, ...] = ()) -> None:
    relayhost = engine.one(key).relayhost
    assert engine.take(key, limit=1, relayhost=relayhost) == [key]
    outcomes = {state: STATES[state] for state in states}
    next_attempt = NOW + 60 if State.DEFERRED in states else None
    record = ending(key, engine.taken[key].recipient_ids, outcomes, next_attempt=next_attempt, backends=backends)
    assert engine.do(engine.spool.record(record))


# Numbers.


def test_messages_are_counted_by_relayhost_and_word_and_pending_notices_by_backend(engine: Engine) -> None:
    two = b"b@example.net", b"c@example.net"
    accept(engine)
    accept(engine, relayhost="office")
    end(engine, accept(engine, *two), State.BOUNCED, State.SENT, backends=(Backend.DESKTOP, Backend.DSN))
    end(engine, accept(engine, *two, relayhost="office"), State.DEFERRED, State.SENT)
    end(engine, accept(engine), State.REFUSED)
    for pending in engine.pending():
        if pending.backend is Backend.DSN:
            engine.do(engine.spool.notice_delivered(pending))
    db = connect(engine.directory)
    try:
        found = counting.numbers(db)
        used = db.pragma("page_count") - db.pragma("freelist_count")
        assert found.size == used * db.pragma("page_size")
    finally:
        db.close()
    assert found.messages == {
        ("default", "pending"): 1,
        ("default", "failed"): 1,
        ("default", "sent"): 1,
        ("default", "refused"): 1,
        ("office", "pending"): 2,
        ("office", "sent"): 1,
    }
    assert found.pending_notices == {"desktop": 1, "dsn": 0, "mailbox": 0, "command": 0, "urls": 0}


# Ids.


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (EPOCH, "00000002"),
        (EPOCH - 1, "00000002"),
        (EPOCH - 1e12, "00000002"),
        (EPOCH + 30**LENGTH / TICKS, "00000002"),
        (EPOCH + 30**LENGTH / TICKS - 1 / TICKS, "zzzzzzzy"),
        (EPOCH + 30**LENGTH, "00000002"),
        (EPOCH + 4.5 / TICKS, "00000004"),
        (EPOCH + 5.5 / TICKS, "00000004"),
        (EPOCH + 34.5 / TICKS, "00000014"),
    ],
)
def test_an_id_is_the_even_tick_of_a_clock_that_can_be_right(now: float, text: str) -> None:
    assert QueueIds("").new(now) == text


def test_an_id_is_the_next_even_one_after_the_highest() -> None:
    assert [QueueIds(highest).new(EPOCH) for highest in ("00000013", "00000014", "0000000z")] == [
        "00000014",
        "00000016",
        "00000010",
    ]
    ids = QueueIds("00000013")
    assert [ids.new(EPOCH) for _ in range(2)] == ["00000014", "00000016"]


def test_a_command_takes_the_next_odd_id_that_is_free(db: apsw.Connection) -> None:
    assert queue_ids.highest(db) == ""
    for text in ("00000005", "00000007", "0000000100"):
        with transaction(db):
            accept_message(db, dataclasses.replace(letter(), queue_id=text), LIMIT)
    assert queue_ids.highest(db) == "00000007"
    assert queue_ids.new_for_command(db, EPOCH + 4.5 / TICKS) == "00000009"
    assert queue_ids.new_for_command(db, EPOCH + 2.5 / TICKS) == "00000003"


# Replaced messages.


def resend(engine: Engine, key: int, what: Act = Act.RESEND) -> int:
    engine.now += 1
    with engine.commands.changing() as change:
        old, content = change.replaceable(change.one(key).queue_id, what)
        envelope = readdressed(old.envelope, old.envelope.sender, [b"new@example.net"])
        queue_id = change.replace(old, what, envelope, content, "default")
        return change.find(queue_id)[0]


@pytest.mark.parametrize(
    ("command", "end_state", "is_usable"),
    [
        ("resend", State.BOUNCED, True),
        ("edit", State.BOUNCED, True),
        ("drop", State.BOUNCED, True),
        ("cancel", State.BOUNCED, False),
        ("cancel", None, True),
        ("hold", None, True),
        ("release", None, False),
        ("resend", None, False),
        ("retry", None, True),
        ("retry", State.BOUNCED, False),
        ("edit", State.SENT, False),
    ],
)
def test_a_command_on_a_replaced_message_names_the_new_one_if_that_allows_it(
    engine: Engine, command: str, end_state: State | None, is_usable: bool
) -> None:
    key = accept(engine)
    end(engine, key, State.BOUNCED)
    new = resend(engine, key)
    if end_state is not None:
        end(engine, new, end_state)
    old_id, new_id = engine.one(key).queue_id, engine.one(new).queue_id
    with pytest.raises(NotAllowed) as raised, engine.commands.changing() as change:
        if command == "retry":
            change.retry(key, old_id)
        elif command in ("resend", "edit"):
            change.replaceable(old_id, Act(command))
        else:
            change.act(key, old_id, Act(command))
    step = f"use that id: `mailrelay queue {command} {new_id}`" if is_usable else f"see `mailrelay queue show {new_id}`"
    assert str(raised.value) == f"{old_id} was replaced by {new_id}; {step}"
    with engine.commands.reading() as view:
        assert (view.successors(old_id), view.successors(new_id)) == ([new_id], [])


def test_the_newest_forms_of_a_message_stand_for_it(engine: Engine) -> None:
    first = accept(engine)
    end(engine, first, State.BOUNCED)
    second = resend(engine, first)
    end(engine, second, State.BOUNCED)
    third = resend(engine, second)
    names = [engine.one(key).queue_id for key in (first, second, third)]
    with engine.commands.reading() as view:
        assert [view.successors(name) for name in names] == [[names[2]], [names[2]], []]


@pytest.mark.parametrize("table", ["message", "one recipient", "content"])
def test_a_message_that_is_damaged_in_part_is_not_sent_again(engine: Engine, table: str) -> None:
    key = accept(engine, b"b@example.net", b"c@example.net")
    assert engine.take(key, limit=1) == [key]
    bounced = dataclasses.replace(
        ending(key, engine.taken[key].recipient_ids[:1], {State.BOUNCED: NO_SUCH_USER}),
        settled=tuple(
            ending(key, (one,), {State.BOUNCED: NO_SUCH_USER}).settled[0] for one in engine.taken[key].recipient_ids
        ),
    )
    assert engine.do(engine.spool.record(bounced))
    db = connect(engine.directory)
    try:
        sql = {
            "message": "UPDATE message SET sender = x'62'",
            "one recipient": "UPDATE recipient SET address = x'62' WHERE id = (SELECT min(id) FROM recipient)",
            "content": "UPDATE content SET data = x'62'",
        }
        db.execute(sql[table])
    finally:
        db.close()
    queue_id = engine.one(key).queue_id
    with pytest.raises(NotAllowed) as raised, engine.commands.changing() as change:
        change.replaceable(queue_id, Act.RESEND)
    assert str(raised.value) == (
        f"{queue_id} is damaged in the spool; read it with `mailrelay queue show {queue_id} --content`, and write it again"
    )


# Space.


def statvfs(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """free: octets for our mail, beside the reserve."""
    stand_in = SimpleNamespace(f_bavail=free + RESERVE, f_frsize=1)
    monkeypatch.setattr(space, "os", SimpleNamespace(statvfs=lambda _path: stand_in))


@pytest.mark.parametrize("check", [check_space, make_space])
def test_mail_fits_below_the_limit_and_in_half_of_the_disk(
    db: apsw.Connection, monkeypatch: pytest.MonkeyPatch, check: Callable[[apsw.Connection, int, int], int]
) -> None:
    used = (db.pragma("page_count") - db.pragma("freelist_count")) * db.pragma("page_size")
    statvfs(monkeypatch, 10**9)
    assert check(db, 1000, used + 1000) == 1000
    with pytest.raises(SpoolFull, match=r"queue\.max_size") as full:
        check(db, 1001, used + 1000)
    assert full.value.left == 1000
    with pytest.raises(SpoolFull) as full:
        check(db, 1, used - 1)
    assert full.value.left == 0
    statvfs(monkeypatch, 2000)
    assert check(db, 1000, used + 10**6) == 1000
    with pytest.raises(SpoolFull, match="reserve of 16 MiB") as full:
        check(db, 1001, used + 10**6)
    assert full.value.left == 1000
    statvfs(monkeypatch, -5)
    with pytest.raises(SpoolFull) as full:
        check(db, 1, used + 10**6)
    assert full.value.left == 0


def test_a_check_of_the_space_stays_valid_for_a_quarter_of_it_or_for_a_moment(
    db: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(space, "make_space", lambda _db, size, max_size: calls.append(max_size) or 4000)
    monkeypatch.setattr(space, "time", SimpleNamespace(monotonic=lambda: clock.now))
    check = SpaceCheck(7)
    check.check(db, 600)
    check.check(db, 400)
    assert calls == [7]
    check.check(db, 1)
    assert calls == [7, 7]
    check.check(db, 999)
    clock.now += CHECK_INTERVAL
    check.check(db, 0)
    assert calls == [7, 7]
    clock.now += 0.1
    check.check(db, 1)
    assert calls == [7, 7, 7]
    check.limit(8)
    check.check(db, 1)
    assert calls == [7, 7, 7, 8]


# Files.


class Locked:
    """A connection on which another process changes the index of the log, for so many calls."""

    def __init__(self, db: apsw.Connection, calls: int) -> None:
        self._db, self.calls = db, calls

    def __getattr__(self, name: str) -> object:
        return getattr(self._db, name)

    def wal_checkpoint(self, *, mode: int) -> tuple[int, int]:
        self.calls -= 1
        if self.calls >= 0:
            raise apsw.BusyError("busy")
        return self._db.wal_checkpoint(mode=mode)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(files, "time", SimpleNamespace(sleep=found.append))
    return found


@pytest.fixture
def written(db: apsw.Connection) -> apsw.Connection:
    with transaction(db):
        accept_message(db, letter(), LIMIT)
    return db


@pytest.fixture
def open_files(written: apsw.Connection, tmp_path: Path) -> Iterator[SpoolFiles]:
    found = SpoolFiles(tmp_path / "spool", written)
    yield found
    found.close()


def test_a_check_waits_while_another_process_changes_the_index(
    written: apsw.Connection, tmp_path: Path, slept: list[float]
) -> None:
    for calls in (0, 1, 100):
        found = SpoolFiles(tmp_path / "spool", Locked(written, calls))  # type: ignore[arg-type]
        found.check()
        assert len(slept) == calls
        assert found.frames > 0
        found.close()
        slept.clear()


def test_a_check_gives_up_after_the_time_out_of_the_spool(
    written: apsw.Connection, tmp_path: Path, slept: list[float]
) -> None:
    locked = Locked(written, 10**9)
    found = SpoolFiles(tmp_path / "spool", locked)  # type: ignore[arg-type]
    with pytest.raises(SpoolUnavailable, match="another program has locked the spool"):
        found.check()
    assert sum(slept) == pytest.approx(BUSY_TIMEOUT_MS / 1000, rel=0.01)
    found.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS, errno.EACCES, errno.EIO])
def test_only_a_limit_of_the_process_does_not_break_the_spool(
    open_files: SpoolFiles, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "open", fail)
    if number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        open_files.check_access()
    else:
        with pytest.raises(SpoolBroken, match=rf"spool\.db-wal can no longer be written \({os.strerror(number)}\)"):
            open_files.check_access()


@pytest.mark.parametrize(("refused", "name"), [(FILE, "spool/spool.db"), ("spool", "spool")], ids=["file", "directory"])
def test_a_file_and_a_directory_that_cannot_be_written_break_the_spool(
    open_files: SpoolFiles, monkeypatch: pytest.MonkeyPatch, refused: str, name: str
) -> None:
    asked: list[tuple[str, int]] = []

    def access(path: Path, mode: int) -> bool:
        asked.append((path.name, mode))
        return path.name != refused

    open_files.check_access()
    monkeypatch.setattr(files.os, "access", access)
    with pytest.raises(SpoolBroken, match=rf"{name} can no longer be written \(no permission, or a read-only"):
        open_files.check_access()
    assert asked == [(FILE, os.R_OK | os.W_OK), ("spool", os.W_OK | os.X_OK)][: len(asked)]
    assert asked[-1][0] == refused


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("", "spool.db was removed or moved"),
        ("-wal", "spool.db-wal was removed or moved"),
        ("-shm", "spool.db-shm was removed or moved"),
    ],
)
def test_a_file_that_is_gone_or_replaced_is_named(
    open_files: SpoolFiles, tmp_path: Path, suffix: str, text: str
) -> None:
    path = tmp_path / "spool" / f"{FILE}{suffix}"
    moved = path.rename(tmp_path / "moved")
    checks = [open_files.check, *([open_files.check_index] if suffix == "-shm" else [])]
    for check in checks:
        with pytest.raises(SpoolBroken, match=text):
            check()
    path.write_bytes(moved.read_bytes())
    for check in checks:
        with pytest.raises(SpoolBroken, match=text.replace("removed or moved", "removed or replaced")):
            check()
    path.unlink()
    moved.rename(path)
    open_files.check()
    open_files.check_index()


# The database.


def test_a_view_and_a_change_end_with_what_they_were_about(db: apsw.Connection, tmp_path: Path) -> None:
    with reading(db):
        assert db.in_transaction
    with pytest.raises(SpoolError), reading(db):
        db.execute("SELECT nothing")
    assert not db.in_transaction
    with pytest.raises(KeyError), transaction(db):
        db.execute("PRAGMA user_version = 99")
        raise KeyError
    assert not db.in_transaction
    with opened_for_reading(tmp_path / "spool") as view:
        assert view.in_transaction
        assert view.pragma("user_version") == db.pragma("user_version") != 99
    with pytest.raises(FileNotFoundError), opened_for_reading(tmp_path / "none"):
        pass


def test_a_connection_is_set_up_for_durable_commits(db: apsw.Connection, tmp_path: Path) -> None:
    assert {name: db.pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum")} == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "auto_vacuum": 2,
    }
    assert (db.pragma("wal_autocheckpoint"), db.pragma("journal_size_limit")) == (0, 64 * 1024 * 1024)
    assert db.pragma("busy_timeout") == BUSY_TIMEOUT_MS


@pytest.mark.parametrize(
    ("version", "is_safe"), [("3.51.3", True), ("3.51.2", False), ("3.52.0", True), ("4.0.0", True), ("3.9.9", False)]
)
def test_the_oldest_library(version: str, is_safe: bool) -> None:
    oldest = ".".join(map(str, OLDEST_SQLITE))
    assert oldest == "3.51.3"
    if is_safe:
        check_library(version)
    else:
        with pytest.raises(SpoolError, match=rf"SQLite {version} can lose mail; .* at least {oldest}"):
            check_library(version)


def test_a_directory_is_made_for_us_alone_and_one_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "a" / "b"
    prepare_directory(directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    for mode in (0o710, 0o701, 0o740):
        directory.chmod(mode)
        with pytest.raises(SpoolError, match="is open to other users"):
            prepare_directory(directory)
    directory.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: directory.stat().st_uid + 1)
    with pytest.raises(SpoolError, match="belongs to another user"):
        prepare_directory(directory)


@pytest.mark.parametrize(
    ("number", "error", "kind"),
    [
        (errno.ENOSPC, "IOERR_WRITE", SpoolFull),
        (errno.EDQUOT, "IOERR_WRITE", SpoolFull),
        (errno.EFBIG, "IOERR_WRITE", SpoolFull),
        (errno.EIO, "IOERR_WRITE", SpoolBroken),
        (errno.ENOSPC, "IOERR_READ", SpoolBroken),
        (0, "IOERR_SHMSIZE", SpoolFull),
        (0, "FULL", SpoolFull),
        (0, "NOMEM", SpoolUnavailable),
        (0, "IOERR_NOMEM", SpoolUnavailable),
        (errno.EMFILE, "CANTOPEN", SpoolUnavailable),
        (errno.ENFILE, "CANTOPEN", SpoolUnavailable),
        (errno.EACCES, "CANTOPEN", SpoolBroken),
        (0, "CORRUPT", SpoolBroken),
        (0, "NOTADB", SpoolBroken),
        (0, "READONLY", SpoolBroken),
        (0, "PERM", SpoolBroken),
        (0, "NOLFS", SpoolBroken),
        (0, "BUSY", SpoolUnavailable),
        (0, "LOCKED", SpoolUnavailable),
        (0, "PROTOCOL", SpoolUnavailable),
        (0, "CONSTRAINT", SpoolError),
    ],
)
def test_each_error_of_the_library_is_one_of_the_spool(number: int, error: str, kind: type[SpoolError]) -> None:
    found = translate(apsw.exception_for(getattr(apsw, f"SQLITE_{error}")), number)
    assert type(found) is kind
