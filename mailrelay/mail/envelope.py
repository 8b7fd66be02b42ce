"""A message as the packages pass it on: its envelope, and a few facts about it, without its content.

Addresses are bytes, as the client sent them, without the angle brackets. They are checked when they are received
(`mail.address`) and again before they are written into commands (`smtp.command`). The null reverse path is b"".
"""

from dataclasses import dataclass

from mailrelay.mail.send_time import SendTime


class Unreadable(Exception):
    """The content of a message cannot be read from the spool, or cannot be sent as it is. The text is the reason."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A forward path with its DSN parameters (RFC 3461). `notify` and `orcpt` are as sent, b"" where absent.

    is_damaged: the spool does not hold it as it was written; nothing is sent to it."""

    address: bytes
    notify: bytes = b""
    orcpt: bytes = b""
    is_damaged: bool = False


@dataclass(frozen=True, slots=True)
class Envelope:
    """MAIL and RCPT as accepted (RFC 5321 section 2.3.1). `ret` is b"FULL", b"HDRS" or b""; `envid` is xtext or b"".

    send_time: the time before which the message is not sent, None if there is none.
    is_damaged: the spool does not hold it as it was written, or not all of its recipients; it is not sent. owner: the uid of
    the account that submitted it, None for the account that the spool belongs to."""

    sender: bytes
    recipients: tuple[Recipient, ...]
    body: bytes = b"7BIT"
    smtputf8: bool = False
    ret: bytes = b""
    envid: bytes = b""
    is_damaged: bool = False
    send_time: SendTime | None = None
    owner: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message that is due, as the relay needs it for an attempt.

    id: the key in the spool. queue_id: the name of the message for the person and in the log. size: octets of content,
    before dot-stuffing. arrival: epoch seconds. attempts: how many were counted so far. recipient_ids: the keys in the
    spool, one for each recipient of `envelope`, which holds only the pending ones. has_bare_header: whether its header has
    bare addresses (`mail.header_completion`). relayhost: the one that sends it; fallback_for: the one of its sender, where
    `relayhost` is a fallback, else "".

    A mail server may take fewer recipients in a transaction than the message has: then `envelope` holds those of one
    transaction of a round (`relay.rounds`). later: the number of recipients for further transactions of the round. waiting:
    the number of those that the round has deferred already. is_continued: the round has had a transaction before this one.
    """

    id: int
    queue_id: str
    relayhost: str
    envelope: Envelope
    recipient_ids: tuple[int, ...]
    size: int
    arrival: float
    attempts: int
    later: int = 0
    waiting: int = 0
    is_continued: bool = False
    has_bare_header: bool = False
    fallback_for: str = ""

    @property
    def waits_since(self) -> float:
        """The time from which its age counts, epoch seconds: its send time, or its arrival."""
        return self.arrival if self.envelope.send_time is None else self.envelope.send_time.at

    @property
    def is_only_transaction(self) -> bool:
        """Whether the transaction is the only one of its round as far as is known, with all pending recipients."""
        return not (self.later or self.is_continued)
