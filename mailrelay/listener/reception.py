"""One content between the socket and the spool: what is large goes to disk piece by piece, while it still comes in.

A content that stays below `PIECE` is handed over whole. Of a larger one every piece is staged (`Incoming.add`) as soon as it
is there; the client's connection is not read while one piece waits for the disk and the next one is complete. So a content
costs no more memory than a few pieces, however large it is and however slow the disk.

Promises: what was staged either becomes a message (`finish`) or is removed (`abandon`), whatever the client does.
Never: two pieces of one content on their way to the disk at once; their order is the content's.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from mailrelay.listener import replies
from mailrelay.listener.content import LEFT_BEHIND, ContentReceiver
from mailrelay.mail.answer import Answer
from mailrelay.mail.outcome import Reply
from mailrelay.mail.printable import printable

log = logging.getLogger("mailrelay.listener")

PIECE = 64 * 1024
"""Octets of a content in memory from which on it is staged."""


class Incoming(Protocol):
    """A message whose content comes in pieces. One call after the other."""

    async def add(self, octets: bytes) -> Reply | None:
        """Stages more of the content; the first piece holds the whole header. Returns why not, a 4xx or 5xx; then nothing
        more is to be added."""

    async def finish(self, octets: bytes) -> Answer:
        """Takes the message over; `octets` are the rest of its content. As `Intake.submit`."""

    async def abandon(self) -> None:
        """No message comes of it: removes what was staged. Raises nothing."""


class Reception:
    """One content on its way in.

    start: runs a coroutine as a task that outlives the connection. has_room: called when the connection may be read again.
    incoming: what has been staged, None if nothing has.
    """

    def __init__(
        self,
        size_limit: int,
        make_incoming: Callable[[], Incoming],
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        has_room: Callable[[], None],
    ) -> None:
        self._receiver = ContentReceiver(size_limit)
        self._make_incoming = make_incoming
        self.incoming: Incoming | None = None
        self._start = start
        self._has_room = has_room
        self._staging: asyncio.Task[None] | None = None
        self._is_refused_by_others = False
        self._is_over = False

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
        """Why the content is not taken, where no `Incoming` said so: that logs its own."""
        return None if self._is_refused_by_others else self._receiver.refusal

    @property
    def is_ambiguous(self) -> bool:
        """Whether the end that was seen may not be the one that the client means."""
        return self._receiver.ambiguous

    def feed(self, data: bytes) -> bytes | None:
        """Takes octets. None: the end has not been seen. Otherwise: what came behind the end."""
        leftover = self._receiver.feed(data)
        if self._staging is None:
            if piece := self._take_piece():
                self.incoming = self.incoming or self._make_incoming()
                self._staging = self._start(self._stage(self.incoming, piece))
            elif self._receiver.refusal is not None:
                self._abandon()
        return leftover

    def give_up(self) -> None:
        """The client has gone in the middle."""
        self._is_over = True
        if self._staging is None:
            self._abandon()

    async def conclude(self) -> Reply | None:
        """Behind the end: waits until what is under way is staged. Returns why the content is not taken; None if it is."""
        if self._staging is not None:
            await asyncio.wait({self._staging})
        return self._receiver.refusal

    def rest(self) -> bytes:
        """The content, or what was not staged of it, once it has been concluded. To be asked for once."""
        return self._receiver.content()

    def _take_piece(self) -> bytes:
        """What to stage next; b"" as long as there is too little."""
        receiver, size = self._receiver, PIECE
        if receiver.refusal is not None or receiver.held < size:
            return b""
        if self.incoming is None:
            header = receiver.header_size
            if header is None:
                return b""
            # The first piece holds the whole header.
            size = max(size, header + LEFT_BEHIND)
        return receiver.take(size) if receiver.held >= size + LEFT_BEHIND else b""

    async def _stage(self, incoming: Incoming, piece: bytes) -> None:
        try:
            while piece and not self._is_over:
                refusal = await incoming.add(piece)
                if refusal is not None:
                    self._is_refused_by_others = self._receiver.refusal is None
                    self._receiver.refuse(refusal)
                piece = self._take_piece()
                self._has_room()
        except Exception as error:
            log.error("a message could not be staged: %s", printable(repr(error), 300))
            self._receiver.refuse(replies.OUR_TROUBLE)
        finally:
            self._staging = None
            self._has_room()
        if self._is_over or self._receiver.refusal is not None:
            self._abandon()

    def _abandon(self) -> None:
        """Removes what was staged at once: others may need the space."""
        if self.incoming is not None:
            self._start(self.incoming.abandon())
            self.incoming = None
