"""Forwards through a real SSH server: one connection for all, on demand, and bytes that arrive as they were sent."""

import asyncio
import hashlib
import logging
import os
import random
import socket
import struct
import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from harness.loops import on_uvloop
from harness.relay import RelayHarness, running_relay
from harness.tcp import echo, server
from harness.webserver import PAGE, get, web

from mailrelay.config import Forward, Listen
from mailrelay.endpoint import Unix
from mailrelay.grammar import listen_endpoint, remote_endpoint
from mailrelay.listener.forwarding import Forwarding, forward
from mailrelay.listener.sockets import AddressTaken
from mailrelay.mail.outcome import Cause
from mailrelay.relay import connector
from mailrelay.relay import scheduler as scheduler_room
from mailrelay.spool.actions import dial_now

# As the daemon runs; not everything there is as the standard loop has it.
pytestmark = on_uvloop


@asynccontextmanager
async def forwarded(
    at: RelayHarness, to: str, listen: str = "127.0.0.1:0", **door: object
) -> AsyncIterator[Forwarding]:
    settings = Forward(listen=listen_endpoint(listen, {}), relayhost="default", to=remote_endpoint(to))
    forwarding = await forward(settings, Listen(**door), at.scheduler.stream)  # type: ignore[arg-type]
    try:
        yield forwarding
    finally:
        await forwarding.close()


async def connect(forwarding: Forwarding) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = forwarding.addresses[0]
    if isinstance(address, Unix):
        return await asyncio.open_unix_connection(address.path)
    return await asyncio.open_connection(address.host, address.port)


async def hung_up(at: RelayHarness) -> None:
    async def holds() -> bool:
        return not at.remote.connections

    await at.until(holds)


async def is_reset(client: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """Hold that this connection ends so that nobody takes it for a proper end."""
    reader, writer = client
    with pytest.raises(ConnectionError):
        while await reader.read(65536):
            pass
    writer.close()


async def test_a_page_with_fifty_requests_at_once_costs_one_login(tmp_path: Path) -> None:
    with web() as to, ThreadPoolExecutor(50) as browser:
        async with running_relay(tmp_path) as at, forwarded(at, to) as forwarding:
            loop = asyncio.get_running_loop()
            requests = [loop.run_in_executor(browser, get, str(forwarding.addresses[0])) for _ in range(50)]
            assert set(await asyncio.gather(*requests)) == {PAGE}
            assert (at.remote.logins, at.remote.channels) == (1, 50)


async def test_nothing_is_dialled_before_somebody_comes_and_it_is_hung_up_when_linger_is_over(tmp_path: Path) -> None:
    with web() as to:
        async with running_relay(tmp_path, linger=0.2) as at, forwarded(at, to) as forwarding:
            assert at.remote.logins == 0
            assert await asyncio.to_thread(get, str(forwarding.addresses[0])) == PAGE
            await hung_up(at)
            assert await asyncio.to_thread(get, str(forwarding.addresses[0])) == PAGE
            assert at.remote.logins == 2
            # Nobody had mail, and so nobody asked for the mail server.
            assert at.remote.channels == 2


async def test_a_connection_that_is_open_holds_the_way_open_long_after_linger(tmp_path: Path) -> None:
    async with (
        running_relay(tmp_path, linger=0.0) as at,
        server(echo) as port,
        forwarded(at, f"localhost:{port}") as forwarding,
    ):
        reader, writer = await connect(forwarding)
        for letter in (b"a", b"b"):
            # Mail comes and goes on the same connection, and lingers not at all.
            await at.settled(await at.send(), "sent")
            writer.write(letter)
            assert await reader.readexactly(1) == letter
        assert at.remote.logins == 1
        writer.close()
        await hung_up(at)


async def test_linger_counts_from_the_last_use_by_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(connector, "time", Namespace(monotonic=lambda: now))

    with web() as to:
        async with running_relay(tmp_path, linger=0.1) as at, forwarded(at, to) as forwarding:
            left = asyncio.Event()

            async def policy(verb: str, _argument: bytes) -> bytes | None:
                if verb == "QUIT":
                    left.set()
                return None

            at.remote.policy = policy
            for _ in range(8):
                assert await asyncio.to_thread(get, str(forwarding.addresses[0])) == PAGE
                await at.until(lambda: not forwarding.connections)
                now += 0.09
                await at.looked_again()
            await at.settled(await at.send(), "sent")
            assert await asyncio.to_thread(get, str(forwarding.addresses[0])) == PAGE
            await at.until(lambda: not forwarding.connections)
            # Mail has lingered for its time, on the clock of the event loop. The forward's use is later.
            await left.wait()
            await at.looked_again()
            assert len(at.remote.connections) == at.remote.logins == 1
            now += 0.2
            await at.looked_again()
            await hung_up(at)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "unix:{}/socket"])
async def test_what_goes_through_comes_out_as_it_was_in_both_directions_at_once(tmp_path: Path, listen: str) -> None:
    payload = random.Random(7).randbytes(20_000_000)

    async with (
        running_relay(tmp_path) as at,
        server(echo) as port,
        forwarded(at, f"localhost:{port}", listen.format(tmp_path)) as forwarding,
    ):
        reader, writer = await connect(forwarding)

        async def send() -> None:
            for start in range(0, len(payload), 100_003):
                writer.write(payload[start : start + 100_003])
                await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        # To the end: the other side ends what it says once it has heard that we have ended.
        came = await reader.read()
        await sending
        assert hashlib.sha256(came).digest() == hashlib.sha256(payload).digest()
        writer.close()


async def test_what_a_server_says_first_and_at_once_is_not_lost(tmp_path: Path) -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK ready\r\n")
        writer.close()

    async with running_relay(tmp_path) as at, server(greet) as port, forwarded(at, f"localhost:{port}") as forwarding:
        for _ in range(100):
            reader, writer = await connect(forwarding)
            assert await reader.read() == b"* OK ready\r\n"
            writer.close()


async def test_a_client_that_has_said_all_still_hears_the_answer(tmp_path: Path) -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"%d" % len(await reader.read()))
        writer.close()

    async with (
        running_relay(tmp_path, linger=0.0) as at,
        server(count) as port,
        forwarded(at, f"localhost:{port}") as forwarding,
    ):
        reader, writer = await connect(forwarding)
        writer.write(b"x" * 3_000_000)
        writer.write_eof()
        assert await reader.read() == b"3000000"
        writer.close()


async def test_a_server_that_has_said_all_still_hears_the_client(tmp_path: Path) -> None:
    heard: asyncio.Queue[int] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"go on")
        writer.write_eof()
        count = 0
        # A slow reader, not a wait: at the end there is more under way than fits into the window of the channel.
        while data := await reader.read(65536):
            count += len(data)
            await asyncio.sleep(0.001)
        heard.put_nowait(count)
        writer.close()

    async with (
        running_relay(tmp_path, linger=0.0) as at,
        server(listen) as port,
        forwarded(at, f"localhost:{port}") as forwarding,
    ):
        reader, writer = await connect(forwarding)
        assert await reader.read() == b"go on"
        writer.write(b"x" * 12_000_000)
        # What is under way when we close must arrive, though nobody lingers.
        writer.close()
        assert await heard.get() == 12_000_000


async def test_who_does_not_read_holds_back_who_writes(tmp_path: Path) -> None:
    written: list[int] = []

    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(written)
        written.append(0)
        with suppress(ConnectionError):
            while True:
                writer.write(bytes(65536))
                await writer.drain()
                written[number] += 65536

    async with running_relay(tmp_path) as at, server(pour) as port, forwarded(at, f"localhost:{port}") as forwarding:
        _, writer = await connect(forwarding)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await at.until(lambda: bool(written))
        # Nobody else is held back by that: another client gets as much as it reads.
        reader, other = await connect(forwarding)
        for _ in range(1600):
            await reader.readexactly(65536)
        await at.settled(await at.send(), "sent")
        # The window of the channel, and what the buffers of kernels hold.
        assert written[0] < 40_000_000 < written[1]
        writer.transport.abort()
        other.transport.abort()


async def test_mail_goes_its_way_while_forwards_run(tmp_path: Path) -> None:
    with web() as to, ThreadPoolExecutor(20) as browser:
        async with running_relay(tmp_path) as at, forwarded(at, to) as forwarding:
            loop = asyncio.get_running_loop()
            requests = [loop.run_in_executor(browser, get, str(forwarding.addresses[0])) for _ in range(100)]
            keys = [await at.send() for _ in range(20)]
            assert set(await asyncio.gather(*requests)) == {PAGE}
            for key in keys:
                await at.settled(key, "sent")
            assert at.remote.logins == 1


async def test_a_port_that_is_closed_there_costs_that_connection_and_a_line_and_mail_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with running_relay(tmp_path) as at:
            with socket.socket() as closed:
                closed.bind(("127.0.0.1", 0))
                to = f"localhost:{closed.getsockname()[1]}"
                async with forwarded(at, to, "127.0.0.1:0") as forwarding:
                    for _ in range(3):
                        await is_reset(await connect(forwarding))
                    await at.settled(await at.send(), "sent")
                    assert await at.spool.relayhost_failure("default") is None
                    assert at.remote.logins == 1
                    [line] = [one.getMessage() for one in caplog.records if one.name == "mailrelay.listener"]
                    assert line.startswith(f"forward=127.0.0.1:0 to={to}: connection dropped: ")
                    assert f"cannot reach {to}" in line


async def test_forwarding_that_is_prohibited_is_said_with_the_step_that_fixes_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with running_relay(tmp_path) as at, forwarded(at, "elsewhere.example:80") as forwarding:
            await is_reset(await connect(forwarding))
            assert "prohibits forwarding to elsewhere.example:80" in caplog.text
            assert "elsewhere.example:80 in PermitOpen" in caplog.text
            assert await at.spool.relayhost_failure("default") is None


async def test_a_connection_lost_in_the_middle_resets_the_client_and_the_next_one_dials_anew(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at, server(echo) as port, forwarded(at, f"localhost:{port}") as forwarding:
        client = await connect(forwarding)
        client[1].write(b"half")
        assert await client[0].readexactly(4) == b"half"
        for connection in list(at.remote.connections):
            connection.abort()
        await is_reset(client)
        reader, writer = await connect(forwarding)
        writer.write(b"whole")
        assert await reader.readexactly(5) == b"whole"
        writer.close()
        assert at.remote.logins == 2
        # Nothing is known to be wrong with the way.
        assert await at.spool.relayhost_failure("default") is None


async def test_a_way_that_is_shut_is_told_also_without_mail_and_over_when_it_is_open_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrelay.relay.dial_policy.EARLY_DIAL_WAIT", 0.1)

    with web() as to:
        async with running_relay(tmp_path) as at, forwarded(at, to) as forwarding:
            await at.remote.down()
            await is_reset(await connect(forwarding))
            assert await at.failure() is Cause.SSH_REFUSED
            [pending] = await at.spool.pending_notices()
            assert (pending.notice.kind.value, bool(pending.notice.fix)) == ("setup", True)
            await at.remote.up()
            assert await asyncio.to_thread(get, str(forwarding.addresses[0])) == PAGE

            async def is_over() -> bool:
                return await at.spool.relayhost_failure("default") is None

            await at.until(is_over)


async def test_clients_that_come_again_and_again_do_not_knock_at_a_server_that_locks_out_for_it(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at, forwarded(at, "localhost:80") as forwarding:
        at.remote.refuse_key = True
        await is_reset(await connect(forwarding))
        assert await at.failure() is Cause.AUTH_REFUSED
        at.remote.refuse_key = False
        for _ in range(3):
            await is_reset(await connect(forwarding))
        assert at.remote.logins == 0


async def test_a_mail_server_that_is_down_cuts_no_forward_and_mail_goes_once_it_is_back(tmp_path: Path) -> None:
    async with (
        running_relay(tmp_path, linger=0.5) as at,
        server(echo) as port,
        forwarded(at, f"localhost:{port}") as forwarding,
    ):
        reader, writer = await connect(forwarding)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        await at.remote.mail_down()
        key = await at.send()
        assert await at.failure() is Cause.SMTP_CLOSED
        # It is left alone meanwhile, though the connection is there.
        tried = at.remote.channels
        await at.looked_again(5)
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"
        assert at.remote.channels == tried
        await at.remote.up()
        dial_now(at.db, "default", time.time())
        at.scheduler.look_again()
        await at.settled(key, "sent")
        assert await at.spool.relayhost_failure("default") is None
        assert at.remote.logins == 1
        writer.close()
        await hung_up(at)


async def test_forwards_go_while_the_mail_server_is_down_and_its_mail_waits_and_then_hang_up(tmp_path: Path) -> None:
    with web() as to:
        async with running_relay(tmp_path, linger=0.1) as at, forwarded(at, to) as forwarding:
            await at.remote.mail_down()
            key = await at.send()
            assert await at.failure() is Cause.SMTP_CLOSED
            assert await asyncio.to_thread(get, str(forwarding.addresses[0])) == PAGE
            await hung_up(at)
            assert await at.states(key) == ["queued"]


async def test_a_forwards_dial_takes_waiting_mail_along(tmp_path: Path) -> None:
    with web() as to:
        async with running_relay(tmp_path) as at, forwarded(at, to) as forwarding:
            await at.remote.down()
            key = await at.send()
            await at.failure()
            await at.remote.up()
            # The schedule says: in an hour.
            assert await asyncio.to_thread(get, str(forwarding.addresses[0])) == PAGE
            await at.settled(key, "sent")


async def test_a_spool_that_cannot_be_read_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_room, "SPOOL_RETRY", 0.1)

    async with running_relay(tmp_path) as at, forwarded(at, "localhost:80") as forwarding:

        async def fail(_name: str) -> None:
            raise RuntimeError("the disk is gone")

        at.spool.next_due = fail  # type: ignore[assignment, method-assign]
        await is_reset(await connect(forwarding))


async def test_while_a_forward_is_paused_nobody_is_accepted(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at, forwarded(at, "localhost:80") as forwarding:
        [address] = forwarding.addresses
        assert not isinstance(address, Unix)
        forwarding.pause()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(address.host, address.port)


async def test_more_clients_than_allowed_are_turned_away_with_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with (
            running_relay(tmp_path) as at,
            server(echo) as port,
            forwarded(at, f"localhost:{port}", max_connections=2) as forwarding,
        ):
            inside = [await connect(forwarding) for _ in range(2)]
            for reader, writer in inside:
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
            await is_reset(await connect(forwarding))
            assert "more than 2 connections at once" in caplog.text
            inside[0][1].close()
            await at.until(lambda: forwarding.connections == 1)
            reader, writer = await connect(forwarding)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            for one in (inside[1][1], writer):
                one.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says whose a connection is")
@pytest.mark.parametrize("listen", ["127.0.0.1:0", "unix:{}/socket"])
async def test_who_may_not_submit_mail_may_not_use_a_forward(
    tmp_path: Path, listen: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with running_relay(tmp_path) as at:
            somebody_else = str(os.getuid() + 1)
            async with forwarded(
                at, "localhost:80", listen.format(tmp_path), allow_users=(somebody_else,)
            ) as forwarding:
                reader, writer = await connect(forwarding)
                with suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
                assert at.remote.channels == at.remote.logins == 0
                assert "security: " in caplog.text


async def test_an_address_of_a_forward_that_somebody_holds_is_not_listened_on(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at, forwarded(at, "localhost:80", "localhost:0") as forwarding:
        four, six = map(str, forwarding.addresses)
        assert six == four.replace("127.0.0.1", "[::1]")
        with pytest.raises(AddressTaken):
            async with forwarded(at, "localhost:80", four):
                pass


async def test_clients_that_vanish_at_any_moment_leave_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while True:
                writer.write(bytes(4096))
                await writer.drain()
        writer.close()

    with caplog.at_level(logging.WARNING):
        async with (
            running_relay(tmp_path, linger=0.0) as at,
            server(pour) as port,
            forwarded(at, f"localhost:{port}") as forwarding,
        ):

            async def vanish(after: float) -> None:
                reader, writer = await connect(forwarding)
                with suppress(TimeoutError, ConnectionError):
                    async with asyncio.timeout(after):
                        while await reader.read(1000):
                            writer.write(b"y" * 1000)
                writer.transport.abort()

            fate = random.Random(7)
            await asyncio.gather(*(vanish(fate.random() * 0.5) for _ in range(80)))
            await at.until(lambda: not forwarding.connections)
            await hung_up(at)
        assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


async def test_a_client_that_has_said_all_and_then_vanishes_is_nobodys_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        all_said, vanished = asyncio.Event(), asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            all_said.set()
            await vanished.wait()
            with suppress(ConnectionError):
                while True:
                    writer.write(b"too late")
                    await writer.drain()
            writer.close()

        async with (
            running_relay(tmp_path, linger=0.0) as at,
            server(answer) as port,
            forwarded(at, f"localhost:{port}") as forwarding,
        ):
            _, writer = await connect(forwarding)
            writer.write_eof()
            await all_said.wait()
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()
            vanished.set()
            await hung_up(at)
        assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


async def test_closing_a_forward_ends_what_runs_on_it_and_takes_its_socket_file_away(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at, server(echo) as port:
        listen = f"unix:{tmp_path}/socket"
        async with forwarded(at, f"localhost:{port}", listen) as forwarding:
            reader, writer = await connect(forwarding)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
        assert await reader.read() == b""
        writer.close()
        assert not (tmp_path / "socket").exists()
