"""The outcome of an attempt for a recipient, a message or a relayhost, as a value.

An `Outcome` holds either the mail server's reply (`reply`) or our description of the failure (`cause`, `text`, `fix`).
`mail.triage` decides what it means. Reply text is bytes from outside: `smtp.reply` bounds it, and the code that shows it
must escape it.
"""

import enum
import re
from dataclasses import dataclass


class Stage(enum.StrEnum):
    """The stage of an attempt at which its outcome was decided, in the order in which an attempt passes them."""

    DIAL = "dial"
    HOST_KEY = "host key"
    AUTH = "auth"
    CHANNEL = "channel"
    GREETING = "greeting"
    EHLO = "EHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "content"
    """The content, and the reply to it."""
    AFTER_DOT = "after-dot"
    """The connection was lost between the end of the content and the reply to it."""


class Scope(enum.StrEnum):
    """What an outcome concerns: all mail of a relayhost, one message, or one recipient."""

    RELAYHOST = "relayhost"
    MESSAGE = "message"
    RECIPIENT = "recipient"


class Cause(enum.StrEnum):
    """Why the attempt failed, if the mail server's reply does not say it. `REPLY`: the first digit of the reply decides."""

    REPLY = "reply"
    # The network: such a fault ends by itself. A notice is sent only if it lasts.
    UNREACHABLE = "unreachable"
    LOST = "connection-lost"
    # The setup: the person must fix it. A notice is sent at once.
    SSH_REFUSED = "ssh-refused"
    SSH_CONFIG = "ssh-config"
    HOST_KEY_UNKNOWN = "host-key-unknown"
    HOST_KEY_CHANGED = "host-key-changed"
    HOST_KEY_REVOKED = "host-key-revoked"
    AUTH_REFUSED = "auth-refused"
    FORWARDING_PROHIBITED = "forwarding-prohibited"
    SMTP_CLOSED = "smtp-closed"
    NOT_SMTP = "not-smtp"
    # The mail server ends each conversation before it has judged a message. This ends by itself.
    TURNED_AWAY = "turned-away"
    # The mail server's reply refuses mailrelay, not this mail (`mail.setup_reply`).
    HELO_REFUSED = "helo-refused"
    LOGIN_WANTED = "login-wanted"
    TLS_WANTED = "tls-wanted"
    CLIENT_REFUSED = "client-refused"
    COMMAND_REFUSED = "command-refused"
    # The message: it cannot be sent as it is.
    NO_SMTPUTF8 = "no-smtputf8"
    UNREADABLE = "unreadable"
    """Its envelope or its content cannot be read from the spool or written in SMTP."""


SETUP_REPLIES = frozenset(
    {Cause.HELO_REFUSED, Cause.LOGIN_WANTED, Cause.TLS_WANTED, Cause.CLIENT_REFUSED, Cause.COMMAND_REFUSED}
)
"""Causes for which there is a reply, and which every message would meet."""

_ENHANCED = re.compile(rb"([245])\.(\d{1,3})\.(\d{1,3})(?= |$)")


@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP reply (RFC 5321 section 4.2): a code from 200 to 599 and its lines of text, without code and line end."""

    code: int
    lines: tuple[bytes, ...] = ()

    @property
    def text(self) -> bytes:
        """The lines joined by spaces, with the enhanced code."""
        return b" ".join(self.lines)

    @property
    def status(self) -> str:
        """The enhanced status code (RFC 3463); without one, the first digit and ".0.0"."""
        return self._enhanced or f"{self.code // 100}.0.0"

    @property
    def has_status(self) -> bool:
        """Whether the reply has an enhanced status code."""
        return bool(self._enhanced)

    @property
    def _enhanced(self) -> str:
        found = _ENHANCED.match(self.lines[0]) if self.lines else None
        return found[0].decode("ascii") if found and found[1] == b"%d" % (self.code // 100) else ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to a recipient, a message or a relayhost at `stage`.

    With `cause` REPLY, `reply` is the mail server's; so it is with the causes of `mail.setup_reply`. Otherwise `text` is one
    sentence that says what happened. `fix` is the step with which the person repairs it, "" where there is none.
    """

    stage: Stage
    reply: Reply | None = None
    cause: Cause = Cause.REPLY
    text: str = ""
    fix: str = ""

    @property
    def description(self) -> bytes:
        """The mail server's code and text; without a reply, our sentence. Not escaped."""
        if self.reply is not None:
            return b"%d %s" % (self.reply.code, self.reply.text)
        return self.text.encode()

    @property
    def is_421(self) -> bool:
        """Whether the reply is 421, after which the mail server ends the conversation (RFC 5321 section 3.8)."""
        return self.reply is not None and self.reply.code == 421

    @property
    def ends_conversation(self) -> bool:
        """Whether this is no judgement of the mail server, but the end of the conversation: it was lost, or ended by 421 or
        after a reply that has no meaning at its stage."""
        if self.reply is None:
            return self.cause is Cause.LOST
        return self.is_421 or self.reply.code // 100 == 3

    @property
    def scope(self) -> Scope:
        """What the outcome concerns; it follows from the cause and the stage."""
        if self.cause in (Cause.NO_SMTPUTF8, Cause.UNREADABLE):
            return Scope.RECIPIENT if self.stage is Stage.RCPT else Scope.MESSAGE
        if self.cause is Cause.TURNED_AWAY or self.cause in SETUP_REPLIES:
            return Scope.RELAYHOST
        match self.stage:
            case Stage.DIAL | Stage.HOST_KEY | Stage.AUTH | Stage.CHANNEL | Stage.GREETING | Stage.EHLO:
                return Scope.RELAYHOST
            case Stage.RCPT if self.reply is not None:
                return Scope.RECIPIENT
            case _:
                return Scope.MESSAGE
