"""What a spool shows of its messages: the listing, the events of one message, the state of the whole.

Bytes are from outside and not escaped: the code that shows them escapes them. Times are epoch seconds.
Named tuples: every `mailrelay queue` makes these classes, and a dataclass takes four times as long to make.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from mailrelay.mail.states import COUNTED_AS, State
from mailrelay.mail.there import There, Verdict


class ListedRecipient(NamedTuple):
    """A recipient as listed.

    state: a name in `mail.states`, or "active" while an attempt is open. description: the reply of the mail server, or our
    text where there was none. uncertain: when an attempt ended that may have delivered the message all the same; None if
    there was none. successor: the id of the message that replaced this one for the recipient, "" if none did.

    there: what became of it on the relayhost, None if it was never followed. is_dealt_with: it has bounced there, and
    the person has sent it again or cancelled it.
    """

    address: bytes
    state: str
    status: str
    stage: str
    description: bytes
    uncertain: float | None
    successor: str = ""
    there: Verdict | None = None
    is_dealt_with: bool = False

    @property
    def has_bounced_there(self) -> bool:
        """Whether it has bounced on the relayhost, and needs the person."""
        return self.there is not None and self.there.state is There.BOUNCED and not self.is_dealt_with


class Listed(NamedTuple):
    """A message as listed. queue_name: Postfix's name of the queue, or "failed", "refused", "sent" or "cancelled". size:
    octets.

    next_attempt: None while an attempt is open, and where nothing is left to try. fault_text: why the relayhost cannot be
    reached; "" if no fault is known. send_time: the time before which it is not sent, None if there is none. stand_in: the
    fallback that sends it meanwhile, "" for none. fallback_for: the relayhost of its sender, where `relayhost` has taken it
    as a fallback; else "". owner: uid of the account that submitted it, None for the spool's own account.
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
    send_time: float | None = None
    stand_in: str = ""
    fallback_for: str = ""
    owner: int | None = None

    def waits_for_its_time(self, now: float) -> bool:
        """Whether it is pending, and its send time has not come. now: epoch seconds."""
        return self.next_attempt is not None and self.send_time is not None and self.send_time > now


class Event(NamedTuple):
    """One event in the history of a message.

    what: the event in words for the person: "accepted", "attempt", a name in `mail.states`, what was found on the relayhost
    ("bounced there"), "dealt with" for what bounced there, or what became of a notice.
    stage: where the attempt stood when `description` came. planned: it has not happened; `at` is when it is due.
    relayhost: by which an attempt was made; "" for other events, and where it is not known.
    """

    at: float
    what: str
    address: bytes = b""
    status: str = ""
    description: bytes = b""
    stage: str = ""
    planned: bool = False
    relayhost: str = ""


class RelayhostFault(NamedTuple):
    """A relayhost that cannot be reached. since: the first failure in a row. next_dial: not before.

    setup: whether only the person can fix it; `fix` is the step then. stand_in: the fallback that sends its mail meanwhile,
    "" for none.
    """

    relayhost: str
    since: float
    next_dial: float
    setup: bool
    text: str
    fix: str
    stand_in: str = ""


class SpoolStatus(NamedTuple):
    """The state of a spool.

    pending, held, failed: messages, counted as in `mail.states.COUNTED_AS`. scheduled: those of the pending ones that wait
    for their time. oldest: from when on the first of the others has waited, None if there are none. late: those of the
    pending ones that have waited too long. stranded: those of the held ones that an attempt held, because they cannot be
    sent as they are. bounced_there: messages with a recipient that has bounced on the relayhost and that the person has not
    dealt with. deferred_there: those with one that the mail server there has deferred and that it accepted too long ago.
    failing_notices: (kind, backend, why the last try failed) of pending notices whose backend failed at least once."""

    pending: int
    oldest: float | None
    late: int
    held: int
    stranded: int
    failed: int
    failing_notices: tuple[tuple[str, str, str], ...]
    faults: tuple[RelayhostFault, ...]
    bounced_there: int = 0
    deferred_there: int = 0
    scheduled: int = 0


def counts(messages: Iterable[Listed]) -> dict[str, int]:
    """The number of messages under each word of `COUNTED_AS`, in its order, without the words under which there are none.

    A recipient that has bounced on the relayhost counts as failed, not as sent.
    """
    found = Counter(word for message in messages for word in _words(message))
    return {word: found[word] for word in COUNTED_AS if found[word]}


def _words(message: Listed) -> set[str]:
    return {counted_as(to) for to in message.recipients}


def counted_as(to: ListedRecipient) -> str:
    """The word of `COUNTED_AS` under which a recipient counts; its state, if damage has left one that does not exist."""
    # An open attempt is a state of pending recipients only.
    if to.state == "active":
        return "pending"
    state = State.BOUNCED.value if to.has_bounced_there else to.state
    return next((word for word, fitting in COUNTED_AS.items() if state in fitting), state)
