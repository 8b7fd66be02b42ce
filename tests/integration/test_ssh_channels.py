"""Channels through a real SSH server: what opens, what is refused, what breaks, and that bytes arrive as they are."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from harness.loops import on_uvloop
from harness.tcp import echo, server

from mailrelay.config import Relayhost
from mailrelay.demo.remote import HOST, Remote
from mailrelay.endpoint import Tcp
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.ssh import connection, greeting
from mailrelay.ssh.channel import READ_SIZE
from mailrelay.ssh.connection import RelayhostConnection
from mailrelay.ssh.dial import dial, read_hops
from mailrelay.ssh.hop_connection import HopConnection, connect_hops
from mailrelay.ssh.interface import Fault
from mailrelay.ssh.tcp import octets_acknowledged, tcp_state

# As the daemon runs; the dialling tests run on the standard loop.
pytestmark = on_uvloop


@asynccontextmanager
async def linked(relayhost: Relayhost) -> AsyncIterator[RelayhostConnection]:
    link = await dial(relayhost)
    try:
        yield link
    finally:
        await link.close()


async def fault_of(link: RelayhostConnection) -> Outcome:
    with pytest.raises(Fault) as caught:
        await link.open_channel()
    outcome = caught.value.outcome
    assert outcome.stage is Stage.CHANNEL
    assert outcome.text.isprintable() and outcome.fix.isprintable()
    return outcome


async def test_a_wire_carries_five_megabytes_both_ways_unchanged(tmp_path: Path) -> None:
    sent = bytes(range(256)) * (5 * 1024 * 1024 // 256)

    async with (
        Remote(tmp_path) as remote,
        server(echo) as port,
        linked(remote.relayhost(smtp=Tcp("127.0.0.1", port))) as link,
    ):
        wire = await link.open_channel()

        async def write() -> None:
            for start in range(0, len(sent), 1 << 18):
                wire.write(sent[start : start + (1 << 18)])
                await wire.drain()

        writing = asyncio.create_task(write())
        came = bytearray()
        while len(came) < len(sent):
            data = await wire.read()
            assert 0 < len(data) <= READ_SIZE
            came += data
        await writing
        assert came == sent
        wire.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="this kernel cannot be told to acknowledge at once")
async def test_all_that_comes_is_acknowledged_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acknowledged: list[int] = []

    class Counting:
        """The socket of a connection."""

        def __init__(self, real: socket.socket) -> None:
            self._real = real

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

        def setsockopt(self, level: int, option: int, value: int) -> None:
            self._real.setsockopt(level, option, value)
            if (level, option) == (socket.IPPROTO_TCP, socket.TCP_QUICKACK):
                acknowledged.append(value)

    extra_info = HopConnection.get_extra_info

    def counting(connection: HopConnection, name: str, default: object = None) -> object:
        found = extra_info(connection, name, default)
        return Counting(found) if name == "socket" and found is not None else found

    monkeypatch.setattr(HopConnection, "get_extra_info", counting)

    async with Remote(tmp_path) as remote, linked(remote.relayhost()) as link:
        wire = await link.open_channel()
        assert acknowledged, "the channel was confirmed"
        assert await wire.read()
        seen = len(acknowledged)
        wire.write(b"NOOP\r\n")
        assert await wire.read()
        assert len(acknowledged) > seen
    assert set(acknowledged) == {1}


async def test_who_writes_waits_until_the_connection_below_has_room_and_not_for_ever_when_it_goes(
    tmp_path: Path,
) -> None:
    async with Remote(tmp_path) as remote:
        relayhost = remote.relayhost()
        hops = await read_hops(relayhost)
        [hop_connection] = connections = await connect_hops(hops)
        link = RelayhostConnection(relayhost, hops[-1], connections)
        wire = await link.open_channel()
        assert (await wire.read()).startswith(b"220 ")
        # As the transport calls it when its buffer is full.
        hop_connection.pause_writing()
        waiting = asyncio.ensure_future(wire.drain())
        # What is written goes out meanwhile, and is answered.
        wire.write(b"NOOP\r\n")
        assert (await wire.read()).startswith(b"250 ")
        assert not waiting.done()
        hop_connection.resume_writing()
        await waiting
        hop_connection.pause_writing()
        waiting = asyncio.ensure_future(wire.drain())
        hop_connection.abort()
        await link.wait_closed()
        await asyncio.wait({waiting})
        await link.close()


async def test_one_connection_carries_several_wires_at_once(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote, linked(remote.relayhost()) as link:
        wires = [await link.open_channel() for _ in range(4)]
        assert [await wire.read() for wire in wires] == [b"220 demo-remote ESMTP\r\n"] * 4
        assert (remote.logins, remote.channels) == (1, 4)


async def test_the_end_of_the_dialogue_is_the_end_of_the_wire_and_not_an_error(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote, linked(remote.relayhost()) as link:
        wire = await link.open_channel()
        wire.write(b"QUIT\r\n")
        await wire.drain()
        came = b""
        while data := await wire.read():
            came += data
        assert came.endswith(b"221 2.0.0 bye\r\n")
        assert link.is_up
        wire.close()


async def test_a_connection_that_breaks_is_an_error_at_every_read_and_write(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote, linked(remote.relayhost()) as link:
        wire = await link.open_channel()
        await wire.read()
        await remote.down()
        for _ in range(2):
            with pytest.raises(ConnectionError):
                assert await wire.read()
        with pytest.raises(ConnectionError):
            wire.write(b"NOOP\r\n")
            await wire.drain()
        outcome = await fault_of(link)
        assert outcome.cause is Cause.LOST


async def test_forwarding_that_is_prohibited_is_told_with_both_ways_out(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        remote.forbid_forwarding = True
        async with linked(remote.relayhost()) as link:
            outcome = await fault_of(link)
            assert outcome.cause is Cause.FORWARDING_PROHIBITED
            assert "AllowTcpForwarding" in outcome.fix and "command =" in outcome.fix
            assert link.is_up


async def test_a_mail_server_that_is_down_is_told_apart_from_a_connection_that_is(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote, linked(remote.relayhost()) as link:
        await remote.mail_down()
        outcome = await fault_of(link)
        assert outcome.cause is Cause.SMTP_CLOSED
        assert "localhost:25" in outcome.text
        await remote.up()
        assert await (await link.open_channel()).read()


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"Welcome!\nYou have 220 mails.\n",
        b"2200 Euro\r\n" * 100,
        b"a fortune of 220 Euro\n" * 50_000,
        b"\x1b]0;me@host\x07\x1b[0m",
        b"Welcome! ",
        b"2026-11-28 10:00:00\r220 days up\r",
    ],
)
async def test_a_command_serves_where_forwarding_is_prohibited_whatever_its_shell_says_first(
    tmp_path: Path, noise: bytes
) -> None:
    async with Remote(tmp_path) as remote:
        remote.forbid_forwarding = True
        remote.noise = noise
        async with linked(remote.relayhost(command="sendmail -bs")) as link:
            wire = await link.open_channel()
            assert (await wire.read()).startswith(b"220 demo-remote ESMTP")
            wire.write(b"QUIT\r\n")
            assert await wire.read() == b"221 2.0.0 bye\r\n"
            wire.close()


async def test_a_command_that_is_not_there_is_told_in_its_own_last_words(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote, linked(remote.relayhost(command="sendmial -bs\x1b")) as link:
        outcome = await fault_of(link)
        assert outcome.cause is Cause.NOT_SMTP
        assert "not found" in outcome.text and "sendmial" in outcome.fix


async def test_output_behind_the_greeting_is_skipped_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "LONG_QUIET", 0.1)

    async with Remote(tmp_path) as remote:

        async def talkative(verb: str, _argument: bytes) -> bytes | None:
            return b"220 demo-remote ESMTP\r\nYou have mail." if verb == "GREETING" else None

        remote.policy = talkative
        async with linked(remote.relayhost(command="sendmail -bs")) as link:
            wire = await link.open_channel()
            assert await wire.read() == b"220 demo-remote ESMTP\r\n"
            wire.write(b"QUIT\r\n")
            assert await wire.read() == b"221 2.0.0 bye\r\n"
            wire.close()


async def test_a_command_that_goes_on_about_something_else_is_given_up_within_bounds(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        remote.noise = b"la la la\n" * 10_000
        async with linked(remote.relayhost(command="sing")) as link:
            outcome = await fault_of(link)
            assert outcome.cause is Cause.NOT_SMTP
            assert len(outcome.text) < 1000


async def test_a_half_open_connection_is_noticed(tmp_path: Path) -> None:
    """The network swallows everything from a moment on: no reset, no end, only silence."""

    async with Remote(tmp_path) as remote:
        gone = asyncio.Event()

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                if not gone.is_set():
                    writer.write(data)

        async def middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", remote.ssh_port)
            with suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(pump(reader, back), pump(there, writer))
            back.close()
            writer.close()

        async with server(middle) as port:
            text = remote.ssh_config.read_text().replace(f"Port {remote.ssh_port}", f"Port {port}")
            alias = (
                f"HostKeyAlias [127.0.0.1]:{remote.ssh_port}\n    ServerAliveInterval 1\n    ServerAliveCountMax 1\n"
            )
            remote.ssh_config.write_text(text + f"    {alias}")
            async with linked(remote.relayhost()) as link:
                wire = await link.open_channel()
                await wire.read()
                gone.set()
                await link.wait_closed()
                with pytest.raises(ConnectionError):
                    await wire.read()
                assert not link.is_up


async def test_a_command_that_never_greets_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "GREETING_TIMEOUT", 0.2)

    async with Remote(tmp_path) as remote:

        async def never(verb: str, argument: bytes) -> bytes | None:
            await asyncio.Event().wait()
            return None

        remote.policy = never
        async with linked(remote.relayhost(command="sendmail -bs")) as link:
            assert (await fault_of(link)).cause is Cause.LOST


async def test_closing_twice_or_after_the_end_raises_nothing(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        link = await dial(remote.relayhost())
        wire = await link.open_channel()
        await remote.down()
        await link.close()
        await link.close()
        wire.close()
        wire.close()
        assert not link.is_up


async def test_the_whole_path_leaves_the_persons_own_ssh_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))

    async with Remote(tmp_path) as remote:
        async with linked(remote.relayhost()) as link:
            assert await (await link.open_channel()).read()
        assert list(home.iterdir()) == []
        assert HOST in remote.ssh_config.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not report it")
async def test_a_response_of_the_server_is_heard_and_its_acknowledgement_is_known(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote, linked(remote.relayhost()) as link:
        began = time.monotonic()
        await link.response()
        state = link.tcp_state
        assert state is not None
        # The kernel counts in ticks of up to 10 ms.
        assert state.silence <= time.monotonic() - began + 0.02
        assert 0 < state.round_trip < 60


async def test_a_wait_for_a_response_ends_with_the_connection(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote, linked(remote.relayhost()) as link:
        for connection in remote.connections:
            connection.abort()
        await link.response()
        await link.wait_closed()
        await link.response()
        assert not link.is_up


async def test_the_state_of_what_is_not_tcp_is_not_known() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert tcp_state(ours) is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not report it")
async def test_octets_that_the_server_has_acknowledged_are_known(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote, linked(remote.relayhost()) as link:
        sock = link._connection.get_extra_info("socket")
        before = octets_acknowledged(sock)
        assert before > 0
        wire = await link.open_channel()
        wire.write(b"x" * 10_000)
        await wire.drain()
        async with asyncio.timeout(10):
            while octets_acknowledged(sock) < before + 10_000:
                await asyncio.sleep(0.01)
