"""What the connections of one listener share: the intake, the allowed accounts, and the log lines about dropped connections
and refusals.

Never: an unlimited number of these lines.
"""

import asyncio
import logging
import math
from dataclasses import dataclass, field
from typing import Protocol

from mailrelay.config import Listen
from mailrelay.listener.reception import Incoming
from mailrelay.listener.replies import IDLE_CLOSED
from mailrelay.mail import logline
from mailrelay.mail.client_reply import ClientReply
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Reply
from mailrelay.mail.printable import printable

log = logging.getLogger("mailrelay.listener")

SECURITY_LINES = 20
"""Log lines a minute about dropped connections, at most."""
REFUSAL_LINES = 200
"""Log lines a minute about refusals, at most."""
BETWEEN_COMMANDS = 1.0
"""Seconds without a command that do not count as idle."""


class IntakePort(Protocol):
    """Takes mail over."""

    def expect_message(self, reverse_path: bytes) -> None:
        """A client's MAIL was accepted: there will be mail in a moment."""

    def refusal(self) -> Reply | None:
        """Why nothing can be taken now, a 4xx; None if mail can be taken. Asked at every MAIL."""

    async def probe_recipient(self, envelope: Envelope, patience: float) -> Reply | None:
        """The refusal of an envelope with one recipient, the latest of RCPT; None if there is none within `patience`
        seconds."""

    async def submit(self, envelope: Envelope, content: bytes) -> ClientReply:
        """Take a message over; returns once it is safe and the client is to be answered. content: lines end with CRLF,
        no dots of transparency. Any exception is answered with 451."""

    def new_incoming(self, envelope: Envelope) -> Incoming:
        """A message whose content comes in pieces."""


class Connection(Protocol):
    """What the listener needs of a connection. closed: done once it is gone."""

    closed: asyncio.Future[None]

    @property
    def is_over(self) -> bool:
        """Whether nothing more is read from the client."""

    @property
    def idle_since(self) -> float | None:
        """Loop time of the last command; None within a transaction, and before the greeting."""

    def check_timeouts(self, now: float) -> float:
        """Ends a connection whose client has been silent or slow for too long. now: loop time. Returns the seconds until it
        is to be checked again."""

    def retire(self, reply: Reply) -> None:
        """Close with `reply`, unless a command or a content is in progress. Closes at once where only the client is waited
        for."""

    def abort(self) -> None:
        """End the connection now."""


class LineLimit:
    """Allows at most `limit` log lines of one kind a minute."""

    def __init__(self, limit: int, more: str) -> None:
        """more: logged for the suppressed lines, their number as %d, with the first line of a later minute."""
        self._limit = limit
        self._more = more
        self._minute = 0
        self._lines = 0

    def count_one(self) -> bool:
        """Count a line; whether it may be logged."""
        minute = int(asyncio.get_running_loop().time() // 60)
        if minute != self._minute:
            if self._lines > self._limit:
                log.warning(self._more, self._lines - self._limit)
            self._minute, self._lines = minute, 0
        self._lines += 1
        return self._lines <= self._limit


@dataclass(slots=True)
class ServerState:
    """What the connections of one listener share. allowed: user ids, None for any. tasks: those that may outlive their
    connection. stopping: set once no new mail is taken."""

    settings: Listen
    intake: IntakePort
    allowed: frozenset[int] | None
    connections: set[Connection] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    stopping: bool = False
    _timer: asyncio.TimerHandle | None = None
    _security: LineLimit = field(
        default_factory=lambda: LineLimit(SECURITY_LINES, "security: %d more connections were dropped")
    )
    _refusals: LineLimit = field(default_factory=lambda: LineLimit(REFUSAL_LINES, "%d more refusals were not logged"))

    def add(self, connection: Connection, wait: float) -> None:
        """A new connection, to be checked for time-outs in `wait` seconds: no sooner than those that there are."""
        self.connections.add(connection)
        if self._timer is None:
            # One timer for all: making and cancelling one for each message costs more than its other bookkeeping.
            self._timer = asyncio.get_running_loop().call_later(wait, self._check_timeouts)

    def _check_timeouts(self) -> None:
        loop = asyncio.get_running_loop()
        wait = min((connection.check_timeouts(loop.time()) for connection in list(self.connections)), default=None)
        self._timer = None if wait is None else loop.call_later(wait, self._check_timeouts)

    def make_room(self) -> bool:
        """Whether the latest connection may stay. Above `max_connections` the one that has been idle longest is closed;
        while all are busy, a tenth more is accepted, so that a crowd of large messages does not keep the next client
        out."""
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
        longest.retire(IDLE_CLOSED)
        return True

    def security(self, why: str, said: bytes = b"") -> None:
        """Log one dropped connection, within the limit."""
        if self._security.count_one():
            log.warning(
                "security: connection dropped, the client %s%s", why, f": {printable(said[:80])}" if said else ""
            )

    def broken_off(self, received: int, why: str, sender: bytes) -> None:
        """Log, within the limit, a content that was not completed. received: octets of it."""
        if self._refusals.count_one():
            log.warning("%s", logline.broken_off(sender, received, why))

    def refused(self, command: str, reply: Reply, sender: bytes | None = None) -> None:
        """Log a refusal of ours, within the limit. sender: of the transaction, None before MAIL has been accepted."""
        if self._refusals.count_one():
            log.warning("%s", logline.rejected(command, reply, sender))
