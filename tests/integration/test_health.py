"""The daemon in trouble: the person hears of it without the spool, `mailrelay status` and the service manager see it."""

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness.daemon import served, settings
from harness.waiting import until

from mailrelay import health as health_module
from mailrelay import lazy
from mailrelay.config import Notify
from mailrelay.demo.remote import Remote
from mailrelay.health import Health
from mailrelay.mail.spool_errors import SpoolBroken, SpoolError, SpoolFull, SpoolUnavailable
from mailrelay.notify.backend import Deliver
from mailrelay.notify.emergency import REMIND, RETRY, Emergency
from mailrelay.notify.memory import Memory
from mailrelay.spool import liveness

BROKEN = SpoolBroken("the disk is damaged; look at the disk")
QUOTA = SpoolFull("the disk is full; make space")
NO_ROOM = SpoolFull("the limit is reached; see the queue", left=5_000_000)


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setattr(health_module, "SETTLE", 0.0)
    monkeypatch.setattr(health_module, "LOOK_INTERVAL", 0.05)


class Person:
    """A person with a Maildir and a command, and the memory of what was told. now: the clock."""

    def __init__(self, directory: Path, *command: str) -> None:
        self.directory = directory
        self.spool = directory / "spool"
        self.spool.mkdir(mode=0o700)
        self.now = 1.7e9
        self.memory = directory / "runtime" / "memory"
        self.settings = Notify(
            desktop=False,
            dsn=True,
            mailbox=directory / "Maildir",
            command=command or ("sh", "-c", f"cat >>'{directory}/heard'"),
        )

    def emergency(self) -> Emergency:
        return Emergency(self.settings, self.spool, lazy, Memory(self.memory), lambda: self.now)

    @property
    def heard(self) -> list[dict[str, object]]:
        """What the command was given."""
        file = self.directory / "heard"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def letters(self) -> list[str]:
        return [file.read_text() for file in (self.directory / "Maildir/new").glob("*")]


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


class Look:
    """What the daemon finds at each look at the spool."""

    def __init__(self, finds: SpoolError | None = None) -> None:
        self.finds = finds
        self.looked = asyncio.Event()

    async def __call__(self) -> None:
        self.looked.set()
        if self.finds is not None:
            raise self.finds


@contextlib.asynccontextmanager
async def watching(
    person: Person, look: Callable[[], Awaitable[None]], resume: Callable[[], None] = lambda: None
) -> AsyncIterator[Health]:
    async with Health(person.spool, person.emergency()) as health:
        health.answer()
        task = asyncio.create_task(health.watch(look, resume))
        try:
            yield health
        finally:
            task.cancel()


async def answer(person: Person) -> liveness.Answer:
    found = await asyncio.to_thread(liveness.ask, person.spool, 10.0)
    assert found is not None
    return found


@pytest.mark.parametrize("error", [BROKEN, QUOTA])
async def test_trouble_is_told_once_by_every_backend_and_shown_at_once(person: Person, error: SpoolError) -> None:
    async with watching(person, Look(error)) as health:
        for _ in range(5):
            health.report(error)
        found = await answer(person)
        assert (found.pid, found.full or found.failure) == (os.getpid(), str(error))
        assert bool(found.full) is (error is QUOTA)
    (notice,) = person.heard
    assert notice["kind"] == "spool"
    assert notice["title"] == "mailrelay accepts no mail: its spool cannot be used"
    assert notice["text"] == f"{str(error).partition(';')[0].capitalize()}. The spool is {person.spool}."
    assert notice["fix"] in ("Look at the disk", "Make space")
    assert (notice["queue_id"], notice["relayhost"], notice["recipients"]) == ("", "", [])
    (letter,) = person.letters
    assert "mailrelay accepts no mail" in letter
    assert str(notice["fix"]) in letter


async def test_when_it_is_over_there_is_one_line_and_the_next_trouble_is_told_again(
    person: Person, caplog: pytest.LogCaptureFixture
) -> None:
    look = Look(QUOTA)
    async with watching(person, look) as health:
        health.report(QUOTA)
        look.finds = None
        health.report(None)
        await until(lambda: "can be used again" in caplog.text)
        assert (await answer(person)).full == ""
        health.report(None)
        person.now += 1
        health.report(QUOTA)
    assert len(person.heard) == 2
    assert caplog.text.count("can be used again") == 1


@pytest.mark.parametrize("error", [QUOTA, SpoolUnavailable("another program has locked the spool; try again")])
async def test_work_that_waits_because_of_trouble_is_resumed_when_it_is_over(person: Person, error: SpoolError) -> None:
    look, resumed = Look(error), asyncio.Event()
    async with watching(person, look, resumed.set) as health:
        health.report(error)
        await look.looked.wait()
        assert not resumed.is_set()
        look.finds = None
        health.report(None)
        await resumed.wait()


async def test_trouble_that_ends_while_nobody_sends_mail_is_over_too(person: Person) -> None:
    look = Look(QUOTA)
    async with watching(person, look) as health:
        health.report(QUOTA)
        look.finds = None
        while (await answer(person)).full:
            pass


async def test_trouble_that_lasts_is_told_again_after_an_hour(person: Person) -> None:
    async with watching(person, Look(QUOTA)) as health:
        health.report(QUOTA)
        await until(lambda: person.heard)
        person.now += REMIND + 1
        await until(lambda: len(person.heard) == 2)
    assert len(person.letters) == 2


@pytest.mark.parametrize("error", [NO_ROOM, SpoolUnavailable("another program has locked the spool; try again")])
async def test_a_message_that_is_too_large_for_the_room_is_no_trouble_and_neither_is_an_instant(
    person: Person, error: SpoolError
) -> None:
    look, resumed = Look(), asyncio.Event()
    async with watching(person, look, resumed.set) as health:
        health.report(error)
        await look.looked.wait()
        assert (await answer(person)).full == ""
    assert person.heard == []
    # Else work that is too large is tried in a loop.
    assert resumed.is_set() is (error is not NO_ROOM)


async def test_if_an_ordinary_message_has_no_room_either_it_is_told(person: Person) -> None:
    async with watching(person, Look(SpoolFull("the limit is reached; see the queue", left=5))) as health:
        health.report(NO_ROOM)
        await until(lambda: person.heard)
        assert (await answer(person)).full


async def test_the_next_processes_do_not_tell_it_again(person: Person, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        person.now += 5
        with pytest.raises(SpoolBroken):
            async with Health(person.spool, person.emergency()):
                raise BROKEN
    assert len(person.heard) == 1
    # It starts, and fails again soon.
    person.now += 5
    async with watching(person, Look()) as health:
        health.report(BROKEN)
    assert len(person.heard) == 1
    assert "again" not in caplog.text


async def test_a_daemon_that_has_run_for_a_while_since_says_that_it_is_over(
    person: Person, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "LASTING", 0.1)
    with pytest.raises(OSError, match="read-only"):
        async with Health(person.spool, person.emergency()):
            raise OSError(30, "read-only", "/spool/lock")
    assert "/spool/lock: read-only" in str(person.heard[0]["text"])
    async with watching(person, Look()):
        await until(lambda: "can be used again" in caplog.text)
    assert not person.emergency().is_remembered


async def test_what_cannot_be_remembered_is_told_by_a_daemon_that_runs_and_not_by_each_failed_start(
    person: Person,
) -> None:
    person.memory = person.directory / "nowhere" / "memory"
    for _ in range(3):
        with pytest.raises(SpoolBroken):
            async with Health(person.spool, person.emergency()):
                raise BROKEN
    assert person.heard == []
    async with watching(person, Look(QUOTA)) as health:
        health.report(QUOTA)
        health.report(QUOTA)
    assert len(person.heard) == 1


async def test_a_backend_that_fails_or_hangs_holds_up_neither_the_others_nor_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "FINISH", 0.2)
    delivered = asyncio.Event()

    async def hangs(_: object) -> None:
        await asyncio.Event().wait()

    async def fails(_: object) -> None:
        raise RuntimeError("no\x1b such Maildir")

    async def delivers(_: object) -> None:
        delivered.set()

    def deliver(one: Deliver) -> Callable[..., Deliver]:
        return lambda *_: one

    loaders = SimpleNamespace(
        desktop=lambda: hangs,
        mailbox=lambda: deliver(fails),
        command=lambda: deliver(delivers),
        urls=None,
    )
    notify = Notify(desktop=True, dsn=False, mailbox=tmp_path, command=("true",))
    emergency = Emergency(notify, tmp_path, loaders, Memory(tmp_path / "memory"))  # type: ignore[arg-type]
    with pytest.raises(SpoolBroken):
        async with Health(tmp_path, emergency):
            raise BROKEN
    assert delivered.is_set()
    assert r"not delivered by mailbox: RuntimeError: no\x1b such Maildir" in caplog.text


async def test_if_no_backend_delivers_it_it_is_tried_again_after_a_minute(tmp_path: Path) -> None:
    person = Person(tmp_path, "sh", "-c", f"cat >>'{tmp_path}/heard'; exit 1")
    (tmp_path / "Maildir").touch()
    async with watching(person, Look(QUOTA)) as health:
        health.report(QUOTA)
        await until(lambda: person.heard)
    for wait, count in ((1, 1), (RETRY + 1, 2)):
        person.now += wait
        async with watching(person, Look(QUOTA)) as health:
            health.report(QUOTA)
        assert len(person.heard) == count


async def test_a_start_that_fails_because_of_the_spool_is_told(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o755)
    (tmp_path / "spool").chmod(0o755)
    with pytest.raises(SpoolError, match="open to other users"):
        async with served(settings(tmp_path)):
            pass
    (letter,) = (tmp_path / "Maildir/new").iterdir()
    assert "chmod 700" in letter.read_text()


async def test_the_whole_daemon_tells_of_a_spool_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    async with Remote(tmp_path / "remote") as remote, served(settings(tmp_path, remote.relayhost())) as (_, daemon):
        (tmp_path / "spool" / "spool.db").unlink()
        with pytest.raises(SpoolBroken):
            await daemon
    (letter,) = (tmp_path / "Maildir/new").iterdir()
    assert "accepts no mail" in letter.read_text()


# The socket.


async def test_strangers_who_send_or_do_not_read_or_are_many_hold_nothing_up(person: Person) -> None:
    async with watching(person, Look()):
        strangers = []
        for _ in range(liveness.BACKLOG * 2):
            stranger = socket.socket(socket.AF_UNIX)
            await asyncio.to_thread(stranger.connect, str(person.spool / liveness.FILE))
            with contextlib.suppress(OSError):
                stranger.send(b"x" * 10_000)
            strangers.append(stranger)
        assert (await answer(person)).pid == os.getpid()
        for stranger in strangers:
            stranger.close()
        assert (await answer(person)).pid == os.getpid()


async def test_a_socket_that_was_deleted_is_made_again(person: Person) -> None:
    async with watching(person, Look()):
        (person.spool / liveness.FILE).unlink()
        await until((person.spool / liveness.FILE).exists)
        assert (await answer(person)).pid == os.getpid()


async def test_a_socket_that_cannot_be_made_ends_nothing(person: Person, caplog: pytest.LogCaptureFixture) -> None:
    (person.spool / liveness.FILE).mkdir()
    async with watching(person, Look()):
        assert "cannot ask the daemon" in caplog.text


# The watchdog.


async def test_the_event_loop_answers_the_watchdog_of_the_service_manager(person: Person) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(person.directory / "manager"))
        manager.settimeout(10)
        environ = {"NOTIFY_SOCKET": str(person.directory / "manager"), "WATCHDOG_USEC": "40000"}
        async with Health(person.spool, person.emergency(), environ):
            assert [await asyncio.to_thread(manager.recv, 100) for _ in range(3)] == [b"WATCHDOG=1"] * 3


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mailrelay")
