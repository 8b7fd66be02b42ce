"""Many clients at once: each has its turn, and a new client can connect."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

import pytest
from harness.listener import Intake, Transport, codes, connect, greeted, listener
from harness.waiting import called

from mailrelay.listener.submission import COMMANDS_AT_ONCE, Submission


@contextmanager
def beside_another_client(transport: Transport) -> Iterator[list[int]]:
    """The numbers of replies that are written one after the other, without a turn of a client that always has a command."""
    turns: list[int | None] = []
    loop = asyncio.get_running_loop()
    write = transport.write

    def note(data: bytes) -> None:
        turns.append(len(codes(data)))
        write(data)

    def another_client() -> None:
        nonlocal ready
        turns.append(None)
        ready = loop.call_soon(another_client)

    transport.write = note  # type: ignore[method-assign,assignment]
    ready = loop.call_soon(another_client)
    portions: list[int] = []
    try:
        yield portions
    finally:
        ready.cancel()
    for is_other, turn in groupby(turns, lambda one: one is None):
        if not is_other:
            portions.append(sum(number for number in turn if number is not None))


async def test_a_client_that_sends_many_commands_at_once_has_its_turn_with_the_others() -> None:
    async with greeted(Intake()) as (submission, transport):
        with beside_another_client(transport) as portions:
            submission.data_received(b"RSET\r\n" * 1_000)
            assert len(codes(b"".join(transport.written))) == COMMANDS_AT_ONCE
            assert not transport.is_read
            await transport.until_written(1_000)
            await transport.until_read()
        assert portions == [COMMANDS_AT_ONCE] * (1_000 // COMMANDS_AT_ONCE)


async def test_octets_that_come_while_others_have_their_turn_do_not_give_a_client_a_second_one() -> None:
    async with greeted(Intake()) as (submission, transport):
        with beside_another_client(transport) as portions:
            for _ in range(4):
                submission.data_received(b"RSET\r\n" * 250)
            await transport.until_written(1_000)
        # The first turn is that of the octets themselves.
        assert set(portions[1:]) == {COMMANDS_AT_ONCE}
        assert sum(portions) == 1_000


async def test_a_client_that_reads_nothing_is_not_served_beyond_what_the_kernel_keeps_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_full = called(monkeypatch, Submission, "pause_writing")
    async with listener(Intake()) as listening:
        greedy = await connect(listening)
        await greedy.reply()
        await greedy.say(b"EHLO x")
        greedy.writer.transport.pause_reading()  # type: ignore[attr-defined]
        greedy.writer.write(b"RSET\r\n" * 500_000)
        [connection] = listening.connections
        await is_full.wait()
        honest = await connect(listening)
        assert (await honest.send(b"hi\r\n")).startswith(b"250 ")
        waiting = connection.transport.get_write_buffer_size()  # type: ignore[attr-defined]
        assert waiting <= COMMANDS_AT_ONCE * len(b"250 2.0.0 flushed\r\n")


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
