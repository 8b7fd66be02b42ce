"""A mail server that closes with octets that it has not read: its TCP is reset, and replies that it had written are lost; or
one that holds its replies back, and ends before it has sent them. Messages that arrive twice are marked."""

import asyncio
import re
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from harness.messages import LIMIT, letter
from harness.sshd import ALIAS, Sshd

from mailrelay.config import Relayhost, Tcp
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.notice import Backend
from mailrelay.relay.scheduler import Scheduler
from mailrelay.spool.database import connect
from mailrelay.spool.spool import Spool
from mailrelay.ssh.dial import dial

PATIENCE = 30.0
"""Seconds for each step of the test."""
MOST = 3
"""Messages that the mail server accepts in a conversation before it closes."""


class AbruptServer:
    """A mail server with CHUNKING that closes as soon as it has written its reply to the content of message MOST, once it is
    `abrupt`. holds: it sends no reply before it has read all that was sent, and closes without the replies that it holds.
    taken: how often it has accepted each message, by its number."""

    def __init__(self, *, holds: bool) -> None:
        self.abrupt = False
        self.holds = holds
        self.taken: Counter[int] = Counter()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connected,), daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        # Unbuffered: octets that are not asked for stay unread.
        with connected, connected.makefile("rb", buffering=0) as octets:
            try:
                self._talk(connected, octets)
            except OSError:
                return

    def _talk(self, connected: socket.socket, octets: socket.SocketIO) -> None:
        connected.sendall(b"220 abrupt ESMTP\r\n")
        replies, count = b"", 0
        while line := octets.readline():
            match line[:4].upper():
                case b"EHLO":
                    connected.sendall(b"250-abrupt\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-CHUNKING\r\n250 SIZE\r\n")
                    continue
                case b"BDAT" | b"DATA" as verb:
                    count += 1
                    if verb == b"DATA":
                        connected.sendall(replies + b"354 go ahead\r\n")
                        replies = b""
                    self.taken[_number_in(_content(octets, line))] += 1
                    replies += b"250 taken\r\n"
                    if self.holds and self.abrupt and count == MOST:
                        return
                    if not self.holds or not _has_more(connected):
                        connected.sendall(replies)
                        replies = b""
                    if self.abrupt and count == MOST:
                        return
                case b"QUIT":
                    connected.sendall(replies + b"221 bye\r\n")
                    return
                case _:
                    # The replies before the content are written together with its own.
                    replies += b"250 ok\r\n"
                    if not _has_more(connected):
                        connected.sendall(replies)
                        replies = b""


def _content(octets: socket.SocketIO, command: bytes) -> bytes:
    content = b""
    if command[:4].upper() == b"BDAT":
        size = int(command.split()[1])
        while len(content) < size and (some := octets.read(size - len(content))):
            content += some
        return content
    while (line := octets.readline()) not in (b".\r\n", b""):
        content += line
    return content


def _number_in(content: bytes) -> int:
    found = re.search(rb"number-(\d+)", content)
    assert found is not None
    return int(found[1])


def _has_more(connected: socket.socket) -> bool:
    try:
        return bool(connected.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


@pytest.mark.parametrize("holds", [False, True], ids=["sends replies", "holds replies back"])
@pytest.mark.parametrize("first", ["a proven server", "an unknown server"])
async def test_a_message_that_arrives_twice_because_replies_were_lost_is_marked_as_uncertain(
    tmp_path: Path, first: str, *, holds: bool
) -> None:
    far = Sshd(tmp_path / "far")
    far.start()
    server = AbruptServer(holds=holds)
    # A conversation that ends without a reply shows nothing of replies that are held back: there is only one.
    channels = 1 if holds else 4
    spool = Spool(tmp_path / "spool", LIMIT, lambda _name: None)
    relayhost = Relayhost(
        name="default",
        ssh=ALIAS,
        ssh_config=far.ssh_config,
        smtp=Tcp("127.0.0.1", server.port),
        channels=channels,
        backlog_channels=channels,
        record="off",
    )
    policy = RetryPolicy((3600.0,), 432_000.0, lambda _kind, _sender, _notify: (Backend.MAILBOX,))
    scheduler = Scheduler(relayhost, spool, dial, policy, lambda: None)
    db = connect(tmp_path / "spool")
    running = asyncio.ensure_future(scheduler.run())

    async def until_nothing(condition: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while db.execute(f"SELECT count(*) FROM recipient WHERE {condition}").get:
                await asyncio.sleep(0.01)

    async def accept(*numbers: int) -> dict[str, int]:
        return {
            await spool.accept(letter(at=time.time(), content=b"number-%d\r\n" % number)): number for number in numbers
        }

    try:
        keys = {}
        if first == "a proven server":
            keys = await accept(0)
            scheduler.look_again()
            await until_nothing("state != 'sent'")
        server.abrupt = True
        keys |= await accept(*range(1, 61))
        scheduler.look_again()
        # Messages that are not sent by then are deferred for an hour.
        await until_nothing("state NOT IN ('sent', 'deferred')")
        server.abrupt = False
        db.execute("UPDATE message SET next_attempt = 0 WHERE next_attempt IS NOT NULL")
        scheduler.look_again()
        await until_nothing("state != 'sent'")
        marked = {keys[key] for (key,) in db.execute("SELECT message FROM recipient WHERE uncertain IS NOT NULL")}
        assert set(server.taken) == set(keys.values())
        unmarked = {number for number, times in server.taken.items() if times > 1} - marked
        # Nothing shows it the first time that no reply came.
        assert len(unmarked) <= (MOST if holds else 0)
        assert max(server.taken.values()) <= (3 if holds else 2)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        db.close()
        spool.close()
        server.close()
        far.stop()
