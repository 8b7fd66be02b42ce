"""A message that is being sent is cancelled: before the end of its content nothing arrives, after it nothing changes."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from harness.command import person_of, run
from harness.daemon import served, settings
from harness.loops import on_both_loops
from harness.relay import HeldContent, RelayHarness, running_relay
from harness.waiting import until
from harness.wire import wired

from mailrelay import cancelling
from mailrelay.control import progress
from mailrelay.control.daemon import wake
from mailrelay.demo.remote import Remote
from mailrelay.mail.sending import Stop
from mailrelay.relay import scheduler
from mailrelay.spool import stopping

LARGE = b"x" * 998 + b"\r\n"
SIZE = 6000
"""Lines of a large content: more than all buffers on the way hold."""


class HeldReply:
    """The policy of a mail server that does not reply to the `count`th command of a kind until `go_on` is set."""

    def __init__(self, verb: str, count: int = 1) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self._verb = verb
        self._left = count

    async def __call__(self, verb: str, _argument: bytes) -> bytes | None:
        self._left -= verb == self._verb
        if verb == self._verb and self._left == 0:
            self.reached.set()
            await self.go_on.wait()
        return None


@pytest.fixture(params=["DATA", "BDAT"])
def extensions(request: pytest.FixtureRequest) -> tuple[bytes, ...]:
    return (b"CHUNKING",) if request.param == "BDAT" else ()


def offer(at: RelayHarness, extensions: tuple[bytes, ...]) -> None:
    at.remote.extensions = (*at.remote.extensions, *extensions)


def octets(at: RelayHarness) -> int:
    found = at.scheduler.sending()
    return found[0].octets if found else 0


async def is_cancelled(at: RelayHarness, key: int) -> bool:
    message = at.message(key)
    return [to.state for to in message.recipients] == ["cancelled"] and not at.open_attempts() and not message.attempts


async def one_behind_another(at: RelayHarness) -> tuple[HeldContent, int, int]:
    """A message whose content is with the mail server, which does not reply, and one behind it in the same conversation."""
    await at.settled(await at.send(), "sent")
    at.remote.policy = held = HeldContent()
    first = await at.send()
    await held.reached.wait()
    second = await at.send()
    # The scheduler knows an attempt a moment later than the spool.
    await at.until(lambda: at.open_attempts() == 2 and second in at.scheduler._jobs)
    return held, first, second


async def arrived_besides(at: RelayHarness, *kept: int) -> list[bytes]:
    """Sends one more message, and returns what arrived up to then, but for it."""
    await at.settled(await at.send(content=b"the last one\r\n"), "sent")
    for key in kept:
        assert await at.states(key) == ["sent"]
    return [one.content for one in at.remote.received if b"the last one" not in one.content]


@on_both_loops
async def test_a_large_message_on_a_slow_line_is_stopped_and_nothing_arrives(
    tmp_path: Path, extensions: tuple[bytes, ...]
) -> None:
    async with running_relay(tmp_path) as at, wired(at) as wire:
        offer(at, extensions)
        await at.settled(await at.send(), "sent")
        wire.is_open.clear()
        key = await at.send(content=LARGE * SIZE)
        waiter = at.scheduler.waiters.open(at.message(key).queue_id)
        wire.is_open.set()
        await at.until(lambda: octets(at) > 0)
        wire.is_open.clear()
        (sending,) = at.scheduler.sending()
        assert (sending.queue_id, sending.relayhost) == (at.message(key).queue_id, "default")
        assert 0 < sending.octets < sending.size == at.message(key).size
        cancelling = asyncio.ensure_future(at.scheduler.cancel(key))
        assert await cancelling is Stop.CANCELLED
        assert await is_cancelled(at, key)
        assert not waiter.result.done() or "cancelled" in str(waiter.result.result())
        assert at.scheduler.sending() == []
        wire.is_open.set()
        assert len(await arrived_besides(at)) == 1


async def test_octets_on_a_slow_line_grow_to_the_end_and_never_shrink(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at, wired(at) as wire:
        key = await at.send(content=LARGE * SIZE)
        seen = [0]

        def has_grown() -> bool:
            wire.is_open.set() if not wire.is_open.is_set() else wire.is_open.clear()
            if (now := octets(at)) != seen[-1]:
                seen.append(now)
            return "sent" in [to.state for to in at.message(key).recipients]

        await at.until(has_grown)
        while seen[-1] == 0:
            seen.pop()
        assert seen == sorted(seen)
        assert len(seen) > 3
        assert at.scheduler.sending() == []


@on_both_loops
async def test_after_the_end_of_the_content_nothing_can_be_stopped(
    tmp_path: Path, extensions: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is known at once.
    monkeypatch.setattr(scheduler, "STOP_WAIT", 3600.0)
    async with running_relay(tmp_path) as at:
        offer(at, extensions)
        at.remote.policy = held = HeldContent()
        key = await at.send()
        await held.reached.wait()
        assert await at.scheduler.cancel(key) is Stop.TOO_LATE
        (sending,) = at.scheduler.sending()
        assert sending.octets == sending.size
        held.go_on.set()
        await at.settled(key, "sent")
        assert await at.scheduler.cancel(key) is Stop.NOT_SENDING


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_a_message_is_stopped_before_its_content(tmp_path: Path, verb: str) -> None:
    async with running_relay(tmp_path) as at:
        at.remote.policy = held = HeldReply(verb)
        key = await at.send()
        await held.reached.wait()
        assert await at.scheduler.cancel(key) is Stop.CANCELLED
        assert await is_cancelled(at, key)
        held.go_on.set()
        assert await arrived_besides(at) == []


async def test_the_reply_to_another_message_of_the_conversation_is_read_before_it_ends(tmp_path: Path) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        held, first, second = await one_behind_another(at)
        cancelling = asyncio.ensure_future(at.scheduler.cancel(second))
        await asyncio.sleep(0)
        assert not cancelling.done()
        held.go_on.set()
        assert await cancelling is Stop.CANCELLED
        assert await is_cancelled(at, second)
        assert len(await arrived_besides(at, first)) == 2
        assert [to.uncertain for to in at.message(first).recipients] == [None]


async def test_a_message_that_cannot_be_stopped_in_time_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "STOP_WAIT", 0.01)
    async with running_relay(tmp_path, channels=1) as at:
        held, first, second = await one_behind_another(at)
        assert await at.scheduler.cancel(second) is Stop.TOO_LATE
        held.go_on.set()
        await at.settled(second, "sent")
        assert await at.states(first) == ["sent"]


async def test_the_others_that_were_claimed_with_it_are_sent(tmp_path: Path, extensions: tuple[bytes, ...]) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        offer(at, extensions)
        at.remote.policy = held = HeldReply("RCPT")
        keys = [await at.send() for _ in range(5)]
        await held.reached.wait()
        stopped = [key for key in keys if await at.scheduler.cancel(key) is Stop.CANCELLED]
        held.go_on.set()
        for key in keys:
            await at.settled(key, "cancelled" if key in stopped else "sent")
        assert len(at.remote.received) == len(keys) - len(stopped)


async def test_a_lost_connection_does_not_send_what_is_to_be_cancelled(tmp_path: Path) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        _, first, second = await one_behind_another(at)
        cancelling = asyncio.ensure_future(at.scheduler.cancel(second))
        await asyncio.sleep(0)
        for connection in list(at.remote.connections):
            connection.abort()
        assert await cancelling is Stop.CANCELLED
        assert await is_cancelled(at, second)
        assert await at.states(first) != ["cancelled"]


async def test_the_command_says_cancelled_and_the_mail_server_gets_nothing(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        person = person_of(remote)
        async with served(settings(tmp_path, remote.relayhost("default"))):
            for queue_id in ("aaaa000001", "aaaa000002"):
                remote.policy = held = HeldReply("RCPT")
                person.put(queue_id)
                wake(person.spool)
                await held.reached.wait()
                words = [queue_id] if queue_id.endswith("1") else ["--all"]
                done = await run(person, "queue", "cancel", *words)
                assert (done.status, done.err) == (0, "")
                assert f"{queue_id} is cancelled" in done.out
                assert await asyncio.to_thread(progress.sending, person.spool) == []
                held.go_on.set()
            person.put("aaaa000003")
            remote.policy = late = HeldContent()
            wake(person.spool)
            await late.reached.wait()
            (sending,) = await asyncio.to_thread(progress.sending, person.spool)
            assert (sending.queue_id, sending.octets, sending.left) == ("aaaa000003", sending.size, 0.0)
            done = await run(person, "queue", "cancel", "aaaa000003")
            assert (done.status, done.out) == (1, "")
            assert "aaaa000003 is being sent at this moment" in done.err
            late.go_on.set()
            await remote.arrived(1)
        assert len(remote.received) == 1


async def test_the_socket_answers_nonsense_with_nothing_and_goes_on(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote, served(settings(tmp_path, remote.relayhost("default"))):
        spool = tmp_path / "spool"
        for line in (b"", b"\n", b"-1\n", b"9" * 40, b"\xff\n", b"1e3\n", "²\n".encode(), b"9223372036854775808\n"):
            reader, writer = await asyncio.open_unix_connection(spool / stopping.FILE)
            writer.write(line)
            writer.write_eof()
            # A line that is too long is not read to its end, so that the kernel resets the connection.
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        assert await asyncio.to_thread(stopping.ask, spool, 2**63 - 1, 10.0) is Stop.NOT_SENDING
    assert stopping.ask(spool, 1, 10.0) is None


async def test_the_socket_is_made_again_when_it_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cancelling, "RETRY", 0.05)
    async with Remote(tmp_path) as remote, served(settings(tmp_path, remote.relayhost("default"))):
        file = tmp_path / "spool" / stopping.FILE
        await until(file.is_socket)
        file.unlink()
        await until(file.is_socket)
        assert await asyncio.to_thread(stopping.ask, file.parent, 1, 10.0) is Stop.NOT_SENDING
    assert f"the socket {file} was removed, and is made again" in caplog.messages
