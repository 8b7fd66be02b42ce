"""The daemon's spool: all functions of this package as coroutines.

Writes go through the group commit of `writer` and are on disk when awaited, except for `stage`; reads go through a
connection of their own in one other thread, so that the loop never waits for the disk. Cancelling a caller does not undo a
commit.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw

from mailrelay.mail.envelope import Envelope, Message, Unreadable
from mailrelay.mail.notice import Backend, Owed
from mailrelay.mail.outcome import Outcome
from mailrelay.mail.record import Arrival, Record, Staged, arrive
from mailrelay.spool import accepting, actions, attempts, clock, notice_lifecycle, notices, queue_ids, space
from mailrelay.spool.database import SpoolBroken, SpoolError, SpoolFull, connect, translate
from mailrelay.spool.writer import Writer

R = TypeVar("R")

BALLAST = "ballast"
BALLAST_SIZE = 8 * 1024 * 1024
"""Octets given up when the disk is so full that not even the outcome of an attempt can be recorded."""
STAGED_AT_ONCE = 16
"""Pieces of contents in the writer's queue, at most: a small message waits for no more than these."""
GIVES_WAY = 10.0
"""Seconds, at most, to wait for the room of a content that was refused for want of it."""


class Spool:
    """An open spool; made on a running loop, whose daemon holds the lock.

    max_size: octets. reported: called with the relayhost's name when a report has been queued by `report`.
    `broken` is done once the disk has failed under it: then nothing more can be written by this process.
    Raises SpoolError, here and from every method that touches the file.
    """

    def __init__(self, directory: Path, max_size: int, reported: Callable[[str], None]) -> None:
        self._directory = directory
        self._max_size = max_size
        self._room = space.Room(max_size)
        self._reported = reported
        self._node = str(os.getpid())
        self._loop = asyncio.get_running_loop()
        self.broken: asyncio.Future[SpoolBroken] = self._loop.create_future()
        try:
            writing = connect(directory)
        except SpoolFull:
            if not self._drop_ballast():
                raise
            writing = connect(directory)
        self._reading = connect(directory)
        try:
            self._queue_ids = queue_ids.QueueIds(queue_ids.highest(self._reading))
        except apsw.Error as error:
            raise translate(error) from None
        self._staging = asyncio.Semaphore(STAGED_AT_ONCE)
        # The key of the content that was refused last for want of room, and the end of its removal.
        self._giving_way: tuple[int, asyncio.Future[None]] | None = None
        self._writer = Writer(writing, self._loop, self.broken.set_result)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="spool-reader")
        self._take_ballast()

    def close(self) -> None:
        """Ends both threads after all that was submitted is on disk."""
        self._writer.close()
        self._reader.shutdown()
        self._reading.close()

    async def _write(self, run: Callable[[apsw.Connection], R]) -> R:
        result: R = await self._writer.submit(_do_all, run)
        return result

    async def _read(self, run: Callable[[apsw.Connection], R]) -> R:
        try:
            return await self._loop.run_in_executor(self._reader, run, self._reading)
        except apsw.Error as error:
            raise translate(error) from None

    async def _write_at_any_price(self, run: Callable[[apsw.Connection], R]) -> R:
        """What must be recorded: on a full disk the ballast is given up for it."""
        try:
            return await self._write(run)
        except SpoolFull:
            if not self._drop_ballast():
                raise
            return await self._write(run)

    # A message comes in.

    def new_queue_id(self, now: float) -> str:
        """An id that no message has."""
        return self._queue_ids.new(now)

    async def accept(self, arrival: Arrival) -> int:
        """Puts a message on disk and returns the spool's key of it. Raises SpoolFull where there is no room."""
        key: int = await self._writer.submit(self._accept_all, arrival)
        return key

    def _accept_all(self, db: apsw.Connection, arrivals: Sequence[Arrival]) -> list[int]:
        self._room.check(db, sum(len(arrival.content) for arrival in arrivals))
        return accepting.write_down(db, arrivals)

    async def stage(self, staged: Staged | None, octets: bytes) -> Staged:
        """Appends octets to `staged`, None for the first piece. They are on disk with the next other write. Raises
        SpoolFull.

        Of several contents that do not fit together, one at a time gives way: the others wait until it has been removed.
        """
        while True:
            try:
                async with self._staging:
                    behind: Staged = await self._writer.submit(self._stage_all, (staged, octets), is_durable=False)
                    return behind
            except SpoolFull:
                if staged is None:
                    raise
                if self._giving_way is None or self._giving_way[0] == staged.key:
                    self._giving_way = self._giving_way or (staged.key, self._loop.create_future())
                    raise
                giving_way = self._giving_way
            await asyncio.wait({giving_way[1]}, timeout=GIVES_WAY)
            if self._giving_way is giving_way:
                self._giving_way = None

    def _stage_all(self, db: apsw.Connection, parts: Sequence[tuple[Staged | None, bytes]]) -> list[Staged]:
        self._room.check(db, sum(len(octets) for _, octets in parts))
        return [accepting.stage(db, staged, octets) for staged, octets in parts]

    async def unstage(self, staged: Staged) -> None:
        """Removes what was staged."""
        try:
            # At any price: it makes room.
            await self._write_at_any_price(lambda db: accepting.unstage(db, staged.key))
        finally:
            if self._giving_way is not None and self._giving_way[0] == staged.key:
                self._giving_way[1].set_result(None)
                self._giving_way = None

    # Mail goes out.

    async def recover(self, now: float) -> int:
        """Closes what a crash left open; returns how many attempts that were."""
        return await self._write(lambda db: attempts.recover(db, now))

    async def unstage_all(self) -> int:
        """Removes what a crash left of incoming messages; returns how many that were."""
        return await self._write(accepting.unstage_all)

    async def reroute(
        self, names: Collection[str], choose: Callable[[bytes], str | None], now: float
    ) -> tuple[int, int]:
        """Moves mail for relayhosts that are not among `names`; returns how many messages were moved, how many left."""
        return await self._write(lambda db: attempts.reroute(db, names, choose, now))

    async def next_due(self, relayhost: str) -> float | None:
        """When the next message of `relayhost` is due, in epoch seconds; None if nothing is pending."""
        return await self._read(lambda db: attempts.next_due(db, relayhost))

    async def count_due(self, relayhost: str, limit: int, now: float) -> int:
        """How many messages of `relayhost` are due, `limit` at most."""
        return await self._read(lambda db: attempts.count_due(db, relayhost, limit, now))

    async def take(self, relayhost: str, first: Sequence[int], limit: int, now: float, more: int = 0) -> list[Message]:
        """Opens attempts at up to `limit` due messages, those of `first` ahead of the others, and at `more` small ones."""
        # At any price: what leaves makes room.
        return await self._write_at_any_price(
            lambda db: attempts.take(db, relayhost, first, limit, self._node, now, more)
        )

    async def recall(self, relayhost: str, now: float) -> None:
        """Makes due what waits only because a connection was lost."""
        await self._write(lambda db: attempts.recall(db, relayhost, now))

    async def put_back(self, messages: Sequence[int], now: float) -> None:
        """Takes back attempts that never began."""
        await self._write_at_any_price(lambda db: attempts.put_back(db, messages, now))

    async def pieces(self, message: int) -> AsyncGenerator[bytes, None]:
        """A message's content, piece by piece. Raises Unreadable."""
        seq = 0
        try:
            while (piece := await self._read(partial(attempts.piece, message=message, seq=seq))) is not None:
                data, goes_on = piece
                yield data
                if not goes_on:
                    break
                seq += 1
        except SpoolError as error:
            raise Unreadable(str(error)) from None

    async def record(self, end: Record) -> None:
        """Writes what came of an attempt."""
        await self._write_at_any_price(lambda db: attempts.record(db, end))

    async def relayhost_failed(
        self, name: str, outcome: Outcome, next_dial: float, setup: bool, backends: Sequence[Backend], now: float
    ) -> None:
        """Writes that a relayhost cannot be reached, with the notice that is owed for it."""
        await self._write(lambda db: attempts.relayhost_failed(db, name, outcome, next_dial, setup, backends, now))

    async def relayhost_up(self, name: str, backends: Sequence[Backend], now: float) -> bool:
        """Writes that a relayhost can be reached again; returns whether word of it became owed."""
        return await self._write_at_any_price(lambda db: attempts.relayhost_up(db, name, backends, now))

    async def relayhost_failure(self, name: str) -> attempts.Failure | None:
        """What is known to be wrong with the way to a relayhost."""
        return await self._read(lambda db: attempts.relayhost_failure(db, name))

    # The person hears.

    async def look(self, now: float, after: float, backends: Sequence[Backend]) -> float | None:
        """Lets delays become owed, ends them, reminds of what stands. Returns when to look again, None if nothing waits.

        after: seconds of waiting that are a delay. While something waits or stands, it is worth a look every now and then.
        """
        at = await self._read(lambda db: notice_lifecycle.next_look(db, after))
        if at is not None and at <= now:
            await self._write(lambda db: notice_lifecycle.look(db, now, after, backends))
        return at

    async def owed(self, now: float) -> list[Owed]:
        """The backends that are due for a try."""
        return await self._read(lambda db: notices.owed(db, now))

    async def next_owed(self) -> float | None:
        """When the next backend is due, in epoch seconds; None if nothing is owed."""
        return await self._read(notices.next_owed)

    async def told(self, owed: Owed, now: float) -> None:
        """A backend has carried its notice."""
        await self._write(lambda db: notices.told(db, owed, now))

    async def not_told(self, owed: Owed, now: float, next_try: float, why: str) -> None:
        """A backend failed; it is tried again at `next_try`."""
        await self._write(lambda db: notices.not_told(db, owed, next_try, why))

    async def original(self, message: int, limit: int) -> bytes:
        """The first `limit` octets of a message's content."""
        return await self._read(lambda db: notices.original(db, message, limit))

    async def report(self, owed: Owed, envelope: Envelope, content: bytes, now: float) -> None:
        """Queues a DSN on the relayhost of what it reports on, and strikes its backend off, in one commit."""
        relayhost = owed.notice.relayhost
        arrival = arrive(
            envelope,
            content,
            queue_id=self.new_queue_id(now),
            token=queue_ids.message_id_token(),
            relayhost=relayhost,
            now=now,
        )
        await self._write(lambda db: notices.report(db, owed, arrival, self._max_size, now))
        self._reported(relayhost)

    # Housekeeping.

    async def set_right(self, now: float, longest: float) -> int:
        """Makes due what a clock that was ahead has put further off than `longest` seconds."""
        return await self._write(lambda db: clock.set_right(db, now, longest))

    async def leapt(self, by: float, since: float, now: float) -> None:
        """The clock was set ahead by `by` seconds: what has come in by it, from `since` on, keeps its age."""
        await self._write(lambda db: clock.leapt(db, by, since, now))

    async def purge(self, now: float, keep_sent: float) -> int:
        """Takes old history away; returns how many messages went. Takes ballast again if it was given up."""
        self._take_ballast()
        return await self._write(lambda db: actions.purge(db, now, keep_sent))

    def _take_ballast(self) -> None:
        path = self._directory / BALLAST
        disk = os.statvfs(self._directory)
        if path.exists() or disk.f_bavail * disk.f_frsize < 4 * BALLAST_SIZE:
            return
        # Where there is none to be had (a quota, no inodes left), we do without.
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                # Written, not truncated to size: a hole holds nothing free.
                os.write(handle, bytes(BALLAST_SIZE))
            finally:
                os.close(handle)

    def _drop_ballast(self) -> bool:
        try:
            (self._directory / BALLAST).unlink()
        except FileNotFoundError:
            return False
        return True


def _do_all(db: apsw.Connection, runs: Sequence[Callable[[apsw.Connection], object]]) -> list[object]:
    return [run(db) for run in runs]
