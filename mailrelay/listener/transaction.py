"""One mail transaction, from MAIL to the content (RFC 5321 section 3.3): what the client said, checked, as an envelope.

Promises: addresses and parameters are kept as sent, and are fit to be written into another command. A command that is
refused changes nothing. Pure: no I/O.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

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
from mailrelay.mail.address import BadPath, parse_path
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Reply

RECIPIENT_LIMIT = 1000


class Transaction:
    """What has been accepted of MAIL and RCPT. `envelope` is None before MAIL."""

    def __init__(self) -> None:
        self.envelope: Envelope | None = None
        self.recipients: list[Recipient] = []

    def mail(self, arg: bytes, size_limit: int) -> Reply:
        """MAIL (RFC 5321 section 4.1.1.2). arg: the line behind `MAIL `. size_limit: octets."""
        if self.envelope is not None:
            return replies.NESTED_MAIL
        if arg[:5].upper() != b"FROM:":
            return replies.MAIL_SYNTAX
        try:
            sender, rest = parse_path(arg[5:], smtputf8=True, null=True)
            parameters = parse_parameters(rest)
            size = check_size(parameters.pop("SIZE", b"0"))
            smtputf8 = parameters.pop("SMTPUTF8", None)
            envelope = Envelope(
                sender=sender,
                recipients=(),
                body=check_body(parameters.pop("BODY", b"7BIT")),
                smtputf8=smtputf8 is not None,
                ret=_given(parameters, "RET", check_ret),
                envid=_given(parameters, "ENVID", check_envid),
            )
        except BadPath as error:
            return Reply(553, (b"5.1.7 %s" % str(error).encode(),))
        except BadParameter as error:
            return Reply(501, (b"5.5.4 %s" % str(error).encode(),))
        if smtputf8:
            return Reply(501, (b"5.5.4 SMTPUTF8 takes no value",))
        if parameters:
            return replies.UNKNOWN_PARAMETER
        if not sender.isascii() and not envelope.smtputf8:
            return replies.NEEDS_SMTPUTF8
        if size > size_limit:
            return replies.TOO_BIG
        self.envelope = envelope
        return replies.SENDER_OK

    def rcpt(self, arg: bytes) -> Reply:
        """RCPT (RFC 5321 section 4.1.1.3). arg: the line behind `RCPT `."""
        if self.envelope is None:
            return replies.MAIL_FIRST
        if arg[:3].upper() != b"TO:":
            return replies.RCPT_SYNTAX
        try:
            address, rest = parse_path(arg[3:], smtputf8=True, null=False)
            parameters = parse_parameters(rest)
            notify = _given(parameters, "NOTIFY", check_notify)
            orcpt = _given(parameters, "ORCPT", partial(check_orcpt, smtputf8=self.envelope.smtputf8))
        except BadPath as error:
            return Reply(553, (b"5.1.3 %s" % str(error).encode(),))
        except BadParameter as error:
            return Reply(501, (b"5.5.4 %s" % str(error).encode(),))
        if parameters:
            return replies.UNKNOWN_PARAMETER
        if not address.isascii() and not self.envelope.smtputf8:
            return replies.NEEDS_SMTPUTF8
        if len(self.recipients) >= RECIPIENT_LIMIT:
            return replies.TOO_MANY_RECIPIENTS
        self.recipients.append(Recipient(address, notify, orcpt))
        return replies.RECIPIENT_OK

    def latest(self) -> Envelope:
        """The envelope with the latest recipient alone. Raises ValueError before MAIL."""
        return self._envelope(self.recipients[-1:])

    def withdraw(self) -> None:
        """The latest recipient is refused after all."""
        self.recipients.pop()

    def complete(self) -> Envelope:
        """The envelope with its recipients. Raises ValueError before MAIL."""
        return self._envelope(self.recipients)

    def _envelope(self, recipients: Sequence[Recipient]) -> Envelope:
        if self.envelope is None:
            raise ValueError("there is no transaction")
        return replace(self.envelope, recipients=tuple(recipients))


def _given(parameters: dict[str, bytes], keyword: str, check: Callable[[bytes], bytes]) -> bytes:
    """Take a parameter out of those that are left, checked; b"" where it was not given."""
    return check(parameters.pop(keyword)) if keyword in parameters else b""
