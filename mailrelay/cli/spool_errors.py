"""Errors of the spool that end a command with one line and status 1. Loaded only after an error."""

from mailrelay.spool.actions import NoSuchMessage, NotAllowed
from mailrelay.spool.database import SpoolError
from mailrelay.spool.lock import Held

SPOOL_ERRORS = (SpoolError, Held, NoSuchMessage, NotAllowed)
