"""The queue id that a mail server names in its 250 to the content.

Promises: an id has 1 to 40 ASCII letters, digits, dots and hyphens, the first a letter or digit. So it may stand in a
command for a shell. Another id counts as none.
"""

import enum
import re
from dataclasses import dataclass


class Server(enum.StrEnum):
    """A kind of mail server, as its replies and programs show it."""

    POSTFIX = "postfix"
    SENDMAIL = "sendmail"
    EXIM = "exim"
    OPENSMTPD = "opensmtpd"
    QMAIL = "qmail"
    STALWART = "stalwart"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class QueueId:
    """`id`: as the mail server's listing and log name the message. OPENSMTPD: the first half of an evpid."""

    server: Server
    id: str


_SAFE = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]{0,39}")
_STATUS = rb"(?:2\.\d{1,3}\.\d{1,3} )?"
_PATTERNS = [
    (
        Server.POSTFIX,
        re.compile(_STATUS + rb"Ok: (?:\d{1,20} bytes )?queued as ([0-9A-F]{6,20}|[0-9A-Za-z]{10,24})"),
    ),
    (Server.SENDMAIL, re.compile(_STATUS + rb"([0-9A-Za-z]{8}\d{5,10}) Message accepted for delivery")),
    (Server.EXIM, re.compile(rb"OK id=([0-9A-Za-z]{6}-[0-9A-Za-z]{6}(?:[0-9A-Za-z]{5})?-[0-9A-Za-z]{2,4})")),
    (Server.OPENSMTPD, re.compile(_STATUS + rb"([0-9a-f]{8}) Message accepted for delivery")),
    (Server.QMAIL, re.compile(rb"ok \d{1,20} qp (\d{1,20})")),
    (Server.STALWART, re.compile(_STATUS + rb"Message queued with id ([0-9a-f]{1,20})\.?")),
    (Server.OTHER, re.compile(rb".{0,200}?\bqueued as <?([0-9A-Za-z.-]{1,40})>?(?: .{0,400})?", re.IGNORECASE)),
]


def queue_id_in(text: bytes) -> QueueId | None:
    """The queue id in the text of a 2xx to the content, without its code; None if it names none."""
    text = text[:1000].strip()
    for server, pattern in _PATTERNS:
        if found := pattern.fullmatch(text):
            name = found[1].decode("ascii").rstrip(".-")
            return QueueId(server, name) if is_safe(name) else None
    return None


def is_safe(name: str) -> bool:
    """Whether `name` has the form of a queue id that a shell may see."""
    return _SAFE.fullmatch(name) is not None
