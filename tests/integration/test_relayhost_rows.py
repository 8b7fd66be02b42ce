"""What the spool writes about relayhosts, and of messages that one has in the place of another one."""

import apsw
import pytest
from harness.messages import LIMIT, NOW, letter

from mailrelay.mail.notice import Backend
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.recorded import Recording, RecordingState
from mailrelay.ports import RelayhostFailure
from mailrelay.spool import accepting, attempts, fallback, relayhosts
from mailrelay.spool.database import row, rows, transaction
from mailrelay.spool.stored import load_message

AWAY = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="no network")
NO_KEY = Outcome(Stage.AUTH, cause=Cause.AUTH_REFUSED, text="the key was refused", fix="install the key")
NAMES = ("first", "second")


def fail(db: apsw.Connection, name: str, now: float, outcome: Outcome = AWAY, *, setup: bool = False) -> None:
    relayhosts.relayhost_failed(db, name, outcome, now + 60, setup, (Backend.MAILBOX,), now)


def columns(db: apsw.Connection, name: str, *names: str) -> tuple[object, ...]:
    return tuple(row(db, f"SELECT {', '.join(names)} FROM relayhost WHERE name = ?", (name,)))


def message(db: apsw.Connection, relayhost: str = "first", **values: object) -> int:
    with transaction(db):
        key = accepting.accept(db, letter(relayhost=relayhost), LIMIT)
        for name, value in values.items():
            db.execute(f"UPDATE message SET {name} = ? WHERE id = ?", (value, key))
    return key


def at(db: apsw.Connection, key: int) -> tuple[str, str]:
    """Where a message is, and in whose place. It is not damaged."""
    found = load_message(db, key)
    assert not found.envelope.is_damaged
    return found.relayhost, found.fallback_for


def test_a_fault_keeps_the_time_of_its_first_failure_and_the_words_of_its_last(db: apsw.Connection) -> None:
    for name in NAMES:
        fail(db, name, NOW, NO_KEY, setup=True)
    fail(db, "first", NOW + 10)
    assert columns(db, "first", "failures", "since", "next_dial", "scheduled", "setup", "cause", "text", "fix") == (
        *(2, NOW, NOW + 70, NOW + 10, 0),
        *(Cause.UNREACHABLE, "no network", ""),
    )
    assert columns(db, "second", "failures", "since", "next_dial", "setup", "fix") == (1, NOW, NOW + 60, 1, NO_KEY.fix)
    assert relayhosts.relayhost_failure(db, "first") == RelayhostFailure(2, NOW + 70, Cause.UNREACHABLE, "no network")


@pytest.mark.parametrize("setup", [False, True])
def test_the_end_of_a_fault_is_noted_for_its_relayhost_and_the_time_only_of_a_setup_fault(
    db: apsw.Connection, setup: bool
) -> None:
    for name in NAMES:
        fail(db, name, NOW, NO_KEY, setup=setup)
        relayhosts.note_stand_in(db, name, "third")
    relayhosts.relayhost_up(db, "first", (), NOW + 5)
    names = "failures", "since", "next_dial", "setup", "cause", "text", "fix", "stand_in", "fixed"
    assert columns(db, "first", *names) == (0, None, None, 0, "", "", "", "", NOW + 5 if setup else None)
    assert columns(db, "second", "failures", "stand_in", "fixed") == (1, "third", None)
    assert relayhosts.relayhost_failure(db, "first") is None
    # A later end without a setup fault leaves the time of the last one.
    fail(db, "first", NOW + 6)
    relayhosts.relayhost_up(db, "first", (), NOW + 7)
    assert columns(db, "first", "fixed") == (NOW + 5 if setup else None,)


def test_notes_about_a_relayhost_change_nothing_else_of_it_and_need_no_fault(db: apsw.Connection) -> None:
    possible, none = Recording(RecordingState.POSSIBLE, NOW + 1), Recording()
    fail(db, "first", NOW)
    before = columns(db, "first", "failures", "since", "next_dial", "cause", "text")
    for name in NAMES:
        assert relayhosts.recording(db, name) == none
        relayhosts.note_recording(db, name, Recording(RecordingState.IMPOSSIBLE, NOW))
        relayhosts.note_stand_in(db, name, "third")
    relayhosts.note_recording(db, "first", possible)
    relayhosts.note_stand_in(db, "second", "")
    assert columns(db, "first", "failures", "since", "next_dial", "cause", "text") == before
    assert [relayhosts.recording(db, name) for name in NAMES] == [possible, Recording(RecordingState.IMPOSSIBLE, NOW)]
    assert [columns(db, name, "stand_in") for name in NAMES] == [("third",), ("",)]
    assert relayhosts.relayhost_failure(db, "second") is None


def test_a_fallback_that_fails_gives_back_all_that_is_free_and_waits(db: apsw.Connection) -> None:
    back, other, sent, own = (message(db, name) for name in ("first", "first", "first", "second"))
    with transaction(db):
        for key, relayhost in ((back, "second"), (other, "third"), (sent, "second")):
            attempts.take(db, relayhost, (key,), 1, "node", NOW, others=("first",))
            db.execute("UPDATE attempt SET closed = ? WHERE message = ?", (NOW, key))
            if key != sent:
                db.execute("UPDATE message SET next_attempt = ? WHERE id = ?", (NOW, key))
        assert at(db, back) == ("second", "first")
        fail(db, "second", NOW)
    assert [at(db, key) for key in (back, other, sent, own)] == [
        ("first", ""),
        ("third", "first"),
        ("second", "first"),
        ("second", ""),
    ]
    with transaction(db):
        fallback.give_back(db, other)
    assert at(db, other) == ("first", "")


def test_mail_of_relayhosts_that_are_gone_goes_home_or_where_its_sender_has_one_now(db: apsw.Connection) -> None:
    known, home, chosen, over = message(db), message(db, "gone"), message(db, "gone"), message(db, "gone", retired=NOW)
    db.execute("UPDATE message SET fallback_for = 'second' WHERE id = ?", (home,))
    db.execute("UPDATE message SET fallback_for = 'gone' WHERE id = ?", (known,))
    for number, key in enumerate((home, known), 1):
        db.execute(
            "INSERT INTO notice (id, kind, relayhost, message, created) VALUES (?, 'failed', 'x', ?, 0)", (number, key)
        )
    with transaction(db):
        asked: list[bytes] = []
        assert attempts.reroute(db, NAMES, lambda sender: asked.append(sender) or "first", NOW) == (2, 0)
    assert asked == [b"a@example.org"]
    assert [at(db, key) for key in (known, home, chosen)] == [("first", ""), ("second", ""), ("first", "")]
    # History stays as it was.
    assert at(db, over)[0] == "gone"
    assert rows(db, "SELECT relayhost FROM notice ORDER BY id") == [("second",), ("x",)]


def test_mail_without_a_relayhost_stays_and_the_rest_moves(db: apsw.Connection) -> None:
    keys = [message(db, "gone"), message(db, "gone"), message(db)]
    db.execute("UPDATE message SET fallback_for = 'second' WHERE id IN (?, ?)", (keys[1], keys[2]))
    with transaction(db):
        assert attempts.reroute(db, NAMES, lambda _sender: None, NOW) == (1, 1)
    assert [at(db, key) for key in keys] == [("gone", ""), ("second", ""), ("first", "second")]


def test_the_faults_of_relayhosts_that_are_gone_are_over_and_no_fallback_sends(db: apsw.Connection) -> None:
    for name in ("first", "gone"):
        fail(db, name, NOW, NO_KEY, setup=True)
        relayhosts.note_stand_in(db, name, "second")
    with transaction(db):
        assert attempts.reroute(db, NAMES, lambda _sender: None, NOW + 5) == (0, 0)
    assert columns(db, "first", "failures", "stand_in") == (1, "")
    assert columns(db, "gone", "failures", "stand_in") == (0, "")
    assert rows(db, "SELECT relayhost, over FROM notice ORDER BY relayhost") == [("first", None), ("gone", NOW + 5)]
