"""What one transaction sends before a reply is waited for, and how many transactions may be in flight at once.

Most of the time of a delivery is spent on round trips, so a session avoids them:

    no PIPELINING    one command at a time
    PIPELINING       MAIL, RCPT…, DATA in one flight; content and the next message's MAIL, RCPT…, DATA in one flight
    and CHUNKING     MAIL, RCPT…, BDAT and content in one flight, up to `MAX_IN_FLIGHT` messages; content larger than
                     `SMALL` waits for the replies to RCPT, because it might be sent for nothing

With CHUNKING, `Trust` limits this further, so that few messages are in doubt if the mail server ends the conversation: the
window of a conversation is the number of messages that may be in flight. Unless the mail server is proven, it begins at one
and grows with each finished transaction.

Pure functions of the extensions in use; `session` keeps what was sent.
"""

import enum
from collections.abc import Sequence

from mailrelay.smtp import command
from mailrelay.smtp.extensions import Extensions
from mailrelay.smtp.record import Exchange
from mailrelay.smtp.transaction import Command, OutgoingTransaction, Verb

SMALL = 64 * 1024
"""Octets: content up to this size is sent with BDAT before the replies to RCPT."""
MAX_IN_FLIGHT = 32
"""Messages with BDAT whose replies may be outstanding at once."""
WINDOW_STEP = 8
"""Messages by which the window grows with each finished transaction."""


class Trust(enum.Enum):
    """What earlier messages have shown of the mail server, in this conversation or before it.

    A message or probe is judged once its transaction is finished with a reply of the mail server as an outcome. The
    window limits only transactions with BDAT.
    """

    UNKNOWN = enum.auto()
    """It has judged no message or probe yet: the window begins at one message."""
    PROVEN = enum.auto()
    """It has judged one: the window is `MAX_IN_FLIGHT`, or grows to it."""
    DOUBTED = enum.auto()
    """It has ended a conversation within a transaction and judged nothing since: the window begins at one message, and
    its content waits for the replies to RCPT."""


def max_in_flight(offered: Extensions) -> int:
    """How many messages can be sent before the reply to their content is read."""
    return MAX_IN_FLIGHT if offered.uses_bdat else 1


def first_window(trust: Trust) -> int:
    """How many messages with BDAT may be in flight when a conversation begins."""
    return MAX_IN_FLIGHT if trust is Trust.PROVEN else 1


def next_window(window: int) -> int:
    """The window after one more transaction is finished. It grows in steps: messages that one conversation takes at once
    would wait behind a slow mail server, while other conversations could send them."""
    return min(MAX_IN_FLIGHT, window + WINDOW_STEP)


def more_allowed(offered: Extensions, unfinished: int, window: int) -> int:
    """How many more transactions may be started. unfinished: how many were started and are not finished; the last one's
    content must have been written."""
    if offered.uses_bdat:
        return window - unfinished
    # The commands of the next transaction are sent together with the content of the last one.
    return 1 if unfinished < (2 if offered.pipelining else 1) else 0


def is_content_ahead(size: int | None, offered: Extensions, trust: Trust) -> bool:
    """Whether the content is sent ahead of the replies to RCPT, in one flight with the commands. Then all of it is read from
    the spool before the first command is sent: a message that cannot be read does not end the conversation. size: as in
    `OutgoingTransaction`."""
    return trust is not Trust.DOUBTED and size is not None and size <= SMALL and offered.uses_bdat


def decide_unsendable(transaction: OutgoingTransaction, offered: Extensions) -> None:
    """Decides the outcomes of what cannot be sent to this mail server: the whole envelope, or single recipients."""
    if (failure := command.unsendable(transaction.envelope, offered)) is not None:
        transaction.decide(failure)
    for index, recipient in enumerate(transaction.envelope.recipients):
        if (failure := command.unsendable_recipient(recipient, offered)) is not None:
            transaction.decide(failure, index)


def commands(transaction: OutgoingTransaction, offered: Extensions, *, is_content_ahead: bool) -> Sequence[Command]:
    """The commands of a transaction up to its content, without the recipients that have an outcome already.
    is_content_ahead: as decided by the function of this name."""
    envelope, size = transaction.envelope, transaction.size
    planned = [Command(Verb.MAIL, command.mail(envelope, size, offered), transaction)]
    for index, recipient in enumerate(envelope.recipients):
        if index not in transaction.outcomes:
            planned.append(Command(Verb.RCPT, command.rcpt(recipient, offered), transaction, index))
    if size is not None and not offered.uses_bdat:
        planned.append(Command(Verb.DATA, b"DATA\r\n", transaction))
    elif size is not None and not is_content_ahead:
        planned.append(Command(Verb.BDAT, bdat(size), transaction))
    return planned


def exchange(transaction: OutgoingTransaction, offered: Extensions, first: int) -> Exchange:
    """Where the replies to the commands of a message will stand. first: how many come before the one to MAIL."""
    recipients = tuple(
        index for index in range(len(transaction.envelope.recipients)) if index not in transaction.outcomes
    )
    return Exchange(first, recipients, not offered.uses_bdat)


def bdat(size: int) -> bytes:
    """The BDAT line for the whole content (RFC 3030)."""
    return b"BDAT %d LAST\r\n" % size
