"""Decides what an outcome means for its recipients. No other module decides this.

Promises: every outcome has a disposition. No local fault bounces a message: only the mail server's 5xx to MAIL, RCPT, DATA
or the content does. The first digit decides; unknown codes are legal (RFC 5321 section 4.2.1).

`dispositions` judges the outcomes of one transaction together: whether a reply to RCPT means "too many recipients" also
depends on the recipients before it (`too_many`).
"""

import enum
import re
from collections.abc import Sequence

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


_TOO_MANY_WORDS = re.compile(
    rb"too (?:many|much)[^.;]{0,30}(?:recipient|rcpt|addressee)"
    rb"|(?:recipient|rcpt)s?\b[^.;]{0,30}\b(?:limit|maximum|exceed|too many)"
    rb"|(?:limit|maximum|more than|max)\b[^.;]{0,30}(?:recipient|rcpt)",
    re.IGNORECASE,
)


def dispositions(outcomes: Sequence[Outcome]) -> tuple[Disposition, ...]:
    """What the outcomes of one transaction mean, in the order of its recipients.

    They are those of `classify`, except for `TOO_MANY`: behind a recipient that the mail server accepted, a reply that means
    "too many recipients" by RFC 3463 or in words, or a 552 without an enhanced status code (RFC 5321 section 4.5.3.1.10). If
    there are such recipients, and the mail server then refuses DATA or the content as having too many recipients (Exim
    with recipients_max_reject), those that it had accepted are `TOO_MANY` too.
    """
    found = []
    is_behind_accepted = False
    for outcome in outcomes:
        if is_behind_accepted and outcome.stage is Stage.RCPT and _means_too_many(outcome, in_turn=True):
            found.append(Disposition.TOO_MANY)
        else:
            found.append(classify(outcome))
        is_behind_accepted |= _was_accepted(outcome)
    if Disposition.TOO_MANY not in found:
        return tuple(found)
    return tuple(
        Disposition.TOO_MANY if outcome.stage in (Stage.DATA, Stage.CONTENT) and _means_too_many(outcome) else one
        for one, outcome in zip(found, outcomes, strict=True)
    )


def recipient_limit(outcomes: Sequence[Outcome]) -> int | None:
    """How many recipients the mail server accepts in one transaction, as the outcomes of a transaction show it.

    None if they show no limit: no recipient was one too many, or one behind it was accepted. In the second case the reply
    concerned something else, for example the domain of the recipient.
    """
    judged = dispositions(outcomes)
    taken = [_was_accepted(outcome) for outcome in outcomes]
    surplus = [
        outcome.stage is Stage.RCPT and one is Disposition.TOO_MANY
        for outcome, one in zip(outcomes, judged, strict=True)
    ]
    if True not in surplus or True in taken[surplus.index(True) :]:
        return None
    return sum(taken)


def _was_accepted(outcome: Outcome) -> bool:
    """Whether the outcome of a recipient was decided after the mail server's 2xx to its RCPT. True, too, if the connection
    was lost before the reply: then there is no other reply behind it."""
    return outcome.stage in (Stage.RCPT, Stage.DATA, Stage.CONTENT, Stage.AFTER_DOT) and (
        outcome.stage is not Stage.RCPT or outcome.cause is Cause.LOST
    )


def _means_too_many(outcome: Outcome, *, in_turn: bool = False) -> bool:
    """Whether a reply says that there are too many recipients. in_turn: it is the reply to a RCPT behind accepted ones, for
    which a bare 552 is enough."""
    reply = outcome.reply
    if reply is None or reply.code < 400 or reply.code == 421:
        return False
    says_so = _TOO_MANY_WORDS.search(reply.text) is not None
    if not reply.has_status:
        return says_so or (in_turn and reply.code == 552)
    _, subject, detail = reply.status.split(".")
    # Not the subject 7: "too many recipients from your address this hour" is a rate, not a limit of the transaction.
    return (subject, detail) == ("5", "3") or (says_so and subject in ("3", "5"))


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

    A missing network, a broken connection and a mail server that asks to try later (4xx) are not: they end by themselves.
    """
    if outcome.scope is not Scope.RELAYHOST or outcome.cause in TRANSIENT:
        return False
    return outcome.reply is None or outcome.reply.code // 100 == 5
