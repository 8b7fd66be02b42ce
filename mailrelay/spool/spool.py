"""The engine behind the ports of the daemon (`mailrelay.ports`): the functions of this package as coroutines.

Writes go through the group commit of `writer`. They are on disk when they return, except for `stage`. Reads use a second
connection in a thread of their own, so that the event loop never waits for the disk. Cancelling a caller does not undo a
commit. The ports say what each method does.

Promises: once a write or a read has failed because of the disk, or the files are not those that were opened, nothing is read
or written any more, and `Spool.broken` is done.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw

from mailrelay.mail.backends import BackendsFor
from mailrelay.mail.completion import NOTHING_KNOWN, Completion
from mailrelay.mail.envelope import Envelope, Message, Unreadable
from mailrelay.mail.notice import Backend, PendingNotice
from mailrelay.mail.outcome import Outcome
from mailrelay.mail.record import Arrival, Record, Staged, arrive
from mailrelay.mail.recorded import ReadExchange, RecordedExchange, Recording, UnreadExchange
from mailrelay.mail.spool_errors import DAMAGE_FIX, SpoolBroken, SpoolError, SpoolFull, SpoolUnavailable
from mailrelay.ports import (
    AcceptPort,
    FollowPort,
    HousekeepingPort,
    NoticePort,
    RelayhostFailure,
    RelayhostPort,
    RelayPort,
)
from mailrelay.spool import (
    accepting,
    actions,
    attempts,
    ballast,
    clock,
    exchanges,
    followed,
    inspection,
    log_end,
    notice_lifecycle,
    notices,
    queue_ids,
    relayhosts,
    space,
    stored,
    writer,
)
from mailrelay.spool.damage_search import find_damage
from mailrelay.spool.database import connect, keep_log, translate
from mailrelay.spool.files import SpoolFiles
from mailrelay.spool.staging import Staging
from mailrelay.spool.writer import is_of_the_disk
from mailrelay.tracking.followed import Followed, Found

R = TypeVar("R")

MIN_STEP_BACK = 1.0
"""Seconds by which the clock must be set back to be noticed by a look at what is due."""
LOOK_INTERVAL = 1.0
"""Seconds between two looks at the files of the spool."""


class Spool(AcceptPort, RelayPort, FollowPort, RelayhostPort, NoticePort, HousekeepingPort):
    """An open spool. Create it in a running event loop, while holding the lock (`spool.lock`).

    max_size: octets of the database (queue.max_size). reported: called with the relayhost's name when `accept_report` has
    accepted a DSN. now: the one clock of the spool, epoch seconds. health: called with each failure of the disk, or for lack
    of space, and with None at the first durable commit after one. `broken` is done once the disk has failed: then this
    process can read and write nothing more. unreadable_commits: as in `log_end`. Raises SpoolError, here and from every
    method.
    """

    def __init__(
        self,
        directory: Path,
        max_size: int,
        reported: Callable[[str], None],
        now: Callable[[], float] = time.time,
        health: Callable[[SpoolError | None], None] = lambda _: None,
    ) -> None:
        self._directory = directory
        self._max_size = max_size
        self._space = space.SpaceCheck(max_size)
        self._reported = reported
        self._now = now
        self._health = health
        self._is_failing = False
        self._node = attempts.new_node_id()
        self._last_look, self._longest_wait = now(), math.inf
        self._loop = asyncio.get_running_loop()
        self.broken: asyncio.Future[SpoolBroken] = self._loop.create_future()
        try:
            writing = connect(directory)
        except SpoolFull:
            if not ballast.drop(self._directory):
                raise
            writing = connect(directory)
        self._writing = writing
        try:
            self.unreadable_commits = log_end.unreadable_commits(writing)
        except apsw.Error as error:
            raise translate(error) from None
        self._reading = connect(directory)
        self._files = SpoolFiles(directory, writing), SpoolFiles(directory, self._reading)
        try:
            self._queue_ids = queue_ids.QueueIds(queue_ids.highest(self._reading))
        except apsw.Error as error:
            raise translate(error, self._reading.system_errno) from None
        self._writer = writer.Writer(writing, self._files[0], self._loop, self._ended)
        self._staging = Staging(self._writer, self._space)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="spool-reader")
        ballast.make(self._directory)

    def close(self) -> None:
        """Ends both threads after all submitted work is on disk."""
        self._writer.close()
        self._reader.shutdown()
        for db, files in zip((self._reading, self._writing), self._files, strict=True):
            if self.broken.done():
                # Else the last connection that closes deletes the log at its path, which may be another one.
                keep_log(db)
            files.close()
            db.close()

    def limit(self, max_size: int) -> None:
        """Replaces `max_size`: the settings were read again."""
        self._max_size = max_size
        self._space.limit(max_size)

    async def _write(self, run: Callable[[apsw.Connection], R]) -> R:
        result: R = await self._writer.submit(_do_all, run)
        return result

    async def _read(self, run: Callable[[apsw.Connection], R]) -> R:
        return await self._loop.run_in_executor(self._reader, self._run_reading, run)

    def _run_reading(self, run: Callable[[apsw.Connection], R]) -> R:
        """Runs in the thread that reads."""
        if self.broken.done():
            raise self.broken.result()
        try:
            self._files[1].check_index()
            try:
                return run(self._reading)
            except (apsw.Error, UnicodeDecodeError) as error:
                raise translate(error, self._reading.system_errno) from None
        except SpoolError as error:
            if isinstance(error, SpoolBroken):
                self._writer.refuse_all(error)
            if is_of_the_disk(error):
                # Not left to the caller, which may have been cancelled.
                self._loop.call_soon_threadsafe(self._ended, error)
            raise

    def _ended(self, failure: SpoolError | None) -> None:
        """Work has ended with a failure of the disk, or with a durable commit (None)."""
        if isinstance(failure, SpoolBroken):
            if self.broken.done():
                return
            self.broken.set_result(failure)
        if failure is not None or self._is_failing:
            self._is_failing = failure is not None
            self._health(failure)

    async def _write_even_if_full(self, run: Callable[[apsw.Connection], R]) -> R:
        """Writes what must be recorded: on a full disk the ballast is deleted for it."""
        try:
            return await self._write(run)
        except SpoolFull:
            if not ballast.drop(self._directory):
                raise
            return await self._write(run)

    # AcceptPort

    def new_queue_id(self) -> str:
        return self._queue_ids.new(self._now())

    async def accept(self, arrival: Arrival) -> int:
        key: int = await self._writer.submit(self._accept_all, arrival)
        return key

    def _accept_all(self, db: apsw.Connection, arrivals: Sequence[Arrival]) -> list[int]:
        self._space.check(db, sum(len(arrival.content) for arrival in arrivals))
        return accepting.write_messages(db, arrivals)

    async def stage(self, staged: Staged | None, octets: bytes) -> Staged:
        return await self._staging.stage(staged, octets)

    async def unstage(self, staged: Staged) -> None:
        try:
            # Also on a full disk: it frees space.
            await self._write_even_if_full(lambda db: accepting.unstage(db, staged.key))
        finally:
            self._staging.removed(staged.key)

    # RelayPort

    async def next_due(self, relayhost: str, others: Sequence[str] = ()) -> float | None:
        await self._notice_step_back()
        return await self._read(lambda db: attempts.next_due(db, relayhost, others))

    async def next_due_of_any(self) -> float | None:
        """When the next message is due (epoch seconds), also of relayhosts that are not in the settings; None if none is."""
        return await self._read(attempts.next_due_of_any)

    async def count_due(self, relayhost: str, limit: int, others: Sequence[str] = ()) -> int:
        now = self._now()
        return await self._read(lambda db: attempts.count_due(db, relayhost, limit, now, others))

    async def take(
        self,
        relayhost: str,
        first: Sequence[int],
        limit: int,
        more: int = 0,
        completion: Completion = NOTHING_KNOWN,
        others: Sequence[str] = (),
    ) -> list[Message]:
        now = self._now()
        # Also on a full disk: messages that are sent free space.
        return await self._write_even_if_full(
            lambda db: attempts.take(db, relayhost, first, limit, self._node, now, more, completion, others)
        )

    async def put_back(self, messages: Sequence[int]) -> list[int]:
        now = self._now()
        return await self._write_even_if_full(lambda db: attempts.put_back(db, messages, self._node, now))

    async def cancel_stopped(self, message: int) -> bool:
        now = self._now()
        return await self._write_even_if_full(lambda db: actions.cancel_stopped(db, message, self._node, now))

    async def record(self, end: Record) -> bool:
        return await self._write_even_if_full(lambda db: attempts.record(db, end, self._node))

    async def note_exchange(self, message: int, exchange: RecordedExchange) -> None:
        await self._write(lambda db: exchanges.note(db, message, exchange, self._node))

    async def unread_exchanges(self, relayhost: str) -> Sequence[UnreadExchange]:
        now = self._now()
        return await self._write(lambda db: exchanges.unread(db, relayhost, now))

    async def resolve_exchanges(
        self, read: Sequence[ReadExchange], backends_for: BackendsFor, *, is_followed: bool = False
    ) -> Sequence[tuple[Message, Record]]:
        now = self._now()
        return await self._write_even_if_full(
            lambda db: exchanges.resolve(db, read, backends_for, now, is_followed=is_followed)
        )

    async def recording(self, relayhost: str) -> Recording:
        return await self._read(lambda db: relayhosts.recording(db, relayhost))

    async def note_recording(self, relayhost: str, known: Recording) -> None:
        await self._write(lambda db: relayhosts.note_recording(db, relayhost, known))

    async def pieces(self, message: int) -> AsyncGenerator[bytes, None]:
        seq = 0
        try:
            while (piece := await self._read(partial(stored.piece, message=message, seq=seq))) is not None:
                data, goes_on = piece
                yield data
                if not goes_on:
                    break
                seq += 1
        except (SpoolBroken, SpoolUnavailable):
            # The message is not at fault.
            raise
        except SpoolError as error:
            raise Unreadable(str(error)) from None

    async def retry_lost(self, relayhost: str) -> None:
        now = self._now()
        await self._write(lambda db: attempts.retry_lost(db, relayhost, now))

    # FollowPort

    async def followed(self, relayhost: str) -> Sequence[Followed]:
        return await self._read(lambda db: followed.followed(db, relayhost))

    async def found(self, found: Sequence[Found], backends_for: BackendsFor) -> bool:
        now = self._now()
        # Also on a full disk: content that is not needed any more is deleted.
        return await self._write_even_if_full(lambda db: followed.found(db, found, backends_for, now))

    async def is_retry_wanted(self, relayhost: str) -> bool:
        return await self._read(lambda db: followed.is_retry_wanted(db, relayhost))

    async def retry_told(self, messages: Sequence[int], text: str) -> None:
        await self._write(lambda db: followed.retry_told(db, messages, text))

    # RelayhostPort

    async def relayhost_failed(
        self, name: str, outcome: Outcome, next_dial: float, setup: bool, backends: Sequence[Backend]
    ) -> None:
        now = self._now()
        await self._write(lambda db: relayhosts.relayhost_failed(db, name, outcome, next_dial, setup, backends, now))

    async def relayhost_up(self, name: str, backends: Sequence[Backend]) -> bool:
        now = self._now()
        return await self._write_even_if_full(lambda db: relayhosts.relayhost_up(db, name, backends, now))

    async def note_stand_in(self, name: str, stand_in: str) -> None:
        await self._write(lambda db: relayhosts.note_stand_in(db, name, stand_in))

    async def dial_now(self, name: str) -> None:
        """Lets a relayhost with a fault be dialled now, in spite of the back-off. Works on a full disk."""
        now = self._now()
        await self._write_even_if_full(lambda db: actions.dial_now(db, name, now))

    async def relayhost_failure(self, name: str) -> RelayhostFailure | None:
        await self._notice_step_back()
        return await self._read(lambda db: relayhosts.relayhost_failure(db, name))

    # NoticePort

    async def update_delays(self, after: float, backends: Sequence[Backend]) -> float | None:
        now = self._now()
        at = await self._read(lambda db: notice_lifecycle.next_update(db, after, now))
        if at is not None and at <= now:
            await self._write(lambda db: notice_lifecycle.update_delays(db, after, backends, now))
        return at

    async def pending_notices(self) -> list[PendingNotice]:
        now = self._now()
        return await self._read(lambda db: notices.pending_notices(db, now))

    async def next_notice_due(self) -> float | None:
        return await self._read(notices.next_notice_due)

    async def notice_delivered(self, pending: PendingNotice) -> None:
        now = self._now()
        await self._write(lambda db: notices.notice_delivered(db, pending, now))

    async def notice_failed(self, pending: PendingNotice, next_try: float, why: str) -> None:
        now = self._now()
        await self._write(lambda db: notices.notice_failed(db, pending, next_try, why, now))

    async def notice_dropped(self, pending: PendingNotice) -> None:
        await self._write(lambda db: notices.notice_dropped(db, pending))

    async def content_start(self, message: int, limit: int) -> bytes:
        return await self._read(lambda db: notices.content_start(db, message, limit))

    async def accept_report(self, pending: PendingNotice, envelope: Envelope, content: bytes) -> None:
        now = self._now()
        # It may go by a fallback, too; but its own relayhost is that of the sender.
        relayhost = pending.notice.fallback_for or pending.notice.relayhost
        arrival = arrive(
            envelope,
            content,
            queue_id=self._queue_ids.new(now),
            token=queue_ids.message_id_token(),
            relayhost=relayhost,
            now=now,
            completes_header=True,
        )
        await self._write(lambda db: notices.accept_report(db, pending, arrival, self._max_size, now))
        self._reported(relayhost)

    # HousekeepingPort

    async def recover(self) -> int:
        now = self._now()
        return await self._write(lambda db: attempts.recover(db, now, self._node))

    async def unstage_all(self) -> int:
        return await self._write(accepting.unstage_all)

    async def reroute(self, names: Collection[str], choose: Callable[[bytes], str | None]) -> tuple[int, int]:
        now = self._now()
        return await self._write_even_if_full(lambda db: attempts.reroute(db, names, choose, now))

    async def cap_waits(self, longest: float) -> int:
        now = self._now()
        self._longest_wait = longest
        return await self._write(lambda db: clock.cap_waits(db, longest, now))

    async def _notice_step_back(self) -> None:
        """Corrects what waits if the clock was set back since the last call: not every system reports that."""
        last, self._last_look = self._last_look, self._now()
        if self._last_look < last - MIN_STEP_BACK:
            await self.cap_waits(self._longest_wait)

    async def clock_jumped(self, by: float, since: float) -> None:
        now = self._now()
        await self._write(lambda db: clock.clock_jumped(db, by, since, now))

    async def watch(self) -> None:
        while not self.broken.done():
            await asyncio.sleep(LOOK_INTERVAL)
            # `broken` and `health` tell of a failure.
            with contextlib.suppress(SpoolError):
                frames = await self._read(self._look)
                if frames >= writer.CHECKPOINT:
                    # Commands have written. The commit of nothing makes the checkpoint.
                    await self._write(lambda _db: None)

    def _look(self, _db: apsw.Connection) -> int:
        """Looks at the files. Returns how many frames wait for a checkpoint."""
        files = self._files[1]
        files.check()
        files.check_access()
        return files.frames - files.backfilled

    async def try_storing(self) -> None:
        staged = await self._staging.stage(None, bytes(space.ORDINARY), is_durable=True)
        await self.unstage(staged)

    async def inspect(self, backends_for: BackendsFor) -> list[str]:
        try:
            found = await find_damage(self._directory)
            if not found:
                return []
            if inspection.is_repairable(found):
                now = self._now()
                await self._write(lambda db: inspection.repair(db, backends_for, now))
                if not await find_damage(self._directory):
                    return found
            raise SpoolBroken(f"the spool's file is damaged ({found[0]}); {DAMAGE_FIX}")
        except SpoolBroken as error:
            self._writer.refuse_all(error)
            self._ended(error)
            raise

    async def purge(self, keep_sent: float) -> int:
        """See the port. Also makes the ballast again if it was deleted."""
        now = self._now()
        ballast.make(self._directory)
        return await self._write(lambda db: actions.purge(db, now, keep_sent))


def _do_all(db: apsw.Connection, runs: Sequence[Callable[[apsw.Connection], object]]) -> list[object]:
    return [run(db) for run in runs]
