"""Clients that send without end: they get replies, are closed in the end, and do not delay the others."""

import asyncio

import pytest
from harness.listener import Intake, connect, listener
from harness.loops import on_both_loops


@on_both_loops
@pytest.mark.parametrize("said", [b"DATA\r\none\n.\ntwo\r\n", b"x" * 5000])
async def test_a_client_that_goes_on_sending_can_read_the_last_reply(said: bytes) -> None:
    async with listener(Intake()) as listening:
        wire = await connect(listening)
        await wire.reply()
        await wire.say(b"EHLO x")
        await wire.say(b"MAIL FROM:<a@b>")
        await wire.say(b"RCPT TO:<c@d>")
        if said.startswith(b"DATA"):
            await wire.say(b"DATA")
        # More than the kernel keeps for those who do not read.
        wire.writer.write(said.removeprefix(b"DATA\r\n") + b"three\r\n" * 2_000_000)
        await wire.writer.drain()
        assert (await wire.reply()).startswith((b"550 5.6.11 ", b"500 5.5.2 "))
        assert await wire.rest() == b""
        wire.close()
        await asyncio.gather(*(connection.closed for connection in listening.connections))


async def test_a_client_that_does_not_stop_sending_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailrelay.listener.connection.LINGER", 0.05)

    async with listener(Intake()) as listening:
        wire = await connect(listening)
        await wire.begin()
        assert (await wire.say(b"one\n.\ntwo")).startswith(b"550 5.6.11 ")
        [connection] = listening.connections
        await asyncio.wait_for(connection.closed, 10)


async def test_commands_by_the_ten_thousand_at_once_are_all_answered() -> None:
    async with listener(Intake()) as listening:
        wire = await connect(listening)
        await wire.reply()
        await wire.say(b"EHLO x")
        wire.writer.write(b"MAIL\r\n" * 20_000 + b"QUIT\r\n")
        replies = (await wire.rest()).splitlines()
        assert len(replies) == 20_001
        assert {reply[:4] for reply in replies[:-1]} == {b"501 "}
        assert replies[-1].startswith(b"221 ")
