"""Values about messages whose replies a record over there may hold (`smtp.record`), as the spool and the relay pass them."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from mailrelay.mail.outcome import Reply


class RecordingState(enum.StrEnum):
    """Whether a relayhost can record conversations, as far as is known."""

    UNKNOWN = ""
    POSSIBLE = "possible"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class Recording:
    """What is known of a relayhost's records. next_trial: epoch seconds before which it is not found out again, unless the
    state is POSSIBLE."""

    state: RecordingState = RecordingState.UNKNOWN
    next_trial: float = 0.0


@dataclass(frozen=True, slots=True)
class RecordedExchange:
    """Where the replies to one attempt at a message stand. token: the name of the record (`ssh.recorder`). first, has_data:
    as in `smtp.record.Exchange`. recipients: keys of the spool, in the order of their RCPT. relays_dsn: as in
    `mail.conclusion.conclude`."""

    token: str
    first: int
    recipients: tuple[int, ...]
    has_data: bool
    relays_dsn: bool


@dataclass(frozen=True, slots=True)
class UnreadExchange:
    """An attempt that has ended without replies that its record may hold. attempt, message: keys of the spool. queue_id: of
    the message."""

    attempt: int
    message: int
    queue_id: str
    exchange: RecordedExchange


@dataclass(frozen=True, slots=True)
class ReadExchange:
    """What the record said of an attempt. sent: the recipients for which the mail server has the message, in its words
    `reply`. not_taken: those for which it does not have it. All others stay uncertain."""

    attempt: int
    message: int
    sent: Sequence[int] = ()
    not_taken: Sequence[int] = ()
    reply: Reply | None = None
