"""Contents that clients are still sending, written part by part (`AcceptPort.stage`).

Promises: if the space is not enough for all, one content is refused and the others wait until it is removed. Then they try
again. A content whose first part does not fit is refused at once: nothing would be freed.
"""

import asyncio
from collections.abc import Sequence

import apsw

from mailrelay.mail.record import Staged
from mailrelay.mail.spool_errors import SpoolFull
from mailrelay.spool import accepting
from mailrelay.spool.space import SpaceCheck
from mailrelay.spool.writer import Writer

STAGED_AT_ONCE = 16
"""Calls of `stage` in the writer's queue, at most: bounds how long a small message waits for them."""
REMOVAL_WAIT = 10.0
"""Seconds to wait, at most, until a content that was refused for lack of space has been removed."""


class Staging:
    """The contents of one spool that are being received. Create it in a running event loop."""

    def __init__(self, writer: Writer, space: SpaceCheck) -> None:
        self._writer = writer
        self._space = space
        self._allowed = asyncio.Semaphore(STAGED_AT_ONCE)
        # The key of the content that was refused last for lack of space, and a future that is done when it is removed.
        self._removal: tuple[int, asyncio.Future[None]] | None = None

    async def stage(self, staged: Staged | None, octets: bytes, *, is_durable: bool = False) -> Staged:
        """As `AcceptPort.stage`. is_durable: as in `Writer.submit`."""
        while True:
            try:
                async with self._allowed:
                    total: Staged = await self._writer.submit(self._stage_all, (staged, octets), is_durable=is_durable)
                    return total
            except SpoolFull:
                if staged is None:
                    raise
                if self._removal is None or self._removal[0] == staged.key:
                    self._removal = self._removal or (staged.key, asyncio.get_running_loop().create_future())
                    raise
                removal = self._removal
            await asyncio.wait({removal[1]}, timeout=REMOVAL_WAIT)
            if self._removal is removal:
                self._removal = None

    def removed(self, key: int) -> None:
        """A content was removed."""
        if self._removal is not None and self._removal[0] == key:
            self._removal[1].set_result(None)
            self._removal = None

    def _stage_all(self, db: apsw.Connection, parts: Sequence[tuple[Staged | None, bytes]]) -> list[Staged]:
        self._space.check(db, sum(len(octets) for _, octets in parts))
        return [accepting.stage(db, staged, octets) for staged, octets in parts]
