"""A connection that is silently cut is felt by one client; a slow mail server or a slow line loses no connection."""

import time
from pathlib import Path

import pytest
from harness.messages import letter
from harness.relay import OPENS, HeldContent, Network, RelayHarness, running_relay
from harness.wire import wired

from mailrelay.relay import connector, dial_policy
from mailrelay.relay.waiters import Queued

FOREVER = 3600.0


async def in_doubt(at: RelayHarness) -> None:
    """Lets a client wait in vain, and waits until the connection is in doubt."""
    at.scheduler.waited_in_vain()
    await at.until(lambda: "does not respond" in at.scheduler.fault_text)


async def send_and_wait(at: RelayHarness) -> tuple[int, Queued]:
    """A client whose message comes while it waits, as it hears at once that its message is queued."""
    message = letter(at=time.time())
    waiter = at.scheduler.waiters.open(message.queue_id)
    key = await at.spool.accept(message)
    at.scheduler.message_arrived(key)
    result = await waiter.result
    assert isinstance(result, Queued)
    return key, result


async def test_a_silent_cut_is_found_and_all_of_its_mail_leaves_through_a_new_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial_policy, "CHECK_GRACE", 0.0)
    monkeypatch.setattr(dial_policy, "RESPONSE_WAIT", 0.2)
    async with running_relay(tmp_path) as at, wired(at) as wire:
        await at.settled(await at.send(), "sent")
        wire.cut()
        lost = await at.send()
        await in_doubt(at)
        key, result = await send_and_wait(at)
        assert "does not respond; it is being checked" in result.why
        await at.settled(lost, "sent")
        await at.settled(key, "sent")
        assert at.remote.logins == 2
        # The message of the second client was never begun on the dead connection.
        (to,) = at.message(key).recipients
        assert to.uncertain is None
        assert at.message(key).attempts == 1
        assert at.scheduler.fault_text == ""


async def test_clients_that_wait_when_the_doubt_begins_hear_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial_policy, "CHECK_GRACE", 0.0)
    monkeypatch.setattr(dial_policy, "RESPONSE_WAIT", FOREVER)
    async with running_relay(tmp_path) as at, wired(at) as wire:
        await at.settled(await at.send(), "sent")
        wire.cut()
        waiter = at.scheduler.waiters.open("q1")
        await in_doubt(at)
        assert isinstance(await waiter.result, Queued)


async def test_a_slow_mail_server_keeps_its_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SSH server responds, whatever the mail server does."""
    monkeypatch.setattr(dial_policy, "CHECK_GRACE", 0.0)
    monkeypatch.setattr(dial_policy, "RESPONSE_WAIT", 5.0)
    async with running_relay(tmp_path) as at, wired(at) as wire:
        at.remote.extensions = ()
        at.remote.policy = held = HeldContent()
        slow = await at.send()
        await held.reached.wait()
        before = wire.requests
        at.scheduler.waited_in_vain()
        await at.until(lambda: wire.requests > before)
        # Without regard to the response this message would leave through a new connection.
        await at.settled(await at.send(), "sent")
        assert await at.states(slow) == ["active"]
        held.go_on.set()
        await at.settled(slow, "sent")
        assert at.remote.logins == 1
        assert at.message(slow).attempts == 1


async def test_mail_that_comes_during_the_doubt_leaves_on_the_same_connection_after_a_late_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial_policy, "CHECK_GRACE", 0.0)
    monkeypatch.setattr(dial_policy, "RESPONSE_WAIT", FOREVER)
    async with running_relay(tmp_path) as at, wired(at) as wire:
        await at.settled(await at.send(), "sent")
        wire.is_open.clear()
        first = await at.send()
        await in_doubt(at)
        second, _ = await send_and_wait(at)
        assert await at.scheduler.probe_recipient(letter().envelope) is None
        assert await at.states(second) == ["queued"]
        wire.is_open.set()
        await at.settled(first, "sent")
        await at.settled(second, "sent")
        assert at.remote.logins == 1
        assert at.scheduler.fault_text == ""


async def test_of_the_clients_that_come_during_a_dial_that_hangs_only_the_first_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "DIAL_GRACE", 0.01)
    network = Network()
    async with running_relay(tmp_path, dial=network.dial) as at:
        network.hangs = True
        key = await at.send()
        await at.until(lambda: network.dials == 1)
        assert at.scheduler.fault_text == ""
        at.scheduler.waited_in_vain()
        assert "there is no connection to" in at.scheduler.fault_text
        network.hangs = False
        at.scheduler.network_changed(OPENS)
        await at.settled(key, "sent")
        assert at.scheduler.fault_text == ""


async def test_a_client_that_waits_in_vain_without_a_connection_leaves_no_doubt(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        at.scheduler.waited_in_vain()
        assert at.scheduler.fault_text == ""
        await at.settled(await at.send(), "sent")
