"""What the daemon makes of each error that SQLite or the disk gives it."""

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest
from harness.messages import LIMIT, NO_SUCH_USER, TAKEN, ending, letter

from mailrelay.mail.envelope import Unreadable
from mailrelay.mail.lifecycle import State
from mailrelay.mail.spool_errors import SpoolBroken, SpoolError, SpoolFull, SpoolUnavailable
from mailrelay.spool import accepting, attempts, ballast, space, stored
from mailrelay.spool.database import connect, translate
from mailrelay.spool.files import SpoolFiles
from mailrelay.spool.spool import Spool
from mailrelay.spool.writer import Writer

BROKEN = [
    "IOERR", "IOERR_READ", "IOERR_SHORT_READ", "IOERR_WRITE", "IOERR_FSYNC", "IOERR_DIR_FSYNC", "IOERR_TRUNCATE",
    "IOERR_FSTAT", "IOERR_UNLOCK", "IOERR_RDLOCK", "IOERR_DELETE", "IOERR_ACCESS", "IOERR_CHECKRESERVEDLOCK", "IOERR_LOCK",
    "IOERR_CLOSE", "IOERR_DIR_CLOSE", "IOERR_SHMOPEN", "IOERR_SHMLOCK", "IOERR_SHMMAP", "IOERR_SEEK", "IOERR_DELETE_NOENT",
    "IOERR_MMAP", "IOERR_VNODE", "IOERR_AUTH", "IOERR_DATA", "IOERR_CORRUPTFS", "IOERR_IN_PAGE",
    "CORRUPT", "CORRUPT_VTAB", "CORRUPT_SEQUENCE", "CORRUPT_INDEX", "NOTADB",
    "READONLY", "READONLY_RECOVERY", "READONLY_CANTLOCK", "READONLY_ROLLBACK", "READONLY_DBMOVED", "READONLY_CANTINIT",
    "READONLY_DIRECTORY",
    "CANTOPEN", "CANTOPEN_ISDIR", "CANTOPEN_FULLPATH", "CANTOPEN_CONVPATH", "CANTOPEN_SYMLINK", "PERM", "NOLFS",
]  # fmt: skip
"""The daemon ends: only a new process may open the files again."""
FULL = ["FULL", "IOERR_SHMSIZE"]
LATER = [
    "BUSY", "BUSY_RECOVERY", "BUSY_SNAPSHOT", "BUSY_TIMEOUT", "LOCKED", "LOCKED_SHAREDCACHE", "PROTOCOL", "NOMEM",
    "IOERR_NOMEM",
]  # fmt: skip
"""Refused now, and tried again."""
OTHERS = [
    "ERROR", "ABORT", "INTERRUPT", "TOOBIG", "CONSTRAINT", "CONSTRAINT_UNIQUE", "MISMATCH", "MISUSE", "AUTH", "RANGE",
]  # fmt: skip
"""Of the work, not of the disk."""


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, SpoolBroken) for code in BROKEN),
        *((code, SpoolFull) for code in FULL),
        *((code, SpoolUnavailable) for code in LATER),
        *((code, SpoolError) for code in OTHERS),
    ],
)
def test_each_error_of_sqlite_has_its_meaning(code: str, kind: type[SpoolError]) -> None:
    error = translate(apsw.exception_for(getattr(apsw, f"SQLITE_{code}")))
    assert type(error) is kind
    assert "; " in str(error) or kind is SpoolError


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, SpoolFull), (errno.EDQUOT, SpoolFull), (errno.EFBIG, SpoolFull), (errno.EIO, SpoolBroken)],
)
def test_a_write_without_space_is_no_failed_disk(number: int, kind: type[SpoolError]) -> None:
    assert type(translate(apsw.exception_for(apsw.SQLITE_IOERR_WRITE), number)) is kind
    # What was not synced may be lost, whatever the reason.
    assert type(translate(apsw.exception_for(apsw.SQLITE_IOERR_FSYNC), number)) is SpoolBroken


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_too_many_open_files_are_no_failed_disk(number: int) -> None:
    assert type(translate(apsw.exception_for(apsw.SQLITE_CANTOPEN), number)) is SpoolUnavailable


def test_a_quota_that_the_kernel_reports_by_another_error_makes_the_spool_full(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from harness.messages import LIMIT, letter\n"
        "from mailrelay.mail.spool_errors import SpoolFull; from mailrelay.spool.command_spool import CommandSpool\n"
        "directory, small, large = Path(sys.argv[1]), letter(), letter(content=b'x' * 1_000_000)\n"
        "spool = CommandSpool(directory, LIMIT); spool.enqueue(small.envelope, small.content, 'default')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))\n"
        "try: spool.enqueue(large.envelope, large.content, 'default')\n"
        "except SpoolFull: print('full')\n"
        "spool.enqueue(small.envelope, small.content, 'default')"
    )
    tests = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "spool")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((tests, *sys.path))}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("full\n", "")


def nobody(_relayhost: str) -> None:
    pass


def failing(error: Exception) -> Callable[..., object]:
    def fail(*_arguments: object, **_options: object) -> object:
        raise error

    return fail


async def test_a_read_that_fails_breaks_the_spool_as_a_write_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[SpoolError | None] = []
    spool = Spool(tmp_path / "spool", LIMIT, nobody, health=told.append)
    await spool.accept(letter())
    with monkeypatch.context() as disk:
        disk.setattr(attempts, "next_due", failing(apsw.exception_for(apsw.SQLITE_IOERR_READ)))
        with pytest.raises(SpoolBroken):
            await spool.next_due("default")
    with pytest.raises(SpoolBroken):
        await spool.accept(letter())
    with pytest.raises(SpoolBroken):
        await spool.next_due("default")
    assert told == [await spool.broken]
    spool.close()


async def test_all_later_work_fails_with_the_first_failure(tmp_path: Path) -> None:
    db = connect(tmp_path / "spool")
    files = SpoolFiles(tmp_path / "spool", db)
    ended: list[SpoolError | None] = []
    writer = Writer(db, files, asyncio.get_running_loop(), ended.append)
    first, second = SpoolBroken("the first"), SpoolBroken("the second")
    writer.refuse_all(first)
    writer.refuse_all(second)
    for _ in range(2):
        with pytest.raises(SpoolBroken) as raised:
            await writer.submit(failing(AssertionError("is run")), None)
        assert raised.value is first
    assert ended == [first, first]
    writer.close()
    files.close()
    db.close()


async def test_a_read_that_fails_for_one_who_no_longer_waits_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", LIMIT, nobody)
    monkeypatch.setattr(attempts, "next_due", failing(apsw.exception_for(apsw.SQLITE_CORRUPT)))
    reading = asyncio.ensure_future(spool.next_due("default"))
    await asyncio.sleep(0)
    reading.cancel()
    assert isinstance(await spool.broken, SpoolBroken)
    spool.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (apsw.SQLITE_IOERR_READ, SpoolBroken),
        (apsw.SQLITE_BUSY_RECOVERY, SpoolUnavailable),
        (apsw.SQLITE_ERROR, Unreadable),
    ],
)
async def test_a_message_is_not_to_blame_for_a_disk_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    spool = Spool(tmp_path / "spool", LIMIT, nobody)
    key = await spool.accept(letter())
    monkeypatch.setattr(stored, "piece", failing(apsw.exception_for(code)))
    with pytest.raises(kind):
        async with aclosing(spool.pieces(key)) as pieces:
            await anext(pieces)
    spool.close()


async def test_a_checkpoint_that_fails_breaks_the_spool_and_what_was_committed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "spool"
    spool = Spool(directory, LIMIT, nobody)

    class FailingFile:
        """The connection, but for its checkpoints that do anything."""

        def __init__(self, db: apsw.Connection) -> None:
            self._db = db

        def __getattr__(self, name: str) -> object:
            return getattr(self._db, name)

        def wal_checkpoint(self, *, mode: int) -> tuple[int, int]:
            if mode == apsw.SQLITE_CHECKPOINT_NOOP:
                return self._db.wal_checkpoint(mode=mode)
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)

    monkeypatch.setattr(spool._writer, "_db", FailingFile(spool._writer._db))
    key = await spool.accept(letter(content=b"x" * 5_000_000))
    assert isinstance(await spool.broken, SpoolBroken)
    spool.close()
    db = connect(directory)
    assert db.execute("SELECT id FROM message").get == key
    db.close()


async def test_the_health_of_the_spool_is_told_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[SpoolError | None] = []
    spool = Spool(tmp_path / "spool", LIMIT, nobody, health=told.append)
    await spool.accept(letter())
    assert told == []
    twin = letter()
    await spool.accept(twin)
    with pytest.raises(SpoolError):
        await spool.accept(twin)
    assert told == []
    for code in (apsw.SQLITE_FULL, apsw.SQLITE_BUSY):
        with monkeypatch.context() as disk:
            disk.setattr(accepting, "write_messages", failing(apsw.exception_for(code)))
            with pytest.raises(SpoolError) as failed:
                await spool.accept(letter())
        with monkeypatch.context() as disk:
            disk.setattr(accepting, "stage", failing(apsw.exception_for(code)))
            with pytest.raises(type(failed.value)):
                await spool.try_storing()
        await spool.try_storing()
        await spool.accept(letter())
        assert [type(one) for one in told] == [failed.type, failed.type, type(None)]
        told.clear()
    spool.close()
    db = connect(tmp_path / "spool")
    assert db.execute("SELECT count(*) FROM incoming").get == 0
    db.close()


async def test_a_disk_that_does_not_say_how_full_it_is_refuses_mail_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[SpoolError | None] = []
    spool = Spool(tmp_path / "spool", LIMIT, nobody, health=told.append)
    key = await spool.accept(letter())
    with monkeypatch.context() as disk:
        disk.setattr(os, "statvfs", failing(OSError(errno.EIO, "Input/output error")))
        disk.setattr(space, "CHECK_INTERVAL", 0.0)
        with pytest.raises(SpoolUnavailable, match="Input/output error"):
            await spool.accept(letter())
        assert await spool.purge(0.0) == 0
        (message,) = await spool.take("default", (key,), 1)
        assert await spool.record(ending(key, message.recipient_ids, {State.SENT: TAKEN}))
    await spool.accept(letter())
    assert [type(one) for one in told] == [SpoolUnavailable, type(None)]
    spool.close()


@pytest.mark.parametrize("written", [0, 100, None])
async def test_a_ballast_that_does_not_fit_whole_is_not_left_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int | None
) -> None:
    write = os.write

    def short(handle: int, octets: bytes) -> int:
        if len(octets) < ballast.SIZE:
            return write(handle, octets)
        if written is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, octets[:written])

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", short)
        spool = Spool(tmp_path / "spool", LIMIT, nobody)
        assert not (tmp_path / "spool" / ballast.FILE).exists()
    await spool.purge(0.0)
    assert (tmp_path / "spool" / ballast.FILE).stat().st_size == ballast.SIZE
    spool.close()


async def test_on_a_disk_where_the_ballast_cannot_be_deleted_a_full_spool_is_called_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", LIMIT, nobody)
    key = await spool.accept(letter())
    (message,) = await spool.take("default", (), 1)
    monkeypatch.setattr(attempts, "record", failing(apsw.exception_for(apsw.SQLITE_FULL)))
    monkeypatch.setattr(Path, "unlink", failing(OSError(errno.EROFS, "Read-only file system")))
    with pytest.raises(SpoolFull):
        await spool.record(ending(key, message.recipient_ids, {State.BOUNCED: NO_SUCH_USER}))
    spool.close()


async def test_permissions_that_are_taken_away_break_the_spool_of_a_daemon_without_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrelay.spool.spool.LOOK_INTERVAL", 0.01)
    spool = Spool(tmp_path / "spool", LIMIT, nobody)
    watching = asyncio.ensure_future(spool.watch())
    allowed: Sequence[str] = [str(tmp_path / "spool")]
    # As root, every permission is given: the system says so, not the file.
    monkeypatch.setattr(
        "mailrelay.spool.files.os", SimpleNamespace(**vars(os) | {"access": lambda path, _: str(path) in allowed})
    )
    await watching
    assert "spool.db can no longer be written" in str(await spool.broken)
    spool.close()
