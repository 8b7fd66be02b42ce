"""Judges outcomes: the one place that says what a failure means.

Promises: total (every outcome gets a disposition), and no local fault ever bounces: only the remote mail server's own 5xx
to MAIL, RCPT, DATA or the content does. The first digit decides; unknown codes are legal (RFC 5321 section 4.2.1).
"""

import enum

from mailrelay.mail.outcome import Cause, Outcome, Scope, Stage


class Disposition(enum.StrEnum):
    """What an outcome means for the recipients it concerns."""

    SENT = "sent"
    DEFERRED = "deferred"
    UNCERTAIN = "uncertain"
    """Deferred, but the remote may have it already: the connection was lost between the final dot and its reply."""
    BOUNCED = "bounced"
    HELD = "held"
    """It cannot be sent as it is, or not to this remote; the person must decide."""
    NOT_TRIED = "waits"
    """Nothing was tried: the fault is the relayhost's. No attempt is counted."""


QUIET = frozenset({Cause.UNREACHABLE, Cause.LOST})
"""Causes of a network that is away, which heal by themselves."""

PENALISED = frozenset({Cause.AUTH_REFUSED, Cause.HOST_KEY_UNKNOWN, Cause.HOST_KEY_CHANGED, Cause.HOST_KEY_REVOKED})
"""Causes for which an SSH server may lock the whole address out if one comes back too soon (sshd's PerSourcePenalties)."""


def classify(outcome: Outcome) -> Disposition:
    """What `outcome` means for the recipients concerned."""
    if outcome.cause in (Cause.NO_SMTPUTF8, Cause.UNREADABLE):
        return Disposition.HELD
    if outcome.scope is Scope.RELAYHOST:
        return Disposition.NOT_TRIED
    if outcome.reply is None:
        return Disposition.UNCERTAIN if outcome.stage is Stage.AFTER_DOT else Disposition.DEFERRED
    match outcome.reply.code // 100:
        case 2 if outcome.stage is Stage.CONTENT:
            return Disposition.SENT
        # RFC 5321 section 4.5.3.1.10: servers that mean "too many recipients" by 552 still exist.
        case 5 if outcome.stage is Stage.RCPT and outcome.reply.code == 552:
            return Disposition.DEFERRED
        case 5:
            return Disposition.BOUNCED
        case _:
            # 4xx, and replies that mean nothing where they stand: the remote took no responsibility.
            return Disposition.DEFERRED


def is_setup_fault(outcome: Outcome) -> bool:
    """Whether an outcome of scope relayhost is one that only a person can fix, and is told at once.

    A network that is away, a connection that broke and a remote that asks to come back later (4xx) heal by themselves.
    """
    if outcome.scope is not Scope.RELAYHOST or outcome.cause in QUIET:
        return False
    return outcome.reply is None or outcome.reply.code // 100 == 5
