"""The log lines about a message, in the form that Postfix's readers and tools know.

What came from outside is escaped (`mail.printable`); nothing of the content is ever logged.
"""

from mailrelay.mail.envelope import Envelope, Message
from mailrelay.mail.outcome import Outcome, Reply
from mailrelay.mail.printable import printable
from mailrelay.mail.record import Arrival, Record, Settled


def accepted(arrival: Arrival) -> str:
    """A message has been put on disk."""
    envelope = arrival.envelope
    return (
        f"{arrival.queue_id} from=<{printable(envelope.sender)}> size={arrival.size} nrcpt={len(envelope.recipients)}"
        f" relay={arrival.relayhost} status=accepted"
    )


def probe_refused(envelope: Envelope, relayhost: str, outcome: Outcome) -> str:
    """The remote's refusal of the recipient of `envelope`, before there was a message."""
    status = outcome.reply.status if outcome.reply is not None else ""
    return (
        f"NOQUEUE from=<{printable(envelope.sender)}> to=<{printable(envelope.recipients[0].address)}> relay={relayhost}"
        f" dsn={status} status=refused ({printable(outcome.description)})"
    )


def rejected(command: str, reply: Reply, sender: bytes | None) -> str:
    """A refusal of our own, before there was a message. command: at which one, or "content". sender: None before MAIL."""
    address = "" if sender is None else f" from=<{printable(sender)}>"
    words = printable(b"%d %s" % (reply.code, reply.text))
    return f"NOQUEUE{address} command={command} dsn={reply.status} status=refused ({words})"


def broken_off(sender: bytes, received: int, why: str) -> str:
    """A content that was not completed. received: octets of it."""
    return f"NOQUEUE from=<{printable(sender)}> command=content status=broken-off ({why}; {received} octets had come)"


def recipient_status(message: Message, record: Record, one: Settled) -> str:
    """What an attempt made of one recipient.

    delay: seconds since arrival. delays: seconds queued before the attempt / opening the way / in the transaction.
    """
    address = message.envelope.recipients[message.recipient_ids.index(one.recipient)].address
    delay = max(0.0, record.now - message.arrival)
    queued = max(0.0, delay - record.dialled - record.transaction)
    words = printable(one.outcome.description)
    if one.uncertain:
        words += "; it may arrive twice"
    return (
        f"{message.queue_id} to=<{printable(address)}> relay={message.relayhost} delay={delay:.2g}"
        f" delays={queued:.2g}/{record.dialled:.2g}/{record.transaction:.2g}"
        f" dsn={one.status} status={one.state} ({words})"
    )
