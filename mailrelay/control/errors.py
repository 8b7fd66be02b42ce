"""The errors that functions of this package raise. Each text is one sentence for the person: what is wrong; what to do."""

from mailrelay.control.enqueue import NoRelayhost as NoRelayhost
from mailrelay.mail.spool_errors import BeingSent as BeingSent
from mailrelay.mail.spool_errors import NoSuchMessage as NoSuchMessage
from mailrelay.mail.spool_errors import NotAllowed as NotAllowed
from mailrelay.mail.spool_errors import SpoolError as SpoolError
from mailrelay.spool.lock import Held as Held

CONTROL_ERRORS = (SpoolError, Held, NoSuchMessage, NotAllowed, NoRelayhost)


def no_such_message(given: str) -> NoSuchMessage:
    """The error for any id where there is no spool."""
    return NoSuchMessage(f"no message has the id {given}; see `mailrelay queue --all`")
