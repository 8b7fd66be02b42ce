"""Group commit: one thread owns the writing connection and does all waiting work in one transaction.

Promises: durable work is on disk when its future is done, in the files at their paths (`files`); a failure of one piece of
work does not affect the others; if a commit fails, all of its work fails. Work may be run twice, if other work in its commit
failed: it must do nothing but read and write the database.
A commit that contains only work that is not durable (a part of an incoming content) does not wait for the disk. The next
durable commit syncs SQLite's write-ahead log, with everything that was written before.
The thread also makes the checkpoints: those of SQLite itself do not report that the disk failed.
Never: retries a commit after the disk failed. From then on all work is refused; only a new process may open the file again.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeGuard

import apsw

from mailrelay.mail.spool_errors import SpoolBroken, SpoolError, SpoolFull, SpoolUnavailable
from mailrelay.spool.database import transaction, translate
from mailrelay.spool.files import SpoolFiles

GROUP = 500
"""Pieces of work in one commit, at most: bounds how long each one waits for the others."""
GATHER = 0.002
"""Seconds to wait for more work, only if the last commit had several pieces: each commit costs switches of the GIL."""
FRESH = 0.01
"""Seconds for which a look at the index is good for the next commit, on a busy spool."""
CHECKPOINT = 1000
"""Frames of the log that wait for a checkpoint before one is made, as SQLite's own default."""

Run = Callable[[apsw.Connection, Sequence[Any]], Sequence[Any]]
"""Does one kind of work for some items, and returns a result for each."""


@dataclass(slots=True)
class _Work:
    run: Run
    item: Any
    future: asyncio.Future[Any]
    is_durable: bool
    result: Any = None
    error: Exception | None = None


class Writer:
    """The thread and its queue. Does not close `db`.

    files: those that `db` has open. ended: called in `loop` with the failure of the disk, or for lack of space, that a piece
    of work ended with; and with None after each durable commit without one.
    """

    def __init__(
        self,
        db: apsw.Connection,
        files: SpoolFiles,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[SpoolError | None], None],
    ) -> None:
        self._db = db
        self._files = files
        self._loop = loop
        self._on_end = ended
        self._broken: SpoolBroken | None = None
        self._syncs_commits = True
        self._works: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._thread.start()

    def submit(self, run: Run, item: Any, *, is_durable: bool = True) -> asyncio.Future[Any]:
        """Calls `run` with `item` in the next commit. Consecutive items with the same `run` are passed in one call.

        is_durable: whether the work is on disk when the future is done. If false, the next durable commit puts it on disk.
        The future has the result of the item, or the exception: SpoolError for errors of SQLite. Cancelling it does not undo
        the work.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._works.put(_Work(run, item, future, is_durable))
        return future

    def refuse_all(self, failure: SpoolBroken) -> None:
        """From now on, all work fails with `failure`. May be called in any thread."""
        self._broken = self._broken or failure

    def close(self) -> None:
        """Waits until all submitted work is committed, and ends the thread."""
        self._works.put(None)
        self._thread.join()

    def _run(self) -> None:
        group: list[_Work] = []
        ended = 0.0
        while True:
            is_crowded = len(group) > 1
            group = []
            work = self._works.get()
            if is_crowded:
                time.sleep(GATHER)
            while work is not None:
                group.append(work)
                if len(group) == GROUP:
                    break
                try:
                    work = self._works.get_nowait()
                except queue.Empty:
                    break
            if group:
                # If commits follow each other closely, the last one has just looked.
                if not is_crowded or time.monotonic() > ended + FRESH:
                    self._prepare()
                self._commit(group)
                ended = time.monotonic()
                self._loop.call_soon_threadsafe(self._set_results, group)
                self._checkpoint()
            if work is None:
                return

    def _set_synchronous(self, is_durable: bool) -> None:
        """Sets whether the next commit waits for the disk."""
        if is_durable != self._syncs_commits:
            self._db.pragma("synchronous", "FULL" if is_durable else "NORMAL")
            self._syncs_commits = is_durable

    def _prepare(self) -> None:
        """Looks at the index before SQLite uses it."""
        try:
            self._files.check_index()
        except SpoolBroken as error:
            self.refuse_all(error)

    def _commit(self, group: list[_Work]) -> None:
        failure: Exception | None = self._broken
        if failure is None:
            try:
                self._set_synchronous(any(work.is_durable for work in group))
                if not self._do_together(group):
                    with transaction(self._db):
                        for work in group:
                            self._do_alone(work)
                self._files.check()
                # A read may have found meanwhile that the disk fails.
                failure = self._broken
            except Exception as error:
                # Any error: this thread must not end while callers wait for it.
                failure = translate(error, self._db.system_errno) if isinstance(error, apsw.Error) else error
        if isinstance(failure, SpoolBroken):
            self.refuse_all(failure)
        if failure is not None:
            for work in group:
                work.error = work.error or failure

    def _checkpoint(self) -> None:
        """Copies the log into the file, once it is long. A failure of the disk breaks the spool; all that is committed stays
        in the log."""
        if self._broken is not None or self._files.frames - self._files.backfilled < CHECKPOINT:
            return
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            failure = translate(error, self._db.system_errno)
            # Without space for it, the log grows until there is none for mail either.
            if isinstance(failure, SpoolBroken):
                self.refuse_all(failure)
                self._loop.call_soon_threadsafe(self._on_end, failure)

    def _do_together(self, group: list[_Work]) -> bool:
        """Does all of the work without savepoints, which cost as much as the work itself.

        Returns False, with nothing done, if one piece of it fails and the commit does not. `_do_alone` then finds it.
        """
        try:
            with transaction(self._db):
                for run, consecutive in groupby(group, attrgetter("run")):
                    works = list(consecutive)
                    try:
                        results = run(self._db, [work.item for work in works])
                    except Exception as error:
                        if self._concerns_all(error):
                            raise
                        raise _FailedAlone from error
                    for work, result in zip(works, results, strict=True):
                        work.result = result
        except _FailedAlone:
            return False
        return True

    def _do_alone(self, work: _Work) -> None:
        """Does one piece of work in a savepoint. Its own failure becomes `work.error`; raises a failure of the commit."""
        db = self._db
        db.execute("SAVEPOINT work")
        try:
            [work.result] = work.run(db, [work.item])
        except Exception as error:
            work.error = translate(error, db.system_errno) if isinstance(error, apsw.Error) else error
            if self._concerns_all(error):
                raise
            db.execute("ROLLBACK TO work")
        db.execute("RELEASE work")

    def _concerns_all(self, error: Exception) -> bool:
        """Whether the whole commit has failed, not only one piece of work."""
        # After some errors SQLite has rolled back the whole transaction.
        return isinstance(error, (apsw.IOError, apsw.CorruptError, UnicodeDecodeError)) or not self._db.in_transaction

    def _set_results(self, group: list[_Work]) -> None:
        """Runs in the event loop."""
        failure = next((work.error for work in group if is_of_the_disk(work.error)), None)
        if failure is not None or any(work.is_durable and work.error is None for work in group):
            self._on_end(failure)
        for work in group:
            if work.future.done():
                continue
            if work.error is not None:
                work.future.set_exception(work.error)
            else:
                work.future.set_result(work.result)


class _FailedAlone(Exception):
    """One piece of work failed, and the commit did not."""


def is_of_the_disk(error: Exception | None) -> TypeGuard[SpoolError]:
    """Whether an error is one of the disk or the limit, not of the message or the work."""
    return isinstance(error, (SpoolBroken, SpoolFull, SpoolUnavailable))
