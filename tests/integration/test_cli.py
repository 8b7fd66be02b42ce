"""The command line as a whole: help everywhere, one line for every trouble, one exit status for every kind of it."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from harness.person import Person

import mailrelay
from mailrelay.cli.command_line import COMMAND_LINE, COMMANDS, QUEUE_COMMANDS
from mailrelay.spool.database import FILE, connect

QUEUE = next(command for command in COMMANDS if command.name == "queue").load()
VERBS = [("queue", verb) for verb in ("list", "show", "retry", "hold", "release", "cancel", "drop", "resend", "edit")]


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


@pytest.mark.parametrize("words", [(), *((name,) for name in COMMAND_LINE.commands), *VERBS], ids=" ".join)
def test_every_command_has_help_and_takes_config(person: Person, words: tuple[str, ...]) -> None:
    done = person.run(*words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {' '.join(('mailrelay', *words))}")
    assert "--config FILE" in done.stdout


def test_the_verbs_that_are_tested_for_help_are_all_there_are() -> None:
    assert isinstance(QUEUE, click.Group)
    assert {verb for _, verb in VERBS} == set(QUEUE.commands)


def test_the_table_of_commands_has_the_name_and_the_first_sentence_of_every_command() -> None:
    for announced in (*COMMANDS, *QUEUE_COMMANDS):
        command = announced.load()
        assert command.name == announced.name
        assert announced.help is not None and command.help is not None
        assert command.help.replace("\n", " ").startswith(announced.help.rstrip("."))


def test_loading_is_not_held_up_by_looks_for_circles() -> None:
    program = (
        "import gc; count = lambda: sum(one['collections'] for one in gc.get_stats())\n"
        "before = count(); import mailrelay.__main__; print(count() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # One may have been due before the first line of ours.
    assert int(done.stdout) <= 1


def test_asking_for_help_or_version_loads_no_command(person: Person) -> None:
    for option in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "mailrelay", option],
            env=person.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "mailrelay.cli.command_line" in loaded
        commands = {f"mailrelay.cli.{name}" for name in COMMAND_LINE.commands}
        assert loaded.isdisjoint(commands | {"mailrelay.cli.lazy", "asyncio", "asyncssh"})


def test_version(person: Person) -> None:
    for words in (["--version"], ["sendmail", "--version"]):
        assert person.run(*words).stdout == f"mailrelay {mailrelay.__version__}\n"


def test_config_may_stand_before_and_after_the_command_and_the_later_one_wins(person: Person, tmp_path: Path) -> None:
    person.put("aaaa000001")
    nowhere = {"MAILRELAY_CONFIG": str(tmp_path / "nowhere.toml")}
    config = ("--config", str(person.config))
    for words in (
        (*config, "queue"),
        ("queue", *config),
        (*config, "queue", "list"),
        ("queue", *config, "list"),
        ("queue", "list", *config),
        ("--config", "/nowhere", "queue", "list", *config),
    ):
        assert "aaaa000001" in person.run(*words, env=nowhere).stdout
    assert person.run("queue", env=nowhere).returncode == 78


@pytest.mark.parametrize("text", ["nonsense = 1\n", "[queue]\nretry = 7\n", "not toml", None])
@pytest.mark.parametrize("words", [("queue",), ("queue", "hold", "abcd"), ("log",), ("sendmail", "bob"), ("serve",)])
def test_wrong_settings_are_one_line_and_status_78(person: Person, text: str | None, words: tuple[str, ...]) -> None:
    if text is None:
        person.config.unlink()
    else:
        person.config.write_text(text)
    done = person.run(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1)
    assert str(person.config) in done.stderr


@pytest.mark.parametrize("words", [("--config", "x"), ("nonsense",), ("--nonsense",), ("queue\x1b[2J",)])
def test_wrong_usage_is_one_line_that_names_the_help(person: Person, words: tuple[str, ...]) -> None:
    done = person.run(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "see `mailrelay --help`" in done.stderr.lower()
    assert "\x1b" not in done.stderr


def test_mailrelay_alone_shows_the_help_and_a_status_that_tells_a_script_that_nothing_was_done(person: Person) -> None:
    alone, asked = person.run(), person.run("--help")
    assert (alone.returncode, alone.stdout, alone.stderr) == (2, asked.stdout, "")


@pytest.mark.parametrize("words", [(), ("queue",), ("queue", "hold"), ("sendmail",), ("help",)], ids=" ".join)
def test_help_shows_what_the_option_shows(person: Person, words: tuple[str, ...]) -> None:
    asked = person.run("help", *words)
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, person.run(*words, "--help").stdout, "")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("queue", "holdd"), "No such command 'holdd'. Did you mean 'hold'? See `mailrelay queue --help`"),
        (("stauts",), "No such command 'stauts'. Did you mean 'status'? See `mailrelay --help`"),
        (("log", "x"), "`mailrelay log` has no commands of its own; see `mailrelay log --help`"),
        (("/x",), "No such command '/x'; see `mailrelay --help`"),
        (("",), "No such command ''; see `mailrelay --help`"),
    ],
)
def test_help_for_what_is_no_command_is_wrong_usage(person: Person, words: tuple[str, ...], line: str) -> None:
    done = person.run("help", *words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"mailrelay: {line}\n")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("stat",), "status"),
        (("STATUS",), "status"),
        (("queue", "shwo"), "show"),
        (("hold",), "queue hold"),
        (("relaese", "--all"), "queue release"),
        (("queue", "chek"), "mailrelay check"),
    ],
)
def test_a_slip_in_the_name_of_a_command_is_answered_with_the_right_name(
    person: Person, words: tuple[str, ...], meant: str
) -> None:
    done = person.run(*words)
    seen, wrong = ("mailrelay queue", words[1]) if words[0] == "queue" else ("mailrelay", words[0])
    wrong = f"mailrelay: No such command '{wrong}'. Did you mean '{meant}'? See `{seen} --help`\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", wrong)


@pytest.mark.parametrize("words", [("queue",), ("queue", "show", "abcd"), ("queue", "hold", "abcd"), ("log", "abcd")])
def test_a_spool_that_is_damaged_or_too_new_is_one_line_and_status_1(person: Person, words: tuple[str, ...]) -> None:
    person.put("aaaa000001")
    db = connect(person.spool)
    db.pragma("user_version", 99)
    db.close()
    newer = person.run(*words)
    assert (newer.returncode, newer.stderr.count("\n")) == (1, 1)
    assert "newer mailrelay" in newer.stderr
    (person.spool / FILE).write_bytes(b"this is no database, " * 100)
    damaged = person.run(*words)
    assert (damaged.returncode, damaged.stderr.count("\n")) == (1, 1)


def test_damage_that_shows_only_while_reading_is_one_line_too(person: Person) -> None:
    person.put("aaaa000001", [b"bob%d@example.org" % number for number in range(3000)])
    pages = bytearray((person.spool / FILE).read_bytes())
    # Far behind the schema, which is what opening it reads.
    half = len(pages) // 2
    pages[half:] = b"\xa5" * len(pages[half:])
    (person.spool / FILE).write_bytes(pages)
    done = person.run("queue")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "damaged" in done.stderr


def test_a_spool_that_others_can_enter_is_refused(person: Person) -> None:
    person.put("aaaa000001")
    person.spool.chmod(0o755)
    done = person.run("queue")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "chmod 700" in done.stderr


@pytest.mark.parametrize("recipients", [1, 3000])
def test_a_reader_that_goes_away_is_no_error_to_speak_of(person: Person, recipients: int) -> None:
    person.put("aaaa000001", [b"bob%d@example.org" % number for number in range(recipients)])
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "mailrelay", "queue"],
        env=person.environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_terminal_that_cannot_show_a_letter_gets_an_escape(person: Person) -> None:
    person.put("aaaa000001", ["bøb@example.org".encode()])
    done = person.run(
        "queue", env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0
    assert "b\\xf8b@example.org" in done.stdout


@pytest.mark.parametrize(
    ("name", "first"), [("mailq", "the queue is empty"), ("sendmail", "Usage: mailrelay sendmail")]
)
def test_under_the_names_of_old_it_does_what_they_did(person: Person, tmp_path: Path, name: str, first: str) -> None:
    script = tmp_path / name
    script.write_text("from mailrelay.cli.command_line import main\nmain()\n")
    options = ["--help"] if name == "sendmail" else []
    done = subprocess.run(
        [sys.executable, str(script), *options],
        env=person.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith(first)
