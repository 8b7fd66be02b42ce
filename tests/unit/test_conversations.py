"""The conversations on one connection: how many there are, and how far each is."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mailrelay.config import Relayhost
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.mail.spool_errors import SpoolBroken, SpoolError
from mailrelay.relay import conversations
from mailrelay.relay.connector import Connector
from mailrelay.relay.conversations import Conversations
from mailrelay.relay.delivery import ConversationEnd, CutMessage, JobSource
from mailrelay.relay.jobs import Job
from mailrelay.relay.mail_channel import MailChannel
from mailrelay.relay.plan import ConversationProgress
from mailrelay.relay.records import Records
from mailrelay.relay.results import Results
from mailrelay.smtp.extensions import Extension
from mailrelay.smtp.flight import Trust
from mailrelay.ssh.interface import Channel


class Talks:
    """Takes the place of `converse`: its conversations last until `over` is set. sources: theirs, as they began."""

    def __init__(self) -> None:
        self.sources: list[JobSource] = []
        self.over = asyncio.Event()

    async def __call__(
        self, _channel: Channel, _name: bytes, source: JobSource, *_: object, **__: object
    ) -> ConversationEnd:
        self.sources.append(source)
        await self.over.wait()
        return ConversationEnd(None, ConversationProgress.NOTHING)


async def opened(*_: object) -> MailChannel:
    return MailChannel(cast(Channel, None))


async def nothing(_limit: int) -> list[Job]:
    return []


def three(heard: list[object] | None = None) -> Conversations:
    """Those of a relayhost that allows three, and nine with one message each, on a connection that is up. heard: what the
    scheduler and the connector hear of them."""
    hears = (heard if heard is not None else []).append
    connector = SimpleNamespace(
        connection=SimpleNamespace(is_up=True),
        retired=None,
        conversation_begun=lambda: None,
        fault=SimpleNamespace(mail_server_ready=lambda: hears("the mail server is ready")),
    )
    return Conversations(
        Relayhost(
            name="default", ssh="server", ssh_config=Path("/nowhere"), channels=3, backlog_channels=9, linger=3600.0
        ),
        cast(Connector, connector),
        cast(Results, None),
        cast(Records, SimpleNamespace(connected=lambda: None)),
        nothing,
        hears,
        lambda: hears("changed"),
    )


async def test_a_conversation_is_ready_with_the_reply_to_ehlo_and_idle_without_mail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talks, held = Talks(), three()
    monkeypatch.setattr(conversations, "open_channel", opened)
    monkeypatch.setattr(conversations, "converse", talks)
    async with asyncio.TaskGroup() as group:
        assert (held.count, held.all_ready, held.more_allowed) == (0, True, 1)
        held.open(1, group)
        assert (held.count, held.all_ready, held.idle) == (1, False, 0)
        await asyncio.sleep(0)
        talks.sources[0].ready(8, ())
        assert (held.all_ready, held.idle) == (True, 0)
        asks = group.create_task(_next(talks.sources[0]))
        await asyncio.sleep(0)
        assert (held.all_ready, held.idle) == (True, 1)
        held.open(1, group)
        assert (held.count, held.all_ready, held.idle) == (2, False, 1)
        asks.cancel()
        talks.over.set()
    assert (held.count, held.all_ready, held.idle) == (0, True, 0)


async def _next(source: JobSource) -> None:
    await source.next(1)


async def test_beside_a_mail_server_that_is_not_proven_there_is_one_conversation_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talks, held = Talks(), three()
    monkeypatch.setattr(conversations, "open_channel", opened)
    monkeypatch.setattr(conversations, "converse", talks)
    async with asyncio.TaskGroup() as group:
        held.open(1, group)
        await asyncio.sleep(0)
        assert held.more_allowed == 0
        talks.sources[0].judged(cast(Job, SimpleNamespace(queue_id="bcdfghjk")))
        assert held.more_allowed == 2
        talks.over.set()


@pytest.mark.parametrize(("in_flight", "channels"), [(8, 3), (1, 9)])
async def test_the_reply_to_ehlo_is_told_and_with_one_message_at_a_time_more_conversations_are_allowed(
    in_flight: int, channels: int
) -> None:
    heard: list[object] = []
    held = three(heard)
    held.ready(in_flight, (b"mx.example.org",))
    assert heard == [(b"mx.example.org",), "the mail server is ready", "changed"]
    assert held.channels == channels


async def test_conversations_that_are_cancelled_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    talks, held = Talks(), three()
    monkeypatch.setattr(conversations, "open_channel", opened)
    monkeypatch.setattr(conversations, "converse", talks)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        held.open(1, group)
        await asyncio.sleep(0)
        held.cancel()
    assert len(talks.sources) == 1
    assert not talks.over.is_set()
    assert held.count == 0


# What follows from the end of a conversation.


class There:
    """A connection. is_closed: it was closed by us."""

    def __init__(self) -> None:
        self.is_up, self.is_closed = True, False

    async def close(self) -> None:
        self.is_up, self.is_closed = False, True


class Ends:
    """Takes the place of `converse`: each conversation waits for its end. begun: the extensions that it does not use, and
    the trust in the mail server."""

    def __init__(self) -> None:
        self.begun: list[tuple[frozenset[Extension], Trust]] = []
        self.sources: list[JobSource] = []
        self.ends: list[asyncio.Future[ConversationEnd]] = []

    async def __call__(
        self,
        _channel: Channel,
        _name: bytes,
        source: JobSource,
        unusable: frozenset[Extension],
        trust: Trust,
        *_: object,
        **__: object,
    ) -> ConversationEnd:
        self.begun.append((unusable, trust))
        self.sources.append(source)
        self.ends.append(asyncio.get_running_loop().create_future())
        return await self.ends[-1]


class CutJob:
    """A job in whose transaction a conversation ended. ended: how it was ended."""

    def __init__(self, queue_id: str = "bcdfghjk") -> None:
        self.queue_id = queue_id
        self.ended: list[object] = []

    def finish(self, outcomes: Sequence[Outcome], **_: object) -> None:
        self.ended.append([one.cause for one in outcomes])

    def give_back(self, *, goes_on: bool, is_next: bool) -> None:
        self.ended.append(("back", goes_on, is_next))


class Bench:
    """Conversations on a connection that is up. token: of their records."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, token: str = "", **how: object) -> None:
        self.ends, self.there = Ends(), There()
        self.calls: list[object] = []
        self.jobs: list[list[Job]] = []
        self.clock = 1000.0
        self.connector = SimpleNamespace(
            connection=self.there,
            retired=None,
            has_streams=False,
            conversation_begun=lambda: self.calls.append("begun"),
            fault=SimpleNamespace(mail_server_ready=lambda: None),
            forget=lambda: setattr(self.connector, "connection", None),
        )
        records = SimpleNamespace(
            connected=lambda: self.calls.append("connected"),
            ended=lambda token, *, leaves_doubt: self.calls.append((token, leaves_doubt)),
        )

        async def opened(*_: object) -> MailChannel:
            return MailChannel(cast(Channel, None), token)

        async def written() -> None:
            self.calls.append("written")

        async def next_jobs(_limit: int) -> list[Job]:
            return self.jobs.pop(0) if self.jobs else []

        settings = {"name": "default", "ssh": "server", "channels": 3, "backlog_channels": 9, "linger": 3600.0} | how
        self.held = Conversations(
            Relayhost(ssh_config=Path("/nowhere"), **settings),  # type: ignore[arg-type]
            cast(Connector, self.connector),
            cast(Results, SimpleNamespace(written=written)),
            cast(Records, records),
            next_jobs,
            lambda _names: None,
            lambda: None,
        )
        monkeypatch.setattr(conversations, "open_channel", opened)
        monkeypatch.setattr(conversations, "converse", self.ends)
        monkeypatch.setattr(conversations, "time", SimpleNamespace(monotonic=lambda: self.clock))

    async def begun(self, group: asyncio.TaskGroup, count: int = 1) -> None:
        self.held.open(count, group)
        await turns()

    async def ended(self, end: ConversationEnd, index: int = -1) -> None:
        self.ends.ends[index].set_result(end)
        await turns()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


CLOSED = Outcome(Stage.MAIL, cause=Cause.SMTP_CLOSED, text="closed")
LOGIN_WANTED = Outcome(Stage.MAIL, Reply(530, (b"5.7.0 no",)), Cause.LOGIN_WANTED)
OURS = ConversationEnd(None, ConversationProgress.REPLIED)


def cut(job: CutJob, *outcomes: Outcome) -> CutMessage:
    return CutMessage(cast(Job, job), outcomes, relays_dsn=False, seconds=1.0)


def closing(stage: Stage, *, ends: bool = True) -> Outcome:
    return Outcome(stage, Reply(421 if ends else 451, (b"4.3.2 closing",)))


BACK, BACK_NEXT = ("back", True, False), ("back", True, True)


@pytest.mark.parametrize(
    ("outcomes", "progress", "is_up", "ended"),
    [
        ((closing(Stage.MAIL),), ConversationProgress.NOTHING, True, BACK),
        ((closing(Stage.RCPT),), ConversationProgress.NOTHING, True, BACK),
        ((closing(Stage.DATA),), ConversationProgress.REPLIED, True, BACK_NEXT),
        ((closing(Stage.CONTENT),), ConversationProgress.NOTHING, True, [Cause.REPLY]),
        ((closing(Stage.RCPT, ends=False),), ConversationProgress.NOTHING, True, [Cause.REPLY]),
        ((closing(Stage.RCPT), closing(Stage.CONTENT)), ConversationProgress.NOTHING, True, [Cause.REPLY] * 2),
        ((closing(Stage.RCPT), closing(Stage.RCPT, ends=False)), ConversationProgress.NOTHING, True, [Cause.REPLY] * 2),
        ((closing(Stage.MAIL),), ConversationProgress.NOTHING, False, [Cause.REPLY]),
    ],
)
async def test_a_message_in_whose_transaction_a_conversation_ends_goes_on_unless_it_may_be_the_reason(
    monkeypatch: pytest.MonkeyPatch,
    outcomes: Sequence[Outcome],
    progress: ConversationProgress,
    is_up: bool,
    ended: object,
) -> None:
    at, job = Bench(monkeypatch), CutJob()
    async with asyncio.TaskGroup() as group:
        await at.begun(group)
        at.there.is_up = is_up
        await at.ended(ConversationEnd(outcomes[0], progress, cut=cut(job, *outcomes)))
        assert job.ended == [ended]
        # Its end must be on disk before the next decision.
        assert at.calls[:2] == ["begun", "written"]
        at.connector.connection, at.there.is_up = at.there, True
        await at.begun(group)
        assert at.ends.begun[-1][1] is (Trust.DOUBTED if is_up else Trust.UNKNOWN)
        await at.ended(OURS)


async def test_after_two_messages_that_were_turned_away_the_relayhost_is_at_fault_and_both_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = Bench(monkeypatch)
    jobs = CutJob("first"), CutJob("second")
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            await at.begun(group)
            await at.ended(
                ConversationEnd(closing(Stage.MAIL), ConversationProgress.NOTHING, cut=cut(job, closing(Stage.MAIL)))
            )
    assert [job.ended for job in jobs] == [[BACK], [[Cause.TURNED_AWAY]]]
    assert [fault.cause for fault in at.held.faults] == [Cause.TURNED_AWAY]
    assert (at.connector.connection, at.there.is_closed) == (None, True)


@pytest.mark.parametrize("is_judged", [False, True])
async def test_a_fault_makes_a_mail_server_unproven_and_trust_begins_without_knowledge(
    monkeypatch: pytest.MonkeyPatch, is_judged: bool
) -> None:
    at = Bench(monkeypatch)
    async with asyncio.TaskGroup() as group:
        await at.begun(group)
        if is_judged:
            at.ends.sources[0].judged(cast(Job, SimpleNamespace(queue_id="bcdfghjk")))
            await at.ended(OURS)
            await at.begun(group)
        assert at.ends.begun[-1] == (frozenset(), Trust.PROVEN if is_judged else Trust.UNKNOWN)
        at.connector.has_streams = True
        await at.ended(ConversationEnd(CLOSED, ConversationProgress.NOTHING))
        await at.begun(group)
        assert at.ends.begun[-1][1] is Trust.UNKNOWN
        await at.ended(OURS)


@pytest.mark.parametrize(
    ("is_up", "has_streams", "is_kept"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
async def test_a_fault_closes_the_connection_unless_streams_use_it(
    monkeypatch: pytest.MonkeyPatch, is_up: bool, has_streams: bool, is_kept: bool
) -> None:
    at = Bench(monkeypatch)
    at.connector.has_streams = has_streams
    async with asyncio.TaskGroup() as group:
        await at.begun(group)
        at.there.is_up = is_up
        await at.ended(ConversationEnd(CLOSED, ConversationProgress.NOTHING))
    # A loss of the connection has its own cause; else the mail server turns mail away.
    assert [fault.cause for fault in at.held.faults] == [Cause.TURNED_AWAY if is_up else Cause.SMTP_CLOSED]
    assert (at.connector.connection is at.there, at.there.is_closed) == (is_kept, not is_kept)


async def test_a_fault_of_the_relayhost_keeps_its_cause_and_counts_only_for_the_connection_that_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = Bench(monkeypatch)
    greeting = Outcome(Stage.GREETING, cause=Cause.SMTP_CLOSED, text="closed")
    for is_current in (True, False):
        at.connector.connection, at.there.is_up = at.there, True
        async with asyncio.TaskGroup() as group:
            await at.begun(group)
            if not is_current:
                at.connector.connection = There()
            await at.ended(ConversationEnd(greeting, ConversationProgress.NOTHING))
        assert at.held.faults == [greeting]


async def test_a_refused_extension_is_not_used_until_the_mail_server_refuses_mailrelay(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    at = Bench(monkeypatch)
    at.connector.has_streams = True
    refused = frozenset({Extension.CHUNKING}), frozenset({Extension.PIPELINING})
    async with asyncio.TaskGroup() as group:
        for one in refused:
            await at.begun(group)
            await at.ended(ConversationEnd(CLOSED, ConversationProgress.NOTHING, refused=one))
        await at.begun(group)
        assert at.ends.begun[-1][0] == refused[0] | refused[1]
        assert at.held.faults == []
        await at.ended(ConversationEnd(CLOSED, ConversationProgress.NOTHING))
        await at.begun(group)
        assert at.ends.begun[-1][0] == refused[0] | refused[1]
        await at.ended(ConversationEnd(LOGIN_WANTED, ConversationProgress.REPLIED))
        assert at.held.faults[1:] == [LOGIN_WANTED]
        await at.begun(group)
        assert at.ends.begun[-1][0] == frozenset()
        await at.ended(OURS)
    assert caplog.records[0].message.endswith("offers CHUNKING and refuses it; it is not used any more")


@pytest.mark.parametrize("is_up", [True, False])
async def test_after_doubt_chunking_is_not_used_on_the_same_connection(
    monkeypatch: pytest.MonkeyPatch, is_up: bool
) -> None:
    at = Bench(monkeypatch)
    async with asyncio.TaskGroup() as group:
        await at.begun(group)
        at.there.is_up = is_up
        await at.ended(ConversationEnd(None, ConversationProgress.REPLIED, leaves_doubt=True))
        await at.begun(group)
        assert at.ends.begun[-1][0] == frozenset({Extension.CHUNKING} if is_up else ())
        await at.ended(OURS)
        at.held.connected(is_untested=False)
        assert at.calls[-1] == "connected"
        await at.begun(group)
        assert at.ends.begun[-1][0] == frozenset()
        await at.ended(OURS)


async def test_a_mail_server_that_ends_one_of_many_conversations_gets_no_more_than_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = Bench(monkeypatch)
    async with asyncio.TaskGroup() as group:
        await at.begun(group)
        at.ends.sources[0].judged(cast(Job, SimpleNamespace(queue_id="bcdfghjk")))
        await at.begun(group, 2)
        assert (at.held.count, at.held.more_allowed) == (3, 0)
        await at.ended(ConversationEnd(CLOSED, ConversationProgress.NOTHING))
        assert (at.held.count, at.held.more_allowed, at.held.faults) == (2, 0, [])
        await at.ended(OURS, 0)
        await at.ended(OURS, 1)
        assert at.held.more_allowed == 2
        at.held.connected(is_untested=True)
        assert (at.held.more_allowed, at.held.is_untested) == (3, True)
        await at.begun(group)
        assert not at.held.is_untested
        await at.ended(OURS)


async def test_a_slow_mail_server_that_is_not_proven_gets_more_conversations_after_a_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = Bench(monkeypatch)
    async with asyncio.TaskGroup() as group:
        await at.begun(group)
        assert at.held.more_allowed == 0
        at.clock += conversations.PROOF_WAIT
        assert at.held.more_allowed == 2
        await at.begun(group)
        assert at.held.more_allowed == -1
        await at.ended(OURS, 0)
        await at.ended(OURS, 1)
        at.clock += conversations.PROOF_WAIT
        # Also the next one begins alone.
        assert at.held.more_allowed == 1


@pytest.mark.parametrize(
    ("token", "end", "calls"),
    [
        ("", OURS, []),
        ("", ConversationEnd(None, ConversationProgress.REPLIED, goes_on=True), ["written"]),
        ("abc", OURS, ["written", ("abc", False)]),
        (
            "abc",
            ConversationEnd(None, ConversationProgress.REPLIED, leaves_doubt=True),
            ["written", ("abc", True)],
        ),
    ],
)
async def test_results_are_on_disk_before_their_record_is_read_and_before_mail_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, token: str, end: ConversationEnd, calls: list[object]
) -> None:
    at = Bench(monkeypatch, token)
    async with asyncio.TaskGroup() as group:
        await at.begun(group)
        await at.ended(end)
    assert at.calls == ["begun", *calls]


async def test_the_record_of_a_conversation_that_was_cancelled_is_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    at = Bench(monkeypatch, "abc")
    async with asyncio.TaskGroup() as group:
        await at.begun(group)
        at.held.break_off()
        assert at.ends.sources[0].last_wait > 0
        assert at.held.linger == 0
    assert at.calls == ["begun", ("abc", True)]


@pytest.mark.parametrize(
    ("error", "level", "causes"),
    [
        (SpoolBroken("the disk failed"), None, []),
        (SpoolError("locked"), logging.CRITICAL, []),
        (RuntimeError("a bug"), logging.ERROR, [Cause.LOST]),
    ],
)
async def test_an_error_of_ours_in_a_conversation_is_logged_and_one_of_the_spool_is_no_fault(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    level: int | None,
    causes: list[Cause],
) -> None:
    at = Bench(monkeypatch)
    async with asyncio.TaskGroup() as group:
        await at.begun(group)
        at.ends.ends[0].set_exception(error)
        await turns()
    assert [one.levelno for one in caplog.records] == ([] if level is None else [level])
    assert [fault.cause for fault in at.held.faults] == causes
    assert at.held.count == 0


async def test_no_conversation_is_opened_without_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    at = Bench(monkeypatch)
    at.connector.connection = None
    async with asyncio.TaskGroup() as group:
        await at.begun(group)
    assert (at.held.count, at.calls) == (0, [])


# Mail for a conversation.


async def test_the_last_conversation_lingers_and_one_beside_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "EXTRA_LINGER", 0.0)
    at = Bench(monkeypatch)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        await at.begun(group, 2)
        first, second = at.ends.sources
        first.ready(8, ())
        second.ready(8, ())
        assert not await first.next(1)
        lingers = group.create_task(_next(second))
        await turns()
        assert not lingers.done()
        # Mail wakes it.
        at.jobs = [[cast(Job, "a job")]]
        assert at.held.idle == 1
        at.held.wake_one()
        await lingers
        assert (at.jobs, at.held.idle) == ([], 0)
        asks = group.create_task(_next(second))
        await turns()
        finishing = group.create_task(at.held.finish())
        await asks
        assert not finishing.done()
        await at.ended(OURS, 0)
        assert not finishing.done()
        await at.ended(OURS, 1)
        await finishing


async def test_a_conversation_that_need_not_linger_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at = Bench(monkeypatch, linger=0.0)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        await at.begun(group, 2)
        for source in at.ends.sources:
            assert not await source.next(1)
        await at.ended(OURS, 0)
        await at.ended(OURS, 1)


async def test_on_a_retired_connection_nothing_new_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    at = Bench(monkeypatch)
    at.jobs = [[cast(Job, "a job")]]
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        await at.begun(group)
        at.connector.retired = at.there
        assert not await at.ends.sources[0].next(1)
        assert len(at.jobs) == 1
        await at.ended(OURS)


async def test_a_recipient_is_asked_about_before_mail_and_not_without_a_conversation_that_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    envelope = Envelope(b"", (Recipient(b"b@example.net"),))
    at = Bench(monkeypatch)
    assert await at.held.probe(envelope) is None
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        await at.begun(group)
        assert await at.held.probe(envelope) is None
        source = at.ends.sources[0]
        source.ready(8, ())
        busy = group.create_task(at.held.probe(envelope))
        await turns()
        at.jobs = [[cast(Job, "a job")]]
        (probe,) = await source.next(8)
        assert (probe.envelope, len(at.jobs)) == (envelope, 1)
        probe.finish([CLOSED], relays_dsn=False, seconds=0.0)
        assert await busy == CLOSED
        await source.next(8)
        # An idle one is woken.
        asks = group.create_task(_next(source))
        await turns()
        idle = group.create_task(at.held.probe(envelope))
        await asks
        # The end of the last conversation gives it back.
        withdrawn = group.create_task(at.held.probe(envelope))
        waits = group.create_task(at.held.probe(envelope))
        await turns()
        withdrawn.cancel()
        idle.cancel()
        await at.ended(OURS)
        assert await waits is None
