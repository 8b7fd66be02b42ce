"""`mailrelay log`: what has happened, to one message or at all."""

import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.person import Person

from mailrelay.cli.daemon_log import LogFile
from mailrelay.cli.log import whole_lines


@pytest.fixture
def person(tmp_path: Path) -> Person:
    person = Person(tmp_path)
    person.put("aaaa000001")
    return person


def write(person: Person, *lines: str, to: str = "mailrelay.log") -> None:
    with (person.spool / to).open("a") as log:
        log.writelines(f"{line}\n" for line in lines)


def test_rotated_lines_come_first_in_their_order(person: Person) -> None:
    write(person, "newest")
    for number in (1, 2, 10):
        write(person, f"rotated {number}", to=f"mailrelay.log.{number}")
    assert person.run("log").stdout.splitlines() == ["rotated 10", "rotated 2", "rotated 1", "newest"]


def test_an_id_may_be_shortened_and_gives_the_lines_of_that_message_alone(person: Person) -> None:
    write(person, "aaaa000001 to=<bob>", "aaaa000002 to=<eve>", "aaa is no id")
    assert person.run("log", "aaa").stdout.splitlines() == ["aaaa000001 to=<bob>"]


def test_a_message_that_the_spool_forgot_is_looked_for_as_text(person: Person) -> None:
    write(person, "bbbb000001 to=<bob>", "aaaa000001 to=<eve>")
    assert person.run("log", "bbbb").stdout.splitlines() == ["bbbb000001 to=<bob>"]
    nothing = person.run("log", "cccc")
    assert (nothing.returncode, nothing.stdout, nothing.stderr.count("\n")) == (1, "", 1)


def test_what_is_escaped_is_not_escaped_again_and_what_is_raw_is_escaped(person: Person) -> None:
    write(person, "a \\x1b \\u202e", "b \x1b[2J")
    with (person.spool / "mailrelay.log").open("ab") as log:
        log.write(b"c \xff\n")
    assert person.run("log").stdout.splitlines() == ["a \\x1b \\u202e", "b \\x1b[2J", "c \\xff"]


def test_where_there_is_no_log_it_says_so(person: Person) -> None:
    done = person.run("log")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "mailrelay serve" in done.stderr


@pytest.mark.parametrize(
    ("zone", "shown"), [("UTC", "2026-11-27T23:30:05+0000"), ("XXX-9", "2026-11-28T08:30:05+0900")]
)
def test_times_are_in_the_local_zone_whatever_the_daemon_had(person: Person, zone: str, shown: str) -> None:
    write(person, "2026-11-28T00:30:05+0100 INFO a", "2026-11-27T15:30:05-0800 INFO b", "2026-11-27T99:30:05 c")
    lines = person.run("log", env={"TZ": zone}).stdout.splitlines()
    assert lines == [f"{shown} INFO a", f"{shown} INFO b", "2026-11-27T99:30:05 c"]


LOG = (
    "2026-11-28T10:00:00+0000 INFO old",
    "the rest of it",
    "2026-11-28T12:00:00+0000 INFO aaaa000001 in time",
    "the rest of that",
    "2026-11-28T11:00:00+0000 INFO the clock was set back",
    "and its rest",
    "2026-11-28T13:30:05+0100 INFO another zone",
)


def test_since_shows_the_lines_of_that_time_and_later_with_what_follows_them(person: Person) -> None:
    write(person, *LOG[:1], to="mailrelay.log.1")
    write(person, *LOG[1:])
    utc = {"TZ": "UTC"}
    done = person.run("log", "--since", "2026-11-28 12:00", env=utc)
    assert (done.returncode, done.stderr) == (0, "")
    shown = [line[25:] for line in done.stdout.splitlines()]
    assert shown == ["INFO aaaa000001 in time", LOG[3][25:], "INFO another zone"]
    assert done.stdout.splitlines()[1] == LOG[3]
    assert len(person.run("log", "aaaa", "--since", "2026-11-28", env=utc).stdout.splitlines()) == 1
    nothing = person.run("log", "--since", "2026-11-28 14:00", env=utc)
    said = "mailrelay: the log has no line since 2026-11-28 14:00:00 +0000\n"
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", said)
    about = person.run("log", "aaaa", "--since", "2026-11-28 14:00", env=utc)
    assert (about.returncode, about.stdout) == (1, "")
    assert "no line about aaaa000001 since" in about.stderr
    assert person.run("log", "--since", "soon").returncode == 2


def test_an_old_id_leads_to_the_newest_one(person: Person) -> None:
    write(person, "aaaa000001 to=<bob>")
    person.run("queue", "hold", "aaaa000001")
    first = person.run("queue", "resend", "aaaa000001").stdout.split()[-1]
    person.run("queue", "hold", first)
    second = person.run("queue", "resend", first).stdout.split()[-1]
    done = person.run("log", "aaaa000001")
    assert done.stdout == "aaaa000001 to=<bob>\n"
    assert done.stderr == f"mailrelay: aaaa000001 was replaced by {second}; see `mailrelay log {second}`\n"
    # The log of the new one need not have begun yet.
    assert person.run("log", first).returncode == 0


def test_a_line_that_is_still_being_written_is_shown_when_it_is_whole(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as writer, (tmp_path / "log").open("rb") as reader:
        for written, shown in ((b"one\ntw", ["one"]), (b"", []), (b"o", []), (b"\nthree\n", ["two", "three"])):
            writer.write(written)
            writer.flush()
            assert list(whole_lines(reader)) == shown


def test_following_goes_on_through_a_rotation_and_ends_quietly_at_ctrl_c(person: Person) -> None:
    write(person, *(f"old {number}" for number in range(20)))
    child = subprocess.Popen(
        [sys.executable, "-m", "mailrelay", "log", "-f"],
        env=person.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        assert [child.stdout.readline() for _ in range(10)] == [f"old {number}\n" for number in range(10, 20)]
        write(person, "new 1")
        assert child.stdout.readline() == "new 1\n"
        write(person, "the last one before")
        (person.spool / "mailrelay.log").rename(person.spool / "mailrelay.log.1")
        write(person, "new 2")
        assert [child.stdout.readline() for _ in range(2)] == ["the last one before\n", "new 2\n"]
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
        assert (child.returncode, out, err.strip()) == (130, "", "")
    finally:
        child.kill()
        child.communicate()


def test_a_log_that_has_reached_its_size_goes_on_in_a_new_file(tmp_path: Path) -> None:
    file = tmp_path / "mailrelay.log"
    handler = LogFile(file, 1000, 2)
    for number in range(100):
        handler.handle(logging.makeLogRecord({"msg": f"{number} {'x' * 60}"}))
    handler.close()
    files = [file, *(tmp_path / f"mailrelay.log.{number}" for number in (1, 2))]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(one.stat().st_size <= 1000 for one in files)
    assert file.read_text().splitlines()[-1].startswith("99 ")


def test_a_log_whose_files_cannot_be_renamed_goes_on_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mailrelay.log"
    (tmp_path / "mailrelay.log.2" / "in the way").mkdir(parents=True)
    handler = LogFile(file, 1000, 2)
    for number in range(60):
        handler.handle(logging.makeLogRecord({"msg": f"{number} {'x' * 60}"}))
    handler.close()
    lines = [
        line for name in ("mailrelay.log.1", "mailrelay.log") for line in (tmp_path / name).read_text().splitlines()
    ]
    assert [int(line.split()[0]) for line in lines] == list(range(60))
    assert "mailrelay.log.2" in capsys.readouterr().err


# The daemon's side.


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[LogFile]:
    (tmp_path / "spool").mkdir()
    handler = LogFile(tmp_path / "spool" / "mailrelay.log")
    yield handler
    handler.close()


def log(handler: LogFile, text: str, *arguments: object) -> None:
    handler.handle(logging.makeLogRecord({"msg": text, "args": arguments}))


def test_a_log_that_is_deleted_moved_or_replaced_is_made_again_also_when_nothing_is_logged(
    log_file: LogFile, tmp_path: Path
) -> None:
    file = tmp_path / "spool" / "mailrelay.log"
    log_file.look()
    assert file.read_text() == ""
    log(log_file, "one")
    file.unlink()
    log_file.look()
    assert file.read_text() == ""
    log(log_file, "two")
    file.rename(tmp_path / "moved")
    log_file.look()
    log(log_file, "three")
    assert ((tmp_path / "moved").read_text(), file.read_text()) == ("two\n", "three\n")
    file.unlink()
    file.write_text("another\n")
    log_file.look()
    log(log_file, "four")
    assert file.read_text() == "another\nfour\n"
    (tmp_path / "spool").rename(tmp_path / "away")
    (tmp_path / "spool").mkdir()
    log_file.look()
    log(log_file, "five")
    assert file.read_text() == "five\n"


def test_a_log_that_cannot_be_written_costs_one_line_and_says_later_how_many_are_missing(
    log_file: LogFile, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    file = tmp_path / "spool" / "mailrelay.log"
    # Each write to it fails with ENOSPC.
    file.symlink_to("/dev/full")
    for number in range(1000):
        log(log_file, "%d", number)
        log_file.look()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"mailrelay: the log {file} cannot be written: No space left on device; until it can, lines are only counted"
    )
    file.unlink()
    log_file.look()
    assert file.read_text().endswith(" WARNING the log could not be written: 1000 lines are missing\n")
    log(log_file, "one more")
    assert file.read_text().endswith("\none more\n")
    file.unlink()
    (tmp_path / "spool").rename(tmp_path / "away")
    for _ in range(3):
        log_file.look()
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "away").rename(tmp_path / "spool")
    log_file.look()
    assert file.read_text() == ""


def test_a_named_pipe_in_the_place_of_the_log_holds_nothing_up(log_file: LogFile, tmp_path: Path) -> None:
    file = tmp_path / "spool" / "mailrelay.log"
    file.parent.mkdir(exist_ok=True)
    os.mkfifo(file)
    log_file.look()
    log(log_file, "missing")
    file.unlink()
    log_file.look()
    assert "1 line is missing" in file.read_text()


def test_a_named_pipe_in_the_place_of_the_log_is_one_line_for_commands(person: Person) -> None:
    os.mkfifo(person.spool / "mailrelay.log")
    done = person.run("log")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert person.run("queue", "hold", "aaaa000001").returncode == 0


def test_no_error_of_the_log_reaches_the_code_that_logs(
    log_file: LogFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(log_file, "%d apples", "no number")
    assert "could not be formatted" in (tmp_path / "spool" / "mailrelay.log").read_text()
    log_file.close()
    (tmp_path / "spool" / "mailrelay.log").unlink()
    (tmp_path / "spool").rmdir()
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    log(log_file, "nobody reads this")
    log_file.look()


def test_lines_that_commands_add_count_for_the_size_of_the_log(tmp_path: Path) -> None:
    file = tmp_path / "mailrelay.log"
    handler = LogFile(file, 1000, 2)
    log(handler, "one")
    with file.open("a") as other:
        other.write("x" * 2000 + "\n")
    handler.look()
    log(handler, "two")
    handler.close()
    assert file.read_text() == "two\n"
