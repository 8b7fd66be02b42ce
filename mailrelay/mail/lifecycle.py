"""The state table of recipients, and the only function that changes a state after an attempt.

The state belongs to the recipient; the state of a message is derived. `active` is derived too: an attempt row is open.
The spool repeats the states as CHECK constraints. The tables here decide which changes are legal.
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
    DROP = "drop"
    RESEND = "resend"
    """Another message replaces this one, for recipients for which it has failed."""
    EDIT = "edit"
    """Another message replaces this one, for recipients to which it has not been sent."""


ATTEMPT_TABLE: dict[Disposition, State | None] = {
    Disposition.SENT: State.SENT,
    Disposition.DEFERRED: State.DEFERRED,
    Disposition.UNCERTAIN: State.DEFERRED,
    Disposition.BOUNCED: State.BOUNCED,
    Disposition.HELD: State.HELD,
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
class Move:
    """The new state of a recipient after an attempt."""

    state: State
    needs_notice: bool
    uncertain: bool


def after_attempt(
    state: State, disposition: Disposition, *, client_told: bool, age: float, expire_after: float
) -> Move:
    """The new state of a pending recipient.

    client_told: whether the mail client got this refusal as the reply to its message, and so informed the person. age:
    seconds since the message was accepted. expire_after: the age in seconds after which it expires. Raises ValueError for a
    recipient that was not pending: it cannot have been tried.
    """
    if state not in PENDING:
        raise ValueError(f"a recipient in state {state} is not tried")
    to = ATTEMPT_TABLE[disposition]
    uncertain = disposition is Disposition.UNCERTAIN
    if to is None:
        return Move(state, needs_notice=False, uncertain=False)
    if to is State.BOUNCED and client_told:
        return Move(State.REFUSED, needs_notice=False, uncertain=False)
    # A message expires only after an attempt: one that could not be tried for a week has not expired.
    if to is State.DEFERRED and age > expire_after:
        return Move(State.EXPIRED, needs_notice=True, uncertain=uncertain)
    return Move(to, needs_notice=to in FAILED or to is State.HELD, uncertain=uncertain)
