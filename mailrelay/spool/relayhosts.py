"""The state of the relayhosts: failures in a row, until when not to dial, and whether they can record conversations.

A relayhost without a row, or with `failures` = 0, has no known fault. No attempt of any message is counted for a fault.
"""

from collections.abc import Sequence

import apsw

from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome
from mailrelay.mail.recorded import Recording, RecordingState
from mailrelay.ports import RelayhostFailure
from mailrelay.spool import fallback, notice_lifecycle
from mailrelay.spool.database import rows


def relayhost_failed(
    db: apsw.Connection,
    name: str,
    outcome: Outcome,
    next_dial: float,
    setup: bool,
    backends: Sequence[Backend],
    now: float,
) -> bool:
    """Writes that a relayhost cannot be used until `next_dial`; for a setup fault, opens a notice of its cause.

    Other setup faults of the relayhost are over then. Returns whether a notice became pending.
    """
    cause, text = outcome.cause.value, outcome.description.decode("utf-8", "replace")
    db.execute(
        "INSERT INTO relayhost (name, failures, since, next_dial, setup, cause, text, fix, scheduled)"
        " VALUES (?1,1,?2,?3,?4,?5,?6,?7,?2)"
        " ON CONFLICT (name) DO UPDATE SET failures = failures + 1, since = coalesce(since, excluded.since),"
        " next_dial = excluded.next_dial, setup = excluded.setup, cause = excluded.cause, text = excluded.text,"
        " fix = excluded.fix, scheduled = excluded.scheduled",
        (name, now, next_dial, int(setup), cause, text, outcome.fix),
    )
    fallback.give_all_back(db, name)
    if not setup:
        return False
    notice = notice_lifecycle.OpenNotice(Kind.SETUP, name, cause, text, outcome.fix)
    is_pending = notice_lifecycle.open_notice(db, notice, backends, now)
    others = [other for other in notice_lifecycle.open_causes(db, name, Kind.SETUP) if other != cause]
    notice_lifecycle.close_notices(db, name, Kind.SETUP, others, backends, now)
    return is_pending


def relayhost_up(db: apsw.Connection, name: str, backends: Sequence[Backend], now: float) -> bool:
    """Writes that a relayhost works; its setup faults are over. Returns whether a notice of that became pending."""
    db.execute(
        "UPDATE relayhost SET failures = 0, since = NULL, next_dial = NULL, setup = 0, cause = '', text = '',"
        " fix = '', stand_in = '', fixed = iif(setup, ?, fixed) WHERE name = ?",
        (now, name),
    )
    causes = notice_lifecycle.open_causes(db, name, Kind.SETUP)
    return notice_lifecycle.close_notices(db, name, Kind.SETUP, causes, backends, now)


def relayhost_failure(db: apsw.Connection, name: str) -> RelayhostFailure | None:
    """The known fault of a relayhost; None if there is none."""
    found = rows(db, "SELECT failures, next_dial, cause, text FROM relayhost WHERE name = ? AND failures > 0", (name,))
    return next(
        (RelayhostFailure(failures, next_dial, Cause(cause), text) for failures, next_dial, cause, text in found), None
    )


def note_stand_in(db: apsw.Connection, name: str, stand_in: str) -> None:
    """Writes which fallback sends the mail of a relayhost during its fault; "" for none."""
    db.execute(
        "INSERT INTO relayhost (name, failures, stand_in) VALUES (?,0,?)"
        " ON CONFLICT (name) DO UPDATE SET stand_in = excluded.stand_in",
        (name, stand_in),
    )


def recording(db: apsw.Connection, name: str) -> Recording:
    """What is known of the records of a relayhost."""
    found = rows(db, "SELECT recording, next_trial FROM relayhost WHERE name = ?", (name,))
    return next((Recording(RecordingState(state), next_trial) for state, next_trial in found), Recording())


def note_recording(db: apsw.Connection, name: str, known: Recording) -> None:
    """Writes what is known of the records of a relayhost."""
    db.execute(
        "INSERT INTO relayhost (name, failures, recording, next_trial) VALUES (?,0,?,?)"
        " ON CONFLICT (name) DO UPDATE SET recording = excluded.recording, next_trial = excluded.next_trial",
        (name, known.state.value, known.next_trial),
    )
