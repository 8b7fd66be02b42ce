"""How long a mail server may take for a reply: one limit for each, however its octets come. The clock is the test's."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from types import SimpleNamespace

import pytest

from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.outcome import Outcome, Stage
from mailrelay.mail.triage import Disposition, classify
from mailrelay.relay import delivery
from mailrelay.relay.delivery import ConversationEnd, converse
from mailrelay.relay.jobs import Job, MessageJob
from mailrelay.smtp.transaction import REPLY_TIMEOUTS

CONTENT = b"Subject: x\r\n\r\nx\r\n"
REPLIES = {
    Stage.GREETING: b"220-mx.example.org\r\n220 welcome\r\n",
    Stage.EHLO: b"250-mx.example.org\r\n250-SIZE\r\n250 8BITMIME\r\n",
    Stage.MAIL: b"250-good\r\n250-very\r\n250 ok\r\n",
    Stage.RCPT: b"250 2.1.5 ok\r\n",
    Stage.DATA: b"354 go ahead\r\n",
    Stage.AFTER_DOT: b"250-2.0.0 taken\r\n250 2.0.0 bye\r\n",
}
"""What a mail server without PIPELINING replies to one message."""


class Trickle:
    """A channel on which each reply comes octet by octet, in `seconds` of it altogether; `now` is the clock.

    left: the octets of the last reply that have not come.
    """

    def __init__(self, seconds: dict[Stage, float]) -> None:
        self.now = 0.0
        self.left = b""
        self._seconds = seconds
        self._replies = list(REPLIES.items())
        self._pause = 0.0
        self._asked = asyncio.Event()
        self.written = self.acknowledged = 0
        self._next_reply()

    def _next_reply(self) -> None:
        stage, self.left = self._replies.pop(0)
        self._pause = self._seconds[stage] / len(self.left)

    async def read(self) -> bytes:
        while not self.left:
            self._asked.clear()
            await self._asked.wait()
        self.now += self._pause
        octet, self.left = self.left[:1], self.left[1:]
        return octet

    def write(self, data: bytes) -> None:
        if self._replies and not data.startswith(b"QUIT"):
            assert not self.left, "a command before the whole reply"
            self._next_reply()
            self._asked.set()

    async def drain(self) -> None: ...
    def close(self) -> None: ...


class OneMessage:
    """A message for a conversation, and what became of it."""

    def __init__(self) -> None:
        self.outcomes: Sequence[Outcome] = ()
        envelope = Envelope(b"a@example.org", (Recipient(b"b@example.net"),))
        message = Message(1, "id", "default", envelope, (1,), len(CONTENT), 0.0, 0)
        self._jobs = [MessageJob(message, self.pieces, self, lambda: 0.0, {})]

    async def pieces(self, _message: int) -> AsyncGenerator[bytes, None]:
        yield CONTENT

    def ready(self, in_flight: int, server_names: Sequence[bytes]) -> None: ...
    def judged(self, job: Job) -> None: ...

    async def next(self, limit: int) -> Sequence[Job]:
        jobs, self._jobs = self._jobs, []
        return jobs

    def finished(
        self, message: Message, outcomes: Sequence[Outcome], *, relays_dsn: bool, dial_seconds: float, seconds: float
    ) -> None:
        self.outcomes = outcomes

    def untried(self, message: Message, *, goes_on: bool, is_next: bool) -> None: ...


async def conversed(channel: Trickle, monkeypatch: pytest.MonkeyPatch) -> tuple[ConversationEnd, Sequence[Outcome]]:
    monkeypatch.setattr(delivery, "time", SimpleNamespace(monotonic=lambda: channel.now))
    mail = OneMessage()
    async with asyncio.timeout(20):
        end = await converse(channel, b"localhost", mail)
    return end, mail.outcomes if end.cut is None else end.cut.outcomes


@pytest.mark.parametrize("stage", REPLIES)
async def test_a_reply_that_trickles_ends_the_conversation_at_the_limit_of_one_reply(
    monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    limit = REPLY_TIMEOUTS[stage]
    channel = Trickle(dict.fromkeys(REPLIES, 0.0) | {stage: 10 * limit})
    end, outcomes = await conversed(channel, monkeypatch)
    assert channel.left
    assert limit <= channel.now < 2 * limit
    assert end.outcome is not None
    assert (end.outcome.stage, end.outcome.text) == (stage, f"the mail server gave no reply within {limit:.0f} s")
    assert [classify(one) for one in outcomes] == {
        Stage.GREETING: [],
        Stage.EHLO: [],
        Stage.AFTER_DOT: [Disposition.UNCERTAIN],
    }.get(stage, [Disposition.DEFERRED])


async def test_each_reply_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Trickle({stage: 0.9 * REPLY_TIMEOUTS[stage] for stage in REPLIES})
    end, outcomes = await conversed(channel, monkeypatch)
    assert end.outcome is None
    assert [classify(one) for one in outcomes] == [Disposition.SENT]
