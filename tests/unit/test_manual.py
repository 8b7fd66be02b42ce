"""The manual pages have every command, option, setting and exit status of the code, and are correct man(7)."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from harness.readme import ROOT, section, table
from harness.readme import page as document

from mailrelay import config, tables

DIRECTORY = ROOT / "contrib" / "man"
PAGES = sorted(DIRECTORY.glob("*.[158]"))
STRUCTS = (config.Listen, config.Submission, config.Relayhost, config.Queue, config.Notify, config.Forward)


def plain(name: str) -> str:
    """The text of a page without its requests, fonts and escapes."""
    text = re.sub(r"\\f[BR]", "", (DIRECTORY / name).read_text("ascii"))
    return text.replace("\\-", "-").replace("\\(aq", "'").replace("\\(ti", "~")


def help_of(*words: str) -> str:
    argv = [sys.executable, "-m", "mailrelay", *words, "--help"]
    return subprocess.run(argv, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"}).stdout


def listed(text: str) -> list[str]:
    """The commands in a help text."""
    found = re.search(r"^Commands:\n((?:  .*\n?)+)", text, re.MULTILINE)
    return re.findall(r"^  (\S+)", found[1], re.MULTILINE) if found else []


def test_the_pages_are_made_from_the_documentation_of_today() -> None:
    made = runpy.run_path(str(DIRECTORY / "make.py"))["pages"]()
    assert made == {path.name: path.read_text("ascii") for path in PAGES}, "run contrib/man/make.py"


def test_every_command_and_every_option_is_in_its_page() -> None:
    commands = listed(help_of())
    assert commands
    for command in commands:
        name = {"queue": "mailrelay-queue.1", "sendmail": "mailrelay-sendmail.8"}.get(command, "mailrelay.1")
        text = plain(name)
        for words in ((command,), *((command, below) for below in listed(help_of(command)))):
            assert f'.SH "MAILRELAY {" ".join(words).upper()}"' in text
            for option in set(re.findall(r"(?<![\w-])--[a-z-]+", help_of(*words))) - {
                "--help",
                "--config",
                "--version",
            }:
                assert option in text, (words, option)


@pytest.mark.parametrize("struct", STRUCTS)
def test_every_setting_is_in_mailrelay_toml(struct: type) -> None:
    text = plain("mailrelay.toml.5")
    for key in tables.keys(struct):
        assert f".TP\n{key}\n" in text, key


def test_every_exit_status_is_in_the_pages_of_commands() -> None:
    rows = table(section(document("commands"), "Exit status"))
    for name in ("mailrelay.1", "mailrelay-queue.1", "mailrelay-sendmail.8"):
        for row in rows:
            assert f".TP\n{row[0]}\n" in plain(name)


@pytest.mark.skipif("MAILRELAY_SYSTEM_TESTS" not in os.environ and not shutil.which("mandoc"), reason="needs mandoc")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_mandoc_has_no_warning(path: Path) -> None:
    found = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", path], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


@pytest.mark.skipif("MAILRELAY_SYSTEM_TESTS" not in os.environ and not shutil.which("man"), reason="needs man")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_man_shows_the_page_without_a_warning(path: Path) -> None:
    environ = os.environ | {"LC_ALL": "C.UTF-8", "MANPAGER": "cat"}
    shown = subprocess.run(["man", "--warnings", "-l", path], capture_output=True, text=True, check=True, env=environ)
    assert shown.stderr == ""
    assert "SEE ALSO" in shown.stdout


@pytest.mark.skipif("TOX_ENV_NAME" not in os.environ, reason="outside of tox the checkout is what is tested")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_wheel_installs_the_page(path: Path) -> None:
    installed = Path(sysconfig.get_path("data")) / "share" / "man" / f"man{path.suffix[1:]}" / path.name
    assert installed.read_bytes() == path.read_bytes()
