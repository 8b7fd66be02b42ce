"""What the end of a conversation shows about the messages in flight: which of them the mail server may have accepted.

Promises: a message that the mail server may have accepted has outcomes with `Cause.LOST` at `Stage.AFTER_DOT`. A message of
which nothing was processed gets no outcome, and is sent again.
"""

import enum
from collections.abc import Iterable, Sequence

from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.smtp.transaction import Command, OutgoingTransaction, Verb


class Evidence(enum.Enum):
    """What the end of a conversation shows about the commands without a reply."""

    NOT_PROCESSED = enum.auto()
    """The mail server has sent 421: it processes no later command (RFC 5321 section 3.8). Some go on nevertheless: so it
    gets no content ahead of replies any more (`Session.leaves_doubt`)."""
    CLOSED = enum.auto()
    """The mail server has closed the channel before the first reply to the commands in flight. It has processed none of
    them: it sends the first reply at once. There is an exception: it may hold replies back while it has more to read (RFC
    2920 section 3.2), and end before it has sent them. So it gets no content ahead of replies any more
    (`Session.leaves_doubt`)."""
    CLOSED_AMONG_REPLIES = enum.auto()
    """The mail server has closed the channel after some of the replies to the commands in flight. A TCP that is closed with
    octets that were not read drops the replies that wait for an acknowledgement (RFC 1122 section 4.2.2.13)."""
    NOTHING = enum.auto()
    """Replies may be lost or late: the connection is lost, a time-out has passed, or the replies are not SMTP."""


def evidence(*, is_closed: bool, has_replied: bool) -> Evidence:
    """What the end of a conversation shows that has not ended with 421. is_closed: the mail server has closed the channel,
    and all its octets were received. has_replied: a reply to the commands in flight was received."""
    if not is_closed:
        return Evidence.NOTHING
    return Evidence.CLOSED_AMONG_REPLIES if has_replied else Evidence.CLOSED


def lose(
    unfinished: Sequence[OutgoingTransaction], awaited: Iterable[Command], stage: Stage, text: str, shown: Evidence
) -> None:
    """Decides the unfinished transactions at the end of their conversation. A recipient without an outcome gets one with
    `Cause.LOST` if the mail server may have the message, or if the transaction was begun. A probe gets none: its loss says
    nothing about its recipient.

    unfinished: the transactions that were started and are not finished, in order. awaited: the commands without a reply.
    stage: where the conversation ended. text: one sentence about it. shown: what its end shows.
    """
    # The mail server cannot have a message whose last octets were not taken for sending.
    unsent = [one.transaction for one in awaited if one.verb is Verb.CONTENT and not one.is_sent]
    for transaction in unfinished:
        if transaction.size is None:
            continue
        is_sent = transaction.is_content_written and transaction not in unsent
        if is_sent and _may_be_accepted(transaction, shown, is_last=transaction is unfinished[-1]):
            transaction.decide(Outcome(Stage.AFTER_DOT, cause=Cause.LOST, text=text))
        elif transaction.is_begun:
            transaction.decide(Outcome(stage, cause=Cause.LOST, text=text))


def _may_be_accepted(transaction: OutgoingTransaction, shown: Evidence, *, is_last: bool) -> bool:
    """Whether the mail server may have accepted a message that was sent whole. is_last: nothing was sent behind it. A mail
    server that has accepted its content has read everything, and loses no reply when it closes."""
    match shown:
        case Evidence.NOT_PROCESSED:
            return False
        case Evidence.CLOSED:
            return transaction.has_accepted
        case Evidence.CLOSED_AMONG_REPLIES:
            return transaction.has_accepted or not is_last
        case Evidence.NOTHING:
            return True
