"""What the connections of one listener have in common: whom they hand mail to, who may come in, how much they hold in
memory, and what the log says of those who were sent away.

Never: more lines in the log about intruders than anybody reads.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Protocol

from mailrelay.config import Listen
from mailrelay.mail.answer import Answer
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Reply
from mailrelay.mail.printable import printable

log = logging.getLogger("mailrelay.listener")

SECURITY_LINES = 20
"""Lines in the log, in a minute, about who was sent away."""


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


class Connection(Protocol):
    """What the listener needs of a connection to end it. closed: done once it is gone."""

    closed: asyncio.Future[None]

    def retire(self) -> None:
        """End the dialogue now, or, if there is a content in it, behind the answer to that."""

    def abort(self) -> None:
        """End the connection now."""


@dataclass(slots=True)
class Shared:
    """What the connections of one listener share. held: octets of content in memory. allowed: accounts, None for any."""

    settings: Listen
    intake: Intake
    allowed: frozenset[int] | None
    connections: set[Connection] = field(default_factory=set)
    answering: set[asyncio.Task[None]] = field(default_factory=set)
    held: int = 0
    stopping: bool = False
    minute: int = 0
    lines: int = 0

    def security(self, why: str, said: bytes = b"") -> None:
        """Log who was sent away, once a connection, and not more than anybody reads."""
        minute = int(asyncio.get_running_loop().time() // 60)
        if minute != self.minute:
            if self.lines > SECURITY_LINES:
                log.warning("security: %d more connections were dropped", self.lines - SECURITY_LINES)
            self.minute, self.lines = minute, 0
        self.lines += 1
        if self.lines <= SECURITY_LINES:
            log.warning(
                "security: connection dropped, the client %s%s", why, f": {printable(said[:80])}" if said else ""
            )
