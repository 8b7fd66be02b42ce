"""The files for mail clients in contrib/clients: with them, each client hands its mail to mailrelay.

A client that is not installed is skipped. The files are the real ones, but for the port and the addresses.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness.client_programs import environment, has_come, needs, received, run
from harness.processes import until
from harness.readme import ROOT, page
from harness.terminal import Terminal

from mailrelay import config

CLIENTS = ROOT / "contrib" / "clients"
FILES = sorted(path.name for path in CLIENTS.iterdir())
MESSAGE = "From: me@example.org\nTo: you@example.net\nSubject: hello\n\nhello\n"


def has_git_send_email() -> bool:
    if shutil.which("git") is None:
        return False
    programs = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    return Path(programs, "git-send-email").exists()


def written(home: Path, name: str, port: str = "") -> Path:
    """A copy of a file, for a listener on another port."""
    file = home / name
    file.write_text((CLIENTS / name).read_text("utf-8").replace("7777", port or "7777"))
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_at_its_top_where_it_goes_and_is_in_the_documentation(name: str) -> None:
    first = (CLIENTS / name).read_text("utf-8").splitlines()[0]
    assert re.match(r"[#;] .*(Append to|Copy to|Add such a line|Append)", first)
    assert f"(../contrib/clients/{name})" in page("clients")
    assert f"(clients/{name})" in (ROOT / "contrib" / "README.md").read_text("utf-8")


@pytest.mark.skipif(not has_git_send_email(), reason="git send-email is not installed")
async def test_git_send_email(tmp_path: Path) -> None:
    patch = tmp_path / "0001.patch"
    patch.write_text(f"From {'0' * 40} Mon Sep 17 00:00:00 2001\n{MESSAGE}")

    def client(port: str) -> None:
        settings = str(written(tmp_path, "git-send-email.gitconfig", port))
        me = {f"GIT_{who}_{what}": "me@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        env = environment(tmp_path, GIT_CONFIG_GLOBAL=settings, **me)
        argv = ["git", "send-email", "--quiet", "--confirm=never", "--suppress-cc=all"]
        run([*argv, "--from=me@example.org", "--to=you@example.net", str(patch)], env, tmp_path)

    has_come(await received(tmp_path / "spool", client))


@needs("msmtp")
async def test_msmtp(tmp_path: Path) -> None:
    def client(port: str) -> None:
        argv = ["msmtp", f"--file={written(tmp_path, 'msmtprc', port)}", "you@example.net"]
        run(argv, environment(tmp_path), tmp_path, MESSAGE)

    has_come(await received(tmp_path / "spool", client))


@needs("mutt")
async def test_mutt(tmp_path: Path) -> None:
    def client(port: str) -> None:
        argv = ["mutt", "-n", "-F", str(written(tmp_path, "muttrc", port)), "-e", "set copy=no"]
        argv += ["-e", "set from=me@example.org", "-s", "hello", "you@example.net"]
        run(argv, environment(tmp_path), tmp_path, "hello\n")

    has_come(await received(tmp_path / "spool", client))


@needs("s-nail")
async def test_s_nail(tmp_path: Path) -> None:
    def client(port: str) -> None:
        env = environment(tmp_path, MAILRC=str(written(tmp_path, "mailrc", port)))
        run(["s-nail", "-:u", "-s", "hello", "you@example.net"], env, tmp_path, "hello\n")

    has_come(await received(tmp_path / "spool", client))


@needs("alpine")
async def test_alpine(tmp_path: Path) -> None:
    def client(port: str) -> None:
        # Without a folder for sent messages, which alpine would ask about.
        written(tmp_path, "pinerc", port).rename(tmp_path / ".pinerc")
        with (tmp_path / ".pinerc").open("a") as file:
            file.write('default-fcc=""\n')
        argv = ["alpine", "-url", "mailto:you@example.net?subject=hello&body=hello"]
        alpine = Terminal(argv, environment(tmp_path, TERM="vt100"), columns=100, lines=40)
        alpine.read_to("Postpone")
        alpine.press("\x18")
        alpine.read_to(r"Send message\?")
        alpine.press("y")
        # It may end before it has drawn that the message is sent.
        alpine.read_to("Message sent|Alpine finished")
        assert alpine.end() == 0

    has_come(await received(tmp_path / "spool", client))


@needs("aerc")
async def test_aerc(tmp_path: Path) -> None:
    settings = tmp_path / ".config" / "aerc"
    settings.mkdir(parents=True)
    for folder in ("cur", "new", "tmp"):
        (tmp_path / "Mail" / "Sent" / folder).mkdir(parents=True)
    sent = tmp_path / "Mail" / "Sent" / "cur"
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho hello >"$1"\n')
    editor.chmod(0o755)

    def client(port: str) -> None:
        accounts = settings / "accounts.conf"
        accounts.write_text(f"[me]\nsource = maildir://{tmp_path}/Mail\ncopy-to = Sent\n")
        with accounts.open("a") as file:
            file.write(written(tmp_path, "aerc-accounts.conf", port).read_text())
        accounts.chmod(0o600)
        env = environment(tmp_path, TERM="xterm", EDITOR=str(editor), XDG_RUNTIME_DIR=str(tmp_path))
        aerc = Terminal(["aerc"], env, columns=100, lines=40)
        aerc.read_to("Connected")
        aerc.press(":compose -H 'To: you@example.net' -H 'Subject: hello'\r")
        aerc.read_to(r"Send this email\?")
        aerc.press("y")
        # It copies what it has sent, and says nothing of it.
        until(lambda: list(sent.iterdir()), "aerc has sent the message")
        aerc.press(":quit -f\r")
        # Its status says nothing: forced to quit, it may stumble over what it was doing.
        aerc.end()

    has_come(await received(tmp_path / "spool", client))


class Spool:
    """A home in which `~/.local/bin/mailrelay` is mailrelay, with a spool of its own; `words` are on its PATH."""

    def __init__(self, home: Path) -> None:
        home.chmod(0o700)
        self._settings = home / "config.toml"
        self._settings.write_text(f'{config.EXAMPLE}\nqueue.directory = "{home}/spool"\nnotify.desktop = false\n')
        self._settings.chmod(0o600)
        programs = home / ".local" / "bin"
        programs.mkdir(parents=True)
        program = programs / "mailrelay"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mailrelay "$@"\n')
        program.chmod(0o755)
        path = f"{programs}:{os.environ['PATH']}"
        python = {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}
        # A checkout is found from its own directory, and programs start in another one.
        python.setdefault("PYTHONPATH", str(Path(config.__file__).parents[1]))
        self.environment = environment(home, PATH=path, MAILRELAY_CONFIG=str(self._settings), **python)

    def recipients(self) -> list[str]:
        argv = [sys.executable, "-m", "mailrelay", "queue", "--json"]
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=True)
        return [to["address"] for line in done.stdout.splitlines() for to in json.loads(line)["recipients"]]


@needs("php")
def test_php(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    code = 'exit(mail("you@example.net", "hello", "hello") ? 0 : 1);'
    run(["php", "-n", "-c", str(written(tmp_path, "php.ini")), "-r", code], spool.environment, tmp_path)
    assert spool.recipients() == ["you@example.net"]


def test_a_cron_job(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    (line,) = [line for line in (CLIENTS / "crontab").read_text("utf-8").splitlines() if not line.startswith("#")]
    command = line.split(maxsplit=5)[5].replace("my-command", "echo done").replace("me@example.org", "you@example.net")
    # As cron runs it: by sh, with a short PATH.
    run(["/bin/sh", "-c", command], spool.environment | {"PATH": "/usr/bin:/bin"}, tmp_path)
    assert spool.recipients() == ["you@example.net"]
