"""Conversations with real mail servers through the recorder: after cuts at random moments, the record says which messages
the mail server took. The mailboxes say whether that is so."""

import asyncio
import random
import re
import secrets
import shutil
from pathlib import Path

import pytest
from harness.exim import Exim
from harness.mailboxes import DOMAIN, LOGIN
from harness.postfix import Postfix
from harness.sendmail import Sendmail
from harness.sshd import ALIAS, Sshd

from mailrelay.config import Relayhost
from mailrelay.endpoint import Tcp
from mailrelay.ssh.channel import RelayhostChannel
from mailrelay.ssh.connection import RelayhostConnection
from mailrelay.ssh.dial import dial
from mailrelay.ssh.interface import RecordRead

pytestmark = pytest.mark.system

CUTS = 34
COMMANDS = ("EHLO [127.0.0.1]", f"MAIL FROM:<{LOGIN}@{DOMAIN}>", f"RCPT TO:<alice@{DOMAIN}>", "DATA")
Remote = Sendmail | Postfix | Exim


@pytest.fixture(params=["sendmail", "postfix", "exim"])
def remote(request: pytest.FixtureRequest) -> Remote:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of the account on the relayhost."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    return home


async def connect(sshd: Sshd, smtp: Tcp) -> RelayhostConnection:
    return await dial(Relayhost(name="x", ssh=ALIAS, ssh_config=sshd.ssh_config, smtp=smtp))


def replies(octets: bytes) -> list[bytes]:
    """The last lines of the replies."""
    return re.findall(rb"^(\d{3} .*)\r\n", octets, re.MULTILINE)


async def send(channel: RelayhostChannel, subject: str, lines: int, *, is_whole: bool = True) -> None:
    """Sends a message, and does not wait for the reply to its content."""
    for number, command in enumerate(COMMANDS, start=1):
        came = b""
        while len(replies(came)) < 1:
            data = await channel.read()
            assert data, (number, came)
            came += data
        assert came[:1] in b"23", came
        channel.write(f"{command}\r\n".encode())
    came = b""
    while not came.startswith(b"354"):
        came += await channel.read()
    head = f"From: {LOGIN}@{DOMAIN}\r\nSubject: {subject}\r\n\r\n"
    channel.write(head.encode() + b"a line of text\r\n" * lines + (b".\r\n" if is_whole else b""))


def is_taken(record: RecordRead) -> bool | None:
    """What the record says of the message of `send`."""
    said = replies(record.octets)[len(COMMANDS) + 1 :]
    if said:
        return said[0].startswith(b"2")
    return False if record.is_complete else None


async def test_the_record_is_right_about_messages_whose_connection_was_cut(
    remote: Remote, sshd: Sshd, home: Path, token: str
) -> None:
    sshd.stop()
    sshd.start(SetEnv=f"HOME={home}")
    smtp = Tcp("127.0.0.1", remote.port)
    chance = random.Random(token)
    taken: dict[str, bool | None] = {}
    for number in range(CUTS):
        name, subject = secrets.token_hex(16), f"{token}-{number:02}"
        cut, whole = await connect(sshd, smtp), chance.random() < 0.7
        channel = await cut.open_recorded(name)
        await send(channel, subject, chance.choice((20, 3000)), is_whole=whole)
        await asyncio.sleep(chance.choice((0.0, 0.004, 0.03)) * chance.random())
        if chance.random() < 0.5:
            cut._connection.abort()
        # Otherwise the connection is only silent.
        connection = await connect(sshd, smtp)
        taken[subject] = is_taken((await connection.read_records([name]))[name])
        await connection.remove_records([name])
        await connection.close()
        await cut.close()
    print(f"{type(remote).__name__}: {sum(map(bool, taken.values()))} of {CUTS} taken")
    assert None not in taken.values()
    for subject in (subject for subject, is_there in taken.items() if is_there):
        await asyncio.to_thread(remote.boxes.wait, "alice", subject)
    last = await connect(sshd, smtp)
    channel = await last.open_recorded(secrets.token_hex(16))
    await send(channel, f"{token}-last", 1)
    await channel.read()
    await asyncio.to_thread(remote.boxes.wait, "alice", f"{token}-last")
    await last.close()
    assert {subject: len(remote.boxes.read("alice", subject)) for subject in taken} == {
        subject: int(bool(is_there)) for subject, is_there in taken.items()
    }


@pytest.mark.parametrize("remote", ["sendmail", "postfix"], indirect=True)
@pytest.mark.parametrize("is_whole", [True, False])
async def test_without_perl_sendmail_bs_is_recorded(
    remote: Sendmail | Postfix, sshd: Sshd, home: Path, token: str, is_whole: bool, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "bash", "cat", "tee", "mkdir", "chmod", "grep", "sleep"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    sendmail = programs / "sendmail"
    # The command of a test's mail server names programs of its own.
    sendmail.write_text(f"#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n{remote.on_stdin}\n")
    sendmail.chmod(0o755)
    sshd.stop()
    sshd.start(SetEnv=f"HOME={home} PATH={programs}")
    name = secrets.token_hex(16)
    cut = await connect(sshd, Tcp("localhost", 25))
    channel = await cut.open_recorded(name)
    await send(channel, token, 20, is_whole=is_whole)
    if is_whole:
        assert (await channel.read()).startswith(b"250 ")
    cut._connection.abort()
    connection = await connect(sshd, Tcp("localhost", 25))
    record = (await connection.read_records([name]))[name]
    assert record.is_complete
    assert is_taken(record) is is_whole
    await connection.close()
    await cut.close()
    if is_whole:
        await asyncio.to_thread(remote.boxes.wait, "alice", token)
    else:
        assert remote.boxes.read("alice", token) == []
