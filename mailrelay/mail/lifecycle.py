"""The state tables of recipients, and the function that gives the new state after an attempt.

The state belongs to the recipient; the state of a message is derived. `active` is derived too: it means that an attempt is
open. The tables here decide which changes are legal; the spool repeats the states as CHECK constraints. An attempt that a
crash interrupted has no outcome: `spool.attempts.recover` makes its recipients deferred.
"""

import enum
from dataclasses import dataclass

from mailrelay.mail.states import FAILED as FAILED
from mailrelay.mail.states import OPEN as OPEN
from mailrelay.mail.states import PENDING as PENDING
from mailrelay.mail.states import State as State
from mailrelay.mail.triage import Disposition


class Act(enum.StrEnum):
    """What the person may do with a recipient."""

    HOLD = "hold"
    RELEASE = "release"
    CANCEL = "cancel"
    """Give up a recipient to which the message may still be sent, or dismiss that it has bounced on the relayhost."""
    DROP = "drop"
    """Give up a failed recipient: its content need not be kept any longer."""
    RESEND = "resend"
    """Replace the message with a copy, for recipients that are held, refused or failed."""
    EDIT = "edit"
    """Replace the message with a changed one, for all recipients but those that are sent or cancelled."""


ENDS_BOUNCE = frozenset({Act.CANCEL, Act.DROP, Act.RESEND, Act.EDIT})
"""The acts that deal with a recipient that has bounced on the relayhost."""
ATTEMPT_TABLE: dict[Disposition, State | None] = {
    Disposition.SENT: State.SENT,
    Disposition.DEFERRED: State.DEFERRED,
    Disposition.UNCERTAIN: State.DEFERRED,
    Disposition.BOUNCED: State.BOUNCED,
    Disposition.HELD: State.HELD,
    Disposition.TOO_MANY: None,
    Disposition.NOT_TRIED: None,
}
"""The new state of a pending recipient; None if it does not change."""

ACT_TABLE: dict[tuple[State, Act], State] = {
    (State.QUEUED, Act.HOLD): State.HELD,
    (State.DEFERRED, Act.HOLD): State.HELD,
    (State.HELD, Act.RELEASE): State.QUEUED,
    (State.QUEUED, Act.CANCEL): State.CANCELLED,
    (State.DEFERRED, Act.CANCEL): State.CANCELLED,
    (State.HELD, Act.CANCEL): State.CANCELLED,
    (State.BOUNCED, Act.DROP): State.CANCELLED,
    (State.EXPIRED, Act.DROP): State.CANCELLED,
    **{(state, Act.RESEND): State.CANCELLED for state in (State.HELD, State.REFUSED, *FAILED)},
    **{(state, Act.EDIT): State.CANCELLED for state in (State.REFUSED, *OPEN, *FAILED)},
}
"""The new state of a recipient after an act of the person. Acts that are not listed are not allowed."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """The new state of a recipient after an attempt. uncertain: the mail server may have the message already."""

    state: State
    needs_notice: bool
    uncertain: bool


def after_attempt(
    state: State, disposition: Disposition, *, client_told: bool, age: float, expire_after: float
) -> StateChange:
    """The new state of a pending recipient.

    state: the state before the attempt. client_told: whether the mail client got this refusal as the reply to its message;
    then no notice is needed. age: seconds since the message was accepted, or since its send time. expire_after: the age in
    seconds after which it expires. Raises ValueError for a recipient that was not pending: it cannot have been tried."""
    if state not in PENDING:
        raise ValueError(f"a recipient in state {state} is not tried")
    to = ATTEMPT_TABLE[disposition]
    uncertain = disposition is Disposition.UNCERTAIN
    if to is None:
        return StateChange(state, needs_notice=False, uncertain=False)
    if to is State.BOUNCED and client_told:
        return StateChange(State.REFUSED, needs_notice=False, uncertain=False)
    # Only an attempt makes a message expire: while the relayhost cannot be used, no message expires.
    if to is State.DEFERRED and age > expire_after:
        return StateChange(State.EXPIRED, needs_notice=True, uncertain=uncertain)
    return StateChange(to, needs_notice=to in FAILED or to is State.HELD, uncertain=uncertain)
