"""What a large message costs in memory, from the socket to the spool and from the spool to the remote, counted in octets."""

import asyncio
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from harness.loops import on_uvloop
from harness.messages import LIMIT

from mailrelay.config import Listen, Relayhost
from mailrelay.endpoint import Tcp
from mailrelay.intake import Intake
from mailrelay.listener.listening import listen
from mailrelay.mail.envelope import Envelope, Message
from mailrelay.mail.outcome import Outcome
from mailrelay.relay.delivery import converse
from mailrelay.relay.jobs import Job, MessageJob
from mailrelay.relay.waiters import Waiters
from mailrelay.spool.spool import Spool

SIZE = 25_000_000
ALLOWED = 512 * 1024
CLIENT = """
import socket, sys
server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
replies = server.makefile("rb")
replies.readline()
for line in (b"HELO x", b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>", b"DATA"):
    server.sendall(line + b"\\r\\n")
    replies.readline()
server.sendall(b"Subject: large\\r\\n\\r\\n" + (b"x" * 998 + b"\\r\\n") * (int(sys.argv[2]) // 1000) + b".\\r\\n")
print(replies.readline().decode())
"""


class FakeScheduler:
    """A scheduler whose relayhost is known to be unreachable."""

    is_stuck = False
    fault_text = "no network"

    def __init__(self) -> None:
        self.carrier = self
        self.waiters = Waiters()

    def message_arrived(self, message: int) -> None: ...
    def expect_message(self) -> None: ...
    def look_again(self) -> None: ...

    def waited_in_vain(self) -> None: ...

    def octets_sent(self, message: int) -> int:
        return 0

    async def probe_recipient(self, envelope: Envelope) -> Outcome | None:
        return None


class Wire:
    """A remote that takes everything and keeps nothing, as slowly as the loop turns."""

    def __init__(self) -> None:
        self.replies: asyncio.Queue[bytes] = asyncio.Queue()
        self.replies.put_nowait(b"220 there\r\n")
        self.tail = b""
        self.taken = 0

    @property
    def written(self) -> int:
        return self.taken

    @property
    def acknowledged(self) -> int:
        return self.taken

    async def read(self) -> bytes:
        return await self.replies.get()

    def write(self, data: bytes) -> None:
        self.taken += len(data)
        self.tail = (self.tail + data)[-64:]
        if data.startswith(b"EHLO"):
            self.replies.put_nowait(b"250-there\r\n250 PIPELINING\r\n")
        elif b"DATA\r\n" in data[-200:]:
            self.replies.put_nowait(b"250 ok\r\n250 ok\r\n354 go on\r\n")
        elif self.tail.endswith(b"\r\n.\r\n"):
            self.replies.put_nowait(b"250 taken\r\n")

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def close(self) -> None: ...


class Mail:
    """One message for a conversation."""

    def __init__(self, spool: Spool, messages: Sequence[Message]) -> None:
        self.spool = spool
        self.messages = list(messages)
        self.outcomes: list[Outcome] = []

    def ready(self, in_flight: int, server_names: Sequence[bytes]) -> None: ...
    def judged(self, job: Job) -> None: ...

    async def next(self, limit: int) -> Sequence[MessageJob]:
        messages, self.messages = self.messages, []
        return [MessageJob(message, self.spool.pieces, self, lambda: 0.0, {}) for message in messages]

    def finished(self, message: Message, outcomes: Sequence[Outcome], **_: object) -> None:
        self.outcomes += outcomes

    def untried(self, message: Message, *, goes_on: bool, is_next: bool) -> None:
        raise AssertionError


async def peak(work: Callable[[], Awaitable[None]]) -> int:
    """Octets that `work` held at most, beside what was there before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        await work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@on_uvloop
async def test_a_large_message_costs_little_memory_on_its_way_in_and_out(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(0o700)
    spool = Spool(tmp_path / "spool", LIMIT, lambda _: None, lambda: 4e9)
    relayhost = Relayhost(name="default", ssh="server", ssh_config=Path("/nowhere"))
    intake = Intake([relayhost], {"default": FakeScheduler()}, spool, lambda: None, 0.0)
    listening = await listen(Listen(address=Tcp("127.0.0.1", 0)), intake)
    port = str(listening.addresses[0]).rpartition(":")[2]

    async def send(size: int) -> None:
        command = [sys.executable, "-I", "-c", CLIENT, port, str(size)]
        client = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        said, _ = await client.communicate()
        assert said.startswith(b"250 ")

    # What is made once, such as SQLite's statements, is not the message's.
    await send(200_000)
    taken_in = await peak(lambda: send(SIZE))
    await listening.close()
    small, large = sorted(await spool.take("default", (), 10), key=lambda message: message.size)
    await converse(Wire(), b"localhost", Mail(spool, [small]))
    wire, mail = Wire(), Mail(spool, [large])

    async def deliver() -> None:
        await converse(wire, b"localhost", mail)

    sent = await peak(deliver)
    spool.close()
    assert [outcome.reply.code for outcome in mail.outcomes if outcome.reply] == [250]
    assert wire.taken > SIZE
    assert taken_in <= ALLOWED
    assert sent <= ALLOWED
