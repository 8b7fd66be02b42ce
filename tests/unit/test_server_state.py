"""What the connections of a listener share: the lines of the log that are allowed, and the share of an account."""

import asyncio
from dataclasses import dataclass
from typing import cast

import pytest

from mailrelay.config import Listen
from mailrelay.listener.server_state import ClientConnection, IntakePort, LogLimit, ServerState


@dataclass(eq=False)
class Connection:
    owner: int | None
    is_over: bool = False


def state(max_connections: int, *connections: Connection) -> ServerState:
    found = ServerState(Listen(max_connections=max_connections), cast(IntakePort, None), None)
    found.connections.update(cast(list[ClientConnection], connections))
    return found


async def test_lines_beyond_the_limit_of_a_minute_are_counted_and_told_in_a_later_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 6000.0
    limit = LogLimit(2, "%d more")
    with monkeypatch.context() as clock:
        clock.setattr(asyncio.get_running_loop(), "time", lambda: now)
        assert [limit.count_one() for _ in range(5)] == [True, True, False, False, False]
        now += 59.9
        assert not limit.count_one()
        assert caplog.messages == []
        now += 0.2
        assert limit.count_one()
        assert caplog.messages == ["4 more"]
        now += 60
        # Nothing was suppressed in the minute before.
        assert limit.count_one()
    assert caplog.messages == ["4 more"]


def test_an_account_may_have_half_of_the_connections_and_those_that_are_over_do_not_count() -> None:
    mine = [Connection(1000) for _ in range(4)]
    assert not state(8, *mine, Connection(1001)).is_over_share(1000)
    assert state(8, *mine, Connection(1000)).is_over_share(1000)
    assert not state(8, *mine, Connection(1000, is_over=True)).is_over_share(1000)
    assert not state(8, *mine, Connection(1000)).is_over_share(1001)


def test_each_account_may_have_one_connection_and_clients_without_a_known_account_share_nothing() -> None:
    assert not state(1, Connection(1000)).is_over_share(1000)
    assert state(1, Connection(1000), Connection(1000)).is_over_share(1000)
    assert not state(1, Connection(None), Connection(None)).is_over_share(None)
