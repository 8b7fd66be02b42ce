"""The log lines about a message, in the format of Postfix, which people and tools know.

Text from outside is escaped (`mail.printable`). Content is never logged.
"""

from mailrelay.mail.envelope import Envelope, Message
from mailrelay.mail.handed_in import Problem
from mailrelay.mail.outcome import Outcome, Reply
from mailrelay.mail.printable import printable
from mailrelay.mail.record import Arrival, Record, Settled
from mailrelay.mail.reply_text import reply_text
from mailrelay.mail.there import Verdict


def accepted(arrival: Arrival, account: str = "") -> str:
    """The line about a message that was put on disk. account: the one that submitted it, "" if messages have none."""
    envelope = arrival.envelope
    waits = f" (waits until {envelope.send_time.text})" if envelope.send_time is not None else ""
    return (
        f"{arrival.queue_id} from=<{printable(envelope.sender)}> size={arrival.size} nrcpt={len(envelope.recipients)}"
        f" relay={arrival.relayhost} status=accepted{f' account={printable(account)}' if account else ''}{waits}"
    )


def not_tried(arrival: Arrival, address: bytes, problem: Problem) -> str:
    """The line about a recipient of a message that a program handed in (`mail.handed_in`)."""
    return (
        f"{arrival.queue_id} to=<{printable(address)}> relay={arrival.relayhost} delay=0 delays=0/0/0"
        f" dsn={problem.status} status={problem.state} ({printable(problem.text)})"
    )


def probe_refused(envelope: Envelope, relayhost: str, outcome: Outcome) -> str:
    """The line about a refusal of the recipient of `envelope` by the mail server (recipient probe)."""
    status = outcome.reply.status if outcome.reply is not None else ""
    return (
        f"NOQUEUE from=<{printable(envelope.sender)}> to=<{printable(envelope.recipients[0].address)}> relay={relayhost}"
        f" dsn={status} status=refused ({reply_text(outcome.description)})"
    )


def rejected(command: str, reply: Reply, sender: bytes | None) -> str:
    """The line about a refusal by the listener or the intake. command: the refused one, or "content". sender: None before
    MAIL."""
    address = "" if sender is None else f" from=<{printable(sender)}>"
    reason = printable(b"%d %s" % (reply.code, reply.text))
    return f"NOQUEUE{address} command={command} dsn={reply.status} status=refused ({reason})"


def broken_off(sender: bytes, received: int, why: str) -> str:
    """The line about a content that was not completed. received: octets of it."""
    return f"NOQUEUE from=<{printable(sender)}> command=content status=broken-off ({why}; {received} octets had come)"


def round_goes_on(message: Message, record: Record) -> str:
    """The line about the recipients of a message that go in another transaction at once."""
    left = message.later + len(message.recipient_ids) - len(record.settled)
    return (
        f"{message.queue_id} nrcpt={left} relay={message.relayhost} status=goes-on"
        f" (the mail server takes no more recipients in one transaction)"
    )


def recipient_status(message: Message, record: Record, one: Settled, *, is_read_later: bool = False) -> str:
    """The line about the result of an attempt for one recipient. is_read_later: it was read from the record of the
    conversation.

    In it, delay is seconds since arrival, or since the send time; delays are seconds in the queue before the attempt, for
    dialling, and for the transaction.
    """
    address = message.envelope.recipients[message.recipient_ids.index(one.recipient)].address
    delay = max(0.0, record.now - message.waits_since)
    queued = max(0.0, delay - record.dialled - record.transaction)
    reason = reply_text(one.outcome.description)
    if one.uncertain:
        reason += "; it may arrive twice"
    if is_read_later:
        reason += "; read from the record of the conversation"
    return (
        f"{message.queue_id} to=<{printable(address)}> relay={message.relayhost} delay={delay:.2g}"
        f" delays={queued:.2g}/{record.dialled:.2g}/{record.transaction:.2g}"
        f" dsn={one.status} status={one.state} ({reason})"
    )


def followed_there(queue_id: str, address: bytes, relayhost: str, verdict: Verdict) -> str:
    """The line about what has become of a recipient on the relayhost, after the mail server's 250."""
    by = f" by={verdict.shown_by}" if verdict.by else ""
    return (
        f"{queue_id} to=<{printable(address)}> relay={relayhost} there={verdict.state.replace(' ', '-')}"
        f" source={verdict.source or 'none'}{by} ({verdict.shown_words or verdict.heading})"
    )
