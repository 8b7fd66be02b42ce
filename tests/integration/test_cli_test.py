"""`mailrelay test` as a process, before a daemon and the embedded remote."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from harness.daemon import served
from harness.person import BOUNCED, Person

import mailrelay
from mailrelay import config
from mailrelay.cli.base import Failed
from mailrelay.cli.test import follow
from mailrelay.demo.remote import Remote
from mailrelay.spool import lock
from mailrelay.spool.database import connect, transaction

SETTINGS = """\
[listen]
address = "127.0.0.1:0"
[relayhost.default]
ssh = "demo-remote"
ssh_config = "{directory}/remote/ssh_config"
track = "off"
[queue]
directory = "{directory}/spool"
retry = ["1h"]
[notify]
desktop = false
"""


class Scene:
    def __init__(self, directory: Path, remote: Remote) -> None:
        self.file = directory / "config.toml"
        self.remote = remote

    async def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "mailrelay", *words]
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(Path(mailrelay.__file__).parent.parent),
            "MAILRELAY_CONFIG": str(self.file),
        }
        return await asyncio.to_thread(
            subprocess.run, argv, capture_output=True, text=True, timeout=60, env=environment, check=False
        )


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    (directory / "remote").mkdir()
    file = directory / "config.toml"
    file.touch(mode=0o600)
    file.write_text(SETTINGS.format(directory=directory))
    async with Remote(directory / "remote") as remote, served(config.load(file)):
        yield Scene(directory, remote)


async def greylisting(verb: str, _argument: bytes) -> bytes | None:
    return b"451 4.7.1 greylisted" if verb == "RCPT" else None


async def test_a_letter_that_is_taken_is_told_to_its_end(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        done = await here.run("test", "bob@example.net", "--from", "me@example.org")
        (letter,) = here.remote.received
    assert (done.returncode, done.stderr) == (0, "")
    heads = [line.split(" s  ")[-1].split(",")[0] for line in done.stdout.splitlines() if " s  " in line]
    assert heads[:4] == ["accepted", "dialled", "attempt", "sent"]
    assert done.stdout.splitlines()[-1] == "your server took it"
    assert (letter.sender, letter.recipients) == (b"me@example.org", (b"bob@example.net",))
    assert b"\r\nFrom: <me@example.org>\r\nTo: <bob@example.net>\r\nSubject: mailrelay test" in letter.content


async def test_a_refusal_is_told_in_the_words_of_the_remote(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        done = await here.run("test", "refused@example.net")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert " is bounced: 550 5.1.1 " in line


def test_what_has_not_happened_yet_is_not_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    person = Person(tmp_path)
    person.put("aaaa000001", age=5)
    person.attempt(BOUNCED)
    begun = time.time() - 5
    db = connect(person.spool)
    with transaction(db):
        db.execute("UPDATE notice_backend SET tries = 1, why = 'no Maildir', next_try = ?", (begun + 60,))
    db.close()
    with lock.lock(person.spool), pytest.raises(Failed, match="is bounced"):
        follow(config.load(person.config), 1, begun, begun + 60)
    heads = [line.split(" s  ")[1] for line in capsys.readouterr().out.splitlines() if " s  " in line]
    assert heads == ["accepted", "attempt", "bounced at RCPT"]


async def test_a_letter_that_is_to_come_later_is_not_waited_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.remote.policy = greylisting
        done = await here.run("test", "bob@example.net")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "waits, and is tried again in " in line
    assert "451 4.7.1 greylisted" in line


async def test_a_way_that_is_shut_is_told_with_its_fixing_step_and_a_fixed_one_is_tried_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.remote.refuse_key = True
        shut = await here.run("test", "bob@example.net")
        assert shut.returncode == 1
        (line,) = shut.stderr.splitlines()
        assert "refused the login of demo" in line
        assert "authorized_keys" in line
        # After a refused login the daemon waits a while before it knocks again; the person need not.
        here.remote.refuse_key = False
        fixed = await here.run("test", "bob@example.net")
        assert (fixed.returncode, fixed.stderr) == (0, "")
        assert len(here.remote.received) == 2


async def test_a_remote_that_does_not_answer_in_time_is_waited_for_no_longer_than_was_asked(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.remote.mute()
        done = await here.run("test", "bob@example.net", "--wait", "0.5")
    assert done.returncode == 1
    assert " is not sent after 0 s; " in done.stderr
    assert "`mailrelay queue show " in done.stderr


def test_with_nobody_serving_no_letter_is_left_behind(tmp_path: Path) -> None:
    person = Person(tmp_path)
    done = person.run("test", "bob@example.net")
    assert (done.returncode, done.stderr) == (
        1,
        "mailrelay: the daemon is not running: start `mailrelay serve`; no message was sent\n",
    )
    assert not person.spool.exists()


@pytest.mark.parametrize("word", ["a@b, c@d", "", "a@@b", "a b@c"])
def test_what_is_not_one_address_is_wrong_usage(tmp_path: Path, word: str) -> None:
    done = Person(tmp_path).run("test", word)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
