"""The message that takes the place of another, made and queued: what `resend` and `edit` have in common."""

import time

from mailrelay.cli import Failed
from mailrelay.cli.change import changing, no_such, ring
from mailrelay.config import Settings
from mailrelay.mail.envelope import Envelope, Message
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.printable import printable
from mailrelay.mail.record import Arrival
from mailrelay.mail.routing import choose
from mailrelay.mail.trace import subject
from mailrelay.spool import queue_ids, replacement


def fixable(settings: Settings, given: str, what: Act) -> tuple[Message, bytes]:
    """The message whose id begins with `given`, and its content. Raises NoSuchMessage, NotAllowed."""
    try:
        with changing(settings.queue.directory) as db:
            return replacement.replaceable(db, given, what)
    except FileNotFoundError:
        raise no_such(given) from None


def succeed(settings: Settings, old: Message, what: Act, envelope: Envelope, content: bytes) -> None:
    """Queues `content`, as it is, in the place of `old`; says under which id. Raises Failed, NotAllowed, SpoolError."""
    relayhost = choose(envelope.sender, settings.relayhosts)
    if relayhost is None:
        raise Failed(f"no relayhost takes mail from <{printable(envelope.sender)}>; see `senders` in the settings")
    now = time.time()
    with changing(settings.queue.directory) as db:
        new = Arrival(queue_ids.new_for_command(db, now), envelope, content, relayhost, now, subject(content))
        replacement.replace(db, old, what, new, settings.queue.max_size)
    print(f"{old.queue_id} goes again as {new.queue_id}")
    ring(settings.queue.directory)
