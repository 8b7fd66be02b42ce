"""Times in the spool, row by row: what a set clock moves, what only a wrong clock can have set, what is over.

Also the daemon's answer about itself, its lock and its trigger.
"""

import os
import socket
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from harness.messages import LIMIT, NOW, letter

from mailrelay.mail.send_time import MAX_WAIT
from mailrelay.mail.sending import Sending
from mailrelay.mail.there import RetryThere, There, Verdict
from mailrelay.spool import accepting, followed, liveness, lock, trigger
from mailrelay.spool.clock import REPORT_DELAY, ROUGHLY_RIGHT, cap_waits, clock_jumped
from mailrelay.spool.database import row, transaction
from mailrelay.spool.liveness import Answer, NoAnswer
from mailrelay.spool.notice_lifecycle import REMINDERS
from mailrelay.tracking.followed import Found

LONGEST = 1000.0
SINCE = NOW - 5000.0
"""From then on the old clock is known to have been the old clock."""


def message(db: apsw.Connection, **columns: object) -> int:
    """A message with these values in its row; its recipient has the same key."""
    with transaction(db):
        key = accepting.accept(db, letter(), LIMIT)
        for name, value in columns.items():
            db.execute(f"UPDATE message SET {name} = ? WHERE id = ?", (value, key))
    return key


def times(db: apsw.Connection, table: str, key: int, *columns: str) -> tuple[Any, ...]:
    return tuple(row(db, f"SELECT {', '.join(columns)} FROM {table} WHERE rowid = ?", (key,)))


MESSAGE = ("arrival", "next_attempt", "send_time", "scheduled", "retired")
EARLIER, OLD = NOW - 100.0, SINCE - 1.0


OF_MESSAGES = [
    # arrival, next_attempt, send_time, scheduled, retired, by_clock; which of the first five move
    ((EARLIER, EARLIER + 300, None, EARLIER, None, 0), "yy.y."),
    ((OLD, EARLIER + 300, None, EARLIER, None, 0), ".y.y."),
    ((EARLIER, EARLIER + 300, None, OLD, None, 0), "y...."),
    ((EARLIER, None, None, EARLIER, EARLIER, 0), "....y"),
    ((EARLIER, None, None, EARLIER, OLD, 0), "....."),
    ((EARLIER, NOW + 500, NOW + 500, EARLIER, None, 0), "yyyy."),
    ((EARLIER, NOW + 500, NOW + 500, EARLIER, None, 1), "y...."),
    ((EARLIER, NOW + 500, EARLIER, EARLIER, None, 0), "yyyy."),
    ((EARLIER, NOW + 500, EARLIER, EARLIER, None, 1), "yyyy."),
    ((EARLIER, EARLIER, EARLIER, EARLIER, None, 1), "yyyy."),
    ((SINCE, None, None, None, None, 0), "y...."),
]


@pytest.mark.parametrize("by", [50.0, -50.0])
def test_what_the_old_clock_has_written_of_a_message_moves_with_the_clock(db: apsw.Connection, by: float) -> None:
    keys = [message(db, **dict(zip((*MESSAGE, "by_clock"), before, strict=True))) for before, _ in OF_MESSAGES]
    clock_jumped(db, by, SINCE, NOW + by)
    for key, (before, moved) in zip(keys, OF_MESSAGES, strict=True):
        expected = tuple(
            value if value is None or moves == "." else value + by
            for value, moves in zip(before[:5], moved, strict=True)
        )
        assert times(db, "message", key, *MESSAGE) == expected, before


ARRIVALS = [
    (SINCE - 0.5, False),
    (SINCE, True),
    (NOW, True),
    (NOW + 0.5, False),
    (NOW + 100 - REPORT_DELAY, False),
    (NOW + 100, False),
]


def test_only_times_of_the_old_clock_move(db: apsw.Connection) -> None:
    keys = [message(db, arrival=arrival, next_attempt=None, scheduled=None) for arrival, _ in ARRIVALS]
    clock_jumped(db, 100.0, SINCE, NOW + 100.0)
    for key, (arrival, moves) in zip(keys, ARRIVALS, strict=True):
        assert times(db, "message", key, "arrival") == (arrival + 100.0 * moves,)


def test_what_the_new_clock_has_written_in_the_last_seconds_stays(db: apsw.Connection) -> None:
    """The clock was set back: both clocks have shown this time."""
    now = NOW - 100.0
    found = []
    for arrival in (now - REPORT_DELAY - 1, now - REPORT_DELAY, now, now + 1):
        key = message(db, arrival=arrival, next_attempt=None, scheduled=None)
        found.append((key, arrival))
    clock_jumped(db, -100.0, SINCE, now)
    moves = [times(db, "message", key, "arrival")[0] - arrival for key, arrival in found]
    assert moves == [-100.0, 0.0, 0.0, -100.0]


SEND_TIMES = [
    (NOW - 1, 1, False),
    (NOW, 1, False),
    (NOW + 1, 1, True),
    (NOW + 100, 1, True),
    (NOW + 101, 1, False),
    (NOW + 1, 0, False),
]


def test_a_time_that_the_clock_has_passed_over_is_now(
    db: apsw.Connection,
) -> None:
    keys = [
        message(db, next_attempt=send_time, send_time=send_time, scheduled=OLD, by_clock=by_clock)
        for send_time, by_clock, _ in SEND_TIMES
    ]
    clock_jumped(db, 100.0, SINCE, NOW + 100.0)
    for key, (send_time, _, is_due) in zip(keys, SEND_TIMES, strict=True):
        found = times(db, "message", key, "next_attempt", "send_time", "scheduled")
        assert found == ((NOW + 100.0,) * 3 if is_due else (send_time, send_time, OLD))


def other_rows(db: apsw.Connection, at: float) -> int:
    """A row in each other table, all of its times `at`, or 30 seconds later where something is due. The message's key."""
    key = message(db)
    later = at + 30
    with transaction(db):
        db.execute("DELETE FROM relayhost")
        db.execute(
            "INSERT INTO relayhost (name, failures, since, next_dial, cause, text, scheduled, fixed)"
            " VALUES ('default', 1, ?1, ?2, 'unreachable', 'x', ?1, ?1)",
            (at, later),
        )
        recipient = row(db, "SELECT id FROM recipient WHERE message = ?", (key,))[0]
        db.execute(
            "INSERT INTO followed (recipient, relayhost, accepted, changed) VALUES (?, 'default', ?, ?)",
            (recipient, at, at),
        )
        for number, kind, about, reminder, over in (
            (1, "delayed", None, later, None),
            (2, "failed", key, None, None),
            (3, "delayed", None, None, at),
        ):
            db.execute(
                "INSERT INTO notice (id, kind, relayhost, created, since, reminder, over, cause, message)"
                " VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6, 'relayhost', ?7)",
                (number, kind, f"r{number}", at, reminder, over, about),
            )
        for number, backend, delivered in ((1, "desktop", None), (2, "mailbox", at)):
            db.execute(
                "INSERT INTO notice_backend (notice, backend, next_try, scheduled, delivered) VALUES (?, ?, ?, ?, ?)",
                (number, backend, later, at, delivered),
            )
    return key


COLUMNS = {
    "SELECT since, next_dial, scheduled, fixed FROM relayhost": "yyyy",
    "SELECT accepted, changed FROM followed": "y.",
    "SELECT created, since, reminder FROM notice WHERE id = 1": "yyy",
    "SELECT created, since, over FROM notice WHERE id = 3": "yyy",
    "SELECT created, since FROM notice WHERE id = 2": "..",
    "SELECT next_try, scheduled FROM notice_backend WHERE delivered IS NULL": "yy",
    "SELECT next_try, scheduled FROM notice_backend WHERE delivered IS NOT NULL": "..",
}


@pytest.mark.parametrize("at", [EARLIER, OLD])
def test_times_of_relayhosts_notices_and_followed_recipients_move_too(db: apsw.Connection, at: float) -> None:
    other_rows(db, at)
    before = {sql: row(db, sql) for sql in COLUMNS}
    clock_jumped(db, 40.0, SINCE, NOW + 40.0)
    for sql, moved in COLUMNS.items():
        is_moved = "".join(
            "y" if new - old == 40.0 else "." for old, new in zip(before[sql], row(db, sql), strict=True)
        )
        assert is_moved == (moved if at == EARLIER else "." * len(moved)), sql


WAITS = [
    (NOW + 10, NOW - 10, False),
    (NOW + 10, NOW, False),
    (NOW + 10, NOW + 1, True),
    (NOW, NOW + 1, False),
    (NOW - 10, NOW + 1, False),
    (NOW + LONGEST - 10, NOW - 10, False),
    (NOW + LONGEST - 9, NOW - 10, True),
    (NOW + LONGEST, None, False),
    (NOW + LONGEST + 1, None, True),
]


def test_a_wait_that_only_a_wrong_clock_can_have_set_is_over(
    db: apsw.Connection,
) -> None:
    keys = [message(db, next_attempt=next_attempt, scheduled=scheduled) for next_attempt, scheduled, _ in WAITS]
    assert cap_waits(db, LONGEST, NOW) == sum(is_wrong for *_, is_wrong in WAITS)
    for key, (next_attempt, scheduled, is_wrong) in zip(keys, WAITS, strict=True):
        expected = (NOW, NOW) if is_wrong else (next_attempt, scheduled)
        assert times(db, "message", key, "next_attempt", "scheduled") == expected


GIVEN = [
    # A send time is further away than any wait of a schedule.
    (NOW + 5 * LONGEST, NOW, 0, (NOW + 5 * LONGEST, NOW, 0), 0),
    (NOW + MAX_WAIT + REPORT_DELAY, NOW, 0, (NOW + MAX_WAIT + REPORT_DELAY, NOW, 0), 0),
    (NOW + MAX_WAIT + REPORT_DELAY + 1, NOW, 1, (NOW, NOW, 0), 1),
    (NOW + MAX_WAIT + REPORT_DELAY + 1, None, 0, (NOW, NOW, 0), 1),
    (NOW + 700, NOW + 100, 0, (NOW + 600, NOW, 0), 0),
    (NOW + 700, NOW + 100, 1, (NOW + 700, NOW + 100, 1), 0),
    (NOW + 700, NOW + ROUGHLY_RIGHT, 1, (NOW + 700, NOW + ROUGHLY_RIGHT, 1), 0),
    (NOW + ROUGHLY_RIGHT + 101, NOW + ROUGHLY_RIGHT + 1, 1, (NOW + 100, NOW, 1), 0),
    (NOW - 5, NOW + 100, 0, (NOW - 5, NOW + 100, 0), 0),
]


def test_a_send_time_that_a_wrong_clock_has_set_is_the_wait_that_was_given(
    db: apsw.Connection,
) -> None:
    keys = [
        message(db, next_attempt=send_time, send_time=send_time, scheduled=scheduled, by_clock=by_clock)
        for send_time, scheduled, by_clock, *_ in GIVEN
    ]
    assert cap_waits(db, LONGEST, NOW) == sum(moved for *_, moved in GIVEN)
    for key, (*_, expected, _) in zip(keys, GIVEN, strict=True):
        found = times(db, "message", key, "next_attempt", "send_time", "scheduled", "by_clock")
        assert found == (expected[0], *expected)


def test_an_attempt_before_the_send_time_is_damage(db: apsw.Connection) -> None:
    early = message(db, next_attempt=NOW, send_time=NOW + 1)
    late = message(db, next_attempt=NOW + 2, send_time=NOW + 1, scheduled=NOW)
    cap_waits(db, LONGEST, NOW)
    assert [times(db, "message", key, "send_time") for key in (early, late)] == [(None,), (NOW + 1,)]


@pytest.mark.parametrize("ahead", [-100.0, 100.0])
def test_times_from_which_something_is_counted_are_not_in_the_future(db: apsw.Connection, ahead: float) -> None:
    waiting = message(db, arrival=NOW + ahead, next_attempt=NOW)
    done = message(db, arrival=NOW + ahead, next_attempt=None, retired=NOW + ahead)
    other_rows(db, NOW + ahead)
    before = {sql: row(db, sql) for sql in COLUMNS}
    cap_waits(db, LONGEST, NOW)
    capped = NOW + min(ahead, 0.0)
    assert times(db, "message", waiting, "arrival") == (capped,)
    assert times(db, "message", done, "arrival", "retired") == (NOW + ahead, capped)
    for sql, found in before.items():
        expected = tuple(
            min(value, NOW) if moves == "y" else value for value, moves in zip(found, COLUMNS[sql], strict=True)
        )
        # `since` of a notice is the arrival of a message, and is shown only.
        if "notice WHERE" in sql:
            expected = (expected[0], found[1], *expected[2:])
        if ahead < 0:
            expected = found
        assert row(db, sql) == expected, sql


REMINDED = [
    (NOW - 5, NOW + REMINDERS[-1] - 5, False),
    (NOW - 5, NOW + REMINDERS[-1] - 4, True),
    (NOW + 1, NOW + 2, True),
    (NOW, NOW + 1, False),
    (NOW + 5, NOW, False),
]


def test_a_reminder_that_is_too_far_ahead_is_due(
    db: apsw.Connection,
) -> None:
    for number, (created, reminder, _) in enumerate(REMINDED):
        db.execute(
            "INSERT INTO notice (id, kind, relayhost, created, since, reminder, cause) VALUES (?, 'setup', ?, ?, 0, ?, '')",
            (number, f"r{number}", created, reminder),
        )
    cap_waits(db, LONGEST, NOW)
    for number, (_, reminder, is_wrong) in enumerate(REMINDED):
        assert times(db, "notice", number, "reminder") == (NOW if is_wrong else reminder,)


# What is followed.


def sent(db: apsw.Connection, accepted: float = NOW, relayhost: str = "default") -> int:
    """The key of a recipient that is followed."""
    key = message(db, relayhost=relayhost)
    (recipient,) = row(db, "SELECT id FROM recipient WHERE message = ?", (key,))
    with transaction(db):
        followed.begin(db, key, recipient, accepted)
    return int(recipient)


@pytest.mark.parametrize("state", ["waiting", "deferred", "delivered"])
@pytest.mark.parametrize("source", ["", "queue"])
def test_what_is_followed_for_too_long_is_over(db: apsw.Connection, state: str, source: str) -> None:
    old, older, young = (sent(db, NOW - followed.LONGEST - age) for age in (1, 2, 0))
    db.execute("UPDATE followed SET state = ?, source = ?", (state, source))
    followed.end_old(db, NOW, 1)
    assert row(db, "SELECT count(*) FROM followed WHERE over IS NOT NULL") == (1,)
    followed.end_old(db, NOW, 10)
    ended = ("not followed", followed.NOBODY_ASKED) if (state, source) == ("waiting", "") else (state, b"")
    for recipient in (old, older):
        assert times(db, "followed", recipient, "over", "state", "words") == (NOW, *ended)
    assert times(db, "followed", young, "over", "state") == (None, state)


def test_a_wish_to_try_again_is_kept_until_the_server_was_told(db: apsw.Connection) -> None:
    recipient, other = sent(db), sent(db, relayhost="other")
    keys = [row(db, "SELECT message FROM recipient WHERE id = ?", (one,))[0] for one in (recipient, other)]
    assert not followed.is_retry_wanted(db, "default")
    assert followed.retry_there(db, keys[0]) is None
    assert followed.want_retry(db, keys[0], NOW)
    assert (followed.is_retry_wanted(db, "default"), followed.is_retry_wanted(db, "other")) == (True, False)
    assert followed.retry_there(db, keys[0]) == RetryThere(True, "")
    assert [one.is_retry_wanted for one in followed.followed(db, "default")] == [True]
    followed.retry_told(db, keys, "told")
    assert not followed.is_retry_wanted(db, "default")
    assert [followed.retry_there(db, key) for key in keys] == [RetryThere(False, "told"), None]
    assert followed.want_retry(db, keys[0], NOW + 1)
    assert followed.retry_there(db, keys[0]) == RetryThere(True, "")
    for state, over in (("delivered", None), ("bounced", None), ("waiting", NOW)):
        db.execute("UPDATE followed SET state = ?, over = ?", (state, over))
        assert not followed.want_retry(db, keys[0], NOW + 2)
    assert not followed.is_retry_wanted(db, "default")


@pytest.mark.parametrize("kept", [False, True])
def test_a_verdict_is_written_once_and_a_bounce_stays(db: apsw.Connection, kept: bool) -> None:
    recipient = sent(db)
    backends: list[object] = []

    def found(verdict: Verdict, now: float, *, is_over: bool = False, is_blind: bool = False) -> bool:
        with transaction(db):
            one = Found(recipient, verdict, is_over, is_blind)
            return followed.found(db, [one], lambda *of: backends.append(of) or (), now)

    deferred = Verdict(There.DEFERRED, words=b"x" * 2000, by=b"mx", since=NOW - 5)
    assert found(deferred, NOW + 1)
    columns = ("state", "source", "length(words)", "said_by", "since", "changed", "over", "is_blind")
    expected = ("deferred", "", 900, b"mx", NOW - 5, NOW + 1, None, 0)
    assert times(db, "followed", recipient, *columns) == expected
    assert not found(deferred, NOW + 2)
    assert times(db, "followed", recipient, *columns) == expected
    assert not found(deferred._replace(by=b"my"), NOW + 3, is_blind=True)
    assert times(db, "followed", recipient, "said_by", "changed", "is_blind") == (b"my", NOW + 1, 1)
    if kept:
        assert not found(Verdict(There.BOUNCED, words=b"no"), NOW + 4, is_over=True)
        assert len(backends) == 1
        assert not found(Verdict(There.DELIVERED), NOW + 5)
        assert times(db, "followed", recipient, "state", "words", "changed", "over") == (
            "bounced",
            b"no",
            NOW + 4,
            NOW + 4,
        )
        (key,) = row(db, "SELECT message FROM recipient WHERE id = ?", (recipient,))
        assert followed.bounced_there(db, key) == [recipient]
        assert followed.deal_with(db, key, NOW + 6, "new") == 1
        assert followed.deal_with(db, key, NOW + 7) == 0
        assert times(db, "followed", recipient, "dealt_with", "over", "successor") == (NOW + 6, NOW + 4, "new")
        assert not found(Verdict(There.BOUNCED, words=b"other"), NOW + 8)
        assert times(db, "followed", recipient, "words") == (b"no",)
    else:
        found(Verdict(There.DELIVERED), NOW + 4, is_over=True)
        assert times(db, "followed", recipient, "over", "changed") == (NOW + 4, NOW + 4)
        found(Verdict(There.DELIVERED), NOW + 5, is_over=True)
        assert times(db, "followed", recipient, "over") == (NOW + 4,)


# The daemon.

FULL = Answer(
    4711,
    "full",
    "failed",
    (("home", "no"), ("office", "no")),
    3,
    "bad",
    ("home",),
    (Sending("q", "home", 1, 2, 3.5, None), Sending("r", "home", 1, 2, 3.5, 0.5)),
)


def serve(directory: Path, *answers: bytes) -> threading.Thread:
    listening = socket.socket(fileno=liveness.listen(directory))
    listening.setblocking(True)

    def run() -> None:
        with closing(listening):
            for answer in answers:
                client, _ = listening.accept()
                with closing(client):
                    client.sendall(answer)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("answer", [FULL, Answer(1, "", ""), FULL._replace(connected=None, full="gr\u00fc\udcff")])
def test_the_answer_of_a_daemon_says_its_state(tmp_path: Path, answer: Answer) -> None:
    encoded = liveness.line(answer)
    assert encoded.endswith(b"}\n")
    assert ("grü".encode() in encoded) is ("grü" in answer.full)
    thread = serve(tmp_path, encoded)
    found = liveness.ask(tmp_path, 30.0)
    thread.join()
    assert found == (answer._replace(full="gr\u00fc?") if "grü" in answer.full else answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"x",
        b"[]",
        b'{"pid":"1","full":"","failure":""}',
        b'{"pid":1,"full":1,"failure":""}',
        b'{"pid":1,"full":""}',
        *(
            b'{"pid":1,"full":"","failure":"",%s}' % more
            for more in (b'"errors":1', b'"reloads":""', b'"refusal":1', b'"errors":[["a"]]', b'"errors":[["a",1]]')
        ),
        b"[" * 100_000,
        b'{"pid":1,"full":"","failure":"","x":"' + b"x" * 20_000 + b'"}',
    ],
)
def test_what_is_no_answer_is_none(tmp_path: Path, answer: bytes) -> None:
    thread = serve(tmp_path, answer)
    assert liveness.ask(tmp_path, 30.0) is None
    thread.join()


def test_an_answer_may_lack_what_an_older_daemon_does_not_say(tmp_path: Path) -> None:
    answers = [b'{"pid":1,"full":"","failure":""%s}' % more for more in (b"", b',"connected":5', b',"connected":[5]')]
    thread = serve(tmp_path, *answers)
    found = [liveness.ask(tmp_path, 30.0) for _ in answers]
    thread.join()
    assert found == [Answer(1, "", ""), Answer(1, "", ""), Answer(1, "", "", connected=("5",))]


def test_no_daemon_gives_no_answer_and_one_that_hangs_is_named(tmp_path: Path) -> None:
    assert liveness.ask(tmp_path, 30.0) is None
    path = tmp_path / liveness.FILE
    path.write_text("")
    assert liveness.ask(tmp_path, 30.0) is None
    # The file of an earlier daemon is replaced.
    handle = liveness.listen(tmp_path)
    assert not os.get_blocking(handle)
    with pytest.raises(NoAnswer):
        liveness.ask(tmp_path, 0.0)
    os.close(handle)
    assert liveness.ask(tmp_path, 30.0) is None


def test_a_long_path_is_shortened_for_the_kernel(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100)
    directory.mkdir()
    thread = serve(directory, liveness.line(FULL))
    assert liveness.ask(directory, 30.0) == FULL
    thread.join()
    for length, is_short in ((100, True), (101, False)):
        path = Path("/" + "x" * (length - 1))
        with liveness.address_of(path) as address:
            assert (address == str(path)) is is_short


def test_the_lock_has_one_holder_and_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(lock.time, "sleep", slept.append)
    assert lock.holder(tmp_path) is None
    assert lock.holder(tmp_path / "none") is None
    (tmp_path / "plain").write_text("")
    assert lock.holder(tmp_path / "plain") is None
    (tmp_path / lock.FILE).write_text("12345678901234567890")
    with lock.lock(tmp_path):
        assert lock.holder(tmp_path) == str(os.getpid())
        assert (tmp_path / lock.FILE).read_text() == f"{os.getpid()}\n"
        with (
            pytest.raises(lock.Held, match=rf"\(process {os.getpid()}\); stop that one first") as held,
            lock.lock(tmp_path),
        ):
            pass
        assert held.value.pid == str(os.getpid())
        assert len(slept) == 5
        (tmp_path / lock.FILE).write_text("")
        with pytest.raises(lock.Held, match=r"\(process unknown\)"), lock.lock(tmp_path):
            pass
    assert ((tmp_path / lock.FILE).read_text(), lock.holder(tmp_path)) == ("", None)
    (tmp_path / lock.FILE).unlink()
    with lock.lock(tmp_path):
        assert (tmp_path / lock.FILE).stat().st_mode & 0o777 == 0o600


def test_the_trigger_wakes_whoever_reads_it(tmp_path: Path) -> None:
    assert (trigger.fire(tmp_path), trigger.is_listened_to(tmp_path)) == (False, False)
    (tmp_path / trigger.FILE).write_text("plain")
    assert (trigger.fire(tmp_path), trigger.is_listened_to(tmp_path)) == (False, False)
    handle = trigger.listen(tmp_path)
    try:
        assert (trigger.is_at(tmp_path, handle), trigger.is_listened_to(tmp_path)) == (True, True)
        assert trigger.drain(handle) == b""
        assert trigger.fire(tmp_path)
        assert trigger.fire(tmp_path, trigger.NETWORK)
        assert trigger.drain(handle) == b"\nn"
        for _ in range(5000):
            assert trigger.fire(tmp_path)
        assert len(trigger.drain(handle)) == 5000
        again = trigger.listen(tmp_path)
        assert trigger.is_at(tmp_path, again)
        os.close(again)
        (tmp_path / trigger.FILE).unlink()
        assert not trigger.is_at(tmp_path, handle)
        os.mkfifo(tmp_path / trigger.FILE)
        assert not trigger.is_at(tmp_path, handle)
        assert not trigger.fire(tmp_path)
    finally:
        os.close(handle)
