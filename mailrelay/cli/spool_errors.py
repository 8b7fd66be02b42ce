"""Errors of the spool that end a command with one line and status 1. Loaded only after an error."""

from mailrelay.spool.database import SpoolError
from mailrelay.spool.lock import Held
from mailrelay.spool.verbs import NoSuchMessage, NotAllowed

SPOOL_ERRORS = (SpoolError, Held, NoSuchMessage, NotAllowed)
