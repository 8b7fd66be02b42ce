"""Whether all is fine: what `mailrelay status` shows, and why.

    late     mail has waited longer than queue.delay_notice_after, or a notice could not be delivered yet
    failed   no daemon runs or it does not answer, the spool cannot be used, there is no room for more mail, a relayhost
             waits for the person, or mail has failed or cannot be sent as it is

The JSON record has these keys:

    status      fine, late or failed
    serving     whether the daemon runs; pid is its process id, null if it is unknown
    answers     whether the daemon answered within 10 s; null if it was not asked: none runs, or it is just starting
    pending     messages that wait; likewise held and failed (`mail.states.COUNTED_AS`); late: those of the pending ones that
                have waited too long; stranded: those of the held ones that cannot be sent as they are. All of them are null
                if the spool cannot be read
    full        why there is no room for an ordinary message; "" if there is
    room        octets of the largest message for which there is room, at most listen.max_message_size; null if it is unknown
    failure     why the spool cannot be used; "" if it can
    oldest      arrival of the oldest pending message (epoch seconds, or null)
    relayhosts  those that cannot be reached: name, since and next_dial (epoch seconds), setup (true: it waits for the
                person), text, and fix (the step that repairs it)
    untold      notices that could not be delivered yet: kind, backend, why
    directory   of the spool

The daemon is asked, because it alone knows of writes that failed. The disk is looked at, too: a daemon that is idle has not
noticed yet, and none may run.

Promises: text from outside is escaped in reasons and record (`mail.printable`).
"""

import enum
import errno
import os
from pathlib import Path
from typing import NamedTuple, TypedDict

from mailrelay.config import Settings
from mailrelay.mail.overview import SpoolStatus
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import length
from mailrelay.mail.spool_errors import SpoolBroken, SpoolError, SpoolFull
from mailrelay.spool import listing, liveness, lock
from mailrelay.spool.database import FILE, opened_for_reading
from mailrelay.spool.space import ORDINARY, check_space

_READ_ONLY = "the spool's disk is read-only; look at the disk, and make it writable"
_EMPTY = SpoolStatus(pending=0, oldest=None, late=0, held=0, stranded=0, failed=0, failing_notices=(), faults=())


class Level(enum.IntEnum):
    """How serious it is. The value is the exit status of `mailrelay status`."""

    FINE = 0
    LATE = 1
    FAILED = 2


# Not dataclasses, which take five times as long to create: prompts and status bars run this often.
class Space(NamedTuple):
    """full: why there is no room for an ordinary message, "" if there is. largest: octets of the largest message for which
    there is room, None if it is unknown; is_limited: whether clients may send larger ones."""

    full: str = ""
    largest: int | None = None
    is_limited: bool = False


class Status(NamedTuple):
    """spool: its numbers and faults, None if they cannot be read. failure: why the spool cannot be used, "" if it can.
    pid: of the daemon, "" if it is unknown, None if none runs. answers: None if the daemon was not asked. reasons: why not
    all is fine, worst first, each in a few words."""

    directory: Path
    spool: SpoolStatus | None
    space: Space
    failure: str
    pid: str | None
    answers: bool | None
    reasons: list[tuple[Level, str]]

    @property
    def level(self) -> Level:
        """That of the worst reason."""
        return max((level for level, _ in self.reasons), default=Level.FINE)


class RelayhostRecord(TypedDict):
    name: str
    since: int
    next_dial: int
    setup: bool
    text: str
    fix: str


class UntoldRecord(TypedDict):
    kind: str
    backend: str
    why: str


class StatusRecord(TypedDict):
    status: str
    serving: bool
    pid: int | None
    answers: bool | None
    pending: int | None
    late: int | None
    held: int | None
    stranded: int | None
    failed: int | None
    full: str
    room: int | None
    failure: str
    oldest: int | None
    relayhosts: list[RelayhostRecord]
    untold: list[UntoldRecord]
    directory: str


def read_status(settings: Settings, now: float) -> Status:
    """The status at `now` (epoch seconds). Creates no spool. Waits up to 10 s for a daemon that does not answer.

    Raises SpoolError, OSError if it cannot tell.
    """
    directory = settings.queue.directory
    failure = _disk_failure(directory)
    pid, answer, answers = None, None, None
    if os.access(directory, os.X_OK):
        pid = lock.holder(directory)
        if pid is not None:
            answer, answers = _ask(directory)
    if answer is not None:
        failure = answer.failure or failure
    spool, space = None, Space()
    try:
        spool, space = _read_spool(settings, now)
    except FileNotFoundError as error:
        # Only a daemon that is just starting has made no spool yet.
        if answer is not None:
            failure = failure or f"{error.filename} is missing; stop the daemon, and look at the disk"
        elif not failure:
            spool = _EMPTY
    except (SpoolError, OSError) as error:
        if not failure and not isinstance(error, SpoolBroken | OSError):
            raise
        failure = failure or _text(error)
    if answer is not None and answer.full:
        space = space._replace(full=answer.full)
    why = reasons(spool, serving=pid is not None, answers=answers, failure=failure, full=space.full, now=now)
    return Status(directory, spool, space, failure, pid or (str(answer.pid) if answer else pid), answers, why)


def reasons(
    spool: SpoolStatus | None, *, serving: bool, answers: bool | None, failure: str, full: str, now: float
) -> list[tuple[Level, str]]:
    """Why all is not fine, worst first, each in a few words. Empty if all is fine.

    Arguments: as in Status and Space. now: epoch seconds.
    """
    found = []
    if not serving:
        found.append((Level.FAILED, "nobody serves"))
    if answers is False:
        found.append((Level.FAILED, "the daemon does not answer"))
    if failure:
        found.append((Level.FAILED, "the spool cannot be used"))
    if full:
        found.append((Level.FAILED, "no room"))
    if spool is None:
        return found
    found.extend((Level.FAILED, f"{printable(fault.relayhost)} needs you") for fault in spool.faults if fault.setup)
    if spool.failed:
        found.append((Level.FAILED, f"{spool.failed} failed"))
    if spool.stranded:
        found.append((Level.FAILED, f"{spool.stranded} cannot be sent"))
    if spool.late and spool.oldest is not None:
        found.append((Level.LATE, f"{spool.late} waiting {length(now - spool.oldest).replace(' ', '')}"))
    if spool.failing_notices:
        found.append((Level.LATE, "notices not delivered"))
    return found


def status_record(status: Status) -> StatusRecord:
    """The status for programs."""
    spool, pid = status.spool, status.pid
    return {
        "status": status.level.name.lower(),
        "serving": pid is not None,
        "pid": int(pid) if pid and pid.isdecimal() else None,
        "answers": status.answers,
        "pending": spool and spool.pending,
        "late": spool and spool.late,
        "held": spool and spool.held,
        "stranded": spool and spool.stranded,
        "failed": spool and spool.failed,
        "full": status.space.full,
        "room": status.space.largest,
        "failure": printable(status.failure),
        "oldest": None if spool is None or spool.oldest is None else int(spool.oldest),
        "relayhosts": [
            {
                "name": fault.relayhost,
                "since": int(fault.since),
                "next_dial": int(fault.next_dial),
                "setup": fault.setup,
                "text": printable(fault.text),
                "fix": printable(fault.fix),
            }
            for fault in (spool.faults if spool else ())
        ],
        "untold": [
            {"kind": kind, "backend": backend, "why": printable(why)}
            for kind, backend, why in (spool.failing_notices if spool else ())
        ],
        "directory": str(status.directory),
    }


def _ask(directory: Path) -> tuple[liveness.Answer | None, bool | None]:
    """What the daemon says, and whether it answers; None if it has no socket."""
    try:
        answer = liveness.ask(directory, liveness.ANSWER_TIMEOUT)
    except liveness.NoAnswer:
        return None, False
    return answer, None if answer is None else True


def _disk_failure(directory: Path) -> str:
    """Why a daemon of this account could not use the spool now, as far as that shows without a write; "" if it could.

    Raises OSError if the directory belongs to another account and cannot be read.
    """
    for path, access in ((directory, os.R_OK | os.W_OK | os.X_OK), (directory / FILE, os.R_OK | os.W_OK)):
        try:
            if os.statvfs(path).f_flag & os.ST_RDONLY:
                return _READ_ONLY
            is_ours = path.stat().st_uid == os.geteuid()
        except (FileNotFoundError, NotADirectoryError):
            break
        except PermissionError:
            raise
        except OSError as error:
            return _text(error)
        if path == directory and not path.is_dir():
            return f"{path} is not a directory; move it away"
        if is_ours and not os.access(path, access):
            return f"{path} cannot be read and written by its owner; chmod u+rwX {path}"
    try:
        # Linux reports some read-only disks (an ext4 after an error) to open(2) only.
        os.close(os.open(directory / lock.FILE, os.O_WRONLY | os.O_CLOEXEC))
    except OSError as error:
        return _READ_ONLY if error.errno == errno.EROFS else ""
    return ""


def _text(error: SpoolError | OSError) -> str:
    return f"{error.filename}: {error.strerror}; look at the disk" if isinstance(error, OSError) else str(error)


def _read_spool(settings: Settings, now: float) -> tuple[SpoolStatus | None, Space]:
    """Numbers and faults from the spool, and the space for more mail. Raises FileNotFoundError if there is no spool."""
    full = ""
    try:
        with opened_for_reading(settings.queue.directory) as db:
            found = listing.status(db, now - settings.queue.delay_notice_after)
            try:
                largest: int | None = check_space(db, ORDINARY, settings.queue.max_size)
            except SpoolFull as error:
                full, largest = str(error), error.left
    except SpoolFull as error:
        # There is no space even for the index of the log, without which nothing can be read.
        return None, Space(str(error))
    if largest is None or largest >= settings.listen.max_message_size:
        return found, Space(full, settings.listen.max_message_size)
    return found, Space(full, largest, is_limited=True)
