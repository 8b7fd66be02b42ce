"""Mail, forwards, a network that changes and a remote with moods, all on one scheduler: none of them stops another one."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from harness.messages import letter
from harness.relay import OPENS, SLEPT, HeldContent, Network, RelayHarness, running_relay
from harness.remotes import amend, jump_config
from harness.tcp import echo, server

from mailrelay.demo.remote import Remote
from mailrelay.endpoint import Tcp
from mailrelay.mail.outcome import Cause, Outcome
from mailrelay.relay import connector, dial_policy
from mailrelay.spool.actions import retry_all
from mailrelay.ssh.interface import Stream


@asynccontextmanager
async def talking(at: RelayHarness, port: int) -> AsyncIterator[Stream]:
    """A stream to the echo at this port, that works."""
    async with at.scheduler.stream(Tcp("localhost", port)) as stream:
        assert not isinstance(stream, Outcome), stream.text
        await answers(stream)
        yield stream
        stream.abort()


async def answers(stream: Stream) -> None:
    stream.write(b"a")
    assert await stream.read() == b"a"


async def connections(at: RelayHarness, count: int) -> None:
    """Wait until the remote has so many."""

    async def holds() -> bool:
        return len(at.remote.connections) == count

    await at.until(holds)


async def test_mail_goes_by_a_new_connection_though_a_forward_goes_on_and_a_conversation_lingers_on_the_old_one(
    tmp_path: Path,
) -> None:
    async with running_relay(tmp_path, linger=float("inf")) as at, server(echo) as port, talking(at, port) as stream:
        await at.settled(await at.send(), "sent")
        at.scheduler.network_changed(SLEPT)
        await at.settled(await at.send(), "sent")
        assert at.remote.logins == 2
        await answers(stream)


async def test_a_connection_of_before_is_closed_with_its_last_stream_whatever_goes_on_elsewhere(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at, server(echo) as port, AsyncExitStack() as first:
        await first.enter_async_context(talking(at, port))
        at.scheduler.network_changed(SLEPT)
        async with talking(at, port) as other:
            await connections(at, 2)
            await first.aclose()
            await connections(at, 1)
            await answers(other)


async def test_a_forward_that_goes_on_keeps_no_connection_but_its_own(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at, server(echo) as port, talking(at, port) as stream:
        for _ in range(3):
            at.scheduler.network_changed(SLEPT)
            await at.settled(await at.send(), "sent")
        await connections(at, 2)
        await answers(stream)


async def test_a_scheduler_that_stops_leaves_no_connection_and_nobody_waiting(tmp_path: Path) -> None:
    network = Network()
    async with running_relay(tmp_path, dial=network.dial) as at, server(echo) as port, talking(at, port):
        at.scheduler.network_changed(SLEPT)
        async with talking(at, port):
            await connections(at, 2)
            at.scheduler.network_changed(SLEPT)
            network.hangs = True
            waits = asyncio.ensure_future(at.scheduler.stream(Tcp("localhost", port)).__aenter__())
            await at.until(lambda: network.dials == 3)
            await at.stop()
            async with asyncio.timeout(5):
                assert isinstance(await waits, Outcome)
                await connections(at, 0)


async def test_a_mail_server_that_is_down_is_left_alone_while_forwards_keep_a_connection_of_a_new_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("EARLY_DIAL_WAIT", 0.0), ("SETTLING_SCHEDULE", (3600.0,))):
        monkeypatch.setattr(dial_policy, name, value)

    async with running_relay(tmp_path) as at, server(echo) as port, talking(at, port) as stream:
        at.scheduler.network_changed(OPENS)
        await at.remote.mail_down()
        await at.send()
        assert await at.failure() is Cause.SMTP_CLOSED
        tried = at.remote.channels
        await at.looked_again(10)
        # On the same connection, and so behind a channel that was opened for mail.
        await answers(stream)
        assert at.remote.channels == tried


async def test_a_jump_host_is_left_once_the_host_behind_it_has_gone(tmp_path: Path) -> None:
    for name in ("hop1", "hop2"):
        (tmp_path / name).mkdir()
    async with running_relay(tmp_path) as at, Remote(tmp_path / "hop1") as one, Remote(tmp_path / "hop2") as two:
        jump_config(at.remote, one, two)
        amend(at.remote, "ProxyJump hop1")
        await at.settled(await at.send(), "sent")
        for connection in list(at.remote.connections):
            connection.abort()
        await at.until(lambda: not one.connections)
        await at.settled(await at.send(), "sent")
        assert one.logins == at.remote.logins == 2


async def test_a_connection_to_keep_up_always_is_not_dialled_again_and_again_where_it_does_not_last(
    tmp_path: Path,
) -> None:
    network = Network()
    async with running_relay(tmp_path, linger=float("inf"), dial=network.dial) as at:

        async def is_ready() -> bool:
            return await at.scheduler.probe_recipient(letter(at=time.time()).envelope) is not None

        await at.until(is_ready)
        for connection in list(at.remote.connections):
            connection.abort()
        await at.until(lambda: not at.scheduler.is_connected)
        await at.looked_again(5)
        assert network.dials == 1
        # New mail does not wait for the pause between the dials.
        await at.settled(await at.send(), "sent")


async def test_a_remote_that_allows_as_many_connections_as_the_settings_is_asked_for_more_only_once(
    tmp_path: Path,
) -> None:
    async with running_relay(tmp_path, channels=3, backlog_channels=20) as at:
        refused = messages = 0

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            nonlocal refused, messages
            # A dialogue is a task behind the channel, and one before it.
            if verb == "GREETING" and len(at.remote.dialogues) > 2 * 3:
                refused += 1
                return b"421 4.7.0 too many connections"
            if verb == "MAIL":
                # A slow server: one that is fast would be done before a further session is asked for.
                await asyncio.sleep(0.01)
                messages += 1
                if messages % 10 == 0:
                    return b"421 4.7.0 that was enough in one session"
            return None

        at.remote.policy = policy
        for _ in range(5):
            await at.spool.next_due("default")
        for _ in range(120):
            await at.spool.accept(letter(at=time.time()))
        at.scheduler.look_again()
        await at.remote.arrived(100)
        assert 0 < refused <= 20


async def test_a_network_that_changes_in_the_instant_in_which_a_conversation_is_to_begin_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_relay(tmp_path) as at:
        at.remote.policy = held = HeldContent()
        keys = [await at.send()]
        await held.reached.wait()
        conversation_begun = connector.Connector.conversation_begun
        changes = [SLEPT]

        def and_it_changes(way: connector.Connector) -> None:
            conversation_begun(way)
            if changes:
                at.scheduler.network_changed(changes.pop())

        monkeypatch.setattr(connector.Connector, "conversation_begun", and_it_changes)
        # Enough for several conversations more, and due in one instant: the network changes with the first of them.
        keys += [await at.spool.accept(letter(at=time.time() + 3600.0)) for _ in range(100)]
        retry_all(at.db, time.time())
        at.scheduler.look_again()
        await at.until(lambda: not changes)
        held.go_on.set()
        for key in keys:
            await at.settled(key, "sent")
        assert at.remote.logins == 2
