"""Large contents: they are staged while they are received, need little memory, and leave nothing behind."""

import asyncio
import logging

import pytest
from harness.listener import GROUP, Clock, Intake, Wire, codes, connect, greeted, listener
from harness.loops import on_uvloop

from mailrelay.listener.reception import PIECE
from mailrelay.listener.submission import MAX_IDLE
from mailrelay.mail.outcome import Reply

HEADER = b"Subject: large\r\n\r\n"
LINE = b"x" * 74 + b"\r\n"
LARGE = HEADER + LINE * 10_000
NO_ROOM = Reply(452, (b"4.3.1 the spool is full",))


@on_uvloop
async def test_a_large_content_comes_in_pieces_and_is_the_clients_octet_for_octet() -> None:
    intake = Intake()
    content = HEADER + (b".dots\r\n..\r\n" + LINE) * 5_000

    async with listener(intake) as listening:
        wire = await connect(listening)
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        assert (await wire.send(stuffed)).startswith(b"250 ")
        assert (await wire.say(b"NOOP")).startswith(b"250 ")
    [incoming] = intake.in_pieces
    assert [content for _, content in intake.committed] == [content]
    assert len(incoming.pieces) > 2
    assert incoming.pieces[0].startswith(HEADER)
    assert max(map(len, incoming.pieces)) <= PIECE
    assert not incoming.is_abandoned


async def test_a_small_content_is_handed_over_whole() -> None:
    intake = Intake()

    async with listener(intake) as listening:
        await (await connect(listening)).send(HEADER + LINE * 700)
    assert intake.in_pieces == []
    assert len(intake.committed) == 1


async def test_the_first_piece_holds_the_whole_header() -> None:
    intake = Intake()
    header = b"Subject: large\r\n" + b"X-Filler: x\r\n" * 10_000 + b"\r\n"

    async with listener(intake) as listening:
        await (await connect(listening)).send(header + LINE * 3_000)
    assert intake.in_pieces[0].pieces[0].startswith(header)


async def test_a_header_without_end_is_not_waited_for() -> None:
    intake = Intake()
    content = b"X-Filler: x\r\n" * 50_000

    async with listener(intake) as listening:
        await (await connect(listening)).send(content)
    assert intake.in_pieces[0].pieces
    assert intake.committed[0][1] == content


async def test_a_client_is_not_read_while_the_disk_is_slower_than_it() -> None:
    intake, gate = Intake(), asyncio.Event()
    intake.before_piece = gate.wait

    async with greeted(intake) as (submission, transport):
        submission.data_received(GROUP)
        transport.written.clear()
        submission.data_received(HEADER)
        sent = 0
        while transport.is_read:
            submission.data_received(LINE * 500)
            sent += len(LINE) * 500
        assert PIECE < sent <= 4 * PIECE
        await intake.piece_begun.wait()
        assert not transport.is_read
        gate.set()
        await transport.until_read()
        submission.data_received(b".\r\n")
        await transport.until_written(1)
        assert codes(b"".join(transport.written)) == [b"250"]
        assert len(intake.committed[0][1]) == sent + len(HEADER)


async def refused(wire: Wire, content: bytes) -> bytes:
    """Sends all of a content, whatever happens meanwhile; the reply to it."""
    await wire.begin()
    wire.writer.write(content)
    await wire.writer.drain()
    return await wire.say(b".")


@pytest.mark.parametrize(
    ("content", "settings", "reply"),
    [
        (LARGE, {"max_message_size": 500_000}, b"552 5.3.4 the message is larger than 500 kB"),
        (LARGE + b"bare\nline\r\n", {}, b"550 5.6.11 "),
        (LARGE + b"nul\0\r\n", {}, b"550 5.6.0 "),
    ],
)
async def test_a_large_content_that_is_refused_in_the_end_leaves_nothing_behind(
    content: bytes, settings: dict[str, int], reply: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    intake = Intake()

    async with listener(intake, **settings) as listening:
        assert (await refused(await connect(listening), content)).startswith(reply)
    assert intake.committed == []
    assert [incoming.is_abandoned for incoming in intake.in_pieces] == [True]
    [line] = caplog.messages
    assert line.startswith("NOQUEUE from=<me@example.org> command=content ")
    assert reply.split()[0].decode() in line


async def test_if_the_spool_is_full_the_content_is_read_to_its_end_and_the_client_gets_the_refusal() -> None:
    intake = Intake()
    intake.piece_refusal = NO_ROOM

    async with listener(intake) as listening:
        wire = await connect(listening)
        assert (await refused(wire, LARGE)).startswith(b"452 4.3.1 the spool is full")
        intake.piece_refusal = None
        assert (await wire.say(b"MAIL FROM:<a@b>")).startswith(b"250 ")
    assert intake.in_pieces[0].is_abandoned


async def test_an_internal_error_during_a_content_is_a_451() -> None:
    intake = Intake()

    async def fail() -> None:
        raise RuntimeError("secret")

    intake.before_piece = fail

    async with listener(intake) as listening:
        reply = await refused(await connect(listening), LARGE)
        assert reply.startswith(b"451 4.3.0 ")
        assert b"secret" not in reply
    assert intake.in_pieces[0].is_abandoned


@pytest.mark.parametrize("is_staging", [True, False])
async def test_a_client_that_closes_during_a_content_leaves_nothing_staged_and_is_logged(
    is_staging: bool, caplog: pytest.LogCaptureFixture
) -> None:
    intake, gate = Intake(), asyncio.Event()
    if is_staging:
        intake.before_piece = gate.wait

    async with listener(intake) as listening:
        wire = await connect(listening)
        await wire.begin()
        wire.writer.write(HEADER + LINE * 1_000)
        await (intake.piece_begun if is_staging else intake.piece_added).wait()
        [connection] = listening.connections
        wire.close()
        await connection.closed
        assert not (is_staging and intake.in_pieces[0].is_abandoned)
        gate.set()
        await intake.abandoned.wait()
    assert intake.committed == []
    [line] = caplog.messages
    assert line.startswith("NOQUEUE from=<me@example.org> command=content status=broken-off (the client has gone; ")


async def test_a_stop_in_the_middle_of_a_content_removes_what_had_come(caplog: pytest.LogCaptureFixture) -> None:
    intake = Intake()

    with caplog.at_level(logging.WARNING):
        async with listener(intake) as listening:
            wire = await connect(listening)
            await wire.begin()
            wire.writer.write(HEADER + LINE * 1_000)
            await intake.piece_added.wait()
            await listening.close(grace=0.0)
    assert intake.in_pieces[0].is_abandoned
    assert "status=broken-off (mailrelay is stopping; " in caplog.text


async def paced(octets: int, intake: Intake) -> bytes:
    """A client that sends so many octets of a content in each of 600 seconds; what it has been told behind the 354."""
    async with greeted(intake) as (submission, transport):
        clock = submission.loop = Clock(submission.loop)  # type: ignore[assignment]
        submission.data_received(GROUP)
        transport.written.clear()
        for _ in range(600):
            clock.now += 1
            submission.data_received(b"x" * octets)
            submission.check_timeouts(clock.now)
            if transport.is_closed:
                break
        else:
            submission.data_received(b"\r\n.\r\n")
            await transport.until_written(1)
    return b"".join(transport.written)


async def test_a_content_that_comes_too_slowly_ends_with_421(caplog: pytest.LogCaptureFixture) -> None:
    intake = Intake()
    assert (await paced(99, intake)).startswith(b"421 4.4.2 ")
    assert intake.committed == []
    assert "too slowly" in caplog.text


async def test_a_content_at_the_slowest_allowed_rate_is_accepted() -> None:
    intake = Intake()
    assert (await paced(100, intake)).startswith(b"250 ")
    assert [len(content) for _, content in intake.committed] == [100 * 600 + 2]


async def test_time_in_which_a_client_waits_for_the_disk_does_not_count_for_its_rate() -> None:
    intake, gate = Intake(), asyncio.Event()
    intake.before_piece = gate.wait

    async with greeted(intake) as (submission, transport):
        clock = submission.loop = Clock(submission.loop)  # type: ignore[assignment]
        submission.data_received(GROUP)
        submission.data_received(HEADER + LINE * 2_000)
        assert not transport.is_read
        clock.now += 1_000
        submission.check_timeouts(clock.now)
        assert not transport.is_closed
        gate.set()
        await transport.until_read()
        submission.check_timeouts(clock.now + 1)
        assert not transport.is_closed


async def test_the_rate_of_a_content_is_measured_anew_from_the_end_of_a_wait_for_the_disk() -> None:
    intake, gate = Intake(), asyncio.Event()
    intake.before_piece = gate.wait

    async with greeted(intake) as (submission, transport):
        clock = submission.loop = Clock(submission.loop)  # type: ignore[assignment]
        submission.data_received(GROUP)
        submission.data_received(HEADER + LINE * 2_000)
        clock.now += MAX_IDLE
        submission.check_timeouts(clock.now)
        # Until now the client has waited, so that it has sent nothing since the last check.
        clock.now += MAX_IDLE - 1
        gate.set()
        await transport.until_read()
        clock.now += 1
        assert submission.check_timeouts(clock.now) == pytest.approx(MAX_IDLE - 1)
        assert not transport.is_closed
        submission.data_received(b"x")
        clock.now += MAX_IDLE - 0.5
        submission.check_timeouts(clock.now)
        assert transport.is_closed
        assert transport.written[-1].startswith(b"421 4.4.2 the content came too slowly")
