"""The completions that the wheel installs: commands, options and queue ids, in the shells themselves."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness.readme import ROOT

from mailrelay import config

DIRECTORY = ROOT / "contrib" / "completions"
FILES = {"bash": "mailrelay", "zsh": "_mailrelay", "fish": "mailrelay.fish"}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell with `mailrelay` on its path, and one message in its queue."""
    tmp_path.chmod(0o700)
    settings = tmp_path / "config.toml"
    settings.write_text(f'{config.EXAMPLE}\nqueue.directory = "{tmp_path}/spool"\nnotify.desktop = false\n')
    settings.chmod(0o600)
    script = tmp_path / "bin" / "mailrelay"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m mailrelay "$@"\n')
    script.chmod(0o755)
    made = os.environ | {"PATH": f"{script.parent}:{os.environ['PATH']}", "MAILRELAY_CONFIG": str(settings)}
    argv = ["mailrelay", "sendmail", "-f", "me@example.org", "you@example.net"]
    subprocess.run(argv, input="Subject: hello\n\n", text=True, check=True, env=made, capture_output=True)
    return made


def queue_id(environ: dict[str, str]) -> str:
    listing = subprocess.run(["mailrelay", "queue", "--json"], capture_output=True, check=True, env=environ).stdout
    return str(json.loads(listing)["queue_id"])


def bash(environ: dict[str, str], *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    script = (
        'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_mailrelay_completion mailrelay; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    argv = ["bash", "-c", script, str(DIRECTORY / FILES["bash"]), *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environ, timeout=30)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_and_queue_ids(environ: dict[str, str]) -> None:
    assert bash(environ, "mailrelay", "queue", "ho") == ["hold"]
    assert "--content" in bash(environ, "mailrelay", "queue", "show", "--c")
    whole = queue_id(environ)
    for command in ("show", "hold", "release", "cancel", "drop", "retry", "resend", "edit"):
        assert bash(environ, "mailrelay", "queue", command, whole[:3]) == [whole]
    assert bash(environ, "mailrelay", "log", whole[:3]) == [whole]
    assert bash(environ, "mailrelay", "queue", "hold", whole, "") == []


def test_an_unusable_spool_or_settings_file_offers_nothing_and_prints_nothing(environ: dict[str, str]) -> None:
    Path(environ["MAILRELAY_CONFIG"]).write_text("no = settings")
    assert bash(environ, "mailrelay", "queue", "show", "") == []


@pytest.mark.skipif("MAILRELAY_SYSTEM_TESTS" not in os.environ and not shutil.which("fish"), reason="needs fish")
def test_fish_completes_queue_ids_with_their_subjects(environ: dict[str, str]) -> None:
    script = f"source {DIRECTORY / FILES['fish']}; complete -C 'mailrelay queue show '"
    done = subprocess.run(
        ["fish", "--private", "-c", script], capture_output=True, text=True, check=True, env=environ, timeout=30
    )
    assert f"{queue_id(environ)}\thello" in done.stdout


@pytest.mark.skipif("MAILRELAY_SYSTEM_TESTS" not in os.environ and not shutil.which("zsh"), reason="needs zsh")
def test_zsh_accepts_its_file() -> None:
    done = subprocess.run(["zsh", "-n", DIRECTORY / FILES["zsh"]], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(("shell", "name"), FILES.items())
def test_the_files_are_those_of_click(environ: dict[str, str], shell: str, name: str) -> None:
    asked = environ | {"_MAILRELAY_COMPLETE": f"{shell}_source"}
    made = subprocess.run(["mailrelay"], capture_output=True, text=True, check=False, env=asked).stdout
    assert made == (DIRECTORY / name).read_text("utf-8")
