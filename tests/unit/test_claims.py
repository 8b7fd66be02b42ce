"""Conversations that ask for mail: each gets what was claimed for it, or the spool gets it back."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import cast

import pytest

from mailrelay.mail.completion import NOTHING_KNOWN, Completion
from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.spool_errors import SpoolError
from mailrelay.ports import RelayPort
from mailrelay.relay.claims import Claims
from mailrelay.relay.results import Results


def message(key: int) -> Message:
    return Message(key, f"id{key}", "default", Envelope(b"", (Recipient(b"b@example.net"),)), (key,), 100, 0.0, 0)


class Spool:
    """Gives what `found` has for each call, which waits until `go_on` is set. asked: the arguments of each call."""

    def __init__(self, *found: Sequence[Message] | Exception) -> None:
        self.asked: list[tuple[tuple[int, ...], int, int]] = []
        self.is_asked, self.go_on = asyncio.Event(), asyncio.Event()
        self._found = list(found)

    async def take(
        self,
        relayhost: str,
        first: Sequence[int],
        limit: int,
        more: int = 0,
        completion: Completion = NOTHING_KNOWN,
        others: Sequence[str] = (),
    ) -> list[Message]:
        self.asked.append((tuple(first), limit, more))
        self.is_asked.set()
        await self.go_on.wait()
        found = self._found.pop(0)
        if isinstance(found, Exception):
            raise found
        return list(found)


class FakeResults:
    def __init__(self) -> None:
        self.back: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []

    def run_to_end(self, work: Coroutine[object, object, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    def put_back(self, messages: Sequence[Message]) -> None:
        self.back += [one.id for one in messages]


class Asking:
    """Claims on a spool of the test's. failed: what `Claims` has reported."""

    def __init__(self, spool: Spool, may_begin: Callable[[], bool] = lambda: True) -> None:
        self.spool = spool
        self.results = FakeResults()
        self.failed: list[Exception] = []
        self.claims = Claims(
            "default",
            cast(RelayPort, spool),
            cast(Results, self.results),
            may_begin,
            self.failed.append,
            lambda: NOTHING_KNOWN,
        )

    def ask(self, limit: int = 1) -> asyncio.Task[Sequence[Message]]:
        return asyncio.create_task(self._ask(limit))

    async def _ask(self, limit: int) -> Sequence[Message]:
        return await self.claims.ask(limit)


def keys(portion: Sequence[Message]) -> list[int]:
    return [one.id for one in portion]


async def test_all_that_ask_while_the_spool_is_busy_share_the_next_commit() -> None:
    asking = Asking(Spool([message(1)], [message(2), message(3), message(4)]))
    first = asking.ask()
    await asking.spool.is_asked.wait()
    second, third = asking.ask(), asking.ask(limit=2)
    await asyncio.sleep(0)
    assert asking.claims.asking == 3
    asking.spool.go_on.set()
    assert [keys(await one) for one in (first, second, third)] == [[1], [2], [3, 4]]
    assert asking.spool.asked == [((), 1, 0), ((), 2, 1)]
    assert (asking.claims.asking, asking.claims.claimed) == (0, 4)
    assert len(asking.results.tasks) == 1


async def test_after_the_spool_has_failed_nobody_waits_and_the_next_to_ask_is_served() -> None:
    failure = SpoolError("on purpose")
    asking = Asking(Spool(failure, [message(1)]))
    asking.spool.go_on.set()
    assert await asking.ask() == []
    assert asking.failed == [failure]
    assert keys(await asking.ask()) == [1]
    assert asking.claims.asking == 0


async def test_mail_that_has_just_arrived_is_claimed_first_and_once() -> None:
    asking = Asking(Spool([message(7), message(9)], []))
    asking.spool.go_on.set()
    asking.claims.new.update(dict.fromkeys((7, 8, 9)))
    assert keys(await asking.ask(limit=2)) == [7, 9]
    assert list(asking.claims.new) == [8]
    await asking.ask()
    assert asking.spool.asked == [((7,), 1, 1), ((8,), 1, 0)]


async def test_nothing_is_claimed_while_nothing_may_begin() -> None:
    asking = Asking(Spool(), may_begin=lambda: False)
    assert await asking.ask() == []
    assert asking.spool.asked == []


@pytest.mark.parametrize("when", ["before", "with the portion"])
async def test_mail_for_a_conversation_that_has_ended_meanwhile_is_put_back(when: str) -> None:
    asking = Asking(Spool([message(1)]))
    one = asking.ask()
    await asking.spool.is_asked.wait()
    if when == "before":
        one.cancel()
        await asyncio.wait({one})
        assert asking.claims.asking == 0
        asking.spool.go_on.set()
    else:
        asking.spool.go_on.set()
        # The portion is there, and the conversation has not run since.
        while asking.claims.claimed == 0:
            await asyncio.sleep(0)
        one.cancel()
    await asyncio.wait({one, *asking.results.tasks})
    assert one.cancelled()
    assert asking.results.back == [1]
