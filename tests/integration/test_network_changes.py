"""The network comes and goes under a scheduler: what waits leaves when it is back, and nothing new goes where it was."""

import asyncio
import time
from pathlib import Path

import pytest
from harness.messages import letter
from harness.relay import OPENS, SLEPT, HeldContent, Network, RelayHarness, running_relay
from harness.wire import wired

from mailrelay.config import Relayhost
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.network.events import Change
from mailrelay.ports import RelayhostFailure
from mailrelay.relay import connector, dial_policy
from mailrelay.relay.waiters import Queued
from mailrelay.ssh.interface import Connection, Fault


async def uncertain(at: RelayHarness, key: int) -> bool:
    (to,) = at.message(key).recipients
    return to.uncertain is not None


async def test_what_waits_leaves_when_the_network_is_back_whatever_the_back_off_said(tmp_path: Path) -> None:
    network = Network()
    async with running_relay(tmp_path, dial=network.dial) as at:
        network.is_away = True
        key = await at.send()
        assert await at.failure() is Cause.UNREACHABLE
        network.is_away = False
        at.scheduler.network_changed(OPENS)
        await at.settled(key, "sent")
        assert network.dials == 2


async def test_a_network_that_comes_in_steps_is_tried_again_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address is there before the name server is."""
    monkeypatch.setattr(dial_policy, "SETTLING_SCHEDULE", (0.01,) * 5)

    network = Network()
    async with running_relay(tmp_path, dial=network.dial) as at:
        network.is_away = True
        key = await at.send()
        await at.failure()
        at.scheduler.network_changed(OPENS)

        async def tried() -> bool:
            return network.dials >= 4

        await at.until(tried)
        network.is_away = False
        await at.settled(key, "sent")


@pytest.mark.parametrize("stood", [0, 1])
async def test_after_a_connection_that_stood_is_lost_the_way_is_tried_again_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stood: int
) -> None:
    """Whether it had carried mail before or not."""
    monkeypatch.setattr(dial_policy, "SETTLING_SCHEDULE", (0.01,) * 5)
    monkeypatch.setattr(dial_policy, "SETTLING_TIME", -1.0)

    network = Network()
    async with running_relay(tmp_path, channels=1, dial=network.dial) as at:
        at.remote.extensions = ()
        for _ in range(stood):
            await at.settled(await at.send(), "sent")
        reached = asyncio.Event()

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            if verb == "MAIL" and not reached.is_set():
                reached.set()
                await asyncio.Event().wait()
            return None

        async def tried() -> bool:
            return network.dials >= 4

        at.remote.policy = policy
        lost = await at.send()
        await reached.wait()
        waits = await at.spool.accept(letter(at=time.time()))
        network.is_away = True
        for connection in at.remote.connections:
            connection.abort()
        await at.until(tried)
        network.is_away = False
        await at.settled(waits, "sent")
        assert await at.states(lost) == ["deferred"]


async def test_a_dial_into_a_network_that_has_gone_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "DIAL_GRACE", 0.01)

    network = Network()
    async with running_relay(tmp_path, dial=network.dial) as at:
        network.hangs = True
        key = await at.send()

        async def dialling() -> bool:
            return network.dials == 1

        await at.until(dialling)
        network.hangs = False
        at.scheduler.network_changed(OPENS)
        await at.settled(key, "sent")
        assert await at.spool.relayhost_failure("default") is None


async def test_mail_of_a_lost_connection_leaves_when_the_network_is_back_and_greylisted_mail_does_not(
    tmp_path: Path,
) -> None:
    async with running_relay(tmp_path) as at:
        cuts = 0

        async def policy(verb: str, argument: bytes) -> bytes | None:
            nonlocal cuts
            # The message goes on at once after the first time.
            if verb == "DATA" and cuts < 2:
                cuts += 1
                return b""
            return b"451 4.7.1 come back later" if verb == "RCPT" and b"later" in argument else None

        at.remote.policy = policy
        lost = await at.send()
        await at.settled(lost, "deferred")
        later = await at.send(b"later@example.net")
        await at.settled(later, "deferred")
        at.scheduler.network_changed(OPENS)
        await at.settled(lost, "sent")
        assert await at.states(later) == ["deferred"]
        assert at.message(later).attempts == 1


async def test_a_connection_from_before_a_sleep_is_not_used_again(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        await at.settled(await at.send(), "sent")
        at.scheduler.network_changed(SLEPT)

        async def closed() -> bool:
            return not at.remote.connections

        await at.until(closed)
        await at.settled(await at.send(), "sent")
        assert at.remote.logins == 2


async def test_a_connection_from_an_address_that_is_gone_is_not_used_again(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        await at.settled(await at.send(), "sent")
        at.scheduler.network_changed(Change(removed_addresses=frozenset({"192.0.2.1"})))
        await at.settled(await at.send(), "sent")
        assert at.remote.logins == 1
        at.scheduler.network_changed(Change(removed_addresses=frozenset({"127.0.0.1"})))
        await at.settled(await at.send(), "sent")
        assert at.remote.logins == 2


@pytest.mark.parametrize(("young", "logins"), [(3600.0, 1), (-1.0, 2)])
async def test_a_connection_made_while_the_network_settles_stays_and_one_from_before_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, young: float, logins: int
) -> None:
    monkeypatch.setattr(dial_policy, "SETTLING_TIME", young)

    async with running_relay(tmp_path) as at:
        await at.settled(await at.send(), "sent")
        at.scheduler.network_changed(OPENS)
        await at.settled(await at.send(), "sent")
        assert at.remote.logins == logins


@pytest.mark.parametrize("extensions", [(), (b"PIPELINING",)])
async def test_what_is_under_way_on_a_connection_that_lives_ends_there_and_what_comes_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extensions: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(dial_policy, "RESPONSE_WAIT", 0.8)

    async with running_relay(tmp_path) as at, wired(at) as wire:
        at.remote.extensions = extensions
        at.remote.policy = held = HeldContent()
        slow = await at.send()
        await held.reached.wait()
        at.scheduler.network_changed(SLEPT)
        other = await at.send()
        # Only keepalive requests go there now. A connection that says nothing at all would live for three of them.
        asked = wire.requests
        await at.until(lambda: wire.requests > asked + 5)
        assert await at.states(slow) == ["active"]
        held.go_on.set()
        await at.settled(slow, "sent")
        await at.settled(other, "sent")
        assert at.remote.logins == 2
        assert len(at.remote.received) == 2
        assert not await uncertain(at, slow)


async def test_a_conversation_that_is_done_takes_nothing_more_from_before_while_another_one_goes_on(
    tmp_path: Path,
) -> None:
    async with running_relay(tmp_path) as at:
        at.remote.extensions = ()
        reached: list[asyncio.Event] = []
        left = asyncio.Event()

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            if verb == "CONTENT" and len(reached) < 2:
                reached.append(go_on := asyncio.Event())
                await go_on.wait()
            if verb == "QUIT":
                left.set()
            return None

        async def both() -> bool:
            return len(reached) == 2

        at.remote.policy = policy
        under_way = [await at.send(), await at.send()]
        await at.until(both)
        at.scheduler.network_changed(SLEPT)
        other = await at.send()
        reached[0].set()

        async def one_is_sent() -> bool:
            return "sent" in {state for key in under_way for state in await at.states(key)}

        await at.until(one_is_sent)
        # The conversation that is done has asked for more before.
        await left.wait()
        assert await at.states(other) == ["queued"]
        reached[1].set()
        await at.settled(other, "sent")
        assert at.remote.logins == 2


@pytest.mark.parametrize(("verb", "twice"), [("MAIL", False), ("CONTENT", True)])
async def test_what_was_under_way_on_a_connection_that_died_is_sent_at_once_and_uncertain_only_after_the_dot(
    tmp_path: Path, verb: str, twice: bool
) -> None:
    async with running_relay(tmp_path) as at, wired(at) as wire:

        async def policy(heard: str, _argument: bytes) -> bytes | None:
            if heard == verb and not wire.is_cut:
                wire.cut()
                at.scheduler.network_changed(SLEPT)
            return None

        at.remote.policy = policy
        key = await at.send()
        await at.settled(key, "sent")
        assert at.remote.logins == 2
        assert await uncertain(at, key) is twice


async def test_a_refused_login_is_not_tried_again_for_a_network_that_comes_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial_policy, "EARLY_DIAL_WAIT", 0.0)

    network = Network()
    async with running_relay(tmp_path, dial=network.dial) as at:
        at.remote.refuse_key = True
        await at.send()
        assert await at.failure() is Cause.AUTH_REFUSED
        for _ in range(3):
            at.scheduler.network_changed(OPENS)
            message = letter(at=time.time())
            watch = at.scheduler.waiters.open(message.queue_id)
            at.scheduler.message_arrived(await at.spool.accept(message))
            assert isinstance(await watch.result, Queued)
        assert network.dials == 1


NOW = 1_700_000_000.0


class Spool:
    """Knows of one failure, which keeps the way shut for another hour."""

    def __init__(self, cause: Cause) -> None:
        self._failure = RelayhostFailure(3, NOW + 3600.0, cause, "")

    async def relayhost_failure(self, _name: str) -> RelayhostFailure:
        return self._failure


@pytest.mark.parametrize(
    ("cause", "changed", "pause"),
    [
        (Cause.UNREACHABLE, False, 3600.0),
        (Cause.UNREACHABLE, True, 0.0),
        (Cause.LOST, True, 0.0),
        (Cause.SSH_REFUSED, True, dial_policy.EARLY_DIAL_WAIT),
        (Cause.HOST_KEY_CHANGED, False, 3600.0),
        (Cause.HOST_KEY_CHANGED, True, dial_policy.PENALTY_SCHEDULE[0]),
        (Cause.AUTH_REFUSED, True, dial_policy.PENALTY_SCHEDULE[0]),
    ],
)
async def test_how_long_a_dial_that_has_just_failed_keeps_another_one_away(
    cause: Cause, changed: bool, pause: float
) -> None:
    async def fail(_relayhost: Relayhost) -> Connection:
        raise Fault(Outcome(Stage.DIAL, cause=cause))

    way = connector.Connector(
        Relayhost(name="default", ssh="remote", ssh_config=Path("/nonexistent")),
        Spool(cause),  # type: ignore[arg-type]
        fail,
        RetryPolicy((3600.0,), 432_000.0, lambda *_: ()),
        lambda _work: None,
        lambda: None,
        lambda: None,
        lambda: NOW,
    )
    with pytest.raises(Fault):
        await way.open()
    await way.fault.read()
    if changed:
        way.network_changed(OPENS)
    assert pause - 1.0 < way.pause(has_new_mail=False) <= pause
