"""Opens the database of the spool: checks SQLite's version and the directory, makes or migrates the schema.

Promises: every commit on a connection from here is on disk when it returns (WAL, synchronous=FULL: one fdatasync a commit),
unless the caller lowers `synchronous` for a while, as `writer` does. Only our account can enter the directory (0700) and
read the file (0600). The names of the directory, of its parents and of the file are on disk before the first message is.
Never: uses a SQLite older than 3.51.3, which can lose committed rows in WAL mode; opens a spool of a newer version.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw

from mailrelay.atomic_file import sync_directory
from mailrelay.mail.spool_errors import DAMAGE_FIX, SpoolBroken, SpoolError, SpoolFull, SpoolUnavailable
from mailrelay.mail.states import FAILED, OPEN, PENDING, State

FILE = "spool.db"
VERSION = 7
OLDEST_SQLITE = (3, 51, 3)
BUSY_TIMEOUT_MS = 10_000
ARRIVAL = ""
"""The node of the attempt that stands for the arrival of a message (`handing_in`). No node has this id."""
PIECE = 64 * 1024
"""Octets of content in one row, at most."""

_FROM_1_TO_2 = """
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, ' REFERENCES message ON DELETE CASCADE', '')
 WHERE type = 'table' AND name = 'content';
PRAGMA schema_version = {schema_version};
PRAGMA writable_schema = RESET;
CREATE TRIGGER content_of_message AFTER DELETE ON message BEGIN DELETE FROM content WHERE message = old.id; END;
CREATE TABLE incoming (message INTEGER PRIMARY KEY) STRICT;
"""
"""Removes a foreign key without copying all content (SQLite, "ALTER TABLE", section 7)."""
_FROM_2_TO_3 = """
ALTER TABLE relayhost RENAME COLUMN mend TO fix;
ALTER TABLE relayhost RENAME COLUMN mended TO fixed;
ALTER TABLE notice RENAME COLUMN mend TO fix;
ALTER TABLE road RENAME TO notice_backend;
ALTER TABLE notice_backend RENAME COLUMN road TO backend;
ALTER TABLE notice_backend RENAME COLUMN told TO delivered;
DROP INDEX road_owed;
CREATE INDEX notice_backend_pending ON notice_backend (backend, next_try) WHERE delivered IS NULL;
DROP INDEX notice_standing;
CREATE UNIQUE INDEX notice_open ON notice (kind, relayhost, cause) WHERE reminder IS NOT NULL;
UPDATE notice SET cause = 'relayhost' WHERE kind = 'delayed' AND cause = 'way';
ALTER TABLE attempt RENAME COLUMN owner TO node;
ALTER TABLE recipient RENAME COLUMN words TO description;
ALTER TABLE outcome RENAME COLUMN words TO description;
"""
"""Plainer names. In old rows, `attempt.node` is a process id, which equals no node id."""
_FROM_3_TO_4 = """
ALTER TABLE message ADD COLUMN bare_header INTEGER NOT NULL DEFAULT 0 CHECK (bare_header IN (0, 1));
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql,
 'CHECK (state NOT IN (''bounced'', ''refused'') OR remote = 1)',
 'CHECK (state <> ''refused'' OR remote = 1), CHECK (state <> ''bounced'' OR remote = 1 OR length(description) > 0)')
 WHERE type = 'table' AND name = 'recipient';
PRAGMA schema_version = {schema_version};
PRAGMA writable_schema = RESET;
"""
"""A recipient whose address is not valid bounces without a reply of a mail server."""
_FROM_4_TO_5 = """
ALTER TABLE message ADD COLUMN scheduled REAL;
ALTER TABLE message ADD COLUMN checksum BLOB;
ALTER TABLE content ADD COLUMN checksum BLOB;
ALTER TABLE recipient ADD COLUMN checksum BLOB;
ALTER TABLE relayhost ADD COLUMN scheduled REAL;
ALTER TABLE notice_backend ADD COLUMN scheduled REAL;
UPDATE message SET scheduled = coalesce((SELECT max(closed) FROM attempt WHERE message = message.id), arrival)
 WHERE next_attempt IS NOT NULL;
UPDATE relayhost SET scheduled = since WHERE failures = 1;
UPDATE notice_backend SET scheduled = (SELECT created FROM notice WHERE id = notice) WHERE tries = 0;
"""
"""Old rows get no checksum: nothing shows that they are as they were written, and content is not copied."""

_FROM_5_TO_6 = """
CREATE TABLE exchange (
  attempt    INTEGER PRIMARY KEY REFERENCES attempt ON DELETE CASCADE,
  token      TEXT    NOT NULL CHECK (length(token) = 32),
  first      INTEGER NOT NULL CHECK (first >= 0),
  recipients TEXT    NOT NULL,
  has_data   INTEGER NOT NULL CHECK (has_data IN (0, 1)),
  relays_dsn INTEGER NOT NULL CHECK (relays_dsn IN (0, 1))
) STRICT;
CREATE TABLE followed (
  recipient    INTEGER PRIMARY KEY REFERENCES recipient ON DELETE CASCADE,
  relayhost    TEXT NOT NULL,
  accepted     REAL NOT NULL,
  state        TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN
                 ('waiting', 'deferred', 'delivered', 'bounced', 'left', 'left unwatched', 'not followed')),
  source       TEXT NOT NULL DEFAULT '' CHECK (source IN ('', 'queue', 'log', 'report')),
  words        BLOB NOT NULL DEFAULT x'',
  said_by      BLOB NOT NULL DEFAULT x'',
  since        REAL,
  changed      REAL NOT NULL,
  over         REAL,
  is_blind     INTEGER NOT NULL DEFAULT 0 CHECK (is_blind IN (0, 1)),  -- no bounce could be seen: no content is kept
  dealt_with   REAL,
  successor    TEXT NOT NULL DEFAULT '',
  retry_wanted REAL,
  retry_text   TEXT NOT NULL DEFAULT '',
  CHECK (dealt_with IS NULL OR over IS NOT NULL),
  CHECK (successor = '' OR dealt_with IS NOT NULL)
) STRICT;
CREATE INDEX followed_open ON followed (relayhost, accepted) WHERE over IS NULL;
CREATE INDEX followed_retry ON followed (relayhost) WHERE retry_wanted IS NOT NULL;
CREATE INDEX followed_bounced ON followed (recipient) WHERE state = 'bounced' AND dealt_with IS NULL;
CREATE INDEX followed_deferred ON followed (relayhost, accepted) WHERE state = 'deferred' AND over IS NULL;
ALTER TABLE relayhost ADD COLUMN recording TEXT NOT NULL DEFAULT '' CHECK (recording IN ('', 'possible', 'impossible'));
ALTER TABLE relayhost ADD COLUMN next_trial REAL NOT NULL DEFAULT 0;
"""
_FROM_6_TO_7 = """
ALTER TABLE message ADD COLUMN send_time REAL;
ALTER TABLE message ADD COLUMN by_clock INTEGER NOT NULL DEFAULT 0 CHECK (by_clock IN (0, 1));
ALTER TABLE message ADD COLUMN fallback_for TEXT NOT NULL DEFAULT '';
CREATE INDEX message_fallback ON message (relayhost) WHERE fallback_for <> '' AND next_attempt IS NOT NULL;
ALTER TABLE attempt ADD COLUMN relayhost TEXT NOT NULL DEFAULT '';
ALTER TABLE relayhost ADD COLUMN stand_in TEXT NOT NULL DEFAULT '';
DROP INDEX message_waiting;
CREATE INDEX message_waiting ON message (coalesce(send_time, arrival)) WHERE next_attempt IS NOT NULL;
ALTER TABLE message ADD COLUMN owner INTEGER;
ALTER TABLE exchange ADD COLUMN held REAL;
"""

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of a write for which there is no space. SQLite calls only the first one a full disk."""


def translate(error: apsw.Error | UnicodeDecodeError, system_errno: int = 0) -> SpoolError:
    """The SpoolError for an error of SQLite. system_errno: that of the connection, 0 if it is not known.

    UnicodeDecodeError: a text was read that nobody has written.
    """
    code = getattr(error, "extendedresult", 0)
    found: SpoolError
    match error:
        case apsw.FullError():
            found = SpoolFull("the spool's disk is full; make space")
        # SHMSIZE: the disk is too full for the -shm file, the index of the write-ahead log.
        case apsw.IOError() if code == apsw.SQLITE_IOERR_SHMSIZE or (
            code == apsw.SQLITE_IOERR_WRITE and system_errno in _NO_SPACE
        ):
            found = SpoolFull("the spool's disk is full; make space")
        case apsw.NoMemError() | apsw.IOError() if code in (apsw.SQLITE_NOMEM, apsw.SQLITE_IOERR_NOMEM):
            found = SpoolUnavailable("there is not enough memory to use the spool; end other programs")
        case apsw.CantOpenError() if system_errno in (errno.EMFILE, errno.ENFILE):
            found = SpoolUnavailable("too many files are open to use the spool; try again")
        case apsw.IOError() | apsw.CorruptError() | apsw.NotADBError() | UnicodeDecodeError():
            found = SpoolBroken(f"the spool's disk or file is damaged ({error}); {DAMAGE_FIX}")
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError() | apsw.NoLFSError():
            found = SpoolBroken(
                f"the spool cannot be opened or written ({error}); look at the disk and the permissions"
            )
        case apsw.BusyError() | apsw.LockedError() | apsw.ProtocolError():
            found = SpoolUnavailable("another program has locked the spool; try again")
        case _:
            found = SpoolError(f"the spool cannot be used ({error})")
    return found


def check_library(version: str) -> None:
    """Raises SpoolError if this version of SQLite (as "3.54.1") can lose what it has committed."""
    if tuple(int(part) for part in version.split(".")) < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise SpoolError(f"SQLite {version} can lose mail; install an apsw that brings at least {oldest}")


def prepare_directory(directory: Path) -> None:
    """Makes `directory` if needed. Raises SpoolError, also for a directory that other users can enter."""
    try:
        if not directory.exists():
            directory.parent.mkdir(parents=True, exist_ok=True)
            # Another process may make it at the same time.
            with suppress(FileExistsError):
                directory.mkdir(mode=0o700)
        found = directory.stat()
    except OSError as error:
        raise SpoolError(f"{directory} cannot be made: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise SpoolError(f"{directory} is not a directory")
    if found.st_uid != os.geteuid():
        raise SpoolError(f"{directory} belongs to another user (uid {found.st_uid})")
    if found.st_mode & 0o077:
        raise SpoolError(f"{directory} is open to other users; chmod 700 {directory}")


def connect(directory: Path, *, create: bool = True) -> apsw.Connection:
    """A connection to the spool in `directory`, which is made or migrated as needed.

    Raises SpoolError; FileNotFoundError if there is no spool and create=False.
    """
    check_library(apsw.sqlite_lib_version())
    path = directory / FILE
    if not create and not path.exists():
        raise FileNotFoundError(path)
    prepare_directory(directory)
    try:
        # SQLite would make the file with the permissions of the umask. The -wal and -shm files get those of this file.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise SpoolError(f"{path} cannot be made: {error.strerror}") from None
    db = None
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        _configure(db)
    except apsw.Error as error:
        raise translate(error, 0 if db is None else db.system_errno) from None
    except OSError as error:
        raise SpoolError(f"{directory} cannot be used: {error.strerror}") from None
    return db


@contextmanager
def transaction(db: apsw.Connection) -> Iterator[apsw.Connection]:
    """One commit for everything inside, on disk at its end. Raises SpoolError; then nothing is changed."""
    try:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    except (apsw.Error, UnicodeDecodeError) as error:
        raise translate(error, db.system_errno) from None


@contextmanager
def reading(db: apsw.Connection) -> Iterator[apsw.Connection]:
    """One consistent view for everything read inside, whatever is written meanwhile. Raises SpoolError."""
    try:
        db.execute("BEGIN")
        try:
            yield db
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
    except (apsw.Error, UnicodeDecodeError) as error:
        raise translate(error, db.system_errno) from None


@contextmanager
def opened_for_reading(directory: Path) -> Iterator[apsw.Connection]:
    """One consistent view of the spool in `directory`, on a connection of its own. Raises SpoolError; FileNotFoundError if
    there is no spool. Leaves the write-ahead log as it is, for the daemon to look at its end (`log_end`)."""
    with closing(connect(directory, create=False)) as db:
        keep_log(db)
        with reading(db):
            yield db


def keep_log(db: apsw.Connection) -> None:
    """Lets this connection leave the log where it is, also if it is the last one that closes."""
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def rows(db: apsw.Connection, sql: str, bindings: tuple[object, ...] = ()) -> list[Any]:
    """All rows of a query. `Any`: their types follow from the schema, which the type checker does not know."""
    return db.execute(sql, bindings).fetchall()


def as_text(value: object) -> str:
    """A text that was selected as a BLOB, because apsw raises for a damaged one. What is not valid UTF-8 is replaced."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def states(listed: Iterable[State]) -> str:
    """States as an SQL list, for use after IN."""
    return "(" + ", ".join(f"'{state}'" for state in sorted(listed)) + ")"


IS_PENDING, IS_LIVE = states(PENDING), states(OPEN | FAILED)
WAITS_SINCE = "coalesce({0}send_time, {0}arrival)"
"""The time from which the age of a message counts. To be formatted with the prefix of the table, such as "m."."""


def row(db: apsw.Connection, sql: str, bindings: tuple[object, ...] = ()) -> Any:
    """The first row of a query that has at least one."""
    return rows(db, sql, bindings)[0]


def _configure(db: apsw.Connection) -> None:
    db.set_busy_timeout(BUSY_TIMEOUT_MS)
    fresh = db.pragma("page_count") == 0
    if fresh:
        db.pragma("auto_vacuum", "INCREMENTAL")
    if db.pragma("journal_mode", "wal") != "wal":
        raise SpoolError("the spool's file system cannot keep a write-ahead log; put queue.directory on a local disk")
    db.pragma("synchronous", "FULL")
    db.pragma("foreign_keys", True)
    db.pragma("journal_size_limit", 64 * 1024 * 1024)
    # Only the daemon makes checkpoints, because SQLite's own ones hide their errors (`writer`), and the last connection that
    # closes, if no daemon runs.
    db.pragma("wal_autocheckpoint", 0)
    if db.pragma("user_version") != VERSION:
        _migrate(db)


def _migrate(db: apsw.Connection) -> None:
    """Brings an older spool to `VERSION`. Checks again inside the transaction: two processes may start at once."""
    with transaction(db):
        found = db.pragma("user_version")
        if found > VERSION:
            raise SpoolError(
                f"the spool was written by a newer mailrelay (format {found}; this one knows {VERSION});"
                " install that version"
            )
        if found == 0:
            db.execute(Path(__file__).with_name("schema.sql").read_text("utf-8"))
            _sync_names(Path(db.filename))
        if found == 1:
            db.execute(_FROM_1_TO_2.format(schema_version=db.pragma("schema_version") + 1))
        if found in (1, 2):
            db.execute(_FROM_2_TO_3)
        if found in (1, 2, 3):
            db.execute(_FROM_3_TO_4.format(schema_version=db.pragma("schema_version") + 2))
        if 0 < found < 5:
            db.execute(_FROM_4_TO_5)
        if 0 < found < 6:
            db.execute(_FROM_5_TO_6)
        if 0 < found < VERSION:
            db.execute(_FROM_6_TO_7)
        db.pragma("user_version", VERSION)
    if found == 0:
        # The schema is in the file before the first message is in the log: a log that cannot be read is then noticed
        # (`log_end`), and not taken for a new spool.
        db.wal_checkpoint()


def _sync_names(file: Path) -> None:
    """Puts the name of a new spool's file on disk, and those of the directories above it. Raises SpoolError.

    Of all of them: another process may have made one of them and have been killed before it was on disk. SQLite does the
    same for the write-ahead log.
    """
    for directory in file.parents:
        try:
            sync_directory(directory)
        except OSError as error:
            # A directory that we may not read is not ours, and some file systems have no such sync.
            if directory == file.parent or error.errno not in (errno.EACCES, errno.EPERM, errno.EINVAL, errno.EROFS):
                raise SpoolError(f"{directory} cannot be put on disk: {error.strerror}") from None
