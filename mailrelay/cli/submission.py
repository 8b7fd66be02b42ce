"""Puts a message in the spool for `sendmail` and `test` (`control.enqueue`), with exit statuses of sysexits."""

import os

from mailrelay import submission
from mailrelay.cli.base import Failed
from mailrelay.config import Settings
from mailrelay.control.enqueue import Enqueued, NoRelayhost, enqueue
from mailrelay.mail.envelope import Envelope

EX_NOUSER, EX_TEMPFAIL = 67, 75
"""As in sysexits."""


def submit(settings: Settings, envelope: Envelope, content: bytes, *, sender_option: str) -> Enqueued:
    """As `enqueue`. sender_option: the option with which the person can name another sender.

    Raises SpoolError, OSError, and Failed if no relayhost takes mail from this sender.
    """
    try:
        return enqueue(settings, envelope, content)
    except NoRelayhost as error:
        raise Failed(f"{error}, or give {sender_option}", EX_TEMPFAIL) from None


def login(sender_option: str) -> bytes:
    """The name of this process's account, as a bare reverse path. Raises Failed if it has none."""
    try:
        return submission.login()
    except KeyError:
        raise Failed(f"user {os.getuid()} has no name here; give a sender with {sender_option}", EX_NOUSER) from None
