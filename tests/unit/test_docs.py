"""What docs/ says is what the code does: settings, commands, exit statuses, JSON keys, states, outcomes, replies."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from harness.readme import FAILURES, PAGES, ROOT, headings, page, section, table, tables

import mailrelay
from mailrelay import config, intake
from mailrelay.listener import replies, transaction
from mailrelay.mail import wording
from mailrelay.mail.handed_in import UNTRIED
from mailrelay.mail.lifecycle import ACT_TABLE, ATTEMPT_TABLE, PENDING, State
from mailrelay.mail.notice import Backend, Concerned, Kind, Notice
from mailrelay.mail.outcome import Cause, Outcome, Reply, Scope, Stage
from mailrelay.mail.triage import Disposition, classify, is_setup_fault
from mailrelay.spool import database
from mailrelay.tables import keys as setting_names

ENVIRON = {"HOME": "/home/you"}
SETTINGS, COMMAND_PAGE, INTERNALS, FAILURE_PAGE = (
    page(name) for name in ("settings", "commands", "internals", "failures")
)
SOURCES = sorted(Path(mailrelay.__file__).parent.rglob("*.py"))


def coded(text: str) -> list[str]:
    """The words that stand in code quotes."""
    return re.findall(r"`([^`]+)`", text)


# Settings.

DEFAULTS = re.findall(r"```toml\n(.*?)```", section(SETTINGS, "All settings with their defaults"), re.DOTALL)[0]
STRUCTS = {
    "listen": config.Listen,
    "submission": config.Submission,
    "relayhost": config.Relayhost,
    "queue": config.Queue,
    "notify": config.Notify,
    "forward": config.Forward,
}


def keys(name: str) -> set[str]:
    """The keys of a table of the settings, as the code has them."""
    return set(setting_names(STRUCTS[name]))


def test_the_defaults_shown_are_those_of_the_code() -> None:
    shown = config.parse(DEFAULTS, "docs", ENVIRON)
    assert shown == config.parse(config.EXAMPLE, "example", ENVIRON)
    written = tomllib.loads(DEFAULTS)
    for name in set(STRUCTS) - {"forward"}:
        found = written[name]["default"] if name == "relayhost" else written[name]
        assert set(found) == keys(name)


@pytest.mark.parametrize("name", STRUCTS)
def test_every_setting_has_its_row_with_its_default(name: str) -> None:
    rows = table(section(SETTINGS, name))
    assert [len(row) for row in rows] == [4] * len(rows)
    assert sorted(row[0] for row in rows) == sorted(f"`{key}`" for key in keys(name))
    if name != "forward":
        block = DEFAULTS.partition(f"[{name}")[2].partition("\n[")[0]
        for key, default, allowed, meaning in rows:
            assert allowed
            assert meaning
            if default != "–":
                assert re.search(
                    rf"^{key.strip('`')} = {re.escape(default.strip('`'))}(?: *#.*)?$", block, re.MULTILINE
                ), key


SETTING = r"`(listen|submission|queue|notify|relayhost)\.(\w+)`"
COMMAND = r"`mailrelay (\w+)(?: ([a-z]+)\b)?"


@pytest.mark.parametrize("words", [SETTING, COMMAND], ids=["settings", "commands"])
def test_settings_and_commands_are_named_in_the_text(words: str) -> None:
    """Else the tests that the named ones exist pass without a look at any."""
    assert any(re.search(words, path.read_text("utf-8")) for path in PAGES)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_named_in_the_text_exist(path: Path) -> None:
    for name, key in re.findall(SETTING, path.read_text("utf-8")):
        assert key in keys(name)


def test_the_forwards_shown_are_settings() -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", page("forwards"), re.DOTALL)
    relayhosts = 'relayhost.default.ssh = "me@mail.example.org"\nrelayhost.home.ssh = "home"\n'
    found = config.parse(relayhosts + shown, "docs", ENVIRON).forwards
    assert [one.relayhost for one in found] == ["home", "default"]
    assert all(field in shown for field in setting_names(config.Forward))


# Commands.


@cache
def help_of(*words: str) -> str:
    argv = [sys.executable, "-m", "mailrelay", *words, "--help"]
    return subprocess.run(argv, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "80"}).stdout


def listed(text: str, title: str) -> list[str]:
    """The first column of a list in a help."""
    return re.findall(r"^  (\S.*?)(?:  |$)", text.partition(f"\n{title}:\n")[2].partition("\n\n")[0], re.MULTILINE)


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", text))


COMMANDS = listed(help_of(), "Commands")
SUBCOMMANDS = listed(help_of("queue"), "Commands")
EVERY_COMMAND = [*((name,) for name in COMMANDS), *(("queue", name) for name in SUBCOMMANDS)]
COMMON = {"--config", "--help", "-h", "--version"}


def test_every_command_has_its_section_and_no_other_has() -> None:
    assert help_of().startswith("Usage: mailrelay")
    titles = [title.split()[1:] for title in headings(COMMAND_PAGE) if title.startswith("mailrelay ")]
    assert sorted(map(tuple, titles)) == sorted(EVERY_COMMAND)


def test_the_options_of_every_command_are_shown() -> None:
    assert {option for row in table(COMMAND_PAGE, "options of every command") for option in options(row[0])} == COMMON


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_every_option_has_its_row_and_no_other_has(words: tuple[str, ...]) -> None:
    help_text = help_of(*words)
    assert help_text.startswith(f"Usage: mailrelay {' '.join(words)} ")
    ours = {option for one in listed(help_text, "Options") for option in options(one)} - COMMON
    below = section(COMMAND_PAGE, f"mailrelay {' '.join(words)}")
    shown = [row[0] for headings, *rows in tables(below) if headings[0] == "option" for row in rows]
    assert {option for one in shown for option in options(one)} == ours


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_named_in_the_text_exist(path: Path) -> None:
    for name, second in re.findall(COMMAND, path.read_text("utf-8")):
        assert name in COMMANDS
        assert name != "queue" or not second or second in SUBCOMMANDS


def test_the_exit_statuses_are_those_of_the_code() -> None:
    assigned = [
        node
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Assign)
    ]
    named = [node for node in assigned if re.match(r"\(?EX_", ast.unparse(node.targets[0]))]
    found = {value for node in named for value in ast.literal_eval(f"[{ast.unparse(node.value).strip('()')}]")}
    assert {int(row[0]) for row in table(section(COMMAND_PAGE, "Exit status"))} == found | {0, 1, 2, 130}


def test_the_exit_statuses_of_status_are_those_of_its_help() -> None:
    said = re.findall(r"(\d) (fine|late|failed|cannot tell)", " ".join(help_of("status").split()))
    assert [(row[0], row[1]) for row in table(section(COMMAND_PAGE, "mailrelay status"), "status")] == said


# JSON.


def keys_of(heading: str) -> dict[str, str]:
    """The keys in a table of commands.md, with what stands beside each."""
    return {key: row[1] for row in table(COMMAND_PAGE, heading) for key in coded(row[0])}


@pytest.fixture
def run(tmp_path: Path) -> "Run":
    return Run(tmp_path)


class Run:
    """Runs commands with settings of their own, and a spool in which a message waits and nothing goes well."""

    def __init__(self, directory: Path) -> None:
        directory.chmod(0o700)
        self._settings = directory / "config.toml"
        self._settings.write_text(
            f'{config.EXAMPLE}\nlisten.address = "unix:{directory}/socket"\nqueue.directory = "{directory}/spool"\n'
            "notify.desktop = false\n"
        )
        self._settings.chmod(0o600)
        self("sendmail", "-f", "me@example.org", "you@example.net", stdin="Subject: hello\n\nhello\n")
        db = database.connect(directory / "spool")
        with database.transaction(db):
            db.execute("INSERT INTO relayhost (name, failures, since, next_dial) VALUES ('default', 1, 1, 2)")
            db.execute("INSERT INTO notice (kind, relayhost, created, reminder) VALUES ('setup', 'default', 1, 2)")
            db.execute("INSERT INTO notice_backend (notice, backend, tries, next_try) VALUES (1, 'command', 1, 2)")
        db.close()

    def __call__(self, *words: str, stdin: str = "") -> str:
        argv = [sys.executable, "-m", "mailrelay", "--config", str(self._settings), *words]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode in (0, 1, 2), done
        return done.stdout


def test_the_keys_of_queue_json_are_shown(run: Run) -> None:
    found = json.loads(run("queue", "--json"))
    assert set(keys_of("key of `queue --json`")) == set(found)
    assert set(keys_of("key of a recipient")) == set(found["recipients"][0])
    shown = json.loads(run("queue", "show", found["queue_id"], "--json"))
    more = keys_of("key that `queue show --json` adds")
    assert set(more) == (set(shown) - set(found)) | (set(shown["recipients"][0]) - set(found["recipients"][0]))
    assert coded(more["timeline"]) == list(shown["timeline"][0])


def test_the_keys_of_status_json_are_shown(run: Run) -> None:
    found = json.loads(run("status", "--json"))
    shown = keys_of("key of `status --json`")
    assert list(shown) == list(found)
    for name in ("relayhosts", "untold"):
        assert coded(shown[name]) == list(found[name][0])


def test_the_keys_of_check_json_are_shown(run: Run) -> None:
    shown = list(keys_of("key of `check --json`"))
    lines = run("check", "--json", "--offline").splitlines()
    assert lines
    assert [list(json.loads(line)) for line in lines] == [shown] * len(lines)


def test_the_keys_of_a_notice_are_shown() -> None:
    concerned = Concerned(b"you@example.net", "bounced", "5.1.1", b"550 no", "RCPT", True)
    found = wording.record(Notice(1, Kind.FAILED, "default", 1.0, concerned=(concerned,)))
    assert set(keys_of("key of a notice")) == set(found)
    assert isinstance(found["recipients"], list)
    assert set(keys_of("key of a recipient in a notice")) == set(found["recipients"][0])


# States.

STATES = table(section(INTERNALS, "What becomes of a recipient"))


def test_the_states_are_those_of_the_code() -> None:
    assert [row[0] for row in STATES] == ["queued", "active", *(s.value for s in State if s is not State.QUEUED)]


def test_the_moves_are_those_of_the_code() -> None:
    """Where the code leads to a state from, the page says so, and nothing else."""
    shown = {row[0]: set(row[2].split(", ")) for row in STATES}
    moves: dict[str, set[str]] = {state.value: set() for state in State}
    for arrives in (State.QUEUED, *UNTRIED):
        moves[arrives.value].add("–")
    moves["active"] = {state.value for state in PENDING}
    for to in ATTEMPT_TABLE.values():
        if to is not None:
            moves[to.value].add("active")
    for derived in ("refused", "expired"):
        moves[derived].add("active")
    for (state, _), to in ACT_TABLE.items():
        moves[to.value].add(state.value)
    assert shown == moves


def test_the_formats_of_the_spool_are_shown() -> None:
    rows = table(section(INTERNALS, "The files of the spool"), "format")
    assert [int(row[0]) for row in rows] == list(range(1, database.VERSION + 1))


# Failures.


def failures_tested_in(module: Path) -> list[str]:
    """The rows that a test module tests: the first argument of every decorator `failure`."""
    calls = (node for node in ast.walk(ast.parse(module.read_text("utf-8"))) if isinstance(node, ast.Call))
    return [ast.literal_eval(call.args[0]) for call in calls if ast.unparse(call.func) == "failure"]


def test_every_way_to_fail_has_a_test_that_holds_the_program_to_its_row() -> None:
    modules = [ROOT / "tests" / kind / "test_every_failure.py" for kind in ("integration", "system")]
    tested = [what for module in modules for what in failures_tested_in(module)]
    assert sorted(tested) == sorted(row[0] for row in table(section(FAILURE_PAGE, FAILURES)))


def test_what_a_reply_means_is_what_the_code_makes_of_it() -> None:
    for stages, code, scope, disposition, does, _fix in table(
        section(FAILURE_PAGE, "What the mail server's reply means")
    ):
        for stage in stages.split(", "):
            outcome = Outcome(Stage(stage), Reply(int(code.replace("xx", "50")), (b"words",)))
            assert (outcome.scope, classify(outcome)) == (Scope(scope), Disposition(disposition)), (stage, code)
            assert is_setup_fault(outcome) == ("setup fault" in does)


def test_every_cause_has_its_row_and_means_what_the_code_makes_of_it() -> None:
    titles = ("When there is no reply", "Replies that refuse mailrelay, not the mail")
    rows = [row for title in titles for row in table(section(FAILURE_PAGE, title))]
    assert {row[0] for row in rows} == {cause.value for cause in Cause} - {"reply"}
    for cause, stages, scope, disposition, setup, what, fix in rows:
        assert what
        assert fix
        for stage in stages.split(", "):
            outcome = Outcome(Stage(stage), cause=Cause(cause), text="words")
            assert (outcome.scope, classify(outcome)) == (Scope(scope), Disposition(disposition)), (cause, stage)
            assert is_setup_fault(outcome) == {"yes": True, "no": False}[setup], cause


def test_every_refusal_of_our_own_has_its_row_and_no_other_has() -> None:
    ours = [value for module in (replies, intake) for value in vars(module).values() if isinstance(value, Reply)]
    written = re.findall(r'Reply\((\d{3}), \(b"(\d\.\d+\.\d+) ', Path(transaction.__file__).read_text("utf-8"))
    made = {(str(one.code), one.status) for one in (*ours, replies.too_big(1)) if one.code >= 400} | set(written)
    rows = table(section(FAILURE_PAGE, "What mailrelay itself refuses"))
    assert sorted(code for row in rows for code in coded(row[0])) == sorted(" ".join(one) for one in made)


@pytest.mark.parametrize(("heading", "words"), [("kind", Kind), ("backend", Backend)])
def test_every_kind_of_notice_and_every_backend_has_its_row(heading: str, words: type[Kind] | type[Backend]) -> None:
    assert [row[0] for row in table(section(FAILURE_PAGE, "Notices"), heading)] == [word.value for word in words]


# Words.


@pytest.mark.parametrize("words", [State, Stage, Scope, Disposition, Kind, Backend], ids=lambda words: words.__name__)
def test_the_glossary_has_the_words_of_the_code(words: type[State]) -> None:
    glossary = page("glossary")
    assert [word.value for word in words if not re.search(rf"\b{re.escape(word.value)}\b", glossary)] == []
