"""Events in random order under a scheduler: at the end no mail is lost, and nothing is left."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from harness.messages import letter
from harness.relay import OPENS, SLEPT, Network, RelayHarness, running_relay
from harness.tcp import echo, server

from mailrelay.config import Relayhost
from mailrelay.demo.mailserver import EXTENSIONS
from mailrelay.endpoint import Tcp
from mailrelay.mail.outcome import Outcome
from mailrelay.network.events import Change
from mailrelay.relay import connector, conversations, dial_policy
from mailrelay.ssh.interface import Connection

STEPS = 100
GONE = Change(removed_addresses=frozenset({"127.0.0.1"}))


class OneRoad(Network):
    """Never dialled by two at once."""

    async def dial(self, relayhost: Relayhost) -> Connection:
        assert not self._is_busy
        self._is_busy = True
        try:
            return await super().dial(relayhost)
        finally:
            self._is_busy = False

    _is_busy = False


class Storm:
    """What happens to a scene. A seed gives the order; how it falls in with the sockets differs a little each time."""

    def __init__(self, at: RelayHarness, network: Network, port: int, chance: random.Random) -> None:
        self.at = at
        self.network = network
        self.port = port
        self.chance = chance
        self.keys: list[int] = []
        self.clients: set[asyncio.Task[None]] = set()
        self.moods = 0.0
        self.limit = 99
        at.remote.policy = self.policy
        at.remote.extensions = chance.choice((EXTENSIONS, (*EXTENSIONS, b"CHUNKING"), ()))

    async def policy(self, verb: str, _argument: bytes) -> bytes | None:
        # A dialogue is a task at its channel, and one at its port.
        if verb == "GREETING" and len(self.at.remote.dialogues) > 2 * self.limit:
            return b"421 4.7.0 too many connections"
        if self.chance.random() >= self.moods:
            return None
        match self.chance.randrange(5):
            case 0:
                return b""
            case 1:
                return b"451 4.3.0 later"
            case 2:
                return None if verb == "GREETING" else b"421 4.3.2 bye"
            case 3:
                self.cut()
        # Weather, not a wait: nothing depends on how long it takes.
        await asyncio.sleep(0.03)
        return None

    def cut(self) -> None:
        for connection in list(self.at.remote.connections):
            connection.abort()

    async def send(self, count: int) -> None:
        for _ in range(count):
            content = b"number %d\r\n" % len(self.keys) + (b"x" * 998 + b"\r\n") * self.chance.choice((0, 0, 0, 100))
            self.keys.append(await self.at.spool.accept(letter(at=time.time(), content=content)))
            if self.chance.random() < 0.7:
                self.at.scheduler.message_arrived(self.keys[-1])
        self.at.scheduler.look_again()

    def come(self, client: Coroutine[Any, Any, None], *, leaves: bool) -> None:
        """A client of this scheduler, who may leave at any moment."""
        task = asyncio.ensure_future(client)
        self.clients.add(task)
        task.add_done_callback(self.clients.discard)
        if leaves:
            asyncio.get_running_loop().call_later(self.chance.random() * 0.05, task.cancel)

    async def forward(self) -> None:
        async with self.at.scheduler.stream(Tcp("localhost", self.port)) as stream:
            if isinstance(stream, Outcome):
                return
            try:
                for _ in range(2):
                    stream.write(b"a")
                    await stream.read()
                    await asyncio.sleep(self.chance.random() * 0.2)
            except OSError:
                pass
            finally:
                stream.abort()

    async def vet(self) -> None:
        await self.at.scheduler.probe_recipient(letter(at=time.time()).envelope)

    async def step(self) -> None:
        at, chance = self.at, self.chance
        things: tuple[tuple[int, Callable[[], Awaitable[object] | object]], ...] = (
            (10, lambda: self.send(1)),
            (2, lambda: self.send(chance.randrange(30))),
            (8, lambda: asyncio.sleep(chance.random() * 0.05)),
            (6, lambda: at.scheduler.network_changed(chance.choice((OPENS, SLEPT, GONE)))),
            (2, self.cut),
            (1, at.remote.mail_down),
            (1, at.remote.down),
            (4, at.remote.up),
            (3, lambda: setattr(self.network, "is_away", chance.random() < 0.3)),
            (1, lambda: setattr(at.remote, "refuse_key", chance.random() < 0.3)),
            (6, lambda: self.come(self.forward(), leaves=chance.random() < 0.3)),
            (5, lambda: self.come(self.vet(), leaves=chance.random() < 0.5)),
            (3, at.scheduler.expect_message),
            (3, lambda: setattr(self, "moods", chance.choice((0.0, 0.05, 0.5)))),
            (1, lambda: setattr(self, "limit", chance.choice((1, 3, 99)))),
        )
        ((_, thing),) = chance.choices(things, [weight for weight, _ in things])
        happening = thing()
        if isinstance(happening, Awaitable):
            await happening
        # Others run between two steps; how far they come does not matter.
        await asyncio.sleep(0)

    async def clear_up(self) -> None:
        self.moods, self.limit = 0.0, 99
        self.network.is_away = self.at.remote.refuse_key = False
        await self.at.remote.up()
        self.at.scheduler.network_changed(OPENS)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_all_mail_arrives_and_twice_only_where_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    for room, name, value in (
        (dial_policy, "EARLY_DIAL_WAIT", 0.02),
        (dial_policy, "SETTLING_SCHEDULE", (0.01, 0.02)),
        (dial_policy, "PENALTY_SCHEDULE", (0.05,)),
        (connector, "REDIAL_INTERVAL", 0.1),
        (dial_policy, "SETTLING_TIME", chance.choice((-1.0, 0.05, 10.0))),
        (connector, "DIAL_GRACE", chance.choice((0.0, 0.02, 2.0))),
        (conversations, "EXTRA_LINGER", 0.05),
    ):
        monkeypatch.setattr(room, name, value)

    network = OneRoad()
    linger = (0.0, 0.05, 30.0, float("inf"))[seed % 4]
    async with (
        server(echo) as port,
        running_relay(tmp_path, retry=0.05, linger=linger, channels=3, backlog_channels=20, dial=network.dial) as at,
    ):
        storm = Storm(at, network, port, chance)
        for _ in range(STEPS):
            await storm.step()
        await storm.clear_up()
        for key in storm.keys:
            await at.settled(key, "sent")
        async with asyncio.timeout(20):
            await asyncio.gather(*storm.clients, return_exceptions=True)

        numbers = Counter(int(one.content.split(b"number ")[1].split()[0]) for one in at.remote.received)
        for number, key in enumerate(storm.keys):
            (to,) = at.message(key).recipients
            assert numbers[number] == 1 or (numbers[number] > 1 and to.uncertain is not None), number
        assert at.open_attempts() == 0

        await at.scheduler.finish()
        await at.stop()
        await at.until(lambda: not at.remote.connections)
