"""How an attempt ended, as a value: at which stage, in whose words, and whom it concerns.

An `Outcome` carries either the remote's own words (`reply`) or ours (`cause`, `text`, `fix`); it judges nothing.
`mail.triage` judges it. Reply text is bytes from outside: bounded by `smtp.reply`, and escaped by whoever shows it.
"""

import enum
import re
from dataclasses import dataclass


class Stage(enum.StrEnum):
    """Where on the way out an attempt stood when its outcome was decided, in the order in which they are passed."""

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
    AFTER_DOT = "after-dot"


class Scope(enum.StrEnum):
    """Whom an outcome concerns: all mail of a relayhost, one message, or one recipient."""

    RELAYHOST = "relayhost"
    MESSAGE = "message"
    RECIPIENT = "recipient"


class Cause(enum.StrEnum):
    """Why there is no reply of the remote's to judge. `REPLY` means that there is one."""

    REPLY = "reply"
    # The line: heals itself, told once it has lasted.
    UNREACHABLE = "unreachable"
    LOST = "connection-lost"
    # The setup: waits for the person, told at once.
    SSH_REFUSED = "ssh-refused"
    SSH_CONFIG = "ssh-config"
    HOST_KEY_UNKNOWN = "host-key-unknown"
    HOST_KEY_CHANGED = "host-key-changed"
    HOST_KEY_REVOKED = "host-key-revoked"
    AUTH_REFUSED = "auth-refused"
    FORWARDING_PROHIBITED = "forwarding-prohibited"
    SMTP_CLOSED = "smtp-closed"
    NOT_SMTP = "not-smtp"
    # The message: cannot be sent as it is.
    NO_SMTPUTF8 = "no-smtputf8"
    UNREADABLE = "unreadable"


_ENHANCED = re.compile(rb"([245])\.(\d{1,3})\.(\d{1,3})(?= |$)")


@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP reply (RFC 5321 section 4.2): a code from 200 to 599 and its lines of text, without code and line end."""

    code: int
    lines: tuple[bytes, ...] = ()

    @property
    def text(self) -> bytes:
        """The lines as one, joined by a space, with the enhanced code left in front."""
        return b" ".join(self.lines)

    @property
    def status(self) -> str:
        """The enhanced status code (RFC 3463), or one made from the first digit where the remote sent none."""
        found = _ENHANCED.match(self.lines[0]) if self.lines else None
        if found and found[1] == b"%d" % (self.code // 100):
            return found[0].decode("ascii")
        return f"{self.code // 100}.0.0"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to a recipient, a message or a relayhost at `stage`.

    With `cause` REPLY, `reply` is the remote's; otherwise `text` is one sentence of ours that says what happened, and
    `fix`, where the person must act, the exact step that fixes it.
    """

    stage: Stage
    reply: Reply | None = None
    cause: Cause = Cause.REPLY
    text: str = ""
    fix: str = ""

    @property
    def description(self) -> bytes:
        """What to show: the remote's code and words where there are any, otherwise ours. Not escaped."""
        if self.reply is not None:
            return b"%d %s" % (self.reply.code, self.reply.text)
        return self.text.encode()

    @property
    def scope(self) -> Scope:
        if self.cause in (Cause.NO_SMTPUTF8, Cause.UNREADABLE):
            return Scope.MESSAGE
        match self.stage:
            case Stage.DIAL | Stage.HOST_KEY | Stage.AUTH | Stage.CHANNEL | Stage.GREETING | Stage.EHLO:
                return Scope.RELAYHOST
            case Stage.RCPT if self.reply is not None:
                return Scope.RECIPIENT
            case _:
                return Scope.MESSAGE
