"""The replies of the listener, line by line, over real sockets."""

import asyncio
import logging
import re
import socket
import struct
import time
from datetime import UTC, datetime, timedelta

import pytest
from harness.listener import GROUP, Clock, Intake, Wire, codes, connect, greeted, listener
from harness.waiting import called

from mailrelay.listener import commands
from mailrelay.listener.submission import MAX_IDLE, Submission
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Reply

HOUR = timedelta(hours=1)


async def talk(lines: list[tuple[bytes, bytes]], intake: Intake | None = None, **settings: object) -> Intake:
    """Say each line and hold the reply's beginning against the expected one, on one connection."""
    intake = intake or Intake()

    async with listener(intake, **settings) as listening:
        wire = await connect(listening)
        assert await wire.reply() == b"220 localhost ESMTP mailrelay\r\n"
        for line, expected in lines:
            reply = await wire.say(line)
            assert reply.startswith(expected), (line, reply)
        wire.close()
    return intake


async def test_a_message_arrives_octet_for_octet_with_its_envelope() -> None:
    content = b"Subject: hi\r\n\r\n.dot\r\n..\r\n\xc3\xa4\r\n" + b"x" * 200_000 + b"\r\n"
    intake = Intake()

    async with listener(intake) as listening:
        wire = await connect(listening)
        await wire.begin(b"a@example.net", b'"b c"@example.net')
        assert await wire.say(content.replace(b"\r\n.", b"\r\n..") + b".") == b"250 2.0.0 queued\r\n"
        assert await intake.told.get() is True
        assert await wire.say(b"QUIT") == b"221 2.0.0 bye\r\n"
        assert await wire.rest() == b""
    recipients = (Recipient(b"a@example.net"), Recipient(b'"b c"@example.net'))
    assert intake.committed == [(Envelope(b"me@example.org", recipients), content)]
    assert intake.expected_from == [b"me@example.org"]
    assert intake.told.empty()


async def test_ehlo_offers_exactly_what_is_kept() -> None:
    async with listener(Intake(), max_message_size=1234) as listening:
        wire = await connect(listening)
        await wire.reply()
        assert re.fullmatch(
            rb"250-localhost\r\n250-PIPELINING\r\n250-SIZE 1234\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
            rb"250-ENHANCEDSTATUSCODES\r\n250-FUTURERELEASE 31536000 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\r\n250 DSN\r\n",
            await wire.say(b"EHLO x"),
        )
        assert await wire.say(b"HELO x") == b"250 localhost\r\n"


async def test_every_other_command_has_its_reply_with_an_enhanced_code() -> None:
    await talk(
        [
            (b"MAIL FROM:<a@b>", b"503 5.5.1 "),
            (b"EHLO", b"501 5.5.4 "),
            (b"ehlo x", b"250-localhost"),
            (b"RCPT TO:<a@b>", b"503 5.5.1 "),
            (b"DATA", b"503 5.5.1 "),
            (b"mail from:<a@b>", b"250 2.1.0 "),
            (b"MAIL FROM:<a@b>", b"503 5.5.1 "),
            (b"DATA", b"554 5.5.1 "),
            (b"RSET", b"250 2.0.0 "),
            (b"RSET now", b"501 5.5.4 "),
            (b"MAIL FROM:<>", b"250 2.1.0 "),
            (b"RCPT TO: <root>", b"250 2.1.5 "),
            (b"DATA now", b"501 5.5.4 "),
            (b"NOOP", b"250 2.0.0 "),
            (b"HELP", b"214 2.0.0 "),
            (b"VRFY root", b"252 2.5.1 "),
            (b"EXPN root", b"502 5.5.1 "),
            (b"AUTH PLAIN", b"502 5.5.1 "),
            (b"STARTTLS", b"502 5.5.1 "),
            (b"FROB", b"500 5.5.1 "),
            (b"", b"500 5.5.1 "),
            (b"NOOP \x1b[2J", b"500 5.5.2 "),
            (b"QUIT now", b"501 5.5.4 "),
            (b"QUIT", b"221 2.0.0 "),
        ]
    )


async def test_a_recipient_that_the_mail_server_refuses_is_refused_at_rcpt_and_is_not_in_the_envelope() -> None:
    intake = Intake()
    intake.refusals = {b"nobody@example.net": Reply(550, (b"5.1.1 no such user",))}
    await talk(
        [
            (b"EHLO x", b"250"),
            (b"MAIL FROM:<a@b>", b"250"),
            (b"RCPT TO:<first@example.net>", b"250 2.1.5 "),
            (b"RCPT TO:<nobody@example.net>", b"550 5.1.1 no such user"),
            (b"RCPT TO:<second@example.net> NOTIFY=NEVER", b"250 2.1.5 "),
            (b"RCPT TO:<>", b"553 5.1.3 "),
            (b"DATA", b"354 "),
            (b"hi\r\n.", b"250 "),
        ],
        intake,
    )
    first, second = Recipient(b"first@example.net"), Recipient(b"second@example.net", b"NEVER")
    assert [envelope.recipients for envelope, _ in intake.committed] == [(first, second)]
    assert [envelope.recipients for envelope in intake.probed] == [
        (first,),
        (Recipient(b"nobody@example.net"),),
        (second,),
    ]


async def test_data_is_refused_if_all_recipients_were_refused() -> None:
    intake = Intake()
    intake.refusals = {b"nobody@example.net": Reply(550, (b"5.1.1 no such user",))}
    mail = (b"MAIL FROM:<a@b>", b"250")
    await talk(
        [(b"EHLO x", b"250"), mail, (b"RCPT TO:<nobody@example.net>", b"550 "), (b"DATA", b"554 5.5.1 ")], intake
    )


async def test_the_recipient_probes_of_one_message_share_one_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MAX_PROBE", 0.05)
    intake = Intake()
    intake.before_probe_result = asyncio.Event().wait
    rcpt = (b"RCPT TO:<you@example.net>", b"250 2.1.5 ")
    mail = (b"MAIL FROM:<a@b>", b"250")
    await talk([(b"EHLO x", b"250"), mail, rcpt, rcpt, rcpt, (b"RSET", b"250"), mail, rcpt, rcpt], intake)
    assert len(intake.probed) == 2


async def test_commands_in_an_address_are_refused_and_nothing_of_them_is_kept() -> None:
    intake = await talk(
        [
            (b"EHLO x", b"250"),
            (b"MAIL FROM:<=?utf-8?q?a=0D=0ARCPT?=@example.org>", b"250"),
            (b"RCPT TO:<a@b>\rRCPT TO:<c@d>", b"500 5.5.2 "),
            (b"RCPT TO:<a\x00@b>", b"500 5.5.2 "),
            (b"RCPT TO:<a@b>>", b"553 5.1.3 "),
            (b"RCPT TO:<a b@c>", b"553 5.1.3 "),
            (b"RCPT TO:a@b", b"553 5.1.3 "),
            (b"RCPT TO:<>", b"553 5.1.3 "),
            (b"RCPT TO:<\xff\xfe@b>", b"553 5.1.3 "),
            (b"RCPT FROM:<a@b>", b"501 5.5.4 "),
            (b"DATA", b"554 5.5.1 "),
        ]
    )
    # An encoded-word is an address like any other, and stays what it was.
    assert intake.expected_from == [b"=?utf-8?q?a=0D=0ARCPT?=@example.org"]


async def test_dsn_and_mail_parameters_are_kept_as_sent() -> None:
    intake = Intake()

    async with listener(intake) as listening:
        wire = await connect(listening)
        await wire.reply()
        await wire.say(b"EHLO x")
        mail = b"MAIL FROM:<j\xc3\xb6@ex\xc3\xa4mple.org> body=8bitmime SIZE=9 SMTPUTF8 RET=hdrs ENVID=QQ+2B1"
        assert (await wire.say(mail)).startswith(b"250 ")
        rcpt = b"RCPT TO:<@relay.example:you@example.net> NOTIFY=success,FAILURE ORCPT=rfc822;you+2Btag@example.net"
        assert (await wire.say(rcpt)).startswith(b"250 ")
        await wire.say(b"DATA")
        assert (await wire.say(b"hi\r\n.")).startswith(b"250 ")
    recipient = Recipient(b"you@example.net", b"success,FAILURE", b"rfc822;you+2Btag@example.net")
    sender = "jö@exämple.org".encode()
    assert intake.committed[0][0] == Envelope(sender, (recipient,), b"8BITMIME", True, b"HDRS", b"QQ+2B1")


async def test_bad_parameters_are_refused() -> None:
    intake = await talk(
        [
            (b"EHLO x", b"250"),
            (b"MAIL FROM:<j\xc3\xb6@example.org>", b"553 5.6.7 "),
            (b"MAIL FROM:<a@b> SIZE=101", b"552 5.3.4 "),
            (b"MAIL FROM:<a@b> SIZE=x", b"501 5.5.4 "),
            (b"MAIL FROM:<a@b> SMTPUTF8=1", b"501 5.5.4 "),
            (b"MAIL FROM:<a@b> RET=ALL", b"501 5.5.4 "),
            (b"MAIL FROM:<a@b> RET=FULL RET=FULL", b"501 5.5.4 "),
            (b"MAIL FROM:<a@b> ENVID=a+0D+0A", b"501 5.5.4 "),
            (b"MAIL FROM:<a@b> AUTH=<>", b"555 5.5.4 "),
            (b"MAIL FROM:<a@b> SIZE=100", b"250"),
            (b"RCPT TO:<\xc3\xb6@example.org>", b"553 5.6.7 "),
            (b"RCPT TO:<a@b> NOTIFY=NEVER,DELAY", b"501 5.5.4 "),
            (b"RCPT TO:<a@b> ORCPT=rfc822;a+0Db", b"501 5.5.4 "),
            (b"RCPT TO:<a@b> XFROB", b"555 5.5.4 "),
        ],
        max_message_size=100,
    )
    assert intake.expected_from == [b"a@b"]


async def test_a_client_may_say_when_a_message_is_to_be_sent() -> None:
    intake = Intake()
    async with listener(intake) as listening:
        for parameter in (
            b"HOLDFOR=600",
            b"holduntil=%s" % (datetime.now(UTC) + HOUR).strftime("%Y-%m-%dT%H:%M:%SZ").encode(),
        ):
            wire = await connect(listening)
            await wire.begin(mail=b"MAIL FROM:<me@example.org> SIZE=9 " + parameter)
            assert (await wire.say(b"hi\r\n.")).startswith(b"250 ")
    (held_for, content), (held_until, _) = intake.committed
    now = time.time()
    assert content == b"hi\r\n"
    assert held_for.send_time is not None
    assert (now + 500 < held_for.send_time.at <= now + 600, held_for.send_time.by_clock) == (True, False)
    assert held_until.send_time is not None
    assert (now + 3500 < held_until.send_time.at <= now + 3600, held_until.send_time.by_clock) == (True, True)
    assert [envelope.send_time for envelope in intake.probed] == [held_for.send_time, held_until.send_time]
    assert intake.expected_from == [], "it is no reason to dial"


async def test_a_send_time_holds_for_one_transaction() -> None:
    intake = Intake()
    async with listener(intake) as listening:
        wire = await connect(listening)
        await wire.begin(mail=b"MAIL FROM:<me@example.org> HOLDFOR=600")
        await wire.say(b"hi\r\n.")
        for line in (
            b"MAIL FROM:<me@example.org> HOLDFOR=600",
            b"RSET",
            b"MAIL FROM:<me@example.org>",
            b"RCPT TO:<b@c>",
        ):
            assert (await wire.say(line)).startswith(b"250 ")
        await wire.say(b"DATA")
        await wire.say(b"hi\r\n.")
    assert intake.committed[1][0].send_time is None


@pytest.mark.parametrize(
    "parameters",
    [
        b"HOLDFOR",
        b"HOLDFOR=0",
        b"HOLDFOR=10m",
        b"HOLDFOR=31536001",
        b"HOLDUNTIL=2000-01-01T00:00:00Z",
        b"HOLDUNTIL=9999-01-01T00:00:00Z",
        b"HOLDUNTIL=tomorrow",
        b"HOLDFOR=1 HOLDFOR=2",
        b"HOLDFOR=1 HOLDUNTIL=2030-01-01T00:00:00Z",
    ],
)
async def test_a_wrong_send_time_is_refused_and_the_next_mail_is_not(parameters: bytes) -> None:
    await talk([(b"EHLO x", b"250"), (b"MAIL FROM:<a@b> " + parameters, b"501 5.5.4 "), (b"MAIL FROM:<a@b>", b"250")])


async def test_mail_is_refused_with_the_reason_while_no_message_can_be_accepted() -> None:
    intake = Intake()
    intake.current_refusal = Reply(452, (b"4.3.1 the spool is full",))
    await talk(
        [(b"EHLO x", b"250"), (b"MAIL FROM:<a@b>", b"452 4.3.1 the spool is full\r\n"), (b"RCPT TO:<a@b>", b"503")],
        intake,
    )
    assert intake.expected_from == []


async def test_the_1001st_recipient_gets_a_4xx() -> None:
    async with listener(Intake()) as listening:
        wire = await connect(listening)
        await wire.reply()
        await wire.say(b"EHLO x")
        wire.writer.write(b"MAIL FROM:<a@b>\r\n" + b"RCPT TO:<a@b>\r\n" * 1001)
        replies = [await wire.reply() for _ in range(1002)]
        assert all(reply.startswith(b"250 ") for reply in replies[:-1])
        assert replies[-1].startswith(b"452 4.5.3 ")


async def test_pipelined_transactions_behind_a_content_are_all_answered_in_order() -> None:
    intake = Intake()

    async with listener(intake) as listening:
        wire = await connect(listening)
        await wire.begin()
        flight = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
        wire.writer.write(b"one\r\n.\r\n" + flight)
        codes = [(await wire.reply())[:3] for _ in range(4)]
        assert codes == [b"250", b"250", b"250", b"354"]
        wire.writer.write(b"two\r\n.\r\nNOOP\r\n")
        assert [(await wire.reply())[:3] for _ in range(2)] == [b"250", b"250"]
    assert [content for _, content in intake.committed] == [b"one\r\n", b"two\r\n"]


@pytest.mark.parametrize(
    "ending", [b"hello\n.\n", b"hello\n.\r\n", b"hello\r\n.\nmore", b"a\rb\r\n.\r\n", b"\nx\r\n.\r\n"]
)
async def test_a_bare_line_end_in_content_is_refused_without_hanging_and_nothing_is_queued(ending: bytes) -> None:
    intake = Intake()

    async with listener(intake) as listening:
        wire = await connect(listening)
        await wire.begin()
        wire.writer.write(ending)
        assert (await wire.rest()).startswith(b"550 5.6.11 ")
    assert intake.committed == []


async def test_a_smuggled_second_message_is_never_seen() -> None:
    intake = Intake()

    async with listener(intake) as listening:
        wire = await connect(listening)
        await wire.begin()
        wire.writer.write(b"one\r\n\n.\r\nMAIL FROM:<x@y>\r\nRCPT TO:<z@y>\r\nDATA\r\ntwo\r\n.\r\n")
        assert (await wire.rest()).count(b"\r\n") == 1
    assert intake.committed == []
    assert intake.expected_from == [b"me@example.org"]


async def test_a_content_that_is_too_large_is_read_to_its_end_and_the_session_continues() -> None:
    intake = Intake()

    async with listener(intake, max_message_size=1000) as listening:
        wire = await connect(listening)
        await wire.begin()
        assert (await wire.say(b"x" * 998 + b"\r\nyyy\r\n" * 50_000 + b".")).startswith(b"552 5.3.4 ")
        assert (await wire.say(b"MAIL FROM:<a@b>")).startswith(b"250 ")
        await wire.say(b"RCPT TO:<a@b>")
        await wire.say(b"DATA")
        assert (await wire.say(b"x" * 998 + b"\r\n.")).startswith(b"250 ")
    assert [len(content) for _, content in intake.committed] == [1000]


async def test_nul_in_content_is_refused() -> None:
    async with listener(Intake()) as listening:
        assert (await (await connect(listening)).send(b"a\x00b\r\n")).startswith(b"550 5.6.0 ")


async def test_stalled_contents_on_many_connections_do_not_block_other_clients() -> None:
    intake = Intake()

    async with listener(intake, max_message_size=10_000) as listening:
        wires = [await connect(listening) for _ in range(6)]
        for wire in wires:
            await wire.begin()
            wire.writer.write(b"x" * 9_000 + b"\r\n")
            await wire.writer.drain()
        assert (await (await connect(listening)).send(b"x" * 9_000 + b"\r\n")).startswith(b"250 ")
        assert [(await wire.say(b"."))[:4] for wire in wires] == [b"250 "] * 6


async def test_an_internal_error_is_a_451_without_details_and_the_next_message_is_accepted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = Intake()
    intake.error = RuntimeError("secret\r\n250 all is well")

    with caplog.at_level(logging.INFO):
        async with listener(intake) as listening:
            wire = await connect(listening)
            reply = await wire.send(b"hi\r\n")
            assert reply.startswith(b"451 4.3.0 ")
            assert b"secret" not in reply
            intake.error = None
            assert (await wire.say(b"RCPT TO:<a@b>")).startswith(b"503 ")
            await wire.say(b"MAIL FROM:<a@b>")
            await wire.say(b"RCPT TO:<a@b>")
            await wire.say(b"DATA")
            assert (await wire.say(b"hi\r\n.")).startswith(b"250 ")
    assert [record.name for record in caplog.records] == ["mailrelay.listener"]
    assert "\n" not in caplog.records[0].getMessage()


async def test_an_error_of_the_intake_at_mail_is_a_451_too() -> None:
    class Broken(Intake):
        def expect_message(self, reverse_path: bytes) -> None:
            raise OSError("broken")

    await talk([(b"EHLO x", b"250"), (b"MAIL FROM:<a@b>", b"451 4.3.0 "), (b"RCPT TO:<a@b>", b"503 ")], Broken())


async def test_a_reply_of_the_mail_server_is_passed_on_in_lines_that_no_client_can_misread() -> None:
    intake = Intake()
    intake.reply = Reply(550, (b"5.1.1 no\x1b[31m such\r\n250 user", b"x" * 2000, "ä".encode(), b"5.1.10 other"))

    async with listener(intake) as listening:
        reply = await (await connect(listening)).send(b"hi\r\n")
    lines = reply.split(b"\r\n")[:-1]
    assert all(line.startswith(b"550-5.1.") for line in lines[:-1])
    assert lines[-1] == b"550 5.1.10 other"
    assert max(map(len, lines)) <= 510
    assert reply.isascii()
    assert lines[0] == rb"550-5.1.1 no\x1b[31m such\x0d\x0a250 user"
    assert b"".join(line[10:] for line in lines[1:-2]) == b"x" * 2000


async def test_twenty_unknown_commands_end_the_connection() -> None:
    async with listener(Intake()) as listening:
        wire = await connect(listening)
        await wire.reply()
        await wire.say(b"EHLO x")
        replies = [await wire.say(b"FROB") for _ in range(20)]
        assert all(reply.startswith(b"500 5.5.1 ") for reply in replies[:-1])
        assert replies[-1].startswith(b"421 4.7.0 ")
        assert await wire.rest() == b""


async def test_an_endless_command_line_is_not_waited_for() -> None:
    async with listener(Intake()) as listening:
        wire = await connect(listening)
        await wire.reply()
        wire.writer.write(b"EHLO " + b"x" * 20_000)
        assert (await wire.rest()).startswith(b"500 5.5.2 ")


async def test_a_client_beyond_max_connections_takes_the_place_of_the_one_that_has_been_idle_longest() -> None:
    async with listener(Intake(), max_connections=2) as listening:
        first, second = await connect(listening), await connect(listening)
        assert (await first.reply() + await second.reply()).count(b"220 ") == 2
        assert (await first.say(b"NOOP")).startswith(b"250 ")
        third = await connect(listening)
        assert (await third.reply()).startswith(b"220 ")
        assert (await second.rest()).startswith(b"421 4.7.0 ")
        assert (await first.say(b"NOOP")).startswith(b"250 ")


async def test_no_connection_with_an_open_transaction_is_closed_for_another_client() -> None:
    async with listener(Intake(), max_connections=2) as listening:
        first, second = await connect(listening), await connect(listening)
        await first.begin()
        await second.reply()
        for said in (b"EHLO x", b"MAIL FROM:<a@b>"):
            assert (await second.say(said)).startswith(b"250")
        assert (await (await connect(listening)).rest()).startswith(b"421 4.7.0 ")
        assert (await first.say(b".")).startswith(b"250 ")
        # The first one has nothing to do any more.
        assert (await (await connect(listening)).reply()).startswith(b"220 ")
        assert (await first.rest()).startswith(b"421 4.7.0 ")
        assert (await second.say(b"RCPT TO:<c@d>")).startswith(b"250 ")


async def test_an_idle_client_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailrelay.listener.submission.MAX_IDLE", 0.05)

    async with listener(Intake()) as listening:
        wire = await connect(listening)
        assert (await wire.rest()).endswith(b"421 4.4.2 idle for too long; closing\r\n")


async def test_a_client_that_waits_for_us_is_not_idle() -> None:
    intake, gate = Intake(), asyncio.Event()
    intake.before_answer = gate.wait

    async with greeted(intake) as (submission, transport):
        clock = submission.loop = Clock(submission.loop)  # type: ignore[assignment]
        submission.data_received(GROUP)
        submission.data_received(b"hi\r\n.\r\n")
        transport.written.clear()
        clock.now += 1_000
        submission.check_timeouts(clock.now)
        gate.set()
        await transport.until_written(1)
        assert codes(b"".join(transport.written)) == [b"250"]
        assert not transport.is_closed
        clock.now += 1_000
        submission.check_timeouts(clock.now)
        assert transport.written[-1].startswith(b"421 4.4.2 idle for too long")


async def test_an_idle_client_that_reads_no_replies_gets_none() -> None:
    async with greeted(Intake()) as (submission, transport):
        clock = submission.loop = Clock(submission.loop)  # type: ignore[assignment]
        said = list(transport.written)
        submission.pause_writing()
        clock.now += 1_000
        assert submission.check_timeouts(clock.now) == MAX_IDLE
        assert (transport.written, transport.is_closed) == (said, True)


async def test_each_connection_counts_as_one_so_that_a_daemon_without_work_notices_it() -> None:
    async with listener(Intake()) as listening:
        for count in (1, 2):
            wire: Wire = await connect(listening)
            await wire.reply()
            assert listening.accepted == count
            wire.close()


async def test_lines_of_clients_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with listener(Intake()) as listening:
            wire: Wire = await connect(listening)
            await wire.reply()
            assert (await wire.say(b"NOOP private")).startswith(b"250 ")
            assert not [record for record in caplog.records if record.name != "asyncio"]
            assert (await wire.say(b"Subject: private")).startswith(b"521 ")
            wire.close()
    assert "does not speak SMTP: Subject:" in caplog.text
    assert "private" not in caplog.text


async def test_a_client_that_closes_its_side_before_its_content_gets_a_421(monkeypatch: pytest.MonkeyPatch) -> None:
    has_closed, intake = called(monkeypatch, Submission, "eof_received"), Intake()
    intake.before_probe_result = has_closed.wait

    async with listener(intake) as listening:
        wire = await connect(listening)
        await wire.reply()
        await wire.say(b"EHLO x")
        wire.writer.write(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
        wire.writer.write_eof()
        assert (await wire.rest()).splitlines()[-1].startswith(b"421 4.4.2 the client closed the connection")
    assert intake.probed
    assert intake.committed == []


async def test_a_stop_waits_for_a_message_that_is_completed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailrelay.listener.listening.LAST_WAIT", 0.0)
    gate, intake = asyncio.Event(), Intake()
    intake.before_answer = gate.wait

    async with listener(intake) as listening, listener(Intake()) as another:
        wire = await connect(listening)
        await wire.begin()
        [connection] = listening.connections
        idle = await connect(listening)
        await idle.reply()
        stopping = asyncio.create_task(listening.close(grace=20.0))
        assert (await idle.rest()).startswith(b"421 4.3.2 ")
        wire.writer.write(b"hello\r\n.\r\n")
        await intake.arrived.wait()
        # The client resets the connection, which ends that, but not its message.
        reset = struct.pack("ii", 1, 0)
        wire.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        wire.writer.transport.abort()
        await connection.closed
        # Longer than a stop that waits for nothing.
        assert (await (await connect(another)).send(b"hi\r\n")).startswith(b"250 ")
        assert not stopping.done()
        gate.set()
        await stopping
    assert len(intake.committed) == 1
