"""How replies are written and how far ahead a client is read, seen from the connection's own end."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from integration.listener_peer import Intake

from mailrelay.config import Listen
from mailrelay.listener.server_state import ServerState
from mailrelay.listener.submission import COMMAND_LIMIT, Submission, protocol_factory

GROUP = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n"


class Transport(asyncio.Transport):
    """A connection that keeps what is written, write by write, and whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_read = True
        self.is_closed = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.written.append(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def is_reading(self) -> bool:
        return self.is_read

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close


def talk(
    dialogue: Callable[[Submission, Transport], Awaitable[None]], intake: Intake, answer_within: float = 0.0
) -> None:
    """A dialogue on a connection that has been greeted and has said EHLO."""

    async def main() -> None:
        settings = Listen(answer_within=answer_within)
        submission, transport = protocol_factory(ServerState(settings, intake, None))(), Transport()
        submission.connection_made(transport)
        while not transport.written:
            await asyncio.sleep(0)
        submission.data_received(b"EHLO x\r\n")
        transport.written.clear()
        await dialogue(submission, transport)
        if not submission.closed.done():
            submission.connection_lost(None)

    asyncio.run(main())


def codes(written: bytes) -> list[bytes]:
    return [line[:3] for line in written.splitlines()]


def test_the_replies_to_a_group_of_commands_leave_together() -> None:
    async def dialogue(submission: Submission, transport: Transport) -> None:
        submission.data_received(GROUP)
        [flight] = transport.written
        assert codes(flight) == [b"250", b"250", b"250", b"354"]

    talk(dialogue, Intake())


def test_commands_behind_one_that_waits_are_answered_in_order_once_it_is_answered() -> None:
    intake, gate = Intake(), asyncio.Event()
    intake.before_word = gate.wait

    async def dialogue(submission: Submission, transport: Transport) -> None:
        submission.data_received(GROUP)
        assert codes(b"".join(transport.written)) == [b"250"]
        gate.set()
        while len(codes(b"".join(transport.written))) < 4:
            await asyncio.sleep(0)
        assert codes(b"".join(transport.written)) == [b"250", b"250", b"250", b"354"]

    talk(dialogue, intake, answer_within=8.0)


def test_a_word_on_a_recipient_that_cannot_be_had_is_trouble_of_ours_and_the_dialogue_goes_on() -> None:
    intake = Intake()

    async def fail() -> None:
        raise OSError("no spool")

    intake.before_word = fail

    async def dialogue(submission: Submission, transport: Transport) -> None:
        submission.data_received(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRSET\r\n")
        while len(codes(b"".join(transport.written))) < 3:
            await asyncio.sleep(0)
        assert codes(b"".join(transport.written)) == [b"250", b"451", b"250"]

    talk(dialogue, intake, answer_within=8.0)


def test_a_client_that_does_not_read_its_replies_is_not_listened_to() -> None:
    async def dialogue(submission: Submission, transport: Transport) -> None:
        submission.pause_writing()
        submission.data_received(b"NOOP\r\n")
        assert transport.written == []
        assert transport.is_read
        submission.data_received(b"RSET\r\n" * COMMAND_LIMIT)
        assert transport.written == []
        assert not transport.is_read
        submission.resume_writing()
        [flight] = transport.written
        assert codes(flight)[-1] == b"521"

    talk(dialogue, Intake())


@pytest.mark.parametrize("behind", [b"MAIL FROM:<a@b>\r\n", b"RSET\r\n" * COMMAND_LIMIT])
def test_what_comes_behind_a_content_waits_for_its_answer_and_does_not_pile_up(behind: bytes) -> None:
    intake, gate = Intake(), asyncio.Event()
    intake.before_answer = gate.wait

    async def dialogue(submission: Submission, transport: Transport) -> None:
        submission.data_received(GROUP)
        transport.written.clear()
        submission.data_received(b"hi\r\n.\r\n")
        submission.data_received(behind)
        assert transport.is_read == (len(behind) < COMMAND_LIMIT)
        assert transport.written == []
        gate.set()
        lines = 1 + behind.count(b"\n")
        while len(codes(b"".join(transport.written))) < lines:
            await asyncio.sleep(0)
        assert codes(b"".join(transport.written)) == [b"250"] * lines
        assert transport.is_read

    talk(dialogue, intake)


def test_an_answer_that_the_connection_did_not_take_whole_is_not_told_before_it_has() -> None:
    intake = Intake()

    async def dialogue(submission: Submission, transport: Transport) -> None:
        submission.data_received(GROUP)
        transport.write = lambda data: submission.pause_writing()  # type: ignore[method-assign,assignment]
        submission.data_received(b"hi\r\n.\r\n")
        while not intake.committed:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert intake.told.empty()
        submission.resume_writing()
        assert await intake.told.get() is True

    talk(dialogue, intake)


def test_an_answer_to_a_connection_that_broke_under_it_was_not_told() -> None:
    intake = Intake()

    async def dialogue(submission: Submission, transport: Transport) -> None:
        submission.data_received(GROUP)
        transport.write = lambda data: transport.close()  # type: ignore[method-assign,assignment]
        submission.data_received(b"hi\r\n.\r\n")
        assert await intake.told.get() is False

    talk(dialogue, intake)


def test_a_client_that_never_reads_its_answer_is_let_go_and_was_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailrelay.listener.submission.IDLE_LIMIT", 0.02)
    intake = Intake()

    async def dialogue(submission: Submission, transport: Transport) -> None:
        transport.abort = lambda: submission.connection_lost(None)  # type: ignore[method-assign]
        submission.data_received(GROUP)
        transport.write = lambda data: submission.pause_writing()  # type: ignore[method-assign,assignment]
        submission.data_received(b"hi\r\n.\r\n")
        assert await intake.told.get() is False

    talk(dialogue, intake)
