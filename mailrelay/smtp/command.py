"""MAIL and RCPT as octets, for one remote (RFC 5321 section 4.1.1).

Promises: a parameter is sent only where the remote offers its extension; an envelope that cannot be said to this remote,
or could be read as something else than was meant, comes back from `unsendable` as an outcome before anything is sent.
Addresses were checked at the door already. Here they are checked for what makes a command dangerous: control
characters, spaces and angle brackets outside a quoted local part.
"""

import re

from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.smtp.extensions import Extensions

_ADDRESS = re.compile(rb"""(?:[^\x00-\x20\x7f"\\<>]|"(?:[^\x00-\x1f\x7f"\\]|\\[^\x00-\x1f\x7f])*")*""")
# RFC 5321 section 4.1.2, esmtp-value, with the octets that RFC 6531 adds.
_VALUE = re.compile(rb"[!-<>-~\x80-\xff]*")


def mail(envelope: Envelope, size: int | None, offered: Extensions) -> bytes:
    """The MAIL command with its CR LF. `size` is octets of content, None where it is not known. The envelope is
    one that `unsendable` let pass."""
    line = b"MAIL FROM:<%b>" % envelope.sender
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
    """The RCPT command with its CR LF, for a recipient of an envelope that `unsendable` let pass."""
    line = b"RCPT TO:<%b>" % recipient.address
    if offered.dsn and recipient.notify:
        line += b" NOTIFY=%b" % recipient.notify
    # RFC 6533 section 3: an original recipient in UTF-8 may only go where SMTPUTF8 does.
    if offered.dsn and recipient.orcpt and (offered.smtputf8 or recipient.orcpt.isascii()):
        line += b" ORCPT=%b" % recipient.orcpt
    return line + b"\r\n"


def unsendable(envelope: Envelope, offered: Extensions) -> Outcome | None:
    """Why no recipient of `envelope` can be named to this remote, or None."""
    addresses = (envelope.sender, *(recipient.address for recipient in envelope.recipients))
    values = (envelope.ret, envelope.envid, *(v for r in envelope.recipients for v in (r.notify, r.orcpt)))
    if not all(map(_ADDRESS.fullmatch, addresses)) or not all(map(_VALUE.fullmatch, values)):
        return Outcome(
            Stage.MAIL,
            cause=Cause.UNREADABLE,
            text="the envelope has an address or a parameter that no SMTP command can carry",
            fix="look at it with `mailrelay queue show ID`, then cancel it and send the mail again",
        )
    if not offered.smtputf8 and not _is_ascii(envelope):
        return Outcome(
            Stage.EHLO,
            cause=Cause.NO_SMTPUTF8,
            text="an address is not plain ASCII, and the remote mail server takes no such address (it lacks SMTPUTF8)",
            fix="send the mail to an ASCII address, or switch on SMTPUTF8 at the remote mail server",
        )
    return None


def _is_ascii(envelope: Envelope) -> bool:
    return envelope.sender.isascii() and all(recipient.address.isascii() for recipient in envelope.recipients)
