"""The SMTP commands: those of aiosmtpd, and our own in place of some.

aiosmtpd provides the session, the envelope, EHLO and its extensions, HELO, NOOP, RSET, EXPN, the dialogue of AUTH, and the
hooks; `handle_DATA` takes over the message. MAIL, RCPT, DATA, QUIT, HELP, VRFY, STARTTLS and AUTH are overridden, as the
documentation of aiosmtpd allows. Its read loop is not used, because it takes 15 to 34 % of the CPU time: `submission` calls
the commands.

Promises: only AUTH waits for the client; only RCPT waits for the mail server (the recipient probe). Only valid addresses and
parameter names of a client are logged. Any password is accepted, or the login is refused; no password is kept.
Never: aiosmtpd's address parser, which decodes RFC 2047 words into line ends.
"""

import asyncio
import binascii
import logging
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, cast

from aiosmtpd.smtp import MISSING, SMTP, AuthResult, Session, _Missing

from mailrelay.listener import replies
from mailrelay.listener.connection import ClientConnection
from mailrelay.listener.reception import Reception
from mailrelay.listener.server_state import ServerState
from mailrelay.listener.transaction import IncomingTransaction
from mailrelay.mail.client_reply import ClientReply
from mailrelay.mail.printable import printable

# aiosmtpd's own logger would write the clients' lines to the log.
logging.getLogger("mail.log").disabled = True

log = logging.getLogger("mailrelay.listener")

PROBE_LIMIT = 1.0
"""Seconds for the recipient probes of one message, all together."""

_ENHANCED_CODES = {b"250": b" 2.0.0 ", b"500": b" 5.5.2 ", b"501": b" 5.5.4 ", b"502": b" 5.5.1 ", b"503": b" 5.5.1 "}


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
        return [_offers(tuple(responses))]

    # aiosmtpd binds its own mechanisms to the server that its constructor made: see `smtp_attributes`.

    async def auth_PLAIN(self, server: SMTP, args: list[str]) -> AuthResult:  # noqa: N802
        return await server.auth_PLAIN(server, args)

    async def auth_LOGIN(self, server: SMTP, args: list[str]) -> AuthResult:  # noqa: N802
        return await server.auth_LOGIN(server, args)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: IncomingTransaction) -> ClientReply:  # noqa: N802
        content = envelope.content or b""
        if envelope.incoming is not None:
            return await envelope.incoming.finish(content)
        return await self._state.intake.submit(envelope.complete(), content)


def smtp_attributes(state: ServerState) -> dict[str, Any]:
    """The attributes that aiosmtpd's constructor sets, the same for all connections of a listener.

    The constructor takes 300 µs, because it inspects its own members: too much for every connection.
    """
    takes_any_password = state.settings.auth == "ignore"
    server = SMTP(
        Handler(state),
        data_size_limit=state.settings.max_message_size,
        enable_SMTPUTF8=True,
        hostname="localhost",
        ident="ESMTP mailrelay",
        auth_require_tls=not takes_any_password,
        authenticator=_any_password if takes_any_password else None,
        loop=asyncio.get_running_loop(),
    )
    return vars(server)


class Commands(ClientConnection):
    """The commands of one connection."""

    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"

    # One dict for all connections, to which aiosmtpd's EHLO only adds. Our limit is `submission.COMMAND_LIMIT`.
    command_size_limits: dict[str, int] = defaultdict(int)  # noqa: RUF012

    envelope: IncomingTransaction
    session: Session

    def __init__(self, state: ServerState, attributes: dict[str, Any]) -> None:
        super().__init__(state, attributes)
        self.session = self._create_session()
        self.envelope = self._create_envelope()

    # What `submission` does for the commands.

    def begin_content(self) -> None:
        """Start to receive the content. Closes instead if the client sends nothing more."""
        raise NotImplementedError

    async def next_line(self) -> bytes:
        """The next line from the client, which is not a command; b"*" if the client has closed."""
        raise NotImplementedError

    # What aiosmtpd calls.

    def _create_envelope(self) -> IncomingTransaction:
        return IncomingTransaction()

    async def push(self, status: str | bytes) -> None:
        # Text is aiosmtpd's own and lacks the enhanced code; bytes are complete.
        self.unsent += _in_octets(status) if isinstance(status, str) else status + b"\r\n"

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
                self._state.refused("content", reception.own_refusal, transaction.sender)
            refusal = await reception.conclude()
            if refusal is not None:
                return ClientReply(refusal)
            transaction.incoming, transaction.content = reception.incoming, reception.rest()
            return cast(ClientReply, await self.event_handler.handle_DATA(self, self.session, transaction))
        except Exception as error:
            log.error("a message could not be taken over: %s", printable(repr(error), 300))
            return ClientReply(replies.INTERNAL_ERROR)

    # Commands in the place of aiosmtpd's.

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        if self.session.host_name is None:
            self.reply(replies.HELLO_FIRST)
            return
        state, transaction = self._state, self.envelope
        settings = state.settings
        reply = transaction.mail(_octets(arg), settings.max_message_size, has_auth=settings.auth == "ignore")
        if reply is replies.SENDER_OK:
            sender = cast(bytes, transaction.sender)
            refusal = state.intake.refusal()
            if refusal is None:
                # A client that does not wait for the result of a message (`answer_within`) does not wait at RCPT either.
                transaction.probe_seconds = min(PROBE_LIMIT, settings.answer_within)
                state.intake.expect_message(sender)
            else:
                self.envelope = self._create_envelope()
                state.refused("MAIL", refusal, sender)
                reply = refusal
        else:
            state.refused("MAIL", reply)
        self.reply(reply)

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        transaction = self.envelope
        reply = transaction.rcpt(_octets(arg))
        if reply is replies.MAIL_FIRST:
            # Usually MAIL was refused, which is in the log.
            pass
        elif reply is not replies.RECIPIENT_OK:
            self._state.refused("RCPT", reply, transaction.sender)
        elif transaction.probe_seconds > 0:
            started = self.loop.time()
            # A task, because `asyncio.timeout` needs one.
            refusal = await self.loop.create_task(
                self._state.intake.probe_recipient(transaction.latest(), transaction.probe_seconds)
            )
            transaction.probe_seconds -= self.loop.time() - started
            if refusal is not None:
                transaction.withdraw()
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
            self._state.refused("DATA", replies.NO_RECIPIENTS, transaction.sender)
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
_NAMES = ("EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "QUIT", "NOOP", "HELP", "VRFY", "EXPN", "AUTH", "STARTTLS")
BY_VERB: dict[bytes, Callable[[Commands, str | None], Command]] = {
    name.encode("ascii"): getattr(Commands, f"smtp_{name}") for name in _NAMES
}
"""Coroutine functions of a connection and an argument, by the command's name. Clients can call no other method."""


def _any_password(*_: object) -> AuthResult:
    # Without auth_data: the session would keep the password.
    return AuthResult(success=True)


def _octets(arg: str | None) -> bytes:
    """The argument of a command, as the octets that the client sent."""
    return arg.encode("utf-8", "surrogateescape") if arg else b""


@lru_cache(maxsize=64)
def _in_octets(status: str) -> bytes:
    """A reply of aiosmtpd as octets to send, with the enhanced code that it lacks."""
    octets = printable(status.encode()).encode("ascii", "backslashreplace") + b"\r\n"
    enhanced = _ENHANCED_CODES.get(octets[:3])
    if enhanced is None or octets[4:6] in (b"2.", b"4.", b"5."):
        return octets
    return octets[:3] + enhanced + octets[4:]


@lru_cache(maxsize=8)
def _offers(responses: tuple[str, ...]) -> bytes:
    """The reply to EHLO: the extensions of aiosmtpd without its last one (HELP), and ours."""
    lines = [responses[0], "250-PIPELINING", *responses[1:-1], "250-ENHANCEDSTATUSCODES", "250 DSN"]
    return "\r\n".join(lines).encode("ascii")
