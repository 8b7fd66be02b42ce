"""The commands of one connection, without a network."""

import logging

import pytest
from harness.listener import GROUP, Clock, Intake, codes, greeted

from mailrelay.config import Listen
from mailrelay.listener import replies
from mailrelay.listener.commands import MAX_PROBE, smtp_attributes
from mailrelay.listener.replies import encode
from mailrelay.listener.server_state import ServerState
from mailrelay.listener.submission import Submission
from mailrelay.mail.outcome import Reply

MAIL = b"MAIL FROM:<a@b>\r\n"
RCPT = b"RCPT TO:<c@d>\r\n"


async def test_helo_is_enough_to_send() -> None:
    intake = Intake()
    state = ServerState(Listen(address="", answer_within=0.0), intake, None)
    submission = Submission(state, smtp_attributes(state))
    for command, expected in (
        (submission.smtp_MAIL("FROM:<a@b>"), encode(replies.HELLO_FIRST)),
        (submission.smtp_HELO("x"), b"250 localhost\r\n"),
        (submission.smtp_MAIL("FROM:<a@b>"), encode(replies.SENDER_OK)),
    ):
        submission.unsent.clear()
        await command
        assert submission.unsent == expected


@pytest.mark.parametrize(("answer_within", "probes"), [(0.0, 0), (0.5, 1), (3600.0, 1)])
async def test_a_client_that_does_not_wait_for_results_does_not_wait_for_a_probe(
    answer_within: float, probes: int
) -> None:
    intake = Intake()
    async with greeted(intake, answer_within=answer_within) as (submission, transport):
        submission.data_received(MAIL + RCPT)
        await transport.until_written(2)
        assert len(intake.probed) == probes
        assert submission.envelope.probe_seconds <= min(answer_within, 1.0)
        assert codes(b"".join(transport.written)) == [b"250", b"250"]


async def test_a_recipient_that_is_refused_by_the_mail_server_is_not_in_the_envelope() -> None:
    intake = Intake()
    intake.refusals = {b"c@d": Reply(550, (b"5.1.1 no such user",))}
    async with greeted(intake, answer_within=8.0) as (submission, transport):
        submission.data_received(MAIL + RCPT + b"DATA\r\n")
        await transport.until_written(3)
        assert codes(b"".join(transport.written)) == [b"250", b"550", b"554"]
        assert submission.envelope.recipients == []


async def test_the_probes_of_one_message_take_no_longer_than_one_probe_may() -> None:
    intake = Intake()
    async with greeted(intake, answer_within=8.0) as (submission, transport):
        clock = submission.loop = Clock(submission.loop)  # type: ignore[assignment]

        async def probe() -> None:
            clock.now += 0.6 * MAX_PROBE

        intake.before_probe_result = probe
        submission.data_received(MAIL + RCPT)
        await transport.until_written(2)
        assert submission.envelope.probe_seconds == pytest.approx(0.4 * MAX_PROBE)
        submission.data_received(RCPT + RCPT)
        await transport.until_written(4)
        assert codes(b"".join(transport.written)) == [b"250"] * 4
        assert len(intake.probed) == 2


@pytest.mark.parametrize(
    ("line", "expected"), [(MAIL, [b"a@b"]), (MAIL[:-2] + b" HOLDFOR=5\r\n", []), (b"MAIL FROM:<@>\r\n", [])]
)
async def test_a_message_is_expected_once_its_sender_was_accepted_unless_it_is_sent_later(
    line: bytes, expected: list[bytes]
) -> None:
    intake = Intake()
    async with greeted(intake) as (submission, _):
        submission.data_received(line)
    assert intake.expected_from == expected


async def test_a_sender_who_is_refused_because_no_message_can_be_accepted_has_no_transaction() -> None:
    intake = Intake()
    intake.current_refusal = Reply(451, (b"4.3.0 the spool cannot be written",))
    async with greeted(intake) as (submission, transport):
        submission.data_received(MAIL + RCPT)
        intake.current_refusal = None
        submission.data_received(MAIL + RCPT)
        assert codes(b"".join(transport.written)) == [b"451", b"503", b"250", b"250"]
    assert intake.expected_from == [b"a@b"]


@pytest.mark.parametrize(
    ("before", "code", "logged"),
    [
        (b"", b"503", []),
        (
            MAIL,
            b"554",
            ["NOQUEUE from=<a@b> command=DATA dsn=5.5.1 status=refused (554 5.5.1 no valid recipients)"],
        ),
    ],
)
async def test_the_content_after_a_refused_data_is_answered_once(
    before: bytes, code: bytes, logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with greeted(Intake()) as (submission, transport):
        submission.data_received(before + b"DATA\r\n")
        submission.data_received(b"Subject: x\r\n\r\nhi\r\n.\r\n")
        told = b"".join(transport.written)
        assert codes(told)[-2:] == [code, b"554"]
        assert told.endswith(encode(replies.CONTENT_AFTER_REFUSAL))
        assert (transport.has_sent_eof, transport.is_closed) == (True, False)
    assert caplog.messages == logged


async def test_a_new_transaction_after_a_refused_data_is_one() -> None:
    async with greeted(Intake()) as (submission, transport):
        submission.data_received(b"DATA\r\n")
        submission.data_received(MAIL + RCPT)
        submission.data_received(b"FROB\r\n")
        assert codes(b"".join(transport.written)) == [b"503", b"250", b"250", b"500"]


async def test_a_message_that_cannot_be_taken_over_is_an_internal_error_that_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = Intake()
    intake.error = RuntimeError("no\r\nspool")
    async with greeted(intake) as (submission, transport):
        submission.data_received(GROUP)
        transport.written.clear()
        submission.data_received(b"hi\r\n.\r\n")
        await transport.until_written(1)
        assert b"".join(transport.written) == encode(replies.INTERNAL_ERROR)
    assert [(one.levelno, one.message) for one in caplog.records] == [
        (logging.ERROR, "a message could not be taken over: RuntimeError('no\\r\\nspool')")
    ]


async def test_an_envelope_and_a_refusal_by_the_listener_itself_belong_to_the_message_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = Intake()
    async with greeted(intake) as (submission, transport):
        submission.data_received(GROUP)
        transport.written.clear()
        submission.data_received(b"\0\r\n.\r\n" + MAIL.replace(b"a@b", b"next@b"))
        await transport.until_written(2)
        assert codes(b"".join(transport.written)) == [b"550", b"250"]
        assert submission.envelope.sender == b"next@b"
    assert [message.partition(" (")[0] for message in caplog.messages] == [
        "NOQUEUE from=<a@b> command=content dsn=5.6.0 status=refused"
    ]
    assert intake.committed == []


@pytest.mark.parametrize(
    ("auth", "line", "reply"),
    [
        ("refuse", b"AUTH PLAIN AG1lAGh1bnRlcjI=", encode(replies.NO_LOGIN)),
        ("ignore", b"AUTH PLAIN AG1lAGh1bnRlcjI=", b"235 2.7.0 Authentication successful\r\n"),
        ("ignore", b"AUTH plain  AG1lAGh1bnRlcjI=", b"235 2.7.0 Authentication successful\r\n"),
        ("ignore", b"AUTH PLAIN\r\nAG1l!AGh1bnRlcjI=", b"334 \r\n501 5.5.2 not base64\r\n"),
        ("ignore", b"AUTH PLAIN\r\nAG1lAGh1bnRlcjI=", b"334 \r\n235 2.7.0 Authentication successful\r\n"),
        ("ignore", b"AUTH PLAIN =", b"501 5.5.2 Can't decode base64\r\n"),
    ],
)
async def test_a_login_is_accepted_with_any_password_that_is_encoded_where_the_setting_allows_it(
    auth: str, line: bytes, reply: bytes
) -> None:
    async with greeted(Intake(), auth=auth) as (submission, transport):
        for part in line.splitlines():
            submission.data_received(part + b"\r\n")
        await transport.until_written(reply.count(b"\n"))
        assert b"".join(transport.written) == reply
        assert bool(submission.session.authenticated) is (b"235" in reply)


@pytest.mark.parametrize(("password", "is_whole"), [(b"aHVudGVyMg==\r\n", True), (b"aHVudGVyMg==", False)])
async def test_a_login_whose_last_line_came_before_the_client_closed_its_side_is_completed(
    password: bytes, is_whole: bool
) -> None:
    async with greeted(Intake(), auth="ignore") as (submission, transport):
        submission.data_received(b"AUTH LOGIN\r\n")
        submission.data_received(b"bWU=\r\n" + password)
        assert submission.eof_received()
        await transport.until_written(3)
        assert codes(b"".join(transport.written)) == [b"334", b"334", b"235" if is_whole else b"501"]
        assert bool(submission.session.authenticated) is is_whole


async def test_the_replies_to_ehlo_and_helo_name_the_extensions_and_no_machine() -> None:
    async with greeted(Intake(), auth="ignore") as (submission, transport):
        submission.data_received(b"EHLO x\r\n")
        lines = b"".join(transport.written).splitlines()
        assert lines[:2] == [b"250-localhost", b"250-PIPELINING"]
        assert {
            b"250-SIZE %d" % Listen(address="").max_message_size,
            b"250-8BITMIME",
            b"250-SMTPUTF8",
            b"250-AUTH LOGIN PLAIN",
        } <= set(lines)
        assert lines[-3:-2] == [b"250-ENHANCEDSTATUSCODES"]
        assert lines[-1] == b"250 DSN"
        transport.written.clear()
        submission.data_received(b"HELO x\r\n")
        assert b"".join(transport.written) == b"250 localhost\r\n"


async def test_an_empty_content_is_handed_over_as_it_is() -> None:
    intake = Intake()
    async with greeted(intake) as (submission, transport):
        submission.data_received(GROUP)
        transport.written.clear()
        submission.data_received(b".\r\n")
        await transport.until_written(1)
    assert [content for _, content in intake.committed] == [b""]


async def test_a_command_that_fails_at_once_is_an_internal_error_and_the_transaction_is_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    intake = Intake()

    def fail(_: bytes) -> None:
        raise RuntimeError("no\r\nspool")

    async with greeted(intake) as (submission, transport):
        with monkeypatch.context() as failing:
            failing.setattr(intake, "expect_message", fail)
            submission.data_received(MAIL + RCPT)
        submission.data_received(MAIL + RCPT)
        assert codes(b"".join(transport.written)) == [b"451", b"503", b"250", b"250"]
        assert transport.written[0].startswith(encode(replies.INTERNAL_ERROR))
    assert [(one.levelno, one.message) for one in caplog.records] == [
        (logging.ERROR, "a command failed: RuntimeError('no\\r\\nspool')")
    ]


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"rset", b"250 2.0.0 "),
        (b"RSET   ", b"250 2.0.0 "),
        (b"FROB", b"500 5.5.1 "),
        (b"NOOP \x07", b"500 5.5.2 "),
        (b"EHLO", b"501 5.5.4 "),
        (b"EXPN root", b"502 5.5.1 "),
        (b"STARTTLS", b"502 5.5.1 "),
        (b"HELP", b"214 2.0.0 "),
        (b"VRFY root", b"252 2.5.1 "),
        (b"DATA now", b"501 5.5.4 "),
        (b"QUIT now", b"501 5.5.4 "),
        (b"MAIL FROM:<\xff@b>", b"553 5.1.7 "),
    ],
)
async def test_a_command_line_has_its_reply_with_an_enhanced_code(line: bytes, reply: bytes) -> None:
    async with greeted(Intake()) as (submission, transport):
        submission.data_received(line + b"\r\n")
        assert b"".join(transport.written).startswith(reply)
        assert len(transport.written) == 1
