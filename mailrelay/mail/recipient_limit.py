"""Judges the outcomes of one transaction together: which recipients were too many for it.

A mail server may take only so many recipients in a transaction. The reply to the others is 452 (RFC 5321 section
4.5.3.1.10), with the enhanced status code X.5.3 (RFC 3463); some servers send other codes, or only the words "too many
recipients". Such a reply counts only if a recipient was accepted before it: otherwise another transaction would get the same
reply. Some servers end the conversation, with 421 or without, at the first recipient that is too many, or after a number of
such replies. Then the recipients that were accepted have no reply to the content.

Promises: the only recipient of a transaction is never `TOO_MANY`. If an accepted recipient is `TOO_MANY`, the outcomes
show a limit below the number of recipients in the transaction; so the next transaction has fewer.
"""

import re
from collections.abc import Sequence

from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.triage import Disposition, classify

_TOO_MANY = re.compile(
    rb"too (?:many|much)[^.;:]{0,30}(?:recipient|rcpt|addressee)"
    rb"|(?:recipient|rcpt)s?[ -](?:limit|maximum|count)\b"
    rb"|(?:limit|maximum|max|more than|number)\b[^.;:]{0,30}(?:recipients|rcpts)"
    rb"|(?:recipients|rcpts)\b[^.;:]{0,30}(?:limit|exceed|maximum)",
    re.IGNORECASE,
)
_STORAGE = re.compile(rb"quota|mailbox|\bfull\b|storage|\bspace\b|\bdisk\b", re.IGNORECASE)


def dispositions(outcomes: Sequence[Outcome]) -> tuple[Disposition, ...]:
    """What the outcomes mean, in the order of the recipients of their transaction.

    They are those of `classify`, except for `TOO_MANY`: the reply to RCPT means "too many recipients", or is a 452 or 552
    without an enhanced status code, and a recipient before it was accepted. If the mail server has shown its limit in this
    way, and refuses DATA or the content because of too many recipients (Exim with recipients_max_reject), those that it had
    accepted are `TOO_MANY` too. If it ended the conversation, all recipients without a reply of their own are `TOO_MANY`,
    unless it may have the content.
    """
    found = _after_rcpt(outcomes)
    if _limit_before_end(outcomes) is not None:
        return tuple(
            Disposition.TOO_MANY if outcome.stage is Stage.RCPT and (outcome.is_421 or _was_accepted(outcome)) else one
            for one, outcome in zip(found, outcomes, strict=True)
        )
    if _limit_by_rcpt(outcomes, found) is None:
        return found
    return tuple(
        Disposition.TOO_MANY if outcome.stage in (Stage.DATA, Stage.CONTENT) and _means_too_many(outcome) else one
        for one, outcome in zip(found, outcomes, strict=True)
    )


def recipient_limit(outcomes: Sequence[Outcome]) -> int | None:
    """How many recipients the mail server accepts in one transaction, as the outcomes of a transaction show it; at least 1.

    None if they show no limit: no recipient was too many, or one after it was accepted. In the second case the reply
    concerned something else, for example the domain of the recipient.
    """
    limit = _limit_before_end(outcomes)
    return limit if limit is not None else _limit_by_rcpt(outcomes, _after_rcpt(outcomes))


def _limit_before_end(outcomes: Sequence[Outcome]) -> int | None:
    """How many recipients the mail server accepted before it said that there are too many and ended the conversation, as
    Postfix does after smtpd_hard_error_limit such replies. None if it did not, if it accepted none, or one after that."""
    replied = [index for index, one in enumerate(outcomes) if one.stage is Stage.RCPT and one.reply is not None]
    if not replied or not any(one.cause is Cause.LOST or one.is_421 for one in outcomes):
        return None
    # Replies come in order: a recipient without one was accepted if another after it has one.
    judged = outcomes[: replied[-1] + 1]
    accepted = [_was_accepted(one) for one in judged]
    if True not in accepted:
        return None
    surplus = (_ends_at_too_many(one) or _means_too_many(one, code_suffices=True) for one in judged)
    first = next((index for index, is_one in enumerate(surplus) if is_one and index > accepted.index(True)), None)
    return None if first is None or any(accepted[first:]) else sum(accepted)


def _ends_at_too_many(outcome: Outcome) -> bool:
    reply = outcome.reply
    return (
        reply is not None
        and reply.code == 421
        and (reply.status == "4.5.3" or _TOO_MANY.search(reply.text) is not None)
    )


def _after_rcpt(outcomes: Sequence[Outcome]) -> tuple[Disposition, ...]:
    """The dispositions, as far as the replies to RCPT alone show which recipients were too many."""
    found = []
    has_accepted = False
    for outcome in outcomes:
        is_surplus = has_accepted and outcome.stage is Stage.RCPT and _means_too_many(outcome, code_suffices=True)
        found.append(Disposition.TOO_MANY if is_surplus else classify(outcome))
        has_accepted |= _was_accepted(outcome)
    return tuple(found)


def _limit_by_rcpt(outcomes: Sequence[Outcome], found: Sequence[Disposition]) -> int | None:
    """As `recipient_limit`, from replies to RCPT other than 421. found: from `_after_rcpt`."""
    if Disposition.TOO_MANY not in found:
        return None
    accepted = [_was_accepted(outcome) for outcome in outcomes]
    return None if any(accepted[found.index(Disposition.TOO_MANY) :]) else sum(accepted)


def _was_accepted(outcome: Outcome) -> bool:
    """Whether the mail server accepted the recipient: its outcome was decided after the reply to its RCPT. Also true if the
    conversation was lost at RCPT: accepted recipients have this outcome, too. So have those without a reply, but then no
    reply comes after them."""
    if outcome.stage is Stage.RCPT:
        return outcome.cause is Cause.LOST
    return outcome.stage in (Stage.DATA, Stage.CONTENT, Stage.AFTER_DOT)


def _means_too_many(outcome: Outcome, *, code_suffices: bool = False) -> bool:
    """Whether a reply says that there are too many recipients. code_suffices: whether a 452 or 552 without an
    enhanced status code means it, unless its text is about storage. False for a 421 (see `_ends_at_too_many`)."""
    reply = outcome.reply
    if reply is None or reply.code < 400 or reply.code == 421:
        return False
    says_so = _TOO_MANY.search(reply.text) is not None
    if not reply.has_status:
        return says_so or (code_suffices and reply.code in (452, 552) and not _STORAGE.search(reply.text))
    _, subject, detail = reply.status.split(".")
    # Not the subject 7: "too many recipients from your address this hour" is a rate, not a limit of the transaction.
    return (subject, detail) == ("5", "3") or (says_so and subject in ("3", "5"))
