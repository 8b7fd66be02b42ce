"""What a command says while it waits: on a terminal, for what; elsewhere nothing."""

import io
import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.person import DEFERRED, Person
from harness.terminal import Terminal

from mailrelay.cli import waiting
from mailrelay.cli.waiting import waiting_for
from mailrelay.spool.database import connect, transaction

CLEARED = "\r\x1b[K"


class Screen(io.StringIO):
    """A terminal that keeps what is printed; `shown` is set as soon as there is something."""

    def __init__(self, *, is_terminal: bool = True) -> None:
        super().__init__()
        self.shown = threading.Event()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> int:
        self.shown.set()
        return super().write(text)


def on_screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal as stdout and stderr. Not a fixture, because pytest's own capture would replace it."""
    found = Screen()
    monkeypatch.setattr(sys, "stdout", Screen())
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setattr(waiting, "AFTER", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return found


def test_a_wait_is_said_and_cleared_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = on_screen(monkeypatch)
    with waiting_for("Godot\x1b"):
        assert screen.shown.wait(30)
    assert screen.getvalue() == f"waiting for Godot\\x1b …{CLEARED}"


def test_it_is_cleared_before_something_is_printed_and_then_goes_on_for_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = on_screen(monkeypatch)
    with waiting_for("the first") as wait:
        assert screen.shown.wait(30)
        wait.goes_on("the first")
        wait.pause()
        screen.shown.clear()
        wait.goes_on("the second")
        assert screen.shown.wait(30)
    assert screen.getvalue() == f"waiting for the first …{CLEARED}waiting for the second …{CLEARED}"


def test_the_line_is_never_longer_than_the_screen_that_has_to_clear_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = on_screen(monkeypatch)
    monkeypatch.setenv("COLUMNS", "20")
    with waiting_for("a host with a long name"):
        assert screen.shown.wait(30)
    assert screen.getvalue() == f"waiting for a host {CLEARED}"


def test_a_terminal_that_clears_nothing_gets_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = on_screen(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    with waiting_for("Godot"):
        assert screen.shown.wait(30)
    assert screen.getvalue() == "waiting for Godot …\n"


def test_an_error_clears_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = on_screen(monkeypatch)
    with pytest.raises(OSError, match="gone"), waiting_for("Godot"):
        assert screen.shown.wait(30)
        raise OSError("gone")
    assert screen.getvalue().endswith(CLEARED)


@pytest.mark.parametrize("name", ["stdout", "stderr", ""])
def test_pipes_files_and_programs_see_nothing_of_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    screen = on_screen(monkeypatch)
    if name:
        monkeypatch.setattr(sys, name, Screen(is_terminal=False))
    before = threading.active_count()
    with waiting_for("Godot", quiet=not name) as wait:
        wait.goes_on("something else")
        # Nothing is planned, so nothing will be printed later.
        assert threading.active_count() == before
    assert screen.getvalue() == ""


@contextmanager
def locked(person: Person) -> Iterator[None]:
    """Another program writes to the spool."""
    db = connect(person.spool)
    with transaction(db):
        yield
    db.close()


@pytest.mark.parametrize("words", [("retry", "aaaa"), ("retry", "--all"), ("hold", "aaaa"), ("cancel", "aaaa")])
def test_a_command_on_a_terminal_says_that_it_waits_for_the_spool(tmp_path: Path, words: tuple[str, ...]) -> None:
    person = Person(tmp_path)
    person.put("aaaa000001")
    person.attempt(DEFERRED)
    with locked(person):
        terminal = Terminal(
            [sys.executable, "-m", "mailrelay", "queue", *words], person.environment | {"TERM": "xterm"}
        )
        terminal.read_to("waiting for the spool …")
    assert terminal.end() == 0
    assert terminal.text.startswith(f"waiting for the spool …{CLEARED}")
    assert len(terminal.text.removeprefix(f"waiting for the spool …{CLEARED}").splitlines()) == 2


def silent_host(tmp_path: Path, server: socket.socket) -> Person:
    """A person whose relayhost accepts connections and says nothing."""
    person = Person(tmp_path)
    text = (
        person.config.read_text()
        .replace("nowhere.example", "silent")
        .replace(
            "[queue]",
            f"""\
ssh_config = "{tmp_path}/ssh_config"
[queue]""",
        )
    )
    person.config.write_text(text)
    host, port = server.getsockname()
    (tmp_path / "ssh_config").write_text(f"Host silent\n  HostName {host}\n  Port {port}\n")
    return person


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("trust",), "the host keys of silent"),
        (("check",), "the checks of silent"),
        (("setup", "silent"), "the host keys of silent"),
    ],
)
def test_a_command_on_a_terminal_says_for_which_server_it_waits(
    tmp_path: Path, words: tuple[str, ...], what: str
) -> None:
    (tmp_path / ".ssh").mkdir(mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as server:
        person = silent_host(tmp_path, server)
        terminal = Terminal([sys.executable, "-m", "mailrelay", *words], person.environment | {"TERM": "xterm"})
        if words[0] == "setup":
            terminal.answer(r"There is no key\..*: ", "y")
        terminal.read_to(f"waiting for {what} …")
        terminal.type("\x03")
        terminal.end()


def test_json_on_a_terminal_is_json_alone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        person = silent_host(tmp_path, server)
        terminal = Terminal(
            [sys.executable, "-m", "mailrelay", "check", "--json"], person.environment | {"TERM": "xterm"}
        )
        # The connection that it waits on: the checks before are printed.
        connection, _ = server.accept()
        connection.close()
        terminal.end()
        assert [json.loads(line)["check"] for line in terminal.text.splitlines()]
