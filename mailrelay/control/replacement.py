"""Another message in the place of one that was refused, failed, waits or is held, for `queue resend` and `queue edit`."""

import time
from dataclasses import dataclass

from mailrelay.config import Settings
from mailrelay.control.changing import changing, no_such_message
from mailrelay.control.daemon import wake
from mailrelay.control.enqueue import relayhost_for
from mailrelay.mail.envelope import Envelope, Message
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.record import Arrival
from mailrelay.mail.trace import subject
from mailrelay.spool import queue_ids, replacement


@dataclass(frozen=True, slots=True)
class Replaced:
    """queue_id: of the new message. daemon_runs: whether a daemon was woken to send it."""

    queue_id: str
    daemon_runs: bool


def replaceable(settings: Settings, given: str, what: Act) -> tuple[Message, bytes]:
    """The message whose id begins with `given`, with those of its recipients to whom `what` can be done, and its content.

    Raises NoSuchMessage, NotAllowed, SpoolError.
    """
    try:
        with changing(settings.queue.directory) as db:
            return replacement.fixable(db, given, what)
    except FileNotFoundError:
        raise no_such_message(given) from None


def replace(settings: Settings, old: Message, what: Act, envelope: Envelope, content: bytes) -> Replaced:
    """Queues `content` as it is, and cancels the recipients of `old`, in one commit.

    old: what `replaceable` returned for the same `what`. Raises NoRelayhost, NotAllowed, SpoolError: nothing has changed.
    """
    relayhost = relayhost_for(settings, envelope.sender)
    now = time.time()
    with changing(settings.queue.directory) as db:
        new = Arrival(queue_ids.new_for_command(db, now), envelope, content, relayhost, now, subject(content))
        replacement.replace(db, old, what, new, settings.queue.max_size)
    return Replaced(new.queue_id, wake(settings.queue.directory))
