"""The values that are written into the spool when a message comes in and when an attempt ends."""

import enum
from dataclasses import dataclass

from mailrelay.mail import header_completion
from mailrelay.mail.completion import domain_of, is_domain
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.lifecycle import State
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome
from mailrelay.mail.trace import stamp, subject


@dataclass(frozen=True, slots=True)
class Staged:
    """The part of a content that is in the spool while the rest still comes in.

    key: reserved for the message. pieces: its number of pieces. size: its octets.
    """

    key: int
    pieces: int
    size: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message to be put on disk. `content` is sent as it is, octet for octet; `arrival` is epoch seconds.

    staged: the part of the content that is in the spool already; `content` is the rest. None where `content` is all of it.
    has_bare_header: whether the header has bare addresses, which are completed before the message is sent.
    """

    queue_id: str
    envelope: Envelope
    content: bytes
    relayhost: str
    arrival: float
    subject: str
    staged: Staged | None = None
    has_bare_header: bool = False

    @property
    def size(self) -> int:
        """Octets of the whole content."""
        return len(self.content) + (self.staged.size if self.staged is not None else 0)


def arrive(
    envelope: Envelope,
    content: bytes,
    *,
    queue_id: str,
    token: str,
    relayhost: str,
    now: float,
    completes_header: bool = False,
) -> Arrival:
    """The message as the spool keeps it: with our trace line, and the header fields that it lacks (`mail.trace`).

    content: the message, or its beginning with the whole header. token: random ASCII letters and digits, for a Message-ID
    that no other machine makes. now: epoch seconds. completes_header: whether bare addresses in its header are to be
    completed before it is sent; not those of mail by SMTP.
    """
    domain = domain_of(envelope.sender)
    message_id = b"<%s.%s.mailrelay@%s>" % (
        queue_id.encode("ascii"),
        token.encode("ascii"),
        domain if is_domain(domain) else b"localhost",
    )
    stamped = stamp(content, queue_id=queue_id, now=now, message_id=message_id)
    # Asked of the result: the Message-ID may have been added, at a domain that is not known yet.
    has_bare_header = completes_header and header_completion.needs_completion(stamped)
    return Arrival(queue_id, envelope, stamped, relayhost, now, subject(content), None, has_bare_header)


_STATUS = {Cause.NO_SMTPUTF8: "5.6.7", Cause.UNREADABLE: "4.3.0"}


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of an attempt for one recipient. `recipient` is its key."""

    recipient: int
    state: State
    outcome: Outcome
    uncertain: bool

    @property
    def status(self) -> str:
        """The enhanced status code (RFC 3463) of a reply, or ours where there was none."""
        if self.outcome.reply is not None:
            return self.outcome.reply.status
        return _STATUS.get(self.outcome.cause, "4.4.2")


@dataclass(frozen=True, slots=True)
class NewNotice:
    """A notice that becomes pending with a record: about these recipients (keys), for these backends (at least one)."""

    kind: Kind
    recipients: tuple[int, ...]
    backends: tuple[Backend, ...]


class Place(enum.Enum):
    """The place of an attempt in its round: the attempts that follow each other at once, because the mail server takes only
    so many recipients in one transaction. A round counts as one attempt."""

    ALONE = enum.auto()
    GOES_ON = enum.auto()
    """Another attempt follows at once, for recipients that this record does not name. Notices wait for it."""
    LAST = enum.auto()


@dataclass(frozen=True, slots=True)
class Record:
    """The end of one attempt at one message: everything that its commit writes.

    now: the end of the attempt, epoch seconds. next_attempt: epoch seconds, None where nothing is left to try. dialled,
    transaction: seconds that opening the connection and the transaction took. is_followed: whether recipients that were sent
    are followed on the relayhost.
    """

    message: int
    now: float
    settled: tuple[Settled, ...]
    next_attempt: float | None
    notices: tuple[NewNotice, ...]
    dialled: float = 0.0
    transaction: float = 0.0
    place: Place = Place.ALONE
    is_followed: bool = False
