"""The files of the spool under a daemon that has them open: what is removed, replaced or cut off is not called durable."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import apsw
import pytest
from harness.messages import LIMIT, letter

from mailrelay.mail.spool_errors import SpoolBroken, SpoolError
from mailrelay.spool import accepting, command_spool, listing
from mailrelay.spool.database import FILE, connect, transaction
from mailrelay.spool.files import SpoolFiles
from mailrelay.spool.spool import Spool

LOG, INDEX = f"{FILE}-wal", f"{FILE}-shm"


def nobody(_relayhost: str) -> None:
    pass


@contextmanager
def open_spool(directory: Path, health: Callable[[SpoolError | None], None] = lambda _: None) -> Iterator[Spool]:
    spool = Spool(directory, LIMIT, nobody, health=health)
    try:
        yield spool
    finally:
        spool.close()


def checkpoint(directory: Path, mode: int = apsw.SQLITE_CHECKPOINT_PASSIVE) -> None:
    """By another process: a connection of this one could not see the locks of the spool."""
    program = (
        "import sys; from pathlib import Path; from mailrelay.spool.database import connect\n"
        "print(connect(Path(sys.argv[1])).wal_checkpoint(mode=int(sys.argv[2])))"
    )
    subprocess.run([sys.executable, "-c", program, str(directory), str(mode)], check=True, capture_output=True)


def cut(path: Path, octets: int) -> None:
    os.truncate(path, octets)


def replace_by_copy(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.rename(path)


def remove_all(directory: Path) -> None:
    real = directory.resolve()
    shutil.rmtree(real)
    real.mkdir(mode=0o700)


def switch(directory: Path) -> None:
    """The directory is a symbolic link in these tests: now it leads to a copy of what it led to."""
    shutil.copytree(directory, directory.with_name("elsewhere"))
    directory.unlink()
    directory.symlink_to(directory.with_name("elsewhere"))


def overwrite(path: Path) -> None:
    """With what it held before: as `cp` does it, which keeps the file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "the directory is emptied": remove_all,
    "the directory is moved": lambda directory: directory.rename(directory.with_name("moved")),
    "the directory is another one": switch,
    **{
        f"{name} is {what}": (lambda directory, name=name, do=do: do(directory / name))
        for name in (FILE, LOG, INDEX)
        for what, do in {
            "removed": Path.unlink,
            "moved": lambda path: path.rename(path.with_name("moved")),
            "replaced": replace_by_copy,
            "emptied": lambda path: cut(path, 0),
            "cut in half": lambda path: cut(path, path.stat().st_size // 2),
            "a little shorter": lambda path: cut(path, path.stat().st_size - 1),
            "overwritten": overwrite,
        }.items()
    },
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A spool with messages in the file and in the log."""
    (tmp_path / "real").mkdir(mode=0o700)
    directory = tmp_path / "spool"
    directory.symlink_to(tmp_path / "real")
    with closing(connect(directory)) as db, transaction(db):
        accepting.accept(db, letter(content=b"in the file\r\n" * 10_000), LIMIT)
    return directory


@pytest.mark.parametrize("damage", DAMAGES)
async def test_what_is_committed_after_a_damage_is_not_called_durable(directory: Path, damage: str) -> None:
    told: list[SpoolError | None] = []
    with open_spool(directory, told.append) as spool:
        await spool.accept(letter(content=b"in the log\r\n" * 1000))
        DAMAGES[damage](directory)
        with pytest.raises(SpoolBroken):
            await spool.accept(letter())
        assert isinstance(spool.broken.result(), SpoolBroken)
        with pytest.raises(SpoolBroken):
            await spool.next_due("default")
    assert told == [spool.broken.result()]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damage_is_found_by_a_daemon_without_work(
    directory: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrelay.spool.spool.LOOK_INTERVAL", 0.01)
    with open_spool(directory) as spool:
        await spool.accept(letter(content=b"in the log\r\n" * 1000))
        watching = asyncio.ensure_future(spool.watch())
        DAMAGES[damage](directory)
        await watching
        assert isinstance(spool.broken.result(), SpoolBroken)


async def test_a_log_that_is_removed_when_all_of_it_is_in_the_file_is_missed_too(directory: Path) -> None:
    with open_spool(directory) as spool:
        await spool.accept(letter())
        checkpoint(directory)
        (directory / LOG).unlink()
        with pytest.raises(SpoolBroken, match="was removed"):
            await spool.accept(letter())


async def test_a_log_cut_off_and_grown_again_is_found(directory: Path) -> None:
    with open_spool(directory) as spool:
        for _ in range(20):
            await spool.accept(letter())
        size = (directory / LOG).stat().st_size
        cut(directory / LOG, size // 2)
        cut(directory / LOG, size)
        with pytest.raises(SpoolBroken, match="was cut off"):
            await spool.accept(letter())


@pytest.mark.parametrize("octets", [0, 20_000])
async def test_a_log_that_is_cut_off_during_a_commit_is_found(
    directory: Path, octets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_messages = accepting.write_messages
    with open_spool(directory) as spool:
        for _ in range(5):
            await spool.accept(letter())

        def cut_meanwhile(db: apsw.Connection, arrivals: object) -> list[int]:
            keys = write_messages(db, arrivals)  # type: ignore[arg-type]
            cut(directory / LOG, octets)
            return keys

        monkeypatch.setattr(accepting, "write_messages", cut_meanwhile)
        with pytest.raises(SpoolBroken, match="was cut off"):
            await spool.accept(letter())


async def test_the_log_of_another_spool_at_the_same_path_survives_the_end_of_the_daemon(directory: Path) -> None:
    with open_spool(directory) as spool:
        await spool.accept(letter())
        (directory / LOG).rename(directory / "moved")
        (directory / LOG).write_bytes(b"the log of a restored backup")
        with pytest.raises(SpoolBroken):
            await spool.accept(letter())
    assert (directory / LOG).read_bytes() == b"the log of a restored backup"


@pytest.mark.parametrize("damage", ["the directory is emptied", f"{FILE} is removed", f"{LOG} is emptied"])
def test_a_command_says_that_a_message_is_stored_only_if_it_is_found_again(
    directory: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = accepting.accept

    def accept_and_damage(db: apsw.Connection, arrival: object, max_size: int) -> int:
        key = accept(db, arrival, max_size)  # type: ignore[arg-type]
        DAMAGES[damage](directory)
        return key

    with closing(connect(directory)) as held:
        with transaction(held):
            accept(held, letter(), LIMIT)
        monkeypatch.setattr(accepting, "accept", accept_and_damage)
        one = letter()
        with pytest.raises(SpoolBroken):
            command_spool.CommandSpool(directory, LIMIT).enqueue(one.envelope, one.content, "default")


COMMAND = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from harness.messages import LIMIT, letter
from mailrelay.spool.command_spool import CommandSpool
one = letter(content=b"x" * 30_000)
for _ in range(int(sys.argv[3])):
    CommandSpool(Path(sys.argv[1]), LIMIT).enqueue(one.envelope, one.content, "default")
"""


async def test_commands_that_write_and_checkpoints_that_they_make_are_no_damage(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrelay.spool.spool.LOOK_INTERVAL", 0.005)
    tests = str(Path(__file__).parent.parent)
    told: list[SpoolError | None] = []
    with open_spool(directory, told.append) as spool:
        watching = asyncio.ensure_future(spool.watch())
        commands = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", COMMAND, str(directory), tests, "60")
            for _ in range(2)
        ]
        ended = asyncio.gather(*(command.wait() for command in commands))
        accepted = 0
        while not ended.done():
            await asyncio.gather(*(spool.accept(letter(content=b"y" * 20_000)) for _ in range(5)))
            accepted += 5
            mode = (apsw.SQLITE_CHECKPOINT_PASSIVE, apsw.SQLITE_CHECKPOINT_RESTART, apsw.SQLITE_CHECKPOINT_TRUNCATE)
            if accepted % 50 == 0:
                # One that finds the database busy for too long has failed, and has done nothing.
                with suppress(subprocess.CalledProcessError):
                    await asyncio.to_thread(checkpoint, directory, mode[accepted // 50 % 3])
        assert await ended == [0, 0]
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        assert (told, spool.broken.done()) == ([], False)
    with closing(connect(directory)) as db:
        assert len(list(listing.everything(db))) == accepted + 121


async def test_a_file_that_shrinks_because_mail_was_deleted_is_no_damage(directory: Path) -> None:
    with open_spool(directory) as spool:
        await spool.accept(letter(content=b"z" * 5_000_000))
        await spool.accept(letter())
        size = (directory / FILE).stat().st_size

        def vacuum(db: apsw.Connection) -> None:
            db.execute("DELETE FROM message")
            db.execute("PRAGMA incremental_vacuum").fetchall()

        await spool._write(vacuum)
        checkpoint(directory)
        await spool.accept(letter())
        assert (directory / FILE).stat().st_size < size
        assert not spool.broken.done()


PAGE = 4096


@contextmanager
def last_page_in_the_log(directory: Path, *, later_commits: int) -> Iterator[apsw.Connection]:
    """A spool whose last page, and no other one, was changed since the log was copied into the file, in the first frame of
    the log."""
    with closing(connect(directory)) as db:
        assert db.pragma("page_size") == PAGE
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        key, length = db.execute("SELECT rowid, length(data) FROM content ORDER BY rowid DESC LIMIT 1").get
        with db.blob_open("main", "content", "data", key, True) as blob:
            blob.seek(length - 1)
            blob.write(b"x")
        for number in range(later_commits):
            db.execute("INSERT INTO relayhost (name, failures) VALUES (?, 0)", (f"{number}",))
        yield db


@pytest.mark.parametrize("later_commits", [0, 2])
@pytest.mark.parametrize("pages", [0, 1, 2])
def test_a_page_that_the_file_lacks_is_damage_unless_the_log_has_it(
    directory: Path, pages: int, later_commits: int
) -> None:
    """pages: so many are missing at the end of the file; the log has the last one. Nothing was looked at before."""
    with last_page_in_the_log(directory, later_commits=later_commits) as db:
        cut(directory / FILE, (directory / FILE).stat().st_size - pages * PAGE)
        with closing(SpoolFiles(directory, db)) as files:
            for _ in range(2):
                if pages < 2:
                    files.check()
                else:
                    with pytest.raises(SpoolBroken, match=r"spool\.db was cut off"):
                        files.check()


@pytest.mark.parametrize("is_looked_at", [False, True])
def test_a_file_that_lacks_its_last_page_is_damaged_also_with_an_empty_log(directory: Path, is_looked_at: bool) -> None:
    with closing(connect(directory)) as db:
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        with closing(SpoolFiles(directory, db)) as files:
            if is_looked_at:
                files.check()
            cut(directory / FILE, (directory / FILE).stat().st_size - PAGE)
            with pytest.raises(SpoolBroken):
                files.check()


def test_pages_that_are_only_in_the_log_are_not_missing_in_the_file(directory: Path) -> None:
    with closing(connect(directory)) as db, closing(SpoolFiles(directory, db)) as files:
        for _ in range(3):
            before = (directory / FILE).stat().st_size
            with transaction(db):
                accepting.accept(db, letter(content=b"x" * 5 * PAGE), LIMIT)
            files.check()
            with closing(SpoolFiles(directory, db)) as new:
                new.check()
                assert new.frames == files.frames > 0
            assert (directory / FILE).stat().st_size == before


@pytest.mark.parametrize("octets", [0, 32, 5000])
def test_what_a_killed_process_left_in_the_log_is_no_damage(directory: Path, octets: int) -> None:
    with closing(connect(directory)) as db:
        db.execute("INSERT INTO relayhost (name, failures) VALUES ('x', 0)")
        left = (directory / LOG).read_bytes()[:octets]
    (directory / LOG).write_bytes(left)
    with closing(connect(directory)) as db, closing(SpoolFiles(directory, db)) as files:
        files.check()
        db.execute("INSERT INTO relayhost (name, failures) VALUES ('y', 0)")
        files.check()
        assert files.frames > 0


async def test_the_log_is_copied_into_the_file_also_when_only_commands_write(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrelay.spool.spool.LOOK_INTERVAL", 0.01)
    with open_spool(directory) as spool:
        watching = asyncio.ensure_future(spool.watch())
        with closing(connect(directory)) as db, transaction(db):
            accepting.accept(db, letter(content=b"x" * 6_000_000), LIMIT)
        while (directory / FILE).stat().st_size < 6_000_000:
            await asyncio.sleep(0.01)
        watching.cancel()


def open_descriptors() -> set[int]:
    found = set()
    for descriptor in range(1024):
        with suppress(OSError):
            os.fstat(descriptor)
            found.add(descriptor)
    return found


async def test_a_spool_that_is_closed_holds_no_file_open(tmp_path: Path) -> None:
    before = open_descriptors()
    with open_spool(tmp_path / "spool") as spool:
        await spool.accept(letter())
        assert len(open_descriptors() - before) > 2
    assert open_descriptors() <= before
