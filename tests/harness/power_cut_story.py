"""A fixed story of one spool, run under strace: a daemon with clients, a mail server and commands, and what they were told.

    python -m harness.power_cut_story DIRECTORY TAMPERING whole|short

`root` in DIRECTORY is the disk that is recorded: the spool, below a directory that does not exist yet; a Maildir for
notices; a file that is replaced. What was promised is in the trace (`harness.recorded_disk.Said`): the 250 of the daemon,
the lines of its log, and the marks of this program. `letters.json` is about the messages.
"""

import asyncio
import base64
import contextlib
import json
import os
import random
import signal
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mailrelay
from harness.processes import free_port
from mailrelay.demo.remote import HOST, Remote

ROOT, SPOOL, MAILDIR, REPLACED = "root", "state/mailrelay", "Maildir", "settings/replaced"
MARKS, LETTERS = "marks", "letters.json"
BALLAST_SIZE = 4096
CHECKPOINT = 60
"""Pages in SQLite's log after which it is copied to the file: so few that the log begins anew many times."""
PATIENCE = 60.0

SETTINGS = """\
listen.address = "127.0.0.1:{port}"
listen.answer_within = "{answer_within}"
relayhost.default.ssh = "{host}"
relayhost.default.ssh_config = "{ssh_config}"
queue.directory = "{spool}"
queue.retry = ["1h"]
queue.keep_sent = "{keep_sent}"
notify.desktop = false
notify.dsn = false
notify.mailbox = "{maildir}"
"""

GATHER = 0.03
"""Seconds in which the daemon gathers work for one commit, so that parts of contents and whole messages share commits."""

MAIN = f"""\
import apsw, os, sys
apsw.connection_hooks.append(lambda db: db.wal_autocheckpoint({CHECKPOINT}))
from mailrelay.spool import ballast, writer
ballast.SIZE, writer.CHECKPOINT, writer.GATHER = {BALLAST_SIZE}, {CHECKPOINT}, {GATHER}
from mailrelay.__main__ import main
sys.argv[0], status = "mailrelay", 0
try:
    main()
except SystemExit as end:
    status = end.code
if not status and "PROMISE" in os.environ:
    os.write(os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND), os.environ["PROMISE"].encode())
sys.exit(status)
"""
"""The command mailrelay, with a small ballast and frequent checkpoints. At its end it says what its status 0 promises."""

REPLACING = """\
import os, sys
from pathlib import Path
from mailrelay.atomic_file import replace_file
replace_file(Path(sys.argv[1]), sys.argv[2].encode())
os.write(os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND), os.environ["PROMISE"].encode())
"""

TAMPERING = {
    "": "",
    "commits without a sync": """\
import apsw
class Connection(apsw.Connection):
    def pragma(self, name, *value, **options):
        return super().pragma(name, *(("NORMAL",) if name == "synchronous" and value else value), **options)
apsw.Connection = Connection
""",
    "directories without a sync": """\
import mailrelay.atomic_file
mailrelay.atomic_file.sync_directory = lambda directory: None
""",
    "250 before the commit": """\
import asyncio
from mailrelay.spool.spool import Spool
accept, tasks = Spool.accept, set()
async def accept_later(self, arrival):
    async def later():
        await asyncio.sleep(0.3)
        await accept(self, arrival)
    tasks.add(asyncio.ensure_future(later()))
    return 0
Spool.accept = accept_later
""",
}
"""Changes of the product that break its promise about the disk, as program text."""


class Story:
    """One story. letters: for each message its content as it was sent, and its recipients."""

    def __init__(self, directory: Path, remote: Remote, tampering: str) -> None:
        self.directory, self.remote = directory, remote
        self.root = directory / ROOT
        self.port = free_port()
        self.letters: dict[str, dict[str, Any]] = {}
        self.ids: dict[str, str] = {}
        self._tampering = TAMPERING[tampering]
        self._main = self._tampering + MAIN
        self._config = directory / "config.toml"
        self._marks = os.open(directory / MARKS, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._chance = random.Random(7777)
        self._daemon: asyncio.subprocess.Process | None = None

    def mark(self, **what: object) -> None:
        """Says something in the trace."""
        os.write(self._marks, json.dumps(what).encode())

    def settings(self, *, answer_within: str, keep_sent: str = "7d") -> None:
        self._config.touch(mode=0o600)
        self._config.write_text(
            SETTINGS.format(
                port=self.port,
                answer_within=answer_within,
                host=HOST,
                ssh_config=self.remote.ssh_config,
                spool=self.root / SPOOL,
                keep_sent=keep_sent,
                maildir=self.root / MAILDIR,
            )
        )

    # The daemon and commands.

    def _environment(self, **promise: object) -> dict[str, str]:
        """promise: what a command says in the trace when it ends with status 0."""
        promised = {"MARKS": str(self.directory / MARKS), "PROMISE": json.dumps(promise)} if promise else {}
        return promised | {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "MAILRELAY_CONFIG": str(self._config),
            "PYTHONPATH": str(Path(mailrelay.__file__).parent.parent),
        }

    async def start(self) -> None:
        """Starts the daemon and waits until it is ready."""
        self._daemon = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", self._main, "serve"), env=self._environment(), stderr=asyncio.subprocess.PIPE
        )
        assert self._daemon.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while b"ready" not in (line := await self._daemon.stderr.readline()):
                assert line, "the daemon did not start"

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self._daemon is not None
        self._daemon.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            _, said = await self._daemon.communicate()
        sys.stderr.write(said.decode(errors="replace"))

    async def do(self, *words: str, stdin: bytes = b"", **promise: object) -> str:
        """Runs a command that must succeed; returns its output. promise: what holds from then on."""
        argv = [sys.executable, "-c", self._main, *words]
        done = await asyncio.to_thread(
            subprocess.run,
            argv,
            input=stdin,
            capture_output=True,
            env=self._environment(**promise),
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout.decode()

    async def learn_ids(self) -> None:
        """Asks for the queue ids of all messages."""
        found = (json.loads(line) for line in (await self.do("queue", "--all", "--json")).splitlines())
        self.ids |= {one["queue_id"]: one["subject"] for one in found}

    def id_of(self, token: str) -> str:
        return next(queue_id for queue_id, found in self.ids.items() if found == token)

    async def act(self, token: str, action: str, state: str) -> None:
        """Has a command change a message, all of whose recipients have this state afterwards."""
        addresses = self.letters[token]["recipients"]
        await self.do("queue", action, self.id_of(token), token=token, addresses=addresses, state=state)

    # Messages.

    def letter(self, token: str, *recipients: str, size: int = 500) -> bytes:
        """A new message, whose lines all differ."""
        body = base64.encodebytes(self._chance.randbytes(size * 3 // 4)).replace(b"\n", b"\r\n")
        head = (
            f"From: me@example.org\r\nTo: you@example.net\r\nSubject: {token}\r\n"
            f"Date: Mon, 05 Jan 2026 10:00:00 +0000\r\nMessage-ID: <{token}@example.org>\r\n\r\n"
        )
        content = head.encode() + body
        self.letters[token] = {
            "content": content.decode(),
            "recipients": [f"{recipient}@example.net" for recipient in recipients],
        }
        return content

    async def send(self, token: str, *recipients: str, size: int = 500) -> None:
        """Sends a message by SMTP."""
        content = self.letter(token, *recipients, size=size)

        def send() -> int:
            with smtplib.SMTP("127.0.0.1", self.port, timeout=PATIENCE) as client:
                client.ehlo("client.example")
                client.mail("me@example.org")
                for recipient in recipients:
                    client.rcpt(f"{recipient}@example.net")
                return client.data(content)[0]

        found = await asyncio.to_thread(send)
        # On a slow computer the refusal of the mail server may come after the 250.
        assert found == 250 or (found == 550 and token.startswith("refused")), (token, found)

    async def break_off(self, token: str, size: int) -> None:
        """Sends half of a message and disconnects."""
        content = self.letter(token, "alice", size=size)

        def send() -> None:
            with (
                socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as client,
                client.makefile("rb") as replies,
            ):
                replies.readline()
                for line in (
                    b"HELO client.example",
                    b"MAIL FROM:<me@example.org>",
                    b"RCPT TO:<a@example.net>",
                    b"DATA",
                ):
                    client.sendall(line + b"\r\n")
                    replies.readline()
                client.sendall(content[: size // 2])
                # Until the daemon has read most of it.
                time.sleep(0.3)

        await asyncio.to_thread(send)

    async def hand_in(self, token: str, *addressed: str, size: int = 500) -> None:
        """Hands in a message by `mailrelay sendmail`, whose status 0 says that it is on disk."""
        content = self.letter(token, *addressed, size=size)
        recipients = self.letters[token]["recipients"]
        await self.do("sendmail", "-f", "me@example.org", *recipients, stdin=content, accepted=token)

    async def replace(self, text: str) -> None:
        """Replaces a file in one step, as settings and known_hosts are."""
        argv = [sys.executable, "-c", self._tampering + REPLACING, str(self.root / REPLACED), text]
        environment = self._environment(replaced=text)
        await asyncio.to_thread(subprocess.run, argv, env=environment, timeout=PATIENCE, check=True)

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not fact():
                await asyncio.sleep(0.05)

    def logged(self, *words: str) -> Callable[[], bool]:
        """Whether a line of the daemon's log has all of these words."""

        def found() -> bool:
            text = (self.root / SPOOL / "mailrelay.log").read_text()
            return any(all(word in line for word in words) for line in text.splitlines())

        return found


async def whole(story: Story) -> None:
    remote = story.remote
    holding, go_on = asyncio.Event(), asyncio.Event()
    ordinary = remote.policy

    async def policy(verb: str, argument: bytes) -> bytes | None:
        if verb == "CONTENT" and b"Subject: held-up" in argument:
            holding.set()
            await go_on.wait()
        if verb == "CONTENT" and b"Subject: refused" in argument:
            return b"550 5.7.1 not wanted"
        return await ordinary(verb, argument)

    remote.policy = policy
    story.settings(answer_within="2s")
    await story.start()
    await story.replace("first\n" * 300)
    await story.send("sent", "alice")
    await asyncio.gather(
        story.send("partly", "alice", "later"),
        story.send("refused-0", "alice"),
        story.send("deferred", "later", "later2"),
        story.send("large", "alice", "later", size=150_000),
        story.break_off("broken-off", 200_000),
        story.send("large-too", "later", size=100_000),
        *(story.send(f"together-{number}", "alice", "later") for number in range(6)),
    )
    await story.learn_ids()
    await story.act("deferred", "hold", "held")
    await story.act("deferred", "release", "queued")
    await story.replace("second\n" * 200)
    # A crash while a message is being sent, and the recovery from it.
    await story.send("held-up", "alice", size=80_000)
    async with asyncio.timeout(PATIENCE):
        await holding.wait()
    await story.stop(signal.SIGKILL)
    go_on.set()
    await story.hand_in("while-down", "alice")
    await story.start()
    await story.until(lambda: len(remote.received) >= 11)
    # The remote is away: mail waits.
    await remote.down()
    await story.send("refused-1", "alice", "bob")
    for number in range(1, 5):
        await story.send(f"away-{number}", "alice", size=2_000 * number)
    await story.send("away-large", "alice", size=130_000)
    await story.hand_in("handed-in", "alice", "bob", size=20_000)
    await story.learn_ids()
    await story.act("away-1", "hold", "held")
    await story.act("away-2", "cancel", "cancelled")
    await story.stop()
    await story.hand_in("between", "alice")
    await story.learn_ids()
    # Old history is deleted.
    story.mark(purges=True)
    story.settings(answer_within="2s", keep_sent="1s")
    await remote.up()
    await story.start()
    await story.do("queue", "retry", "--all")
    await story.send("last", "alice")
    await story.until(story.logged(story.id_of("away-large"), "status=sent"))
    await story.until(story.logged(story.id_of("handed-in"), "status=sent"))
    await story.learn_ids()
    await story.act("away-1", "cancel", "cancelled")
    await story.stop()
    # Once the rest is older than `keep_sent`, it is deleted, and the file becomes shorter.
    await asyncio.sleep(1.1)
    await story.start()
    async with asyncio.timeout(PATIENCE):
        while story.id_of("away-large") in await story.do("queue", "--all", "--json"):
            pass
    await story.stop()
    await story.do("queue")


async def short(story: Story) -> None:
    story.settings(answer_within="0s")
    await story.start()
    for number in range(5):
        await story.send(f"short-{number}", "alice")
        await asyncio.sleep(0.1)
    await story.replace("text\n")
    await asyncio.sleep(0.5)
    await story.learn_ids()
    await story.stop()


async def tell(directory: Path, tampering: str, is_short: bool) -> None:
    os.umask(0o077)
    (directory / ROOT).mkdir()
    (directory / "remote").mkdir()
    async with Remote(directory / "remote") as remote:
        story = Story(directory, remote, tampering)
        try:
            await (short(story) if is_short else whole(story))
        finally:
            with contextlib.suppress(ProcessLookupError, AssertionError):
                await story.stop(signal.SIGKILL)
        (directory / LETTERS).write_text(json.dumps({"letters": story.letters, "ids": story.ids}))


if __name__ == "__main__":
    asyncio.run(tell(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "short"))
