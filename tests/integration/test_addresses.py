"""Odd addresses from the client to the mail server: what sendmail and Postfix take reaches them as it came, and one address
that cannot be sent never holds the others."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from harness.daemon import served
from harness.processes import free_port

import mailrelay
from mailrelay import config
from mailrelay.demo.remote import Remote
from mailrelay.mail.overview import Listed
from mailrelay.spool import listing
from mailrelay.spool.database import connect

SETTINGS = """\
[listen]
address = "127.0.0.1:{port}"
answer_within = "10s"
[relayhost.default]
ssh = "demo-remote"
ssh_config = "{directory}/remote/ssh_config"
[queue]
directory = "{directory}/spool"
retry = ["1h"]
[notify]
desktop = false
dsn = false
mailbox = "{directory}/Maildir"
"""
NO_SMTPUTF8 = (b"PIPELINING", b"8BITMIME", b"ENHANCEDSTATUSCODES")


class Scene:
    def __init__(self, directory: Path, remote: Remote, port: int) -> None:
        self.directory = directory
        self.remote = remote
        self.port = port

    async def dialogue(self, *lines: bytes) -> list[bytes]:
        """Says each line to the listener; returns the last line of each reply."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        replies = []
        for line in (b"", *lines):
            if line:
                writer.write(line + b"\r\n")
            while (reply := await reader.readline())[3:4] == b"-":
                pass
            replies.append(reply)
        writer.close()
        return replies[1:]

    async def sendmail(self, *words: str, content: bytes) -> None:
        argv = [sys.executable, "-m", "mailrelay", "--config", str(self.directory / "config.toml"), "sendmail", *words]
        environment = os.environ | {"PYTHONPATH": str(Path(mailrelay.__file__).parent.parent), "LANG": "C.UTF-8"}
        done = await asyncio.to_thread(
            subprocess.run, argv, input=content, env=environment, capture_output=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")

    async def settled(self) -> Listed:
        """The one message in the spool, once none of its recipients is queued or active."""
        db = connect(self.directory / "spool")
        try:
            async with asyncio.timeout(20):
                while True:
                    found = [one for one in listing.everything(db) if one.recipients]
                    if found and not {"queued", "active"} & {to.state for to in found[0].recipients}:
                        (message,) = found
                        return message
                    await asyncio.sleep(0.01)
        finally:
            db.close()


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    directory.chmod(0o700)
    (directory / "remote").mkdir()
    port = free_port()
    file = directory / "config.toml"
    file.write_text(SETTINGS.format(directory=directory, port=port))
    file.chmod(0o600)
    async with Remote(directory / "remote") as remote, served(config.load(file)):
        yield Scene(directory, remote, port)


ODD = [
    b"taro..y.@docomo.ne.jp",
    b".a@example.net",
    b"a@a_b.example",
    b"a@example.org.",
    b"a@-x.example",
    b"a@localdomain",
    b"CORP\\alice@example.org",
    b'"CORP\\\\alice"@example.org',
    b"user@[1.2.3.4]",
    b'"quoted"@example.org',
    b'"a b"@example.org',
    b"a%b@example.org",
    b"host!user@example.org",
    b"user+tag@example.org",
    b"l" * 70 + b"@example.org",
]


async def test_the_listener_passes_odd_addresses_on_as_they_came(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        mail = [b"EHLO x", b"MAIL FROM:<me..you@example.org>", *(b"RCPT TO:<%b>" % one for one in ODD)]
        replies = await at.dialogue(
            *mail, b"RCPT TO:<@route.example:bob@b.example>", b"DATA", b"Subject: x\r\n\r\nx\r\n."
        )
        assert {reply[:3] for reply in replies[:-2]} == {b"250"}, replies
        assert b" sent: " in replies[-1]
        (message,) = at.remote.received
        assert message.sender == b"me..you@example.org"
        assert message.recipients == (*ODD, b"bob@b.example")


async def test_sendmail_passes_odd_addresses_on_as_they_came(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.sendmail("-t", "-f", "me@example.org", content=b"To: " + b",\n ".join(ODD) + b"\nSubject: x\n\nx\n")
        await at.settled()
        assert [message.recipients for message in at.remote.received] == [tuple(ODD)]


async def test_a_domain_that_is_not_ascii_needs_no_smtputf8(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        at.remote.extensions = NO_SMTPUTF8
        content = "To: Alice <alice@müller.example>, bob@example.org\nSubject: x\n\nb\n".encode()
        await at.sendmail("-t", "-i", "-fme@example.org", content=content)
        shown = await at.settled()
        (message,) = at.remote.received
        assert message.recipients == (b"alice@xn--mller-kva.example", b"bob@example.org")
        assert message.arguments[0] == b"FROM:<me@example.org> BODY=8BITMIME"
        # The header stays as it was written (RFC 6532).
        assert "To: Alice <alice@müller.example>, bob@example.org\r\n".encode() in message.content
        assert [to.address for to in shown.recipients] == ["alice@müller.example".encode(), b"bob@example.org"]


async def test_a_local_part_that_is_not_ascii_is_held_alone_on_a_server_without_smtputf8(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        at.remote.extensions = NO_SMTPUTF8
        content = "To: jürgen@example.org, bob@example.org\nSubject: x\n\nb\n".encode()
        await at.sendmail("-t", "-fme@example.org", content=content)
        held, sent = (await at.settled()).recipients
        assert (held.state, sent.state) == ("held", "sent")
        assert b"SMTPUTF8" in held.description
        assert [message.recipients for message in at.remote.received] == [(b"bob@example.org",)]


async def test_the_client_is_told_which_address_is_held(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        at.remote.extensions = NO_SMTPUTF8
        *_, reply = await at.dialogue(
            b"EHLO x",
            b"MAIL FROM:<me@example.org> SMTPUTF8",
            "RCPT TO:<jürgen@example.org>".encode(),
            b"RCPT TO:<bob@example.org>",
            b"DATA",
            b"Subject: x\r\n\r\nx\r\n.",
        )
        assert b" sent to 1 of 2; <j" in reply
        assert b" is held: " in reply


async def test_a_sender_that_needs_smtputf8_holds_the_message(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        at.remote.extensions = NO_SMTPUTF8
        await at.sendmail(
            "-f", "jürgen@example.org", "bob@example.org", "ann@example.org", content=b"Subject: x\n\nx\n"
        )
        shown = await at.settled()
        assert [to.state for to in shown.recipients] == ["held", "held"]
        assert b"the sender is not ASCII" in shown.recipients[0].description
        assert at.remote.received == []
