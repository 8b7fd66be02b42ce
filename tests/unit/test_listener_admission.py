"""Which connections the listener greets, and what the others get; what becomes of one that is idle."""

import asyncio
import logging
from typing import Any, cast

import pytest
from harness.listener import Intake, Transport

from mailrelay.config import Listen
from mailrelay.endpoint import Unix
from mailrelay.listener import submission
from mailrelay.listener.access import Access
from mailrelay.listener.replies import GO_AWAY, IDLE_TOO_LONG, NOT_ALLOWED, STOPPING, TOO_MANY_CONNECTIONS, encode
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


async def test_a_listener_that_stops_answers_the_next_command_of_a_client_with_that() -> None:
    to = state()
    protocol, transport = await connected(to)
    protocol.data_received(b"EHLO x\r\n")
    transport.written.clear()
    to.stopping = True
    protocol.data_received(b"MAIL FROM:<a@b>\r\nRSET\r\n")
    assert (b"".join(transport.written), transport.is_closed) == (encode(STOPPING), True)
    assert protocol.envelope.sender is None


async def test_a_client_that_closes_its_side_without_a_command_is_closed() -> None:
    protocol, transport = await connected(state())
    assert protocol.eof_received()
    assert transport.is_closed


async def test_a_client_that_closes_its_side_before_the_greeting_is_greeted_and_closed() -> None:
    protocol, transport = protocol_factory(state())(), Transport()
    protocol.connection_made(transport)
    assert protocol.idle_since is None
    assert protocol.eof_received()
    assert not transport.is_closed
    await transport.until_written(1)
    assert [one[:4] for one in transport.written] == [b"220 "]
    assert transport.is_closed


async def test_a_client_that_is_dropped_before_the_greeting_is_not_greeted(caplog: pytest.LogCaptureFixture) -> None:
    to = state()
    protocol, transport = protocol_factory(to)(), Transport()
    protocol.connection_made(transport)
    protocol.data_received(b"EHLO x\r\n")
    for _ in range(3):
        await asyncio.sleep(0)
    assert (b"".join(transport.written), transport.is_closed) == (encode(GO_AWAY), True)
    assert caplog.messages == ["security: connection dropped, the client spoke before the greeting: EHLO"]
    protocol.connection_lost(None)
    assert to.connections == set()


@pytest.mark.parametrize(("octets", "is_smtp"), [(b"E", True), (b"z5", True), (b"5", False), (b"\x16a", False)])
async def test_the_first_octet_of_a_client_must_be_a_letter(octets: bytes, is_smtp: bool) -> None:
    protocol, transport = await connected(state())
    transport.written.clear()
    protocol.data_received(octets)
    assert b"".join(transport.written) == (b"" if is_smtp else encode(GO_AWAY))
    assert transport.is_closed is not is_smtp


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


@pytest.mark.parametrize(
    ("has_everyone", "is_there", "access", "owner"),
    [
        (False, False, Access.ALLOWED, None),
        (True, False, Access.ALLOWED, 71),
        (True, True, Access.ALLOWED, 71),
        (True, False, Access.REFUSED, None),
    ],
)
async def test_only_the_socket_for_everyone_takes_any_account_and_gives_messages_their_owner(
    monkeypatch: pytest.MonkeyPatch, has_everyone: bool, is_there: bool, access: Access, owner: int | None
) -> None:
    asked: list[object] = []
    everyone = Unix("/run/everyone")
    monkeypatch.setattr(submission, "check_access", lambda _, allowed: asked.append(allowed) or (access, ""))
    monkeypatch.setattr(submission, "is_on", lambda _, socket: is_there and socket == everyone)
    monkeypatch.setattr(submission, "owner", lambda _: 71)
    to = state(everyone=everyone if has_everyone else None)
    to.allowed = frozenset({5})
    protocol, _ = await connected(to)
    assert asked == [None if is_there else {5}]
    assert (protocol.owner, protocol.envelope.owner) == (owner, owner)


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
