"""A relayhost with a real SSH server, a mail server that counts what it accepts, and a scheduler whose spool can be read.

async with bench(directory, far, server, record="auto") as at:
    await at.accept(60); at.cut(); await at.until("state != 'sent'")
"""

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw

from harness.dropbear import Dropbear
from harness.messages import LIMIT, letter
from harness.processes import descendants
from harness.sshd import ALIAS, Sshd
from mailrelay.config import Relayhost, Tcp
from mailrelay.demo.mailserver import ByteWriter, converse
from mailrelay.demo.remote import Received
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.notice import Backend
from mailrelay.mail.recorded import Recording, RecordingState
from mailrelay.relay.scheduler import Scheduler
from mailrelay.spool import relayhosts
from mailrelay.spool.database import connect
from mailrelay.spool.spool import Spool
from mailrelay.ssh.dial import dial

PATIENCE = 30.0
KNOWN = Recording(RecordingState.POSSIBLE)
"""It is known that the relayhost records conversations: all are recorded, from the first one on."""


def know(spool: Path, known: Recording = KNOWN) -> None:
    """Makes a spool in which this is known of the relayhost."""
    with contextlib.closing(connect(spool)) as db:
        relayhosts.note_recording(db, "default", known)


class MailServer:
    """A mail server on a port of 127.0.0.1. taken: how often it has accepted each content. pause: seconds that it takes to
    judge one. open: how many clients it has. judging: how many contents it has been given and not judged. ends: at how many
    contents it closes the connection without a reply."""

    def __init__(self, extensions: tuple[bytes, ...]) -> None:
        self.extensions = extensions
        self.taken: Counter[bytes] = Counter()
        self.received: list[Received] = []
        self.pause = 0.0
        self.port = 0
        self.open = self.judging = self.ends = 0

    async def policy(self, verb: str, _argument: bytes) -> bytes | None:
        if verb == "CONTENT":
            self.judging += 1
            await asyncio.sleep(self.pause)
            self.judging -= 1
            if self.ends:
                self.ends -= 1
                raise ConnectionResetError
        return None

    async def keep(self, message: Received) -> None:
        self.taken[message.content] += 1

    async def serve(self, reader: asyncio.StreamReader, writer: ByteWriter) -> None:
        self.open += 1
        with contextlib.suppress(OSError):
            await converse(self, reader, writer)
        self.open -= 1
        writer.close()


class Bench:
    """far: the SSH server. db: for the tables of `spool`."""

    def __init__(
        self, far: Sshd | Dropbear, server: MailServer, spool: Spool, db: apsw.Connection, scheduler: Scheduler
    ) -> None:
        self.far, self.server, self.spool, self.db, self.scheduler = far, server, spool, db, scheduler
        self._numbers = itertools.count()

    @property
    def known(self) -> Recording:
        return relayhosts.recording(self.db, "default")

    @property
    def records(self) -> list[Path]:
        """The records there."""
        return list((self.far.directory / "home/.cache/mailrelay").glob("*"))

    async def accept(self, count: int) -> set[bytes]:
        contents = [b"number-%d\r\n" % next(self._numbers) for _ in range(count)]
        for content in contents:
            await self.spool.accept(letter(at=time.time(), content=content))
        self.scheduler.look_again()
        return set(contents)

    async def until(self, condition: str, most: int = 0) -> None:
        """Waits until at most so many recipients fit the condition."""
        async with asyncio.timeout(PATIENCE):
            while self.db.execute(f"SELECT count(*) FROM recipient WHERE {condition}").get > most:
                # A cut during a dial is a fault, which would pause the next dial.
                if self.db.execute("UPDATE relayhost SET next_dial = 0 WHERE next_dial > 0 RETURNING 1").get:
                    self.scheduler.look_again()
                # As a change of the network does.
                await self.spool.retry_lost("default")
                await asyncio.sleep(0.005)

    def recorders(self) -> list[int]:
        """The process ids of the recorders."""
        assert self.far.child is not None
        found = []
        for process in descendants(self.far.child.pid):
            with contextlib.suppress(FileNotFoundError):
                if Path(f"/proc/{process}/cmdline").read_bytes().startswith((b"mailrelay recorder", b"perl")):
                    found.append(process)
        return found

    def cut(self) -> None:
        """Ends all SSH connections at once, without a word to their channels."""
        assert self.far.child is not None
        for process in descendants(self.far.child.pid):
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if Path(f"/proc/{process}/cmdline").read_bytes().startswith((b"sshd", self.far.binary.encode())):
                    os.kill(process, signal.SIGKILL)


@asynccontextmanager
async def bench(
    directory: Path, far: Sshd | Dropbear, server: MailServer, ssh_config: Path | None = None, **settings: Any
) -> AsyncIterator[Bench]:
    """far: is running. ssh_config: by default that of `far`. settings: of the relayhost."""
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        spool = Spool(directory / "spool", LIMIT, lambda _name: None)
        relayhost = Relayhost(
            name="default",
            ssh=ALIAS,
            ssh_config=far.ssh_config if ssh_config is None and isinstance(far, Sshd) else ssh_config,
            smtp=Tcp("127.0.0.1", server.port),
            **{"channels": 3, "backlog_channels": 3, **settings},
        )
        policy = RetryPolicy((3600.0,), 432_000.0, lambda _kind, _sender, _notify: (Backend.MAILBOX,))
        scheduler = Scheduler(relayhost, spool, dial, policy, lambda: None)
        db = connect(directory / "spool")
        running = asyncio.ensure_future(scheduler.run())
        try:
            yield Bench(far, server, spool, db, scheduler)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            db.close()
            spool.close()
