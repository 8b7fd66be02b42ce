"""Decides when a relayhost is dialled again after a fault, and when its connection is in doubt and when it is dead. Pure.

Promises: the retry schedule holds unless there is a reason to believe that a dial succeeds now. After a cause for which SSH
servers lock out an address that returns too soon (`mail.triage.PENALISED`), only a change of the network allows a dial ahead
of the schedule, and not before PENALTY_SCHEDULE[0].
All times are seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mailrelay.mail.backoff import wait
from mailrelay.mail.outcome import Cause
from mailrelay.mail.triage import PENALISED, TRANSIENT
from mailrelay.ports import RelayhostFailure
from mailrelay.ssh.interface import TcpState

PENALTY_SCHEDULE = (60.0, 120.0, 300.0, 900.0)
"""Waits between dials after causes for which SSH servers lock out an address (`mail.triage.PENALISED`)."""
EARLY_DIAL_WAIT = 5.0
"""After a failed dial, wait at least this long before new mail or a stream may cause a dial ahead of the schedule."""
SETTLING_SCHEDULE = (1.0, 1.0, 2.0, 2.0, 3.0, 5.0, 10.0)
"""Waits between the first dials after a change of the network: addresses, routes and names come one after the other."""
SETTLING_TIME = 10.0
"""For this long after a dial the network may still be settling: a new address or route is then no reason to replace the
connection."""

CHECK_GRACE = 0.8
"""Seconds for the server to respond after a client has waited in vain. After that the connection is in doubt: no client is
kept waiting for it."""
RESPONSE_WAIT = 2.0
"""Seconds to wait for a response, at least, before a connection that may be dead is closed."""
RESPONSE_ROUND_TRIPS = 4
"""Round trips to wait for a response, at least: a request or its reply may have to be sent again."""


class NetworkChange(Protocol):
    """What has happened to the network (`network.events`).

    may_connect: an address or a route has come. removed_addresses: addresses that this computer no longer has, as
    inet_ntop(3) writes them. suspended: seconds for which the computer was suspended.
    """

    @property
    def may_connect(self) -> bool: ...
    @property
    def removed_addresses(self) -> frozenset[str]: ...
    @property
    def suspended(self) -> float: ...


@dataclass(frozen=True, slots=True)
class DialFacts:
    """now: epoch seconds. since_last_try: seconds since the last dial or fault. retry_pending: the network has changed, and
    no dial was made since. is_asked_for: new mail, a client that has begun a message, or a stream waits for the dial."""

    now: float
    since_last_try: float
    retry_pending: bool
    is_asked_for: bool


def pause(fault: RelayhostFailure | None, facts: DialFacts) -> float:
    """Seconds until a dial is allowed; 0 or less: now."""
    if fault is None:
        return 0.0
    scheduled = fault.next_dial - facts.now
    ahead = _wait_ahead_of_schedule(fault.cause, facts)
    return scheduled if ahead is None else min(scheduled, ahead - facts.since_last_try)


def _wait_ahead_of_schedule(cause: Cause, facts: DialFacts) -> float | None:
    """Seconds from the last try to the first moment at which a dial ahead of the schedule is allowed; None: never."""
    if cause in PENALISED:
        return PENALTY_SCHEDULE[0] if facts.retry_pending else None
    if facts.retry_pending and cause in TRANSIENT:
        return 0.0
    return EARLY_DIAL_WAIT if facts.retry_pending or facts.is_asked_for else None


def wait_after_fault(
    cause: Cause, failures: int, failures_before_change: int | None, schedule: Sequence[float], chance: float
) -> float:
    """Seconds until the next dial.

    failures: failures in a row, at least 1. failures_before_change: how many of them came before the network changed, None
    if it did not change. schedule: the retry schedule of the settings. chance: a random number in [0, 1).
    """
    if cause in PENALISED:
        return wait(PENALTY_SCHEDULE, failures, chance)
    if cause in TRANSIENT and failures_before_change is not None:
        return wait((*SETTLING_SCHEDULE, *schedule), max(1, failures - failures_before_change), chance)
    return wait(schedule, failures, chance)


def may_be_dead(change: NetworkChange, address: str, age: float) -> bool:
    """Whether a connection may be dead after a change of the network.

    address: its local address, "" if unknown. age: seconds since it was dialled.
    """
    return change.suspended > 0 or address in change.removed_addresses or (change.may_connect and age > SETTLING_TIME)


def patience(dial_seconds: float, state: TcpState | None) -> float:
    """Seconds to wait for a response on a connection that may be dead.

    dial_seconds: how long its dial took. That is six round trips and more, to all of its hops.
    """
    round_trip = state.round_trip if state is not None else 0.0
    return max(RESPONSE_WAIT, dial_seconds, RESPONSE_ROUND_TRIPS * round_trip)


def is_moving(state: TcpState | None, waited: float) -> bool:
    """Whether anything was acknowledged in the last `waited` seconds or in the last round trip: then the connection is slow,
    or the server's response waits behind a large content. False if that is not known."""
    return state is not None and state.silence < max(waited, state.round_trip)


def is_dead(state: TcpState | None, waited: float) -> bool:
    """Whether a connection is dead on which the server did not respond for `waited` seconds, its `patience`. If its
    state is not known, the ordinary keepalive requests decide."""
    return state is not None and not is_moving(state, waited)
