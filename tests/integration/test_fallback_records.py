"""Two relayhosts with real SSH servers that keep records: a message whose reply was lost with its relayhost is never sent by
the other one, and arrives once."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from harness.messages import LIMIT, letter
from harness.processes import descendants
from harness.proof import KNOWN, PATIENCE, MailServer
from harness.sshd import ALIAS, Sshd

from mailrelay.config import Relayhost, Tcp
from mailrelay.demo.mailserver import EXTENSIONS
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.notice import Backend
from mailrelay.relay import dial_policy
from mailrelay.relay.fallback import Group
from mailrelay.relay.scheduler import Scheduler
from mailrelay.spool import actions, listing, relayhosts
from mailrelay.spool.database import connect
from mailrelay.spool.spool import Spool
from mailrelay.ssh.dial import dial


class Place:
    """A relayhost: its SSH server and its mail server."""

    def __init__(self, directory: Path) -> None:
        self.sshd = Sshd(directory)
        self.server = MailServer(EXTENSIONS)

    def fall(self) -> None:
        """The SSH server dies with all its connections; what was started there goes on."""
        assert self.sshd.child is not None
        for process in [*descendants(self.sshd.child.pid), self.sshd.child.pid]:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if Path(f"/proc/{process}/cmdline").read_bytes().startswith((b"sshd", self.sshd.binary.encode())):
                    os.kill(process, signal.SIGKILL)
        # Before `stop`, which ends all processes below a server that runs.
        self.sshd.child.ended()
        self.sshd.stop()


class Two:
    def __init__(
        self, spool: Spool, db: apsw.Connection, schedulers: dict[str, Scheduler], places: list[Place]
    ) -> None:
        self.spool, self.db, self.schedulers, self.places = spool, db, schedulers, places

    async def send(self, content: bytes) -> int:
        key = await self.spool.accept(replace(letter(at=time.time(), content=content), relayhost="first"))
        self.schedulers["first"].message_arrived(key)
        return key

    async def until(self, holds: Callable[[], object], *, dials: bool = False) -> None:
        """Waits; if `dials`, while relayhosts with a fault are dialled all the time."""
        async with asyncio.timeout(PATIENCE):
            while not holds():
                if dials:
                    self.dial()
                await asyncio.sleep(0.03)

    def state(self, key: int) -> tuple[str, str]:
        found = listing.one(self.db, key)
        return found.relayhost, found.recipients[0].state

    def dial(self) -> None:
        for name, scheduler in self.schedulers.items():
            actions.dial_now(self.db, name, time.time())
            scheduler.look_again()

    def taken(self, number: int) -> dict[bytes, int]:
        return {
            content.rpartition(b"\r\n\r\n")[2].strip(): times
            for content, times in self.places[number].server.taken.items()
        }


@asynccontextmanager
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        places = [Place(tmp_path / name) for name in ("first", "second")]
        db = connect(tmp_path / "spool")
        spool = Spool(tmp_path / "spool", LIMIT, lambda _name: None)
        policy = RetryPolicy((3600.0,), 432_000.0, lambda _kind, _sender, _notify: (Backend.MAILBOX,))
        schedulers: dict[str, Scheduler] = {}
        group = Group(schedulers)
        for name, place in zip(("first", "second"), places, strict=True):
            stack.callback(place.sshd.stop)
            listening = await stack.enter_async_context(await asyncio.start_server(place.server.serve, "127.0.0.1", 0))
            relayhosts.note_recording(db, name, KNOWN)
            relayhost = Relayhost(
                name=name,
                ssh=ALIAS,
                ssh_config=place.sshd.ssh_config,
                smtp=Tcp("127.0.0.1", listening.sockets[0].getsockname()[1]),
                track="off",
                fallback=("second",) if name == "first" else (),
            )
            schedulers[name] = Scheduler(relayhost, spool, dial, policy, lambda: None, group=group)
        running = [asyncio.ensure_future(one.run()) for one in schedulers.values()]
        try:
            yield Two(spool, db, schedulers, places)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            db.close()
            spool.close()


@pytest.fixture(autouse=True)
def dials_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_policy, "EARLY_DIAL_WAIT", 0.0)


async def test_a_reply_that_was_lost_with_the_relayhost_is_read_there_and_the_fallback_sends_only_the_rest(
    tmp_path: Path,
) -> None:
    async with two(tmp_path) as at:
        first, second = at.places
        first.sshd.start()
        second.sshd.start()
        first.server.pause = 0.5
        doubtful = await at.send(b"one\r\n")
        await at.until(lambda: first.server.judging)
        first.fall()
        await at.until(lambda: listing.one(at.db, doubtful).recipients[0].uncertain is not None)
        other = await at.send(b"two\r\n")
        await at.until(lambda: at.state(other) == ("second", "sent"))
        await at.until(lambda: at.taken(0) == {b"one": 1}, dials=True)
        assert at.state(doubtful) == ("first", "deferred")
        first.sshd.start()
        await at.until(lambda: at.state(doubtful) == ("first", "sent"), dials=True)
        await at.until(lambda: not at.schedulers["first"].is_unreachable)
        last = await at.send(b"three\r\n")
        await at.until(lambda: at.state(last) == ("first", "sent"))
        assert (at.taken(0), at.taken(1)) == ({b"one": 1, b"three": 1}, {b"two": 1})
        assert at.db.execute("SELECT count(*) FROM recipient WHERE uncertain IS NOT NULL").get == 0


async def test_a_reply_that_was_lost_with_the_fallback_is_read_there_although_the_relayhost_is_back(
    tmp_path: Path,
) -> None:
    async with two(tmp_path) as at:
        first, second = at.places
        second.sshd.start()
        second.server.pause = 0.5
        doubtful = await at.send(b"one\r\n")
        await at.until(lambda: second.server.judging)
        second.fall()
        await at.until(lambda: listing.one(at.db, doubtful).recipients[0].uncertain is not None)
        first.sshd.start()
        at.dial()
        other = await at.send(b"two\r\n")
        await at.until(lambda: at.state(other) == ("first", "sent"))
        await at.until(lambda: at.taken(1) == {b"one": 1})
        assert at.state(doubtful) == ("second", "deferred")
        second.sshd.start()
        await at.until(lambda: at.state(doubtful) == ("second", "sent"), dials=True)
        assert (at.taken(0), at.taken(1)) == ({b"two": 1}, {b"one": 1})
        assert listing.one(at.db, doubtful).fallback_for == "first"
        assert at.db.execute("SELECT count(*) FROM recipient WHERE uncertain IS NOT NULL").get == 0
