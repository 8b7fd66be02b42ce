"""What one transaction sends before a reply is waited for, and how many transactions may be in flight at once.

Most of the time of a delivery is spent on round trips, so a session avoids them:

    no PIPELINING    one command at a time
    PIPELINING       MAIL, RCPT…, DATA in one flight; content and the next message's MAIL, RCPT…, DATA in one flight
    and CHUNKING     MAIL, RCPT…, BDAT and content in one flight, up to `MAX_IN_FLIGHT` messages; content larger than
                     `SMALL` waits for the replies to RCPT, because it might be sent for nothing

With CHUNKING, `Trust` allows less: a mail server that ends conversations must leave little doubt about messages. A
conversation that begins with one message has a window, which grows with each message that is judged.

Pure functions of the extensions in use; `session` keeps what was sent.
"""

import enum
from collections.abc import Sequence

from mailrelay.smtp import command
from mailrelay.smtp.extensions import Extensions
from mailrelay.smtp.transaction import Command, OutgoingTransaction, Verb

SMALL = 64 * 1024
"""Octets: content up to this size is sent with BDAT before the replies to RCPT."""
MAX_IN_FLIGHT = 32
"""Messages with BDAT whose replies may be outstanding at once."""
WINDOW_STEP = 8
"""How many more they may be after each message that is judged, from one on."""


class Trust(enum.Enum):
    """What earlier messages have shown of the mail server, in this conversation or before it."""

    UNKNOWN = enum.auto()
    """It has judged no message or probe yet: one message at a time."""
    PROVEN = enum.auto()
    """It has judged one."""
    DOUBTED = enum.auto()
    """It has ended a conversation in a transaction since: one message at a time, whose content waits for the replies to
    RCPT."""


def max_in_flight(offered: Extensions) -> int:
    """How many messages can be sent before the reply to their content is read."""
    return MAX_IN_FLIGHT if offered.uses_bdat else 1


def first_window(trust: Trust) -> int:
    """How many messages with BDAT may be in flight when a conversation begins."""
    return MAX_IN_FLIGHT if trust is Trust.PROVEN else 1


def next_window(window: int) -> int:
    """How many may be in flight once one more is judged. It grows in steps, so that a conversation with a slow mail server
    does not take the messages that other conversations could send meanwhile."""
    return min(MAX_IN_FLIGHT, window + WINDOW_STEP)


def more_allowed(offered: Extensions, unfinished: int, window: int) -> int:
    """How many more transactions may be started. unfinished: how many were started and are not finished; the last one's
    content must have been written."""
    if offered.uses_bdat:
        return window - unfinished
    # The commands of the next transaction are sent together with the content of the last one.
    return 1 if unfinished < (2 if offered.pipelining else 1) else 0


def is_content_first(size: int | None, offered: Extensions, trust: Trust) -> bool:
    """Whether the content is sent in one flight with the commands before it. Then all of it is read before the first command
    is sent, so that a message that cannot be read does not end the others in flight. size: as in `OutgoingTransaction`."""
    return trust is not Trust.DOUBTED and size is not None and size <= SMALL and offered.uses_bdat


def decide_unsendable(transaction: OutgoingTransaction, offered: Extensions) -> None:
    """Decides the outcomes of what cannot be sent to this mail server: the whole envelope, or single recipients."""
    if (failure := command.unsendable(transaction.envelope, offered)) is not None:
        transaction.decide(failure)
    for index, recipient in enumerate(transaction.envelope.recipients):
        if (failure := command.unsendable_recipient(recipient, offered)) is not None:
            transaction.decide(failure, index)


def commands(transaction: OutgoingTransaction, offered: Extensions, *, is_content_first: bool) -> Sequence[Command]:
    """The commands of a transaction up to its content, without the recipients that have an outcome already.
    is_content_first: the content follows in the same flight."""
    envelope, size = transaction.envelope, transaction.size
    planned = [Command(Verb.MAIL, command.mail(envelope, size, offered), transaction)]
    for index, recipient in enumerate(envelope.recipients):
        if index not in transaction.outcomes:
            planned.append(Command(Verb.RCPT, command.rcpt(recipient, offered), transaction, index))
    if size is not None and not offered.uses_bdat:
        planned.append(Command(Verb.DATA, b"DATA\r\n", transaction))
    elif size is not None and not is_content_first:
        planned.append(Command(Verb.BDAT, bdat(size), transaction))
    return planned


def bdat(size: int) -> bytes:
    """The BDAT line for the whole content (RFC 3030)."""
    return b"BDAT %d LAST\r\n" % size
