"""How things stand, for programs: the object of `mailrelay status --json`.

    status      fine, late or failed
    serving     true or false; pid is the process that serves, or null where it is not known
    pending     messages that wait, and so held and failed; stranded: those of the held that cannot be sent as they are
    full        why there is no room for a message as large as the settings allow; "" if there is
    oldest      when the first of the pending came (epoch seconds, or null)
    relayhosts  those that cannot be reached: name, since and next_dial (epoch seconds), setup (true: it waits for the
                person), text, and fix (the step that fixes it)
    untold      notices that could not be told yet: kind, backend, why
    directory   of the spool

Promises: whatever is from outside comes out escaped (`mail.printable`).
"""

import json

from mailrelay.config import Settings
from mailrelay.mail.overview import SpoolStatus
from mailrelay.mail.printable import printable


def line(settings: Settings, stands: SpoolStatus, full: str, pid: str | None, status: str) -> str:
    """What JSON says. full: why there is no room, "" if there is. pid: of the process that serves, None if nobody does."""
    return json.dumps(_record(settings, stands, full, pid, status))


def _record(settings: Settings, stands: SpoolStatus, full: str, pid: str | None, status: str) -> dict[str, object]:
    return {
        "status": status,
        "serving": pid is not None,
        "pid": int(pid) if pid and pid.isdecimal() else None,
        "pending": stands.pending,
        "held": stands.held,
        "stranded": stands.stranded,
        "failed": stands.failed,
        "full": full,
        "oldest": None if stands.oldest is None else int(stands.oldest),
        "relayhosts": [
            {
                "name": trouble.relayhost,
                "since": int(trouble.since),
                "next_dial": int(trouble.next_dial),
                "setup": trouble.setup,
                "text": printable(trouble.text),
                "fix": printable(trouble.fix),
            }
            for trouble in stands.faults
        ],
        "untold": [
            {"kind": kind, "backend": backend, "why": printable(why)} for kind, backend, why in stands.failing_notices
        ],
        "directory": str(settings.queue.directory),
    }
