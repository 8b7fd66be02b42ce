"""One mail transaction of a client, from MAIL to the content (RFC 5321 section 3.3): MAIL and RCPT, checked, as an envelope.

A subclass of aiosmtpd's `Envelope`. MAIL and RCPT are parsed here, because aiosmtpd's parser is made for header fields.

Promises: addresses and parameters are kept as sent, and can be written into another command. A refused command changes
nothing. Pure: no I/O.
"""

from collections.abc import Callable, Sequence
from functools import partial

import aiosmtpd.smtp

from mailrelay.listener import replies
from mailrelay.listener.parameters import (
    BadParameter,
    check_body,
    check_envid,
    check_hold_for,
    check_hold_until,
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
from mailrelay.mail.send_time import SendTime

MAX_RECIPIENTS = 1000
"""Recipients of one message, at most."""


class _Refusal(Exception):
    """A command is refused with `reply`."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class IncomingTransaction(aiosmtpd.smtp.Envelope):
    """The sender and the recipients that were accepted. `sender` is None before MAIL.

    content: the message, or the part of it that `incoming` has not staged.
    probe_seconds: seconds left for the recipient probes, all together.
    owner: the uid of the client's account, None if messages do not belong to accounts.
    is_data_refused: DATA was refused because there was no recipient; the client may send the content nevertheless.
    mail_from, mail_options and rcpt_tos repeat the sender, its parameters and the recipients as text, for hooks of aiosmtpd.
    """

    sender: bytes | None = None
    body = b"7BIT"
    ret = envid = b""
    send_time: SendTime | None = None
    probe_seconds = 0.0
    is_data_refused = False
    content: bytes | None
    incoming: Incoming | None = None

    def __init__(self, owner: int | None = None) -> None:
        super().__init__()
        self.owner = owner
        self.recipients: list[Recipient] = []

    def mail(self, arg: bytes, size_limit: int, now: float, *, has_auth: bool = False) -> Reply:
        """Accepts or refuses MAIL (RFC 5321 section 4.1.1.2).

        arg: the line after `MAIL `. size_limit: octets. now: epoch seconds. has_auth: whether the AUTH parameter is
        accepted, and ignored (RFC 4954 section 5)."""
        try:
            self._mail(arg, size_limit, now, has_auth)
        except BadPath as error:
            return Reply(553, (b"5.1.7 %s" % str(error).encode(),))
        except BadParameter as error:
            return Reply(501, (b"5.5.4 %s" % str(error).encode(),))
        except _Refusal as refusal:
            return refusal.reply
        return replies.SENDER_OK

    def _mail(self, arg: bytes, size_limit: int, now: float, has_auth: bool) -> None:
        if self.sender is not None:
            raise _Refusal(replies.NESTED_MAIL)
        if arg[:5].upper() != b"FROM:":
            raise _Refusal(replies.MAIL_SYNTAX)
        sender, rest = parse_path(arg[5:], smtputf8=True, null=True)
        parameters = parse_parameters(rest) if rest else {}
        size = check_size(parameters.pop("SIZE")) if "SIZE" in parameters else 0
        smtputf8 = parameters.pop("SMTPUTF8", None)
        body = check_body(parameters.pop("BODY")) if "BODY" in parameters else b"7BIT"
        ret = _pop_checked(parameters, "RET", check_ret)
        envid = _pop_checked(parameters, "ENVID", check_envid)
        send_time = _pop_send_time(parameters, now)
        if has_auth:
            parameters.pop("AUTH", None)
        if smtputf8:
            raise BadParameter("SMTPUTF8 takes no value")
        if parameters:
            raise _Refusal(replies.UNKNOWN_PARAMETER)
        if not sender.isascii() and smtputf8 is None:
            raise _Refusal(replies.NEEDS_SMTPUTF8)
        if size > size_limit:
            raise _Refusal(replies.too_big(size_limit))
        self.is_data_refused = False
        self.sender, self.body, self.ret, self.envid = sender, body, ret, envid
        self.send_time = send_time
        self.smtp_utf8 = smtputf8 is not None
        self.mail_from = sender.decode()
        if rest:
            self.mail_options = rest.decode().split()

    def rcpt(self, arg: bytes) -> Reply:
        """Accepts or refuses RCPT (RFC 5321 section 4.1.1.3). arg: the line after `RCPT `."""
        try:
            self._rcpt(arg)
        except BadPath as error:
            return Reply(553, (b"5.1.3 %s" % str(error).encode(),))
        except BadParameter as error:
            return Reply(501, (b"5.5.4 %s" % str(error).encode(),))
        except _Refusal as refusal:
            return refusal.reply
        return replies.RECIPIENT_OK

    def _rcpt(self, arg: bytes) -> None:
        if self.sender is None:
            raise _Refusal(replies.MAIL_FIRST)
        if arg[:3].upper() != b"TO:":
            raise _Refusal(replies.RCPT_SYNTAX)
        address, rest = parse_path(arg[3:], smtputf8=True, null=False)
        parameters = parse_parameters(rest) if rest else {}
        notify = _pop_checked(parameters, "NOTIFY", check_notify)
        orcpt = _pop_checked(parameters, "ORCPT", partial(check_orcpt, smtputf8=self.smtp_utf8))
        if parameters:
            raise _Refusal(replies.UNKNOWN_PARAMETER)
        if not address.isascii() and not self.smtp_utf8:
            raise _Refusal(replies.NEEDS_SMTPUTF8)
        if len(self.recipients) >= MAX_RECIPIENTS:
            raise _Refusal(replies.TOO_MANY_RECIPIENTS)
        self.recipients.append(Recipient(address, notify, orcpt))
        self.rcpt_tos.append(address.decode())

    def envelope_of_last_recipient(self) -> Envelope:
        """The envelope with the last recipient alone. Raises ValueError before MAIL."""
        return self._envelope(self.recipients[-1:])

    def remove_last_recipient(self) -> None:
        """Removes the last recipient, which the mail server refuses."""
        self.recipients.pop()
        self.rcpt_tos.pop()

    def to_envelope(self) -> Envelope:
        """The envelope with all recipients. Raises ValueError before MAIL."""
        return self._envelope(self.recipients)

    def _envelope(self, recipients: Sequence[Recipient]) -> Envelope:
        if self.sender is None:
            raise ValueError("there is no transaction")
        return Envelope(
            self.sender,
            tuple(recipients),
            self.body,
            self.smtp_utf8,
            self.ret,
            self.envid,
            send_time=self.send_time,
            owner=self.owner,
        )


def _pop_send_time(parameters: dict[str, bytes], now: float) -> SendTime | None:
    """Removes HOLDFOR or HOLDUNTIL (RFC 4865) and returns the send time; None if there is neither. now: epoch seconds."""
    hold_for, hold_until = parameters.pop("HOLDFOR", None), parameters.pop("HOLDUNTIL", None)
    if hold_for is not None and hold_until is not None:
        raise BadParameter("HOLDFOR and HOLDUNTIL do not go together")
    if hold_for is not None:
        return check_hold_for(hold_for, now)
    return None if hold_until is None else check_hold_until(hold_until, now)


def _pop_checked(parameters: dict[str, bytes], keyword: str, check: Callable[[bytes], bytes]) -> bytes:
    """Removes a parameter and returns its checked value; b"" if it is absent."""
    return check(parameters.pop(keyword)) if keyword in parameters else b""
