"""One connection of a client, without a network: its time-outs, its end, the bounds of a command line, and turns."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from harness.listener import GROUP, Clock, Intake, Transport, codes, greeted

from mailrelay.listener import replies
from mailrelay.listener.connection import LINGER
from mailrelay.listener.replies import encode
from mailrelay.listener.submission import COMMANDS_AT_ONCE, MAX_COMMAND, MAX_IDLE, MAX_UNKNOWN, Submission
from mailrelay.mail.client_reply import ClientReply
from mailrelay.mail.outcome import Reply

Connection = tuple[Submission, Transport]


def stop_clock(submission: Submission) -> Clock:
    clock = submission.loop = Clock(submission.loop)  # type: ignore[assignment]
    return clock


def written(transport: Transport) -> bytes:
    return b"".join(transport.written)


# Time-outs.


async def test_a_client_that_gets_no_more_replies_is_cut_off_without_another_one() -> None:
    async with greeted(Intake()) as (submission, transport):
        clock = stop_clock(submission)
        submission.data_received(b"x" * MAX_COMMAND)
        assert written(transport) == encode(replies.LINE_TOO_LONG)
        assert (submission.is_over, transport.has_sent_eof, transport.is_closed) == (True, True, False)
        clock.now += MAX_IDLE + 1
        assert submission.check_timeouts(clock.now) == MAX_IDLE
        assert transport.is_aborted
        assert written(transport) == encode(replies.LINE_TOO_LONG)


async def test_a_client_has_time_to_read_the_reply_that_it_was_idle_for_too_long() -> None:
    async with greeted(Intake()) as (submission, transport):
        clock = stop_clock(submission)
        submission.data_received(b"NOOP\r\n")
        transport.written.clear()
        clock.now += MAX_IDLE
        assert submission.check_timeouts(clock.now) == MAX_IDLE
        assert written(transport) == encode(replies.IDLE_TOO_LONG)
        clock.now += MAX_IDLE - 1
        assert submission.check_timeouts(clock.now) == pytest.approx(1)
        assert not transport.is_aborted
        clock.now += 1
        submission.check_timeouts(clock.now)
        assert transport.is_aborted
        assert written(transport) == encode(replies.IDLE_TOO_LONG)


async def test_a_content_of_which_nothing_more_comes_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    async with greeted(Intake()) as (submission, transport):
        clock = stop_clock(submission)
        submission.data_received(GROUP)
        transport.written.clear()
        submission.data_received(b"hello")
        clock.now += MAX_IDLE
        assert submission.check_timeouts(clock.now) == MAX_IDLE
        assert written(transport) == encode(replies.IDLE_TOO_LONG)
        assert transport.is_closed
        submission.connection_lost(None)
    assert caplog.messages == [
        "NOQUEUE from=<a@b> command=content status=broken-off (4.4.2 idle for too long; closing; 5 octets had come)"
    ]


async def test_the_next_check_of_a_content_is_that_of_its_rate_or_of_its_client_whichever_is_first() -> None:
    async with greeted(Intake()) as (submission, _):
        clock = stop_clock(submission)
        submission.data_received(GROUP)
        clock.now += 100
        submission.data_received(b"x" * 100_000)
        assert submission.check_timeouts(clock.now) == pytest.approx(MAX_IDLE - 100)
        clock.now += MAX_IDLE - 99
        # The rate has been checked; the client was heard since.
        assert submission.check_timeouts(clock.now) == pytest.approx(99)


async def test_a_client_that_was_not_read_has_all_of_the_time_afterwards() -> None:
    intake, gate = Intake(), asyncio.Event()
    intake.before_probe_result = gate.wait
    async with greeted(intake, answer_within=8.0) as (submission, transport):
        clock = stop_clock(submission)
        submission.data_received(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
        submission.data_received(b"RSET\r\n" * MAX_COMMAND + b"NO")
        assert not transport.is_read
        clock.now += 2 * MAX_IDLE
        assert submission.check_timeouts(clock.now) == MAX_IDLE
        assert not transport.is_closed
        gate.set()
        await transport.until_read()
        assert submission.check_timeouts(clock.now + MAX_IDLE - 1) == pytest.approx(1)


async def test_a_command_that_waits_is_not_idle_and_the_client_has_all_of_the_time_afterwards() -> None:
    intake, gate = Intake(), asyncio.Event()
    intake.before_probe_result = gate.wait
    async with greeted(intake, answer_within=8.0) as (submission, transport):
        clock = stop_clock(submission)
        submission.data_received(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
        clock.now += 2 * MAX_IDLE
        assert submission.check_timeouts(clock.now) == MAX_IDLE
        gate.set()
        await transport.until_written(2)
        assert submission.check_timeouts(clock.now + MAX_IDLE - 1) == pytest.approx(1)
        assert not transport.is_closed


async def test_a_connection_is_idle_between_transactions_since_its_last_command() -> None:
    async with greeted(Intake()) as (submission, transport):
        clock = stop_clock(submission)
        for line, is_idle in (
            (b"NOOP\r\n", True),
            (b"MAIL FROM:<a@b>\r\n", False),
            (b"RSET\r\n", True),
            (GROUP, False),
            (b"hi\r\n.\r\n", False),
        ):
            clock.now += 1
            submission.data_received(line)
            assert submission.idle_since == (clock.now if is_idle else None)
        clock.now += 1
        await transport.until_written(1 + 1 + 1 + 4 + 1)
        assert submission.idle_since == clock.now
        submission.data_received(b"QUIT\r\n")
        assert submission.idle_since is None


@pytest.mark.parametrize(("octets", "is_read"), [(MAX_COMMAND - 1, True), (MAX_COMMAND, False)])
async def test_so_many_octets_are_read_ahead_while_a_command_waits(octets: int, is_read: bool) -> None:
    intake, gate = Intake(), asyncio.Event()
    intake.before_probe_result = gate.wait
    async with greeted(intake, answer_within=8.0) as (submission, transport):
        submission.data_received(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
        submission.data_received(b"NOOP ".ljust(octets - 2, b"x") + b"\r\n")
        assert transport.is_read is is_read
        gate.set()
        await transport.until_written(3)
        await transport.until_read()
        assert codes(written(transport)) == [b"250"] * 3


# The end of a connection.


@pytest.mark.parametrize(
    ("received", "is_closed", "reply"),
    [
        (b"", True, encode(replies.STOPPING)),
        (b"MAIL FROM:<a@b>\r\n", True, encode(replies.STOPPING)),
        (GROUP, False, b""),
        (GROUP + b"hi\r\n", False, b""),
        (b"x" * MAX_COMMAND, True, b""),
    ],
)
async def test_a_connection_is_retired_unless_a_content_comes_in(
    received: bytes, is_closed: bool, reply: bytes
) -> None:
    async with greeted(Intake()) as (submission, transport):
        submission.data_received(received[: len(GROUP)] if received.startswith(GROUP) else received)
        submission.data_received(received[len(GROUP) :] if received.startswith(GROUP) else b"")
        transport.written.clear()
        submission.retire(replies.STOPPING)
        assert (transport.is_closed, written(transport)) == (is_closed, reply)


async def test_a_connection_is_not_retired_before_the_reply_to_its_message() -> None:
    intake, gate = Intake(), asyncio.Event()
    intake.before_answer = gate.wait
    async with greeted(intake) as (submission, transport):
        submission.data_received(GROUP)
        submission.data_received(b"hi\r\n.\r\n")
        transport.written.clear()
        submission.retire(replies.STOPPING)
        assert (transport.is_closed, transport.written) == (False, [])
        gate.set()
        await transport.until_written(1)
        assert codes(written(transport)) == [b"250"]


@pytest.mark.parametrize(
    ("received", "stays"), [(b"", True), (b"NOOP\r\n", True), (GROUP, False), (b"QUIT\r\n", False)]
)
async def test_a_client_that_closes_its_side_is_closed_at_once_if_no_reply_is_due(received: bytes, stays: bool) -> None:
    async with greeted(Intake()) as (submission, transport):
        submission.data_received(received)
        transport.written.clear()
        assert submission.eof_received() is stays
        # Nothing is left to run, and no reply is written.
        assert transport.is_closed is (stays or received == b"QUIT\r\n")
        assert transport.written == []


async def test_octets_after_the_end_are_dropped() -> None:
    async with greeted(Intake()) as (submission, transport):
        submission.data_received(b"QUIT\r\n")
        submission.data_received(b"NOOP\r\nGET / HTTP/1.1\r\n")
        assert codes(written(transport)) == [b"221"]


async def test_what_came_is_answered_once_the_client_is_gone_but_nothing_is_written() -> None:
    intake, gate = Intake(), asyncio.Event()
    intake.before_answer = gate.wait
    async with greeted(intake) as (submission, transport):
        submission.data_received(GROUP)
        submission.data_received(b"hi\r\n.\r\n")
        transport.written.clear()
        transport.close()
        submission.connection_lost(None)
        assert submission.closed.done()
        assert submission.is_over
        gate.set()
        assert await intake.told.get() is False
        assert transport.written == []
        assert len(intake.committed) == 1


async def test_a_reply_that_the_sender_of_a_message_cannot_be_told_is_logged_and_the_session_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    intake = Intake()

    def fail(_: bool) -> None:
        raise RuntimeError("nobody listens\r\n")

    async def submit(*_: object) -> ClientReply:
        return ClientReply(Reply(250, (b"2.0.0 fine",)), fail)

    monkeypatch.setattr(intake, "submit", submit)
    async with greeted(intake) as (submission, transport):
        submission.data_received(GROUP)
        submission.data_received(b"hi\r\n.\r\nNOOP\r\n")
        await transport.until_written(6)
        assert codes(written(transport))[-2:] == [b"250", b"250"]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.message == "the reply to a message could not be written: RuntimeError('nobody listens\\r\\n')"


async def test_a_content_with_an_uncertain_end_is_the_last_of_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with greeted(Intake()) as (submission, transport):
        later: list[tuple[float, Callable[[], object]]] = []
        clock = stop_clock(submission)
        monkeypatch.setattr(clock, "call_later", lambda *call: later.append(call), raising=False)
        submission.data_received(GROUP)
        transport.written.clear()
        submission.data_received(b"hi\n.\r\n")
        await transport.until_written(1)
        await asyncio.sleep(0)
        assert written(transport) == encode(replies.BARE_LINE_END)
        assert (submission.is_over, transport.has_sent_eof, transport.is_closed) == (True, True, False)
        # A client that goes on sending is not waited for.
        [(seconds, end)] = later
        assert seconds == LINGER
        end()
        assert transport.is_aborted


# Lines.


@pytest.mark.parametrize(("octets", "code"), [(MAX_COMMAND, b"250"), (MAX_COMMAND + 1, b"500")])
async def test_a_command_line_may_have_so_many_octets_with_its_end_and_no_more(octets: int, code: bytes) -> None:
    line = b"NOOP ".ljust(octets - 2, b"x") + b"\r\n"
    for parts in ([line], [line[:-1], line[-1:]], [line[:5], line[5:]]):
        async with greeted(Intake()) as (submission, transport):
            for part in parts:
                submission.data_received(part)
            assert codes(written(transport)) == [code]


async def test_a_line_feed_alone_ends_a_command_line() -> None:
    async with greeted(Intake()) as (submission, transport):
        submission.data_received(b"\n")
        submission.data_received(b"RSET\nNOOP\n")
        assert codes(written(transport)) == [b"500", b"250", b"250"]


async def test_a_client_with_many_commands_takes_turns_with_the_others() -> None:
    async with greeted(Intake()) as (submission, transport):
        submission.data_received(b"RSET\r\n" * (2 * COMMANDS_AT_ONCE + 1))
        counts = [written(transport).count(b"\n")]
        for _ in range(3):
            await asyncio.sleep(0)
            counts.append(written(transport).count(b"\n"))
        assert counts == [COMMANDS_AT_ONCE, 2 * COMMANDS_AT_ONCE, 2 * COMMANDS_AT_ONCE + 1, 2 * COMMANDS_AT_ONCE + 1]


async def test_octets_that_come_before_the_next_turn_of_a_client_do_not_give_it_a_second_one() -> None:
    async with greeted(Intake()) as (submission, transport):
        submission.data_received(b"RSET\r\n" * (5 * COMMANDS_AT_ONCE))
        submission.data_received(b"RSET\r\n")
        before = written(transport).count(b"\n")
        await asyncio.sleep(0)
        assert written(transport).count(b"\n") == before + COMMANDS_AT_ONCE


@pytest.mark.parametrize("count", [MAX_UNKNOWN - 1, MAX_UNKNOWN])
async def test_so_many_unknown_or_bad_commands_end_the_connection(count: int) -> None:
    async with greeted(Intake()) as (submission, transport):
        for number in range(count):
            submission.data_received(b"NOOP \x07\r\n" if number % 2 else b"FROB\r\n")
        expected = [b"500"] * count if count < MAX_UNKNOWN else [b"500"] * (count - 1) + [b"421"]
        assert codes(written(transport)) == expected
        assert transport.is_closed is (count == MAX_UNKNOWN)


@pytest.mark.parametrize(("auth", "shown"), [("ignore", ""), ("refuse", ": From:")])
async def test_the_first_word_of_a_line_is_logged_unless_it_may_be_a_password(
    auth: str, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with greeted(Intake(), auth=auth) as (submission, transport):
        submission.data_received(b"From: me\r\n")
        assert written(transport) == encode(replies.GO_AWAY)
    assert caplog.messages == [f"security: connection dropped, the client does not speak SMTP{shown}"]
