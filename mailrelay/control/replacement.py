"""Replaces a message that was refused, failed, waits or is held by another one, for `queue resend` and `queue edit`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mailrelay.config import Settings
from mailrelay.control.daemon import wake
from mailrelay.control.enqueue import relayhost_for
from mailrelay.control.errors import no_such_message
from mailrelay.mail.completion import completed
from mailrelay.mail.envelope import Envelope, Message
from mailrelay.mail.lifecycle import Act
from mailrelay.spool.command_spool import CommandSpool
from mailrelay.submission import completion

if TYPE_CHECKING:
    from mailrelay.control.system import Queue


@dataclass(frozen=True, slots=True)
class Replaced:
    """queue_id: of the new message. daemon_runs: whether a daemon was woken to send it."""

    queue_id: str
    daemon_runs: bool


def replaceable(queue: "Queue", given: str, what: Act) -> tuple[Message, bytes]:
    """The message whose id begins with `given`, with those of its recipients to whom `what` can be done, and its content.

    Raises NoSuchMessage, NotAllowed, SpoolError.
    """
    if not isinstance(queue, Path):
        return queue.ask(tuple[Message, bytes], "replaceable", given, what)
    try:
        with CommandSpool(queue).changing() as change:
            return change.replaceable(given, what)
    except FileNotFoundError:
        raise no_such_message(given) from None


def replace(
    settings: Settings, queue: "Queue", old: Message, what: Act, envelope: Envelope, content: bytes
) -> Replaced:
    """Queues `content` as it is, and cancels the recipients of `old`, in one commit.

    old: what `replaceable` returned for the same `what`. Raises NoRelayhost, NotAllowed, SpoolError: nothing has changed.
    """
    if not isinstance(queue, Path):
        return queue.ask(Replaced, "replace", old.queue_id, old.recipient_ids, what, envelope, content)
    envelope = completed(envelope, completion(settings.submission))
    relayhost = relayhost_for(settings, envelope.sender)
    with CommandSpool(queue, settings.queue.max_size).changing() as change:
        queue_id = change.replace(old, what, envelope, content, relayhost)
    return Replaced(queue_id, wake(queue))
