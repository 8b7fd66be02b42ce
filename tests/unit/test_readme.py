"""The README says what the code does: its commands, settings, states and test command are held against it."""

import os
import re
import subprocess
import sys

import msgspec
import pytest
from integration import test_every_failure as by_the_remote
from readme import FAILURES, README, ROOT, section, table
from system import test_every_failure as by_real_parts

from mailrelay import config
from mailrelay.cli.command_line import COMMAND_LINE
from mailrelay.mail.lifecycle import ACT_TABLE, ATTEMPT_TABLE, PENDING, State

COMMANDS = COMMAND_LINE.commands
ENVIRON = {"HOME": "/home/you"}


def test_the_settings_shown_are_all_of_them_with_their_defaults() -> None:
    shown = config.parse(re.findall(r"```toml\n(.*?)```", section("Settings"), re.DOTALL)[0], "README", ENVIRON)
    least = config.parse(config.EXAMPLE, "example", ENVIRON)
    assert msgspec.structs.asdict(shown) == msgspec.structs.asdict(least)
    text = section("Settings")
    for struct in (config.Listen, config.Queue, config.Notify):
        for field in struct.__struct_fields__:
            assert re.search(rf"^{field} = ", text, re.MULTILINE), field


def test_every_command_is_in_the_readme_and_the_readme_names_no_other() -> None:
    shown = set(re.findall(r"`mailrelay (\w+)", section("Commands")))
    assert shown == set(COMMANDS)


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)])
def test_every_command_has_a_help(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mailrelay", *words, "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Usage: mailrelay")


def test_the_states_are_those_of_the_code() -> None:
    rows = table("What becomes of a recipient")
    assert [row[0] for row in rows] == ["queued", "active", *(s.value for s in State if s is not State.QUEUED)]


def test_the_moves_are_those_of_the_code() -> None:
    """Where the code leads to a state from, the README says so, and nothing else."""
    shown = {row[0]: set(row[2].split(", ")) for row in table("What becomes of a recipient")}
    moves: dict[str, set[str]] = {state.value: set() for state in State}
    moves["queued"].add("–")
    moves["active"] = {state.value for state in PENDING}
    for to in ATTEMPT_TABLE.values():
        if to is not None:
            moves[to.value].add("active")
    for derived in ("refused", "expired"):
        moves[derived].add("active")
    for (state, _), to in ACT_TABLE.items():
        moves[to.value].add(state.value)
    assert shown == moves


def test_every_way_to_fail_has_a_test_that_holds_the_program_to_its_row() -> None:
    tested = [*by_the_remote.FAILURES, *by_real_parts.FAILURES]
    assert sorted(tested) == sorted(row[0] for row in table(FAILURES))


def test_ci_runs_what_the_readme_says() -> None:
    (command,) = re.findall(r"```sh\n(.*?)\n```", section("Tests"), re.DOTALL)
    assert (ROOT / ".ci" / "run").read_text("utf-8").splitlines()[-1] == command


def test_the_readme_has_no_line_of_more_than_a_screen() -> None:
    assert max(len(line) for line in README.splitlines() if not line.startswith("|")) <= 140


def test_the_one_line_that_is_enough_is_enough() -> None:
    (line,) = re.findall(r"```toml\n\s+(relayhost.*?)\n", section("First mail in five minutes"))
    assert line == config.EXAMPLE
    assert config.parse(line, "README", dict(os.environ)).relayhosts[0].name == "default"


def test_the_forwards_shown_are_settings() -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", section("Other services through the same connection"), re.DOTALL)
    relayhosts = 'relayhost.default.ssh = "me@mail.example.org"\nrelayhost.home.ssh = "home"\n'
    assert [one.relayhost for one in config.parse(relayhosts + shown, "README", ENVIRON).forwards] == [
        "home",
        "default",
    ]
    assert all(field in shown for field in config.Forward.__struct_fields__)
