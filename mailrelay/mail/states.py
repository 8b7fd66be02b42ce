"""The states of a recipient. `mail.lifecycle` holds the changes between them."""

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
"""States in which the daemon will try to deliver."""
OPEN = frozenset({State.QUEUED, State.DEFERRED, State.HELD})
"""States in which the message may still be sent to the recipient."""
FAILED = frozenset({State.BOUNCED, State.EXPIRED})
"""States in which the content is kept until the person resends or drops the message."""
