"""The scheduler of a relayhost without a network and without a disk: what it asks, dials and begins, and what it tells."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mailrelay.config import Relayhost
from mailrelay.endpoint import Tcp
from mailrelay.mail.completion import Completion
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.notice import Backend
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.mail.recorded import Recording, UnreadExchange
from mailrelay.mail.sending import Sending, Stop
from mailrelay.mail.spool_errors import SpoolBroken, SpoolError
from mailrelay.network.events import Change
from mailrelay.ports import RelayhostFailure
from mailrelay.relay import conversations, scheduler
from mailrelay.relay.delivery import ConversationEnd, JobSource
from mailrelay.relay.fallback import Group
from mailrelay.relay.jobs import Job
from mailrelay.relay.mail_channel import MailChannel
from mailrelay.relay.plan import MESSAGES_PER_CHANNEL, ConversationProgress
from mailrelay.relay.scheduler import Scheduler, SpoolPort
from mailrelay.relay.waiters import Queued, Unconfirmed
from mailrelay.ssh.interface import Channel, Connection, Fault, Stream

NOW = 1.7e9
UNREACHABLE = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="no network")
LOGIN_WANTED = Outcome(Stage.MAIL, Reply(530, (b"5.7.0 no",)), Cause.LOGIN_WANTED)


def message(key: int) -> Message:
    return Message(key, f"id{key}", "home", Envelope(b"", (Recipient(b"b@example.net"),)), (key,), 100, 0.0, 0)


class Spool:
    """due: when mail of a relayhost is due, or the error that the question raises. found: what `take` gives, once for each
    call. calls: what was asked, with the names of relayhosts in whose place mail is wanted."""

    def __init__(self) -> None:
        self.due: dict[str, float | Exception] = {}
        self.count = 1
        self.found: list[list[Message]] = []
        self.failures: dict[str, RelayhostFailure] = {}
        self.calls: list[tuple[object, ...]] = []
        self.completions: list[Completion] = []
        self.while_counting: Callable[[], Awaitable[object]] | None = None

    async def next_due(self, name: str, others: Sequence[str] = ()) -> float | None:
        self.calls.append(("due", name, *others))
        due = self.due.get(name)
        if isinstance(due, Exception):
            raise due
        return due

    async def count_due(self, name: str, most: int, others: Sequence[str] = ()) -> int:
        self.calls.append(("count", name, most, *others))
        if self.while_counting is not None:
            await self.while_counting()
        return self.count

    async def take(
        self,
        name: str,
        first: Sequence[int],
        limit: int,
        more: int,
        completion: Completion,
        others: Sequence[str] = (),
    ) -> list[Message]:
        self.calls.append(("take", name, tuple(first), *others))
        self.completions.append(completion)
        return self.found.pop(0) if self.found else []

    async def put_back(self, _messages: Sequence[int]) -> list[int]:
        return []

    async def retry_lost(self, name: str) -> None:
        self.calls.append(("retry lost", name))

    async def relayhost_failed(
        self, name: str, outcome: Outcome, next_dial: float, setup: bool, _backends: Sequence[Backend]
    ) -> None:
        self.calls.append(("failed", name, outcome))
        self.failures[name] = RelayhostFailure(1, next_dial, outcome.cause, outcome.text)

    async def relayhost_failure(self, name: str) -> RelayhostFailure | None:
        return self.failures.get(name)

    async def relayhost_up(self, name: str, _backends: Sequence[Backend]) -> bool:
        self.failures.pop(name, None)
        return False

    async def note_stand_in(self, name: str, stand_in: str) -> None:
        self.calls.append(("stand-in", name, stand_in))

    async def recording(self, _name: str) -> Recording:
        return Recording()

    async def unread_exchanges(self, _name: str) -> Sequence[UnreadExchange]:
        return ()

    def pieces(self, _message: int) -> None:
        raise AssertionError

    def asked(self, what: str, name: str = "home") -> int:
        return sum(call[:2] == (what, name) for call in self.calls)


class There:
    """A connection. lost: it has ended."""

    account, host, address, tcp_state = "me", "server.example", "192.0.2.1", None

    def __init__(self) -> None:
        self.is_up = True
        self.lost = asyncio.Event()
        self.closed = 0

    def check_alive(self, _patience: float) -> None: ...

    async def response(self) -> None:
        await self.lost.wait()

    async def open_stream(self, _to: Tcp) -> Stream:
        return cast(Stream, self)

    async def wait_closed(self) -> None:
        await self.lost.wait()

    async def close(self) -> None:
        self.is_up = False
        self.closed += 1
        self.lost.set()


class Talks:
    """The conversations of all schedulers: each asks for mail once it is told to, and lasts until it is told its end."""

    def __init__(self) -> None:
        self.sources: list[JobSource] = []
        self.ends: list[asyncio.Future[ConversationEnd]] = []
        self.jobs: list[Job] = []

    async def __call__(
        self, _channel: Channel, _name: bytes, source: JobSource, *_: object, **__: object
    ) -> ConversationEnd:
        end: asyncio.Future[ConversationEnd] = asyncio.get_running_loop().create_future()
        self.sources.append(source)
        self.ends.append(end)
        source.ready(8, (b"mx.example.org",))
        asking = asyncio.ensure_future(source.next(8))
        asking.add_done_callback(lambda asked: None if asked.cancelled() else self.jobs.extend(asked.result()))
        try:
            return await end
        finally:
            asking.cancel()


class Bench:
    """Schedulers of some relayhosts, by name. dialled: what the next dials bring; after that each dial hangs."""

    def __init__(self, *relayhosts: Relayhost) -> None:
        self.spool = Spool()
        self.dialled: list[There | Fault] = []
        self.dials: list[str] = []
        self.group: Group[Scheduler] = Group()
        for one in relayhosts:
            self.group.members[one.name] = Scheduler(
                one,
                cast(SpoolPort, self.spool),
                self._dial,
                RetryPolicy((600.0,), 432_000.0, lambda *_: ()),
                lambda: None,
                lambda: NOW,
                group=self.group,
            )

    async def _dial(self, relayhost: Relayhost) -> Connection:
        self.dials.append(relayhost.name)
        if not self.dialled:
            await asyncio.Event().wait()
        found = self.dialled.pop(0)
        if isinstance(found, Fault):
            raise found
        return cast(Connection, found)

    @property
    def home(self) -> Scheduler:
        return self.group.members["home"]


def relayhost(name: str = "home", *fallback: str, linger: float = 30.0, channels: int = 2) -> Relayhost:
    return Relayhost(
        name=name,
        ssh="server",
        ssh_config=Path("/nowhere"),
        linger=linger,
        channels=channels,
        backlog_channels=channels,
        record="off",
        track="off",
        fallback=fallback,
    )


@asynccontextmanager
async def running(*schedulers: Scheduler) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(one.run()) for one in schedulers]
    try:
        await settled()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def settled() -> None:
    """Nothing here waits for anything but the loop: after some turns of it, all that can be done is done."""
    for _ in range(60):
        await asyncio.sleep(0)


@pytest.fixture
def talks(monkeypatch: pytest.MonkeyPatch) -> Talks:
    async def opened(*_: object) -> MailChannel:
        return MailChannel(cast(Channel, None))

    talks = Talks()
    monkeypatch.setattr(conversations, "open_channel", opened)
    monkeypatch.setattr(conversations, "converse", talks)
    return talks


async def streamed(at: Scheduler) -> Stream | Outcome:
    async with at.stream(Tcp("localhost", 80)) as stream:
        return stream


# Errors of the spool, and sleep.


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SpoolError("locked"), "SpoolError: locked"),
        (RuntimeError(), "RuntimeError"),
        (SpoolBroken("the disk failed"), ""),
    ],
)
async def test_after_an_error_nothing_is_asked_and_begun_until_the_pause_is_over(
    error: Exception, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(relayhost())
    bench.spool.due["home"] = error
    waits = asyncio.ensure_future(streamed(bench.home))
    await settled()
    async with running(bench.home):
        assert (bench.spool.asked("due"), bench.home.error_text, bench.dials) == (1, text, [])
        refused = await waits
        assert isinstance(refused, Outcome)
        assert refused.text == "mailrelay cannot go on for now; see the log"
        expected = [f"relay=home cannot go on: {text}; will try again"] if text else []
        assert [one.message for one in caplog.records if one.levelno == logging.CRITICAL] == expected
        bench.spool.due["home"] = NOW + 3600
        bench.home.look_again()
        await settled()
        assert await bench.home.next_messages(1) == []
        assert (bench.spool.asked("due"), bench.spool.asked("take"), bench.home.error_text) == (1, 0, text)
        bench.home.resume()
        await settled()
        assert (bench.spool.asked("due"), bench.home.error_text, bench.dials) == (2, "", [])


async def test_after_the_pause_the_spool_is_asked_again_without_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "SPOOL_RETRY", 0.001)
    bench = Bench(relayhost())
    bench.spool.due["home"] = SpoolError("locked")
    async with asyncio.timeout(20), running(bench.home):
        while bench.spool.asked("due") < 3:
            await asyncio.sleep(0)


@pytest.mark.parametrize("is_pending", [True, False])
async def test_only_while_mail_waits_the_spool_is_asked_from_time_to_time(
    monkeypatch: pytest.MonkeyPatch, is_pending: bool
) -> None:
    monkeypatch.setattr(scheduler, "MAX_SLEEP", 0.0)
    bench = Bench(relayhost())
    if is_pending:
        bench.spool.due["home"] = NOW + 3600
    async with running(bench.home):
        assert (bench.spool.asked("due") > 3) is is_pending
        assert bench.dials == []


async def test_while_dials_must_wait_the_spool_is_asked_from_time_to_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "MAX_SLEEP", 0.0)
    bench = Bench(relayhost())
    bench.spool.failures["home"] = RelayhostFailure(1, NOW + 600, Cause.UNREACHABLE, "no network")
    bench.spool.due["home"] = NOW - 1
    async with running(bench.home):
        assert bench.spool.asked("due") > 3
        assert bench.dials == []


@pytest.mark.parametrize("event", ["look again", "network", "message waits"])
async def test_what_may_have_changed_in_the_spool_is_asked_also_while_dials_must_wait(event: str) -> None:
    bench = Bench(relayhost())
    bench.spool.failures["home"] = RelayhostFailure(1, NOW + 600, Cause.UNREACHABLE, "no network")
    async with running(bench.home):
        asked = bench.spool.asked("due")
        match event:
            case "look again":
                bench.home.look_again()
            case "network":
                bench.home.network_changed(Change())
            case _:
                bench.home.message_waits()
        await settled()
        assert bench.spool.asked("due") == asked + 1


# Mail.


async def test_mail_that_is_due_is_sent_through_a_conversation_and_what_has_just_arrived_first(talks: Talks) -> None:
    bench = Bench(relayhost())
    bench.dialled = [There()]
    bench.spool.found = [[message(7), message(8)]]
    async with running(bench.home):
        assert (bench.dials, bench.home.is_connected) == ([], False)
        bench.spool.due["home"] = NOW
        bench.home.message_arrived(7)
        await settled()
        assert (bench.dials, bench.home.is_connected) == (["home"], True)
        assert ("count", "home", MESSAGES_PER_CHANNEL * 2) in bench.spool.calls
        assert ("take", "home", (7,)) in bench.spool.calls
        assert [job.queue_id for job in talks.jobs] == ["id7", "id8"]
        assert bench.spool.completions[0].account == b"me@mx.example.org"
        bench.home.complete_by(Completion())
        await bench.home.next_messages(1)
        assert bench.spool.completions[-1].account == b"me@mx.example.org"


async def test_new_mail_wakes_the_scheduler_once_without_a_connection_and_each_time_with_one(
    talks: Talks, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(relayhost(channels=1))
    bench.dialled = [Fault(UNREACHABLE)]
    bench.spool.due["home"] = NOW
    looks: list[None] = []
    async with running(bench.home):
        monkeypatch.setattr(Group, "tell_blocked", lambda *_: looks.append(None))
        for key in (1, 2, 3):
            bench.home.message_arrived(key)
            await settled()
        assert len(looks) == 1
    bench = Bench(relayhost(channels=1))
    bench.dialled = [There()]
    async with running(bench.home):
        bench.home.message_arrived(1)
        bench.spool.due["home"] = NOW
        await settled()
        assert talks.jobs == []
        bench.spool.found = [[message(3)]]
        bench.home.message_arrived(2)
        bench.home.message_arrived(3)
        await settled()
        assert [job.queue_id for job in talks.jobs] == ["id3"]


async def test_messages_that_are_claimed_during_a_count_are_no_reason_for_another_conversation(talks: Talks) -> None:
    bench = Bench(relayhost(channels=8))
    bench.dialled = [There()]
    bench.spool.due["home"], bench.spool.count = NOW, 2 * MESSAGES_PER_CHANNEL
    bench.spool.found = [[message(key) for key in range(1, MESSAGES_PER_CHANNEL + 1)]]
    bench.spool.while_counting = lambda: bench.home.next_messages(8)
    async with running(bench.home):
        first = next(iter(talks.sources))
        first.judged(cast(Job, SimpleNamespace(queue_id="other")))
        bench.spool.count = 0
        await settled()
        assert len(talks.sources) == 1


@pytest.mark.parametrize("reason", ["stopping", "broken", "stuck", "doubtful", "none"])
async def test_nothing_is_claimed_where_nothing_may_begin(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(relayhost())
    match reason:
        case "stopping":
            await bench.home.finish()
        case "broken":
            bench.home.spool_broken()
        case "stuck":
            monkeypatch.setattr(Scheduler, "is_stuck", True)
            assert bench.home.error_text == "results cannot be recorded"
        case "doubtful":
            monkeypatch.setattr("mailrelay.relay.connector.Connector.state", scheduler.ConnectionState.DOUBTFUL)
        case _:
            assert bench.home.error_text == ""
    await bench.home.next_messages(1)
    assert bench.spool.asked("take") == (1 if reason == "none" else 0)


async def test_after_the_spool_broke_clients_hear_that_their_message_may_be_lost_but_for_those_being_sent() -> None:
    bench = Bench(relayhost())
    bench.spool.found = [[message(1)]]
    sent, queued = bench.home.waiters.open("id1"), bench.home.waiters.open("id2")
    (job,) = await bench.home.next_messages(1)
    assert job.queue_id == "id1"
    bench.home.spool_broken()
    assert await queued.result == Unconfirmed()
    assert not sent.result.done()


# A message that is being sent.


async def test_only_contents_that_were_begun_are_in_progress() -> None:
    bench = Bench(relayhost())
    bench.spool.found = [[message(1)], [message(2)]]
    first, _ = *await bench.home.next_messages(1), *await bench.home.next_messages(1)
    assert (bench.home.sending(), bench.home.octets_sent(1), bench.home.octets_sent(9)) == ([], 0, 0)
    channel = SimpleNamespace(written=40, acknowledged=40)
    first.transfer.begin(cast(Channel, channel))
    first.transfer.add(40)
    first.transfer.mark_written()
    assert bench.home.octets_sent(1) == 40
    (sending,) = bench.home.sending()
    assert sending[:4] == Sending("id1", "home", 40, 100)[:4]


async def test_a_message_that_is_not_sent_or_whose_end_is_written_cannot_be_stopped() -> None:
    bench = Bench(relayhost())
    bench.spool.found = [[message(1)]]
    assert await bench.home.cancel(1) is Stop.NOT_SENDING
    (job,) = await bench.home.next_messages(1)
    job.transfer.end()
    assert await bench.home.cancel(1) is Stop.TOO_LATE


@pytest.mark.parametrize(
    ("is_cancelled", "stop"), [(True, Stop.CANCELLED), (False, Stop.NOT_SENDING), (None, Stop.TOO_LATE)]
)
@pytest.mark.parametrize("is_late", [True, False])
async def test_a_stop_says_what_became_of_the_message(
    is_cancelled: bool | None, stop: Stop, is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_late or is_cancelled is None:
        monkeypatch.setattr(scheduler, "STOP_WAIT", 0.0)
    bench = Bench(relayhost())
    bench.spool.found = [[message(1)]]
    (job,) = await bench.home.next_messages(1)
    assert isinstance(job, scheduler.MessageJob)
    stopping = asyncio.ensure_future(bench.home.cancel(1))
    await asyncio.sleep(0)
    if is_cancelled is not None and is_late:
        # The conversation has stopped it, and the spool has not answered yet.
        job.in_progress.clear()
    await settled()
    if is_cancelled is not None:
        assert (job.transfer.is_stop_wanted, stopping.done()) == (True, False)
        job.in_progress.clear()
        job.transfer.is_cancelled = is_cancelled
        job.transfer.ended.set()
    assert await stopping is stop
    assert job.transfer.is_stop_wanted is (is_cancelled is not None)


# The connection.


async def test_a_dial_that_fails_is_a_fault_of_which_clients_that_wait_and_streams_are_told() -> None:
    bench = Bench(relayhost())
    bench.dialled = [Fault(UNREACHABLE)]
    bench.spool.due["home"] = NOW
    waiter = bench.home.waiters.open("id1", "home")
    stream = asyncio.ensure_future(streamed(bench.home))
    await settled()
    async with running(bench.home):
        assert ("failed", "home", UNREACHABLE) in bench.spool.calls
        assert await waiter.result == Queued("no network")
        assert await stream == UNREACHABLE
        assert (bench.home.fault_text, bench.home.is_unreachable, bench.home.is_connected) == (
            "no network",
            True,
            False,
        )
        waiter = bench.home.waiters.open("id2", "home")
        bench.home.look_again()
        await settled()
        assert await waiter.result == Queued("no network")
        stream = asyncio.ensure_future(streamed(bench.home))
        await settled()
        assert not stream.done()
        stream.cancel()


async def test_new_mail_at_a_fault_is_no_reason_for_an_early_dial_any_more(talks: Talks) -> None:
    bench = Bench(relayhost())
    bench.dialled = [Fault(UNREACHABLE)]
    bench.spool.due["home"] = NOW
    bench.home.message_arrived(1)
    async with running(bench.home):
        bench.spool.failures.clear()
        bench.dialled = [There()]
        bench.home.network_changed(Change(may_connect=True))
        await settled()
        assert bench.dials == ["home"] * 2
        assert [call for call in bench.spool.calls if call[0] in ("take", "retry lost")][:2] == [
            ("retry lost", "home"),
            ("take", "home", ()),
        ]


async def test_a_client_that_begins_a_message_is_a_reason_to_dial_and_to_open_a_conversation(talks: Talks) -> None:
    bench = Bench(relayhost())
    bench.dialled = [There()]
    async with running(bench.home):
        bench.home.expect_message()
        await settled()
        assert (bench.dials, len(talks.sources)) == (["home"], 1)


@pytest.mark.parametrize("has_fault", [False, True])
async def test_a_dial_for_a_stream_opens_a_conversation_only_to_find_out_whether_a_fault_is_over(
    talks: Talks, has_fault: bool
) -> None:
    bench = Bench(relayhost())
    if has_fault:
        bench.spool.failures["home"] = RelayhostFailure(1, NOW, Cause.SMTP_CLOSED, "closed")
    there = There()
    bench.dialled = [there]
    stream = asyncio.ensure_future(streamed(bench.home))
    await settled()
    async with running(bench.home):
        assert await stream is cast(Stream, there)
        await settled()
        assert len(talks.sources) == (1 if has_fault else 0)


async def test_a_connection_that_was_lost_is_forgotten_and_closed(
    talks: Talks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench = Bench(relayhost(linger=math.inf))
    there = There()
    bench.dialled = [there]
    async with running(bench.home):
        talks.ends[0].set_result(ConversationEnd(None, ConversationProgress.NOTHING))
        await settled()
        assert bench.home.is_connected
        there.is_up = False
        there.lost.set()
        await settled()
        assert (bench.home.is_connected, there.closed) == (False, 1)
        assert "relay=home lost the connection" in [one.message for one in caplog.records]


async def test_at_the_end_the_connection_is_closed_and_streams_are_refused(talks: Talks) -> None:
    bench = Bench(relayhost())
    there = There()
    bench.dialled = [there]
    async with running(bench.home):
        bench.home.expect_message()
        await settled()
    assert (there.is_up, bench.home.is_connected) == (False, False)
    bench = Bench(relayhost())
    stream = asyncio.ensure_future(streamed(bench.home))
    async with running(bench.home):
        assert bench.dials == ["home"]
    refused = await stream
    assert isinstance(refused, Outcome)
    assert refused.text == "mailrelay was stopped"


async def test_a_retired_connection_is_closed_with_its_idle_conversations_and_another_one_is_dialled(
    talks: Talks,
) -> None:
    bench = Bench(relayhost())
    old, new = There(), There()
    bench.dialled = [old, new]
    async with running(bench.home):
        bench.home.expect_message()
        await settled()
        bench.home.network_changed(Change(suspended=3600.0))
        bench.spool.due["home"] = NOW
        await settled()
        assert (old.is_up, new.is_up, bench.home.is_connected) == (False, True, True)
        assert talks.ends[0].cancelled()
        assert bench.spool.asked("retry lost") == 1


async def test_a_recipient_can_be_asked_about_while_there_is_a_connection(talks: Talks) -> None:
    envelope = Envelope(b"a@example.net", (Recipient(b"b@example.net"),))
    bench = Bench(relayhost())
    there = There()
    bench.dialled = [there]
    async with running(bench.home):
        assert await bench.home.probe_recipient(envelope) is None
        bench.home.expect_message()
        await settled()
        asks = asyncio.ensure_future(bench.home.probe_recipient(envelope))
        await settled()
        (probe,) = talks.jobs
        assert probe.envelope == envelope
        probe.finish([LOGIN_WANTED], relays_dsn=False, seconds=0.0)
        assert await asks == LOGIN_WANTED


# Fallbacks.


def two() -> Bench:
    return Bench(relayhost("home", "other"), relayhost("other"))


async def test_new_mail_of_a_relayhost_that_cannot_be_reached_goes_by_its_fallback_at_once(talks: Talks) -> None:
    bench = two()
    other = bench.group.members["other"]
    bench.dialled = [Fault(UNREACHABLE), There()]
    bench.spool.due |= {"home": NOW, "other": NOW}
    bench.spool.found = [[message(1)]]
    async with running(bench.home):
        waiter = bench.home.waiters.open("id1", "home")
        bench.home.message_arrived(1)
        await settled()
        assert bench.spool.calls.index(("stand-in", "home", "other")) < bench.spool.calls.index(
            ("failed", "home", UNREACHABLE)
        )
        assert bench.home.carrier is other
        assert bench.spool.asked("retry lost") == 1
        async with running(other):
            await settled()
            assert ("take", "other", (1,), "home") in bench.spool.calls
            assert ("due", "other", "home") in bench.spool.calls
            assert ("count", "other", MESSAGES_PER_CHANNEL * 2, "home") in bench.spool.calls
            assert [job.queue_id for job in talks.jobs] == ["id1"]
            assert waiter.at is other.waiters
            assert not waiter.result.done()


async def test_a_fallback_learns_of_mail_that_waits_for_its_time() -> None:
    bench = two()
    bench.spool.failures["home"] = RelayhostFailure(1, NOW + 600, Cause.UNREACHABLE, "no network")
    async with running(bench.home, bench.group.members["other"]):
        bench.spool.calls.clear()
        bench.home.message_waits()
        await settled()
        assert (bench.spool.asked("due", "home"), bench.spool.asked("due", "other")) == (1, 1)
        bench.home.resume()
        await settled()
        assert (bench.spool.asked("due", "home"), bench.spool.asked("due", "other")) == (2, 1)


async def test_a_mail_server_that_was_reached_is_not_replaced_and_its_stand_in_is_not_noted(talks: Talks) -> None:
    bench = two()
    bench.dialled = [There()]
    bench.spool.due["home"] = NOW
    async with running(bench.home):
        talks.ends[0].set_result(ConversationEnd(LOGIN_WANTED, ConversationProgress.NOTHING))
        await settled()
        assert not bench.home.is_unreachable
        assert bench.home.carrier is bench.home
        assert bench.spool.asked("failed") == 1
        assert bench.spool.asked("stand-in") == 0


async def test_a_scheduler_that_was_replaced_changes_nothing_of_who_sends() -> None:
    bench = two()
    replaced = bench.home
    bench.dialled = [Fault(UNREACHABLE)]
    bench.spool.due["home"] = NOW
    bench.group.members["home"] = bench.group.members["other"]
    async with running(replaced):
        assert bench.spool.asked("failed") == 1
        assert ("retry lost", "home") not in bench.spool.calls


async def test_a_client_that_begins_a_message_has_the_fallback_dial_too() -> None:
    bench = two()
    other = bench.group.members["other"]
    bench.dialled = [Fault(UNREACHABLE)]
    bench.spool.due["home"] = NOW
    async with running(bench.home, other):
        assert bench.dials == ["home"]
        bench.home.expect_message()
        await settled()
        assert bench.dials == ["home", "other"]
