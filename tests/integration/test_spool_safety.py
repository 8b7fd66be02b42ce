"""The spool's promises about the disk: who may read it, what may open it, who may hold it, what a commit means."""

import asyncio
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw
import pytest
from harness.messages import LIMIT, NOW, TAKEN, ending, letter

from mailrelay.mail.lifecycle import State
from mailrelay.mail.record import Arrival
from mailrelay.mail.spool_errors import SpoolBroken, SpoolError, SpoolFull
from mailrelay.spool import accepting, ballast, listing, lock, trigger
from mailrelay.spool.database import FILE, check_library, connect, prepare_directory, translate
from mailrelay.spool.spool import Spool


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


def nobody(_relayhost: str) -> None:
    pass


def test_the_directory_and_all_that_is_in_it_are_ours_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directory = tmp_path / "a" / "spool"
        db = connect(directory)
        db.execute("INSERT INTO relayhost (name, failures) VALUES ('x', 0)")
        with lock.lock(directory):
            os.close(trigger.listen(directory))
            found = modes(directory)
        db.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert set(found.values()) == {0o600}
    assert {FILE, f"{FILE}-wal", lock.FILE, trigger.FILE} <= set(found)


def test_a_directory_that_others_can_enter_is_refused_with_the_command_that_fixes_it(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    with pytest.raises(SpoolError, match=f"chmod 700 {directory}"):
        connect(directory)


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("")
    with pytest.raises(SpoolError, match="not a directory"):
        prepare_directory(tmp_path / "spool")


def test_a_link_that_leads_nowhere_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spool").symlink_to(tmp_path / "not mounted")
    with pytest.raises(SpoolError, match="cannot be made: No such file or directory"):
        prepare_directory(tmp_path / "spool")


def test_a_spool_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    db = connect(tmp_path / "spool")
    db.pragma("user_version", 99)
    db.close()
    before = (tmp_path / "spool" / FILE).read_bytes()
    with pytest.raises(SpoolError, match="newer mailrelay"):
        connect(tmp_path / "spool")
    assert (tmp_path / "spool" / FILE).read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    prepare_directory(tmp_path / "spool")
    (tmp_path / "spool" / FILE).write_bytes(b"this is not a database, it is a letter\n" * 500)
    with pytest.raises(SpoolBroken):
        connect(tmp_path / "spool")


@pytest.mark.parametrize("version", ["3.7.0", "3.40.1", "3.51.2"])
def test_a_sqlite_that_can_lose_committed_mail_is_refused(version: str) -> None:
    with pytest.raises(SpoolError, match="can lose mail"):
        check_library(version)


def test_the_sqlite_that_is_installed_with_us_is_safe() -> None:
    version = apsw.sqlite_lib_version()
    assert tuple(map(int, version.split("."))) >= (3, 51, 3)
    check_library(version)


def test_a_file_system_that_cannot_keep_a_write_ahead_log_is_refused(tmp_path: Path) -> None:
    usual = apsw.vfs_names()[0]
    apsw.set_default_vfs("unix-none")
    try:
        with pytest.raises(SpoolError, match="cannot keep a write-ahead log"):
            connect(tmp_path / "spool")
    finally:
        apsw.set_default_vfs(usual)


def test_every_connection_syncs_each_commit(tmp_path: Path) -> None:
    db = connect(tmp_path / "spool")
    assert (db.pragma("journal_mode"), db.pragma("synchronous")) == ("wal", 2)


def test_looking_for_a_spool_makes_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect(tmp_path / "spool", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    held = "import sys, pathlib; from mailrelay.spool import lock\nwith lock.lock(pathlib.Path(sys.argv[1])):\n"
    program = held + "    print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdout.readline()
        assert lock.holder(tmp_path) == str(first.pid)
        with pytest.raises(lock.Held, match=f"process {first.pid}"), lock.lock(tmp_path):
            pass
        first.stdin.close()
        first.wait()
    assert lock.holder(tmp_path) is None
    with lock.lock(tmp_path):
        pass


def test_the_lock_names_its_holder_alone_after_one_with_a_longer_process_id(tmp_path: Path) -> None:
    (tmp_path / lock.FILE).write_text("123456789012345\n")
    with lock.lock(tmp_path):
        assert lock.holder(tmp_path) == str(os.getpid())


def test_a_bell_without_a_daemon_says_so_and_one_with_it_is_heard(tmp_path: Path) -> None:
    assert not trigger.fire(tmp_path)
    handle = trigger.listen(tmp_path)
    assert trigger.fire(tmp_path)
    assert os.read(handle, 1) == b"\n"
    trigger.drain(handle)
    os.close(handle)
    assert not trigger.fire(tmp_path)


# The daemon's view.


def on_open(monkeypatch: pytest.MonkeyPatch, prepare: Callable[[apsw.Connection], object]) -> list[apsw.Connection]:
    """Prepares each connection that a spool opens. Returns the list of them, the writing one first."""
    opened: list[apsw.Connection] = []

    def connect_prepared(directory: Path) -> apsw.Connection:
        opened.append(connect(directory))
        prepare(opened[-1])
        return opened[-1]

    monkeypatch.setattr("mailrelay.spool.spool.connect", connect_prepared)
    return opened


async def test_all_who_wait_at_a_moment_share_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = 0

    def count(_db: apsw.Connection, _name: str, _pages: int) -> int:
        nonlocal frames
        frames += 1
        return apsw.SQLITE_OK

    on_open(monkeypatch, lambda db: db.set_wal_hook(count))
    spool = Spool(tmp_path / "spool", LIMIT, nobody)
    keys = await asyncio.gather(*(spool.accept(letter()) for _ in range(200)))
    assert len(set(keys)) == 200
    assert 0 < frames < 20
    spool.close()


async def test_one_that_cannot_be_written_does_not_take_the_others_along(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", LIMIT, nobody)
    twin = letter()
    results = await asyncio.gather(
        *(spool.accept(one) for one in (letter(), twin, twin, letter())), return_exceptions=True
    )
    assert [isinstance(result, SpoolError) for result in results] == [False, False, True, False]
    spool.close()


async def test_who_stops_waiting_does_not_undo_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_messages = accepting.write_messages
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def write_slowly(db: apsw.Connection, arrivals: Sequence[Arrival]) -> list[int]:
        begun.release()
        go_on.acquire()
        return write_messages(db, arrivals)

    monkeypatch.setattr(accepting, "write_messages", write_slowly)
    spool = Spool(tmp_path / "spool", LIMIT, nobody)
    first = asyncio.create_task(spool.accept(letter(relayhost="other")))
    await asyncio.to_thread(begun.acquire)
    waiting = asyncio.create_task(spool.accept(letter()))
    other = asyncio.create_task(spool.accept(letter(relayhost="other")))
    # Behind the beginning of both, so that they share a commit.
    asyncio.get_running_loop().call_soon(go_on.release)
    await first
    await asyncio.to_thread(begun.acquire)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    go_on.release()
    await other
    assert await spool.next_due("default") == NOW
    spool.close()


async def test_on_a_full_disk_the_ballast_is_given_up_to_record_what_the_remote_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "spool"

    def full_while_the_ballast_is_there() -> None:
        if (directory / ballast.FILE).exists():
            raise apsw.FullError("database or disk is full")

    def fill(db: apsw.Connection) -> None:
        db.create_scalar_function("disk", full_while_the_ballast_is_there)
        db.execute("CREATE TEMP TRIGGER full BEFORE INSERT ON main.outcome BEGIN SELECT disk(); END")

    on_open(monkeypatch, fill)
    spool = Spool(directory, LIMIT, nobody)
    key = await spool.accept(letter())
    (message,) = await spool.take("default", (), 1)
    assert (directory / ballast.FILE).stat().st_blocks * 512 >= 8 * 1024 * 1024
    await spool.record(ending(key, message.recipient_ids, {State.SENT: TAKEN}))
    assert not (directory / ballast.FILE).exists()
    spool.close()
    db = connect(directory)
    assert [to.state for to in listing.one(db, key).recipients] == ["sent"]
    db.close()


async def test_after_the_disk_failed_nothing_more_is_written_by_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", LIMIT, nobody)
    await spool.accept(letter())

    def fail(_db: apsw.Connection, _arrivals: Sequence[Arrival]) -> list[int]:
        raise apsw.IOError("disk I/O error")

    with monkeypatch.context() as disk:
        disk.setattr(accepting, "write_messages", fail)
        with pytest.raises(SpoolBroken):
            await spool.accept(letter())
    with pytest.raises(SpoolBroken):
        await spool.accept(letter())
    assert isinstance(await spool.broken, SpoolBroken)
    spool.close()


async def test_a_full_disk_refuses_mail_without_ending_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = on_open(monkeypatch, lambda _db: None)
    spool = Spool(tmp_path / "spool", LIMIT, nobody)
    # Nothing is submitted, so the thread that writes does not use its connection.
    pages = opened[0].pragma("page_count")
    opened[0].pragma("max_page_count", pages + 4)
    with pytest.raises(SpoolFull):
        await spool.accept(letter(content=b"x" * 1_000_000))
    opened[0].pragma("max_page_count", pages + 4000)
    await spool.accept(letter())
    spool.close()


def test_the_lock_holds_where_the_disk_takes_not_even_the_process_id(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path; from mailrelay.spool import lock;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); directory = Path(sys.argv[1])\n"
        "with lock.lock(directory): print(repr(lock.holder(directory)))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("''\n", "")


@pytest.mark.parametrize("link", [False, True])
def test_a_bell_that_a_backup_made_a_plain_file_of_is_made_anew_and_hears_nothing_until_then(
    tmp_path: Path, link: bool
) -> None:
    bell, elsewhere = tmp_path / trigger.FILE, tmp_path / "elsewhere"
    elsewhere.write_bytes(b"kept")
    bell.symlink_to(elsewhere) if link else bell.write_bytes(b"")
    assert not trigger.fire(tmp_path)
    handle = trigger.listen(tmp_path)
    try:
        assert trigger.fire(tmp_path)
        assert os.read(handle, 10) == b"\n"
    finally:
        os.close(handle)
    assert elsewhere.read_bytes() == b"kept"


def test_a_disk_too_full_for_the_index_of_the_log_is_called_full_and_not_damaged() -> None:
    assert isinstance(translate(apsw.exception_for(apsw.SQLITE_IOERR_SHMSIZE)), SpoolFull)
    assert isinstance(translate(apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)), SpoolBroken)


async def test_a_ballast_of_which_a_power_cut_has_left_a_part_is_made_whole(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    prepare_directory(directory)
    (directory / ballast.FILE).write_bytes(b"")
    Spool(directory, LIMIT, nobody).close()
    assert (directory / ballast.FILE).stat().st_size == ballast.SIZE


def test_the_names_of_a_new_spool_are_on_disk_before_its_first_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    directory = tmp_path / "a" / "spool"
    connect(directory).close()
    assert {each.stat().st_ino for each in (directory, tmp_path / "a", tmp_path)} <= set(synced)
    synced.clear()
    connect(directory).close()
    assert synced == []


async def test_a_spool_that_is_closed_leaves_all_in_one_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", LIMIT, lambda _name: None)
    await spool.accept(letter())
    assert (tmp_path / "spool" / f"{FILE}-wal").stat().st_size > 0
    spool.close()
    assert sorted(path.name for path in (tmp_path / "spool").iterdir()) == [ballast.FILE, FILE]


async def test_a_limit_that_was_read_again_holds_for_the_next_message(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", LIMIT, nobody)
    content = b"x" * 100_000
    await spool.accept(letter(content=content))
    spool.limit(100_000)
    with pytest.raises(SpoolFull, match="max_size"):
        await spool.accept(letter(content=content))
    spool.limit(LIMIT)
    await spool.accept(letter(content=content))
    spool.close()


async def test_on_a_full_disk_the_ballast_is_given_up_so_that_the_spool_can_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "spool"
    prepare_directory(directory)
    file = directory / ballast.FILE
    file.write_bytes(b"x")

    def connect_where_there_is_room(directory: Path) -> apsw.Connection:
        if file.exists():
            raise SpoolFull("the spool's disk is full; make space")
        return connect(directory)

    monkeypatch.setattr("mailrelay.spool.spool.connect", connect_where_there_is_room)
    Spool(directory, LIMIT, nobody).close()
