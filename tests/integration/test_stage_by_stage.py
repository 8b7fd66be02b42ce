"""Every stage of SMTP at which a mail server can fail, in every way: what follows is what docs/failures.md says.

Each cell of the table in the section "Stage by stage" is a test here. It sends the message that meets the failure and,
behind it, another one, through a real daemon to `harness.failing_server`. Both are on disk before the first conversation.
"""

import asyncio
import smtplib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from harness.daemon import served, settings
from harness.failing_server import (
    CLOSING,
    LATER,
    STAGES,
    UNLUCKY_RECIPIENT,
    UNLUCKY_SENDER,
    WAITED_FOR,
    WAYS,
    FailingServer,
    never,
)
from harness.readme import Result, results, stage_by_stage
from harness.waiting import until

from mailrelay.control import acts
from mailrelay.control.status import Level, reasons
from mailrelay.mail.overview import Listed
from mailrelay.notify import notifier
from mailrelay.smtp.transaction import REPLY_TIMEOUTS
from mailrelay.spool import listing, trigger
from mailrelay.spool.database import connect, transaction
from mailrelay.ssh import connection

HANGS = 0.25
"""Seconds for which a server hangs: what comes then is the same after any time."""
RETRY, DELAY = 3600.0, 3600.0
FORERUNNER, SENDER, RECIPIENT = b"forerunner@example.org", b"a@example.org", b"b@example.net"
LARGE = (b"0123456789abcdef" * 4 + b"\r\n") * 8000
"""More than is on its way while the server does not read."""
ENDS = ("close", "hang", "garbage", "endless line")
"""The ways after which a conversation is over."""
REASONS = {
    "4xx": ("come back another time", "Connection refused"),
    "5xx": ("never", "prohibits forwarding"),
    "close": ("closed the connection", "was lost"),
    "hang": ("gave no reply within", "took no content for", "did not answer in time"),
    "garbage": ("not a reply",),
    "endless line": ("line of more than 2048 octets", "xxxxxxxx"),
}
"""By the way to fail, words of which one is in everything that says why."""


@dataclass(frozen=True)
class Case:
    """A cell of the table, and how its result is shown. result: its name.

    reply: as for `FailingServer`. answer_within: seconds
    that the client waits. alone: at RCPT, the message has one recipient. of_all: the server fails at every message.
    """

    stage: str
    way: str
    result: str
    reply: bytes = b""
    answer_within: float = 20.0
    alone: bool = True
    of_all: bool = False

    @property
    def is_other_in_doubt(self) -> bool:
        """Whether the other message was in flight too, and its reply may only be late."""
        return self.stage == "BDAT" and self.way in ("hang", "garbage", "endless line")

    def __str__(self) -> str:
        return "-".join(
            part
            for part in (
                self.stage,
                self.way,
                self.reply[:3].decode(),
                "" if self.answer_within else "after the 250",
                "of every message" if self.of_all else "",
                "the only recipient" if self.stage == "RCPT" and self.alone and not self.of_all else "",
            )
            if part
        )


def cases() -> Iterator[Case]:
    table = stage_by_stage()
    for (stage, way), result in table.items():
        refusal = never(stage) if stage == "content" and way == "split reply" else b""
        cell = Case(stage, way, result, refusal, alone=stage != "RCPT")
        yield cell
        if result == "refused":
            yield replace(cell, result="bounced", answer_within=0.0)
        if result == "refused alone":
            yield replace(cell, result="refused", alone=True)
        if way == "4xx" and stage != "connect":
            yield replace(cell, result="deferred" if stage == "RCPT" else result, reply=CLOSING)
        if stage in ("MAIL", "RCPT", "DATA") and way in ("4xx", *ENDS):
            yield replace(cell, result="waits", reply=CLOSING if way == "4xx" else b"", alone=True, of_all=True)
        if way == "split reply" and stage not in ("connect", "QUIT"):
            yield replace(cell, result=table[stage, "4xx"], reply=LATER)
            yield replace(cell, result=table[stage, "5xx"], reply=never(stage))


class Story:
    """A daemon and its failing server; a client; what the person hears."""

    def __init__(self, server: FailingServer, port: int, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.server = server
        self.began = time.time()
        self._port = port
        self._directory = directory
        self._caplog = caplog
        self._db = connect(directory / "spool")

    def close(self) -> None:
        self._db.close()

    # The client.

    async def send(self, sender: bytes, *recipients: bytes, content: bytes = b"") -> asyncio.Task[tuple[int, bytes]]:
        """Sends a message. Returns once it is on disk; the task has the reply to it."""
        count = len(self.messages())
        task = asyncio.create_task(asyncio.to_thread(self._send, sender, recipients, content))
        await until(lambda: task.done() or len(self.messages()) > count)
        return task

    def _send(self, sender: bytes, recipients: Sequence[bytes], content: bytes) -> tuple[int, bytes]:
        client = smtplib.SMTP("127.0.0.1", self._port, timeout=20)
        try:
            client.ehlo()
            client.mail(sender.decode())
            for recipient in recipients:
                assert client.rcpt(recipient.decode())[0] == 250
            return client.data(b"From: %b\r\nSubject: a letter\r\n\r\nhello\r\n" % sender + content)
        finally:
            client.close()

    # The spool.

    def messages(self) -> list[Listed]:
        return list(listing.everything(self._db))

    def message(self, sender: bytes) -> Listed:
        (found,) = (one for one in self.messages() if one.sender == sender)
        return found

    def status(self) -> Level:
        now = time.time()
        found = reasons(listing.status(self._db, now - DELAY), serving=True, answers=True, failure="", full="", now=now)
        return max((level for level, _ in found), default=Level.FINE)

    def fault(self) -> str:
        return " ".join(one.text for one in listing.status(self._db).faults)

    def is_settled(self) -> bool:
        """Whether every attempt has ended, and all mail that still waits to be tried waits for the relayhost."""
        states = {to.state for one in self.messages() for to in one.recipients}
        return "active" not in states and ("queued" not in states or bool(self.fault()))

    def age(self) -> None:
        """Makes all mail so old that its delay is noticed."""
        with transaction(self._db):
            self._db.execute("UPDATE message SET arrival = arrival - ?", (2 * DELAY,))
        trigger.fire(self._directory / "spool")

    # The person.

    def heard(self) -> tuple[str, ...]:
        """The kinds of the notices that were delivered."""
        records = [one for one in self._caplog.records if one.name == "mailrelay.notify" and one.args]
        return tuple(str(one.args[1]) for one in records if " delivered by " in one.msg)  # type: ignore[index]

    def reports(self) -> list[str]:
        """The reports in the Maildir, each on one line."""
        return [" ".join(path.read_text().split()) for path in (self._directory / "Maildir/new").glob("*")]

    async def hears(self, kinds: Sequence[str]) -> None:
        """Waits for so many notices, in the log and in the Maildir."""
        await until(lambda: len(self.heard()) >= len(kinds))
        assert len(self.reports()) == len(kinds)

    async def retry(self) -> None:
        await asyncio.to_thread(acts.retry_all, self._directory / "spool")


@asynccontextmanager
async def story(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Story]:
    (tmp_path / "remote").mkdir()
    caplog.set_level("INFO", "mailrelay")
    # A notice that mail moves again comes with the next check.
    monkeypatch.setattr(notifier, "MAX_DELAY_CHECK_INTERVAL", 0.02)
    monkeypatch.setattr(notifier, "MIN_DELAY_CHECK_INTERVAL", 0.02)
    usual, usual_for_channel = dict(REPLY_TIMEOUTS), connection.CHANNEL_TIMEOUT

    def relax() -> None:
        monkeypatch.setattr(connection, "CHANNEL_TIMEOUT", usual_for_channel)
        for stage, seconds in usual.items():
            monkeypatch.setitem(REPLY_TIMEOUTS, stage, seconds)  # type: ignore[arg-type]

    def hurry() -> None:
        if case.stage == "connect":
            monkeypatch.setattr(connection, "CHANNEL_TIMEOUT", HANGS)
        else:
            monkeypatch.setitem(REPLY_TIMEOUTS, WAITED_FOR[case.stage], HANGS)  # type: ignore[arg-type]

    server = FailingServer(tmp_path / "remote", case.stage, case.way, case.reply)
    if case.way == "hang" and case.stage != "QUIT":
        server.hurry, server.relax = hurry, relax
    async with AsyncExitStack() as parts:
        await parts.enter_async_context(server)
        if (case.stage, case.way) == ("connect", "split reply"):
            await parts.enter_async_context(server.octet_by_octet())
        linger = 0.0 if case.stage in ("QUIT", "BDAT") else 30.0
        usually = settings(tmp_path, server.relayhost(name="default", channels=1, backlog_channels=1, linger=linger))
        changed = usually._replace(
            listen=usually.listen._replace(answer_within=case.answer_within),
            queue=usually.queue._replace(retry=(RETRY,), delay_notice_after=DELAY),
        )
        port, _ = await parts.enter_async_context(served(changed))
        at = Story(server, port, tmp_path, caplog)
        parts.callback(at.close)
        yield at


@dataclass(frozen=True)
class Seen:
    """What has come of the message that met the failure, and of the other one, when all has settled.

    reply, other_reply: to the clients. status: of `mailrelay status`.
    """

    unlucky: Listed
    other: Listed
    reply: tuple[int, str]
    other_reply: tuple[int, str]
    status: Level
    fault: str

    @property
    def scope(self) -> str:
        if self.other.recipients[0].state == "queued":
            return "relayhost"
        is_alone = self.unlucky.recipients[0].state != "sent" and self.unlucky.recipients[-1].state == "sent"
        return "recipient" if is_alone else "message"

    @property
    def disposition(self) -> str:
        to = self.unlucky.recipients[0]
        by_state = {"queued": "waits", "refused": "bounced"}
        if to.state == "deferred" and to.uncertain is not None:
            return "uncertain"
        return by_state.get(to.state, to.state)

    def result(self, notices: tuple[str, ...], status: Level) -> Result:
        """As the documentation has it. notices: all that were delivered. status: once the mail is late."""
        return Result(
            self.scope,
            self.disposition,
            self.unlucky.recipients[0].state,
            self.unlucky.attempts,
            str(self.reply[0])[0],
            self.unlucky.next_attempt is not None,
            notices,
            int(status),
        )


async def settled(at: Story, case: Case) -> Seen:
    """Sends both messages, lets the server fail, and waits until all has settled."""
    if case.stage == "BDAT":
        # Content goes ahead of the replies only to a mail server that has shown that it takes mail.
        at.server.open.set()
        await (await at.send(FORERUNNER, RECIPIENT))
        await until(lambda: at.server.received and not at.server.connections)
        at.server.open.clear()
    at.server.fails_all = case.of_all
    recipients = (UNLUCKY_RECIPIENT,) if case.alone else (UNLUCKY_RECIPIENT, RECIPIENT)
    first = await at.send(UNLUCKY_SENDER, *recipients, content=LARGE if case.stage == "content" else b"")
    if case.stage == "QUIT":
        at.server.open.set()
        await at.server.reached.wait()
        await until(lambda: not at.server.connections)
    second = await at.send(SENDER, RECIPIENT)
    at.server.open.set()
    (code, text), (other_code, other_text) = await first, await second
    await until(at.is_settled)
    return Seen(
        at.message(UNLUCKY_SENDER),
        at.message(SENDER),
        (code, text.decode()),
        (other_code, other_text.decode()),
        at.status(),
        at.fault(),
    )


def says_why(case: Case, text: str) -> bool:
    way = {b"4": "4xx", b"5": "5xx"}.get(case.reply[:1], case.way)
    return any(words in text for words in REASONS[way])


def conversations(case: Case, promised: Result) -> int:
    """How many there are until all has settled."""
    if case.of_all:
        return 2
    before = int(case.stage == "BDAT")
    is_over = case.way in ENDS or case.reply == CLOSING or case.stage in ("content", "QUIT")
    if promised.scope != "message" or not is_over or case.is_other_in_doubt:
        return before + 1
    # The second one shows that the mail server accepts other mail, the third that it accepts no more messages, or not this.
    return before + (3 if case.stage in ("MAIL", "RCPT", "DATA") else 2)


def assert_at_once(at: Story, case: Case, seen: Seen, promised: Result) -> None:
    """What the person can see without waiting, and what has become of the other message."""
    assert at.server.reached.is_set()
    assert seen.status is (Level.FAILED if promised.status == Level.FAILED else Level.FINE)
    if promised.state != "sent":
        assert case.answer_within == 0 or says_why(case, seen.reply[1])
        assert says_why(case, seen.unlucky.recipients[0].description.decode() or seen.unlucky.fault_text)
    if seen.unlucky.next_attempt is not None:
        assert at.began + RETRY <= seen.unlucky.next_attempt <= time.time() + RETRY * 1.1
    assert seen.other_reply[0] == 250
    (other,) = seen.other.recipients
    if promised.scope == "relayhost":
        assert seen.fault
        assert says_why(case, seen.other_reply[1])
        assert (other.state, seen.other.attempts) == ("queued", 0)
    else:
        assert not seen.fault
        assert (other.state, seen.other.attempts) == ("deferred" if case.is_other_in_doubt else "sent", 1)
        assert (other.uncertain is not None) == case.is_other_in_doubt
    assert at.server.channels == conversations(case, promised)
    assert at.server.logins == 1 + (case.stage in ("QUIT", "BDAT"))


def test_the_table_has_every_stage_and_every_way_to_fail() -> None:
    assert list(stage_by_stage()) == [(stage, way) for stage in STAGES for way in WAYS]
    assert {case.result for case in cases()} == set(results())


@pytest.mark.parametrize("case", list(cases()), ids=str)
async def test_what_follows_is_what_the_documentation_says(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    promised = results()[case.result]
    is_resumed = "resumed" in promised.notices
    async with story(case, tmp_path, monkeypatch, caplog) as at:
        seen = await settled(at, case)
        assert_at_once(at, case, seen, promised)
        at.age()
        await at.hears(promised.notices[:1])
        assert all(says_why(case, report) for report in at.reports())
        status = at.status()
        at.server.fails = False
        if is_resumed:
            await at.retry()
            await until(lambda: {to.state for one in at.messages() for to in one.recipients} == {"sent"})
        await at.hears(promised.notices)
        assert seen.result(at.heard(), status) == promised
        assert at.status() is (Level.FAILED if "failed" in promised.notices else Level.FINE)
        sent = [(one.sender, to.address) for one in at.messages() for to in one.recipients if to.state == "sent"]
        arrived = [(one.sender, to) for one in at.server.received for to in one.recipients]
        # The server that sends garbage goes on, and accepts what is in flight behind it.
        twice = [(SENDER, RECIPIENT)] if case.is_other_in_doubt and case.way == "garbage" else []
        assert sorted(arrived) == sorted(sent + twice)
