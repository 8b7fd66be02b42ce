"""Conversations through the recorder on a relayhost: octets pass unchanged, and what the mail server says is known later."""

import asyncio
import hashlib
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from harness.dropbear import Dropbear
from harness.loops import on_uvloop
from harness.processes import missing, program
from harness.real_servers import sshd
from harness.sshd import ALIAS, Sshd
from harness.tcp import echo, server

from mailrelay.config import Relayhost
from mailrelay.endpoint import Tcp
from mailrelay.mail.outcome import Cause
from mailrelay.ssh import recorder
from mailrelay.ssh.channel import RelayhostChannel
from mailrelay.ssh.connection import RelayhostConnection
from mailrelay.ssh.dial import dial
from mailrelay.ssh.interface import Fault, NotRecorded

__all__ = ["sshd"]

pytestmark = on_uvloop

TOKEN = "0123456789abcdef" * 2
OTHER = "f" * 32
DIRECTORY = Path(".cache/mailrelay")


class There:
    """The relayhost: an account with a home of its own. `sshd` is as the test wants it after `start`."""

    def __init__(self, sshd: Sshd, home: Path) -> None:
        self.sshd = sshd
        self.home = home
        home.mkdir()

    def start(self, path: str = "", **options: object) -> None:
        """path: the PATH there. options: of sshd_config."""
        self.sshd.stop()
        environment = f"HOME={self.home}" + (f" PATH={path}" if path else "")
        self.sshd.start(SetEnv=environment, **options)

    @property
    def directory(self) -> Path:
        return self.home / DIRECTORY

    @property
    def record(self) -> Path:
        return self.directory / TOKEN

    @property
    def recorder(self) -> int:
        """The process id of the recorder."""
        return int(self.record.read_text("latin-1").split()[0])

    def octets(self) -> bytes:
        return self.record.read_bytes().partition(b"\n")[2]


@pytest.fixture
def there(tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> There:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    there = There(sshd, tmp_path / "home")
    there.start()
    return there


@asynccontextmanager
async def connected(there: There, port: int, host: str = "127.0.0.1") -> AsyncIterator[RelayhostConnection]:
    connection = await dial(
        Relayhost(name="x", ssh=ALIAS, ssh_config=there.sshd.ssh_config, smtp=Tcp(host, port)),
    )
    try:
        yield connection
    finally:
        await connection.close()


async def all_of(channel: RelayhostChannel) -> bytes:
    came = bytearray()
    while data := await channel.read():
        came += data
    return bytes(came)


class MailServer:
    """Greets, replies "250 " and the line to each line, and at the end of the client's octets says `last`."""

    def __init__(self, last: bytes = b"421 bye\r\n") -> None:
        self.last = last
        self.connections = 0
        self.said = b""
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.at_end = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.said = b""

        def say(octets: bytes) -> None:
            self.said += octets
            writer.write(octets)

        say(b"220 mail\r\n")
        with suppress(ConnectionError):
            while line := await reader.readline():
                say(b"250 " + line)
            self.at_end.set()
            await self.may_end.wait()
            say(self.last)
            await writer.drain()
        writer.close()


@pytest.mark.parametrize(
    ("greeting", "replies"),
    [
        (b"220 mail\r\n", 1),
        (b"220-mail\r\n220-one\r\n220 two\r\n", 1),
        (b"220 mail\n", 1),
        (b"421 not now\r\n", 0),
        (b"554-no\r\n554 220 no\r\n", 0),
    ],
)
async def test_the_recorder_sends_ehlo_behind_a_good_greeting_so_that_no_round_trip_is_waited_for(
    there: There, greeting: bytes, replies: int
) -> None:
    heard = bytearray()

    async def mail_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # In two parts, with time between them: a greeting that has not ended is no greeting.
        half = len(greeting) // 2
        writer.write(greeting[:half])
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.readline(), 0.05)
            raise AssertionError("something came before the end of the greeting")
        writer.write(greeting[half:])
        while line := await reader.readline():
            heard.extend(line)
            writer.write(b"250 " + line)
        writer.close()

    async with server(mail_server) as port, connected(there, port) as connection:
        channel = await connection.open_recorded(TOKEN, with_ehlo=True)
        assert channel.is_ehlo_sent
        came = b""
        while came.count(b"\n") < greeting.count(b"\n") + replies:
            came += await channel.read()
        assert came == greeting + b"250 EHLO [127.0.0.1]\r\n" * replies
        channel.write(b"NOOP\r\n")
        channel.write_eof()
        assert await all_of(channel) == b"250 NOOP\r\n"
        [record] = (await connection.read_records([TOKEN])).values()
        assert record.octets == came + b"250 NOOP\r\n"
    assert bytes(heard) == b"EHLO [127.0.0.1]\r\n" * replies + b"NOOP\r\n"


async def test_octets_pass_unchanged_both_ways_and_are_in_the_record(there: There) -> None:
    sent = secrets.token_bytes(8 * 1024 * 1024)

    async with server(echo) as port, connected(there, port) as connection:
        channel = await connection.open_recorded(TOKEN)

        async def write() -> None:
            for start in range(0, len(sent), 1 << 18):
                channel.write(sent[start : start + (1 << 18)])
                await channel.drain()
            channel.write_eof()

        writing = asyncio.create_task(write())
        came = await all_of(channel)
        await writing
        assert hashlib.sha256(came).digest() == hashlib.sha256(sent).digest()
        [(token, record)] = (await connection.read_records([TOKEN])).items()
        assert token == TOKEN
        assert hashlib.sha256(record.octets).digest() == hashlib.sha256(sent).digest()
        assert (record.is_complete, record.is_growing) == (True, False)


async def test_a_record_is_what_the_mail_server_said_in_a_file_for_the_account_alone(there: There) -> None:
    mail_server = MailServer()
    async with server(mail_server) as port, connected(there, port) as connection:
        channel = await connection.open_recorded(TOKEN)
        assert await channel.read() == b"220 mail\r\n"
        channel.write(b"EHLO x\r\n")
        assert await channel.read() == b"250 EHLO x\r\n"
        channel.write_eof()
        assert await channel.read() == b"421 bye\r\n"
        assert await channel.read() == b""
        assert there.directory.stat().st_mode & 0o7777 == 0o700
        assert there.record.stat().st_mode & 0o7777 == 0o600
        record = (await connection.read_records([TOKEN, OTHER]))[TOKEN]
        assert record.octets == mail_server.said
        assert record.is_complete
        await connection.remove_records([TOKEN])
        assert list(there.directory.iterdir()) == []
        assert await connection.read_records([TOKEN]) == {}


async def test_before_the_first_record_there_is_none_to_read_and_none_to_remove(there: There) -> None:
    async with server(MailServer()) as port, connected(there, port) as connection:
        assert await connection.read_records([TOKEN]) == {}
        assert await connection.read_records([]) == {}
        await connection.remove_records([])
        assert list(there.home.iterdir()) == []


async def test_after_a_connection_that_was_killed_the_record_has_what_nobody_heard(there: There) -> None:
    mail_server = MailServer(last=b"250 taken\r\n")
    mail_server.may_end.clear()
    async with server(mail_server) as port:
        async with connected(there, port) as connection:
            channel = await connection.open_recorded(TOKEN)
            await channel.read()
            channel.write(b"one\r\n")
            await channel.read()
            connection._connection.abort()
            await mail_server.at_end.wait()
        mail_server.may_end.set()
        async with connected(there, port) as connection:
            record = (await connection.read_records([TOKEN]))[TOKEN]
    assert record.octets == b"220 mail\r\n250 one\r\n250 taken\r\n"
    assert record.is_complete


async def test_a_recorder_whose_connection_is_only_silent_is_ended_for_its_record(there: There) -> None:
    mail_server = MailServer()
    async with server(mail_server) as port, connected(there, port) as silent, connected(there, port) as connection:
        channel = await silent.open_recorded(TOKEN)
        await channel.read()
        record = (await connection.read_records([TOKEN]))[TOKEN]
        assert record.octets == b"220 mail\r\n421 bye\r\n"
        assert record.is_complete
        assert await channel.read() == b""


async def test_a_record_whose_mail_server_takes_its_time_grows_and_is_complete_later(
    there: There, monkeypatch: pytest.MonkeyPatch, scripts: None
) -> None:
    monkeypatch.setattr(recorder, "ENDING", 0.3)
    mail_server = MailServer(last=b"250 late\r\n")
    mail_server.may_end.clear()
    async with server(mail_server) as port, connected(there, port) as silent, connected(there, port) as connection:
        await silent.open_recorded(TOKEN)
        record = (await connection.read_records([TOKEN]))[TOKEN]
        assert (record.octets, record.is_complete, record.is_growing) == (b"220 mail\r\n", False, True)
        mail_server.may_end.set()
        while record.is_growing:
            record = (await connection.read_records([TOKEN]))[TOKEN]
        assert record.octets == b"220 mail\r\n250 late\r\n"
        assert record.is_complete


async def test_the_record_of_a_recorder_that_was_killed_is_not_complete(there: There) -> None:
    async with server(MailServer()) as port, connected(there, port) as connection:
        channel = await connection.open_recorded(TOKEN)
        await channel.read()
        os.kill(there.recorder, signal.SIGKILL)
        with pytest.raises(ConnectionError, match="the command was ended"):
            await channel.read()
        record = (await connection.read_records([TOKEN]))[TOKEN]
    assert (record.octets, record.is_complete, record.is_growing) == (b"220 mail\r\n", False, False)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGPIPE])
async def test_a_recorder_outlives_the_signals_of_a_lost_login(there: There, number: int) -> None:
    async with server(MailServer()) as port, connected(there, port) as connection:
        channel = await connection.open_recorded(TOKEN)
        await channel.read()
        os.kill(there.recorder, number)
        channel.write(b"one\r\n")
        assert await channel.read() == b"250 one\r\n"


async def test_a_reset_by_the_mail_server_is_not_the_end_of_what_it_said(there: There) -> None:
    async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n")
        await writer.drain()
        await asyncio.sleep(0)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await greeted.wait()
        writer.transport.abort()

    greeted = asyncio.Event()
    async with server(reset) as port, connected(there, port) as connection:
        channel = await connection.open_recorded(TOKEN)
        assert await channel.read() == b"220 mail\r\n"
        greeted.set()
        assert await channel.read() == b""
        record = (await connection.read_records([TOKEN]))[TOKEN]
    assert (record.octets, record.is_complete) == (b"220 mail\r\n", False)


async def test_a_mail_server_that_talks_without_end_does_not_fill_the_disk(
    there: There, monkeypatch: pytest.MonkeyPatch, scripts: None
) -> None:
    monkeypatch.setattr(recorder, "MAX_RECORD", 100_000)
    said = b"220-la la la\r\n" * 50_000

    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    async with server(talk) as port, connected(there, port) as connection:
        channel = await connection.open_recorded(TOKEN)
        assert await all_of(channel) == said
        record = (await connection.read_records([TOKEN]))[TOKEN]
    assert len(record.octets) <= 100_000
    assert said.startswith(record.octets)
    assert not record.is_complete


async def test_a_recorder_to_which_nobody_listens_is_ended_for_its_record_too(there: There) -> None:
    said = b"250-la la la\r\n" * 600_000

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()
        await writer.drain()
        writer.close()

    async with server(talk) as port, connected(there, port) as deaf, connected(there, port) as connection:
        await deaf.open_recorded(TOKEN)
        record = (await connection.read_records([TOKEN]))[TOKEN]
    assert len(record.octets) == len(said)
    assert record.octets == said
    assert record.is_complete


async def test_a_mail_server_that_is_down_is_a_fault_and_leaves_no_record(there: There) -> None:
    async with server(echo) as port:
        pass
    async with connected(there, port) as connection:
        with pytest.raises(Fault) as caught:
            await connection.open_recorded(TOKEN)
    assert caught.value.outcome.cause is Cause.SMTP_CLOSED
    assert "Connection refused" in caught.value.outcome.text
    assert list(there.directory.iterdir()) == []


def make_a_file(directory: Path) -> None:
    directory.parent.mkdir()
    directory.write_text("")


def make_a_link(directory: Path) -> None:
    directory.parent.mkdir()
    target = directory.parent / "elsewhere"
    target.mkdir()
    directory.symlink_to(target)


def make_it_somebody_elses(directory: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a directory away")
    directory.mkdir(parents=True)
    os.chown(directory, 65534, 65534)


def make_its_record(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / TOKEN).symlink_to(directory.parent / "target")


@pytest.fixture(params=["perl", "no perl"])
def tools(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The PATH of the relayhost: with perl, or with only what the recorder without perl needs. sendmail is a mail server of
    the test's."""
    return "" if request.param == "perl" else without_perl(tmp_path)


def without_perl(tmp_path: Path) -> str:
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("sh", "bash", "cat", "tee", "mkdir", "chmod", "rm", "find", "grep", "sleep", "ps"):
        if found := shutil.which(name):
            (directory / name).symlink_to(found)
    sendmail = directory / "sendmail"
    sendmail.write_text(
        f"#!{sys.executable} -u\n"
        "import sys\n"
        "say = sys.stdout.write\n"
        "say(f'220 mail {sys.argv[1]}\\r\\n')\n"
        "for line in sys.stdin:\n"
        "    say(f'250 {line.strip()}\\r\\n')\n"
        "    if line.startswith('QUIT'): sys.exit()\n"
        "say('421 bye\\r\\n')\n"
    )
    sendmail.chmod(0o755)
    return str(directory)


@pytest.mark.parametrize("prepare", [make_a_file, make_a_link, make_it_somebody_elses, make_its_record])
async def test_where_no_file_can_be_written_safely_nothing_is_recorded_and_no_mail_server_is_asked(
    there: There, prepare: Callable[[Path], None], tools: str
) -> None:
    prepare(there.directory)
    there.start(tools)
    mail_server = MailServer()
    async with server(mail_server) as port, connected(there, port if not tools else 25, "localhost") as connection:
        with pytest.raises(NotRecorded) as caught:
            await connection.open_recorded(TOKEN)
        assert await connection.read_records([TOKEN]) == {}
    assert ".cache/mailrelay" in str(caught.value) and str(caught.value).isprintable()
    assert not caught.value.is_temporary
    assert not mail_server.connections
    assert not (there.home / ".cache/target").exists()
    if prepare is make_a_link:
        assert list((there.home / ".cache/elsewhere").iterdir()) == []


async def test_without_perl_sendmail_talks_and_tee_records(there: There, tmp_path: Path) -> None:
    there.start(without_perl(tmp_path))
    async with connected(there, 25, "localhost") as connection:
        channel = await connection.open_recorded(TOKEN)
        assert await channel.read() == b"220 mail -bs\r\n"
        channel.write(b"EHLO x\r\n")
        assert await channel.read() == b"250 EHLO x\r\n"
        assert there.record.stat().st_mode & 0o7777 == 0o600
        channel.write(b"QUIT\r\n")
        assert await all_of(channel) == b"250 QUIT\r\n"
        record = (await connection.read_records([TOKEN]))[TOKEN]
    assert record.octets == b"220 mail -bs\r\n250 EHLO x\r\n250 QUIT\r\n"
    assert record.is_complete


@pytest.mark.parametrize("is_lost", [False, True])
async def test_without_perl_a_recorder_is_ended_for_its_record_too(there: There, tmp_path: Path, is_lost: bool) -> None:
    there.start(without_perl(tmp_path))
    async with connected(there, 25, "localhost") as first:
        channel = await first.open_recorded(TOKEN)
        await channel.read()
        if is_lost:
            first._connection.abort()
        async with connected(there, 25, "localhost") as connection:
            record = (await connection.read_records([TOKEN]))[TOKEN]
    assert record.octets == b"220 mail -bs\r\n421 bye\r\n"
    assert record.is_complete


async def test_without_perl_the_record_of_a_recorder_that_was_killed_is_not_complete(
    there: There, tmp_path: Path
) -> None:
    there.start(without_perl(tmp_path))
    async with connected(there, 25, "localhost") as connection:
        channel = await connection.open_recorded(TOKEN)
        await channel.read()
        os.kill(there.recorder, signal.SIGKILL)
        record = (await connection.read_records([TOKEN]))[TOKEN]
    # The mail server lives on, and may say more.
    assert record.octets.startswith(b"220 mail -bs\r\n")
    assert not record.is_complete


async def test_without_perl_only_the_relayhosts_own_mail_server_is_recorded(there: There, tmp_path: Path) -> None:
    there.start(without_perl(tmp_path))
    async with connected(there, 2525, "localhost") as connection:
        with pytest.raises(NotRecorded, match="there is no perl"):
            await connection.open_recorded(TOKEN)


async def test_as_many_conversations_are_recorded_as_sshd_opens_sessions(there: There) -> None:
    there.start(MaxSessions=2)
    async with server(MailServer()) as port, connected(there, port) as connection:
        channels = [await connection.open_recorded(token) for token in (TOKEN, OTHER)]
        with pytest.raises(NotRecorded) as caught:
            await connection.open_recorded("a" * 32)
        assert caught.value.is_temporary
        assert await (await connection.open_channel()).read() == b"220 mail\r\n"
        assert [await channel.read() for channel in channels] == [b"220 mail\r\n"] * 2


@pytest.mark.parametrize("forced", ["false", "echo This key is for mail alone; exit 1", "echo 220 hello", "cat"])
async def test_a_key_that_runs_no_command_of_ours_keeps_no_record_and_reads_none(there: There, forced: str) -> None:
    authorized = there.sshd.directory / "authorized_keys"
    authorized.write_text(f'restrict,port-forwarding,command="{forced}" {authorized.read_text()}')
    async with server(MailServer()) as port, connected(there, port) as connection:
        if forced != "cat":
            with pytest.raises(NotRecorded, match="cannot be started there") as caught:
                await connection.open_recorded(TOKEN)
            assert not caught.value.is_temporary
        with pytest.raises(NotRecorded, match="not complete"):
            await connection.read_records([TOKEN])
        assert connection.is_up


async def test_a_key_whose_forced_command_is_a_mail_server_is_given_up_at_its_greeting(there: There) -> None:
    there.start(ForceCommand="printf '220-mail\\r\\n220 mail\\r\\n'; cat")
    async with connected(there, 25) as connection:
        with pytest.raises(NotRecorded, match="Another program answers there instead of the recorder: 220-mail"):
            await connection.open_recorded(TOKEN)


async def test_a_recorder_that_does_not_start_is_given_up(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "START", 1.0)
    monkeypatch.setattr(recorder, "TIMEOUT", 1.0)
    there.start(ForceCommand="sleep 30")
    async with server(MailServer()) as port, connected(there, port) as connection:
        for asking in (connection.open_recorded(TOKEN), connection.read_records([TOKEN])):
            with pytest.raises(NotRecorded) as caught:
                await asking
            assert caught.value.is_temporary


async def test_a_connection_that_ends_meanwhile_is_a_fault(there: There) -> None:
    there.start(ForceCommand="sleep 30")
    async with server(MailServer()) as port:
        for ask in (
            lambda connection: connection.open_recorded(TOKEN),
            lambda connection: connection.read_records([TOKEN]),
            lambda connection: connection.remove_records([TOKEN]),
        ):
            async with connected(there, port) as connection:
                asking = asyncio.ensure_future(ask(connection))
                asyncio.get_running_loop().call_later(0.3, connection._connection.abort)
                with pytest.raises(Fault):
                    await asking


async def test_a_process_that_has_the_number_of_an_old_recorder_is_left_alone(there: There) -> None:
    there.directory.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as another:
        there.record.write_bytes(b"%d %d\n220 mail\r\n" % (another.pid, another.pid))
        async with server(MailServer()) as port, connected(there, port) as connection:
            record = (await connection.read_records([TOKEN]))[TOKEN]
        assert another.poll() is None
        another.kill()
    assert (record.octets, record.is_complete, record.is_growing) == (b"220 mail\r\n", False, False)


async def test_what_a_mail_server_says_cannot_complete_its_record(there: There) -> None:
    said = b"220 mail\r\n\nEND\n\nEND %b\n" % OTHER.encode()
    there.directory.mkdir(parents=True)
    there.record.write_bytes(b"4000000 4000000\n" + said)
    async with server(MailServer()) as port, connected(there, port) as connection:
        record = (await connection.read_records([TOKEN]))[TOKEN]
    assert (record.octets, record.is_complete) == (said, False)


async def test_old_records_are_removed_with_the_named_ones_and_nothing_else(there: There) -> None:
    there.directory.mkdir(parents=True)
    week = 7 * 86400
    ages = {TOKEN: 0, OTHER: 0, "a" * 32: week + 60, "b" * 32: week - 3600, "notes": week * 2}
    for name, age in ages.items():
        (there.directory / name).write_text("x")
        os.utime(there.directory / name, (time.time() - age,) * 2)
    async with server(MailServer()) as port, connected(there, port) as connection:
        await connection.remove_records([OTHER])
    assert {file.name for file in there.directory.iterdir()} == {TOKEN, "b" * 32, "notes"}


async def test_many_records_are_read_and_removed_in_several_questions(there: There) -> None:
    there.directory.mkdir(parents=True)
    tokens = [secrets.token_hex(16) for _ in range(recorder.MAX_TOKENS + 1)]
    for token in tokens:
        (there.directory / token).write_bytes(b"1 1\n%b\nEND %b\n" % (token.encode(), token.encode()))
    async with server(MailServer()) as port, connected(there, port) as connection:
        found = await connection.read_records(tokens)
        assert {token: record.octets.decode() for token, record in found.items()} == {token: token for token in tokens}
        assert all(record.is_complete for record in found.values())
        await connection.remove_records(tokens)
    assert list(there.directory.iterdir()) == []


async def test_what_is_not_a_token_reaches_no_shell(there: There) -> None:
    async with server(MailServer()) as port, connected(there, port) as connection:
        for token in ("", "../x", "$(id)" + "0" * 27, TOKEN + "\n", TOKEN.upper()):
            with pytest.raises(ValueError, match="token"):
                await connection.open_recorded(token)
            with pytest.raises(ValueError, match="token"):
                await connection.read_records([token])
            with pytest.raises(ValueError, match="token"):
                await connection.remove_records([token])


async def test_a_mail_path_by_command_is_not_recorded(there: There) -> None:
    async with server(MailServer()) as port, connected(there, port) as connection:
        with pytest.raises(NotRecorded):
            await connection.with_command("sendmail -bs").open_recorded(TOKEN)


async def test_what_a_login_shell_prints_first_is_skipped(there: There) -> None:
    noise = f"echo 220 hello; echo recorded {OTHER}; printf 'Welcome! recorded {TOKEN}x'; echo mail >&2"
    (there.home / ".bashrc").write_text(f"{noise}\n")
    (there.home / ".zshenv").write_text(f"{noise}\n")
    async with server(MailServer()) as port, connected(there, port) as connection:
        channel = await connection.open_recorded(TOKEN)
        assert await channel.read() == b"220 mail\r\n"
        channel.write_eof()
        assert await all_of(channel) == b"421 bye\r\n"
        assert (await connection.read_records([TOKEN]))[TOKEN].octets == b"220 mail\r\n421 bye\r\n"


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "fish", "tcsh", "csh", "busybox"])
async def test_any_login_shell_runs_the_recorder_and_the_questions(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    argv = [shell, "sh", "-c"] if shell == "busybox" else [shell, "-c"]

    async def run(command: str, sent: bytes = b"") -> bytes:
        return (
            await asyncio.to_thread(
                subprocess.run,
                [*argv, command],
                input=sent,
                stdout=subprocess.PIPE,
                env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
                timeout=30,
                check=True,
            )
        ).stdout

    async with server(MailServer()) as port:
        said = await run(recorder.record_command(TOKEN, Tcp("localhost", port)), b"one\r\n")
        assert said == b"\nrecorded %b\n220 mail\r\n250 one\r\n421 bye\r\n" % TOKEN.encode()
        found = recorder.parse(await run(recorder.read_command(OTHER, [TOKEN])), OTHER)
        assert found is not None
        assert found[TOKEN].octets == b"220 mail\r\n250 one\r\n421 bye\r\n"
        assert found[TOKEN].is_complete
        assert recorder.parse(await run(recorder.remove_command(OTHER, [TOKEN])), OTHER) == {}
        assert list((tmp_path / DIRECTORY).iterdir()) == []


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
@pytest.mark.parametrize("name", ["recorder.sh", "records.sh"])
async def test_shellcheck_finds_nothing_in_the_scripts(name: str) -> None:
    # Fields are split on purpose (SC2086), and an unusable directory may be left in the middle of a condition (SC2015).
    checked = ["shellcheck", "--shell", "sh", "--exclude", "SC2086,SC2015,SC3067", "-"]
    done = subprocess.run(
        checked, input=recorder._script(name), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


async def test_a_record_that_the_disk_did_not_take_whole_is_not_complete(tmp_path: Path) -> None:
    mail_server = MailServer(last=b"250 late\r\n")
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    async with server(mail_server) as port:
        command = recorder.record_command(TOKEN, Tcp("localhost", port))
        done = await asyncio.to_thread(
            subprocess.run,
            ["sh", "-c", f'trap "" XFSZ; ulimit -f 1; {command}'],
            input=b"x" * 2000 + b"\r\n",
            stdout=subprocess.PIPE,
            env=environment,
            timeout=30,
            check=True,
        )
        # The octets pass all the same.
        assert done.stdout.endswith(mail_server.said)
        asked = await asyncio.to_thread(
            subprocess.run,
            ["sh", "-c", recorder.read_command(OTHER, [TOKEN])],
            stdout=subprocess.PIPE,
            env=environment,
            timeout=30,
            check=True,
        )
    found = recorder.parse(asked.stdout, OTHER)
    assert found is not None
    assert mail_server.said.startswith(found[TOKEN].octets)
    assert not found[TOKEN].is_complete


async def test_dropbear_runs_the_recorder_too(there: There, tmp_path: Path) -> None:
    public = (there.sshd.directory / "client.pub").read_text()
    dropbear = Dropbear(tmp_path / "dropbear", public)
    dropbear.start()
    try:
        there.sshd.ssh_config.write_text(
            there.sshd.ssh_config.read_text().replace(f"Port {there.sshd.port}", f"Port {dropbear.port}")
        )
        known_hosts = there.sshd.directory / "known_hosts"
        known_hosts.write_text(f"[127.0.0.1]:{dropbear.port} {dropbear.host_key}\n")
        async with server(MailServer()) as port:
            async with connected(there, port) as connection:
                channel = await connection.open_recorded(TOKEN)
                await channel.read()
                connection._connection.abort()
            async with connected(there, port) as connection:
                record = (await connection.read_records([TOKEN]))[TOKEN]
                assert record.octets == b"220 mail\r\n421 bye\r\n"
                assert record.is_complete
            # dropbear may close a connection whose only session has just ended.
            async with connected(there, port) as connection:
                await connection.remove_records([TOKEN])
        assert list((dropbear.directory / "home" / DIRECTORY).iterdir()) == []
    finally:
        dropbear.stop()


@pytest.fixture
def scripts() -> Iterator[None]:
    """The scripts are made anew, with the limits of this test."""
    recorder._script.cache_clear()
    yield
    recorder._script.cache_clear()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[There]:
    """A relayhost whose home is a disk of 64 KiB."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    home = tmp_path / "home"
    unshare, mount = program("unshare", "util-linux"), program("mount", "mount")
    if subprocess.run([unshare, "--mount", mount, "-t", "tmpfs", "tmpfs", tmp_path], check=False).returncode:
        missing("the right to mount a file system")
    script = f'{mount} -t tmpfs -o size=64k tmpfs "$0" && exec "$@"'
    there = There(Sshd(tmp_path / "small", within=(unshare, "--mount", "sh", "-c", script, str(home))), home)
    there.start()
    yield there
    there.sshd.stop()


async def test_a_disk_that_gets_full_there_breaks_no_conversation_and_the_record_proves_nothing(small: There) -> None:
    mail_server = MailServer()
    async with server(mail_server) as port, connected(small, port) as connection:
        channel = await connection.open_recorded(TOKEN)
        sent = [b"%d %s\r\n" % (number, b"x" * 1000) for number in range(300)]
        channel.write(b"".join(sent))
        channel.write_eof()
        assert await all_of(channel) == b"220 mail\r\n" + b"".join(b"250 " + line for line in sent) + b"421 bye\r\n"
        [record] = (await connection.read_records([TOKEN])).values()
        assert not record.is_complete
        assert mail_server.said.startswith(record.octets)


async def test_on_a_full_disk_there_no_record_can_be_kept(small: There) -> None:
    async with server(MailServer()) as port, connected(small, port) as connection:
        first = await connection.open_recorded(TOKEN)
        first.write(b"x" * 1000 + b"\r\n" + b"y\r\n" * 50_000)
        first.write_eof()
        await all_of(first)
        with pytest.raises(NotRecorded, match=r"a file in \.cache/mailrelay"):
            await connection.open_recorded(OTHER)
