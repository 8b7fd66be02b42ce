"""Refused connections: other protocols, other accounts, clients that do not wait for replies."""

import asyncio
import logging
import os
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from harness.listener import Intake, Wire, connect, listener
from harness.loops import on_both_loops

from mailrelay.endpoint import Unix
from mailrelay.listener import peer_account
from mailrelay.listener.peer_account import NoOwner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says whose a connection is")

TRANSACTION = b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nspam\r\n.\r\n"
POST = (
    b"POST / HTTP/1.1\r\nHost: localhost:7777\r\nConnection: keep-alive\r\nContent-Length: %d\r\n"
    b"Content-Type: text/plain;charset=UTF-8\r\nOrigin: https://evil.example\r\nAccept: */*\r\n\r\n%s"
) % (len(TRANSACTION), TRANSACTION)


def client_hello() -> bytes:
    """What a TLS client says first."""
    out = ssl.MemoryBIO()
    context = ssl.create_default_context()
    try:
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


async def is_dropped(said: Callable[[Wire], Awaitable[bytes]], caplog: pytest.LogCaptureFixture) -> str:
    """Hold that this gets nowhere: nothing begun, nothing queued, connection closed, one line in the log, which is given."""
    intake = Intake()

    with caplog.at_level(logging.WARNING, logger="mailrelay.listener"):
        async with listener(intake) as listening:
            wire = await connect(listening)
            last = (await said(wire)).splitlines()
            assert not last or last[-1].startswith(b"521 5.7.1 "), last
    assert intake.expected_from == []
    assert intake.committed == []
    [record] = caplog.records
    line = record.getMessage()
    assert line.startswith("security: ")
    assert line.isprintable()
    return line


@pytest.mark.parametrize(
    "first",
    [
        POST,
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"Host: localhost\r\n" + TRANSACTION,
        b"FROB\x1b[2J\r\n" + TRANSACTION,
        b"\r\n" + TRANSACTION,
        b"\x00\x01\x02",
        b"{}",
        client_hello(),
    ],
)
async def test_another_protocol_is_dropped_at_its_first_line(first: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def said(wire: Wire) -> bytes:
        assert (await wire.reply()).startswith(b"220 ")
        wire.writer.write(first)
        return await wire.rest()

    assert "does not speak SMTP" in await is_dropped(said, caplog)


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"post /", b"Cookie: x"])
async def test_http_in_the_middle_of_a_dialogue_is_dropped(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def said(wire: Wire) -> bytes:
        await wire.reply()
        await wire.say(b"EHLO x")
        wire.writer.write(line + b"\r\n")
        return await wire.rest()

    await is_dropped(said, caplog)


async def test_a_line_of_a_message_that_is_sent_as_a_command_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def said(wire: Wire) -> bytes:
        await wire.reply()
        await wire.say(b"EHLO x")
        wire.writer.write(b"Subject: the diagnosis of anna@example.org\r\n")
        return await wire.rest()

    line = await is_dropped(said, caplog)
    assert "Subject:" in line
    assert "anna" not in line


@on_both_loops
async def test_a_client_that_sends_before_the_greeting_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    intake = Intake()

    with caplog.at_level(logging.WARNING, logger="mailrelay.listener"):
        async with listener(intake) as listening:
            address = str(listening.addresses[0]).split(":")
            # In one go, while the event loop waits: connection and words are there before anybody looks.
            talker = "import socket,sys; s=socket.create_connection(sys.argv[1:3]); s.sendall(sys.argv[3].encode());"
            child = subprocess.Popen(
                [sys.executable, "-c", talker + "print(s.makefile().read())", *address, TRANSACTION.decode()],
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
            assert child.stdout is not None
            with child:
                while not in_kernel(int(address[1])):
                    pass
                heard = await asyncio.to_thread(child.stdout.read)
            assert not heard.startswith(b"220")
    assert intake.expected_from == []
    assert "before the greeting" in caplog.text


def in_kernel(port: int) -> bool:
    """Whether octets wait in the receive queue of a connection to `port` (a queue of connections does not count)."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] != "0A" and int(row[4].split(":")[1], 16) > 0 for row in rows)


@pytest.mark.parametrize("command", [b"EHLO x", b"HELO x", b"DATA", b"NOOP", b"QUIT"])
async def test_a_client_that_does_not_wait_where_it_must_is_dropped(
    command: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    intake = Intake()

    with caplog.at_level(logging.WARNING, logger="mailrelay.listener"):
        async with listener(intake) as listening:
            wire = await connect(listening)
            await wire.reply()
            await wire.say(b"EHLO x")
            wire.writer.write(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" + command + b"\r\nRSET\r\n")
            assert (await wire.rest()).splitlines()[-1].startswith(b"521 5.7.1 ")
    assert intake.committed == []
    assert f"did not wait for the reply to {command.split()[0].decode()}" in caplog.text


async def test_many_dropped_connections_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="mailrelay.listener"):
        async with listener(Intake()) as listening:
            for _ in range(60):
                wire = await connect(listening)
                wire.writer.write(b"GET / HTTP/1.1\r\n")
                await wire.rest()
    # The minute may turn once while this runs.
    assert 20 <= len(caplog.records) <= 41


CONNECT = """
import socket, sys
address = sys.argv[1]
if address.startswith("unix:"):
    client = socket.socket(socket.AF_UNIX)
    client.connect(address[5:])
else:
    host, _, port = address.rpartition(":")
    client = socket.create_connection((host.strip("[]"), int(port)))
client.settimeout(20)
print(client.recv(200).decode())
"""


STRANGER = 65534


def stranger_python() -> str:
    """A Python that another account can run; "" if there is none, or if we cannot be another account."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            subprocess.run([python, "-I", "-c", ""], user=STRANGER, cwd="/", capture_output=True, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        return python
    return ""


PYTHON = stranger_python()
needs_stranger = pytest.mark.skipif(not PYTHON, reason="needs root and a Python that other accounts can run")


async def greeting_for_stranger(address: str, allow_users: tuple[str, ...]) -> str:
    """What another account hears when it connects."""

    async with listener(Intake(), address, allow_users=allow_users) as listening:
        if address.startswith("unix:"):
            Path(address.removeprefix("unix:")).chmod(0o666)
        command = [PYTHON, "-I", "-c", CONNECT, str(listening.addresses[-1])]
        done = await asyncio.to_thread(
            subprocess.run, command, user=STRANGER, capture_output=True, text=True, cwd="/", check=True
        )
        return str(done.stdout)


@needs_stranger
@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
async def test_another_account_is_refused(address: str, caplog: pytest.LogCaptureFixture) -> None:
    assert (await greeting_for_stranger(address, ("self",))).startswith("554 5.7.1 ")
    assert "security: " in caplog.text


@needs_stranger
async def test_the_log_names_the_refused_account(caplog: pytest.LogCaptureFixture) -> None:
    await greeting_for_stranger("127.0.0.1:0", ("self",))
    assert f"belongs to {peer_account.account_name(STRANGER)}, which allow_users does not name" in caplog.text
    assert str(STRANGER) in caplog.text


def connect_dual_stack(address: str) -> socket.socket:
    """As Java does: an IPv6 socket to an IPv4 address."""
    host, _, port = address.rpartition(":")
    client = socket.socket(socket.AF_INET6)
    client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    client.connect((f"::ffff:{host}", int(port)))
    return client


async def test_a_client_with_an_ipv6_socket_is_allowed() -> None:
    async with listener(Intake()) as listening:
        wire = Wire(*await asyncio.open_connection(sock=connect_dual_stack(str(listening.addresses[0]))))
        assert (await wire.send(b"hi\r\n")).startswith(b"250 ")
        wire.close()


def test_netlink_and_proc_both_find_the_owner_of_an_ipv6_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = connect_dual_stack(f"127.0.0.1:{server.getsockname()[1]}")
        accepted, _ = server.accept()
        with client, accepted:
            near, far = accepted.getpeername()[:2], accepted.getsockname()[:2]
            assert peer_account.uid_by_netlink(near, far) == os.getuid()
            assert peer_account.uid_by_proc(near, far) == os.getuid()


@needs_stranger
async def test_another_account_with_an_ipv6_socket_is_refused() -> None:
    dual_stack = """
import socket, sys
host, _, port = sys.argv[1].rpartition(":")
client = socket.socket(socket.AF_INET6)
client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
client.connect((f"::ffff:{host}", int(port)))
client.settimeout(20)
print(client.recv(200).decode())
"""

    async def main() -> str:
        async with listener(Intake()) as listening:
            command = [PYTHON, "-I", "-c", dual_stack, str(listening.addresses[-1])]
            done = await asyncio.to_thread(
                subprocess.run, command, user=STRANGER, capture_output=True, text=True, cwd="/", check=True
            )
            return str(done.stdout)

    assert (await main()).startswith("554 5.7.1 ")


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_connection_that_is_closed_before_its_owner_is_determined_logs_no_security_warning(
    is_reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    intake = Intake()

    async with listener(intake) as listening:
        host, _, port = str(listening.addresses[0]).rpartition(":")
        # While the event loop stands still: it is gone before it is accepted.
        with socket.create_connection((host, int(port))) as client:
            client.sendall(TRANSACTION)
            if is_reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Accepted behind it, and served behind it.
        assert (await (await connect(listening)).reply()).startswith(b"220 ")
        assert len(listening.connections) == 1
    assert intake.expected_from == []
    assert caplog.messages == []


@needs_stranger
async def test_a_socket_file_with_mode_0666_still_refuses_other_accounts() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        assert (await greeting_for_stranger(f"unix:{folder}/socket", ("self",))).startswith("554 5.7.1 ")
        assert (await greeting_for_stranger(f"unix:{folder}/socket", (str(STRANGER),))).startswith("220 ")


@needs_stranger
@pytest.mark.parametrize("allowed", [("self", str(STRANGER)), ("any",), ("nobody",)])
async def test_an_account_in_allow_users_is_allowed(allowed: tuple[str, ...]) -> None:
    assert (await greeting_for_stranger("127.0.0.1:0", allowed)).startswith("220 ")


async def test_a_client_with_an_unknown_owner_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailrelay.listener.access.uid_of_connection", lambda near, far: NoOwner.UNKNOWN)

    async with listener(Intake()) as listening:
        assert (await (await connect(listening)).rest()).startswith(b"554 5.7.1 ")


async def test_netlink_and_proc_give_the_same_owner() -> None:
    async with listener(Intake(), "localhost:0") as listening:
        for which in range(len(listening.addresses)):
            wire = await connect(listening, which)
            sock = wire.writer.get_extra_info("socket")
            near, far = sock.getsockname()[:2], sock.getpeername()[:2]
            for owner in (peer_account.uid_of_connection, peer_account.uid_by_netlink, peer_account.uid_by_proc):
                assert owner(near, far) == os.getuid()
            assert peer_account.uid_of_connection(near, (far[0], 1)) is NoOwner.UNKNOWN


def test_a_connection_closed_by_its_process_has_no_owner_and_does_not_belong_to_root() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            near, far = client.getsockname(), client.getpeername()
        # The server's end is open, so the kernel still keeps this one.
        assert peer_account.uid_of_connection(near, far) in NoOwner
        assert peer_account.uid_by_proc(near, far) in NoOwner


def test_a_path_that_is_no_text_does_not_hide_who_listens_on_another(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as odd, socket.socket(socket.AF_UNIX) as plain:
        for opened, name in ((odd, b"\xff"), (plain, b"plain")):
            opened.bind(bytes(tmp_path) + b"/" + name)
            opened.listen()
        assert peer_account.holder_of_path(tmp_path / "plain").startswith(f"process {os.getpid()} (")


def test_without_the_tables_of_the_kernel_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        monkeypatch.setattr(Path, "read_text", missing)
        assert peer_account.uid_by_proc(client.getsockname(), client.getpeername()) is NoOwner.UNKNOWN
        assert peer_account.holder_of_port(server.getsockname()[1]) == ""
        assert peer_account.holder_of_path(Path("/nothing")) == ""


def test_a_listening_socket_is_not_taken_for_a_connection_that_is_gone() -> None:
    """The kernel returns it where it has no connection with these ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert peer_account.uid_by_netlink(server.getsockname(), ("127.0.0.1", 1)) is NoOwner.UNKNOWN


def test_a_port_is_held_by_a_process_or_by_the_account_of_one_that_cannot_be_inspected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held, socket.socket(socket.AF_UNIX) as local:
        port = held.getsockname()[1]
        local.bind(str(tmp_path / "socket"))
        local.listen()
        assert peer_account.holder_of_port(port).startswith(f"process {os.getpid()} (")
        assert peer_account.holder_of_path(tmp_path / "socket").startswith(f"process {os.getpid()} (")

        def forbidden(_path: Path) -> Path:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "readlink", forbidden)
        account = peer_account.account_name(os.getuid())
        assert peer_account.holder_of_port(port) == f"a process of {account}"
        assert peer_account.holder_of_path(tmp_path / "socket") == ""
    assert peer_account.holder_of_port(port) == ""
    assert peer_account.holder_of_path(tmp_path / "nothing") == ""


SUBMIT = """
import smtplib, socket, sys
class Client(smtplib.SMTP):
    def _get_socket(self, *_):
        opened = socket.socket(socket.AF_UNIX)
        opened.connect(sys.argv[1])
        return opened
with Client("mailrelay") as client:
    client.sendmail("me@example.org", "you@example.net", "Subject: hello\\r\\n\\r\\nhello\\r\\n")
"""


@needs_stranger
async def test_every_account_may_use_the_socket_for_everyone_and_its_messages_are_its_own() -> None:
    intake = Intake()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        everyone = Unix(f"{folder}/smtp")
        async with listener(intake, "127.0.0.1:0", everyone=everyone) as listening:
            command = [PYTHON, "-I", "-c", SUBMIT, everyone.path]
            await asyncio.to_thread(subprocess.run, command, user=STRANGER, cwd="/", check=True)
            # The port is for those that allow_users names, and their messages are theirs.
            wire = await connect(listening)
            assert (await wire.send(b"Subject: hello\r\n\r\nhello\r\n")).startswith(b"250 ")
        assert not Path(everyone.path).exists()
    assert [envelope.owner for envelope, _ in intake.committed] == [STRANGER, os.getuid()]


async def test_one_account_cannot_use_up_all_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = 71_001
    monkeypatch.setattr("mailrelay.listener.submission.owner", lambda _: account)
    everyone = Unix(f"{tmp_path}/smtp")
    async with listener(Intake(), "127.0.0.1:0", everyone=everyone, max_connections=6) as listening:
        for _ in range(3):
            await (await connect(listening)).begin()
        for _ in range(6):
            assert (await (await connect(listening)).rest()).startswith(b"421 4.7.0 ")
        account = 71_002
        for _ in range(3):
            await (await connect(listening)).begin()


async def test_without_a_socket_for_everyone_messages_have_no_owner() -> None:
    intake = Intake()
    async with listener(intake) as listening:
        wire = await connect(listening)
        assert (await wire.send(b"Subject: hello\r\n\r\nhello\r\n")).startswith(b"250 ")
    assert [envelope.owner for envelope, _ in intake.committed] == [None]
