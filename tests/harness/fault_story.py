"""A story of ten messages, told to a real `mailrelay serve` whose disk fails at one call. `tell` returns the facts.

The messages come in over SMTP. A mail server behind an embedded SSH server accepts them, refuses one recipient and defers
two others until the act `queue retry`. One message is so large that it is staged. The person is told by a Maildir and by a
command; neither needs the spool. After the story, a probe shows whether the daemon goes on. Then it is stopped. A second
daemon on the same spool, whose disk does not fail, delivers the rest.

Nothing here judges: see `harness.fault_verdict`.
"""

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.failing_disk import Counted, Fault, report
from harness.fork_server import Forked, ForkServer
from mailrelay.demo.mailserver import Received
from mailrelay.demo.remote import HOST, Remote
from mailrelay.mail.overview import Listed
from mailrelay.mail.spool_errors import SpoolError
from mailrelay.spool.database import connect, row
from mailrelay.spool.listing import everything
from mailrelay.spool.notices import next_notice_due

PATIENCE = 20.0
"""Seconds after which a daemon that has not replied, ended or sent mail is stuck."""
TOLD_WITHIN = 5.0
"""Seconds from the failed call within which the person is told."""
ENDS_WITHIN = 5.0
"""Seconds from the failed call within which a daemon that cannot go on has ended."""
SETTINGS = """\
[listen]
address = "unix:{directory}/smtp"
answer_within = "3s"
[relayhost.default]
ssh = "{host}"
ssh_config = "{ssh_config}"
helo = "[127.0.0.1]"
[queue]
directory = "{directory}/state/spool"
retry = ["1h"]
[notify]
desktop = false
dsn = true
mailbox = "{directory}/Maildir"
command = ["/bin/sh", "-c", "cat >{directory}/told/.$$ && mv {directory}/told/.$$ {directory}/told/$$"]
"""


@dataclass(frozen=True, slots=True)
class Letter:
    """A message of the story. recipients: the local parts before the name of the run; size: octets of its body."""

    name: str
    recipients: tuple[str, ...] = ("alice",)
    size: int = 30


REFUSAL = "550 5.1.1 no such user"
"""The mail server's, which the client gets as it is."""
PROBE = Letter("probe")
STORY: tuple[tuple[Letter, ...], ...] = (
    (Letter("first"), Letter("second", ("alice", "bob")), Letter("refused", ("refused",))),
    (Letter("deferred", ("later", "never")),),
    (Letter("large", size=70_000),),
    (Letter("sixth"), Letter("seventh")),
)
"""Sessions, one after the other, with their messages. The mail server refuses `refused`. It defers `later` and `never` until
the act `queue retry`; then it accepts the one and refuses the other, of which the person must be told."""
TOGETHER = (Letter("eighth"), Letter("ninth"), Letter("tenth"))
"""Sent at once after the act, each in a session of its own."""
LETTERS = {letter.name: letter for letter in (*(each for session in STORY for each in session), *TOGETHER, PROBE)}


class Mailboxes(Remote):
    """The mail server of many stories at once. Keeps what arrived for whom, and compares each content with what was sent."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.policy = self._reply
        self.arrivals: dict[str, Counter[tuple[str, str]]] = {}
        self.altered: dict[str, list[str]] = {}
        self.retried: set[str] = set()

    async def _reply(self, verb: str, argument: bytes) -> bytes | None:
        if verb != "RCPT":
            return None
        recipient, _, run = argument.partition(b"<")[2].partition(b"@")[0].decode().partition("-")
        if recipient in ("later", "never") and run not in self.retried:
            return b"451 4.2.1 mailbox is busy"
        return REFUSAL.encode() if recipient in ("refused", "never") else None

    async def keep(self, message: Received) -> None:
        subject = message.content.partition(b"\r\nSubject: ")[2].partition(b"\r\n")[0].decode()
        run, _, name = subject.partition(" ")
        if name in LETTERS:
            if not message.content.endswith(content(run, LETTERS[name])):
                self.altered.setdefault(run, []).append(name)
        else:
            run, name = message.recipients[0].decode().partition("@")[0].partition("-")[2], "report"
        for recipient in message.recipients:
            self.arrivals.setdefault(run, Counter())[name, recipient.decode().partition("-")[0]] += 1


def content(run: str, letter: Letter) -> bytes:
    head = (
        f"Date: Mon, 05 Jan 2026 10:00:00 +0000\r\nFrom: me-{run}@example.org\r\nTo: you@example.net\r\n"
        f"Message-ID: <{letter.name}@{run}>\r\nSubject: {run} {letter.name}\r\n\r\n"
    )
    line = b"%s: " % letter.name.encode() + b"x" * 64 + b"\r\n"
    return head.encode() + (line * (letter.size // len(line) + 1))


@dataclass(slots=True)
class Facts:
    """What happened. Times are epoch seconds.

    calls: the counted calls, or the one that failed. replies: the code of the reply to each message, 0 where the connection
    broke before it, -1 where none came within PATIENCE. refusals: every 4xx and 5xx to a client. ready: whether the first
    daemon began to listen. ended: its exit status where nobody had asked it to end, at ended_at. stopped: its exit
    status after SIGTERM; None where it had ended, or did not end. settled: whether nothing was left to do for it.
    arrived: how often a recipient of a message arrived. arrived_before: the same, before the second daemon. told: notices by
    the command, with their times. reports: the texts of those in the Maildir. status: `mailrelay status` after the story.
    states: of the recipients at the end. second: what the second daemon said if it did not start, end or settle.
    """

    run: str
    fault: Fault | None
    calls: list[Counted] = field(default_factory=list)
    replies: dict[str, int] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    ready: bool = False
    ended: int | None = None
    ended_at: float = 0.0
    stopped: int | None = None
    settled: bool = False
    arrived: Counter[tuple[str, str]] = field(default_factory=Counter)
    arrived_before: Counter[tuple[str, str]] = field(default_factory=Counter)
    altered: list[str] = field(default_factory=list)
    told: list[tuple[float, dict[str, object]]] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    status: tuple[int, str] = (0, "")
    states: dict[tuple[str, str], str] = field(default_factory=dict)
    said: str = ""
    logged: str = ""
    second: str = ""

    @property
    def failed_call(self) -> Counted | None:
        return next((call for call in self.calls if call.fault), None)


class Story:
    """One run of the story in a directory of its own."""

    def __init__(
        self, server: ForkServer, mailboxes: Mailboxes, directory: Path, sabotage: str = "", patience: float = PATIENCE
    ) -> None:
        """sabotage: a name in `harness.sabotage`, "" for the real program. patience: seconds, instead of PATIENCE."""
        self._server = server
        self._mailboxes = mailboxes
        self._directory = directory
        self._sabotage = sabotage
        self._patience = patience
        for name in ("", "state", "told", "runtime"):
            (directory / name).mkdir(mode=0o700)
        config = directory / "config.toml"
        config.write_text(SETTINGS.format(directory=directory, host=HOST, ssh_config=mailboxes.ssh_config))
        config.chmod(0o600)
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "MAILRELAY_CONFIG": str(config),
            "XDG_RUNTIME_DIR": str(directory / "runtime"),
        }
        self._daemon: Forked
        self._commands = 0
        self._arm: Sequence[str | int] = ()

    async def tell(self, fault: Fault | None, *, traces: bool = False) -> Facts:
        """The whole story. traces: whether every call is reported; those of the commands and the second daemon in a file
        `other-calls`."""
        facts = Facts(self._directory.name, fault)
        state, calls = self._directory / "state", self._directory / "calls"
        arm = (fault.name, fault.number, fault.kind) if fault else ("", 0, "")
        self._daemon = self._command("serve", arm=(str(state), str(calls), int(traces), *arm), sabotage=self._sabotage)
        if traces:
            self._arm = (str(state), str(self._directory / "other-calls"), 1, "", 0, "")
        await self._first_daemon(facts)
        facts.arrived_before = self._arrived()
        facts.calls = report(calls)
        await self._second_daemon(facts)
        facts.arrived, facts.altered = self._arrived(), self._mailboxes.altered.get(facts.run, [])
        facts.told, facts.reports = self._told(), self._reports()
        return facts

    async def _first_daemon(self, facts: Facts) -> None:
        daemon = self._daemon
        facts.ready = await self._listens()
        if facts.ready:
            await self._submit_all(facts)
            if not daemon.status.done():
                facts.settled = await self._until(lambda: daemon.status.done() or self._is_settled())
            if not daemon.status.done() and report(self._directory / "calls"):
                await self._probe(facts)
        facts.status = await self._run("status", "--json")
        failed = next((call for call in report(self._directory / "calls") if call.fault not in ("", "KILL")), None)
        if failed is not None and (daemon.status.done() or any(line[0] == "4" for line in facts.refusals)):
            wait = failed.at + TOLD_WITHIN + 1 - time.time()
            await until(lambda: any(one["kind"] == "spool" for _, one in self._told()), wait)
        if daemon.status.done():
            facts.ended, facts.ended_at = daemon.status.result(), daemon.ended_at
        else:
            facts.stopped = await daemon.stop(signal.SIGTERM, self._patience)
            if facts.stopped is None:
                await daemon.stop(signal.SIGKILL, self._patience)
        facts.said = daemon.said
        with suppress(OSError):
            facts.logged = (self._directory / "state/spool/mailrelay.log").read_text(errors="replace")

    async def _submit_all(self, facts: Facts) -> None:
        for session in STORY:
            await self._session(session, facts)
        self._mailboxes.retried.add(facts.run)
        await self._run("queue", "retry", "--all")
        await asyncio.gather(*(self._session((letter,), facts) for letter in TOGETHER))

    async def _probe(self, facts: Facts) -> None:
        """A message to see whether the daemon goes on. A client whose mail was refused tries again."""
        await self._session((PROBE,), facts)
        end = time.monotonic() + 5
        while facts.replies["probe"] // 100 == 4 and not self._daemon.status.done() and time.monotonic() < end:
            await asyncio.sleep(0.5)
            await self._session((PROBE,), facts)
        if not self._daemon.status.done():
            facts.settled = await self._until(lambda: self._daemon.status.done() or self._is_settled())

    async def _second_daemon(self, facts: Facts) -> None:
        self._daemon = second = self._command("serve")
        if not await self._listens():
            facts.second = f"did not start: {second.said}"
        elif not await self._until(lambda: second.status.done() or self._is_settled()):
            facts.second = f"did not settle: {self._listing()}"
        status = await second.stop(signal.SIGTERM, self._patience)
        if status != 0:
            facts.second = facts.second or f"ended with status {status}: {second.said}"
            await second.stop(signal.SIGKILL, self._patience)
        for message in self._listing():
            name = message.subject.partition(" ")[2] if message.sender else "report"
            for to in message.recipients:
                facts.states[name, to.address.decode().partition("-")[0]] = to.state

    async def _session(self, letters: Sequence[Letter], facts: Facts) -> None:
        """Sends messages in one session. A new one for each message whose session broke before."""
        client: Client | None = None
        for letter in letters:
            facts.replies[letter.name] = 0
            try:
                async with asyncio.timeout(self._patience):
                    client = client or await Client.connect(self._directory / "smtp")
                    facts.replies[letter.name] = await client.send(facts.run, letter)
            except TimeoutError:
                facts.replies[letter.name] = -1
            except (OSError, EOFError):
                pass
            if client is not None:
                facts.refusals += client.refusals
                client.refusals = []
                if facts.replies[letter.name] <= 0:
                    client.close()
                    client = None
        if client is not None:
            client.close()

    def _command(self, *words: str, arm: Sequence[str | int] = (), sabotage: str = "") -> Forked:
        self._commands += 1
        output = self._directory / f"said-{self._commands}"
        return self._server.start(words, self._directory, output, self._environment, arm or self._arm, sabotage)

    async def _run(self, *words: str) -> tuple[int, str]:
        """A command to its end: its exit status, -1 for none, and its output."""
        job = self._command(*words)
        status = await job.ended(self._patience)
        if status is None:
            await job.stop(signal.SIGKILL, self._patience)
        return (-1 if status is None else status), job.said

    async def _listens(self) -> bool:
        """Waits until the daemon listens or has ended; whether it listens."""
        await until(lambda: self._daemon.status.done() or "ready" in self._daemon.said, interval=0.01)
        return "ready" in self._daemon.said

    async def _until(self, fact: Callable[[], object]) -> bool:
        return await until(fact, self._patience)

    def _is_settled(self) -> bool:
        """Whether the daemon has nothing left to do: no message is due or active, and no notice is pending."""
        try:
            db = connect(self._directory / "state/spool", create=False)
        except (SpoolError, OSError):
            return False
        try:
            soon = time.time() + 600
            due = row(
                db,
                "SELECT count(*) FROM message m WHERE next_attempt < ? OR EXISTS"
                " (SELECT 1 FROM attempt WHERE message = m.id AND closed IS NULL)",
                (soon,),
            )[0]
            return not due and next_notice_due(db) is None
        finally:
            db.close()

    def _listing(self) -> list[Listed]:
        try:
            db = connect(self._directory / "state/spool", create=False)
        except FileNotFoundError:
            return []
        try:
            return list(everything(db))
        finally:
            db.close()

    def _arrived(self) -> Counter[tuple[str, str]]:
        return self._mailboxes.arrivals.get(self._directory.name, Counter()).copy()

    def _told(self) -> list[tuple[float, dict[str, object]]]:
        # A command that was ended with the daemon may leave a part.
        files = [file for file in (self._directory / "told").glob("[!.]*") if file.read_bytes().endswith(b"}\n")]
        return sorted(
            ((file.stat().st_mtime, json.loads(file.read_bytes())) for file in files), key=lambda each: each[0]
        )

    def _reports(self) -> list[str]:
        return [file.read_text(errors="replace") for file in (self._directory / "Maildir/new").glob("*")]


class Client:
    """A mail client: one SMTP session over the daemon's socket. Raises OSError or EOFError where the connection breaks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.refusals: list[str] = []

    @classmethod
    async def connect(cls, socket: Path) -> "Client":
        client = cls(*await asyncio.open_unix_connection(socket))
        await client._reply()
        await client._command(b"EHLO client.example")
        return client

    async def send(self, run: str, letter: Letter) -> int:
        """Sends a message; returns the code of the reply that decides about it."""
        commands = [b"MAIL FROM:<me-%s@example.org>" % run.encode()]
        commands += [b"RCPT TO:<%s-%s@example.net>" % (to.encode(), run.encode()) for to in letter.recipients]
        for command in (*commands, b"DATA"):
            code = await self._command(command)
            if code >= 400:
                return code
        return await self._command(content(run, letter) + b".")

    async def _command(self, octets: bytes) -> int:
        self._writer.write(octets + b"\r\n")
        with suppress(ConnectionError):
            # A server that closes says why before: its reply is read all the same.
            await self._writer.drain()
        return await self._reply()

    async def _reply(self) -> int:
        while True:
            line = await self._reader.readline()
            if not line.endswith(b"\n"):
                raise EOFError
            if line[:1] in b"45":
                self.refusals.append(line.decode(errors="replace").strip())
            if line[3:4] != b"-":
                return int(line[:3])

    def close(self) -> None:
        self._writer.close()


async def until(fact: Callable[[], object], patience: float = PATIENCE, interval: float = 0.05) -> bool:
    """Waits until the fact is true; whether it became so within `patience` seconds."""
    end = time.monotonic() + patience
    while not fact():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(interval)
    return True
