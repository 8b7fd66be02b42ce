"""Puts a message in the spool, as `sendmail` and `test` do, and wakes the daemon.

Promises: when `enqueue` returns, the message is on disk, for all of its recipients.
"""

import os
from dataclasses import dataclass

from mailrelay.config import Settings
from mailrelay.control.daemon import wake
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.printable import printable
from mailrelay.mail.routing import choose
from mailrelay.spool.command_spool import CommandSpool


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


def enqueue(settings: Settings, envelope: Envelope, content: bytes) -> Enqueued:
    """Puts a message on disk, due at once. content: with CRLF line ends. Makes the spool if there is none.

    Sets the umask of the process to 077. Raises NoRelayhost, SpoolError and OSError; then nothing is stored.
    """
    relayhost = relayhost_for(settings, envelope.sender)
    os.umask(0o077)
    key, queue_id = CommandSpool(settings.queue.directory, settings.queue.max_size).enqueue(
        envelope, content, relayhost
    )
    return Enqueued(key, queue_id, wake(settings.queue.directory))
