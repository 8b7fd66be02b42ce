"""SSH servers that send without end, and how often a dial that fails connects."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest
from harness.hostile_ssh import (
    MSG_DEBUG,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_USERAUTH_BANNER,
    VERSION,
    FloodingRemote,
    dial_alone,
    kexinit,
    packet,
    scripted,
    string,
    write_config,
)
from harness.loops import on_both_loops
from harness.remotes import fault_of
from harness.remotes import no_agent_and_no_home as no_agent_and_no_home

from mailrelay.config import Relayhost
from mailrelay.demo.remote import HOST, RemoteSSHServer
from mailrelay.mail.outcome import Cause
from mailrelay.ssh.dial import dial
from mailrelay.ssh.flow_control import FlowControl
from mailrelay.ssh.interface import Fault

MOST = 16_000_000
"""Octets by which a dial may make the process grow."""
MANY_NAMES = b",".join([b"curve25519-sha256", *[b"a"] * 100_000])

PLAIN = {
    "KEXINIT": (VERSION, kexinit() * 200),
    "KEXINIT with many names": (VERSION, kexinit(MANY_NAMES)),
    "KEXINIT with no name in common": (VERSION, kexinit(MANY_NAMES[18:])),
    "IGNORE": (VERSION, packet(MSG_IGNORE, string(b"x")) * 1000),
    "IGNORE behind KEXINIT": (VERSION + kexinit(), packet(MSG_IGNORE, string(b"x")) * 1000),
    "long IGNORE": (VERSION, packet(MSG_IGNORE, string(b"x" * 200_000))),
    "DEBUG": (VERSION, packet(MSG_DEBUG, b"\1" + string(b"x") + string(b"")) * 1000),
    "one packet": (VERSION + b"\x7f\xff\xff\xff", b"x" * 65536),
    "a line": (b"", b"x" * 65536),
    "lines": (b"", (b"x" * 8000 + b"\r\n") * 8),
    "a version": (b"SSH-2.0-", b"x" * 65536),
}

Send = Callable[[asyncssh.SSHServerConnection], None]
BANNER: Send = lambda to: to.send_packet(MSG_USERAUTH_BANNER, string(b"hello " * 1000), string(b""))  # noqa: E731
IGNORE: Send = lambda to: to.send_packet(MSG_IGNORE, string(b"x" * 30_000))  # noqa: E731
GLOBAL: Send = lambda to: to.send_packet(MSG_GLOBAL_REQUEST, string(b"x"), b"\0")  # noqa: E731
HOST_KEYS: Send = lambda to: to.send_packet(  # noqa: E731
    MSG_GLOBAL_REQUEST, string(b"hostkeys-00@openssh.com"), b"\0", string(b"x" * 1000)
)


def new_keys(to: asyncssh.SSHServerConnection) -> None:
    """Begins a key exchange, once the last one has ended."""
    if to._kex_complete:
        to._send_kexinit()
        to._kexinit_sent = True


@pytest.fixture
def quiet(tmp_path: Path) -> Path:
    """An ssh_config for a port on which nothing listens."""
    (tmp_path / "quiet").mkdir()
    return write_config(tmp_path / "quiet", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("what", PLAIN)
async def test_a_server_that_sends_without_end_costs_one_dial_little_memory(
    tmp_path: Path, quiet: Path, what: str
) -> None:
    async with scripted(*PLAIN[what]) as server:
        dialled = await dial_alone(write_config(tmp_path, server.port), quiet)
        assert server.connections == 1
    assert dialled.grown < MOST
    assert dialled.cause == Cause.SSH_REFUSED
    assert (HOST in dialled.text or f"port {server.port} of 127.0.0.1" in dialled.text) and dialled.text.endswith(".")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("send", [BANNER, IGNORE], ids=["banners", "IGNORE"])
async def test_the_same_between_the_host_key_and_the_login(tmp_path: Path, quiet: Path, send: Send) -> None:
    async with FloodingRemote(tmp_path) as remote:
        remote.before_login = send
        dialled = await dial_alone(remote.ssh_config, quiet)
    assert dialled.grown < MOST
    assert dialled.cause == Cause.SSH_REFUSED
    assert dialled.text == (
        f"The SSH server of {HOST} does not work correctly: it sent more than 1 MB before the login was complete."
    )


@on_both_loops
@pytest.mark.parametrize(
    "send", [IGNORE, GLOBAL, HOST_KEYS, new_keys], ids=["IGNORE", "GLOBAL", "host keys", "new keys"]
)
async def test_a_connection_ends_whose_server_sends_without_end_after_the_login(tmp_path: Path, send: Send) -> None:
    async with FloodingRemote(tmp_path) as remote:
        remote.after_login = send
        connection = await dial(remote.relayhost())
        await connection.wait_closed()
        with pytest.raises(Fault) as caught:
            await connection.open_channel()
        assert caught.value.outcome.cause == Cause.SSH_REFUSED
        assert "packets without mail within 10 s" in caught.value.outcome.text
        await connection.close()


@pytest.mark.parametrize(
    ("first", "cause"),
    [
        (b"", Cause.SSH_REFUSED),
        (b"220 mail.example.org ESMTP\r\n", Cause.SSH_REFUSED),
        (b"Exceeded MaxStartups\r\n", Cause.UNREACHABLE),
        (VERSION, Cause.LOST),
        (VERSION + kexinit(), Cause.LOST),
        (VERSION + kexinit(b"none"), Cause.SSH_REFUSED),
    ],
    ids=["closes", "SMTP", "busy", "version", "KEXINIT", "nothing in common"],
)
async def test_a_dial_that_fails_connects_once(tmp_path: Path, first: bytes, cause: Cause) -> None:
    async with scripted(first) as server:
        relayhost = Relayhost(name="x", ssh=HOST, ssh_config=write_config(tmp_path, server.port))
        assert (await fault_of(relayhost)).cause is cause
        # A second connection, if there were one, would be in the queue of the server by now.
        await asyncio.sleep(0)
        assert server.connections == 1


class CountingRemote(FloodingRemote):
    connected = 0

    def ssh_server(self) -> asyncssh.SSHServer:
        self.connected += 1
        return super().ssh_server()


async def test_a_refused_login_and_a_host_key_that_does_not_match_connect_once(tmp_path: Path) -> None:
    async with CountingRemote(tmp_path) as remote:
        remote.refuse_key = True
        assert (await fault_of(remote.relayhost())).cause is Cause.AUTH_REFUSED
        assert remote.connected == 1
        await remote.change_host_key()
        assert (await fault_of(remote.relayhost())).cause is Cause.HOST_KEY_CHANGED
        assert remote.connected == 2
        remote.known_hosts.write_text("")
        assert (await fault_of(remote.relayhost())).cause is Cause.HOST_KEY_UNKNOWN
        assert remote.connected == 3


async def test_nothing_is_written_while_keys_are_exchanged() -> None:
    class Connection:
        _kex_complete = False

        def _recv_data(self) -> None: ...

        def get_extra_info(self, _name: str) -> None:
            return None

    connection = Connection()
    flow = FlowControl([connection])  # type: ignore[list-item]
    waiting = asyncio.ensure_future(flow.drain())
    await asyncio.sleep(0)
    connection._recv_data()
    await asyncio.sleep(0)
    assert not waiting.done()
    connection._kex_complete = True
    connection._recv_data()
    await waiting


async def test_nothing_is_written_while_the_connection_behind_a_jump_host_is_full() -> None:
    class Connection:
        _kex_complete = True

        def _recv_data(self) -> None: ...
        def pause_writing(self) -> None: ...
        def resume_writing(self) -> None: ...

        def get_extra_info(self, _name: str) -> None:
            return None

    first, second = Connection(), Connection()
    flow = FlowControl([first, second])  # type: ignore[list-item]
    second.pause_writing()
    first.pause_writing()
    waiting = asyncio.ensure_future(flow.drain())
    await asyncio.sleep(0)
    first.resume_writing()
    await asyncio.sleep(0)
    assert not waiting.done()
    second.resume_writing()
    await waiting


class EndlessStderr(RemoteSSHServer):
    async def run_command(
        self, stdin: asyncssh.SSHReader[bytes], stdout: asyncssh.SSHWriter[bytes], stderr: asyncssh.SSHWriter[bytes]
    ) -> None:
        stdout.write(b"220 x ESMTP\r\n")
        with contextlib.suppress(asyncssh.Error, OSError):
            while True:
                stderr.write(b"x" * 65536)
                await stderr.drain()


@on_both_loops
async def test_a_command_that_fills_its_stderr_without_end_is_ended(tmp_path: Path) -> None:
    class Verbose(FloodingRemote):
        def ssh_server(self) -> asyncssh.SSHServer:
            return EndlessStderr(self)

    async with Verbose(tmp_path) as remote:
        connection = await dial(remote.relayhost(command="sendmail -bs"))
        channel = await connection.open_channel()
        with pytest.raises(ConnectionError, match=r"sent more than 4\.1 MB to its stderr"):
            while await channel.read():
                pass
        await connection.close()


async def test_a_server_that_takes_a_few_octets_in_one_packet_gets_no_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirm = asyncssh.SSHServerConnection.send_channel_open_confirmation

    def small(
        self: asyncssh.SSHServerConnection, send: int, receive: int, window: int, size: int, *rest: bytes
    ) -> None:
        confirm(self, send, receive, window, 1, *rest)

    monkeypatch.setattr(asyncssh.SSHServerConnection, "send_channel_open_confirmation", small)
    async with FloodingRemote(tmp_path) as remote:
        connection = await dial(remote.relayhost())
        with pytest.raises(Fault, match="takes only 1 octets in one packet"):
            await connection.open_channel()
        await connection.close()
