"""One mail transaction, from MAIL to the content (RFC 5321 section 3.3): what the client said, checked, as an envelope.

A subclass of aiosmtpd's `Envelope`. MAIL and RCPT are parsed here, because aiosmtpd's parser is made for header fields.

Promises: addresses and parameters are kept as sent, and are fit to be written into another command. A command that is
refused changes nothing. Pure: no I/O.
"""

from collections.abc import Callable, Sequence
from functools import partial

import aiosmtpd.smtp

from mailrelay.listener import replies
from mailrelay.listener.parameters import (
    BadParameter,
    check_body,
    check_envid,
    check_notify,
    check_orcpt,
    check_ret,
    check_size,
    parse_parameters,
)
from mailrelay.listener.reception import Incoming
from mailrelay.mail.address import BadPath, parse_path
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Reply

RECIPIENT_LIMIT = 1000


class IncomingTransaction(aiosmtpd.smtp.Envelope):
    """What has been accepted of MAIL and RCPT. `sender` is None before MAIL.

    content: the message, or the part of it that `incoming` has not staged.
    patience: seconds left for vetting all recipients.
    is_data_refused: DATA was refused for want of a recipient; content may come all the same.
    mail_from, mail_options and rcpt_tos repeat the others, as text, for hooks of aiosmtpd's.
    """

    sender: bytes | None = None
    body = b"7BIT"
    ret = envid = b""
    patience = 0.0
    is_data_refused = False
    content: bytes | None
    incoming: Incoming | None = None

    def __init__(self) -> None:
        super().__init__()
        self.recipients: list[Recipient] = []

    def mail(self, arg: bytes, size_limit: int, *, has_auth: bool = False) -> Reply:
        """MAIL (RFC 5321 section 4.1.1.2). arg: the line behind `MAIL `. size_limit: octets. has_auth: the AUTH
        parameter is accepted, and ignored (RFC 4954 section 5)."""
        if self.sender is not None:
            return replies.NESTED_MAIL
        if arg[:5].upper() != b"FROM:":
            return replies.MAIL_SYNTAX
        try:
            sender, rest = parse_path(arg[5:], smtputf8=True, null=True)
            parameters = parse_parameters(rest) if rest else {}
            size = check_size(parameters.pop("SIZE")) if "SIZE" in parameters else 0
            smtputf8 = parameters.pop("SMTPUTF8", None)
            body = check_body(parameters.pop("BODY")) if "BODY" in parameters else b"7BIT"
            ret = _given(parameters, "RET", check_ret)
            envid = _given(parameters, "ENVID", check_envid)
        except BadPath as error:
            return Reply(553, (b"5.1.7 %s" % str(error).encode(),))
        except BadParameter as error:
            return Reply(501, (b"5.5.4 %s" % str(error).encode(),))
        if has_auth:
            parameters.pop("AUTH", None)
        if smtputf8:
            return Reply(501, (b"5.5.4 SMTPUTF8 takes no value",))
        if parameters:
            return replies.UNKNOWN_PARAMETER
        if not sender.isascii() and smtputf8 is None:
            return replies.NEEDS_SMTPUTF8
        if size > size_limit:
            return replies.too_big(size_limit)
        self.is_data_refused = False
        self.sender, self.body, self.ret, self.envid = sender, body, ret, envid
        self.smtp_utf8 = smtputf8 is not None
        self.mail_from = sender.decode()
        if rest:
            self.mail_options = rest.decode().split()
        return replies.SENDER_OK

    def rcpt(self, arg: bytes) -> Reply:
        """RCPT (RFC 5321 section 4.1.1.3). arg: the line behind `RCPT `."""
        if self.sender is None:
            return replies.MAIL_FIRST
        if arg[:3].upper() != b"TO:":
            return replies.RCPT_SYNTAX
        try:
            address, rest = parse_path(arg[3:], smtputf8=True, null=False)
            parameters = parse_parameters(rest) if rest else {}
            notify = _given(parameters, "NOTIFY", check_notify)
            orcpt = _given(parameters, "ORCPT", partial(check_orcpt, smtputf8=self.smtp_utf8))
        except BadPath as error:
            return Reply(553, (b"5.1.3 %s" % str(error).encode(),))
        except BadParameter as error:
            return Reply(501, (b"5.5.4 %s" % str(error).encode(),))
        if parameters:
            return replies.UNKNOWN_PARAMETER
        if not address.isascii() and not self.smtp_utf8:
            return replies.NEEDS_SMTPUTF8
        if len(self.recipients) >= RECIPIENT_LIMIT:
            return replies.TOO_MANY_RECIPIENTS
        self.recipients.append(Recipient(address, notify, orcpt))
        self.rcpt_tos.append(address.decode())
        return replies.RECIPIENT_OK

    def latest(self) -> Envelope:
        """The envelope with the latest recipient alone. Raises ValueError before MAIL."""
        return self._envelope(self.recipients[-1:])

    def withdraw(self) -> None:
        """The latest recipient is refused after all."""
        self.recipients.pop()
        self.rcpt_tos.pop()

    def complete(self) -> Envelope:
        """The envelope with its recipients. Raises ValueError before MAIL."""
        return self._envelope(self.recipients)

    def _envelope(self, recipients: Sequence[Recipient]) -> Envelope:
        if self.sender is None:
            raise ValueError("there is no transaction")
        return Envelope(self.sender, tuple(recipients), self.body, self.smtp_utf8, self.ret, self.envid)


def _given(parameters: dict[str, bytes], keyword: str, check: Callable[[bytes], bytes]) -> bytes:
    """Remove a parameter and return its checked value; b"" if it is absent."""
    return check(parameters.pop(keyword)) if keyword in parameters else b""
