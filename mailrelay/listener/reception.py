"""Receives one content and stages it: a large content is written to the spool piece by piece while it is received.

A content of about `PIECE` octets or less is handed over whole. Each piece of a larger one is staged (`Incoming.add`) once it
is complete. While one piece is being written and the next is complete, nothing is read from the client. So a content needs
the memory of a few pieces, however large it is and however slow the disk.

Promises: staged pieces become a message (`Incoming.finish`, called by the caller) or are removed (`Incoming.abandon`),
whatever the client does.
Never: two pieces of one content written at the same time; they are written in the order of the content.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from mailrelay.listener import replies
from mailrelay.listener.content import MAX_KEPT, ContentReceiver
from mailrelay.mail.client_reply import ClientReply
from mailrelay.mail.outcome import Reply
from mailrelay.mail.printable import printable

log = logging.getLogger("mailrelay.listener")

PIECE = 64 * 1024
"""Octets of a content in memory above which it is staged: as many as one row in the spool has."""
MIN_CONTENT_RATE = 100.0
"""Octets a second below which a content is refused: slower than any network in use."""


class Incoming(Protocol):
    """A message whose content is handed over in pieces. No two calls at the same time."""

    async def add(self, octets: bytes) -> Reply | None:
        """Stages a piece of the content; the first piece holds the whole header. Returns None if it is staged. Otherwise
        returns the refusal, a 4xx or 5xx; then no more pieces may be added."""

    async def finish(self, octets: bytes) -> ClientReply:
        """Takes over the message; `octets` are the rest of its content. Returns as `IntakePort.submit` does."""

    async def abandon(self) -> None:
        """Removes the staged pieces. Raises nothing."""


class Reception:
    """Receives one content.

    size_limit: octets. make_incoming: called for the first piece. start: runs a coroutine as a task that outlives the
    connection. on_progress: called when `is_full` may have changed. now: loop time. incoming: the message with the staged
    pieces, None if nothing is staged."""

    def __init__(
        self,
        size_limit: int,
        make_incoming: Callable[[], Incoming],
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        on_progress: Callable[[], None],
        now: float,
    ) -> None:
        self._receiver = ContentReceiver(size_limit)
        self._make_incoming = make_incoming
        self.incoming: Incoming | None = None
        self._start = start
        self._on_progress = on_progress
        self._staging: asyncio.Task[None] | None = None
        self._is_refusal_logged = False
        self._is_given_up = False
        # When the rate was checked last (loop time), and the octets received until then.
        self._rate_checkpoint = (now, 0)

    @property
    def is_full(self) -> bool:
        """Whether the client has to wait for the disk."""
        return self._staging is not None and self._receiver.held >= PIECE

    @property
    def received(self) -> int:
        """Octets that the client has sent."""
        return self._receiver.received

    @property
    def own_refusal(self) -> Reply | None:
        """The refusal if it still has to be logged; None if there is none, or the code that refused has logged it."""
        return None if self._is_refusal_logged else self._receiver.refusal

    @property
    def is_ambiguous(self) -> bool:
        """Whether it is uncertain that the client meant the end that was found: there was a bare CR or LF before it."""
        return self._receiver.ambiguous

    def feed(self, data: bytes) -> bytes | None:
        """Receives octets. Returns None before the end is found, then the octets after the end."""
        leftover = self._receiver.feed(data)
        if self._staging is None:
            if piece := self._take_piece():
                self.incoming = self.incoming or self._make_incoming()
                self._staging = self._start(self._stage(self.incoming, piece))
            elif self._receiver.refusal is not None:
                self._abandon()
        return leftover

    def check_rate(self, now: float, period: float) -> float:
        """Checks the rate if `period` is over. Returns the seconds until the next check; 0 if the content came too slowly.
        now: loop time. period: seconds over which the rate is measured."""
        since, received = self._rate_checkpoint
        if now < since + period:
            return since + period - now
        self._rate_checkpoint = (now, self.received)
        return period if self.received - received >= MIN_CONTENT_RATE * (now - since) else 0.0

    def restart_rate_check(self, now: float) -> None:
        """Begins a new period, because the client had to wait for us. now: loop time."""
        self._rate_checkpoint = (now, self.received)

    def give_up(self) -> None:
        """Stops staging and removes what is staged: the content will not be completed."""
        self._is_given_up = True
        if self._staging is None:
            self._abandon()

    async def conclude(self) -> Reply | None:
        """To be called after the end. Waits until all pieces are staged. Returns the refusal; None if the content is
        accepted."""
        if self._staging is not None:
            await asyncio.wait({self._staging})
        return self._receiver.refusal

    def rest(self) -> bytes:
        """The octets that were not staged, after `conclude`. To be called once."""
        return self._receiver.content()

    def _take_piece(self) -> bytes:
        """The next piece to stage; b"" as long as it is not complete."""
        receiver, size = self._receiver, PIECE
        if receiver.refusal is not None or receiver.held < size:
            return b""
        if self.incoming is None:
            header = receiver.header_size
            if header is None:
                return b""
            # The first piece holds the whole header.
            size = max(size, header + MAX_KEPT)
        return receiver.take(size) if receiver.held >= size + MAX_KEPT else b""

    async def _stage(self, incoming: Incoming, piece: bytes) -> None:
        try:
            while piece and not self._is_given_up:
                refusal = await incoming.add(piece)
                if refusal is not None:
                    self._is_refusal_logged = self._receiver.refusal is None
                    self._receiver.refuse(refusal)
                piece = self._take_piece()
                self._on_progress()
        except Exception as error:
            log.error("a message could not be staged: %s", printable(repr(error), 300))
            self._is_refusal_logged = True
            self._receiver.refuse(replies.INTERNAL_ERROR)
        finally:
            self._staging = None
            self._on_progress()
        if self._is_given_up or self._receiver.refusal is not None:
            self._abandon()

    def _abandon(self) -> None:
        """Removes the staged pieces at once: other messages may need the space."""
        if self.incoming is not None:
            self._start(self.incoming.abandon())
            self.incoming = None
