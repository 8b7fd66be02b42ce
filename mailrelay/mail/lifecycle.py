"""What becomes of a recipient: the state table, and the only function that moves along it.

The state belongs to the recipient; a message's state is derived. `active` is derived too: an attempt row is open.
The spool repeats the words as CHECK constraints. A table here, not code elsewhere, says which moves are legal.
"""

import enum
from dataclasses import dataclass

from mailrelay.mail.states import FAILED as FAILED
from mailrelay.mail.states import OPEN as OPEN
from mailrelay.mail.states import PENDING as PENDING
from mailrelay.mail.states import State as State
from mailrelay.mail.triage import Disposition


class Act(enum.StrEnum):
    """What the person may do to a recipient."""

    HOLD = "hold"
    RELEASE = "release"
    CANCEL = "cancel"
    DROP = "drop"
    RESEND = "resend"
    """Another message takes the place of this one, for whom it has failed."""
    EDIT = "edit"
    """Another message takes the place of this one, for whom it has not been sent."""


ATTEMPT_TABLE: dict[Disposition, State | None] = {
    Disposition.SENT: State.SENT,
    Disposition.DEFERRED: State.DEFERRED,
    Disposition.UNCERTAIN: State.DEFERRED,
    Disposition.BOUNCED: State.BOUNCED,
    Disposition.HELD: State.HELD,
    Disposition.NOT_TRIED: None,
}
"""Where a disposition takes a pending recipient; None leaves it where it is."""

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
"""Where an act of the person's takes a recipient; what is not listed is not allowed."""


@dataclass(frozen=True, slots=True)
class Move:
    """Where a recipient goes after an attempt."""

    state: State
    needs_notice: bool
    uncertain: bool


def after_attempt(
    state: State, disposition: Disposition, *, client_told: bool, age: float, expire_after: float
) -> Move:
    """Where a pending recipient goes.

    client_told: the mail client got this very refusal as its answer, and so the person heard it.
    age, expire_after: seconds since the message was accepted, and how many of them are enough.
    Raises ValueError for a recipient that was not pending: it cannot have been tried.
    """
    if state not in PENDING:
        raise ValueError(f"a recipient that is {state} is not tried")
    to = ATTEMPT_TABLE[disposition]
    uncertain = disposition is Disposition.UNCERTAIN
    if to is None:
        return Move(state, needs_notice=False, uncertain=False)
    if to is State.BOUNCED and client_told:
        return Move(State.REFUSED, needs_notice=False, uncertain=False)
    # Only here, after an attempt of its own: mail that nobody could try for a week has not expired.
    if to is State.DEFERRED and age > expire_after:
        return Move(State.EXPIRED, needs_notice=True, uncertain=uncertain)
    return Move(to, needs_notice=to in FAILED or to is State.HELD, uncertain=uncertain)
