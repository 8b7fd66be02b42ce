"""Puts a message in the spool, as `sendmail` and `test` do, and wakes the daemon.

Bare addresses, in the envelope and in the header, are completed as the settings say (`mail.completion`). Those for which the
settings have no value stay bare here; the daemon completes them before it sends the message.

Promises: when `enqueue` or `hand_in` returns, the message is on disk, for all of its recipients. A
message that `hand_in` stores and that is not sent, or not to all recipients, has a notice and a line in the log.
"""

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mailrelay.config import Settings
from mailrelay.control import log_file
from mailrelay.control.daemon import wake
from mailrelay.mail import handed_in, header_completion, logline
from mailrelay.mail.backends import backends_of
from mailrelay.mail.completion import completed
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.handed_in import HandedIn, Problem
from mailrelay.mail.printable import printable
from mailrelay.mail.routing import choose
from mailrelay.mail.send_time import SendTime, effective_send_time
from mailrelay.spool.command_spool import CommandSpool
from mailrelay.submission import account_name, completion

if TYPE_CHECKING:
    from mailrelay.control.system import Queue


class NoRelayhost(Exception):
    """No relayhost in the settings takes mail from this sender."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A message in the spool. key: the spool's own key. daemon_runs: whether a daemon was woken to send
    it."""

    key: int
    queue_id: str
    daemon_runs: bool


def relayhost_for(settings: Settings, sender: bytes) -> str:
    """The name of the relayhost for mail from `sender`, a reverse path. Raises NoRelayhost."""
    relayhost = choose(sender, settings.relayhosts)
    if relayhost is None:
        raise NoRelayhost(f"no relayhost takes mail from <{printable(sender)}>; see `senders` in the settings")
    return relayhost


def whole(settings: Settings, envelope: Envelope, content: bytes) -> tuple[Envelope, bytes]:
    """Envelope and content, completed as far as the settings say."""
    known = completion(settings.submission)
    envelope = completed(envelope, known)
    # Two bare recipients may have become the same one.
    recipients: dict[bytes, Recipient] = {}
    for to in envelope.recipients:
        recipients.setdefault(to.address, to)
    if known.domain_of_names:
        content = header_completion.complete(content, known.domain_of_names)
    return dataclasses.replace(envelope, recipients=tuple(recipients.values())), content


def enqueue(settings: Settings, envelope: Envelope, content: bytes) -> Enqueued:
    """Puts a message on disk, due at once. content: with CRLF line ends. Makes the spool if there is none.

    Sets the umask of the process to 077. Raises NoRelayhost, SpoolError and OSError; then nothing is stored.
    """
    envelope, content = whole(settings, envelope, content)
    relayhost = relayhost_for(settings, envelope.sender)
    os.umask(0o077)
    key, queue_id = CommandSpool(settings.queue.directory, settings.queue.max_size).enqueue(
        envelope, content, relayhost
    )
    return Enqueued(key, queue_id, wake(settings.queue.directory))


@dataclass(frozen=True, slots=True)
class Stored(Enqueued):
    """The result of `hand_in`. problems: the recipients that are not tried, each with the reason. send_time: the time before
    which the others are not tried, None if there is none."""

    problems: tuple[tuple[bytes, Problem], ...]
    send_time: SendTime | None


def hand_in(settings: Settings, message: HandedIn, queue: "Queue | None" = None) -> Stored:
    """Puts a message on disk that a program has handed in. Makes the spool if there is none. It waits for `queue.undo`.

    A message from a sender that no relayhost takes is held, for the first relayhost in the settings.
    queue: the system's mailrelay, which puts it on its disk instead; its settings are `settings`. Sets the umask of the
    process to 077. Raises SpoolError and OSError; then nothing is stored.
    """
    if queue is not None and not isinstance(queue, Path):
        return queue.ask(Stored, "hand_in", message)
    envelope, content = whole(settings, message.envelope, message.content)
    send_time = effective_send_time(envelope.send_time, settings.queue.undo, time.time())
    envelope = dataclasses.replace(envelope, send_time=send_time)
    message = dataclasses.replace(message, envelope=envelope, content=content)
    relayhost = choose(message.envelope.sender, settings.relayhosts)
    if relayhost is None:
        relayhost = settings.relayhosts[0].name
        problem = message.problem or handed_in.no_relayhost(message.envelope.sender, relayhost)
        message = dataclasses.replace(message, problem=problem)
    os.umask(0o077)
    key, arrival = CommandSpool(settings.queue.directory, settings.queue.max_size).hand_in(
        message,
        relayhost,
        backends_of(settings.notify),
    )
    held = [(to.address, message.problem) for to in message.envelope.recipients if message.problem is not None]
    problems = (*held, *message.bad)
    lines = [logline.not_tried(arrival, address, problem) for address, problem in problems]
    log_file.append(settings.queue.directory, lines, arrival.arrival)
    if arrival.envelope.owner is not None:
        line = logline.accepted(arrival, account_name(arrival.envelope.owner))
        log_file.append(settings.queue.directory, [line], arrival.arrival, "INFO")
    return Stored(key, arrival.queue_id, wake(settings.queue.directory), problems, send_time)
