"""Every way to fail that an embedded remote can show, and what is heard of it.

Each row of the table in docs/failures.md is a test here or, if only real servers show it, in `system/test_every_failure.py`.
What the client hears, which notices come and what `mailrelay status` answers is read from that page; how soon is the bound
of each wait. A notice counts once two backends that need no network have carried it, the Maildir and the command.
"""

import asyncio
import json
import logging
import os
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email import message_from_string
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest
from harness.daemon import served
from harness.processes import free_port
from harness.readme import Row, failures

import mailrelay
from mailrelay import config
from mailrelay.config import Settings
from mailrelay.control.daemon import wake
from mailrelay.demo.remote import Remote
from mailrelay.mail.notice import Backend
from mailrelay.mail.overview import ListedRecipient, SpoolStatus
from mailrelay.mail.there import Source, There, Verdict
from mailrelay.notify import notifier
from mailrelay.spool import followed, listing
from mailrelay.spool.database import connect, transaction
from mailrelay.tracking.followed import Found

SETTINGS = """\
[listen]
address = "127.0.0.1:{port}"
answer_within = "{answer_within}"
[relayhost.default]
ssh = "demo-remote"
ssh_config = "{directory}/remote/ssh_config"
senders = ["*@example.org"]
[queue]
directory = "{directory}/spool"
retry = ["1h"]
delay_notice_after = "{delay}"
[notify]
desktop = false
mailbox = "{directory}/Maildir"
command = ["{directory}/recorder"]
"""
RECORDER = """\
#!/bin/sh
new=$(mktemp "{directory}/notices/.XXXXXXXX") && cat >"$new" && mv "$new" "{directory}/notices/${{new##*.}}"
"""

DELAY = 1.0
WITHIN = {"failed": 10.0, "held": 10.0, "setup": 5.0, "delayed": DELAY + 5.0, "resumed": 10.0, "spool": 5.0}
"""Seconds for a notice to be told."""
LEVELS = {"failed": logging.ERROR, "held": logging.ERROR, "setup": logging.ERROR}
"""How loud the log is, where the person must act."""

SENDER, BOB = "a@example.org", "bob@example.net"
LETTER = b"From: a@example.org\r\nTo: bob@example.net\r\nSubject: a letter\r\n\r\nhello\r\n"


class Scene:
    """A daemon before a remote, a client, and a person with a Maildir and a command; `row` is what she was promised."""

    def __init__(self, directory: Path, remote: Remote, port: int, row: Row, caplog: pytest.LogCaptureFixture) -> None:
        self.directory = directory
        self.remote = remote
        self.port = port
        self.row = row
        self._caplog = caplog

    async def submit(self, *to: str, content: bytes = LETTER, sender: str = SENDER) -> str:
        """A client sends a letter and hears what docs/failures.md says; the words of the reply."""
        code, words = await asyncio.to_thread(self.transact, to or (BOB,), content, sender)
        assert code == self.row.code, words
        return words

    def transact(self, to: tuple[str, ...], content: bytes, sender: str) -> tuple[int, str]:
        with smtplib.SMTP("127.0.0.1", self.port, timeout=30) as client:
            client.ehlo()
            client.command_encoding = "utf-8"
            options = [] if all(one.isascii() for one in to) else ["SMTPUTF8"]
            assert client.mail(sender, options)[0] == 250
            assert all(client.rcpt(one)[0] == 250 for one in to)
            client.putcmd("data")
            assert client.getreply()[0] == 354
            client.send(content + b".\r\n")
            code, words = client.getreply()
        return code, words.decode()

    async def until(self, fact: Callable[[], Any], what: str, within: float) -> Any:
        """The first true value of `fact`: other processes and threads bring it about."""
        try:
            async with asyncio.timeout(within):
                while not (found := fact()):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"after {within:.0f} s still not so: {what}")
        return found

    def notices(self, kind: str = "") -> list[dict[str, Any]]:
        """What the command was given."""
        files = sorted((self.directory / "notices").glob("[!.]*"), key=lambda path: path.stat().st_mtime_ns)
        found = [json.loads(path.read_text()) for path in files]
        return [one for one in found if one["kind"] == kind or not kind]

    def letters(self, title: str = "") -> list[str]:
        """The reports in the Maildir, those with this title."""
        found = [path.read_text() for path in (self.directory / "Maildir/new").glob("*")]
        return [text for text in found if title in message_from_string(text, policy=SMTP)["Subject"]]

    async def told(self, kind: str, *, is_logged: bool = True) -> dict[str, Any]:
        """The one notice of this kind, once both backends have carried it. is_logged: by what found the failure."""
        assert kind in self.row.notices
        within = WITHIN[kind]
        (notice,) = await self.until(lambda: self.notices(kind), f"the command is told of {kind}", within)
        await self.until(lambda: self.letters(notice["title"]), f"the Maildir has {kind}", within)
        if kind in LEVELS and is_logged:
            records = self._caplog.records
            await self.until(lambda: any(one.levelno >= LEVELS[kind] for one in records), "the log is loud", within)
        if kind == "delayed":
            assert notice["created"] - notice["since"] >= DELAY
        return notice  # type: ignore[no-any-return]

    async def logged(self, words: str) -> None:
        await self.until(lambda: words in self._caplog.text, f"the log says {words}", 5)

    async def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs one of mailrelay's commands."""
        argv = [sys.executable, "-m", "mailrelay", "--config", str(self.directory / "config.toml"), *words]
        environment = os.environ | {"PYTHONPATH": str(Path(mailrelay.__file__).parent.parent), "LANG": "C.UTF-8"}
        return await asyncio.to_thread(
            subprocess.run, argv, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    async def status(self) -> str:
        """What `mailrelay status --brief` says, with the exit status that docs/failures.md names."""
        done = await self.run("status", "--brief")
        assert done.returncode == self.row.status, done
        return done.stdout

    async def retry(self) -> None:
        assert (await self.run("queue", "retry", "--all")).returncode == 0

    def recipients(self) -> dict[str, ListedRecipient]:
        """Everybody who was written to, by address."""
        db = connect(self.directory / "spool")
        try:
            return {to.address.decode(): to for one in listing.everything(db) for to in one.recipients}
        finally:
            db.close()

    def standing(self) -> SpoolStatus:
        db = connect(self.directory / "spool")
        try:
            return listing.status(db)
        finally:
            db.close()

    async def reported(self) -> None:
        """A report by mail has come back to the sender, through the relay."""
        reports = [one for one in self.remote.received if one.sender == b""]
        while not reports:
            await self.remote.arrived(len(self.remote.received) + 1)
            reports = [one for one in self.remote.received if one.sender == b""]
        (report,) = reports
        assert report.recipients == (SENDER.encode(),)
        assert b"multipart/report" in report.content


@asynccontextmanager
async def scene(
    tmp_path: Path,
    row: Row,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Settings], Settings],
    answer_within: str,
) -> AsyncIterator[Scene]:
    tmp_path.chmod(0o700)
    for name in ("remote", "notices"):
        (tmp_path / name).mkdir()
    recorder = tmp_path / "recorder"
    recorder.write_text(RECORDER.format(directory=tmp_path))
    recorder.chmod(0o700)
    port = free_port()
    file = tmp_path / "config.toml"
    # On a machine that is busy a fault may last longer than a short delay.
    delay = "15m" if "setup" in row.notices else f"{DELAY:.0f}s"
    file.write_text(SETTINGS.format(directory=tmp_path, port=port, answer_within=answer_within, delay=delay))
    file.chmod(0o600)
    caplog.set_level(logging.INFO, "mailrelay")
    async with Remote(tmp_path / "remote") as remote, served(change(config.load(file))):
        yield Scene(tmp_path, remote, port, row, caplog)


Story = Callable[[Scene], Awaitable[None]]
FAILURES: dict[str, Callable[[Path, pytest.LogCaptureFixture], Awaitable[None]]] = {}
"""The rows of docs/failures.md that are tested here."""


def failure(
    what: str, *, change: Callable[[Settings], Settings] = lambda settings: settings, answer_within: str = "8s"
) -> Callable[[Story], Story]:
    """Makes a story the test of the row `what` in docs/failures.md. change: what is other than usual in the settings."""

    def named(story: Story) -> Story:
        async def run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
            async with scene(tmp_path, failures()[what], caplog, change, answer_within) as at:
                await story(at)
                heard = tuple(one["kind"] for one in at.notices())
                assert heard == at.row.notices[: len(heard)]

        FAILURES[what] = run
        return story

    return named


def saying(verb: str, reply: bytes) -> Callable[[str, bytes], Awaitable[bytes | None]]:
    """A mail server that answers `verb` so; b"": it cuts the connection."""

    async def policy(said: str, _argument: bytes) -> bytes | None:
        return reply if said == verb else None

    return policy


async def welcoming(_verb: str, _argument: bytes) -> bytes | None:
    return None


# What the remote refuses for good.


async def _refused_to_the_client(at: Scene, words: str, *to: str) -> None:
    """The client has the remote's own words, the log and the history have them too, and nothing more is owed."""
    assert words in await at.submit(*to)
    await at.until(lambda: {one.state for one in at.recipients().values()} == {"refused"}, "it is recorded", 5)
    await at.logged("status=refused")
    assert at.row.notices == ()
    await at.status()
    assert at.notices() == []


@failure("a recipient or the sender is refused, and the connection is up")
async def _at_rcpt(at: Scene) -> None:
    def rcpt(sender: str, to: str) -> tuple[int, str]:
        with smtplib.SMTP("127.0.0.1", at.port, timeout=30) as client:
            client.ehlo()
            assert client.mail(sender)[0] == 250
            code, words = client.rcpt(to)
            return code, words.decode()

    assert "sent" in str(await asyncio.to_thread(at.transact, (BOB,), LETTER, SENDER))
    code, words = await asyncio.to_thread(rcpt, SENDER, "refused@example.net")
    assert code == at.row.code
    assert "<refused@example.net>: no such user" in words
    await at.logged("to=<refused@example.net> relay=default dsn=5.1.1 status=refused")
    at.remote.policy = saying("MAIL", b"550 5.7.1 not from you")
    code, words = await asyncio.to_thread(rcpt, SENDER, BOB)
    assert code == at.row.code
    assert "not from you" in words
    assert list(at.recipients()) == [BOB], "there is nothing to be delivered or told later"
    await at.status()
    assert at.notices() == []


@failure("every recipient is refused, and the client waits")
async def _every_recipient(at: Scene) -> None:
    await _refused_to_the_client(at, "<refused@example.net>: no such user", "refused@example.net")


@failure("the sender is refused, and the client waits")
async def _the_sender(at: Scene) -> None:
    at.remote.policy = saying("MAIL", b"550 5.7.1 not from you")
    await _refused_to_the_client(at, "not from you")


@failure("the content is refused")
async def _the_content(at: Scene) -> None:
    at.remote.policy = saying("CONTENT", b"554 5.7.1 this looks like spam")
    await _refused_to_the_client(at, "this looks like spam")


async def _failed(at: Scene, to: str, state: str) -> None:
    notice = await at.told("failed")
    assert [(one["address"], one["state"]) for one in notice["recipients"]] == [(to, state)]
    await at.logged(f"status={state}")
    assert at.row.dsn
    await at.reported()
    assert "1 failed" in await at.status()


@failure("one recipient of several is refused")
async def _one_recipient(at: Scene) -> None:
    assert "sent" in await at.submit(BOB, "refused@example.net")
    await _failed(at, "refused@example.net", "bounced")


@failure("every recipient is refused, and the client has its 250 already", answer_within="0s")
async def _after_the_answer(at: Scene) -> None:
    await at.submit("refused@example.net")
    await _failed(at, "refused@example.net", "bounced")


@failure("every recipient is refused, and the client has gone")
async def _after_the_client(at: Scene) -> None:
    reached, gone = asyncio.Event(), asyncio.Event()
    refuse = at.remote.policy

    async def policy(verb: str, argument: bytes) -> bytes | None:
        if verb == "RCPT" and b"refused" in argument:
            reached.set()
            await gone.wait()
        return await refuse(verb, argument)

    at.remote.policy = policy
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    for line in (b"EHLO me", b"MAIL FROM:<a@example.org>", b"RCPT TO:<refused@example.net>", b"DATA"):
        await reader.readuntil(b"\n")
        writer.write(line + b"\r\n")
    while not (await reader.readline()).startswith(b"354"):
        pass
    writer.write(LETTER + b".\r\n")
    await reached.wait()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.close()
    await writer.wait_closed()
    gone.set()
    await _failed(at, "refused@example.net", "bounced")


@failure(
    "the mail server defers a recipient until `expire_after`",
    change=lambda settings: settings._replace(
        queue=settings.queue._replace(retry=(0.3,), expire_after=0.5, delay_notice_after=60.0)
    ),
)
async def _expired(at: Scene) -> None:
    assert "later@example.net" in await at.submit("later@example.net")
    await _failed(at, "later@example.net", "expired")


# What the mail server has accepted.

NOT_TRACKED: dict[str, Any] = {
    "change": lambda settings: settings._replace(
        relayhosts=tuple(one._replace(track="off") for one in settings.relayhosts)
    )
}
"""No question to the relayhost comes between what the test writes."""


def _found_there(at: Scene, verdict: Verdict) -> None:
    """A question to the relayhost has shown this of all recipients that were sent."""
    db = connect(at.directory / "spool")
    with transaction(db):
        sent = db.execute("SELECT message, id FROM recipient WHERE state = 'sent'").fetchall()
        for message, key in sent:
            followed.begin(db, message, key, time.time())
        backends = (Backend.DSN, Backend.MAILBOX, Backend.COMMAND)
        followed.found(db, [Found(key, verdict) for _, key in sent], lambda *_: backends, time.time())
    db.close()
    assert wake(at.directory / "spool")


@failure("the mail server has accepted the message, and it bounces there", **NOT_TRACKED)
async def _bounces_there(at: Scene) -> None:
    assert "sent" in await at.submit()
    _found_there(at, Verdict(There.BOUNCED, Source.REPORT, b"550 5.1.1 no such user", b"mx.example.net"))
    notice = await at.told("failed", is_logged=False)
    assert "A report in your mailbox there says: 550 5.1.1 no such user (from mx.example.net)" in notice["body"]
    assert not at.row.dsn
    assert "1 bounced there" in await at.status()
    assert (await at.run("queue", "cancel", notice["queue_id"])).returncode == 0
    assert (await at.run("status")).returncode == 0
    assert [to.state for to in at.recipients().values()] == ["sent"]


@failure("the mail server has accepted the message, and defers it", **NOT_TRACKED)
async def _defers_there(at: Scene) -> None:
    assert "sent" in await at.submit()
    _found_there(at, Verdict(There.DEFERRED, Source.QUEUE, b"451 4.7.1 Greylisted"))
    notice = await at.told("delayed")
    assert "The queue there says: 451 4.7.1 Greylisted" in notice["text"]
    assert "1 deferred there" in await at.status()
    _found_there(at, Verdict(There.DELIVERED, Source.LOG, b"250 ok"))
    assert "any more" in (await at.told("resumed"))["title"]
    assert (await at.run("status")).returncode == 0


# What cannot be sent as it is.


async def _held(at: Scene, words: str) -> None:
    notice = await at.told("held")
    assert words in notice["body"]
    await at.logged("status=held")
    assert "1 cannot be sent" in await at.status()
    assert (await at.run("queue", "cancel", notice["queue_id"])).returncode == 0
    assert (await at.run("status")).returncode == 0


@failure("an address needs SMTPUTF8 and your server has none")
async def _no_smtputf8(at: Scene) -> None:
    at.remote.extensions = (b"PIPELINING", b"8BITMIME")
    await at.submit("bøb@example.net")
    await _held(at, "SMTPUTF8")


@failure("the content cannot be read in the spool", answer_within="0s")
async def _unreadable(at: Scene) -> None:
    await _damaged(at, "DELETE FROM content WHERE seq = 1", "fewer octets")


@failure("a bit of the content has changed in the spool", answer_within="0s")
async def _flipped(at: Scene) -> None:
    changed = "CAST(replace(data, 'd' || x'0d0a30', 'e' || x'0d0a30') AS BLOB)"
    await _damaged(at, f"UPDATE content SET data = {changed} WHERE seq = 1", "not as it was written")


@failure("a bit of an address has changed in the spool", answer_within="0s")
async def _flipped_address(at: Scene) -> None:
    await _damaged(at, "UPDATE recipient SET address = x'626f634065782e6e6574'", "not as it was written")


async def _damaged(at: Scene, sql: str, words: str) -> None:
    """A message is damaged by `sql` before it is sent: nobody gets it."""
    torn = asyncio.Event()

    async def policy(verb: str, _argument: bytes) -> bytes | None:
        if verb == "GREETING":
            await torn.wait()
        return None

    at.remote.policy = policy
    await at.submit(content=LETTER + b"0123456789abcd\r\n" * 40_000)
    db = connect(at.directory / "spool")
    with transaction(db):
        db.execute(sql)
    db.close()
    torn.set()
    await _held(at, words)
    assert not at.remote.received


# What heals by itself, or does not.


async def _delayed(at: Scene, words: str) -> dict[str, Any]:
    notice = await at.told("delayed")
    assert words in notice["text"]
    assert notice["waiting"] == 1
    assert "1 waiting" in await at.status()
    return notice


async def _moves(at: Scene) -> None:
    """What waits leaves, and the person hears that too."""
    await at.retry()
    await at.told("resumed")
    assert {one.state for one in at.recipients().values()} == {"sent"}
    assert tuple(one["kind"] for one in at.notices()) == at.row.notices
    assert (await at.run("status")).returncode == 0


@failure("the mail server defers the message (4xx, greylisting)")
async def _greylisted(at: Scene) -> None:
    assert "451 4.2.1" in await at.submit("later@example.net")
    await _delayed(at, "451 4.2.1")
    at.remote.policy = welcoming
    await _moves(at)


@failure("the connection breaks before the end of the content")
async def _cut_before_the_dot(at: Scene) -> None:
    at.remote.policy = saying("DATA", b"")
    await at.submit()
    await _delayed(at, "closed the connection")
    at.remote.policy = welcoming
    await _moves(at)
    assert at.recipients()[BOB].uncertain is None


@failure("the connection breaks between the final dot and the reply")
async def _cut_after_the_dot(at: Scene) -> None:
    at.remote.policy = saying("CONTENT", b"")
    await at.submit()
    await _delayed(at, "closed the connection")
    await at.logged("it may arrive twice")
    assert "may arrive twice" in (await at.run("queue", "--all")).stdout
    at.remote.policy = welcoming
    await _moves(at)
    assert at.recipients()[BOB].uncertain is not None


@failure("the mail server stops replying in the middle of a transaction", answer_within="500ms")
async def _hangs(at: Scene) -> None:
    go_on = asyncio.Event()

    async def policy(verb: str, _argument: bytes) -> bytes | None:
        if verb == "CONTENT":
            await go_on.wait()
        return None

    at.remote.policy = policy
    assert "not replied yet" in await at.submit()
    await _delayed(at, "not replied yet")
    assert at.recipients()[BOB].state == "active"
    go_on.set()
    await at.told("resumed")
    assert at.recipients()[BOB].state == "sent"


@failure("no network, no such host, or no route to it", answer_within="500ms")
async def _no_name(at: Scene) -> None:
    ssh_config = at.remote.ssh_config.read_text()
    at.remote.ssh_config.write_text(ssh_config.replace("HostName 127.0.0.1", "HostName nowhere.invalid"))
    await at.submit()
    await _delayed(at, "")
    at.remote.ssh_config.write_text(ssh_config)
    await _moves(at)


@failure("the SSH server accepts the connection and sends nothing", answer_within="500ms")
async def _mute(at: Scene) -> None:
    await at.remote.mute()
    await at.submit()
    await _delayed(at, "not replied yet")


@failure("the mail server greets with 4xx")
async def _greets_with_4xx(at: Scene) -> None:
    at.remote.policy = saying("GREETING", b"421 4.3.2 too busy")
    assert "too busy" in await at.submit()
    await _delayed(at, "too busy")
    at.remote.policy = welcoming
    await _moves(at)


@failure("the mail server ends the conversation at every message")
async def _ends_every_conversation(at: Scene) -> None:
    at.remote.policy = saying("MAIL", b"421 4.3.2 going down")
    for _ in range(2):
        assert "going down" in await at.submit()
    assert "going down" in (await at.told("delayed"))["text"]
    assert "2 waiting" in await at.status()
    assert [one.text for one in at.standing().faults] == ["421 4.3.2 going down"]
    at.remote.policy = welcoming
    await _moves(at)


# What waits for the person.


async def _setup(at: Scene, step: str, fixed: Callable[[], Awaitable[None]]) -> None:
    """Five mails, one notice, with the step in it; and one word when it is fixed and they have left."""
    for _ in range(5):
        assert "queued: " in await at.submit()
    notice = await at.told("setup")
    assert step in notice["fix"]
    assert step in " ".join(at.letters(notice["title"])[0].split())
    assert "default needs you" in await at.status()
    await fixed()
    await at.retry()
    await at.told("resumed")
    await at.remote.arrived(5)
    await at.until(lambda: {one.state for one in at.recipients().values()} == {"sent"}, "all is sent", 5)
    assert tuple(one["kind"] for one in at.notices()) == at.row.notices
    assert (await at.run("status")).returncode == 0


@failure("no SSH server answers on the port")
async def _ssh_refused(at: Scene) -> None:
    await at.remote.down()
    await _setup(at, "ssh -F", at.remote.up)


@failure("`ssh_config` cannot be read")
async def _ssh_config(at: Scene) -> None:
    ssh_config = at.remote.ssh_config.read_text()
    at.remote.ssh_config.unlink()

    async def fixed() -> None:
        at.remote.ssh_config.write_text(ssh_config)

    await _setup(at, "Correct it", fixed)


@failure("the mail server greets with 5xx")
async def _greets_with_5xx(at: Scene) -> None:
    at.remote.policy = saying("GREETING", b"554 5.3.2 not for you")

    async def fixed() -> None:
        at.remote.policy = welcoming

    await _setup(at, "must take mail from its own host", fixed)


@failure("the mail server refuses mailrelay itself: its name, no login, no TLS")
async def _refuses_us(at: Scene) -> None:
    at.remote.policy = saying("RCPT", b"504 5.5.2 <x>: Helo command rejected: need fully-qualified hostname")

    async def fixed() -> None:
        at.remote.policy = welcoming

    await _setup(at, "Set helo for this relayhost", fixed)


@failure("the program on port 25 is no mail server")
async def _not_smtp(at: Scene) -> None:
    at.remote.policy = saying("GREETING", b"SSH-2.0-OpenSSH_9.9")

    async def fixed() -> None:
        at.remote.policy = welcoming

    await _setup(at, "to the port of the mail server", fixed)


# Trouble of ours.


@failure(
    "the spool or its disk is full",
    change=lambda settings: settings._replace(queue=settings.queue._replace(max_size=1000)),
)
async def _full(at: Scene) -> None:
    # The same for the command: settings that allow no message at all.
    file = at.directory / "config.toml"
    text = file.read_text().replace("[listen]", '[listen]\nmax_message_size = "1KB"')
    file.write_text(text.replace("[queue]", '[queue]\nmax_size = "1KB"'))
    for _ in range(3):
        assert "full" in await at.submit()
    await at.logged("queue.max_size")
    notice = await at.told("spool")
    assert "queue.max_size" in notice["text"]
    assert at.notices() == [notice]
    assert at.recipients() == {}
    assert "no room" in await at.status()


@failure(
    "a notice backend fails",
    change=lambda settings: settings._replace(notify=settings.notify._replace(command=("/nonexistent/command",))),
)
async def _backend(at: Scene) -> None:
    await at.submit("later@example.net")
    await at.until(at.letters, "the Maildir has it", WITHIN["delayed"])
    await at.logged("not delivered by command")
    await at.until(lambda: at.standing().failing_notices, "it stays owed", 5)
    assert "notices not delivered" in await at.status()


@failure("mailrelay itself refuses the message: too large, a bare LF, not an address …")
async def _not_taken(at: Scene) -> None:
    await at.submit(content=b"Subject: a\n\nb\r\n")
    assert at.recipients() == {}
    await at.status()


@failure("no relayhost in the settings accepts this sender")
async def _no_relayhost(at: Scene) -> None:
    assert "relayhost" in await at.submit(sender="a@elsewhere.example")
    assert at.recipients() == {}
    await at.status()


@pytest.mark.parametrize("what", FAILURES)
async def test_it_is_heard_of_as_the_documentation_says(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That mail moves again is seen at the next look, which is within a minute.
    monkeypatch.setattr(notifier, "MAX_DELAY_CHECK_INTERVAL", 0.2)
    monkeypatch.setattr(notifier, "MIN_DELAY_CHECK_INTERVAL", 0.2)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    await FAILURES[what](tmp_path, caplog)
