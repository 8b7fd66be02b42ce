"""One conversation: what is written when, which job ends how, and what the end of the conversation says."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mailrelay.mail.envelope import Envelope, Message, Recipient, Unreadable
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.recorded import RecordedExchange
from mailrelay.mail.triage import Disposition, classify
from mailrelay.relay import delivery
from mailrelay.relay.delivery import BLOCK, ConversationEnd, converse
from mailrelay.relay.jobs import Cancelled, Job, MessageJob, RecipientProbe
from mailrelay.relay.plan import ConversationProgress
from mailrelay.relay.transfer import Phase
from mailrelay.smtp.extensions import Extension
from mailrelay.smtp.flight import Trust
from mailrelay.smtp.transaction import REPLY_TIMEOUTS

CONTENT = b"Subject: x\r\n\r\nx\r\n"
PIPELINING = b"PIPELINING"
BDAT = (PIPELINING, b"CHUNKING")
CLOSES = b""
"""The mail server ends the stream instead of a reply."""


class Wire:
    """A channel to a mail server in memory, which replies at once to each command that is written whole.

    extensions: those that it offers. replies: other replies than the ordinary ones, by command ("." for the content); None
    for a reply that does not come before `go_on`. lines: the commands that came. writes: what was written. blocks: while it
    is set, `drain` waits. at_drain: called by each `drain`. breaks_at: a command; the write that has it and all later ones
    fail.
    """

    def __init__(
        self, *extensions: bytes, replies: dict[str, bytes | None] | None = None, breaks_at: str = "-"
    ) -> None:
        self.extensions, self.replies, self.breaks_at = extensions, replies or {}, breaks_at
        self.lines: list[bytes] = []
        self.writes: list[bytes] = []
        self.contents: list[bytes] = []
        self.is_closed = self.is_broken = False
        self.blocks: asyncio.Event | None = None
        self.at_drain: Callable[[], None] = lambda: None
        self.written = self.acknowledged = 0
        self._incoming: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self._unread = b""
        self._is_content = False
        self._held: list[bytes] | None = None
        self.say(b"220 mx.example welcome\r\n")

    def say(self, data: bytes | Exception) -> None:
        self._incoming.put_nowait(data)

    async def read(self) -> bytes:
        data = await self._incoming.get()
        if isinstance(data, Exception):
            raise data
        return data

    def write(self, data: bytes) -> None:
        if self.is_broken or self.breaks_at.encode() in data:
            self.is_broken = True
            raise ConnectionResetError
        self.writes.append(data)
        self.written += len(data)
        self._unread += data
        while self._take():
            pass

    async def drain(self) -> None:
        self.at_drain()
        for _ in range(3):
            # What the mail server has said meanwhile is read.
            await asyncio.sleep(0)
        if self.blocks is not None:
            await self.blocks.wait()
        if self.is_broken:
            raise ConnectionResetError

    def close(self) -> None:
        self.is_closed = True

    def _take(self) -> bool:
        if self._is_content:
            content, end, rest = self._unread.partition(b"\r\n.\r\n")
            if end:
                self._unread, self._is_content = rest, False
                self.contents.append(content + b"\r\n")
                self._reply(".", b"250 2.0.0 taken\r\n")
            return bool(end)
        line, end, rest = self._unread.partition(b"\r\n")
        if not end:
            return False
        verb, _, argument = line.partition(b" ")
        if verb == b"BDAT":
            size = int(argument.split()[0])
            if len(rest) < size:
                return False
            self.contents.append(rest[:size])
            rest = rest[size:]
        self.lines.append(line)
        self._unread = rest
        offered = [b"mx.example", *self.extensions]
        ehlo = b"".join(b"250-%s\r\n" % one for one in offered[:-1]) + b"250 %s\r\n" % offered[-1]
        ordinary = {b"EHLO": ehlo, b"DATA": b"354 go ahead\r\n", b"QUIT": b"221 bye\r\n"}
        self._reply(verb.decode(), ordinary.get(verb, b"250 2.0.0 ok\r\n"))
        self._is_content = verb == b"DATA" and (self.replies.get("DATA", b"3") or b"").startswith(b"3")
        return True

    def _reply(self, to: str, ordinary: bytes) -> None:
        reply = self.replies.get(to, ordinary)
        if self._held is not None:
            self._held.append(reply or b"")
        elif reply is not None:
            self.say(reply)
        else:
            self._held = []

    def go_on(self, reply: bytes) -> None:
        """The reply that did not come, and all after it."""
        held, self._held = self._held or [], None
        self.say(reply + b"".join(held))

    @property
    def verbs(self) -> list[str]:
        return [line.split(b" ")[0].split(b":")[0].decode() for line in self.lines]


@dataclass
class Mail:
    """Where the jobs come from, and what becomes of each. batches: what each `next` gives; after the last one, no more.
    heard: everything that was said, in order. waits: `next` waits for it after the last batch."""

    batches: list[Sequence[Job]] = field(default_factory=list)
    heard: list[tuple[object, ...]] = field(default_factory=list)
    in_progress: dict[int, MessageJob] = field(default_factory=dict)
    contents: dict[int, Sequence[bytes | Exception]] = field(default_factory=dict)
    last_wait: float = 0.0
    waits: asyncio.Event | None = None
    at_piece: Callable[[int, int], object] = lambda _key, _number: None
    asked: int = 0
    limits: list[int] = field(default_factory=list)
    pieces_read: int = 0
    outcomes: dict[int, Sequence[Outcome]] = field(default_factory=dict)

    def message(
        self, key: int, *pieces: bytes | Exception, to: Sequence[bytes] = (b"b@example.net",), size: int | None = None
    ) -> MessageJob:
        self.contents[key] = pieces or (CONTENT,)
        if size is None:
            size = sum(len(one) for one in self.contents[key] if isinstance(one, bytes))
        envelope = Envelope(b"a@example.org", tuple(Recipient(one) for one in to))
        keys = tuple(range(10 * key, 10 * key + len(to)))
        found = Message(key, f"id{key}", "default", envelope, keys, size, 0.0, 0)
        return MessageJob(found, self._pieces, cast(Any, self), lambda: 0.0, self.in_progress)

    async def _pieces(self, key: int) -> AsyncGenerator[bytes, None]:
        for number, one in enumerate(self.contents[key]):
            self.at_piece(key, number)
            if isinstance(one, Exception):
                raise one
            self.pieces_read += 1
            yield one

    def ready(self, in_flight: int, server_names: Sequence[bytes]) -> None:
        self.heard.append(("ready", in_flight, tuple(server_names)))

    def judged(self, job: Job) -> None:
        self.heard.append(("judged", job.queue_id))

    async def next(self, limit: int) -> Sequence[Job]:
        self.asked += 1
        self.limits.append(limit)
        if self.batches:
            return self.batches.pop(0)
        if self.waits is not None:
            await self.waits.wait()
        return []

    def finished(self, message: Message, outcomes: Sequence[Outcome], **how: object) -> None:
        self.outcomes[message.id] = outcomes
        self.heard.append(("finished", message.id, [classify(one).name for one in outcomes], how))

    def untried(self, message: Message, *, goes_on: bool, is_next: bool) -> None:
        self.heard.append(("untried", message.id, goes_on))

    def cancelled(self, message: Message, ended: Cancelled) -> None:
        self.heard.append(("cancelled", message.id))
        ended(is_cancelled=True)

    def planned(self, message: Message, exchange: RecordedExchange) -> None:
        self.heard.append(("planned", message.id, exchange.token, exchange.relays_dsn))

    @property
    def ends(self) -> list[tuple[object, ...]]:
        """How the jobs ended: kind, key, and the dispositions or whether it goes on."""
        return [one[:3] for one in self.heard if one[0] in ("finished", "untried", "cancelled")]


async def talk(wire: Wire, mail: Mail, **how: Any) -> ConversationEnd:
    async with asyncio.timeout(20):
        return await converse(cast(Any, wire), b"[127.0.0.1]", mail, **how)


SENT = ["SENT"]


@pytest.mark.parametrize("extensions", [(), (PIPELINING,), BDAT], ids=["plain", "pipelining", "chunking"])
async def test_messages_are_sent_until_there_are_no_more_and_then_quit_is_sent(extensions: tuple[bytes, ...]) -> None:
    wire, mail = Wire(*extensions, b"DSN"), Mail()
    mail.batches = [[mail.message(1)], [mail.message(2, CONTENT, CONTENT)]]
    end = await talk(wire, mail)
    assert end == ConversationEnd(None, ConversationProgress.REPLIED)
    assert wire.contents == [CONTENT, CONTENT + CONTENT]
    assert (wire.lines[0], wire.lines[-1]) == (b"EHLO [127.0.0.1]", b"QUIT")
    assert mail.heard[0] == ("ready", 32 if b"CHUNKING" in extensions else 1, (b"mx.example", b"mx.example"))
    assert mail.ends == [("finished", 1, SENT), ("finished", 2, SENT)]
    # A job is judged before its end is told: what follows from it is known by then.
    assert [one[0] for one in mail.heard[1:]] == ["judged", "finished", "judged", "finished"]
    assert mail.in_progress == {}
    assert wire.is_closed


async def test_a_conversation_without_jobs_ends_with_quit_and_has_come_nowhere() -> None:
    wire, mail = Wire(), Mail()
    assert await talk(wire, mail) == ConversationEnd(None, ConversationProgress.NOTHING)
    assert wire.verbs == ["EHLO", "QUIT"]
    assert mail.asked == 1
    assert wire.is_closed


async def test_several_jobs_at_once_are_all_begun_and_no_more_are_asked_for_meanwhile() -> None:
    wire, mail = Wire(*BDAT), Mail()
    mail.batches = [[mail.message(1), mail.message(2), mail.message(3)]]
    await talk(wire, mail, trust=Trust.PROVEN)
    assert [key for _, key, _ in mail.ends] == [1, 2, 3]
    assert mail.limits[0] == 32


async def test_a_conversation_that_gets_no_more_jobs_waits_for_its_replies_and_asks_no_more() -> None:
    wire, mail = Wire(*BDAT, replies={"BDAT": None}), Mail()
    mail.batches = [[mail.message(1)]]
    task = asyncio.ensure_future(talk(wire, mail, trust=Trust.PROVEN))
    while mail.asked < 2:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert (mail.asked, wire.verbs[-1], task.done()) == (2, "BDAT", False)
    wire.go_on(b"250 2.0.0 taken\r\n")
    assert await task == ConversationEnd(None, ConversationProgress.REPLIED)
    assert (mail.asked, wire.verbs[-1]) == (2, "QUIT")


@pytest.mark.parametrize("offers_dsn", [False, True])
@pytest.mark.parametrize("token", ["", "f" * 32])
async def test_the_replies_of_a_recorded_conversation_are_planned_before_they_come(
    offers_dsn: bool, token: str
) -> None:
    wire, mail = Wire(*([b"DSN"] if offers_dsn else [])), Mail()
    mail.batches = [[mail.message(1)]]
    await talk(wire, mail, token=token)
    planned = [one for one in mail.heard if one[0] == "planned"]
    assert planned == ([("planned", 1, token, offers_dsn)] if token else [])
    (finished,) = (one for one in mail.heard if one[0] == "finished")
    assert cast(dict[str, object], finished[3])["relays_dsn"] is offers_dsn


async def test_an_extension_that_may_not_be_used_is_not_used() -> None:
    wire, mail = Wire(*BDAT), Mail()
    mail.batches = [[mail.message(1)]]
    await talk(wire, mail, unusable=[Extension.CHUNKING])
    assert "DATA" in wire.verbs
    assert "BDAT" not in wire.verbs


async def test_a_refused_extension_is_named_and_its_message_is_repeated_at_once() -> None:
    wire, mail = Wire(*BDAT, replies={"BDAT": b"500 what\r\n"}), Mail()
    mail.batches = [[mail.message(1)]]
    end = await talk(wire, mail)
    assert end.refused == {Extension.CHUNKING}
    assert end.goes_on
    assert end.outcome is not None
    assert mail.ends == [("untried", 1, True)]


@pytest.mark.parametrize(
    ("replies", "disposition", "is_reply"),
    [
        ({"RCPT": b"550 5.1.1 no such user\r\n"}, "BOUNCED", True),
        ({"RCPT": b"451 4.2.1 later\r\n"}, "DEFERRED", True),
        ({".": b"451 4.3.0 later\r\n"}, "DEFERRED", True),
    ],
)
async def test_a_message_that_is_refused_was_judged(
    replies: dict[str, bytes | None], disposition: str, is_reply: bool
) -> None:
    wire, mail = Wire(replies=replies), Mail()
    mail.batches = [[mail.message(1)], [mail.message(2)]]
    end = await talk(wire, mail)
    assert mail.ends == [("finished", 1, [disposition]), ("finished", 2, [disposition])]
    assert end == ConversationEnd(None, ConversationProgress.REPLIED)
    assert (("judged", "id1") in mail.heard) is is_reply


async def test_a_message_in_whose_transaction_the_conversation_ends_is_left_to_the_caller() -> None:
    wire, mail = Wire(replies={"MAIL": CLOSES}), Mail()
    mail.batches = [[mail.message(1)]]
    end = await talk(wire, mail)
    assert end.progress is ConversationProgress.NOTHING
    assert end.outcome is not None
    assert end.outcome.text == "the mail server closed the connection"
    assert mail.ends == [], "the caller ends it"
    assert end.cut is not None
    assert not end.leaves_doubt
    end.cut.finish()
    other = Outcome(Stage.CONTENT, cause=Cause.UNREADABLE, text="other")
    end.cut.finish([other])
    assert mail.ends == [("finished", 1, ["DEFERRED"]), ("finished", 1, [classify(other).name])]


@pytest.mark.parametrize("refusal", [b"421 4.7.0 too many recipients\r\n", CLOSES])
async def test_a_mail_server_that_ends_the_conversation_at_its_limit_of_recipients_has_judged_the_message(
    refusal: bytes,
) -> None:
    wire, mail = Wire(), Mail()
    mail.batches = [[mail.message(1, to=[b"b@x.example", b"c@x.example"])]]
    first = iter([b"250 ok\r\n", b"452 4.5.3 too many recipients\r\n"])
    reply = wire._reply

    def replying(to: str, ordinary: bytes) -> None:
        if to == "RCPT":
            wire.say(next(first))
        else:
            reply(to, ordinary)

    wire._reply = replying  # type: ignore[method-assign]
    wire.replies["DATA"] = refusal
    end = await talk(wire, mail)
    assert end.cut is None
    assert len(mail.ends) == 1
    assert end.progress is ConversationProgress.REPLIED
    assert ("judged", "id1") in mail.heard


async def test_the_time_of_a_job_is_from_its_own_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(delivery, "time", SimpleNamespace(monotonic=lambda: now[0]))
    wire, mail = Wire(), Mail()

    def later(key: int, _number: int) -> None:
        now[0] += 10 * key

    mail.at_piece = later
    mail.batches = [[mail.message(1)], [mail.message(2)]]
    await talk(wire, mail)
    seconds = [cast(dict[str, object], one[3])["seconds"] for one in mail.heard if one[0] == "finished"]
    assert seconds == [10.0, 20.0]


# Probes.


async def probed(wire: Wire) -> tuple[ConversationEnd, Outcome | None, Mail]:
    probe, mail = RecipientProbe(Envelope(b"a@example.org", (Recipient(b"b@example.net"),))), Mail()
    mail.batches = [[probe]]
    end = await talk(wire, mail)
    return end, probe.reply.result(), mail


async def test_a_probe_that_was_answered_is_judged() -> None:
    end, outcome, mail = await probed(Wire(replies={"RCPT": b"550 5.1.1 no\r\n"}))
    assert outcome is not None
    assert outcome.reply is not None
    assert outcome.reply.code == 550
    assert end.progress is ConversationProgress.REPLIED
    assert ("judged", "") in mail.heard


@pytest.mark.parametrize("verb", ["MAIL", "RCPT"])
async def test_a_probe_whose_replies_are_lost_has_ended_without_being_judged(verb: str) -> None:
    end, outcome, mail = await probed(Wire(replies={verb: CLOSES}))
    assert outcome is None
    assert end.progress is ConversationProgress.FINISHED
    assert end.cut is None
    assert ("judged", "") not in mail.heard


# The end of the connection, and failures.


async def test_a_connection_that_is_lost_says_why() -> None:
    wire, mail = Wire(), Mail(waits=asyncio.Event())
    wire.say(ConnectionResetError("reset by peer"))
    end = await talk(wire, mail)
    assert end.outcome is not None
    assert end.outcome.text == "the connection was lost (reset by peer)"
    assert end.progress is ConversationProgress.NOTHING
    assert wire.is_closed


@pytest.mark.parametrize("extensions", [(), BDAT], ids=["plain", "chunking"])
async def test_what_the_mail_server_said_before_it_took_no_more_octets_still_counts(
    extensions: tuple[bytes, ...],
) -> None:
    wire, mail = Wire(*extensions, breaks_at="MAIL"), Mail(waits=asyncio.Event())
    mail.batches = [[mail.message(1)]]
    task = asyncio.ensure_future(talk(wire, mail, trust=Trust.PROVEN))
    while not wire.is_broken:
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    wire.say(b"421 4.3.2 going down\r\n")
    end = await task
    assert end.outcome is not None
    assert end.outcome.reply is not None
    assert end.outcome.reply.code == 421
    assert mail.asked == 1, "no job is taken for a channel that takes no octets"


async def test_a_reply_to_content_that_was_sent_whole_leaves_doubt_if_it_is_lost() -> None:
    wire, mail = Wire(replies={".": None}), Mail()
    mail.batches = [[mail.message(1)]]
    task = asyncio.ensure_future(talk(wire, mail))
    while not wire.contents:
        await asyncio.sleep(0)
    wire.say(ConnectionResetError("gone"))
    end = await task
    assert end.leaves_doubt
    assert end.cut is not None
    assert [classify(one) for one in end.cut.outcomes] == [Disposition.UNCERTAIN]


async def test_a_job_that_was_not_begun_is_given_back_when_the_conversation_ends() -> None:
    wire, mail = Wire(replies={"MAIL": b"421 4.3.2 going down\r\n"}), Mail()
    mail.batches = [[mail.message(1), mail.message(2)]]
    end = await talk(wire, mail)
    assert end.goes_on
    assert ("untried", 2, True) in mail.ends
    assert len(mail.ends) + (end.cut is not None) == 2


@pytest.mark.parametrize("last_wait", [0.0, 10.0])
async def test_a_cancelled_conversation_waits_for_the_reply_to_content_that_was_sent_whole(last_wait: float) -> None:
    wire, mail = Wire(replies={".": None}), Mail(last_wait=last_wait)
    mail.batches = [[mail.message(1), mail.message(2)]]
    task = asyncio.ensure_future(talk(wire, mail))
    while not wire.contents:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    if last_wait:
        await asyncio.sleep(0)
        assert not task.done()
        wire.say(b"250 2.0.0 taken\r\n")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ("finished", 1, SENT if last_wait else ["UNCERTAIN"]) in mail.ends
    assert [one.text for one in mail.outcomes[1]] == ["" if last_wait else "mailrelay was stopped"]
    assert ("untried", 2, False) in mail.ends
    assert len(mail.ends) == 2
    assert wire.is_closed
    assert len(wire.contents) == 1, "nothing more is sent"


async def test_a_cancelled_conversation_waits_no_longer_than_it_may() -> None:
    wire, mail = Wire(replies={".": None}), Mail(last_wait=0.001)
    mail.batches = [[mail.message(1)]]
    task = asyncio.ensure_future(talk(wire, mail))
    while not wire.contents:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert mail.ends == [("finished", 1, ["UNCERTAIN"])]


async def test_a_reply_that_has_come_before_the_conversation_is_cancelled_counts() -> None:
    wire, mail = Wire(), Mail()
    mail.batches = [[mail.message(1)]]
    task = asyncio.ensure_future(talk(wire, mail))
    wire.replies["."] = None
    while not wire.contents:
        await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)
    wire.say(b"250 2.0.0 taken\r\n")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert mail.ends == [("finished", 1, SENT)]


async def test_jobs_that_come_in_the_instant_of_the_cancellation_are_given_back() -> None:
    wire, mail = Wire(), Mail()
    mail.batches = [[mail.message(1)]]
    task = asyncio.ensure_future(talk(wire, mail))
    while not mail.asked:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert mail.ends == [("untried", 1, False)]


async def test_an_error_of_ours_ends_each_job_without_a_wait_and_is_raised() -> None:
    wire, mail = Wire(*BDAT, replies={"BDAT": None}), Mail(last_wait=3600.0)
    mail.batches = [[mail.message(1)], [mail.message(2, ValueError("an error of ours")), mail.message(3)]]
    with pytest.raises(ValueError, match="an error of ours"):
        await talk(wire, mail, trust=Trust.PROVEN)
    assert {one[:2] for one in mail.ends} == {("finished", 1), ("untried", 2), ("untried", 3)}
    assert len(mail.ends) == 3
    assert [one.text for one in mail.outcomes[1]] == ["mailrelay failed; see its log"]
    assert wire.is_closed


# Content.


LINE = b"x" * 62 + b"\r\n"


@pytest.mark.parametrize("extensions", [(), BDAT], ids=["DATA", "BDAT"])
async def test_a_large_content_is_written_in_blocks_each_after_the_channel_has_taken_the_last(
    extensions: tuple[bytes, ...],
) -> None:
    wire, mail = Wire(*extensions), Mail()
    content = LINE * (10 * BLOCK // len(LINE))
    mail.batches = [[mail.message(1, content, LINE)]]
    drains: list[int] = []
    wire.at_drain = lambda: drains.append(wire.written)
    await talk(wire, mail)
    assert wire.contents == [content + LINE]
    assert max(map(len, wire.writes)) <= BLOCK + 200
    written = [at for at in drains if at > BLOCK]
    assert len(written) >= 10
    assert all(later - earlier <= BLOCK + 200 for earlier, later in pairwise(written))


async def test_small_pieces_of_a_content_are_written_together() -> None:
    wire, mail = Wire(), Mail()
    mail.batches = [[mail.message(1, *[LINE] * 100)]]
    await talk(wire, mail)
    assert wire.writes.index(LINE * 100 + b".\r\n") == 4, "after EHLO, MAIL, RCPT, DATA"


async def test_no_job_is_asked_for_before_the_channel_has_taken_what_was_written() -> None:
    wire, mail = Wire(), Mail()
    wire.blocks = asyncio.Event()
    task = asyncio.ensure_future(talk(wire, mail))
    while "EHLO" not in wire.verbs:
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert mail.asked == 0
    wire.blocks.set()
    await task
    assert mail.asked == 1


async def test_a_refusal_in_the_middle_of_a_content_ends_its_reading() -> None:
    wire, mail = Wire(), Mail()
    pieces = [LINE * 1024] * 20
    mail.batches = [[mail.message(1, *pieces)]]

    def refuse(_key: int, number: int) -> None:
        if number == 3:
            wire.say(b"552 5.3.4 too large\r\n")

    mail.at_piece = refuse
    end = await talk(wire, mail)
    assert mail.pieces_read < 10
    assert end.cut is not None or mail.ends == [("finished", 1, ["BOUNCED"])]


@pytest.mark.parametrize("extensions", [(), BDAT], ids=["DATA", "BDAT"])
async def test_a_content_that_cannot_be_read_is_held_and_its_part_is_not_completed(
    extensions: tuple[bytes, ...],
) -> None:
    wire, mail = Wire(*extensions), Mail()
    mail.batches = [[mail.message(1, CONTENT, Unreadable("checksum"), size=100)], [mail.message(2)]]
    end = await talk(wire, mail)
    (outcome,) = mail.outcomes[1]
    assert (outcome.stage, outcome.cause) == (Stage.CONTENT, Cause.UNREADABLE)
    assert outcome.text == "the message cannot be read from the spool: checksum"
    assert "`mailrelay queue show id1 --content`" in outcome.fix
    if extensions:
        assert mail.ends == [("finished", 1, ["HELD"]), ("finished", 2, SENT)], "nothing of it was sent"
        assert end.outcome is None
    else:
        assert mail.ends[0] == ("finished", 1, ["HELD"])
        assert end.outcome == outcome
        assert wire.contents == []


async def test_a_mail_server_that_takes_no_content_for_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    wire, mail = Wire(), Mail()
    mail.batches = [[mail.message(1, LINE * (2 * BLOCK // len(LINE)))]]

    def block(_key: int, _number: int) -> None:
        wire.blocks = asyncio.Event()
        monkeypatch.setitem(REPLY_TIMEOUTS, Stage.CONTENT, 0.001)

    mail.at_piece = block
    end = await talk(wire, mail)
    assert end.outcome is not None
    assert (end.outcome.stage, end.outcome.cause) == (Stage.CONTENT, Cause.LOST)
    assert end.outcome.text == "the mail server took no content for 0 s"


async def test_a_channel_that_breaks_in_the_middle_of_a_content_waits_for_the_last_words_of_the_mail_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(REPLY_TIMEOUTS, Stage.CONTENT, 0.05)
    wire, mail = Wire(), Mail()
    mail.batches = [[mail.message(1, *[LINE * 1024] * 5)]]

    def break_it(_key: int, number: int) -> None:
        wire.is_broken = number == 2

    mail.at_piece = break_it
    end = await talk(wire, mail)
    assert end.outcome is not None
    assert end.outcome.text.startswith("the mail server gave no reply within")
    assert end.outcome.stage is Stage.CONTENT
    assert end.cut is not None
    assert [classify(one) for one in end.cut.outcomes] == [Disposition.DEFERRED]
    assert mail.pieces_read < 5


# Messages that the person cancels.


async def test_a_message_that_is_cancelled_before_it_begins_is_not_sent_and_the_conversation_goes_on() -> None:
    wire, mail = Wire(), Mail()
    first, second, third = (mail.message(key) for key in (1, 2, 3))
    mail.batches = [[first, second, third]]
    mail.at_piece = lambda key, _number: bool(key == 1 and second.transfer.want_stop())
    await talk(wire, mail)
    assert sorted(mail.ends) == [("cancelled", 2), ("finished", 1, SENT), ("finished", 3, SENT)]
    assert second.transfer.is_cancelled
    assert len(wire.contents) == 2


async def test_a_message_that_was_to_be_cancelled_before_it_was_given_is_cancelled() -> None:
    wire, mail = Wire(), Mail()
    job = mail.message(1)
    assert job.transfer.want_stop()
    mail.batches = [[job, mail.message(2)]]
    await talk(wire, mail)
    assert mail.ends == [("cancelled", 1), ("finished", 2, SENT)]


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_a_message_that_is_cancelled_while_a_reply_is_awaited_ends_the_conversation(verb: str) -> None:
    wire, mail = Wire(replies={verb: None}), Mail()
    job = mail.message(1)
    mail.batches = [[job, mail.message(2)]]
    task = asyncio.ensure_future(talk(wire, mail))
    while verb not in wire.verbs:
        await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)
    assert job.transfer.want_stop()
    end = await task
    assert end == ConversationEnd(None, ConversationProgress.NOTHING, goes_on=True)
    assert mail.ends == [("cancelled", 1), ("untried", 2, True)]
    assert wire.contents == []
    assert wire.is_closed


async def test_a_message_is_not_cancelled_while_another_one_is_in_doubt() -> None:
    wire, mail = Wire(PIPELINING, replies={".": None}), Mail()
    first, second = mail.message(1), mail.message(2)
    mail.batches = [[first], [second]]
    task = asyncio.ensure_future(talk(wire, mail))
    while wire.verbs.count("MAIL") < 2:
        await asyncio.sleep(0)
    assert not first.transfer.want_stop(), "its end is written"
    assert second.transfer.want_stop()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    wire.go_on(b"250 2.0.0 taken\r\n")
    end = await task
    assert mail.ends == [("finished", 1, SENT), ("cancelled", 2)]
    assert end == ConversationEnd(None, ConversationProgress.REPLIED, goes_on=True)


@pytest.mark.parametrize("extensions", [(), BDAT], ids=["DATA", "BDAT"])
async def test_a_message_that_is_cancelled_in_its_content_is_not_completed(extensions: tuple[bytes, ...]) -> None:
    wire, mail = Wire(*extensions), Mail()
    job = mail.message(1, *[LINE * 1024] * 6)
    mail.batches = [[job]]
    mail.at_piece = lambda _key, number: bool(number == 2 and job.transfer.want_stop())
    end = await talk(wire, mail)
    assert end == ConversationEnd(None, ConversationProgress.NOTHING, goes_on=True)
    assert mail.ends == [("cancelled", 1)]
    assert wire.contents == []
    assert mail.pieces_read < 5


async def test_a_small_message_that_is_cancelled_while_it_is_read_does_not_end_the_conversation() -> None:
    wire, mail = Wire(*BDAT), Mail()
    job = mail.message(1, CONTENT, CONTENT)
    mail.batches = [[job], [mail.message(2)]]
    mail.at_piece = lambda key, number: bool(key == 1 and number == 1 and job.transfer.want_stop())
    end = await talk(wire, mail)
    assert end == ConversationEnd(None, ConversationProgress.REPLIED)
    assert mail.ends == [("cancelled", 1), ("finished", 2, SENT)]
    assert wire.contents == [CONTENT]


@pytest.mark.parametrize("which", [1, 2], ids=["the one that is being sent", "the one behind it"])
async def test_a_channel_that_takes_no_octets_does_not_delay_a_cancellation(which: int) -> None:
    wire, mail = Wire(), Mail()
    jobs = {key: mail.message(key, LINE * 2048) for key in (1, 2)}
    mail.batches = [[jobs[1], jobs[2]]]

    def block(key: int, _number: int) -> None:
        if key == 1:
            wire.blocks = asyncio.Event()

    mail.at_piece = block
    task = asyncio.ensure_future(talk(wire, mail))
    while wire.blocks is None or wire.written < BLOCK:
        await asyncio.sleep(0)
    assert jobs[which].transfer.want_stop()
    async with asyncio.timeout(20):
        await jobs[which].transfer.ended.wait()
    assert mail.ends[0] == ("cancelled", which)
    wire.blocks.set()
    end = await task
    if which == 1:
        assert mail.ends == [("cancelled", 1), ("untried", 2, True)]
        assert end == ConversationEnd(None, ConversationProgress.NOTHING, goes_on=True)
    else:
        assert mail.ends == [("cancelled", 2), ("finished", 1, SENT)]
        assert end == ConversationEnd(None, ConversationProgress.REPLIED)
        assert wire.contents == [LINE * 2048]


async def test_a_message_whose_end_is_written_cannot_be_cancelled_any_more() -> None:
    wire, mail = Wire(replies={".": None}), Mail()
    job = mail.message(1)
    mail.batches = [[job]]
    task = asyncio.ensure_future(talk(wire, mail))
    while not wire.contents:
        await asyncio.sleep(0)
    assert not job.transfer.want_stop()
    wire.say(b"250 2.0.0 taken\r\n")
    await task
    assert mail.ends == [("finished", 1, SENT)]


async def test_the_progress_of_a_content_is_what_the_channel_has_taken() -> None:
    wire, mail = Wire(), Mail()
    job = mail.message(1, *[LINE * 512] * 4)
    mail.batches = [[job]]
    seen: list[tuple[Phase, int]] = []

    def look(_key: int, _number: int) -> None:
        wire.acknowledged = wire.written
        seen.append((job.transfer.phase, job.transfer.octets))

    mail.at_piece = look
    await talk(wire, mail)
    assert seen == [(Phase.STARTED, number * 512 * len(LINE)) for number in range(4)]
    assert job.transfer.phase is Phase.COMPLETE
