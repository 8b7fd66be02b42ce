"""What changes is shown as it happens: `queue --watch`, `queue show --follow`, and the progress bar."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.person import DEFERRED, SENT, Person
from harness.terminal import Terminal, lines_too_wide

from mailrelay.cli.watch import fitted
from mailrelay.mail.sending import Sending
from mailrelay.spool import liveness, lock

CTRL_C = 130


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def mailrelay(*words: str) -> list[str]:
    return [sys.executable, "-m", "mailrelay", *words]


def on_terminal(person: Person, *words: str, columns: int = 120, lines: int = 24, term: str = "xterm") -> Terminal:
    return Terminal(mailrelay(*words), person.environment | {"TERM": term}, columns, lines)


def screen(text: str) -> str:
    """What a terminal shows of the last frame, without colours."""
    return re.sub(r"\x1b\[[0-9;]*[mKJH]", "", text.rpartition("\x1b[H")[2])


@contextmanager
def daemon_that_sends(person: Person, *octets: int, size: int = 5_000_000) -> Iterator[None]:
    """A process that holds the lock, and answers each question about progress with the next number of octets."""
    sending = [Sending("aaaa000001", "default", one, size, 130_000.0, 30.0) for one in octets]
    answers = [liveness.line(liveness.Answer(os.getpid(), "", "", sending=(one,))).decode() for one in sending]
    script = (
        "import json, socket, sys; answers = json.loads(sys.argv[2]); listening = socket.socket(fileno=int(sys.argv[1]))\n"
        "listening.setblocking(True)\n"
        "while True:\n"
        " asking, _ = listening.accept(); asking.sendall(answers[0].encode()); asking.close()\n"
        " answers = answers[1:] or answers\n"
    )
    with lock.lock(person.spool):
        handle = liveness.listen(person.spool)
        child = subprocess.Popen([sys.executable, "-c", script, str(handle), json.dumps(answers)], pass_fds=(handle,))
        os.close(handle)
        try:
            yield
        finally:
            child.kill()
            child.wait()


def test_the_screen_follows_the_queue_until_ctrl_c_and_keeps_the_last_listing(person: Person) -> None:
    person.put("aaaa000001")
    terminal = on_terminal(person, "queue", "--watch")
    terminal.read_to("1 pending")
    assert terminal.text.startswith("\x1b[2J\x1b[H")
    person.put("aaaa000002", [b"carol@example.org"])
    said = terminal.read_to("2 pending")
    assert "carol@example.org" in said
    # Drawn over what is there: nothing flickers.
    assert "\x1b[2J" not in said
    terminal.resize(60)
    assert "\x1b[2J" in terminal.read_to("2 pending")
    person.run("queue", "cancel", "aaaa")
    person.run("queue", "cancel", "aaaa000001", "aaaa000002")
    terminal.read_to("the queue is empty")
    terminal.interrupt()
    assert terminal.end() == CTRL_C
    assert "Traceback" not in terminal.text
    assert terminal.text.endswith("\n")


def test_the_screen_shows_progress_of_what_is_being_sent_and_shows_it_first(person: Person) -> None:
    person.put("aaaa000000", age=-600)
    person.put("aaaa000001")
    person.attempt()
    with daemon_that_sends(person, 1_200_000, 2_400_000):
        terminal = on_terminal(person, "queue", "--watch")
        terminal.read_to(r"1\.2 of 5\.0 MB, 130 kB/s, 30 s left")
        terminal.read_to(r"2\.4 of 5\.0 MB")
        terminal.read_to("pending")
        shown = screen(terminal.text)
        assert shown.index("aaaa000001") < shown.index("aaaa000000")
        terminal.interrupt()
        assert terminal.end() == CTRL_C
        assert "2.4 of 5.0 MB, 130 kB/s, 30 s left" in person.run("queue").stdout


def test_a_small_screen_is_never_overfilled_and_says_what_it_leaves_out(person: Person) -> None:
    for number in range(30):
        person.put(f"aaaa0000{number:02}")
    terminal = on_terminal(person, "queue", "--watch", columns=30, lines=10)
    terminal.read_to("`mailrelay serve`")
    terminal.interrupt()
    assert terminal.end() == CTRL_C
    shown = screen(terminal.text).removesuffix("^C\n").rstrip("\n")
    assert len(shown.splitlines()) <= 10
    assert re.search(r"… \d+ more lines", shown)
    assert not lines_too_wide(shown, 30)


def test_a_frame_fits_whatever_the_size() -> None:
    lines = [f"line {number}" for number in range(8)]
    for height in range(1, 14):
        for width in (1, 5, 40):
            frame = fitted(lines, ["the end"], os.terminal_size((width, height)))
            assert len(frame) <= height
            assert frame[-1] == "the end"
    assert fitted(lines, ["the end"], os.terminal_size((40, 9))) == [*lines, "the end"]
    assert fitted(lines, ["the end"], os.terminal_size((40, 5))) == [*lines[:3], "… 5 more lines", "the end"]


@pytest.mark.parametrize("term", ["", "dumb"])
def test_without_a_screen_each_change_is_a_line(person: Person, term: str) -> None:
    person.put("aaaa000001")
    if term:
        terminal = on_terminal(person, "queue", "--watch", columns=0, term=term)
        read = terminal.read_to
    else:
        # A pipe: the shell keeps the terminal as the output of `cat` only.
        words = " ".join(mailrelay("queue", "--watch"))
        terminal = Terminal(["sh", "-c", f"trap '' INT; ({words}; echo status $?) | cat"], person.environment)
        read = terminal.read_to
    read("ID +STATE.*")
    read("aaaa000001 +queued")
    person.put("aaaa000002", [b"carol@example.org"])
    assert "aaaa000001" not in read("aaaa000002 +queued")
    person.attempt(DEFERRED)
    read("aaaa000001 +deferred")
    person.attempt(SENT)
    read("aaaa000002 +sent")
    assert "\x1b" not in terminal.text
    if term:
        terminal.interrupt()
        assert terminal.end() == CTRL_C
    else:
        terminal.interrupt()


def test_no_color_and_wrong_usage(person: Person) -> None:
    person.put("aaaa000001")
    terminal = Terminal(
        mailrelay("queue", "list", "--watch"), person.environment | {"TERM": "xterm", "NO_COLOR": "1"}, 120
    )
    terminal.read_to("1 pending")
    assert not re.search(r"\x1b\[[0-9;]+m", terminal.text)
    terminal.interrupt()
    assert terminal.end() == CTRL_C
    for words in (("queue", "--watch", "--json"), ("queue", "--watch", "list"), ("queue", "show", "a", "-f", "--json")):
        done = person.run(*words)
        assert (done.returncode, done.stdout) == (2, "")


def test_a_message_is_followed_to_its_end_with_its_progress(person: Person) -> None:
    person.put("aaaa000001")
    person.attempt()
    with daemon_that_sends(person, 1_200_000, 1_200_000, 5_000_000):
        terminal = on_terminal(person, "queue", "show", "aaaa", "--follow")
        terminal.read_to("progress +1.2 of 5.0 MB, 130 kB/s, 30 s left")
        terminal.read_to("accepted")
        terminal.read_to(r"\[#+-+\] 1\.2 of 5\.0 MB, 130 kB/s, 30 s left")
        terminal.read_to("waiting for the mail server to take the message")
        db = person.query
        assert db("SELECT count(*) FROM attempt WHERE closed IS NULL") == [(1,)]
    person.run("queue", "cancel", "aaaa")
    said = terminal.read_to("cancelled")
    assert "\r\x1b[K" in said
    assert terminal.end() == 0


def test_a_followed_message_that_is_over_is_only_shown_and_a_pipe_gets_no_bar(person: Person) -> None:
    person.put("aaaa000001")
    person.attempt(SENT)
    done = person.run("queue", "show", "aaaa", "--follow")
    assert (done.returncode, done.stderr) == (0, "")
    # But for the age.
    shown = [re.sub(r" \(.*\)", "", text) for text in (done.stdout, person.run("queue", "show", "aaaa").stdout)]
    assert shown[0] == shown[1]
    person.put("aaaa000002")
    child = subprocess.Popen(
        mailrelay("queue", "show", "aaaa000002", "--follow"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=person.environment,
    )  # fmt: skip
    assert child.stdout is not None
    while b"accepted" not in child.stdout.readline():
        pass
    person.run("queue", "cancel", "aaaa000002")
    out, err = child.communicate(timeout=30)
    assert b"cancelled" in out
    assert b"\x1b" not in out
    assert (child.returncode, err) == (0, b"")


def test_ctrl_c_ends_following(person: Person) -> None:
    person.put("aaaa000001")
    child = subprocess.Popen(mailrelay("queue", "show", "aaaa", "-f"), stdout=subprocess.PIPE, env=person.environment)
    assert child.stdout is not None
    while b"accepted" not in child.stdout.readline():
        pass
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert child.returncode == CTRL_C
