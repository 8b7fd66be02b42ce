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

COUNTED_AS: dict[str, frozenset[State]] = {
    "pending": PENDING,
    "held": frozenset({State.HELD}),
    "failed": FAILED,
    "sent": frozenset({State.SENT}),
    "refused": frozenset({State.REFUSED}),
    "cancelled": frozenset({State.CANCELLED}),
}
"""The words under which `status` and `queue` count messages. A message counts once under each word that fits one of its
recipients, so one with several recipients may count under several words."""

QUEUE_NAMES = ("active", "incoming", "deferred", "hold", "failed", "sent", "refused", "cancelled")
"""Postfix's names of queues, and ours: "failed", "sent", "refused" and "cancelled"."""
HISTORY = frozenset({State.SENT, State.REFUSED, State.CANCELLED})
"""States of messages that only the history has, unless they bounced on the relayhost or another recipient waits."""
STATE_WORDS = tuple(dict.fromkeys((*(state.value for state in State), *QUEUE_NAMES, *COUNTED_AS)))
"""The words for the state of a recipient: its states, the names of queues, the words under which messages are counted."""
