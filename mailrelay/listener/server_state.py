"""The state that all connections of one listener share: the intake, the allowed accounts, the limit of connections, and the
log lines about dropped connections and refusals.

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
"""Seconds. A connection with a command since then is closed for a new one only if the tenth above the limit is used up."""


class IntakePort(Protocol):
    """Takes over messages. The listener logs an exception and replies 451 to the client."""

    def expect_message(self, reverse_path: bytes) -> None:
        """A client's MAIL was accepted: a message may follow."""

    def refusal(self) -> Reply | None:
        """Why no message can be accepted now, a 4xx; None if one can. Called at every MAIL."""

    async def probe_recipient(self, envelope: Envelope, timeout: float) -> Reply | None:
        """Asks the mail server about `envelope`, whose only recipient is that of the last RCPT. Returns its refusal; None if
        there is none within `timeout` seconds."""

    async def submit(self, envelope: Envelope, content: bytes) -> ClientReply:
        """Takes over a message. Returns the reply once the message is on disk. content: lines end with CRLF, no dots of
        transparency."""

    def new_incoming(self, envelope: Envelope) -> Incoming:
        """A message whose content is handed over in pieces."""


class ClientConnection(Protocol):
    """A connection of a client. closed: done once it is gone. owner: the uid of the client's account, None if messages do
    not belong to accounts."""

    closed: asyncio.Future[None]
    owner: int | None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is read from the client."""

    @property
    def idle_since(self) -> float | None:
        """Loop time of the last command; None within a transaction, and before the greeting."""

    def check_timeouts(self, now: float) -> float:
        """Closes the connection if its client has been idle or slow for too long. now: loop time. Returns the seconds until
        the next check."""

    def retire(self, reply: Reply) -> None:
        """Sends `reply` and closes, unless a command or a content is in progress. Closes at once if the last reply was sent
        already."""

    def abort(self) -> None:
        """Ends the connection now, without a reply."""


class LogLimit:
    """Allows at most `limit` log lines of one kind a minute."""

    def __init__(self, limit: int, more: str) -> None:
        """more: the line about suppressed lines, with their number as %d. It is logged before the first line of a later
        minute."""
        self._limit = limit
        self._more = more
        self._minute = 0
        self._lines = 0

    def count_one(self) -> bool:
        """Counts a line. Returns whether it may be logged."""
        minute = int(asyncio.get_running_loop().time() // 60)
        if minute != self._minute:
            if self._lines > self._limit:
                log.warning(self._more, self._lines - self._limit)
            self._minute, self._lines = minute, 0
        self._lines += 1
        return self._lines <= self._limit


@dataclass(slots=True)
class ServerState:
    """The state that all connections of one listener share. allowed: user ids, None for any. tasks: tasks that may
    outlive their connection. stopping: whether the listener accepts no more mail. accepted: connections until now."""

    settings: Listen
    intake: IntakePort
    allowed: frozenset[int] | None
    connections: set[ClientConnection] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    stopping: bool = False
    accepted: int = 0
    _timer: asyncio.TimerHandle | None = None
    _security: LogLimit = field(
        default_factory=lambda: LogLimit(SECURITY_LINES, "security: %d more connections were dropped")
    )
    _refusals: LogLimit = field(default_factory=lambda: LogLimit(REFUSAL_LINES, "%d more refusals were not logged"))

    def add(self, connection: ClientConnection, wait: float) -> None:
        """Adds a new connection. wait: seconds until the first check of the time-outs, if it is the only connection;
        otherwise the next check of all connections includes it."""
        self.connections.add(connection)
        self.accepted += 1
        if self._timer is None:
            # One timer for all: a timer for each connection costs more than all other bookkeeping.
            self._timer = asyncio.get_running_loop().call_later(wait, self._check_timeouts)

    def _check_timeouts(self) -> None:
        loop = asyncio.get_running_loop()
        wait = min((connection.check_timeouts(loop.time()) for connection in list(self.connections)), default=None)
        self._timer = None if wait is None else loop.call_later(wait, self._check_timeouts)

    def is_over_share(self, owner: int | None) -> bool:
        """Whether an account has more than half of `max_connections`: then others would have none left."""
        if owner is None:
            return False
        share = max(1, self.settings.max_connections // 2)
        return sum(one.owner == owner for one in self.connections if not one.is_over) > share

    def enforce_connection_limit(self) -> bool:
        """Whether the latest connection may stay. Above `max_connections`, the connection that has been idle longest is
        closed. While all are busy, a tenth more is accepted, so that many large messages do not block the next client.
        Connections that are over count only towards a second limit, twice as high."""
        limit = self.settings.max_connections
        if len(self.connections) <= limit:
            return True
        # Connections that are over close soon.
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

    def log_dropped(self, why: str, received: bytes = b"") -> None:
        """Logs a dropped connection, within the limit. why: a text that follows "the client". received: octets of the
        client; 80 at most are logged."""
        if self._security.count_one():
            log.warning(
                "security: connection dropped, the client %s%s",
                why,
                f": {printable(received[:80])}" if received else "",
            )

    def log_incomplete_content(self, received: int, why: str, sender: bytes) -> None:
        """Logs a content that was not completed, within the limit. received: octets of it."""
        if self._refusals.count_one():
            log.warning("%s", logline.broken_off(sender, received, why))

    def log_refusal(self, command: str, reply: Reply, sender: bytes | None = None) -> None:
        """Logs a refusal by the listener, within the limit. sender: of the transaction, None before MAIL is accepted."""
        if self._refusals.count_one():
            log.warning("%s", logline.rejected(command, reply, sender))
