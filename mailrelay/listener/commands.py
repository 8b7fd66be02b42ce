"""The SMTP commands: those of aiosmtpd, and our own in place of some.

aiosmtpd provides the session, the envelope, EHLO and its extensions, HELO, NOOP, RSET, EXPN, the dialogue of AUTH, and the
hooks; `handle_DATA` takes over the message. MAIL, RCPT, DATA, QUIT, HELP, VRFY, STARTTLS and AUTH are overridden, as the
documentation of aiosmtpd allows. Its read loop is not used, because it takes 15 to 34 % of the CPU time: `submission` calls
the commands.

Promises: only AUTH waits for the client; only RCPT waits for the mail server (the recipient probe). Of a client's arguments,
only valid addresses and parameter names are logged. With the setting auth = "ignore" any password is accepted, otherwise
AUTH is refused; no password is kept.
Never: aiosmtpd's address parser, because encoded words (RFC 2047) in an address can become line ends there.
"""

import asyncio
import binascii
import logging
import time
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, cast

from aiosmtpd.smtp import MISSING, SMTP, AuthResult, Session, _Missing

from mailrelay.listener import replies
from mailrelay.listener.connection import ClientConnection
from mailrelay.listener.parameters import future_release
from mailrelay.listener.reception import Reception
from mailrelay.listener.server_state import ServerState
from mailrelay.listener.transaction import IncomingTransaction
from mailrelay.mail.client_reply import ClientReply
from mailrelay.mail.printable import printable

# aiosmtpd's own logger would write the clients' lines to the log.
logging.getLogger("mail.log").disabled = True

log = logging.getLogger("mailrelay.listener")

MAX_PROBE = 1.0
"""Seconds for the recipient probes of one message, all together."""

_ENHANCED_CODES = {b"250": b" 2.0.0 ", b"500": b" 5.5.2 ", b"501": b" 5.5.4 ", b"502": b" 5.5.1 ", b"503": b" 5.5.1 "}
"""The enhanced code that is added to a reply of aiosmtpd, by its code."""


class Handler:
    """aiosmtpd's hooks, the same for all connections of a listener."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def handle_HELO(self, server: SMTP, session: Session, envelope: IncomingTransaction, hostname: str) -> bytes:  # noqa: N802
        session.host_name = hostname
        return b"250 " + server.hostname.encode("ascii")

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: IncomingTransaction, hostname: str, responses: list[str]
    ) -> list[bytes]:
        session.host_name = hostname
        # The keyword of RFC 4865 names a time, which changes each second.
        return [_ehlo_reply(tuple(responses), future_release(time.time()))]

    # aiosmtpd's own mechanisms are bound to the one server that `smtp_attributes` makes. These use the server of the
    # connection.

    async def auth_PLAIN(self, server: SMTP, args: list[str]) -> AuthResult:  # noqa: N802
        return await server.auth_PLAIN(server, args)

    async def auth_LOGIN(self, server: SMTP, args: list[str]) -> AuthResult:  # noqa: N802
        return await server.auth_LOGIN(server, args)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: IncomingTransaction) -> ClientReply:  # noqa: N802
        content = envelope.content or b""
        if envelope.incoming is not None:
            return await envelope.incoming.finish(content)
        return await self._state.intake.submit(envelope.to_envelope(), content)


def smtp_attributes(state: ServerState) -> dict[str, Any]:
    """The attributes that aiosmtpd's constructor sets, the same for all connections of a listener.

    Made once, because the constructor takes 300 µs: it inspects its own members.
    """
    accepts_any_password = state.settings.auth == "ignore"
    server = SMTP(
        Handler(state),
        data_size_limit=state.settings.max_message_size,
        enable_SMTPUTF8=True,
        hostname="localhost",
        ident="ESMTP mailrelay",
        auth_require_tls=not accepts_any_password,
        authenticator=_accept_any_password if accepts_any_password else None,
        loop=asyncio.get_running_loop(),
    )
    return vars(server)


class Commands(ClientConnection):
    """The commands of one connection."""

    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"

    # aiosmtpd's EHLO writes its limits here; nothing reads them, so one dict serves all connections. Our limit is
    # `submission.MAX_COMMAND`.
    command_size_limits: dict[str, int] = defaultdict(int)  # noqa: RUF012

    envelope: IncomingTransaction
    session: Session

    def __init__(self, state: ServerState, attributes: dict[str, Any]) -> None:
        super().__init__(state, attributes)
        self.session = self._create_session()
        self.envelope = self._create_envelope()

    # Implemented in `submission`.

    def begin_content(self) -> None:
        """Start to receive the content. If the client has closed its side, reply and close instead."""
        raise NotImplementedError

    async def next_line(self) -> bytes:
        """Wait for the next line from the client and return it without its line end; it is not run as a command. Returns
        b"*", which cancels AUTH, if the client has closed its side."""
        raise NotImplementedError

    # Called by aiosmtpd.

    def _create_envelope(self) -> IncomingTransaction:
        return IncomingTransaction(self.owner)

    async def push(self, status: str | bytes) -> None:
        # Text is aiosmtpd's own and lacks the enhanced code; bytes are complete.
        self.unsent += _encode_reply(status) if isinstance(status, str) else status + b"\r\n"

    async def challenge_auth(
        self, challenge: str | bytes, encode_to_b64: bool = True, log_client_response: bool = False
    ) -> _Missing | bytes:
        octets = challenge.encode() if isinstance(challenge, str) else challenge
        self.unsent += b"334 %s\r\n" % (b64encode(octets) if encode_to_b64 else octets)
        line = (await self.next_line()).strip()
        try:
            if line != b"*":
                return b64decode(line, validate=True)
            await self.push("501 5.7.0 cancelled")
        except binascii.Error:
            await self.push("501 5.5.2 not base64")
        return MISSING

    # The end of a content.

    async def take_over(self, transaction: IncomingTransaction, reception: Reception) -> ClientReply:
        """Hand over the message whose content has been received. Returns the reply to it; raises nothing."""
        try:
            if reception.own_refusal is not None:
                self._state.log_refusal("content", reception.own_refusal, transaction.sender)
            refusal = await reception.conclude()
            if refusal is not None:
                return ClientReply(refusal)
            transaction.incoming, transaction.content = reception.incoming, reception.rest()
            return cast(ClientReply, await self.event_handler.handle_DATA(self, self.session, transaction))
        except Exception as error:
            log.error("a message could not be taken over: %s", printable(repr(error), 300))
            return ClientReply(replies.INTERNAL_ERROR)

    # Commands that override those of aiosmtpd.

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        if self.session.host_name is None:
            self.reply(replies.HELLO_FIRST)
            return
        state, transaction = self._state, self.envelope
        settings = state.settings
        reply = transaction.mail(
            _as_sent(arg), settings.max_message_size, time.time(), has_auth=settings.auth == "ignore"
        )
        if reply is replies.SENDER_OK:
            sender = cast(bytes, transaction.sender)
            refusal = state.intake.refusal()
            if refusal is None:
                # A client that does not wait for the result of a message (`answer_within`) does not wait at RCPT either.
                transaction.probe_seconds = min(MAX_PROBE, settings.answer_within)
                if transaction.send_time is None:
                    state.intake.expect_message(sender)
            else:
                self.envelope = self._create_envelope()
                state.log_refusal("MAIL", refusal, sender)
                reply = refusal
        else:
            state.log_refusal("MAIL", reply)
        self.reply(reply)

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        transaction = self.envelope
        reply = transaction.rcpt(_as_sent(arg))
        if reply is replies.MAIL_FIRST:
            # Usually MAIL was refused, which is in the log.
            pass
        elif reply is not replies.RECIPIENT_OK:
            self._state.log_refusal("RCPT", reply, transaction.sender)
        elif transaction.probe_seconds > 0:
            started = self.loop.time()
            # A task, because `asyncio.timeout` needs one.
            refusal = await self.loop.create_task(
                self._state.intake.probe_recipient(transaction.envelope_of_last_recipient(), transaction.probe_seconds)
            )
            transaction.probe_seconds -= self.loop.time() - started
            if refusal is not None:
                transaction.remove_last_recipient()
                reply = refusal
        self.reply(reply)

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802
        transaction = self.envelope
        if arg:
            self.reply(replies.NO_ARGUMENT)
        elif transaction.recipients:
            self.begin_content()
        elif transaction.sender is None:
            transaction.is_data_refused = True
            self.reply(replies.MAIL_FIRST)
        else:
            transaction.is_data_refused = True
            self._state.log_refusal("DATA", replies.NO_RECIPIENTS, transaction.sender)
            self.reply(replies.NO_RECIPIENTS)

    async def smtp_QUIT(self, arg: str | None) -> None:  # noqa: N802
        if arg:
            self.reply(replies.NO_ARGUMENT)
        else:
            self.reply_and_close(replies.BYE)

    async def smtp_HELP(self, arg: str | None) -> None:  # noqa: N802
        self.reply(replies.HELP)

    async def smtp_VRFY(self, arg: str | None) -> None:  # noqa: N802
        self.reply(replies.CANNOT_VERIFY)

    async def smtp_STARTTLS(self, arg: str | None) -> None:  # noqa: N802
        self.reply(replies.NO_ENCRYPTION)

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802
        if self._state.settings.auth != "ignore":
            self.reply(replies.NO_LOGIN)
        elif self.envelope.sender is not None:
            self.reply(replies.NO_LOGIN_NOW)
        else:
            mechanism, _, initial = (arg or "").partition(" ")
            await super().smtp_AUTH(f"{mechanism.upper()} {initial}".strip())


Command = Coroutine[Any, Any, None]
"""A command with its argument, not started yet."""
_VERBS = ("EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "QUIT", "NOOP", "HELP", "VRFY", "EXPN", "AUTH", "STARTTLS")
BY_VERB: dict[bytes, Callable[[Commands, str | None], Command]] = {
    verb.encode("ascii"): getattr(Commands, f"smtp_{verb}") for verb in _VERBS
}
"""The function of each command, by its verb in capitals. It takes the connection and the argument. Clients can call no other
method."""


def _accept_any_password(*_: object) -> AuthResult:
    # Without `auth_data`, in which the session would keep the password.
    return AuthResult(success=True)


def _as_sent(arg: str | None) -> bytes:
    """The argument of a command, as the octets that the client sent; b"" for None."""
    return arg.encode("utf-8", "surrogateescape") if arg else b""


@lru_cache(maxsize=64)
def _encode_reply(status: str) -> bytes:
    """A reply of aiosmtpd as octets to send, escaped, with the enhanced code added if it has none."""
    octets = printable(status.encode()).encode("ascii", "backslashreplace") + b"\r\n"
    enhanced = _ENHANCED_CODES.get(octets[:3])
    if enhanced is None or octets[4:6] in (b"2.", b"4.", b"5."):
        return octets
    return octets[:3] + enhanced + octets[4:]


@lru_cache(maxsize=8)
def _ehlo_reply(responses: tuple[str, ...], future_release: str) -> bytes:
    """The reply to EHLO: the lines of aiosmtpd without the last one (HELP), and our extensions."""
    lines = [responses[0], "250-PIPELINING", *responses[1:-1], "250-ENHANCEDSTATUSCODES"]
    lines += [f"250-{future_release}", "250 DSN"]
    return "\r\n".join(lines).encode("ascii")
