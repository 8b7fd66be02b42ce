"""One question to the relayhost about all messages that are followed, and its answer: plain values.

`ssh` asks; `relay` decides what to ask and what the answer means.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mailrelay.tracking.queue_id import Server

MAX_IDS = 500
"""Queue ids in one question."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer has ended, so that the next one goes on there. Text of the relayhost; only `ssh` looks into it."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """ids: of messages in the queue there (`queue_id.is_safe`), at most MAX_IDS. marks: texts that name our messages in a
    delivery report: Message-IDs without angle brackets, ENVIDs, queue ids; printable ASCII without white space, 8 to 200
    octets each. retry: ids that the mail server is asked to try again at once.

    command: the person's command that lists the queue there; "" for the mail server's own. since: epoch seconds; no line of
    the log and no report before that matters. place: where the answer before this one ended; None: from the beginning.
    """

    ids: Sequence[str]
    marks: Sequence[str]
    retry: Sequence[str] = ()
    command: str = ""
    since: float = 0.0
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """What a program on the relayhost has printed, on stdout and stderr together, and its exit status."""

    octets: bytes
    status: int


@dataclass(frozen=True, slots=True)
class Answer:
    """server: the mail server whose program lists the queue; OTHER for the person's command. listing: None if there is no
    such program. log: lines with one of the ids, oldest first; None if the account may read no log. reports: delivery
    reports with one of the marks, each behind a line that begins with "From "; None if the account has no mailbox that can
    be read. retried: of the program that tries delivery again; None if there is none, or it was not asked for.

    account: the account there. place: for the next question. seconds_ahead: by how much the clock there is ahead of ours.
    """

    server: Server
    listing: Output | None
    log: bytes | None
    reports: bytes | None
    retried: Output | None
    account: str
    place: Place
    seconds_ahead: float = 0.0
