"""What the spool raises to refuse: it ends a command with one line and status 1. Loaded only where something was raised."""

from mailrelay.spool.database import SpoolError
from mailrelay.spool.lock import Held
from mailrelay.spool.verbs import NoSuchMessage, NotAllowed

REFUSALS = (SpoolError, Held, NoSuchMessage, NotAllowed)
