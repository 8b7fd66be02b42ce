"""The check of a connection in doubt: which one is dead, and which one is only slow."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from mailrelay.config import Relayhost
from mailrelay.relay import dial_policy
from mailrelay.relay.doubt import Doubt, DoubtPhase
from mailrelay.ssh.interface import TcpState

RELAYHOST = Relayhost(name="default", ssh="me@server", ssh_config=Path("/nowhere"))
LONG = 1e6


class Connection:
    """A connection whose silences are read from a list, the last of which repeats. The read of the last one brings the
    response if `responds`, or the end of the connection if `ends`."""

    def __init__(self, *silences: float | None, responds: bool = False, ends: bool = False) -> None:
        self.is_up = True
        self._reads = list(silences)
        self._responds = responds
        self._ends = ends
        self._response = asyncio.Event()

    @property
    def tcp_state(self) -> TcpState | None:
        silence = self._reads.pop(0) if len(self._reads) > 1 else self._reads[0]
        if len(self._reads) == 1 and (self._responds or self._ends):
            self.is_up = not self._ends
            self._response.set()
        return None if silence is None else TcpState(silence, 0.1)

    async def response(self) -> None:
        await self._response.wait()


async def check(connection: Connection) -> tuple[bool, DoubtPhase, Sequence[DoubtPhase]]:
    phases: list[DoubtPhase] = []
    doubt = Doubt(RELAYHOST, lambda: phases.append(doubt.phase))
    works = await doubt.check(connection, lambda: 0.001)  # type: ignore[arg-type]
    return works, doubt.phase, phases


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_policy, "CHECK_GRACE", 0.001)


@pytest.mark.parametrize(
    ("connection", "works"),
    [
        pytest.param(lambda: Connection(LONG), False, id="nothing is acknowledged"),
        pytest.param(
            lambda: Connection(LONG, 0.0, 0.0, LONG), False, id="the last octets are acknowledged, no response"
        ),
        pytest.param(lambda: Connection(LONG, 0.0, 0.0, 0.0, responds=True), True, id="it stalls and then moves"),
        pytest.param(lambda: Connection(None, None, None, responds=True), True, id="not known, a late response"),
        pytest.param(lambda: Connection(None, None, None, ends=True), False, id="not known, keepalive ends it"),
    ],
)
async def test_a_connection_is_dead_only_without_any_progress(connection: type[Connection], works: bool) -> None:
    found, phase, phases = await check(connection())
    assert found is works
    assert phase is (DoubtPhase.NONE if works else DoubtPhase.NO_RESPONSE)
    assert phases == ([DoubtPhase.NO_RESPONSE, DoubtPhase.NONE] if works else [DoubtPhase.NO_RESPONSE])


async def test_while_octets_are_acknowledged_there_is_no_doubt() -> None:
    """The response waits behind a large content on a slow line."""
    assert await check(Connection(0.0, 0.0, 0.0, 0.0, responds=True)) == (True, DoubtPhase.NONE, [DoubtPhase.NONE])


async def test_a_response_in_time_leaves_no_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_policy, "CHECK_GRACE", 3600.0)
    connection = Connection(LONG)
    connection._response.set()
    assert await check(connection) == (True, DoubtPhase.NONE, [DoubtPhase.NONE])


def test_while_a_check_is_under_way_another_client_asks_for_no_other_one() -> None:
    asked: list[None] = []
    doubt = Doubt(RELAYHOST, lambda: asked.append(None))
    doubt.waited_in_vain()
    assert doubt.phase is DoubtPhase.WAITED_IN_VAIN
    for phase in (DoubtPhase.WAITED_IN_VAIN, DoubtPhase.ASKED, DoubtPhase.NO_RESPONSE):
        doubt.phase = phase
        doubt.waited_in_vain()
        assert doubt.phase is phase
    assert len(asked) == 1


def test_clients_are_told_why_they_do_not_wait_only_while_there_is_a_doubt() -> None:
    doubt = Doubt(RELAYHOST, lambda: None)
    for phase in (DoubtPhase.NONE, DoubtPhase.WAITED_IN_VAIN, DoubtPhase.ASKED):
        doubt.phase = phase
        assert doubt.text(is_dialling=False) == doubt.text(is_dialling=True) == ""
    doubt.dialled_in_vain()
    assert doubt.text(is_dialling=True) == "there is no connection to me@server yet"
    assert doubt.text(is_dialling=False) == "the connection to me@server does not respond; it is being checked"
