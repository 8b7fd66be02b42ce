"""Whether all is fine: what `mailrelay status` shows, and why.

    late     mail has waited longer than queue.delay_notice_after, here or deferred on the relayhost, or a notice could not
             be delivered yet
    failed   no daemon runs or it does not answer, the spool cannot be used, there is no room for more mail, a relayhost
             waits for the person, or mail has failed, has bounced on the relayhost, or cannot be sent as it is

The JSON record has these keys:

    status      fine, late or failed
    asleep      whether no daemon runs because there is nothing to do, and a service manager starts it with the next mail
    serving     whether the daemon runs; pid is its process id, null if it is unknown
    answers     whether the daemon answered within 10 s; null if it was not asked: none runs, or it is just starting
    pending     messages that wait; likewise held and failed (`mail.states.COUNTED_AS`); scheduled: those of the pending ones
                that wait for their time; late: those that have waited too long; stranded: those of the held ones that
                cannot be sent as they are. All of them are null if the spool cannot be read
    bounced_there, deferred_there
                messages that the mail server on the relayhost has accepted, and that have bounced there and need the person,
                or that it has deferred for too long; null if the spool cannot be read
    full        why there is no room for an ordinary message; "" if there is
    room        octets of the largest message for which there is room, at most listen.max_message_size; null if it is unknown
    failure     why the spool cannot be used; "" if it can
    oldest      from when on the oldest pending message has waited: its arrival or its send time; null if there is none, but
                for those that wait for their time (epoch seconds)
    relayhosts  those that cannot be reached: name, since and next_dial (epoch seconds), setup (true: it waits for the
                person), text, fix (the step that repairs it), and stand_in (the fallback that sends its mail meanwhile, "")
    errors      relayhosts whose mail cannot be sent because of an error of the daemon: name and text
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
from mailrelay.spool import listing, liveness, lock, trigger
from mailrelay.spool.database import FILE, opened_for_reading
from mailrelay.spool.space import ORDINARY, check_space

_READ_ONLY = "the spool's disk is read-only; look at the disk, and make it writable"
_EMPTY = SpoolStatus(pending=0, oldest=None, late=0, held=0, stranded=0, failed=0, failing_notices=(), faults=())


STARTING = 30.0
"""Seconds after the arrival of mail in which a service manager may still be starting the daemon."""


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
    pid: of the daemon, "" if it is unknown, None if none runs. answers: None if the daemon was not asked. is_asleep: whether
    a service manager starts the daemon with the next mail. errors: of the daemon, by relayhost. reasons: why not all is
    fine, worst first, each in a few words. connected: the relayhosts to which the daemon has a connection, None if that is
    not known."""

    directory: Path
    spool: SpoolStatus | None
    space: Space
    failure: str
    pid: str | None
    answers: bool | None
    is_asleep: bool
    errors: tuple[tuple[str, str], ...]
    reasons: list[tuple[Level, str]]
    connected: tuple[str, ...] | None = None

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
    stand_in: str


class ErrorRecord(TypedDict):
    name: str
    text: str


class UntoldRecord(TypedDict):
    kind: str
    backend: str
    why: str


class StatusRecord(TypedDict):
    status: str
    asleep: bool
    serving: bool
    pid: int | None
    answers: bool | None
    pending: int | None
    scheduled: int | None
    late: int | None
    held: int | None
    stranded: int | None
    failed: int | None
    bounced_there: int | None
    deferred_there: int | None
    full: str
    room: int | None
    failure: str
    oldest: int | None
    relayhosts: list[RelayhostRecord]
    errors: list[ErrorRecord]
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
    errors = answer.errors if answer is not None else ()
    is_asleep = pid is None and trigger.is_listened_to(directory) and not _waits_for_daemon(spool, now)
    why = reasons(
        spool,
        serving=pid is not None or is_asleep,
        answers=answers,
        failure=failure,
        full=space.full,
        now=now,
        errors=errors,
    )
    connected = None if answer is None else answer.connected
    known_pid = pid or (str(answer.pid) if answer else pid)
    return Status(directory, spool, space, failure, known_pid, answers, is_asleep, errors, why, connected)


def reasons(
    spool: SpoolStatus | None,
    *,
    serving: bool,
    answers: bool | None,
    failure: str,
    full: str,
    now: float,
    errors: tuple[tuple[str, str], ...] = (),
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
    found.extend((Level.FAILED, f"{printable(name)} cannot go on") for name, _ in errors)
    return found if spool is None else [*found, *_reasons_of_mail(spool, now)]


def _reasons_of_mail(spool: SpoolStatus, now: float) -> list[tuple[Level, str]]:
    found = [(Level.FAILED, f"{printable(fault.relayhost)} needs you") for fault in spool.faults if fault.setup]
    if spool.failed:
        found.append((Level.FAILED, f"{spool.failed} failed"))
    if spool.bounced_there:
        found.append((Level.FAILED, f"{spool.bounced_there} bounced there"))
    if spool.stranded:
        found.append((Level.FAILED, f"{spool.stranded} cannot be sent"))
    if spool.late and spool.oldest is not None:
        found.append((Level.LATE, f"{spool.late} waiting {length(now - spool.oldest).replace(' ', '')}"))
    if spool.deferred_there:
        found.append((Level.LATE, f"{spool.deferred_there} deferred there"))
    if spool.failing_notices:
        found.append((Level.LATE, "notices not delivered"))
    return found


def status_record(status: Status) -> StatusRecord:
    """The status for programs."""
    spool, pid = status.spool, status.pid
    return {
        "status": status.level.name.lower(),
        "asleep": status.is_asleep,
        "serving": pid is not None,
        "pid": int(pid) if pid and pid.isdecimal() else None,
        "answers": status.answers,
        "pending": spool and spool.pending,
        "scheduled": spool and spool.scheduled,
        "late": spool and spool.late,
        "held": spool and spool.held,
        "stranded": spool and spool.stranded,
        "failed": spool and spool.failed,
        "bounced_there": spool and spool.bounced_there,
        "deferred_there": spool and spool.deferred_there,
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
                "stand_in": printable(fault.stand_in),
            }
            for fault in (spool.faults if spool else ())
        ],
        "errors": [{"name": name, "text": printable(text)} for name, text in status.errors],
        "untold": [
            {"kind": kind, "backend": backend, "why": printable(why)}
            for kind, backend, why in (spool.failing_notices if spool else ())
        ],
        "directory": str(status.directory),
    }


def _waits_for_daemon(spool: SpoolStatus | None, now: float) -> bool:
    """Whether there is mail that a daemon should be sending. One that is started by it needs a moment."""
    return spool is not None and spool.oldest is not None and now - spool.oldest > STARTING


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
            found = listing.status(db, now - settings.queue.delay_notice_after, now)
            try:
                largest: int | None = check_space(
                    db, ORDINARY, settings.queue.max_size, settings.listen.max_message_size
                )
            except SpoolFull as error:
                full, largest = str(error), error.left
    except SpoolFull as error:
        # There is no space even for the index of the log, without which nothing can be read.
        return None, Space(str(error))
    if largest is None or largest >= settings.listen.max_message_size:
        return found, Space(full, settings.listen.max_message_size)
    return found, Space(full, largest, is_limited=True)
