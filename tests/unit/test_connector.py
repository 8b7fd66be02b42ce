"""The connection to one relayhost and its known fault, without a network: what a dial, a change and a stream do to them."""

import asyncio
import logging
import math
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mailrelay.config import Relayhost
from mailrelay.endpoint import Endpoint, Tcp
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.network.events import Change
from mailrelay.ports import RelayhostFailure, RelayhostPort
from mailrelay.relay import connector, dial_policy
from mailrelay.relay.connector import DIAL_GRACE, EXPECTATION, REDIAL_INTERVAL, Connector
from mailrelay.relay.plan import ConnectionState
from mailrelay.ssh.interface import Connection, Fault, Stream, TcpState

NOW = 1.7e9
UNREACHABLE = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="no network")
NO_KEY = Outcome(Stage.AUTH, cause=Cause.AUTH_REFUSED, text="the key was refused.", fix="Install the key.")
OPENS, SLEPT = Change(may_connect=True), Change(suspended=3600.0)


class There:
    """A connection. responds: whether the server replies. calls: what it was told to do."""

    def __init__(self, *, responds: bool = True) -> None:
        self.is_up, self.address, self.responds = True, "192.0.2.1", responds
        self.tcp_state: TcpState | None = None
        self.calls: list[str] = []
        self.stream: Stream | Fault = cast(Stream, object())

    def check_alive(self, patience: float) -> None:
        self.calls.append(f"check {patience:g}")

    async def response(self) -> None:
        if not self.responds:
            await asyncio.Event().wait()

    async def open_stream(self, _to: Endpoint) -> Stream:
        if isinstance(self.stream, Fault):
            raise self.stream
        return self.stream

    async def close(self) -> None:
        self.calls.append("close")
        self.is_up = False


class Spool:
    """Has one fault at most. is_told: whether the person was told of the fault, so that its end makes a notice pending."""

    def __init__(self) -> None:
        self.failure: RelayhostFailure | None = None
        self.is_told = True
        self.calls: list[object] = []

    async def relayhost_failed(
        self, name: str, outcome: Outcome, next_dial: float, setup: bool, backends: Sequence[Backend]
    ) -> None:
        self.calls.append((name, outcome, next_dial, setup, tuple(backends)))
        failures = self.failure.failures + 1 if self.failure is not None else 1
        self.failure = RelayhostFailure(failures, next_dial, outcome.cause, outcome.description.decode())

    async def relayhost_failure(self, _name: str) -> RelayhostFailure | None:
        self.calls.append("read")
        return self.failure

    async def relayhost_up(self, name: str, backends: Sequence[Backend]) -> bool:
        self.calls.append((name, tuple(backends)))
        self.failure = None
        return self.is_told


@dataclass
class Clock:
    """The monotonic clock of the connector."""

    now: float = 1000.0


class At:
    """A connector. calls: what it has called, in order. dialled: what the dials bring, in order."""

    def __init__(self, clock: Clock, *dialled: There | Fault | asyncio.Event, linger: float = 30.0) -> None:
        self.clock = clock
        self.calls: list[str] = []
        self.spool = Spool()
        self.dialled = list(dialled)
        self.tasks: list[asyncio.Future[None]] = []
        self.dial_takes = 0.5
        backends = {Kind.RESUMED: (Backend.DESKTOP,), Kind.SETUP: (Backend.MAILBOX,)}
        relayhost = Relayhost(name="default", ssh="server", ssh_config=Path("/nowhere"), linger=linger)
        self.connector = Connector(
            relayhost,
            cast(RelayhostPort, self.spool),
            self._dial,
            RetryPolicy((600.0, 1200.0), 432_000.0, lambda kind, *of: backends[kind] if of == (b"", b"") else ()),
            self._run_to_end,
            lambda: self.calls.append("notices"),
            lambda: self.calls.append("changed"),
            lambda: NOW,
        )

    async def _dial(self, _relayhost: Relayhost) -> Connection:
        self.clock.now += self.dial_takes
        found = self.dialled.pop(0)
        if isinstance(found, asyncio.Event):
            await found.wait()
            return cast(Connection, There())
        if isinstance(found, Fault):
            raise found
        return cast(Connection, found)

    def _run_to_end(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    async def ran(self) -> None:
        await asyncio.gather(*self.tasks)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(connector, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


async def test_a_connection_has_the_state_of_what_was_dialled(clock: Clock) -> None:
    there = There()
    at = At(clock, there)
    assert at.connector.state is ConnectionState.NONE
    assert await at.connector.open() is there
    assert at.connector.state is ConnectionState.UP
    there.is_up = False
    assert at.connector.state is ConnectionState.DOWN
    at.connector.forget()
    assert (at.connector.state, there.calls) == (ConnectionState.NONE, [])
    at = At(clock, there)
    there.is_up = True
    await at.connector.open()
    await at.connector.hang_up()
    assert (at.connector.state, there.calls) == (ConnectionState.NONE, ["close"])
    await at.connector.hang_up()
    assert there.calls == ["close"]


async def test_the_seconds_of_a_dial_are_those_of_one_message(clock: Clock) -> None:
    at = At(clock, There(), Fault(UNREACHABLE))
    assert at.connector.claim_dial_seconds() == 0
    await at.connector.open()
    assert [at.connector.claim_dial_seconds() for _ in range(2)] == [0.5, 0.0]
    at.dial_takes = 2.0
    with pytest.raises(Fault):
        await at.connector.open()
    assert at.connector.claim_dial_seconds() == 2.0


async def test_an_expected_message_is_a_reason_to_dial_for_a_while(clock: Clock) -> None:
    at = At(clock, There())
    at.connector.expect_message()
    at.connector.expect_message()
    assert (at.connector.is_message_expected, at.calls) == (True, ["changed"])
    clock.now += EXPECTATION - 1
    assert at.connector.is_message_expected
    clock.now += 1
    assert not at.connector.is_message_expected
    at.connector.expect_message()
    assert at.calls == ["changed"] * 2
    at.connector.conversation_begun()
    assert not at.connector.is_message_expected
    at.connector.expect_message()
    await at.connector.open()
    assert not at.connector.is_message_expected


@pytest.mark.parametrize(
    ("change", "age", "is_retired"),
    [
        (OPENS, dial_policy.SETTLING_TIME, False),
        (OPENS, dial_policy.SETTLING_TIME + 1, True),
        (SLEPT, 0.0, True),
        (Change(removed_addresses=frozenset({"192.0.2.1"})), 0.0, True),
        (Change(removed_addresses=frozenset({"192.0.2.2"})), 99.0, False),
        (Change(), 99.0, False),
    ],
)
async def test_a_connection_that_may_be_dead_is_retired_and_checked(
    clock: Clock, change: Change, age: float, is_retired: bool
) -> None:
    there = There()
    at = At(clock, there)
    at.dial_takes = 3.0
    await at.connector.open()
    clock.now += age
    at.connector.network_changed(change)
    assert (at.connector.retired, at.connector.connection) == ((there, None) if is_retired else (None, there))
    assert at.connector.state is (ConnectionState.RETIRED if is_retired else ConnectionState.UP)
    assert there.calls == (["check 3"] if is_retired else [])
    assert at.calls == ["changed"]
    assert at.connector.must_retry_lost is (change in (OPENS, SLEPT))
    await at.connector.close_retired()
    await at.connector.close_retired()
    assert there.calls[1:] == (["close"] if is_retired else [])
    assert at.connector.retired is None


async def test_a_connection_that_is_down_is_not_retired(clock: Clock) -> None:
    there = There()
    at = At(clock, there)
    await at.connector.open()
    there.is_up = False
    at.connector.network_changed(SLEPT)
    assert (at.connector.retired, there.calls) == (None, [])


async def test_a_retired_connection_with_streams_stays_until_they_end(clock: Clock) -> None:
    there = There()
    at = At(clock, there)
    await at.connector.open()
    async with at.connector.stream(Tcp("localhost", 80)) as stream:
        assert stream is there.stream
        at.connector.network_changed(SLEPT)
        await at.connector.close_retired()
        assert there.calls == ["check 2"]
    await at.ran()
    assert there.calls == ["check 2", "close"]


@pytest.mark.parametrize("change", [OPENS, SLEPT])
async def test_a_dial_that_began_before_a_change_of_the_network_has_a_moment_to_end(
    clock: Clock, change: Change
) -> None:
    end = asyncio.Event()
    at = At(clock, end)
    dialling = asyncio.ensure_future(at.connector.open())
    await asyncio.sleep(0)
    at.connector.network_changed(change)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not dialling.done()
    end.set()
    assert await dialling is at.connector.connection
    assert at.connector.connection is not None


async def test_a_dial_that_takes_longer_after_a_change_is_made_again(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DIAL_GRACE > 0
    monkeypatch.setattr(connector, "DIAL_GRACE", 0.0)
    at = At(clock, asyncio.Event(), asyncio.Event())
    dialling = asyncio.ensure_future(at.connector.open())
    await asyncio.sleep(0)
    at.connector.network_changed(OPENS)
    at.connector.network_changed(OPENS)
    async with asyncio.timeout(10):
        assert await dialling is None
    assert at.connector.redial_pause == 0.0
    # What is no reason to dial again ends no dial.
    dialling = asyncio.ensure_future(at.connector.open())
    await asyncio.sleep(0)
    at.connector.network_changed(Change(removed_addresses=frozenset({"192.0.2.9"})))
    await asyncio.sleep(0.01)
    assert not dialling.done()
    dialling.cancel()
    await asyncio.gather(dialling, return_exceptions=True)


async def test_a_dial_that_only_keeps_a_connection_up_waits_after_the_last_one(clock: Clock) -> None:
    at = At(clock, There())
    assert at.connector.redial_pause == 0.0
    await at.connector.open()
    assert at.connector.redial_pause == REDIAL_INTERVAL
    clock.now += REDIAL_INTERVAL - 1
    assert at.connector.redial_pause == 1.0
    at.connector.network_changed(OPENS)
    assert at.connector.redial_pause == 0.0
    at.connector.conversation_begun()
    assert at.connector.redial_pause == 1.0
    clock.now += 9
    assert at.connector.redial_pause == 0.0


async def test_a_dial_is_made_for_all_changes_of_the_network_before_it(clock: Clock) -> None:
    at = At(clock, There())
    at.connector.network_changed(OPENS)
    await at.connector.open()
    assert at.connector.redial_pause == REDIAL_INTERVAL


async def test_a_stream_keeps_the_connection_and_lingers(clock: Clock) -> None:
    there = There()
    at = At(clock, there, linger=7.0)
    await at.connector.open()
    assert (at.connector.linger_left, at.connector.has_streams) == (0.0, False)
    async with at.connector.stream(Tcp("localhost", 80)):
        async with at.connector.stream(Tcp("localhost", 80)):
            assert (at.connector.linger_left, at.connector.has_streams) == (math.inf, True)
        assert at.connector.has_streams
        assert at.calls == ["changed"]
    assert (at.connector.linger_left, at.connector.has_streams) == (7.0, False)
    clock.now += 2
    assert at.connector.linger_left == 5.0
    clock.now += 6
    assert at.connector.linger_left == 0.0
    assert at.calls == ["changed"] * 2
    assert (there.calls, at.tasks) == ([], [])
    assert At(clock, linger=math.inf).connector.linger_left == math.inf


async def test_a_stream_that_the_server_refuses_is_an_outcome(clock: Clock) -> None:
    there = There()
    there.stream = Fault(UNREACHABLE)
    at = At(clock, there)
    await at.connector.open()
    async with at.connector.stream(Tcp("localhost", 80)) as stream:
        assert stream == UNREACHABLE
    assert not at.connector.has_streams


async def wait_for_stream(at: At) -> tuple["asyncio.Future[object]", "asyncio.Event"]:
    end = asyncio.Event()
    begun: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def use() -> None:
        async with at.connector.stream(Tcp("localhost", 80)) as stream:
            begun.set_result(stream)
            await end.wait()

    at.tasks.append(asyncio.ensure_future(use()))
    await asyncio.sleep(0)
    return begun, end


async def test_a_stream_waits_for_a_dial_and_has_its_fault(clock: Clock) -> None:
    there = There()
    at = At(clock, Fault(NO_KEY), there)
    begun, end = await wait_for_stream(at)
    assert (at.connector.is_stream_wanted, at.connector.has_streams, at.calls) == (True, True, ["changed"])
    with pytest.raises(Fault):
        await at.connector.open()
    assert await begun == NO_KEY
    end.set()
    await at.ran()
    assert (at.connector.is_stream_wanted, at.connector.has_streams) == (False, False)
    begun, end = await wait_for_stream(at)
    await at.connector.open()
    assert not at.connector.is_stream_wanted
    assert await begun is there.stream
    end.set()
    await at.ran()


async def test_streams_can_be_refused_while_they_wait(clock: Clock) -> None:
    at = At(clock)
    begun, end = await wait_for_stream(at)
    at.connector.refuse_streams("no connection now")
    assert await begun == Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="no connection now")
    end.set()
    await at.ran()


async def test_a_stream_does_not_use_a_connection_that_is_down(clock: Clock) -> None:
    there = There()
    at = At(clock, there, There())
    await at.connector.open()
    there.is_up = False
    begun, end = await wait_for_stream(at)
    assert not begun.done()
    await at.connector.open()
    assert await begun is not there.stream
    end.set()
    await at.ran()


# Doubt.


async def test_a_client_that_waited_in_vain_has_the_connection_checked(clock: Clock) -> None:
    at = At(clock, There())
    at.connector.waited_in_vain()
    assert not at.connector.must_check
    await at.connector.open()
    at.connector.waited_in_vain()
    assert (at.connector.must_check, at.connector.doubt_text) == (True, "")
    check = at.connector.start_check()
    assert not at.connector.must_check
    await check
    assert at.connector.state is ConnectionState.UP
    assert not at.connector.must_check


async def test_a_client_that_waited_in_vain_during_a_dial_is_the_last_one_to_wait(clock: Clock) -> None:
    end = asyncio.Event()
    at = At(clock, end)
    dialling = asyncio.ensure_future(at.connector.open())
    await asyncio.sleep(0)
    at.connector.waited_in_vain()
    assert at.connector.doubt_text == "there is no connection to server yet"
    end.set()
    await dialling
    assert at.connector.doubt_text == ""


async def test_a_connection_without_a_response_is_closed_and_retried(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dial_policy, "CHECK_GRACE", 0.0)
    monkeypatch.setattr(dial_policy, "RESPONSE_WAIT", 0.0)
    there = There(responds=False)
    there.tcp_state = TcpState(silence=60.0, round_trip=0.0)
    at = At(clock, there)
    at.dial_takes = 0.0
    await at.connector.open()
    at.connector.waited_in_vain()
    await at.connector.start_check()
    assert (at.connector.connection, at.connector.retired) == (None, there)
    assert (there.calls, at.connector.must_retry_lost) == (["close"], True)
    assert at.calls == ["changed"] * 3
    assert "relay=default lost the connection: no response" in caplog.text
    assert {one.name for one in caplog.records} == {"mailrelay.relay"}


async def test_a_check_of_no_connection_does_nothing(clock: Clock) -> None:
    at = At(clock)
    await at.connector.start_check()
    assert at.calls == []


# The fault.


async def test_a_setup_fault_is_recorded_with_its_fix_and_ends_when_the_mail_server_is_ready(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    at = At(clock)
    assert at.connector.fault.text == ""
    assert await at.connector.record_fault(NO_KEY) == "the key was refused."
    (name, outcome, next_dial, setup, backends), read = at.spool.calls
    assert (name, outcome, setup, backends, read) == ("default", NO_KEY, True, (Backend.MAILBOX,), "read")
    assert NOW + 60 <= next_dial <= NOW + 66
    assert (at.calls, at.connector.fault.text) == (["notices"], "the key was refused.")
    (logged,) = caplog.records
    assert (logged.levelno, logged.name) == (logging.ERROR, "mailrelay.relay")
    assert logged.message == "relay=default unusable (auth: the key was refused). Install the key."
    at.connector.fault.mail_server_ready()
    await at.ran()
    assert at.spool.calls[2:] == [("default", (Backend.DESKTOP,))]
    assert (at.calls, at.connector.fault.known) == (["notices"] * 2, None)
    assert caplog.records[1].message == "relay=default usable again"
    at.connector.fault.mail_server_ready()
    await at.connector.fault.read()
    assert len(at.spool.calls) == 3


async def test_the_end_of_a_fault_of_which_nobody_was_told_makes_no_notice_pending(clock: Clock) -> None:
    at = At(clock)
    at.spool.is_told = False
    await at.connector.record_fault(UNREACHABLE)
    assert at.calls == ["notices"]
    at.connector.fault.mail_judged()
    await at.ran()
    assert at.calls == ["notices"]


async def test_a_fault_of_the_network_is_a_warning_without_a_fix(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    at = At(clock)
    await at.connector.record_fault(replace(UNREACHABLE, text="no\x1bnetwork"))
    assert [(one.levelno, one.message) for one in caplog.records] == [
        (logging.WARNING, "relay=default unusable (dial: no\\x1bnetwork)")
    ]
    assert not cast(tuple[object, ...], at.spool.calls[0])[3]


@pytest.mark.parametrize(
    ("cause", "reply", "is_over"),
    [
        (Cause.HELO_REFUSED, Reply(550, (b"5.7.1 no",)), False),
        (Cause.LOGIN_WANTED, Reply(530, (b"5.7.0 no",)), False),
        (Cause.TURNED_AWAY, Reply(421, (b"later",)), False),
        (Cause.SMTP_CLOSED, None, True),
        (Cause.UNREACHABLE, None, True),
    ],
)
async def test_a_fault_that_may_come_again_at_mail_is_over_when_mail_was_judged(
    clock: Clock, cause: Cause, reply: Reply | None, is_over: bool
) -> None:
    at = At(clock)
    stage = Stage.MAIL if reply else Stage.CHANNEL
    await at.connector.record_fault(Outcome(stage, reply, cause, "" if reply else "closed"))
    outcome = cast(tuple[str, Outcome], at.spool.calls[0])[1]
    assert bool(outcome.fix) is (reply is not None and reply.code // 100 == 5)
    at.connector.fault.mail_server_ready()
    assert (at.connector.fault.known is None) is is_over
    at.connector.fault.mail_judged()
    await at.ran()
    assert at.connector.fault.known is None
    assert at.spool.failure is None


async def test_the_waits_follow_the_schedule_and_are_short_after_a_change_of_the_network(clock: Clock) -> None:
    at = At(clock)
    waits: list[float] = []

    async def fail(outcome: Outcome) -> None:
        at.spool.calls.clear()
        await at.connector.record_fault(outcome)
        waits.append(cast(tuple[str, Outcome, float], at.spool.calls[0])[2] - NOW)

    for _ in range(3):
        await fail(UNREACHABLE)
    at.connector.network_changed(OPENS)
    for _ in range(len(dial_policy.SETTLING_SCHEDULE) + 2):
        await fail(UNREACHABLE)
    at.connector.fault.mail_server_ready()
    await at.ran()
    await fail(UNREACHABLE)
    steps = (600, 1200, 1200, *dial_policy.SETTLING_SCHEDULE, 600, 1200, 600)
    for step, waited in zip(steps, waits, strict=True):
        assert step <= waited <= step * 1.1


async def test_a_stable_connection_that_is_lost_is_dialled_again_soon(clock: Clock) -> None:
    waits = []
    for age in (dial_policy.SETTLING_TIME, dial_policy.SETTLING_TIME + 1):
        at = At(clock, There())
        await at.connector.open()
        clock.now += age
        at.connector.forget()
        await at.connector.record_fault(UNREACHABLE)
        waits.append(cast(tuple[str, Outcome, float], at.spool.calls[0])[2] - NOW)
    assert waits[0] >= 600
    assert waits[1] < 2


async def test_what_waits_for_the_connection_may_have_it_dialled_ahead_of_the_schedule(clock: Clock) -> None:
    at = At(clock)
    await at.connector.record_fault(UNREACHABLE)
    assert at.connector.pause(has_new_mail=False) >= 600
    assert at.connector.pause(has_new_mail=True) == dial_policy.EARLY_DIAL_WAIT
    clock.now += 2
    assert at.connector.pause(has_new_mail=True) == dial_policy.EARLY_DIAL_WAIT - 2
    at.connector.expect_message()
    assert at.connector.pause(has_new_mail=False) == dial_policy.EARLY_DIAL_WAIT - 2
    at.connector.conversation_begun()
    _, end = await wait_for_stream(at)
    assert at.connector.pause(has_new_mail=False) == dial_policy.EARLY_DIAL_WAIT - 2
    at.connector.refuse_streams("no")
    end.set()
    await at.ran()
    assert at.connector.pause(has_new_mail=False) >= 600
    at.connector.network_changed(OPENS)
    assert at.connector.pause(has_new_mail=False) == -2


async def test_a_fault_of_the_spool_is_known_from_the_start_and_read_again_until_it_is_over(clock: Clock) -> None:
    at = At(clock)
    at.spool.failure = RelayhostFailure(3, NOW + 5, Cause.UNREACHABLE, "no network")
    await at.connector.fault.read()
    assert at.connector.fault.known == at.spool.failure
    at.spool.failure = replace(at.spool.failure, next_dial=NOW)
    await at.connector.fault.read()
    assert at.connector.pause(has_new_mail=False) == 0.0
    reading = at.connector.fault.read()
    at.connector.fault.mail_judged()
    await reading
    await at.ran()
    assert at.connector.fault.known is None
