"""A long queue: how many conversations it gets, from which remote, and what the spool is asked for it."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from harness.messages import letter
from harness.relay import RelayHarness, running_relay

from mailrelay.demo.mailserver import EXTENSIONS
from mailrelay.mail.completion import Completion
from mailrelay.relay.claims import PORTION
from mailrelay.spool.database import connect


@asynccontextmanager
async def waiting(
    tmp_path: Path, messages: int, *, channels: int = 8, backlog_channels: int = 40
) -> AsyncIterator[RelayHarness]:
    """So many messages wait in the spool, and the scheduler knows nothing of them until it is rung."""
    async with running_relay(tmp_path, channels=channels, backlog_channels=backlog_channels) as at:
        # The scheduler's own first looks find nothing.
        await at.looked_again()
        for _ in range(messages):
            await at.spool.accept(letter(at=time.time()))
        yield at


async def test_a_short_queue_is_no_reason_for_a_second_conversation(tmp_path: Path) -> None:
    async with waiting(tmp_path, 1) as at:
        at.scheduler.look_again()
        await at.remote.arrived(1)
        assert at.remote.channels == 1


async def test_a_long_queue_gets_more_conversations_than_others_with_a_remote_without_chunking(tmp_path: Path) -> None:
    async with waiting(tmp_path, 100) as at:
        all_are_open = asyncio.Event()

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            if verb == "MAIL":
                if at.remote.channels >= 20:
                    all_are_open.set()
                await all_are_open.wait()
            return None

        at.remote.policy = policy
        at.scheduler.look_again()
        await at.remote.arrived(100)
        assert 20 <= at.remote.channels <= 40


async def test_a_remote_with_chunking_is_asked_for_no_more_conversations_than_the_settings_say(tmp_path: Path) -> None:
    async with waiting(tmp_path, 150, channels=3) as at:
        at.remote.extensions = (*EXTENSIONS, b"CHUNKING")
        at.scheduler.look_again()
        await at.remote.arrived(150)
        assert at.remote.channels == 3


async def test_a_remote_that_allows_few_connections_gets_all_mail_through_those_and_none_is_told_of(
    tmp_path: Path,
) -> None:
    async with waiting(tmp_path, 60) as at:
        greeted = 0
        all_refused = asyncio.Event()

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            nonlocal greeted
            if verb == "GREETING":
                greeted += 1
                # Those that it refuses are refused at once, the others wait: no order may matter.
                if greeted == 8:
                    all_refused.set()
                if greeted > 3:
                    return b"421 4.7.0 too many connections"
                await all_refused.wait()
            return None

        at.remote.policy = policy
        at.scheduler.look_again()
        await at.remote.arrived(60)
        assert await at.spool.relayhost_failure("default") is None
        assert at.remote.logins == 1
        assert at.remote.channels == 8, "what was refused is not asked for again"


async def test_new_mail_for_a_way_that_is_shut_costs_no_look_into_the_spool(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        at.remote.refuse_key = True
        await at.send()
        await at.failure()
        looks = 0
        next_due = at.spool.next_due

        async def counted(relayhost: str, others: Sequence[str] = ()) -> float | None:
            nonlocal looks
            looks += 1
            return await next_due(relayhost, others)

        at.spool.next_due = counted  # type: ignore[method-assign]
        # Rung once, and answered: from here on the scheduler sleeps.
        at.scheduler.look_again()
        await at.until(lambda: looks > 0)
        for _ in range(20):
            await at.send()
        assert looks <= 2


async def test_messages_that_are_asked_for_together_cost_one_commit(tmp_path: Path) -> None:
    async with waiting(tmp_path, 40) as at:
        takes: list[int] = []
        take = at.spool.take

        async def counted(
            relayhost: str, first: list[int], limit: int, more: int, completion: Completion, others: Sequence[str]
        ) -> list[object]:
            found = await take(relayhost, first, limit, more, completion, others)
            takes.append(len(found))
            return list(found)

        at.spool.take = counted  # type: ignore[method-assign,assignment]
        asked = [asyncio.ensure_future(at.scheduler.next_messages(limit)) for limit in (1, 5, 2 * PORTION, 1, PORTION)]
        portions = await asyncio.gather(*asked)
        assert [len(portion) for portion in portions] == [1, 5, PORTION, 1, PORTION]
        assert takes == [1 + 5 + PORTION + 1 + PORTION]
        jobs = [job for portion in portions for job in portion]
        assert len({job.queue_id for job in jobs}) == len(jobs)
        for job in jobs:
            job.give_back()
        await at.remote.arrived(40)


async def test_new_mail_leaves_at_once_though_others_were_taken_in_one_portion_before_it(tmp_path: Path) -> None:
    async with running_relay(tmp_path, linger=0.05, channels=1) as at:
        at.remote.extensions = (*EXTENSIONS, b"CHUNKING")
        for key in [await at.send() for _ in range(40)]:
            await at.settled(key, "sent")
        await at.until(lambda: not at.scheduler.is_connected)
        await at.settled(await at.send(), "sent")


async def test_what_has_not_left_when_the_scheduler_stops_was_not_begun(tmp_path: Path) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        at.remote.extensions = (*EXTENSIONS, b"CHUNKING")
        # From now on the mail server is proven: content is sent ahead.
        await at.settled(await at.send(), "sent")
        pieces = at.spool.pieces
        is_stuck = asyncio.Event()
        asked: list[int] = []

        async def stuck_at_the_fourth(message: int) -> AsyncGenerator[bytes, None]:
            asked.append(message)
            if len(asked) == 4:
                is_stuck.set()
                await asyncio.Event().wait()
            async for piece in pieces(message):
                yield piece

        at.spool.pieces = stuck_at_the_fourth  # type: ignore[method-assign]
        for _ in range(8):
            await at.spool.accept(letter(at=time.time()))
        at.scheduler.look_again()
        await is_stuck.wait()
    db = connect(at.directory)
    left = list(db.execute("SELECT attempts, next_attempt IS NOT NULL FROM message WHERE retired IS NULL"))
    # On a slow machine, messages before the fourth were sent one by one while the others were accepted.
    assert len(left) >= 5
    assert left == [(0, 1)] * len(left)
    assert len(at.remote.received) == 9 - len(left)
    db.close()
