"""The forced command of a key for mail and tracking: what a client can have it do, and what not, under each login shell."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from harness.tcp import server

from mailrelay.endpoint import Tcp
from mailrelay.ssh import mail_question, recorder
from mailrelay.ssh.forced_command import forced_command
from mailrelay.tracking.question import Output, Question

TOKEN, OTHER = "0123456789abcdef" * 2, "f" * 32
ID = "4ABC1234567"


class Key:
    """Whoever has the key, and an account whose home is `home`."""

    def __init__(self, home: Path, forced: str, login: Sequence[str] = ("sh", "-c")) -> None:
        self.home = home
        self._argv = [*login, forced]
        programs = home / "bin"
        programs.mkdir()
        (programs / "postqueue").write_text('#!/bin/sh\necho postqueue "$@"\n')
        (programs / "postqueue").chmod(0o755)
        self.path = f"{programs}:{os.environ['PATH']}"

    async def run(self, command: str | None, sent: bytes = b"") -> bytes:
        environment = {"HOME": str(self.home), "PATH": self.path, "MAIL": str(self.home / "mbox")}
        if command is not None:
            environment["SSH_ORIGINAL_COMMAND"] = command
        done = await asyncio.to_thread(
            subprocess.run,
            self._argv,
            input=sent,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=self.home,
            timeout=30,
            check=False,
        )
        return done.stdout

    def files(self) -> set[str]:
        return {str(path.relative_to(self.home)) for path in self.home.rglob("*") if path.is_file()} - {"bin/postqueue"}


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail\r\n")
    await reader.read()
    writer.close()


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "fish", "tcsh", "csh", "busybox"])
async def test_under_any_login_shell_conversations_are_recorded_and_the_question_is_answered(
    tmp_path: Path, shell: str
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    login = ["busybox", "sh", "-c"] if shell == "busybox" else [shell, "-c"]
    async with server(greet) as port:
        smtp = Tcp("127.0.0.1", port)
        key = Key(tmp_path, forced_command(smtp), login)
        # The client's own mail server does not count.
        said = await key.run(recorder.record_command(TOKEN, Tcp("192.0.2.1", 22)))
        assert said == b"\nrecorded %b\n220 mail\r\n" % TOKEN.encode()
    found = recorder.parse(await key.run(recorder.read_command(OTHER, [TOKEN])), OTHER)
    assert found is not None and found[TOKEN].octets == b"220 mail\r\n"
    assert recorder.parse(await key.run(recorder.remove_command(OTHER, [TOKEN])), OTHER) == {}
    assert key.files() == set()
    sent = mail_question.data(Question([ID], []), OTHER)
    answer = mail_question.parse(await key.run(mail_question.command(), sent), OTHER, time.time())
    assert answer is not None and answer.listing == Output(b"postqueue -j\n", 0)


@pytest.mark.parametrize(
    "command",
    [
        None,
        "",
        "sh",
        "touch x",
        "mailrelay ask",
        "touch x mailrelay ask",
        " mailrelay ask; touch x",
        "x mailrelay ask\ntouch x",
        "x mailrelay ask $(touch x)",
        "x mailrelay record",
        f"x mailrelay record {TOKEN} {TOKEN}x",
        f"x mailrelay record {TOKEN} {TOKEN} {TOKEN}",
        f"x mailrelay record {TOKEN} $(touch${{IFS}}x)",
        f"x mailrelay record {TOKEN.upper()}",
        f"x mailrelay record {TOKEN}x",
        "x mailrelay record ../x",
        "x mailrelay record $(touch${IFS}x)",
        f"$(touch x) mailrelay read {TOKEN}",
        f"{OTHER}x mailrelay remove {TOKEN}",
        f"{OTHER} mailrelay remove -rf /",
        f"{OTHER} mailrelay remove {' '.join([TOKEN] * 51)}",
        f"{OTHER} mailrelay read ../../mbox",
        f"{OTHER} mailrelay read *",
        f"{OTHER} mailrelay write {TOKEN}",
        f"{OTHER} mailrelay ",
    ],
)
async def test_other_commands_do_nothing(tmp_path: Path, command: str | None) -> None:
    key = Key(tmp_path, forced_command(Tcp("127.0.0.1", 1)))
    (tmp_path / "mbox").write_text("secret\n")
    assert await key.run(command) == b""
    assert key.files() == {"mbox"}


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "busybox"])
async def test_hostile_data_of_a_stolen_key_is_no_code(tmp_path: Path, shell: str) -> None:
    """The shell is the one that is called sh there."""
    key = Key(tmp_path, forced_command(Tcp("127.0.0.1", 1)))
    (tmp_path / "mbox").write_text("From x\n\n")
    if shell == "busybox":
        (tmp_path / "bin/sh").write_text('#!/bin/dash\nexec busybox sh "$@"\n')
        (tmp_path / "bin/sh").chmod(0o755)
    else:
        (tmp_path / "bin/sh").symlink_to(str(shutil.which(shell) or pytest.skip(f"there is no {shell}")))
    before = key.files()
    code = "a[$(touch${IFS}x)]"
    lines = [OTHER, f"-C/tmp/-xxxxxx-xx -x $(touch${{IFS}}x) {ID}", f"{code} * -v", ID, "touch x", code]
    for place in (f"file {code} {code}", f"file 1 {code}", f"journal --file=x {code}"):
        sent = "".join(f"{line}\n" for line in (*lines, place, f"{code} {code}")).encode()
        answer = mail_question.parse(await key.run(mail_question.command(), sent), OTHER, time.time())
        assert answer is not None
        # The command and what is to be tried again are not for the client to name.
        assert answer.listing == Output(b"postqueue -j\n", 0)
        assert answer.retried is None
    assert key.files() == before


async def test_the_command_that_lists_the_queue_is_that_of_the_line(tmp_path: Path) -> None:
    key = Key(tmp_path, forced_command(Tcp("127.0.0.1", 1), list_queue='echo "mine  $((6*7))"'))
    sent = mail_question.data(Question([ID], [], command="echo theirs"), OTHER)
    answer = mail_question.parse(await key.run(mail_question.command(), sent), OTHER, time.time())
    assert answer is not None and answer.listing == Output(b"mine  42\n", 0)


async def test_every_other_command_is_the_mail_path_where_that_is_a_command(tmp_path: Path) -> None:
    key = Key(tmp_path, forced_command(Tcp("127.0.0.1", 1), speak_smtp='echo "220 hi"; cat'))
    for command in (None, "touch x", "sendmail -bs"):
        assert await key.run(command, b"QUIT\r\n") == b"220 hi\nQUIT\r\n"
    assert key.files() == set()


async def test_what_a_stolen_key_calls_an_id_is_no_option_of_exim(tmp_path: Path) -> None:
    key = Key(tmp_path, forced_command(Tcp("127.0.0.1", 1)))
    (tmp_path / "bin/postqueue").write_text('#!/bin/sh\necho exim "$@"\n')
    (tmp_path / "bin/postqueue").rename(tmp_path / "bin/exim4")
    lines = (OTHER, "-C/tmp/-xxxxxx-xx 1vO0Qk-0000000IYBn-2sPq", "", "", "", "0", "none", "0 0")
    sent = "".join(f"{line}\n" for line in lines).encode()
    answer = mail_question.parse(await key.run(mail_question.command(), sent), OTHER, time.time())
    assert answer is not None and answer.listing == Output(b"exim -bp 1vO0Qk-0000000IYBn-2sPq\n", 0)
