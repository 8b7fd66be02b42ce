"""Puts a message in the spool, as `sendmail` and `test` do, and wakes the daemon.

Bare addresses, in the envelope and in the header, are completed as the settings say (`mail.completion`). What the settings
leave open is completed before the message is sent.

Promises: when `enqueue` returns, the message is on disk, for all of its recipients.
"""

import dataclasses
import os
from dataclasses import dataclass

from mailrelay.config import Settings
from mailrelay.control.daemon import wake
from mailrelay.mail import header_completion
from mailrelay.mail.completion import completed
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.printable import printable
from mailrelay.mail.routing import choose
from mailrelay.spool.command_spool import CommandSpool
from mailrelay.submission import completion


class NoRelayhost(Exception):
    """No relayhost in the settings takes mail from this sender."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A message in the spool. key: the spool's own key. daemon_runs: whether a daemon was woken to send it."""

    key: int
    queue_id: str
    daemon_runs: bool


def relayhost_for(settings: Settings, sender: bytes) -> str:
    """The name of the relayhost for mail from `sender`, a reverse path. Raises NoRelayhost."""
    relayhost = choose(sender, settings.relayhosts)
    if relayhost is None:
        raise NoRelayhost(f"no relayhost takes mail from <{printable(sender)}>; see `senders` in the settings")
    return relayhost


def whole(settings: Settings, envelope: Envelope, content: bytes) -> tuple[Envelope, bytes, bool]:
    """Envelope and content, completed as far as the settings say, and whether the header still has bare addresses."""
    known = completion(settings.submission)
    envelope = completed(envelope, known)
    # Two bare recipients may have become the same one.
    recipients: dict[bytes, Recipient] = {}
    for to in envelope.recipients:
        recipients.setdefault(to.address, to)
    if known.any_domain:
        content = header_completion.complete(content, known.any_domain)
    envelope = dataclasses.replace(envelope, recipients=tuple(recipients.values()))
    return envelope, content, header_completion.needs_completion(content)


def enqueue(settings: Settings, envelope: Envelope, content: bytes) -> Enqueued:
    """Puts a message on disk, due at once. content: with CRLF line ends. Makes the spool if there is none.

    Sets the umask of the process to 077. Raises NoRelayhost, SpoolError and OSError; then nothing is stored.
    """
    envelope, content, has_bare_header = whole(settings, envelope, content)
    relayhost = relayhost_for(settings, envelope.sender)
    os.umask(0o077)
    key, queue_id = CommandSpool(settings.queue.directory, settings.queue.max_size).enqueue(
        envelope, content, relayhost, has_bare_header=has_bare_header
    )
    return Enqueued(key, queue_id, wake(settings.queue.directory))
