"""Clients that close at a bad moment, and a listener that stops: commits finish, `told` is called once for each reply."""

import asyncio

import pytest
from harness.listener import Intake, Wire, connect, listener
from harness.loops import on_both_loops
from harness.waiting import called

from mailrelay.listener.submission import Submission
from mailrelay.mail.outcome import Reply


def slow_intake() -> tuple[Intake, asyncio.Event]:
    intake = Intake()
    gate = asyncio.Event()
    intake.before_answer = gate.wait
    return intake, gate


@on_both_loops
@pytest.mark.parametrize("leave", ["half-close", "close", "reset"])
async def test_a_client_that_closes_before_the_reply_does_not_stop_the_commit_and_was_not_told(
    leave: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake, gate = slow_intake()
    seen_leaving = called(monkeypatch, Submission, "eof_received", "connection_lost")
    intake.reply = Reply(550, (b"5.1.1 no such user",))
    async with listener(intake) as listening:
        wire = await connect(listening)
        await wire.begin()
        wire.writer.write(b"hi\r\n.\r\n")
        await intake.arrived.wait()
        if leave == "half-close":
            wire.writer.write_eof()
        elif leave == "close":
            wire.close()
        else:
            wire.writer.transport.abort()
        await seen_leaving.wait()
        gate.set()
        assert await asyncio.wait_for(intake.told.get(), 10) is False
        assert len(intake.committed) == 1
        if leave == "half-close":
            # It may still be listening, so it is answered all the same.
            assert await wire.rest() == b"550 5.1.1 no such user\r\n"
    assert intake.told.empty()


@on_both_loops
async def test_a_client_that_leaves_in_the_middle_of_a_content_has_sent_nothing() -> None:
    intake = Intake()
    async with listener(intake) as listening:
        for leave in (Wire.close, lambda wire: wire.writer.write_eof(), lambda wire: wire.writer.transport.abort()):
            wire = await connect(listening)
            await wire.begin()
            wire.writer.write(b"half a mess")
            await wire.writer.drain()
            leave(wire)
            assert await wire.rest() == b""
        assert (await (await connect(listening)).send(b"whole\r\n")).startswith(b"250 ")
    assert [content for _, content in intake.committed] == [b"whole\r\n"]


@on_both_loops
async def test_commands_received_before_a_client_closed_its_side_are_run() -> None:
    intake = Intake()
    async with listener(intake) as listening:
        wire = await connect(listening)
        await wire.begin()
        wire.writer.write(b"hi\r\n.\r\nQUIT\r\n")
        wire.writer.write_eof()
        assert (await wire.rest()).splitlines() == [b"250 2.0.0 queued", b"221 2.0.0 bye"]
        await intake.told.get()
    assert len(intake.committed) == 1


@on_both_loops
async def test_a_client_that_stays_is_told() -> None:
    intake = Intake()
    async with listener(intake) as listening:
        await (await connect(listening)).send(b"hi\r\n")
        assert await intake.told.get() is True
    assert intake.told.empty()


@on_both_loops
async def test_stopping_waits_for_the_reply_to_a_content_and_closes_idle_connections() -> None:
    intake, gate = slow_intake()
    async with listener(intake) as listening:
        idle = await connect(listening)
        await idle.reply()
        sending, waiting = await connect(listening), await connect(listening)
        await sending.begin()
        await waiting.begin()
        waiting.writer.write(b"hi\r\n.\r\n")
        await intake.arrived.wait()
        closing = asyncio.create_task(listening.close())
        assert (await idle.rest()).startswith(b"421 4.3.2 ")
        with pytest.raises(ConnectionError):
            await connect(listening)
        gate.set()
        assert (await waiting.rest()).splitlines()[0] == b"250 2.0.0 queued"
        sending.writer.write(b"hi\r\n.\r\n")
        lines = (await sending.rest()).splitlines()
        assert lines[0] == b"250 2.0.0 queued"
        assert lines[1].startswith(b"421 4.3.2 ")
        await closing
    assert len(intake.committed) == 2


@on_both_loops
async def test_stopping_does_not_wait_for_ever() -> None:
    intake, _gate = slow_intake()
    async with listener(intake) as listening:
        wire = await connect(listening)
        await wire.begin()
        wire.writer.write(b"hi\r\n.\r\n")
        await intake.arrived.wait()
        half = await connect(listening)
        await half.begin()
        await listening.close(grace=0.01)
        assert await wire.rest() == b""
        assert await half.rest() == b""
    assert len(asyncio.all_tasks()) == 1
    assert intake.committed == []


async def test_a_listener_is_busy_while_a_client_is_connected() -> None:
    async with listener(Intake()) as listening:
        assert not listening.is_busy
        wire = await connect(listening)
        await wire.begin()
        assert listening.is_busy
        [connection] = listening.connections
        wire.close()
        await asyncio.wait_for(asyncio.shield(connection.closed), 10)
        assert not listening.is_busy
        assert listening.accepted == 1
