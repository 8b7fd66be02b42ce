"""Decides what an outcome means for its recipients. No other module decides this.

Promises: every outcome has a disposition. No local fault bounces a message: only the mail server's 5xx to MAIL, RCPT, DATA
or the content does, unless it refuses mailrelay and not this mail (`mail.setup_reply` recognises that). The first digit
decides; unknown codes are legal (RFC 5321 section 4.2.1).

Whether a reply to RCPT means "too many recipients" also depends on the recipients before it: `recipient_limit.dispositions`
judges the outcomes of one transaction together.
"""

import enum

from mailrelay.mail.outcome import Cause, Outcome, Scope, Stage


class Disposition(enum.StrEnum):
    """What an outcome means for the recipients it concerns."""

    SENT = "sent"
    DEFERRED = "deferred"
    UNCERTAIN = "uncertain"
    """Deferred, but the mail server may have the message: the connection was lost between the final dot and its reply."""
    BOUNCED = "bounced"
    TOO_MANY = "too many"
    """The mail server takes no more recipients in this transaction; the recipient goes in another one."""
    HELD = "held"
    """The message cannot be sent as it is, or not to this mail server; the person must decide."""
    NOT_TRIED = "waits"
    """The relayhost had a fault, so the message was not tried. No attempt is counted."""


TRANSIENT = frozenset({Cause.UNREACHABLE, Cause.LOST})
"""Causes that are due to the network and end by themselves."""

PENALISED = frozenset({Cause.AUTH_REFUSED, Cause.HOST_KEY_UNKNOWN, Cause.HOST_KEY_CHANGED, Cause.HOST_KEY_REVOKED})
"""Causes after which an SSH server may block the client's address if it returns too soon (PerSourcePenalties of sshd)."""


def classify(outcome: Outcome) -> Disposition:
    """What `outcome` means for the recipients concerned, regardless of the other recipients of its transaction."""
    if outcome.cause in (Cause.NO_SMTPUTF8, Cause.UNREADABLE):
        return Disposition.HELD
    if outcome.scope is Scope.RELAYHOST:
        return Disposition.NOT_TRIED
    if outcome.reply is None:
        return Disposition.UNCERTAIN if outcome.stage is Stage.AFTER_DOT else Disposition.DEFERRED
    # RFC 5321 section 4.5.3.1.10: some servers mean "too many recipients" by 552. The mailbox that is full has 5.2.2.
    means_too_many = outcome.stage is Stage.RCPT and outcome.reply.code == 552 and outcome.reply.status == "5.5.3"
    match outcome.reply.code // 100:
        case 2 if outcome.stage is Stage.CONTENT:
            return Disposition.SENT
        case 5 if not means_too_many:
            return Disposition.BOUNCED
        case _:
            # 4xx, and replies that have no meaning at their stage: the mail server has not taken responsibility.
            return Disposition.DEFERRED


def is_setup_fault(outcome: Outcome) -> bool:
    """Whether `outcome` is a fault of a relayhost that only the person can fix: then a notice is sent at once.

    A missing network, a broken connection, and a mail server that asks to try later (4xx) or ends each conversation are not:
    they end by themselves. A 4xx that refuses mailrelay itself (`mail.setup_reply`) does not end by itself.
    """
    if outcome.scope is not Scope.RELAYHOST or outcome.cause in TRANSIENT or outcome.cause is Cause.TURNED_AWAY:
        return False
    return outcome.reply is None or outcome.cause is not Cause.REPLY or outcome.reply.code // 100 == 5


def is_reply_to_mail(outcome: Outcome) -> bool:
    """Whether the mail server has judged the mail itself, behind all points at which it may refuse mailrelay."""
    return (
        outcome.reply is not None
        and not outcome.ends_conversation
        and outcome.scope is not Scope.RELAYHOST
        and outcome.stage in (Stage.RCPT, Stage.DATA, Stage.CONTENT)
    )
