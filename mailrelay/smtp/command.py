"""MAIL and RCPT as octets, for one mail server (RFC 5321 section 4.1.1).

Promises: a parameter is sent only if the mail server offers its extension. For an envelope or a recipient that this mail
server does not accept, or that it could misread, `unsendable` and `unsendable_recipient` return an outcome before anything
is sent. Addresses were checked when they were received (`mail.address`). Here they are checked again for characters that
make a command dangerous: control characters, and spaces, quotes and angle brackets outside a quoted string.

A mail server without SMTPUTF8 gets the domains in A-labels (`mail.a_labels`). Header fields with addresses in UTF-8
(RFC 6532) are sent as they are.
"""

import re

from mailrelay.mail.a_labels import with_a_labels
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.smtp.extensions import Extensions

_ADDRESS = re.compile(
    rb"""(?:[^\x00-\x20\x7f"\\<>]|\\[^\x00-\x20\x7f"<>@]|"(?:[^\x00-\x1f\x7f"\\]|\\[^\x00-\x1f\x7f])*")*"""
)
# RFC 5321 section 4.1.2, esmtp-value, with the octets that RFC 6531 adds.
_VALUE = re.compile(rb"[!-<>-~\x80-\xff]*")


def mail(envelope: Envelope, size: int | None, offered: Extensions) -> bytes:
    """The MAIL command with its CR LF. `unsendable` must have returned None for the envelope. size: octets of content, None
    if it is not known."""
    line = b"MAIL FROM:<%b>" % _written(envelope.sender, offered)
    if offered.size is not None and size is not None:
        line += b" SIZE=%d" % size
    if offered.eightbitmime and envelope.body == b"8BITMIME":
        line += b" BODY=8BITMIME"
    if offered.smtputf8 and (envelope.smtputf8 or not _is_ascii(envelope)):
        line += b" SMTPUTF8"
    if offered.dsn and envelope.ret:
        line += b" RET=%b" % envelope.ret
    if offered.dsn and envelope.envid:
        line += b" ENVID=%b" % envelope.envid
    return line + b"\r\n"


def rcpt(recipient: Recipient, offered: Extensions) -> bytes:
    """The RCPT command with its CR LF. `unsendable_recipient` must have returned None for the recipient."""
    line = b"RCPT TO:<%b>" % _written(recipient.address, offered)
    if offered.dsn and recipient.notify:
        line += b" NOTIFY=%b" % recipient.notify
    # RFC 6533 section 3: an original recipient in UTF-8 may be sent only to a server that offers SMTPUTF8.
    if offered.dsn and recipient.orcpt and (offered.smtputf8 or recipient.orcpt.isascii()):
        line += b" ORCPT=%b" % recipient.orcpt
    return line + b"\r\n"


def unsendable(envelope: Envelope, offered: Extensions) -> Outcome | None:
    """Why nothing of `envelope` can be sent to this mail server; None if that depends on its recipients."""
    if envelope.is_damaged:
        return _damaged(Stage.MAIL, "envelope")
    if not _is_safe(envelope.sender, envelope.ret, envelope.envid):
        return _unreadable(Stage.MAIL)
    if not _is_acceptable(envelope.sender, offered):
        return Outcome(
            Stage.EHLO,
            cause=Cause.NO_SMTPUTF8,
            text="the sender is not ASCII, and the mail server does not accept such addresses (it lacks SMTPUTF8)",
            fix="send the message from an ASCII address, or enable SMTPUTF8 on the mail server",
        )
    return None


def unsendable_recipient(recipient: Recipient, offered: Extensions) -> Outcome | None:
    """Why the message cannot be sent to this recipient by this mail server; None if it can."""
    if recipient.is_damaged:
        return _damaged(Stage.RCPT, "address")
    if not _is_safe(recipient.address, recipient.notify, recipient.orcpt):
        return _unreadable(Stage.RCPT)
    if not _is_acceptable(recipient.address, offered):
        return Outcome(
            Stage.RCPT,
            cause=Cause.NO_SMTPUTF8,
            text="the address is not ASCII, and the mail server does not accept such addresses (it lacks SMTPUTF8)",
            fix="send the message to an ASCII address, or enable SMTPUTF8 on the mail server",
        )
    return None


def _is_safe(address: bytes, *values: bytes) -> bool:
    return _ADDRESS.fullmatch(address) is not None and all(map(_VALUE.fullmatch, values))


def _unreadable(stage: Stage) -> Outcome:
    return Outcome(
        stage,
        cause=Cause.UNREADABLE,
        text="the envelope has an address or a parameter that cannot be written into an SMTP command",
        fix="show the message with `mailrelay queue show ID`, then cancel it and send it again",
    )


def _damaged(stage: Stage, what: str) -> Outcome:
    return Outcome(
        stage,
        cause=Cause.UNREADABLE,
        text=f"the {what} in the spool is not as it was written (its checksum does not match)",
        fix="look at the disk; show the message with `mailrelay queue show ID`, then cancel it and send it again",
    )


def _is_acceptable(address: bytes, offered: Extensions) -> bool:
    return offered.smtputf8 or address.isascii() or with_a_labels(address) is not None


def _written(address: bytes, offered: Extensions) -> bytes:
    """The address as this mail server accepts it."""
    written = address if offered.smtputf8 or address.isascii() else with_a_labels(address)
    if written is None:
        raise ValueError("the address needs SMTPUTF8")
    return written


def _is_ascii(envelope: Envelope) -> bool:
    return envelope.sender.isascii() and all(recipient.address.isascii() for recipient in envelope.recipients)
