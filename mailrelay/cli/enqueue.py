"""A message that a command puts in the spool itself, as `sendmail` and `test` do: on disk first, then the daemon's bell.

Works with the daemon down. Promises: once `enqueue` has returned, the message is safely on disk, to all of its recipients.
"""

import os
import pwd
import time

from mailrelay.cli import Failed
from mailrelay.config import Settings
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.printable import printable
from mailrelay.mail.record import arrive
from mailrelay.mail.routing import choose
from mailrelay.spool import queue_ids, trigger
from mailrelay.spool.accepting import accept
from mailrelay.spool.database import connect, transaction

EX_NOUSER, EX_TEMPFAIL = 67, 75


def enqueue(settings: Settings, envelope: Envelope, content: bytes, *, sender_option: str) -> tuple[int, bool]:
    """Puts a message on disk; returns the spool's key of it, and whether a daemon has heard of it.

    sender_option: what the person gives to name another sender.
    Raises SpoolError, OSError, and Failed if no relayhost takes mail from this sender.
    """
    relayhost = choose(envelope.sender, settings.relayhosts)
    if relayhost is None:
        raise Failed(
            f"no relayhost takes mail from <{printable(envelope.sender)}>; see `senders` in the settings, or give "
            f"{sender_option}",
            EX_TEMPFAIL,
        )
    now = time.time()
    os.umask(0o077)
    db = connect(settings.queue.directory)
    try:
        with transaction(db):
            queue_id, token = queue_ids.new_for_command(db, now), queue_ids.message_id_token()
            arrival = arrive(envelope, content, queue_id=queue_id, token=token, relayhost=relayhost, now=now)
            key = accept(db, arrival, settings.queue.max_size)
    finally:
        db.close()
    return key, trigger.fire(settings.queue.directory)


def login(sender_option: str) -> bytes:
    """The name of the account that we run as, as a reverse path: the remote completes it. Raises Failed if it has none."""
    try:
        return os.fsencode(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        raise Failed(f"user {os.getuid()} has no name here; give a sender with {sender_option}", EX_NOUSER) from None
