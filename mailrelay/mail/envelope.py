"""A message as it travels between the rooms: its envelope, and the few facts about it that are not content.

Addresses are bytes, as the client sent them, without the angle brackets; they were checked at the door (`mail.address`)
and are checked again by the writer of commands (`smtp.session`). The null reverse path is b"".
"""

from dataclasses import dataclass


class Unreadable(Exception):
    """The content of a message cannot be had from the spool, or cannot be sent as it is. The text says why."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A forward path with its DSN parameters (RFC 3461). `notify` and `orcpt` are as sent, b"" where absent."""

    address: bytes
    notify: bytes = b""
    orcpt: bytes = b""


@dataclass(frozen=True, slots=True)
class Envelope:
    """MAIL and RCPT as accepted (RFC 5321 section 2.3.1). `ret` is b"FULL", b"HDRS" or b""; `envid` is xtext or b""."""

    sender: bytes
    recipients: tuple[Recipient, ...]
    body: bytes = b"7BIT"
    smtputf8: bool = False
    ret: bytes = b""
    envid: bytes = b""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that is due: what the relay needs to try it.

    id: the spool's own key. queue_id: what the person and the log call it. size: octets of content, before dot-stuffing.
    arrival: epoch seconds. attempts: how many were made and counted. recipient_ids: the spool's keys, one for each
    recipient of `envelope`, which holds the pending ones only.
    """

    id: int
    queue_id: str
    relayhost: str
    envelope: Envelope
    recipient_ids: tuple[int, ...]
    size: int
    arrival: float
    attempts: int
