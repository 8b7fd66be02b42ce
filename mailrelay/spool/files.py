"""Whether the files of an open spool are still those at their paths, and whole.

SQLite goes on with a file that was deleted, moved, replaced or cut off: what it commits then is not found again. So `check`
is called after each commit, before the commit counts as durable. The daemon calls it and `check_access` each second, too.

Facts about SQLite that it relies on (sqlite.org/fileformat2.html section 4, sqlite.org/wal.html):
- While a connection is open, no process deletes or replaces spool.db-wal or spool.db-shm.
- Frames of the log that were committed do not change until the log is restarted; then its header has other salts.
- spool.db is never empty, and becomes shorter only at a checkpoint. Each page that it lacks is in a committed frame of the
  log.

Never: opens spool.db or spool.db-shm, because closing them would drop SQLite's locks; uses SQLite's index of the log after
spool.db-shm was cut off, because that would end the process (SIGBUS).
"""

import errno
import os
import time
from pathlib import Path

import apsw

from mailrelay.mail.spool_errors import DAMAGE_FIX, SpoolBroken
from mailrelay.spool.database import BUSY_TIMEOUT_MS, FILE, translate

# `os.stat` takes a third of the time of `Path.stat`, and is called several times for each commit.
_stat = os.stat
_TRIES = 5
_PAUSE = 0.002
"""Seconds between two tries. Another process may restart the log, or checkpoint it, while it is read."""
_HEADER, _FRAME_HEADER = 32, 24
"""Octets of the header of the log, and of that of a frame."""
_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


class SpoolFiles:
    """The files of the spool in `directory`, as `db` has them open. To be used by the thread that uses `db`.

    frames, backfilled: how many frames of the log are committed, and how many of them a checkpoint has copied, at the last
    check. Raises SpoolBroken; `check` also raises other SpoolErrors.
    """

    def __init__(self, directory: Path, db: apsw.Connection) -> None:
        self._directory = directory
        self._db = db
        database = directory / FILE
        # SQLite keeps the other files beside the file that a symbolic link leads to.
        beside = Path(os.path.realpath(database)) if database.is_symlink() else database
        self._log_path = Path(f"{beside}-wal")
        self._paths = (str(database), str(self._log_path), f"{beside}-shm")
        self._frame_size: int = _FRAME_HEADER + db.pragma("page_size")
        self.frames = self.backfilled = 0
        # The header of the log, and the last committed frame with its number, at the last check.
        self._header = self._last = b""
        self._last_number = 0
        # The number of pages in spool.db at the last check. The log held all pages after them.
        self._pages = 0
        try:
            found = [_stat(path) for path in self._paths]
            # SQLite has no locks on the log, so closing it drops none.
            self._log = os.open(self._log_path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _broken_by(self._directory, error) from None
        self._identities = tuple(_identity(one) for one in found)
        self._index_size = found[2].st_size
        if not _open_files().issuperset(self._identities):
            self.close()
            raise SpoolBroken(f"the spool's files in {directory} were replaced while they were opened; start again")

    def close(self) -> None:
        os.close(self._log)

    def check(self) -> None:
        """Raises SpoolBroken unless everything that is committed is in the files at their paths.

        Raises another SpoolError if SQLite cannot read its index of the log now."""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE)
            problem = self._problem()
            if not problem:
                return
        raise _broken(self._directory, problem)

    def check_index(self) -> None:
        """Raises SpoolBroken if spool.db-shm is gone or was cut off. To be called before SQLite uses it."""
        try:
            index = _stat(self._paths[2])
        except OSError as error:
            raise _broken_by(self._directory, error) from None
        if _identity(index) != self._identities[2]:
            raise _broken(self._directory, "spool.db-shm was removed or replaced")
        if index.st_size < self._index_size:
            raise _broken(self._directory, "spool.db-shm was cut off")

    def check_access(self) -> None:
        """Raises SpoolBroken if the files can no longer be written: the disk is read-only, or the permissions have
        changed."""
        try:
            # Linux reports some read-only disks (an ext4 after an error) to open(2) only.
            os.close(os.open(self._log_path, os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            # The limit of open files, or of memory: the file itself may be intact.
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise _read_only(self._log_path, str(error.strerror)) from None
        for path, mode in ((Path(self._paths[0]), os.R_OK | os.W_OK), (self._directory, os.W_OK | os.X_OK)):
            if not os.access(path, mode):
                raise _read_only(path, "no permission, or a read-only file system")

    def _problem(self) -> str:
        """What is wrong with the files; "" if nothing is. The result may be wrong if another process changes the log
        meanwhile: then call it again."""
        try:
            database_path, log_path, index_path = self._paths
            database, log, index = _stat(database_path), _stat(log_path), _stat(index_path)
            found = _identity(database), _identity(log), _identity(index)
            if found != self._identities:
                replaced = [path for path, one in zip(self._paths, found, strict=True) if one not in self._identities]
                return f"{Path(replaced[0]).name if replaced else FILE} was removed or replaced"
            if index.st_size < self._index_size:
                return "spool.db-shm was cut off"
            self._index_size = index.st_size
            return self._problem_of_log() or self._problem_of_database(database.st_size)
        except OSError as error:
            raise _broken_by(self._directory, error) from None
        except apsw.Error as error:
            raise translate(error, self._db.system_errno) from None

    def _problem_of_log(self) -> str:
        self._count_frames()
        # After a restart of the log, its old frames stay in the file, behind the new ones.
        if not self._last or self.frames < self._last_number or self._frame(self._last_number) != self._last:
            # Cut off, or restarted since the last check.
            header = os.pread(self._log, _HEADER, 0)
            is_same = bool(self._last) and header == self._header
            if self.frames and (is_same or not header.startswith(_MAGIC)):
                return "spool.db-wal was cut off"
            self._header, self._last, self._last_number = header, b"", 0
        if self.frames != self._last_number:
            last = self._frame(self.frames) if self.frames else b""
            if self.frames and (len(last) < self._frame_size or last[8:16] != self._header[16:24]):
                return "spool.db-wal was cut off"
            self._last, self._last_number = last, self.frames
        return ""

    def _count_frames(self) -> None:
        tries = 0
        while True:
            try:
                self.frames, self.backfilled = self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
                return
            except apsw.BusyError:
                # Another process changes the index now. SQLite's own time-out has no effect on this call.
                tries += 1
                if tries * _PAUSE > BUSY_TIMEOUT_MS / 1000:
                    raise
            time.sleep(_PAUSE)

    def _problem_of_database(self, size: int) -> str:
        if not size:
            # SQLite deletes the log of an empty file.
            return "spool.db was cut off"
        pages = size // (self._frame_size - _FRAME_HEADER)
        if pages < self._pages or not self._pages:
            missing = set(range(pages + 1, self._all_pages() + 1))
            for number in range(1, self.frames + 1):
                if not missing:
                    break
                missing.discard(int.from_bytes(os.pread(self._log, 4, self._offset(number)), "big"))
            if missing:
                return "spool.db was cut off"
        self._pages = pages
        return ""

    def _all_pages(self) -> int:
        """Pages of the database, in spool.db and in the log."""
        if self._last:
            # The last frame of a commit contains this number.
            return int.from_bytes(self._last[4:8], "big")
        pages: int = self._db.pragma("page_count")
        return pages

    def _offset(self, number: int) -> int:
        """Octets of the log before the frame with this number (from 1)."""
        return _HEADER + (number - 1) * self._frame_size

    def _frame(self, number: int) -> bytes:
        return os.pread(self._log, self._frame_size, self._offset(number))


def _identity(file: os.stat_result) -> tuple[int, int]:
    return file.st_dev, file.st_ino


def _open_files() -> set[tuple[int, int]]:
    """Device and inode of each file that this process has open."""
    try:
        handles = [int(path.name) for path in Path("/dev/fd").iterdir()]
    except OSError:
        handles = list(range(1024))
    found = set()
    for handle in handles:
        try:
            one = os.fstat(handle)
        except OSError:
            continue
        found.add(_identity(one))
    return found


def _broken(directory: Path, problem: str) -> SpoolBroken:
    return SpoolBroken(f"the spool in {directory} is not what it was: {problem}; see what has changed it")


def _read_only(path: Path, why: str) -> SpoolBroken:
    return SpoolBroken(f"{path} can no longer be written ({why}); look at the disk and the permissions")


def _broken_by(directory: Path, error: OSError) -> SpoolBroken:
    if isinstance(error, FileNotFoundError):
        return _broken(directory, f"{Path(error.filename).name} was removed or moved")
    what = f"{error.filename or directory}: {error.strerror}"
    return SpoolBroken(f"the spool's disk or file is damaged ({what}); {DAMAGE_FIX}")
