"""What the connections of one listener have in common: whom they hand mail to, who may connect, and what the log says of
those who were sent away and of what was refused.

Never: more lines in the log about them than anybody reads.
"""

import asyncio
import logging
import math
from dataclasses import dataclass, field
from typing import Protocol

from mailrelay.config import Listen
from mailrelay.listener.reception import Incoming
from mailrelay.listener.replies import MADE_ROOM
from mailrelay.mail import logline
from mailrelay.mail.answer import Answer
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Reply
from mailrelay.mail.printable import printable

log = logging.getLogger("mailrelay.listener")

SECURITY_LINES = 20
"""Lines in the log, in a minute, about who was sent away."""
BETWEEN_COMMANDS = 1.0
"""Seconds of silence that are no idleness yet."""
REFUSAL_LINES = 200
"""The same about what was refused."""


class Intake(Protocol):
    """Takes mail over."""

    def begun(self, reverse_path: bytes) -> None:
        """A client's MAIL was accepted: there will be mail in a moment."""

    def refusal(self) -> Reply | None:
        """Why nothing can be taken now, a 4xx; None if mail can be taken. Asked at every MAIL."""

    async def vet(self, envelope: Envelope, patience: float) -> Reply | None:
        """Why an envelope with one recipient, the latest of RCPT, would be refused; None if it is not, or if that does not
        show within `patience` seconds."""

    async def submit(self, envelope: Envelope, content: bytes) -> Answer:
        """Take a message over; returns once it is safe and the client is to be answered. content: lines end with CRLF,
        no dots of transparency. Any exception is answered with 451."""

    def incoming(self, envelope: Envelope) -> Incoming:
        """A message whose content comes in pieces."""


class Connection(Protocol):
    """What the listener needs of a connection to end it. closed: done once it is gone. is_over: nothing is taken from the
    client any more."""

    closed: asyncio.Future[None]
    is_over: bool

    @property
    def idle_since(self) -> float | None:
        """The loop's time since which it has done nothing; None within a transaction."""

    def retire(self, reply: Reply) -> None:
        """End the dialogue now with `reply`, or, if there is a content in it, behind the answer to that."""

    def abort(self) -> None:
        """End the connection now."""


class LineLimit:
    """Counts the lines that are logged of one kind, so that they stay below `limit` in a minute."""

    def __init__(self, limit: int, more: str) -> None:
        """more: what is logged behind the minute for the others, with their number as %d."""
        self._limit = limit
        self._more = more
        self._minute = 0
        self._lines = 0

    def allows(self) -> bool:
        """Whether one more may be logged."""
        minute = int(asyncio.get_running_loop().time() // 60)
        if minute != self._minute:
            if self._lines > self._limit:
                log.warning(self._more, self._lines - self._limit)
            self._minute, self._lines = minute, 0
        self._lines += 1
        return self._lines <= self._limit


@dataclass(slots=True)
class ServerState:
    """What the connections of one listener share. allowed: user ids, None for any. answering: what goes on though the
    connection for which it was begun has gone. stopping: set once no new mail is taken."""

    settings: Listen
    intake: Intake
    allowed: frozenset[int] | None
    connections: set[Connection] = field(default_factory=set)
    answering: set[asyncio.Task[None]] = field(default_factory=set)
    stopping: bool = False
    _security: LineLimit = field(
        default_factory=lambda: LineLimit(SECURITY_LINES, "security: %d more connections were dropped")
    )
    _refusals: LineLimit = field(default_factory=lambda: LineLimit(REFUSAL_LINES, "%d more refusals were not logged"))

    def make_room(self) -> bool:
        """Whether there is room for the latest connection. Where there is none, the one that has been idle longest ends.

        A tenth more than the limit is let in while all others are busy: many large messages at once keep nobody out.
        """
        limit = self.settings.max_connections
        if len(self.connections) <= limit:
            return True
        # Those that are over close in a moment.
        remaining = [one for one in self.connections if not one.is_over]
        if len(remaining) <= limit:
            return len(self.connections) <= 2 * limit
        idle = [(since, one) for one in remaining if (since := one.idle_since) is not None]
        since, longest = min(idle, key=lambda pair: pair[0], default=(math.inf, None))
        is_within_reserve = len(remaining) <= limit + limit // 10
        if longest is None or (is_within_reserve and since > asyncio.get_running_loop().time() - BETWEEN_COMMANDS):
            return is_within_reserve
        longest.retire(MADE_ROOM)
        return True

    def security(self, why: str, said: bytes = b"") -> None:
        """Log who was sent away, once a connection, and not more than anybody reads."""
        if self._security.allows():
            log.warning(
                "security: connection dropped, the client %s%s", why, f": {printable(said[:80])}" if said else ""
            )

    def broken_off(self, received: int, why: str, sender: bytes) -> None:
        """Log that no message comes of a content that had begun. received: octets of it."""
        if self._refusals.allows():
            log.warning("%s", logline.broken_off(sender, received, why))

    def refused(self, command: str, reply: Reply, sender: bytes | None = None, recipient: bytes | None = None) -> None:
        """Log a refusal of ours. sender, recipient: addresses, as far as they are valid and known."""
        if self._refusals.allows():
            log.warning("%s", logline.rejected(command, reply, sender, recipient))
