"""The addresses of the listener, and the errors if they cannot be opened."""

import asyncio
import os
import socket
import stat
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from harness.listener import Intake, Wire, connect, listener

from mailrelay.config import Listen
from mailrelay.endpoint import Endpoint, Tcp, Unix
from mailrelay.listener.listening import Listening, NoSuchAccount, listen
from mailrelay.listener.sockets import AddressTaken, CannotListen, Sockets


async def fails_with(address: Endpoint | str, **settings: object) -> str:
    with pytest.raises(CannotListen) as caught:
        async with listener(Intake(), address, **settings):
            pass
    assert "\n" not in str(caught.value)
    return f"{type(caught.value).__name__} {caught.value}"


async def test_localhost_is_both_loopback_addresses_and_both_accept_mail() -> None:
    intake = Intake()

    async with listener(intake, "localhost:0") as listening:
        four, six = map(str, listening.addresses)
        port = four.removeprefix("127.0.0.1:")
        assert six == f"[::1]:{port}"
        for which in range(2):
            assert (await (await connect(listening, which)).send(b"hi\r\n")).startswith(b"250 ")
    assert len(intake.committed) == 2


@pytest.mark.parametrize("held", ["127.0.0.1", "::1", "0.0.0.0", "::"])
@pytest.mark.parametrize("reuse", [False, True])
async def test_a_port_that_is_taken_on_one_loopback_address_is_an_error_that_names_the_holder(
    held: str, reuse: bool
) -> None:
    family = socket.AF_INET6 if ":" in held else socket.AF_INET
    left_bound = []
    # A client of another process may get the port in between; a socket that is not closed keeps each of them.
    for _ in range(5):
        with socket.socket(family) as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
            holder.bind((held, 0))
            holder.listen()
            port = holder.getsockname()[1]
            error = await fails_with(f"localhost:{port}")
            assert error.startswith("AddressTaken ")
            assert f":{port} is taken by process {os.getpid()} (" in error
        if all(is_free(family, address, port) for family, address in LOOPBACK):
            return
        left_bound.append(port)
    pytest.fail(f"left bound: {left_bound}")


LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def is_free(family: socket.AddressFamily, address: str, port: int) -> bool:
    """Whether a socket can be bound there."""
    with socket.socket(family) as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


async def test_two_listeners_cannot_share_a_port() -> None:
    async with listener(Intake(), "localhost:0") as listening:
        port = str(listening.addresses[0]).rpartition(":")[2]
        with pytest.raises(AddressTaken):
            async with listener(Intake(), f"localhost:{port}"):
                pass


async def test_a_change_of_the_address_closes_no_connection_and_leaves_the_old_address() -> None:
    intake = Intake()
    async with listener(intake) as listening:
        (old,) = listening.addresses
        wire = await connect(listening)
        await wire.reply()
        settings = Listen(address=Tcp("127.0.0.1", 0), max_message_size=100)
        listening.change(settings, None, await listening.open(settings))
        (new,) = listening.addresses
        assert new != old
        assert isinstance(old, Tcp)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(old.host, old.port)
        assert (await wire.say(b"EHLO x")).startswith(b"250-")
        assert b"SIZE 100" in await (await begun(listening)).say(b"EHLO x")
        assert (listening.accepted, len(listening.connections)) == (2, 2)
        # Without another address, it stays.
        listening.change(Listen(address=new, max_message_size=200), None, None)
        assert listening.addresses == [new]
        assert b"SIZE 200" in await (await begun(listening)).say(b"EHLO x")


async def begun(listening: Listening) -> Wire:
    wire = await connect(listening)
    assert (await wire.reply()).startswith(b"220 ")
    return wire


async def test_a_listener_is_busy_while_a_client_is_connected_or_its_message_is_not_finished() -> None:
    intake, gate = Intake(), asyncio.Event()
    intake.before_answer = gate.wait
    async with listener(intake) as listening:
        assert not listening.is_busy
        wire = await connect(listening)
        await wire.begin()
        assert listening.is_busy
        wire.writer.write(b"x\r\n.\r\n")
        await intake.arrived.wait()
        (connection,) = listening.connections
        wire.close()
        connection.abort()
        await connection.closed
        assert not listening.connections
        assert listening.is_busy
        gate.set()
        await intake.told.get()


async def test_a_listener_that_was_paused_goes_on_where_the_service_manager_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        sockets = Sockets([inherited])
        listening = await listen(Listen(address=Tcp(*inherited.getsockname())), Intake(), sockets)
        listening.pause()
        assert listening.addresses == []
        sockets.reset_claims()
        await listening.resume()
        wire = await begun(listening)
        await listening.close(grace=2.0)
        wire.close()


async def test_a_port_can_be_listened_on_again_at_once() -> None:
    async with listener(Intake(), "localhost:0") as listening:
        port = str(listening.addresses[0]).rpartition(":")[2]
        await (await connect(listening)).send(b"hi\r\n")
    async with listener(Intake(), f"localhost:{port}") as again:
        assert (await (await connect(again)).reply()).startswith(b"220 ")


async def test_a_unix_socket_is_private_accepts_mail_and_is_removed_with_the_listener(tmp_path: Path) -> None:
    path = tmp_path / "submission"
    intake = Intake()

    async with listener(intake, f"unix:{path}") as listening:
        assert listening.addresses == [Unix(str(path))]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await (await connect(listening)).send(b"hi\r\n")).startswith(b"250 ")
    assert len(intake.committed) == 1
    assert not path.exists()


async def test_the_socket_file_of_a_dead_server_is_replaced_and_that_of_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "submission"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert (
            await fails_with(f"unix:{path}") == f"AddressTaken unix:{path} is taken by process {os.getpid()} ({comm()})"
        )
    assert path.exists()

    async with listener(Intake(), f"unix:{path}") as listening:
        assert (await (await connect(listening)).reply()).startswith(b"220 ")


def comm() -> str:
    return Path("/proc/self/comm").read_text().strip()


def test_the_socket_file_of_a_server_that_hangs_is_kept_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as hangs, ExitStack() as waiting:
        hangs.bind(str(path))
        hangs.listen(0)
        with suppress(BlockingIOError):
            for _ in range(10):
                client = waiting.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(AddressTaken, match="is taken"):
            Sockets().open(Unix(str(path)))
    assert path.is_socket()


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    path.write_text("keep me")
    assert "not a socket" in await fails_with(f"unix:{path}")
    assert path.read_text() == "keep me"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (Tcp("192.0.2.1", 0), "this machine has no such address"),
        (Unix("/nonexistent/folder/socket"), "No such file or directory"),
        (Unix("/" + "x" * 200), "path too long"),
    ],
)
async def test_an_address_that_cannot_be_opened_is_an_error_with_the_reason(address: Endpoint, why: str) -> None:
    assert why in await fails_with(address)


async def test_an_account_that_does_not_exist_is_an_error_that_names_it() -> None:
    with pytest.raises(NoSuchAccount, match=r"listen\.allow_users: there is no account 'no-such-account'"):
        async with listener(Intake(), "127.0.0.1:0", allow_users=("self", "no-such-account")):
            pass
