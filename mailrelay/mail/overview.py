"""What a spool shows of its messages: the listing, the events of one message, the state of the whole.

Bytes are from outside and not escaped: the code that shows them escapes them. Times are epoch seconds.
Named tuples: every `mailrelay queue` makes these classes, and a dataclass takes four times as long to make.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from mailrelay.mail.states import COUNTED_AS


class ListedRecipient(NamedTuple):
    """A recipient as listed.

    state: a name in `mail.states`, or "active" while an attempt is open. description: the reply of the mail server, or our
    text where there was none. uncertain: when an attempt ended that may have delivered the message all the same; None if
    there was none. successor: the id of the message that replaced this one for the recipient, "" if none did.
    """

    address: bytes
    state: str
    status: str
    stage: str
    description: bytes
    uncertain: float | None
    successor: str = ""


class Listed(NamedTuple):
    """A message as listed. queue_name: Postfix's name of the queue, or "failed", "refused", "sent" or "cancelled". size:
    octets.

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
    stage: where the attempt stood when `description` came. planned: it has not happened; `at` is when it is due.
    """

    at: float
    what: str
    address: bytes = b""
    status: str = ""
    description: bytes = b""
    stage: str = ""
    planned: bool = False


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

    pending, held, failed: messages, counted as in `mail.states.COUNTED_AS`. oldest: the earliest arrival of the pending
    ones, None if there are none. late: those of the pending ones that have waited too long. stranded: those of the held
    ones that an attempt held, because they cannot be sent as they are.
    failing_notices: (kind, backend, why the last try failed) of pending notices whose backend failed at least once.
    """

    pending: int
    oldest: float | None
    late: int
    held: int
    stranded: int
    failed: int
    failing_notices: tuple[tuple[str, str, str], ...]
    faults: tuple[RelayhostFault, ...]


def counts(messages: Iterable[Listed]) -> dict[str, int]:
    """The number of messages under each word of `COUNTED_AS`, in its order, without the words under which there are none."""
    found = Counter(word for message in messages for word in _words(message))
    return {word: found[word] for word in COUNTED_AS if found[word]}


def _words(message: Listed) -> set[str]:
    states = {to.state for to in message.recipients}
    words = {word for word, fitting in COUNTED_AS.items() if not states.isdisjoint(fitting)}
    # An open attempt is a state of pending recipients only.
    return words | {"pending"} if "active" in states else words
