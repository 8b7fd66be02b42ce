"""Clients that require a login: refused with advice, or, if the settings allow it, accepted with any password."""

import asyncio
import logging
import smtplib
from base64 import b64encode

import pytest
from harness.listener import Intake, Wire, connect, greeted, listener

PLAIN = b64encode(b"\0me\0hunter2")
LOGIN = b64encode(b"me"), b64encode(b"hunter2")


async def dialogue(*steps: tuple[bytes, bytes], auth: str = "ignore") -> Intake:
    """Says each line and holds the beginning of its reply, after EHLO."""
    intake = Intake()

    async with listener(intake, auth=auth) as listening:
        wire = await connect(listening)
        await wire.reply()
        await wire.say(b"EHLO x")
        for said, reply in steps:
            assert (await wire.say(said)).startswith(reply), said
    return intake


async def offers(wire: Wire) -> bytes:
    await wire.reply()
    return await wire.say(b"EHLO x")


@pytest.mark.parametrize(("auth", "offered"), [("refuse", False), ("ignore", True)])
async def test_a_login_is_offered_only_where_the_settings_say_so(auth: str, offered: bool) -> None:
    async with listener(Intake(), auth=auth) as listening:
        assert (b"250-AUTH LOGIN PLAIN\r\n" in await offers(await connect(listening))) is offered


async def test_a_client_that_wants_login_or_encryption_is_told_what_to_switch_off() -> None:
    await dialogue(
        (b"AUTH PLAIN " + PLAIN, b"502 5.5.1 no login here: switch the password off for this server (localhost)"),
        (b"STARTTLS", b"502 5.5.1 no encryption here: switch encryption off for this server (localhost)"),
        auth="refuse",
    )
    await dialogue((b"STARTTLS", b"502 5.5.1 no encryption here: "))


@pytest.mark.parametrize(
    "steps",
    [
        [(b"AUTH PLAIN " + PLAIN, b"235 2.7.0 ")],
        [(b"auth plain " + PLAIN, b"235 2.7.0 ")],
        [(b"AUTH PLAIN", b"334 \r\n"), (PLAIN, b"235 2.7.0 ")],
        [(b"AUTH LOGIN", b"334 VXNlcm5hbWU6\r\n"), (LOGIN[0], b"334 UGFzc3dvcmQ6\r\n"), (LOGIN[1], b"235 2.7.0 ")],
        [(b"AUTH LOGIN " + LOGIN[0], b"334 UGFzc3dvcmQ6\r\n"), (LOGIN[1], b"235 2.7.0 ")],
    ],
)
async def test_any_password_is_accepted(steps: list[tuple[bytes, bytes]]) -> None:
    await dialogue(*steps, (b"AUTH PLAIN", b"503 "), (b"MAIL FROM:<a@b> AUTH=<>", b"250 "), (b"RCPT TO:<c@d>", b"250 "))


@pytest.mark.parametrize(
    ("line", "reply"),
    [(b"*", b"501 5.7.0 "), (b"no base64!", b"501 5.5.2 "), (b64encode(b"no NUL in here"), b"501 5.5.2 ")],
)
async def test_a_login_that_fails_leaves_the_dialogue_as_it_was(line: bytes, reply: bytes) -> None:
    await dialogue((b"AUTH PLAIN", b"334 "), (line, reply), (b"NOOP", b"250 "), (b"AUTH PLAIN " + PLAIN, b"235 "))


async def test_logins_out_of_turn_are_refused() -> None:
    await dialogue(
        (b"AUTH", b"501 "),
        (b"AUTH CRAM-MD5", b"504 5.5.4 "),
        (b"MAIL FROM:<a@b>", b"250 "),
        (b"AUTH PLAIN " + PLAIN, b"503 "),
    )


async def test_a_client_that_closes_during_a_login_leaves_no_task() -> None:
    async with listener(Intake(), auth="ignore") as listening:
        before = asyncio.all_tasks()
        for leave in (Wire.close, lambda wire: wire.writer.write_eof(), lambda wire: wire.writer.transport.abort()):
            wire = await connect(listening)
            await offers(wire)
            await wire.say(b"AUTH PLAIN")
            [login] = asyncio.all_tasks() - before
            [connection] = listening.connections
            leave(wire)
            await asyncio.wait({login, connection.closed})
            assert login.done()
            assert asyncio.all_tasks() <= before


async def test_a_login_is_cancelled_if_the_connection_ends_before_its_last_line_is_read() -> None:
    async with greeted(Intake(), auth="ignore") as (submission, _):
        submission.data_received(b"AUTH LOGIN\r\n")
        submission.data_received(b64encode(b"me") + b"\r\n" + b64encode(b"hunter2") + b"\r\n")
        [login] = asyncio.all_tasks() - {asyncio.current_task()}
        submission.connection_lost(None)
        async with asyncio.timeout(10):
            await login
        assert not submission.session.authenticated


async def test_a_client_that_is_idle_during_a_login_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailrelay.listener.submission.MAX_IDLE", 0.05)

    async with listener(Intake(), auth="ignore") as listening:
        wire = await connect(listening)
        await offers(wire)
        await wire.say(b"AUTH PLAIN")
        assert (await wire.rest()).startswith(b"421 4.4.2 ")


async def test_neither_login_nor_password_is_logged_or_kept(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with listener(Intake(), auth="ignore") as listening:
            wire = await connect(listening)
            await offers(wire)
            await wire.say(b"AUTH PLAIN " + PLAIN)
            [connection] = listening.connections
            session = connection.session  # type: ignore[attr-defined]
            assert session.authenticated
            assert "hunter2" not in repr(vars(session))
    assert "hunter2" not in caplog.text
    assert PLAIN.decode() not in caplog.text


async def test_smtplib_logs_in_and_sends() -> None:
    intake = Intake()

    def client(address: str) -> None:
        with smtplib.SMTP(*address.split(":")) as server:
            server.login("me", "hunter2")
            server.sendmail("me@example.org", ["you@example.net"], "hi\n")

    async with listener(intake, auth="ignore") as listening:
        await asyncio.to_thread(client, str(listening.addresses[0]))
    assert len(intake.committed) == 1


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_client_that_sends_name_and_password_together_is_logged_in(is_closed: bool) -> None:
    async with listener(Intake(), auth="ignore") as listening:
        wire = await connect(listening)
        await offers(wire)
        assert (await wire.say(b"AUTH LOGIN")).startswith(b"334 ")
        wire.writer.write(b"\r\n".join(LOGIN) + b"\r\n")
        if is_closed:
            wire.writer.write_eof()
        assert (await wire.reply()).startswith(b"334 ")
        assert (await wire.reply()).startswith(b"235 2.7.0 ")


async def test_a_line_that_may_be_a_password_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with listener(Intake(), auth="ignore") as listening:
        wire = await connect(listening)
        await offers(wire)
        await wire.say(b"AUTH LOGIN")
        await wire.say(b"not base64!")
        assert (await wire.say(b"hunter2:")).startswith(b"521 ")
    [line] = caplog.messages
    assert line.startswith("security: ")
    assert "hunter2" not in line
