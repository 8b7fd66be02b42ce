"""When replies are written, and how many octets of a client are read ahead."""

import asyncio

import pytest
from harness.listener import GROUP, Intake, codes, greeted

from mailrelay.listener.submission import MAX_COMMAND


async def test_the_replies_to_a_group_of_commands_are_written_together() -> None:
    async with greeted(Intake()) as (submission, transport):
        submission.data_received(GROUP)
        [flight] = transport.written
        assert codes(flight) == [b"250", b"250", b"250", b"354"]


async def test_commands_behind_one_that_waits_are_answered_in_order_once_it_is_answered() -> None:
    intake, gate = Intake(), asyncio.Event()
    intake.before_probe_result = gate.wait

    async with greeted(intake, answer_within=8.0) as (submission, transport):
        submission.data_received(GROUP)
        assert codes(b"".join(transport.written)) == [b"250"]
        gate.set()
        await transport.until_written(4)
        assert codes(b"".join(transport.written)) == [b"250", b"250", b"250", b"354"]


async def test_a_recipient_probe_that_fails_is_an_internal_error_and_the_session_continues() -> None:
    intake = Intake()

    async def fail() -> None:
        raise OSError("no spool")

    intake.before_probe_result = fail

    async with greeted(intake, answer_within=8.0) as (submission, transport):
        submission.data_received(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRSET\r\n")
        await transport.until_written(3)
        assert codes(b"".join(transport.written)) == [b"250", b"451", b"250"]


async def test_no_command_is_read_from_a_client_that_does_not_read_its_replies() -> None:
    async with greeted(Intake()) as (submission, transport):
        submission.pause_writing()
        submission.data_received(b"NOOP\r\n")
        assert transport.written == []
        assert transport.is_read
        submission.data_received(b"RSET\r\n" * MAX_COMMAND)
        assert transport.written == []
        assert not transport.is_read
        submission.resume_writing()
        [flight] = transport.written
        assert codes(flight)[-1] == b"521"


@pytest.mark.parametrize("behind", [b"MAIL FROM:<a@b>\r\n", b"RSET\r\n" * MAX_COMMAND])
async def test_commands_behind_a_content_wait_for_its_reply_and_reading_stops(behind: bytes) -> None:
    intake, gate = Intake(), asyncio.Event()
    intake.before_answer = gate.wait

    async with greeted(intake) as (submission, transport):
        submission.data_received(GROUP)
        transport.written.clear()
        submission.data_received(b"hi\r\n.\r\n")
        submission.data_received(behind)
        assert transport.is_read == (len(behind) < MAX_COMMAND)
        assert transport.written == []
        gate.set()
        lines = 1 + behind.count(b"\n")
        await transport.until_written(lines)
        assert codes(b"".join(transport.written)) == [b"250"] * lines
        assert transport.is_read


async def test_a_reply_counts_as_told_only_after_the_connection_has_accepted_it_whole() -> None:
    intake = Intake()

    async with greeted(intake) as (submission, transport):
        submission.data_received(GROUP)
        written = asyncio.Event()

        def write_in_part(_data: bytes) -> None:
            submission.pause_writing()
            written.set()

        transport.write = write_in_part  # type: ignore[method-assign,assignment]
        submission.data_received(b"hi\r\n.\r\n")
        await written.wait()
        assert intake.committed
        assert intake.told.empty()
        submission.resume_writing()
        assert await intake.told.get() is True


async def test_a_reply_to_a_connection_that_breaks_was_not_told() -> None:
    intake = Intake()

    async with greeted(intake) as (submission, transport):
        submission.data_received(GROUP)
        transport.write = lambda data: transport.close()  # type: ignore[method-assign,assignment]
        submission.data_received(b"hi\r\n.\r\n")
        assert await intake.told.get() is False


async def test_a_reply_that_cannot_be_written_was_not_told() -> None:
    intake = Intake()

    def fail(_: bytes) -> None:
        raise OSError("no buffers")

    async with greeted(intake) as (submission, transport):
        submission.data_received(GROUP)
        transport.write = fail  # type: ignore[method-assign,assignment]
        submission.data_received(b"hi\r\n.\r\n")
        assert await intake.told.get() is False
    assert len(intake.committed) == 1


async def test_a_client_that_never_reads_its_reply_is_closed_and_was_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailrelay.listener.submission.MAX_IDLE", 0.02)
    intake = Intake()

    async with greeted(intake) as (submission, transport):
        transport.abort = lambda: submission.connection_lost(None)  # type: ignore[method-assign]
        submission.data_received(GROUP)
        transport.write = lambda data: submission.pause_writing()  # type: ignore[method-assign,assignment]
        submission.data_received(b"hi\r\n.\r\n")
        assert await intake.told.get() is False
