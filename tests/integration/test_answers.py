"""The reply to a client after its message: for each recipient, and the progress of a large message."""

import asyncio
import re
import smtplib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from harness.daemon import served, stopping_at_content
from harness.processes import free_port

from mailrelay import config
from mailrelay.demo import mailserver
from mailrelay.demo.remote import Remote

SETTINGS = """\
[listen]
address = "127.0.0.1:{port}"
answer_within = "{answer_within}"
[relayhost.default]
ssh = "demo-remote"
ssh_config = "{directory}/remote/ssh_config"
[queue]
directory = "{directory}/spool"
retry = ["1h"]
[notify]
desktop = false
dsn = false
"""
BOB, LATER, REFUSED = "bob@example.net", "later@example.net", "refused@example.net"
LETTER = b"Subject: a letter\r\n\r\nhello\r\n"
LINE = b"x" * 998 + b"\r\n"
LARGE = b"Subject: large\r\n\r\n" + LINE * 8_000
LARGER = b"Subject: larger\r\n\r\n" + LINE * 40_000
"""More than SSH lets out before the other side has read."""


class Scene:
    def __init__(self, remote: Remote, port: int) -> None:
        self.remote = remote
        self.port = port

    async def submit(self, to: Sequence[str], content: bytes = LETTER) -> str:
        """Sends a message; the words of the 250."""
        return await asyncio.to_thread(self._submit, to, content)

    def _submit(self, to: Sequence[str], content: bytes) -> str:
        with smtplib.SMTP("127.0.0.1", self.port, timeout=30) as client:
            client.ehlo()
            client.mail("a@example.org")
            for one in to:
                client.rcpt(one)
            code, words = client.data(content)
        assert code == 250
        return re.sub(r"2\.0\.0 \w{8} ", "", words.decode())


@asynccontextmanager
async def scene(directory: Path, answer_within: str = "20s") -> AsyncIterator[Scene]:
    directory.chmod(0o700)
    (directory / "remote").mkdir()
    port = free_port()
    file = directory / "config.toml"
    file.write_text(SETTINGS.format(directory=directory, port=port, answer_within=answer_within))
    file.chmod(0o600)
    async with Remote(directory / "remote") as remote, served(config.load(file)):
        yield Scene(remote, port)


@pytest.mark.parametrize("is_warm", [False, True])
async def test_the_reply_names_recipients_that_wait_with_and_without_a_connection(
    tmp_path: Path, is_warm: bool
) -> None:
    async with scene(tmp_path) as at:
        if is_warm:
            assert (await at.submit([BOB])).startswith("sent: ")
        assert await at.submit([BOB, LATER]) == (
            f"sent to 1 of 2; <{LATER}> waits: 451 4.2.1 <{LATER}>: mailbox is busy, try again later"
        )


async def test_the_reply_names_refused_recipients(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        assert await at.submit([BOB, LATER, REFUSED]) == (
            f"sent to 1 of 3; <{LATER}> waits: 451 4.2.1 <{LATER}>: mailbox is busy, try again later;"
            f" <{REFUSED}> was refused: 550 5.1.1 <{REFUSED}>: no such user"
        )


async def test_the_reply_names_refused_recipients_if_no_recipient_got_the_message(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        assert await at.submit([LATER, REFUSED]) == (
            f"queued; <{LATER}> waits: 451 4.2.1 <{LATER}>: mailbox is busy, try again later;"
            f" <{REFUSED}> was refused: 550 5.1.1 <{REFUSED}>: no such user"
        )


async def test_the_reply_says_how_much_of_a_large_message_has_been_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()
    read = mailserver.read_content

    async def content(reader: mailserver.ByteReader) -> bytes:
        await go_on.wait()
        return await read(reader)

    monkeypatch.setattr(mailserver, "read_content", content)

    async with scene(tmp_path, answer_within="5s") as at:
        answer = await at.submit([BOB], LARGER)
        found = re.fullmatch(
            r"queued: ([\d.]+) MB of 40 MB have been sent to the mail server; the rest follows", answer
        )
        assert found is not None, answer
        assert 0 < float(found[1]) < 40
        go_on.set()
        await at.remote.arrived(1)
        assert at.remote.received[0].content.endswith(LARGER)


async def test_the_reply_says_that_all_of_a_large_message_has_been_sent(tmp_path: Path) -> None:
    async with scene(tmp_path, answer_within="5s") as at:
        _, go_on = stopping_at_content(at.remote)
        answer = await at.submit([BOB], LARGE)
        assert answer == "queued: all 8 MB have been sent to the mail server, which has not replied yet"
        go_on.set()
        await at.remote.arrived(1)
