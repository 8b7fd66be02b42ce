"""Refusals are logged: one line each, with nothing of the client's lines except valid addresses."""

import pytest
from harness.listener import Intake, connect, listener

from mailrelay.listener.server_state import REFUSAL_LINES
from mailrelay.mail.outcome import Reply


async def said(*lines: bytes, intake: Intake | None = None, **settings: int) -> None:
    async with listener(intake or Intake(), **settings) as listening:
        wire = await connect(listening)
        await wire.reply()
        for line in (b"EHLO x", *lines):
            await wire.say(line)


MAIL, RCPT = b"MAIL FROM:<me@example.org>", b"RCPT TO:<you@example.net>"


@pytest.mark.parametrize(
    ("lines", "logged"),
    [
        ([b"MAIL FROM:<me@example.org> SIZE=99999999"], "NOQUEUE command=MAIL dsn=5.3.4 status=refused (552 5.3.4 "),
        ([b"MAIL FROM:<a b@c>"], "NOQUEUE command=MAIL dsn=5.1.7 status=refused (553 5.1.7 "),
        ([b"MAIL FROM:<me@example.org> FROB=1"], "NOQUEUE command=MAIL dsn=5.5.4 status=refused (555 5.5.4 "),
        ([MAIL, b"RCPT TO:<@>"], "NOQUEUE from=<me@example.org> command=RCPT dsn=5.1.3 status=refused (553 5.1.3 "),
        (
            [MAIL, "RCPT TO:<jö@b>".encode()],
            "NOQUEUE from=<me@example.org> command=RCPT dsn=5.6.7 status=refused (553 ",
        ),
        ([MAIL, b"DATA"], "NOQUEUE from=<me@example.org> command=DATA dsn=5.5.1 status=refused (554 5.5.1 "),
        (
            [MAIL, RCPT, b"DATA", b"bare\nline\r\n."],
            "NOQUEUE from=<me@example.org> command=content dsn=5.6.11 status=refused (550 5.6.11 ",
        ),
        (
            [MAIL, RCPT, b"DATA", b"nul\0\r\n."],
            "NOQUEUE from=<me@example.org> command=content dsn=5.6.0 status=refused (550 5.6.0 ",
        ),
    ],
)
async def test_a_refusal_is_one_line_in_the_log(
    lines: list[bytes], logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    await said(*lines)
    [line] = caplog.messages
    assert line.startswith(logged)
    assert line.isprintable()


async def test_the_reason_why_no_message_can_be_accepted_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    intake = Intake()
    intake.current_refusal = Reply(451, (b"4.3.0 the spool cannot be written",))
    await said(MAIL, RCPT, b"DATA", intake=intake)
    [line] = caplog.messages
    assert line.startswith("NOQUEUE from=<me@example.org> command=MAIL dsn=4.3.0 status=refused (451 4.3.0 ")


async def test_a_client_beyond_max_connections_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with listener(Intake(), max_connections=1) as listening:
        await (await connect(listening)).begin()
        assert (await (await connect(listening)).rest()).startswith(b"421 4.7.0 ")
    assert caplog.messages[0] == (
        "NOQUEUE command=connect dsn=4.7.0 status=refused (421 4.7.0 too many connections; closing)"
    )


async def test_a_client_that_is_refused_again_and_again_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    await said(*[b"MAIL FROM:<@>"] * (REFUSAL_LINES + 50))
    # The minute may turn once while this runs.
    assert REFUSAL_LINES <= len(caplog.messages) <= REFUSAL_LINES + 52


@pytest.mark.parametrize("data", [b"DATA", b"MAIL FROM:<b@c>\r\nDATA"])
async def test_a_client_that_sends_its_content_after_a_refused_data_is_not_a_security_warning(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """As Perl's Net::SMTP does for who does not look at what it returns."""
    intake = Intake()

    async with listener(intake) as listening:
        wire = await connect(listening)
        await wire.reply()
        await wire.say(b"EHLO x")
        for line in (MAIL, b"RCPT TO:<@>", b"DATA"):
            await wire.say(line)
        wire.writer.write(b"From: me@example.org\r\nSubject: MAIL\r\n\r\nMAIL FROM:<a@b>\r\nRSET\r\n.\r\nQUIT\r\n")
        assert (await wire.reply()).startswith(b"554 5.5.1 ")
        assert await wire.rest() == b""
    assert intake.committed == []
    assert intake.expected_from == [b"me@example.org"]
    assert not any("security" in line for line in caplog.messages)
    assert [line.split("command=")[1].split()[0] for line in caplog.messages] == ["RCPT", "DATA"]
