"""Which connections the listener greets, and what the others get; what becomes of one that is idle."""

import asyncio
import logging
from typing import Any, cast

import pytest
from harness.listener import Intake, Transport

from mailrelay.config import Listen
from mailrelay.listener import submission
from mailrelay.listener.access import Access
from mailrelay.listener.replies import IDLE_TOO_LONG, NOT_ALLOWED, STOPPING, TOO_MANY_CONNECTIONS, encode
from mailrelay.listener.server_state import ServerState
from mailrelay.listener.submission import MAX_IDLE, Submission, protocol_factory


def state(**settings: object) -> ServerState:
    return ServerState(Listen(**settings), cast(Any, Intake()), None)  # type: ignore[arg-type]


async def connected(to: ServerState) -> tuple[Submission, Transport]:
    protocol, transport = protocol_factory(to)(), Transport()
    protocol.connection_made(transport)
    for _ in range(3):
        await asyncio.sleep(0)
    return protocol, transport


async def test_a_client_that_is_admitted_is_greeted() -> None:
    to = state()
    protocol, transport = await connected(to)
    assert b"".join(transport.written).startswith(b"220 ")
    assert (to.connections, to.accepted) == ({protocol}, 1)
    assert not transport.is_closed


async def test_a_listener_that_stops_greets_nobody() -> None:
    to = state()
    to.stopping = True
    protocol, transport = await connected(to)
    assert (b"".join(transport.written), transport.is_closed) == (encode(STOPPING), True)
    assert protocol.is_over


@pytest.mark.parametrize(
    ("access", "account", "written", "line"),
    [
        (Access.REFUSED, "account me (uid 7)", encode(NOT_ALLOWED), "the client belongs to account me (uid 7), which"),
        (Access.CLIENT_CLOSED, "", b"", ""),
    ],
)
async def test_a_client_of_another_account_is_refused_and_logged(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    access: Access,
    account: str,
    written: bytes,
    line: str,
) -> None:
    monkeypatch.setattr(submission, "check_access", lambda *_: (access, account))
    _, transport = await connected(state())
    assert (b"".join(transport.written), transport.is_closed) == (written, True)
    assert [one.levelno for one in caplog.records] == ([logging.WARNING] if line else [])
    assert line in caplog.text


async def test_a_client_above_the_limit_is_refused_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    to = state(max_connections=1)
    first, _ = await connected(to)
    # Within a transaction, the first one is not idle.
    first.envelope.sender = b"a@b"
    _, transport = await connected(to)
    assert (b"".join(transport.written), transport.is_closed) == (encode(TOO_MANY_CONNECTIONS), True)
    assert caplog.messages == [
        "NOQUEUE command=connect dsn=4.7.0 status=refused (421 4.7.0 too many connections; closing)"
    ]


async def test_nothing_more_is_read_from_a_client_whose_connection_was_aborted() -> None:
    protocol, transport = await connected(state())
    protocol.abort()
    assert (protocol.is_over, transport.is_closed) == (True, True)


async def test_a_connection_that_is_idle_for_too_long_is_closed() -> None:
    protocol, transport = await connected(state())
    transport.written.clear()
    heard = protocol.idle_since
    assert heard is not None
    assert protocol.check_timeouts(heard + 1) == pytest.approx(MAX_IDLE - 1)
    assert protocol.check_timeouts(heard + MAX_IDLE - 1) == pytest.approx(1)
    assert transport.written == []
    assert protocol.check_timeouts(heard + MAX_IDLE) == MAX_IDLE
    assert b"".join(transport.written) == encode(IDLE_TOO_LONG)
    assert (transport.is_closed, protocol.idle_since) == (True, None)
