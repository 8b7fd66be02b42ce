"""When a relayhost is dialled again after a fault, and when a change of the network retires a connection."""

from dataclasses import dataclass

import pytest

from mailrelay.mail.outcome import Cause
from mailrelay.network.events import Change
from mailrelay.relay.dial_policy import (
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
from mailrelay.ssh.interface import TcpState

NOW = 1_700_000_000.0
HOUR = 3600.0
SCHEDULE = (60.0, 120.0)
LONG_AGO = 1e6


@dataclass(frozen=True)
class Fault:
    cause: Cause
    failures: int = 3
    next_dial: float = NOW + HOUR
    text: str = ""


@pytest.mark.parametrize(
    ("cause", "since_last_try", "retry_pending", "is_asked_for", "seconds"),
    [
        (Cause.UNREACHABLE, LONG_AGO, False, False, HOUR),
        (Cause.UNREACHABLE, 0.0, True, False, 0.0),
        (Cause.LOST, 0.0, True, False, 0.0),
        (Cause.UNREACHABLE, 1.0, False, True, EARLY_DIAL_WAIT - 1.0),
        (Cause.UNREACHABLE, LONG_AGO, False, True, EARLY_DIAL_WAIT - LONG_AGO),
        (Cause.SSH_REFUSED, 0.0, True, False, EARLY_DIAL_WAIT),
        (Cause.SSH_REFUSED, 0.0, False, True, EARLY_DIAL_WAIT),
        (Cause.SSH_REFUSED, 0.0, False, False, HOUR),
        (Cause.AUTH_REFUSED, LONG_AGO, False, True, HOUR),
        (Cause.AUTH_REFUSED, 10.0, True, True, PENALTY_SCHEDULE[0] - 10.0),
        (Cause.HOST_KEY_CHANGED, 0.0, True, False, PENALTY_SCHEDULE[0]),
        (Cause.HOST_KEY_CHANGED, LONG_AGO, False, False, HOUR),
    ],
)
def test_the_pause_before_the_next_dial(
    cause: Cause, since_last_try: float, retry_pending: bool, is_asked_for: bool, seconds: float
) -> None:
    facts = DialFacts(NOW, since_last_try, retry_pending, is_asked_for)
    assert pause(Fault(cause), facts) == pytest.approx(seconds)


def test_a_dial_that_the_schedule_allows_needs_no_reason() -> None:
    facts = DialFacts(NOW, 0.0, retry_pending=False, is_asked_for=False)
    assert pause(Fault(Cause.AUTH_REFUSED, next_dial=NOW - 1.0), facts) == -1.0
    assert pause(None, facts) == 0.0


@pytest.mark.parametrize(
    ("cause", "failures", "before_change", "seconds"),
    [
        (Cause.UNREACHABLE, 1, None, SCHEDULE[0]),
        (Cause.UNREACHABLE, 9, None, SCHEDULE[1]),
        (Cause.UNREACHABLE, 4, 3, SETTLING_SCHEDULE[0]),
        (Cause.UNREACHABLE, 3, 3, SETTLING_SCHEDULE[0]),
        (Cause.LOST, 5 + len(SETTLING_SCHEDULE), 4, SCHEDULE[0]),
        (Cause.SSH_REFUSED, 4, 3, SCHEDULE[1]),
        (Cause.AUTH_REFUSED, 1, 0, PENALTY_SCHEDULE[0]),
        (Cause.HOST_KEY_UNKNOWN, 3, None, PENALTY_SCHEDULE[2]),
        (Cause.HOST_KEY_UNKNOWN, 30, None, PENALTY_SCHEDULE[-1]),
    ],
)
def test_the_wait_after_a_fault(cause: Cause, failures: int, before_change: int | None, seconds: float) -> None:
    assert wait_after_fault(cause, failures, before_change, SCHEDULE, 0.0) == seconds


@pytest.mark.parametrize(
    ("change", "age", "doubtful"),
    [
        (Change(suspended=1.0), 0.0, True),
        (Change(removed_addresses=frozenset({"192.0.2.1"})), 0.0, True),
        (Change(removed_addresses=frozenset({"192.0.2.9"})), LONG_AGO, False),
        (Change(may_connect=True), SETTLING_TIME + 1.0, True),
        (Change(may_connect=True), SETTLING_TIME - 1.0, False),
        (Change(clock_step=3600.0), LONG_AGO, False),
    ],
)
def test_whether_a_connection_may_have_died_with_the_network_of_before(
    change: Change, age: float, doubtful: bool
) -> None:
    assert may_be_dead(change, "192.0.2.1", age) is doubtful


def test_a_connection_whose_local_address_is_unknown_does_not_go_with_an_address() -> None:
    assert not may_be_dead(Change(removed_addresses=frozenset({"192.0.2.1"})), "", LONG_AGO)


@pytest.mark.parametrize(
    ("dial_seconds", "state", "seconds"),
    [
        pytest.param(0.3, TcpState(0.0, 0.05), RESPONSE_WAIT, id="a usual connection"),
        pytest.param(0.3, None, RESPONSE_WAIT, id="a usual connection, round trip unknown"),
        pytest.param(24.0, TcpState(0.0, 3.2), 24.0, id="by satellites: round trips of 3 s"),
        pytest.param(24.0, TcpState(0.0, 0.01), 24.0, id="slow behind a quick jump host"),
        pytest.param(0.8, TcpState(0.0, 4.0), 4.0 * RESPONSE_ROUND_TRIPS, id="it has become slow since the dial"),
    ],
)
def test_the_patience_with_a_connection_grows_with_its_round_trip(
    dial_seconds: float, state: TcpState | None, seconds: float
) -> None:
    assert patience(dial_seconds, state) == seconds


@pytest.mark.parametrize(
    ("state", "dead", "moving"),
    [
        (TcpState(9.0, 0.1), True, False),
        (TcpState(2.0, 0.1), True, False),
        (TcpState(1.9, 0.1), False, True),
        (TcpState(2.9, 3.0), False, True),
        (TcpState(3.0, 3.0), True, False),
        (None, False, False),
    ],
)
def test_a_connection_is_dead_if_nothing_was_acknowledged_meanwhile(
    state: TcpState | None, dead: bool, moving: bool
) -> None:
    assert is_dead(state, 2.0) is dead
    assert is_moving(state, 2.0) is moving
