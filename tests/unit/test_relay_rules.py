"""When to dial, when a connection is in doubt or dead, and how far a content is: by tables, without a network."""

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mailrelay.config import Relayhost
from mailrelay.mail.outcome import Cause
from mailrelay.mail.recorded import Recording, RecordingState
from mailrelay.mail.triage import PENALISED
from mailrelay.network.events import Change
from mailrelay.ports import RelayhostFailure
from mailrelay.relay import transfer
from mailrelay.relay.dial_policy import (
    CHECK_GRACE,
    EARLY_DIAL_WAIT,
    PENALTY_SCHEDULE,
    RESPONSE_ROUND_TRIPS,
    RESPONSE_WAIT,
    SETTLING_SCHEDULE,
    SETTLING_TIME,
    DialFacts,
    is_dead,
    is_moving,
    may_be_dead,
    patience,
    pause,
    wait_after_fault,
)
from mailrelay.relay.doubt import Doubt, DoubtPhase
from mailrelay.relay.recording import REST, SHORT_REST, after_refusal, is_trial_due
from mailrelay.relay.transfer import Phase, Transfer
from mailrelay.ssh.interface import NotRecorded, TcpState

NOW = 1000.0


# When to dial.


@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("retry_pending", [False, True])
@pytest.mark.parametrize("is_asked_for", [False, True])
def test_a_dial_ahead_of_the_schedule_needs_a_reason(cause: Cause, retry_pending: bool, is_asked_for: bool) -> None:
    facts = DialFacts(NOW, 2.0, retry_pending, is_asked_for)
    assert pause(None, facts) == 0.0
    fault = RelayhostFailure(1, NOW + 500, cause, "x")
    if cause in PENALISED:
        ahead = PENALTY_SCHEDULE[0] - 2 if retry_pending else 500
    elif retry_pending and cause in (Cause.UNREACHABLE, Cause.LOST):
        ahead = -2
    else:
        ahead = EARLY_DIAL_WAIT - 2 if retry_pending or is_asked_for else 500
    assert pause(fault, facts) == ahead
    # It is never later than by the schedule.
    assert pause(RelayhostFailure(1, NOW - 9, cause, "x"), facts) == -9


@pytest.mark.parametrize("cause", list(Cause))
def test_the_wait_after_a_fault_follows_the_schedule_for_its_cause(cause: Cause) -> None:
    schedule = (11.0, 22.0, 33.0)

    def waits(before_change: int | None) -> list[float]:
        return [wait_after_fault(cause, failures, before_change, schedule, 0.0) for failures in range(1, 13)]

    if cause in PENALISED:
        expected = [*PENALTY_SCHEDULE, *[PENALTY_SCHEDULE[-1]] * 8]
        assert waits(None) == waits(0) == expected
        return
    assert waits(None) == [11.0, 22.0, *[33.0] * 10]
    if cause in (Cause.UNREACHABLE, Cause.LOST):
        settling = [*SETTLING_SCHEDULE, *schedule]
        assert waits(0) == [*settling, 33.0, 33.0]
        assert waits(2) == [settling[0], settling[0], *settling]
        assert waits(5) == [*[settling[0]] * 5, *settling[:7]]
    else:
        assert waits(0) == waits(None)
    assert wait_after_fault(Cause.SSH_REFUSED, 1, None, schedule, 0.5) == pytest.approx(11.0 * 1.05)


@pytest.mark.parametrize(
    ("change", "address", "age", "may_be"),
    [
        (Change(), "a", 99.0, False),
        (Change(suspended=0.1), "a", 0.0, True),
        (Change(removed_addresses=frozenset({"a"})), "a", 0.0, True),
        (Change(removed_addresses=frozenset({"a"})), "", 99.0, False),
        (Change(may_connect=True), "a", SETTLING_TIME, False),
        (Change(may_connect=True), "a", SETTLING_TIME + 0.1, True),
        (Change(clock_step=99.0), "a", 99.0, False),
    ],
)
def test_a_change_of_the_network_may_have_killed_a_connection(
    change: Change, address: str, age: float, may_be: bool
) -> None:
    assert may_be_dead(change, address, age) is may_be


@pytest.mark.parametrize(
    ("dial_seconds", "state", "seconds"),
    [
        (0.0, None, RESPONSE_WAIT),
        (9.0, None, 9.0),
        (0.0, TcpState(0.0, 2.0), 2.0 * RESPONSE_ROUND_TRIPS),
        (9.0, TcpState(0.0, 2.0), 9.0),
        (0.0, TcpState(0.0, 0.1), RESPONSE_WAIT),
    ],
)
def test_the_patience_grows_with_the_dial_and_the_round_trip(
    dial_seconds: float, state: TcpState | None, seconds: float
) -> None:
    assert patience(dial_seconds, state) == seconds


@pytest.mark.parametrize(
    ("state", "waited", "moves", "dead"),
    [
        (None, 5.0, False, False),
        (TcpState(4.9, 0.0), 5.0, True, False),
        (TcpState(5.0, 0.0), 5.0, False, True),
        (TcpState(6.0, 7.0), 5.0, True, False),
        (TcpState(7.0, 7.0), 5.0, False, True),
    ],
)
def test_a_connection_on_which_something_is_acknowledged_is_slow_and_not_dead(
    state: TcpState | None, waited: float, moves: bool, dead: bool
) -> None:
    assert (is_moving(state, waited), is_dead(state, waited)) == (moves, dead)


# Doubt.


class There:
    """A connection. states: what the kernel knows after each wait; the server responds when there are no more."""

    def __init__(self, *states: TcpState | None) -> None:
        self.states = list(states)
        self.responded = asyncio.Event()
        self.is_up = True
        self.was_cancelled = False

    async def response(self) -> None:
        if not self.states:
            return
        try:
            await self.responded.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise

    @property
    def tcp_state(self) -> TcpState | None:
        state = self.states.pop(0)
        if not self.states:
            self.responded.set()
        return state


SILENT, MOVING = TcpState(60.0, 0.0), TcpState(0.0, 1.0)


@pytest.mark.parametrize(
    ("states", "is_up", "works", "changes", "waits"),
    [
        ((), True, True, 1, []),
        ((MOVING, MOVING), True, True, 1, [CHECK_GRACE, CHECK_GRACE, CHECK_GRACE]),
        ((SILENT,), True, True, 2, [CHECK_GRACE, 7.0]),
        ((SILENT,), False, False, 1, [CHECK_GRACE, 7.0]),
        ((None, None, None), True, True, 2, [CHECK_GRACE, 7.0, 7.0, 7.0]),
        ((SILENT, MOVING), True, True, 2, [CHECK_GRACE, 7.0, 7.0]),
        ((SILENT, SILENT, SILENT), True, False, 1, [CHECK_GRACE, 7.0]),
    ],
)
async def test_a_connection_in_doubt_is_asked_for_a_response(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    states: tuple[TcpState | None, ...],
    is_up: bool,
    works: bool,
    changes: int,
    waits: list[float],
) -> None:
    caplog.set_level(logging.INFO)
    told: list[DoubtPhase] = []
    waited: list[float] = []
    wait = asyncio.wait

    async def short(fs: Any, *, timeout: float) -> Any:
        waited.append(timeout)
        return await wait(fs, timeout=0.0 if there.states else 10.0)

    monkeypatch.setattr(asyncio, "wait", short)
    there = There(*states)
    there.is_up = is_up
    doubt = Doubt(Relayhost(name="default", ssh="server", ssh_config=Path("/x")), lambda: told.append(doubt.phase))
    doubt.phase = DoubtPhase.ASKED
    assert await doubt.check(cast(Any, there), lambda: 7.0) is works
    assert len(told) == changes
    assert waited == (waits or [CHECK_GRACE])
    assert doubt.phase is (DoubtPhase.NONE if works else DoubtPhase.NO_RESPONSE)
    was_silent = DoubtPhase.NO_RESPONSE in told
    assert ("relay=default does not respond; new mail waits" in caplog.text) is was_silent
    assert ("relay=default responds again" in caplog.text) is (was_silent and works)
    assert {one.name for one in caplog.records} <= {"mailrelay.relay"}


def test_what_clients_are_told_of_a_doubt() -> None:
    told: list[str] = []
    doubt = Doubt(Relayhost(name="default", ssh="server", ssh_config=Path("/x")), lambda: told.append("changed"))
    assert (doubt.phase, doubt.text(is_dialling=True)) == (DoubtPhase.NONE, "")
    doubt.waited_in_vain()
    doubt.waited_in_vain()
    assert (doubt.phase, told, doubt.text(is_dialling=False)) == (DoubtPhase.WAITED_IN_VAIN, ["changed"], "")
    doubt.dialled_in_vain()
    assert (doubt.phase, told) == (DoubtPhase.NO_RESPONSE, ["changed"])
    assert doubt.text(is_dialling=True) == "there is no connection to server yet"
    assert doubt.text(is_dialling=False) == "the connection to server does not respond; it is being checked"
    doubt.waited_in_vain()
    assert doubt.phase is DoubtPhase.NO_RESPONSE


# Recording.


@pytest.mark.parametrize(
    ("known", "is_due"),
    [
        (Recording(), True),
        (Recording(next_trial=NOW), True),
        (Recording(next_trial=NOW + 1), False),
        (Recording(next_trial=NOW + REST), False),
        (Recording(next_trial=NOW + REST + 1), True),
        (Recording(RecordingState.IMPOSSIBLE, NOW + 1), False),
        (Recording(RecordingState.IMPOSSIBLE, NOW - 1), True),
        (Recording(RecordingState.POSSIBLE), False),
    ],
)
def test_whether_a_conversation_is_to_try_to_be_recorded(known: Recording, is_due: bool) -> None:
    assert is_trial_due(known, NOW) is is_due
    assert [state.value for state in RecordingState] == ["", "possible", "impossible"]


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("known", [Recording(), Recording(next_trial=5.0), Recording(RecordingState.POSSIBLE)])
def test_what_is_known_after_a_refusal_to_record(known: Recording, others: bool) -> None:
    assert after_refusal(NotRecorded("no"), known, NOW, others=others) == Recording(
        RecordingState.IMPOSSIBLE, NOW + REST
    )
    found = after_refusal(NotRecorded("no", is_temporary=True), known, NOW, others=others)
    if known.state is RecordingState.POSSIBLE:
        assert found == (known if others else Recording())
    else:
        assert found == Recording(RecordingState.UNKNOWN, NOW + (REST if known.next_trial else SHORT_REST))


# The content on its way.


def test_a_content_counts_as_far_as_the_other_side_has_acknowledged_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(transfer, "time", SimpleNamespace(monotonic=lambda: clock.now))
    channel = SimpleNamespace(written=0, acknowledged=0)
    one = Transfer()
    one.add(7)
    one.mark_written()
    assert (one.phase, one.octets, one.octets_and_rate()) == (Phase.BEFORE, 0, (0, 0.0))
    one = Transfer()
    one.begin(cast(Any, channel))
    assert (one.phase, one.octets) == (Phase.STARTED, 0)
    one.add(60)
    one.add(40)
    assert one.octets == 0
    channel.written = 130
    one.mark_written()
    for acknowledged, octets in ((0, 0), (30, 0), (31, 1), (130, 100), (90, 100), (999, 100)):
        channel.acknowledged = acknowledged
        assert one.octets == octets
    clock.now += 2.0
    assert one.octets_and_rate() == (100, 50.0)
    one.add(50)
    channel.written = channel.acknowledged = 180
    assert one.octets == 100
    one.mark_written()
    assert one.octets == 150


def test_a_content_can_be_stopped_until_its_end_is_written() -> None:
    calls: list[str] = []
    one = Transfer(wake=lambda: calls.append("wake"))
    assert (one.want_stop(), one.is_stop_wanted, calls) == (True, True, ["wake"])
    assert Transfer().want_stop()
    one = Transfer(wake=lambda: calls.append("too late"))
    one.end()
    assert (one.phase, one.want_stop(), one.is_stop_wanted, calls) == (Phase.COMPLETE, False, False, ["wake"])
    assert not (one.is_cancelled or one.ended.is_set())
