"""The errors that functions of this package raise. Each text is one sentence for the person: what is wrong; what to do."""

from mailrelay.control.enqueue import NoRelayhost as NoRelayhost
from mailrelay.spool.actions import NoSuchMessage as NoSuchMessage
from mailrelay.spool.actions import NotAllowed as NotAllowed
from mailrelay.spool.database import SpoolError as SpoolError
from mailrelay.spool.lock import Held as Held

CONTROL_ERRORS = (SpoolError, Held, NoSuchMessage, NotAllowed, NoRelayhost)
