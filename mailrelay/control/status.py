"""Whether all is fine: what `mailrelay status` shows, and why.

    late     mail has waited longer than queue.delay_notice_after, or a notice could not be delivered yet
    failed   no daemon runs, there is no room for more mail, a relayhost waits for the person, or mail has failed or cannot
             be sent as it is

The JSON record has these keys:

    status      fine, late or failed
    serving     whether the daemon runs; pid is its process id, null if it is unknown
    pending     messages that wait; likewise held and failed (`mail.states.COUNTED_AS`); late: those of the pending ones that
                have waited too long; stranded: those of the held ones that cannot be sent as they are
    full        why there is no room for a message as large as the settings allow; "" if there is
    oldest      arrival of the oldest pending message (epoch seconds, or null)
    relayhosts  those that cannot be reached: name, since and next_dial (epoch seconds), setup (true: it waits for the
                person), text, and fix (the step that repairs it)
    untold      notices that could not be delivered yet: kind, backend, why
    directory   of the spool

Promises: text from outside is escaped in reasons and record (`mail.printable`).
"""

import enum
from pathlib import Path
from typing import NamedTuple, TypedDict

from mailrelay.config import Settings
from mailrelay.mail.overview import SpoolStatus
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import length
from mailrelay.mail.spool_errors import SpoolFull
from mailrelay.spool import listing, lock
from mailrelay.spool.database import opened_for_reading
from mailrelay.spool.space import check_space

_NOTHING = SpoolStatus(pending=0, oldest=None, late=0, held=0, stranded=0, failed=0, failing_notices=(), faults=())


class Level(enum.IntEnum):
    """How serious it is. The value is the exit status of `mailrelay status`."""

    FINE = 0
    LATE = 1
    FAILED = 2


# Not a dataclass, which takes five times as long to create: prompts and status bars run this often.
class Status(NamedTuple):
    """spool: its numbers and faults. full: why there is no room for more mail, "" if there is. pid: of the daemon, "" if it
    is unknown, None if none runs. reasons: why all is not fine, worst first, each in a few words."""

    directory: Path
    spool: SpoolStatus
    full: str
    pid: str | None
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
    pending: int
    late: int
    held: int
    stranded: int
    failed: int
    full: str
    oldest: int | None
    relayhosts: list[RelayhostRecord]
    untold: list[UntoldRecord]
    directory: str


def read_status(settings: Settings, now: float) -> Status:
    """The status at `now` (epoch seconds). Creates no spool. Raises SpoolError, OSError."""
    directory = settings.queue.directory
    pid = lock.holder(directory)
    spool, full = _read_spool(settings, now)
    why = reasons(spool, serving=pid is not None, full=bool(full), now=now)
    return Status(directory, spool, full, pid, why)


def reasons(spool: SpoolStatus, *, serving: bool, full: bool, now: float) -> list[tuple[Level, str]]:
    """Why all is not fine, worst first, each in a few words. Empty if all is fine.

    full: there is no room for more mail. now: epoch seconds.
    """
    found = []
    if not serving:
        found.append((Level.FAILED, "nobody serves"))
    if full:
        found.append((Level.FAILED, "no room"))
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
        "pending": spool.pending,
        "late": spool.late,
        "held": spool.held,
        "stranded": spool.stranded,
        "failed": spool.failed,
        "full": status.full,
        "oldest": None if spool.oldest is None else int(spool.oldest),
        "relayhosts": [
            {
                "name": fault.relayhost,
                "since": int(fault.since),
                "next_dial": int(fault.next_dial),
                "setup": fault.setup,
                "text": printable(fault.text),
                "fix": printable(fault.fix),
            }
            for fault in spool.faults
        ],
        "untold": [
            {"kind": kind, "backend": backend, "why": printable(why)} for kind, backend, why in spool.failing_notices
        ],
        "directory": str(status.directory),
    }


def _read_spool(settings: Settings, now: float) -> tuple[SpoolStatus, str]:
    """Numbers and faults from the spool, and why there is no room for more mail, "" if there is."""
    full = ""
    try:
        with opened_for_reading(settings.queue.directory) as db:
            found = listing.status(db, now - settings.queue.delay_notice_after)
            try:
                check_space(db, settings.listen.max_message_size, settings.queue.max_size)
            except SpoolFull as error:
                full = str(error)
    except FileNotFoundError:
        return _NOTHING, ""
    return found, full
