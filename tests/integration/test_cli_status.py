"""`mailrelay status`: its exit status is what monitoring sees, its screen what a person sees."""

import json
import os
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from harness.person import AWAY, BOUNCED, CLOSED, DEFERRED, SENT, UNREADABLE, Person

from mailrelay import config
from mailrelay.control.status import Level, Status, read_status, reasons, status_record
from mailrelay.mail.overview import RelayhostFault, SpoolStatus
from mailrelay.mail.quantity import size
from mailrelay.mail.spool_errors import SpoolFull
from mailrelay.spool import liveness, lock
from mailrelay.spool.database import FILE, VERSION, connect, transaction
from mailrelay.spool.space import ORDINARY


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def served(person: Person) -> tuple[int, dict[str, Any], str]:
    """What status says while a daemon serves: the exit status, the JSON, the screen."""
    person.spool.mkdir(mode=0o700, exist_ok=True)
    with lock.lock(person.spool):
        as_json, screen = person.run("status", "--json"), person.run("status")
    assert as_json.returncode == screen.returncode
    return screen.returncode, json.loads(as_json.stdout), screen.stdout


def test_all_is_fine_while_somebody_serves_and_nothing_waits_too_long(person: Person) -> None:
    person.put("aaaa000001", age=60)
    person.put("aaaa000002", age=30)
    assert person.run("queue", "hold", "aaaa000002").returncode == 0
    status, record, screen = served(person)
    assert status == 0
    assert screen.splitlines()[:4] == [
        "fine",
        f"serving  process {os.getpid()}",
        "pending  1, the oldest for 1 min",
        "held     1",
    ]
    oldest = record.pop("oldest")
    assert isinstance(oldest, int)
    assert 55 < time.time() - oldest < 100
    assert record == {
        "status": "fine",
        "asleep": False,
        "serving": True,
        "pid": os.getpid(),
        "answers": None,
        "pending": 1,
        "scheduled": 0,
        "late": 0,
        "held": 1,
        "stranded": 0,
        "failed": 0,
        "bounced_there": 0,
        "deferred_there": 0,
        "full": "",
        "room": 100_000,
        "failure": "",
        "relayhosts": [],
        "errors": [],
        "untold": [],
        "directory": str(person.spool),
    }


def test_nobody_serving_is_a_failure_even_with_an_empty_queue(person: Person) -> None:
    done = person.run("status")
    assert done.returncode == 2
    assert "serving  nobody: start `mailrelay serve`" in done.stdout
    assert json.loads(person.run("status", "--json").stdout)["serving"] is False


def test_mail_that_waits_longer_than_delay_notice_after_is_late(person: Person) -> None:
    person.put("aaaa000001", age=2000)
    person.attempt(DEFERRED)
    assert (served(person)[0], served(person)[1]["status"]) == (1, "late")


def test_failed_mail_is_a_failure_until_it_is_dropped(person: Person) -> None:
    person.put("aaaa000001")
    person.attempt(BOUNCED)
    status, record, screen = served(person)
    assert (status, record["status"], record["failed"]) == (2, "failed", 1)
    assert "failed   1; see `mailrelay queue`" in screen
    person.run("queue", "drop", "aaaa000001")
    assert served(person)[0] == 0


def test_mail_that_cannot_be_sent_as_it_is_is_a_failure_until_the_person_has_dealt_with_it(person: Person) -> None:
    person.put("aaaa000001")
    person.attempt(UNREADABLE)
    status, record, screen = served(person)
    assert (status, record["held"], record["stranded"]) == (2, 1, 1)
    assert "held     1, 1 cannot be sent as it is; see `mailrelay queue`" in screen
    assert brief(person) == (2, "✉ 1 cannot be sent\n")
    person.run("queue", "release", "aaaa000001")
    assert served(person)[0] == 0
    person.run("queue", "hold", "aaaa000001")
    status, record, _ = served(person)
    assert (status, record["held"], record["stranded"]) == (0, 1, 0)


def test_a_spool_that_has_no_room_for_an_ordinary_message_is_a_failure_and_says_why(person: Person) -> None:
    person.put("aaaa000001")
    person.config.write_text(person.config.read_text() + 'max_size = "150kB"\n')
    status, record, screen = served(person)
    assert status == 2
    assert "queue.max_size" in record["full"]
    assert record["room"] < ORDINARY
    assert "room     the spool has reached queue.max_size" in screen
    assert brief(person) == (2, "✉ no room\n")


def test_a_spool_that_has_room_but_not_for_the_largest_mail_is_fine_and_says_how_large_mail_can_be(
    person: Person,
) -> None:
    person.put("aaaa000001")
    person.config.write_text(person.config.read_text() + 'max_size = "200kB"\n')
    status, record, screen = served(person)
    assert (status, record["full"]) == (0, "")
    assert ORDINARY < record["room"] < 100_000
    assert f"room     for messages up to {size(record['room'])}" in screen
    assert brief(person) == (0, "\n")


def test_a_setup_fault_is_a_failure_and_shows_the_step_that_fixes_it(person: Person) -> None:
    person.put("aaaa000001")
    person.relayhost_fails(CLOSED, setup=True)
    status, record, screen = served(person)
    assert status == 2
    assert "relayhost default cannot be reached" in screen
    assert "→ allow\\x1b forwarding" in screen
    (relayhost,) = record["relayhosts"]
    assert relayhost["setup"] is True
    assert relayhost["fix"] == "allow\\x1b forwarding"


def test_a_network_that_is_away_is_shown_and_is_no_failure(person: Person) -> None:
    person.put("aaaa000001")
    person.relayhost_fails(AWAY)
    status, _, screen = served(person)
    assert status == 0
    assert "the network is away" in screen
    assert "next try in 9 min" in screen


def test_bad_news_that_could_not_be_told_is_shown_with_the_reason(person: Person) -> None:
    person.put("aaaa000001")
    person.attempt(BOUNCED)
    db = connect(person.spool)
    with transaction(db):
        db.execute("UPDATE notice_backend SET tries = 1, why = ?", ("no such\x1b Maildir",))
    db.close()
    _, record, screen = served(person)
    assert "not told yet by mailbox (failed): no such\\x1b Maildir" in screen
    assert record["untold"] == [{"kind": "failed", "backend": "mailbox", "why": "no such\\x1b Maildir"}]


def test_many_notices_for_one_backend_that_fails_are_one_line(person: Person) -> None:
    for number in range(3):
        person.put(f"aaaa00000{number}")
        person.attempt(BOUNCED)
    person.relayhost_fails(AWAY, setup=True)
    db = connect(person.spool)
    with transaction(db):
        db.execute("UPDATE notice_backend SET tries = 1, why = 'no such Maildir'")
    db.close()
    _, record, screen = served(person)
    assert len(record["untold"]) == 4
    assert screen.splitlines()[-1] == "not told yet by mailbox (failed, setup): no such Maildir"
    assert screen.count("not told yet") == 1


def test_a_spool_that_is_damaged_is_a_failure_and_its_numbers_are_not_known(person: Person) -> None:
    person.put("aaaa000001")
    (person.spool / FILE).write_bytes(b"this is no database, " * 100)
    status, record, screen = served(person)
    assert status == 2
    assert "damaged" in record["failure"]
    assert (record["pending"], record["failed"], record["oldest"], record["room"]) == (None, None, None, None)
    assert (record["relayhosts"], record["untold"]) == ([], [])
    assert f"spool    {record['failure']}" in screen
    assert "pending" not in screen
    assert brief(person) == (2, "✉ the spool cannot be used\n")
    (person.spool / FILE).unlink()
    (person.spool / FILE).mkdir()
    assert served(person)[0] == 2


def test_it_cannot_tell_where_the_settings_cannot_be_read_or_the_spool_is_of_a_newer_version(person: Person) -> None:
    person.put("aaaa000001")
    db = connect(person.spool)
    db.pragma("user_version", VERSION + 1)
    db.close()
    done = person.run("status")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    person.config.write_text("nonsense = 1\n")
    done = person.run("status")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    person.config.unlink()
    assert person.run("status").returncode == 3


def brief(person: Person, **env: str) -> tuple[int, str]:
    """What `status --brief` says while a daemon serves."""
    person.spool.mkdir(mode=0o700, exist_ok=True)
    with lock.lock(person.spool):
        done = person.run("status", "--brief", env=env)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_brief_line_is_empty_while_all_is_fine(person: Person) -> None:
    person.put("aaaa000001", age=60)
    assert brief(person) == (0, "\n")


def test_the_brief_line_says_why_the_status_is_not_0_worst_first(person: Person) -> None:
    person.put("aaaa000001", age=2000)
    assert brief(person) == (1, "✉ 1 waiting 33min\n")
    person.put("aaaa000002", age=3000)
    person.attempt(BOUNCED)
    assert brief(person) == (2, "✉ 1 failed, 1 waiting 33min\n")
    person.relayhost_fails(CLOSED, setup=True)
    done = person.run("status", "--brief")
    assert (done.returncode, done.stdout) == (2, "✉ nobody serves, default needs you, 1 failed, 1 waiting 33min\n")


@pytest.mark.parametrize("env", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_the_brief_line_is_ascii_where_the_locale_is(person: Person, env: dict[str, str]) -> None:
    person.put("aaaa000001", age=2000)
    assert brief(person, **env) == (1, "mail: 1 waiting 33min\n")


def test_the_brief_line_and_the_reason_on_stderr_where_it_cannot_tell(person: Person) -> None:
    person.config.unlink()
    done = person.run("status", "--brief")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "✉ cannot tell\n", 1)
    assert person.run("status", "--brief", "--json").returncode == 2


def test_the_worst_of_what_stands_decides() -> None:
    def trouble(*, setup: bool) -> tuple[RelayhostFault, ...]:
        return (RelayhostFault("default", 0.0, 0.0, setup, "", ""),)

    def why(
        *, serving: bool = True, answers: bool | None = True, failure: str = "", full: str = "", **more: Any
    ) -> list[Level]:
        least: dict[str, Any] = {
            "oldest": 900.0,
            "late": 0,
            "stranded": 0,
            "failed": 0,
            "bounced_there": 0,
            "deferred_there": 0,
            "failing_notices": (),
            "faults": (),
        }
        stands = SpoolStatus(pending=1, held=1, **least | more)
        found = reasons(stands, serving=serving, answers=answers, failure=failure, full=full, now=1000.0)
        return [status for status, _ in found]

    assert why() == why(faults=trouble(setup=False)) == []
    assert why(late=1) == why(failing_notices=(("failed", "dsn", "why"),)) == [Level.LATE]
    assert why(serving=False) == why(failed=1) == why(faults=trouble(setup=True)) == [Level.FAILED]
    assert why(answers=False) == why(failure="broken") == [Level.FAILED]
    assert why(answers=None) == []
    assert why(full="full") == why(stranded=1) == [Level.FAILED]
    assert why(failed=1, late=1) == [Level.FAILED, Level.LATE]


def test_status_and_queue_count_the_same_messages_under_the_same_words(person: Person) -> None:
    several = [b"bob@example.org", b"eve@example.org", b"joe@example.org"]
    person.put("aaaa000001", several, age=2000)
    person.attempt(DEFERRED, BOUNCED, SENT)
    person.put("aaaa000002", several[:2])
    person.attempt(BOUNCED, BOUNCED)
    person.put("aaaa000003", several[:2])
    person.attempt(SENT, BOUNCED, client_told=True)
    person.put("aaaa000004")
    person.attempt(BOUNCED, client_told=True)
    person.put("aaaa000005")
    person.attempt(UNREADABLE)
    person.put("aaaa000006")
    person.put("aaaa000007")
    person.run("queue", "cancel", "aaaa000007")
    status, record, screen = served(person)
    assert status == 2
    assert (record["pending"], record["late"], record["held"], record["failed"]) == (2, 1, 1, 2)
    assert "pending  2, 1 late, the oldest for 33 min" in screen
    assert brief(person)[1] == "✉ 2 failed, 1 cannot be sent, 1 waiting 33min\n"
    both = "a message counts once for each state of its recipients"
    assert f": 2 pending, 1 held, 2 failed, 1 sent ({both})" in person.run("queue").stdout
    everything = person.run("queue", "--all").stdout.splitlines()[-1]
    assert everything.startswith("7 messages, ")
    assert f": 2 pending, 1 held, 2 failed, 2 sent, 2 refused, 1 cancelled ({both})" in everything
    lines = [json.loads(line) for line in person.run("queue", "--all", "--json").stdout.splitlines()]
    states = [{to["state"] for to in line["recipients"]} for line in lines]
    assert sum(bool(found & {"queued", "deferred", "active"}) for found in states) == record["pending"]
    assert sum(bool(found & {"bounced", "expired"}) for found in states) == record["failed"]
    assert sum("held" in found for found in states) == record["held"]
    names = ["deferred", "failed", "sent", "refused", "hold", "incoming", "cancelled"]
    assert [line["queue_name"] for line in lines] == names


@pytest.mark.parametrize("seed", range(4))
def test_the_counts_agree_whatever_is_in_the_spool(person: Person, seed: int) -> None:
    chance = random.Random(seed)
    ids = [f"{'abcdefgh'[at] * 6}{at:04d}" for at in range(chance.randint(3, 8))]
    for queue_id in ids:
        to = [b"bob@example.org", b"eve@example.org", b"joe@example.org"][: chance.randint(1, 3)]
        person.put(queue_id, to, age=chance.choice([0, 2000, 90_000]))
        outcomes = [chance.choice([SENT, DEFERRED, BOUNCED, UNREADABLE]) for _ in to]
        # No outcomes: the attempt is left open.
        person.attempt(*(outcomes if chance.random() < 0.9 else ()), client_told=chance.random() < 0.2)
    for act in chance.sample(["hold", "release", "cancel", "drop", "resend"], 3):
        person.run("queue", act, chance.choice(ids))
    _, record, screen = served(person)
    lines = [json.loads(line) for line in person.run("queue", "--all", "--json").stdout.splitlines()]
    states = [{to["state"] for to in line["recipients"]} for line in lines]
    listed = [person.run("queue", *options).stdout.splitlines() for options in ((), ("--all",))]
    for word, of in {
        "pending": {"queued", "deferred", "active"},
        "held": {"held"},
        "failed": {"bounced", "expired"},
    }.items():
        count = sum(not found.isdisjoint(of) for found in states)
        assert record[word] == count
        assert re.search(rf"^{word} +{count}\b", screen, re.MULTILINE)
        for shown in listed:
            assert any(re.search(rf"[:,] {count} {word}\b", line) for line in shown) is (count > 0)


def test_mail_that_is_being_sent_counts_as_pending(person: Person) -> None:
    person.put("aaaa000001")
    person.attempt()
    assert served(person)[1]["pending"] == 1
    assert ": 1 pending" in person.run("queue").stdout


# The daemon and the disk.


def read(person: Person) -> Status:
    """The status while a daemon serves, in this process."""
    with lock.lock(person.spool):
        return read_status(config.load(person.config), time.time())


def texts(status: Status) -> list[str]:
    return [text for _, text in status.reasons]


@contextmanager
def answering(person: Person, answer: bytes) -> Iterator[None]:
    """A daemon that answers everyone with these octets."""
    with socket.socket(fileno=liveness.listen(person.spool)) as listening:
        listening.setblocking(True)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    asking, _ = listening.accept()
                    with asking:
                        asking.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("full", "failure", "reason"),
    [("", "", None), ("the disk is full", "", "no room"), ("", "it cannot be written\x1b", "the spool cannot be used")],
)
def test_what_the_daemon_says_of_itself_counts(person: Person, full: str, failure: str, reason: str | None) -> None:
    person.put("aaaa000001")
    with answering(person, liveness.line(liveness.Answer(os.getpid(), full, failure))):
        status, record, screen = served(person)
        assert (status, record["answers"], record["full"]) == (2 if reason else 0, True, full)
        assert record["failure"] == failure.replace("\x1b", "\\x1b")
        assert brief(person)[1] == (f"✉ {reason}\n" if reason else "\n")
        assert full in screen
    # Nobody listens on the socket that it has left.
    assert served(person)[1]["answers"] is None


def test_the_answer_of_a_daemon_of_another_version_counts(person: Person) -> None:
    person.put("aaaa000001")
    older = b'{"pid": 1, "full": "no room at all", "failure": ""}\n'
    for answer in (older, older.replace(b"}", b', "refusal": "", "later": {"a": 1}, "errors": [["a", "b"]]}')):
        with answering(person, answer):
            assert served(person)[1]["full"] == "no room at all"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        b"null",
        b"x" * 100_000,
        b"[" * 8192,
        b'{"pid": 1, "full": "", "failure": null}',
        b'{"pid": 1, "full": "", "failure": "", "errors": [5]}',
        b'{"pid": 1, "full": "", "failure": "", "reloads": "many"}',
    ],
)
def test_an_answer_that_makes_no_sense_is_none(person: Person, answer: bytes) -> None:
    person.put("aaaa000001")
    with answering(person, answer):
        assert read(person).answers is None


def test_a_daemon_that_does_not_answer_is_a_failure(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "ANSWER_TIMEOUT", 0.1)
    person.put("aaaa000001")
    with socket.socket(fileno=liveness.listen(person.spool)):
        # More than wait in the queue of the socket.
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(liveness.BACKLOG + 10)]
        for count in (0, len(waiting)):
            for one in waiting[:count]:
                one.setblocking(False)
                with suppress(BlockingIOError):
                    one.connect(str(person.spool / liveness.FILE))
            status = read(person)
            assert (status.answers, texts(status)) == (False, ["the daemon does not answer"])
        for one in waiting:
            one.close()


def test_the_socket_may_have_a_long_path(tmp_path: Path) -> None:
    person = Person(tmp_path)
    person.spool = tmp_path / ("long" * 40)
    person.config.write_text(person.config.read_text().replace(str(tmp_path / "spool"), str(person.spool)))
    person.put("aaaa000001")
    with answering(person, liveness.line(liveness.Answer(1, "", ""))):
        assert read(person).answers is True


def test_a_spool_whose_database_is_gone_is_a_failure_while_a_daemon_serves(person: Person) -> None:
    person.put("aaaa000001")
    (person.spool / FILE).unlink()
    with answering(person, liveness.line(liveness.Answer(1, "", ""))):
        status = read(person)
    assert texts(status) == ["the spool cannot be used"]
    assert "is missing" in status.failure


def test_a_read_only_disk_is_a_failure_before_anything_is_written(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.put("aaaa000001")
    disk = os.statvfs(person.spool)
    read_only = os.statvfs_result((*disk[:8], disk.f_flag | os.ST_RDONLY, disk.f_namemax))
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)
    status = read(person)
    assert texts(status) == ["the spool cannot be used"]
    assert "read-only" in status.failure
    assert status.spool is not None


def test_permissions_that_were_taken_away_are_a_failure(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    person.put("aaaa000001")
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != person.spool / FILE and may(path, mode))
    status = read(person)
    assert texts(status) == ["the spool cannot be used"]
    assert "chmod u+rwX" in status.failure


def test_a_disk_that_is_too_full_for_reading_is_a_failure(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    person.put("aaaa000001")

    def full(_directory: object) -> object:
        raise SpoolFull("the spool's disk is full; make space")

    monkeypatch.setattr("mailrelay.control.status.opened_for_reading", full)
    status = read(person)
    assert texts(status) == ["no room"]
    assert (status.level, status.failure, status.spool) == (Level.FAILED, "", None)
    assert status_record(status)["full"] == "the spool's disk is full; make space"


def test_a_file_in_the_place_of_the_directory_is_a_failure_that_says_so(person: Person) -> None:
    person.spool.write_text("")
    done = person.run("status")
    assert done.returncode == 2
    assert "is not a directory; move it away" in " ".join(done.stdout.split())
