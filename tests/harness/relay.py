"""A scheduler at work between a real spool and a real SSH server with a scripted mail server, in one process."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from harness.messages import LIMIT, letter
from mailrelay.config import Relayhost
from mailrelay.demo.remote import Remote
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.notice import Backend
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.overview import Listed
from mailrelay.network.events import Change
from mailrelay.relay.scheduler import Scheduler
from mailrelay.spool import listing
from mailrelay.spool.database import connect
from mailrelay.spool.spool import Spool
from mailrelay.ssh.dial import dial
from mailrelay.ssh.interface import Connection, Dial, Fault

PATIENCE = 20.0


class WatchedSpool(Spool):
    """A spool that counts how often a scheduler has asked when mail is due."""

    questions = 0

    async def next_due(self, relayhost: str, others: Sequence[str] = ()) -> float | None:
        due = await super().next_due(relayhost, others)
        self.questions += 1
        return due


@dataclass
class RelayHarness:
    """A scheduler at work between a spool and a remote. db: a connection to that spool of the test's own."""

    directory: Path
    remote: Remote
    spool: WatchedSpool
    db: apsw.Connection
    scheduler: Scheduler
    running: asyncio.Future[None]

    async def stop(self) -> None:
        """Ends the scheduler, whatever is under way."""
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def send(self, *recipients: bytes, content: bytes = b"hello\r\n") -> int:
        """Accepts a message as the listener does; returns its key in the spool."""
        key = await self.spool.accept(letter(*recipients, at=time.time(), content=content))
        self.scheduler.message_arrived(key)
        return key

    def message(self, key: int) -> Listed:
        """A message as the listing has it."""
        return listing.one(self.db, key)

    async def states(self, key: int) -> list[str]:
        """The states of a message's recipients."""
        return [to.state for to in self.message(key).recipients]

    def open_attempts(self) -> int:
        return int(self.db.execute("SELECT count(*) FROM attempt WHERE closed IS NULL").get)

    async def until(self, holds: Callable[[], bool | Awaitable[bool]]) -> None:
        """Waits until `holds` is true. It asks again and again: the spool and the remote announce nothing to a test."""
        async with asyncio.timeout(PATIENCE):
            while not (await answer if isinstance(answer := holds(), Awaitable) else answer):
                await asyncio.sleep(0.01)

    async def looked_again(self, times: int = 2) -> None:
        """Has the scheduler look into the spool so often. All that it decided before the last time has begun then.

        For a scheduler with a connection that is up, or with none, and without messages in progress.
        """
        for _ in range(times):
            questions = self.spool.questions
            self.scheduler.look_again()
            await self.until(lambda: self.spool.questions > questions)  # noqa: B023

    async def settled(self, key: int, *states: str) -> None:
        async def holds() -> bool:
            return await self.states(key) == list(states)

        await self.until(holds)

    async def failure(self) -> Cause:
        async def holds() -> bool:
            return await self.spool.relayhost_failure("default") is not None

        await self.until(holds)
        failure = await self.spool.relayhost_failure("default")
        assert failure is not None
        return failure.cause


@asynccontextmanager
async def running_relay(
    tmp_path: Path,
    *,
    retry: float = 3600.0,
    linger: float = 30.0,
    channels: int = 8,
    backlog_channels: int = 0,
    dial: Dial = dial,
    remote: type[Remote] = Remote,
) -> AsyncIterator[RelayHarness]:
    (tmp_path / "remote").mkdir()
    async with remote(tmp_path / "remote") as server:
        spool = WatchedSpool(tmp_path / "spool", LIMIT, lambda _name: None)
        policy = RetryPolicy((retry,), 432_000.0, lambda kind, sender, notify: (Backend.MAILBOX,))
        relayhost = server.relayhost(
            name="default", linger=linger, channels=channels, backlog_channels=max(channels, backlog_channels)
        )
        scheduler = Scheduler(relayhost, spool, dial, policy, lambda: None)
        db = connect(tmp_path / "spool")
        at = RelayHarness(tmp_path / "spool", server, spool, db, scheduler, asyncio.ensure_future(scheduler.run()))
        try:
            yield at
        finally:
            await at.stop()
            db.close()
            spool.close()


OPENS = Change(may_connect=True)
SLEPT = Change(suspended=3600.0)


class Network:
    """The network between a relayhost and its remote. While `is_away`, every dial fails; while `hangs`, no dial ends."""

    def __init__(self) -> None:
        self.is_away = self.hangs = False
        self.dials = 0

    async def dial(self, relayhost: Relayhost) -> Connection:
        self.dials += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_away:
            raise Fault(Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="Network is unreachable."))
        return await dial(relayhost)


class HeldContent:
    """The policy of a mail server that does not reply to the first content until `go_on` is set. reached: it has come."""

    def __init__(self) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, verb: str, _argument: bytes) -> bytes | None:
        if verb == "CONTENT" and not self.reached.is_set():
            self.reached.set()
            await self.go_on.wait()
        return None
