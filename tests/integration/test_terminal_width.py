"""Every command on a terminal of 80, 60 and 40 columns: no line is wider, and no word is broken."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from harness.command import person_of, run
from harness.daemon import served, settings
from harness.person import CLOSED, DEFERRED, Person
from harness.terminal import Terminal, lines_too_wide, words

from mailrelay.cli.command_line import COMMAND_LINE, COMMANDS, QUEUE_COMMANDS
from mailrelay.demo.remote import Remote
from mailrelay.mail.outcome import Outcome, Reply, Stage

WIDTHS = [80, 60, 40]
FAULT = Outcome(
    Stage.AUTH,
    cause=CLOSED.cause,
    text="me@mail.example.org:2222 refused the login of me; tried: ~/.ssh/id_ed25519 (SHA256:d/HzDwI3c5+53ZWrwNkHBu6P).",
    fix="Add ~/.ssh/id_ed25519.pub to ~/.ssh/authorized_keys of me there; then try: ssh -p 2222 -l me mail.example.org",
)
LONG = Outcome(
    Stage.RCPT,
    Reply(
        550,
        (
            b"5.1.1 The account that you tried to reach does not exist. \xe5\x8f\x97\xe4\xbf\xa1\xe8\x80\x85 See "
            b"https://support.example.com/mail/answer/6596?p=NoSuchUser-and-more",
        ),
    ),
)
ADDRESSES = (b"a.rather-long.local-part@department.example.org", "日本語@example.org".encode())


@pytest.fixture
def person(tmp_path: Path) -> Person:
    """A person with mail that waits, mail that failed, a relayhost that cannot be reached, and a log."""
    person = Person(tmp_path)
    person.put("aaaa000001", ADDRESSES, content=b"Subject: " + b"dinner at eight " * 8 + b"\r\n\r\nx\r\n", age=7000)
    person.attempt(LONG, DEFERRED)
    person.put("aaaa000002")
    person.relayhost_fails(FAULT, setup=True)
    (person.spool / "mailrelay.log").write_text(
        "2026-11-27T10:00:00+0000 INFO aaaa000001 to=<a.rather-long.local-part@department.example.org> relay=default"
        " delay=0.52 delays=0.01/0.4/0.11 dsn=5.1.1 status=bounced (550 5.1.1 The account does not exist)\n"
    )
    return person


def on_terminal(person: Person, columns: int, *argv: str) -> str:
    terminal = Terminal(
        [sys.executable, "-m", "mailrelay", *argv], person.environment | {"NO_COLOR": "1"}, columns=columns
    )
    terminal.end()
    return terminal.text


def everything_on_one_line_each(person: Person, *argv: str) -> str:
    """The output in pipes."""
    done = person.run(*argv)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "argv",
    [
        ("status",),
        ("queue", "show", "aaaa000001"),
        ("log",),
        ("log", "aaaa000001"),
        ("check", "--offline"),
        ("queue", "show", "none-such-id"),
        ("queue", "release", "aaaa000002", "none-such-id"),
        ("test", "not an address"),
        ("frob",),
        ("queue", "resend", "aaaa000002", "--to"),
        ("trust", "nowhere.invalid"),
    ],
    ids=" ".join,
)
def test_lines_are_no_wider_than_the_terminal_and_have_the_words_that_they_have_in_a_pipe(
    person: Person, argv: Sequence[str]
) -> None:
    piped = everything_on_one_line_each(person, *argv)
    for columns in WIDTHS:
        shown = on_terminal(person, columns, *argv)
        assert lines_too_wide(shown, columns) == []
        # Times may have moved on in between; they are short words.
        assert [word for word in words(shown) if len(word) > 6] == [word for word in words(piped) if len(word) > 6]


@pytest.mark.parametrize("columns", [*WIDTHS, 100, 200])
def test_the_listing_fits_and_its_ids_and_addresses_can_be_copied(person: Person, columns: int) -> None:
    shown = on_terminal(person, columns, "queue")
    assert lines_too_wide(shown, columns) == []
    whole = {"aaaa000001", "aaaa000002", "<me@example.org>", *(f"<{address.decode()}>" for address in ADDRESSES)}
    assert whole <= set(words(shown))
    assert "https://support.example.com/mail/answer/6596?p=NoSuchUser-and-more" in words(shown)
    assert ("STATE" in words(shown)) == (columns == 200)


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_command_to_copy_is_on_one_line_where_it_fits(person: Person, columns: int) -> None:
    shown = on_terminal(person, columns, "status")
    assert "`mailrelay queue`" in shown
    assert ("ssh -p 2222 -l me mail.example.org" in shown) == (columns >= 35)


COMMAND_LINES = [[], *([one.name] for one in COMMANDS), *(["queue", one.name] for one in QUEUE_COMMANDS)]


@pytest.mark.parametrize("argv", COMMAND_LINES, ids=str)
def test_help_is_no_wider_than_the_terminal_and_breaks_no_word(
    argv: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {}
    for columns in (*WIDTHS, 80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        COMMAND_LINE.main([*argv, "--help"], prog_name="mailrelay", standalone_mode=False)
        shown[columns] = capsys.readouterr().out
        assert lines_too_wide(shown[columns], min(columns, 80)) == []
    assert len({" ".join(words(text)) for text in shown.values()}) == 1


@pytest.mark.parametrize("argv", [["status"], ["queue"], ["log"], ["queue", "show", "aaaa000001"]], ids=" ".join)
def test_a_pipe_is_wrapped_only_where_columns_is_set(person: Person, argv: Sequence[str]) -> None:
    piped = person.run(*argv).stdout
    assert any(len(line) > 80 for line in piped.splitlines())
    for unset in ("", "0", "-3", "9" * 5000):
        assert len(person.run(*argv, env={"COLUMNS": unset}).stdout.splitlines()) == len(piped.splitlines())
    wrapped = person.run(*argv, env={"COLUMNS": "60"}).stdout
    assert lines_too_wide(wrapped, 60) == []
    assert "\x1b" not in wrapped


@pytest.mark.parametrize("columns", ["1", "19", "999999"])
def test_a_width_that_is_no_use_breaks_nothing(person: Person, columns: str) -> None:
    for argv in (["status"], ["queue"], ["log"], ["queue", "show", "aaaa000001"], ["--help"], ["check", "--offline"]):
        assert person.run(*argv, env={"COLUMNS": columns}).stdout
    assert words(person.run("log", env={"COLUMNS": columns}).stdout) == words(person.run("log").stdout)


def test_json_and_the_line_for_prompts_are_never_wrapped(person: Person) -> None:
    for argv, lines in (
        (["status", "--json"], 1),
        (["status", "--brief"], 1),
        (["queue", "show", "--json", "aaaa000001"], 1),
        (["queue", "--json"], 2),
    ):
        assert len(person.run(*argv, env={"COLUMNS": "40"}).stdout.splitlines()) == lines


def test_a_terminal_that_changes_its_width_is_followed_from_the_next_line_on(person: Person) -> None:
    log = person.spool / "mailrelay.log"
    line = "2026-11-27T10:00:00+0000 INFO " + " ".join(["word"] * 40)
    terminal = Terminal([sys.executable, "-m", "mailrelay", "log", "-f"], person.environment, columns=80)
    terminal.read_to(r"exist\)")
    for columns in (40, 120):
        terminal.resize(columns)
        with log.open("a") as file:
            file.write(f"{line} end-of-{columns}\n")
        shown = terminal.read_to(f"end-of-{columns}").strip("\n)")
        assert lines_too_wide(shown, columns) == []
        assert max(map(len, shown.splitlines())) > columns - 10
    terminal.interrupt()
    assert terminal.end() == 130


@pytest.mark.parametrize("columns", WIDTHS)
async def test_what_trust_shows_fits(tmp_path: Path, columns: int) -> None:
    async with Remote(tmp_path) as remote:
        person, old = person_of(remote), remote.host_key.get_fingerprint()
        await remote.change_host_key()
        said = await run(person, "trust", "--yes", env={"COLUMNS": str(columns)})
        assert said.status == 0, said.err
        assert lines_too_wide(said.out, columns) == []
        assert {old, remote.host_key.get_fingerprint(), f"{remote.known_hosts}.old."} <= set(words(said.out))
        # The pictures of both keys are whole, side by side or one below the other.
        assert said.out.count("+--[ED25519 256]--+") == 2
        assert sum(line.count("|") for line in said.out.splitlines()) == 2 * 2 * 9


@pytest.mark.parametrize("columns", WIDTHS)
async def test_what_becomes_of_a_test_message_fits(tmp_path: Path, columns: int) -> None:
    async with Remote(tmp_path) as remote:
        person = person_of(remote)
        async with served(settings(remote.directory, remote.relayhost("default"))):
            said = await run(person, "test", "bob@example.org", env={"COLUMNS": str(columns)})
        assert said.status == 0, said.err
        assert lines_too_wide(said.out, columns) == []
        assert "<bob@example.org>" in words(said.out)


def test_the_demo_fits(person: Person) -> None:
    shown = on_terminal(person, 60, "demo")
    assert lines_too_wide(shown, 60) == []
    assert "Everything happened as it should." in shown
