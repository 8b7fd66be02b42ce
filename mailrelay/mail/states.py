"""The states of a recipient: the words of the state table, without the moves (`mail.lifecycle`)."""

import enum


class State(enum.StrEnum):
    QUEUED = "queued"
    DEFERRED = "deferred"
    HELD = "held"
    SENT = "sent"
    BOUNCED = "bounced"
    REFUSED = "refused"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


PENDING = frozenset({State.QUEUED, State.DEFERRED})
"""States in which the daemon will try again by itself."""
OPEN = frozenset({State.QUEUED, State.DEFERRED, State.HELD})
"""States in which the recipient may still get the mail."""
FAILED = frozenset({State.BOUNCED, State.EXPIRED})
"""States in which the mail is kept whole until the person has dealt with it."""
