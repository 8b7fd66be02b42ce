"""The parts of aiosmtpd that are used, so that a change in a new version is noticed."""

import logging

import aiosmtpd.smtp
import pytest
from harness.listener import Intake, Wire, connect, listener

from mailrelay.config import Listen
from mailrelay.listener.commands import BY_VERB, Commands, smtp_attributes
from mailrelay.listener.server_state import ServerState
from mailrelay.listener.submission import Submission, protocol_factory
from mailrelay.listener.transaction import IncomingTransaction

OVERRIDDEN = {"MAIL", "RCPT", "DATA", "QUIT", "HELP", "VRFY", "STARTTLS", "AUTH"}
INHERITED = {"EHLO", "HELO", "RSET", "NOOP", "EXPN"}
ATTRIBUTES = {
    # Of its own.
    "__ident__", "loop", "event_handler", "data_size_limit", "enable_SMTPUTF8", "hostname", "tls_context", "transport",
    "require_starttls", "session", "envelope", "_decode_data", "_timeout_duration", "_timeout_handle", "_tls_protocol",
    "_tls_handshake_okay", "_original_transport", "_handler_coroutine", "_auth_require_tls", "_proxy_timeout",
    "_auth_callback", "_authenticator", "_auth_required", "_auth_methods", "_handle_hooks", "_ehlo_hook_ver",
    "_smtp_methods", "_enforce_call_limit",
}  # fmt: skip
STREAM = {
    # Of asyncio.StreamReaderProtocol, none of which is in use.
    "_loop", "_paused", "_connection_lost", "_stream_reader_wr", "_source_traceback", "_reject_connection", "_task",
    "_transport", "_client_connected_cb", "_over_ssl", "_closed", "_strong_reader", "_stream_writer", "_drain_waiter",
    "_drain_waiters",
}  # fmt: skip


async def test_the_server_is_aiosmtpds_and_so_are_its_session_and_its_envelope() -> None:
    assert issubclass(Submission, aiosmtpd.smtp.SMTP)
    assert issubclass(IncomingTransaction, aiosmtpd.smtp.Envelope)

    connection = protocol_factory(ServerState(Listen(), Intake(), None))()
    assert type(connection.session) is aiosmtpd.smtp.Session
    assert type(connection.envelope) is IncomingTransaction
    assert connection.data_size_limit == Listen().max_message_size


async def test_its_constructor_makes_the_attributes_that_are_known() -> None:
    made = set(smtp_attributes(ServerState(Listen(), Intake(), None)))
    assert made - STREAM == ATTRIBUTES


def test_its_commands_are_those_that_are_known_and_clients_reach_no_other() -> None:
    known = {name.removeprefix("smtp_") for name in dir(aiosmtpd.smtp.SMTP) if name.startswith("smtp_")}
    assert known == OVERRIDDEN | INHERITED
    assert {name.decode() for name in BY_VERB} == known
    for name in OVERRIDDEN:
        assert getattr(Commands, f"smtp_{name}") is not getattr(aiosmtpd.smtp.SMTP, f"smtp_{name}")
    for name in INHERITED:
        assert getattr(Commands, f"smtp_{name}") is getattr(aiosmtpd.smtp.SMTP, f"smtp_{name}")


async def test_connections_share_nothing_that_one_of_them_changes() -> None:
    make = protocol_factory(ServerState(Listen(), Intake(), None))
    one, other = make(), make()
    await one.smtp_EHLO("client")
    await one.smtp_MAIL("FROM:<a@b>")
    assert (one.session.host_name, one.envelope.sender) == ("client", b"a@b")
    assert other.session.host_name is None
    assert other.envelope.sender is None
    assert other.unsent == b""
    assert one.session is not other.session


async def everything(wire: Wire) -> bytes:
    """A dialogue in which every command occurs; the replies."""
    said = b""
    await wire.reply()
    for line in (
        b"HELO x", b"EHLO x", b"NOOP", b"NOOP x", b"HELP", b"HELP MAIL", b"VRFY <a@b>", b"EXPN list", b"AUTH PLAIN",
        b"STARTTLS", b"MAIL FROM:<=?utf-8?q?a=0d=0a?=@b>", b"RCPT TO:<c@d>", b"RSET", b"RSET x",
        b"MAIL FROM:<a@b> SIZE=10", b"RCPT TO:<c@d>", b"DATA", b"hi\r\n.", b"QUIT x", b"QUIT",
    ):  # fmt: skip
        said += await wire.say(line)
    return said


async def test_its_parser_of_paths_its_stream_and_its_logger_are_never_reached(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def reached(*_: object) -> None:
        raise AssertionError

    for name in ("_getaddr", "_getparams", "_handle_client", "_reset_timeout"):
        monkeypatch.setattr(aiosmtpd.smtp.SMTP, name, reached)
    intake = Intake()

    with caplog.at_level(logging.DEBUG):
        async with listener(intake) as listening:
            said = await everything(await connect(listening))
    assert len(intake.committed) == 1
    assert b"451" not in said
    assert not [record for record in caplog.records if record.name == "mail.log"]


async def test_every_reply_of_its_own_has_an_enhanced_code() -> None:
    async def main() -> bytes:
        async with listener(Intake()) as listening:
            return await everything(await connect(listening))

    hello = 0
    for line in (await main()).splitlines():
        if line.startswith((b"354", b"250 localhost", b"250-", b"250 DSN")):
            hello += 1
            continue
        code, enhanced = line[:3], line[4:].split(b" ")[0]
        assert enhanced.count(b".") == 2, line
        assert enhanced[:1] == code[:1], line
    assert hello >= 8
