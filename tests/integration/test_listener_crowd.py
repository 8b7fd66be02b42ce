"""Many clients at once: each has its turn, and a new client can connect."""

import asyncio
from itertools import pairwise

from harness.listener import Intake, Transport, codes, connect, greeted, listener

from mailrelay.listener.submission import COMMANDS_AT_ONCE


async def portions(transport: Transport, replies: int) -> list[int]:
    """How many replies are written between two turns of another task, until so many have been written."""
    seen = [len(codes(b"".join(transport.written)))]
    while seen[-1] < replies:
        await asyncio.sleep(0)
        seen.append(len(codes(b"".join(transport.written))))
    return [after - before for before, after in pairwise(seen)]


async def test_a_client_that_sends_many_commands_at_once_has_its_turn_with_the_others() -> None:
    async with greeted(Intake()) as (submission, transport):
        submission.data_received(b"RSET\r\n" * 1_000)
        assert len(codes(b"".join(transport.written))) == COMMANDS_AT_ONCE
        assert not transport.is_read
        assert set(await portions(transport, 1_000)) == {COMMANDS_AT_ONCE}
        assert transport.is_read


async def test_octets_that_come_while_others_have_their_turn_do_not_give_a_client_a_second_one() -> None:
    async with greeted(Intake()) as (submission, transport):
        for _ in range(4):
            submission.data_received(b"RSET\r\n" * 250)
        assert set(await portions(transport, 1_000)) == {COMMANDS_AT_ONCE}


async def test_a_client_that_reads_nothing_is_not_served_beyond_what_the_kernel_keeps_for_it() -> None:
    async with listener(Intake()) as listening:
        greedy = await connect(listening)
        await greedy.reply()
        await greedy.say(b"EHLO x")
        greedy.reader._transport.pause_reading()  # type: ignore[attr-defined]
        greedy.writer.write(b"RSET\r\n" * 500_000)
        [connection] = listening.connections
        while connection._drained is None:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        honest = await connect(listening)
        assert (await honest.send(b"hi\r\n")).startswith(b"250 ")


async def test_idle_connections_leave_room_for_an_honest_client() -> None:
    async with listener(Intake(), max_connections=20) as listening:
        idle = [await connect(listening) for _ in range(20)]
        for wire in idle:
            assert (await wire.reply()).startswith(b"220 ")
        for _ in range(30):
            honest = await connect(listening)
            assert (await honest.send(b"hi\r\n")).startswith(b"250 ")
        assert len([one for one in listening.connections if not one.is_over]) <= 22


async def test_many_contents_at_once_leave_room_for_an_honest_client() -> None:
    async with listener(Intake(), max_connections=10) as listening:
        for _ in range(10):
            await (await connect(listening)).begin()
        assert (await (await connect(listening)).send(b"hi\r\n")).startswith(b"250 ")


async def test_clients_that_do_not_stop_sending_after_their_refusal_do_not_pile_up() -> None:
    async with listener(Intake(), max_connections=4) as listening:
        for _ in range(8):
            wire = await connect(listening)
            await wire.begin()
            # Refused, and the connection stays for a while, so that the reply can be read.
            assert (await wire.say(b"one\n.\ntwo")).startswith(b"550 ")
        assert [one.is_over for one in listening.connections] == [True] * 8
        assert (await (await connect(listening)).rest()).startswith(b"421 4.7.0 ")
