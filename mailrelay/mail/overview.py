"""What a spool shows of its messages: the listing, the events of one message, the state of the whole.

Bytes are from outside and not escaped: the code that shows them escapes them. Times are epoch seconds.
Named tuples: every `mailrelay queue` makes these classes, and a dataclass takes four times as long to make.
"""

from typing import NamedTuple


class ListedRecipient(NamedTuple):
    """A recipient as listed.

    state: a name in `mail.states`, or "active" while an attempt is open. description: the reply of the mail server, or our
    text where there was none. uncertain: when an attempt ended that may have delivered the message all the same; None if
    there was none.
    """

    address: bytes
    state: str
    status: str
    stage: str
    description: bytes
    uncertain: float | None


class Listed(NamedTuple):
    """A message as listed. queue_name: Postfix's name of the queue, or "failed", "sent" or "cancelled". size: octets.

    next_attempt: None while an attempt is open, and where nothing is left to try. fault_text: why the relayhost cannot be
    reached; "" if no fault is known.
    """

    id: int
    queue_id: str
    queue_name: str
    relayhost: str
    arrival: float
    size: int
    sender: bytes
    subject: str
    attempts: int
    next_attempt: float | None
    fault_text: str
    recipients: tuple[ListedRecipient, ...]


class Event(NamedTuple):
    """One event in the history of a message.

    what: the event in words for the person: "accepted", "attempt", a name in `mail.states`, or what became of a notice.
    stage: where the attempt stood when `description` came.
    """

    at: float
    what: str
    address: bytes = b""
    status: str = ""
    description: bytes = b""
    stage: str = ""


class RelayhostFault(NamedTuple):
    """A relayhost that cannot be reached. since: the first failure in a row. next_dial: not before.

    setup: whether only the person can fix it; `fix` is the step then.
    """

    relayhost: str
    since: float
    next_dial: float
    setup: bool
    text: str
    fix: str


class SpoolStatus(NamedTuple):
    """The state of a spool.

    pending: messages that will be tried again without the person. oldest: the earliest arrival among these, None if there
    are none. held: messages that wait for the person. stranded: those of them that an attempt held, because they
    cannot be sent as they are. failed: messages bounced or expired.
    failing_notices: (kind, backend, why the last try failed) of pending notices whose backend failed at least once.
    """

    pending: int
    oldest: float | None
    held: int
    stranded: int
    failed: int
    failing_notices: tuple[tuple[str, str, str], ...]
    faults: tuple[RelayhostFault, ...]
