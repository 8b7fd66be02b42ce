"""Forwards with real programs: an HTTP client, mailrelay, OpenSSH's sshd, and a web server behind it."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import pytest
from harness.daemon_process import Relay
from harness.mail_clients import message, submit
from harness.mailboxes import DOMAIN
from harness.postfix import Sink
from harness.processes import free_port, until
from harness.sshd import Sshd
from harness.webserver import PAGE, get, web

pytestmark = pytest.mark.system


def forwarding(relay: Relay, *forwards: tuple[str, str]) -> Relay:
    """A daemon with these forwards, each (listen, to), in its settings."""
    with relay.config.open("a") as settings:
        for listen, to in forwards:
            settings.write(f'[[forward]]\nlisten = "{listen}"\nto = "{to}"\n')
    return relay


def test_fifty_requests_and_mail_need_one_login_and_leave_nothing_behind(
    sshd: Sshd, relays: Callable[..., Relay], sinks: Callable[..., Sink], token: str
) -> None:
    port = free_port()
    with web() as to, ThreadPoolExecutor(51) as clients:
        relay = forwarding(relays(sinks().port, linger="1s"), (f"localhost:{port}", to))
        ready = relay.start().wait_line("ready")
        assert f"127.0.0.1:{port}" in ready
        assert sshd.logins() == 0
        pages = [clients.submit(get, f"localhost:{port}") for _ in range(50)]
        mail = clients.submit(submit, relay.port, [f"alice@{DOMAIN}"], message(token))
        assert {page.result() for page in pages} == {PAGE}
        code, words = mail.result()
        assert (code, words.split()[2]) == (250, "sent:")
        assert sshd.logins() == 1
        until(lambda: sshd.sessions() == 0, "the connection is closed")
        assert get(f"127.0.0.1:{port}") == PAGE
        assert sshd.logins() == 2


def test_a_unix_socket_on_the_server_is_reached(sshd: Sshd, relays: Callable[..., Relay], tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(there))
        server.listen()

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"* OK " + connection.makefile("rb").readline())

        greeting = Thread(target=greet)
        greeting.start()
        forwarding(relays(free_port()), (f"unix:{here}", f"unix:{there}")).start()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(here))
            client.sendall(b"hello\n")
            assert client.makefile("rb").read() == b"* OK hello\n"
        greeting.join()


def test_a_key_that_permits_only_the_mail_server_fails_only_the_forward(
    sshd: Sshd, relays: Callable[..., Relay], sinks: Callable[..., Sink], token: str
) -> None:
    smtp, port = sinks().port, free_port()
    keys = sshd.directory / "authorized_keys"
    keys.write_text(f'restrict,port-forwarding,permitopen="localhost:{smtp}" {keys.read_text()}')
    with web() as to:
        relay = forwarding(relays(smtp), (f"localhost:{port}", to))
        relay.start()
        with pytest.raises(ConnectionError):
            get(f"127.0.0.1:{port}")
        assert f"{to} in PermitOpen (or permitopen= of the key)" in relay.logged("prohibits forwarding")
        code, words = submit(relay.port, [f"alice@{DOMAIN}"], message(token))
        assert (code, words.split()[2]) == (250, "sent:")
        assert sshd.logins() == 1
        assert relay.run("status").returncode == 0


def test_a_closed_target_is_logged_and_does_not_affect_mail(
    sshd: Sshd, relays: Callable[..., Relay], sinks: Callable[..., Sink], token: str
) -> None:
    port, closed = free_port(), free_port()
    relay = forwarding(relays(sinks().port), (f"localhost:{port}", f"localhost:{closed}"))
    relay.start()
    with pytest.raises(ConnectionError):
        get(f"127.0.0.1:{port}")
    relay.logged(f"cannot reach localhost:{closed}")
    code, words = submit(relay.port, [f"alice@{DOMAIN}"], message(token))
    assert (code, words.split()[2]) == (250, "sent:")
    assert sshd.logins() == 1


def test_data_for_a_slow_server_arrives_although_linger_is_zero(sshd: Sshd, relays: Callable[..., Relay]) -> None:
    port, count = free_port(), 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        to = f"localhost:{server.getsockname()[1]}"
        forwarding(relays(free_port(), linger="0s"), (f"localhost:{port}", to)).start()
        with socket.create_connection(("127.0.0.1", port)) as client:
            there, _ = server.accept()
            there.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""

            def send() -> None:
                client.sendall(bytes(20_000_000))
                client.close()

            sending = Thread(target=send)
            sending.start()
            # A slow reader, not a wait: data is under way when the client closes.
            while data := there.recv(65536):
                count += len(data)
                time.sleep(0.001)
            sending.join()
        there.close()
    assert count == 20_000_000
    until(lambda: sshd.sessions() == 0, "the connection is closed")


def test_a_server_that_disconnects_resets_the_client_and_is_reached_again(
    sshd: Sshd, relays: Callable[..., Relay]
) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as server:
        forwarding(relays(free_port()), (f"localhost:{port}", f"localhost:{server.getsockname()[1]}")).start()
        with socket.create_connection(("127.0.0.1", port)) as client:
            there, _ = server.accept()
            there.sendall(b"half")
            assert client.recv(4) == b"half"
            sshd.stop()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            there.close()
        sshd.start()
        with socket.create_connection(("127.0.0.1", port)) as client:
            there, _ = server.accept()
            there.sendall(b"whole")
            there.close()
            assert client.makefile("rb").read() == b"whole"
        assert sshd.logins() == 2


def test_a_daemon_does_not_start_without_the_address_of_a_forward(relays: Callable[..., Relay]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        child = forwarding(relays(free_port()), (f"localhost:{port}", "localhost:80")).launch()
        assert child.ended() == 1
        assert f"mailrelay: 127.0.0.1:{port} is taken by process" in child.output


def test_a_stopped_daemon_does_not_wait_for_the_users_of_a_forward(
    sshd: Sshd, relays: Callable[..., Relay], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay = forwarding(relays(free_port()), (f"unix:{tmp_path}/here", f"localhost:{server.getsockname()[1]}"))
        child = relay.start()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{tmp_path}/here")
            there, _ = server.accept()
            child.process.terminate()
            assert client.recv(1) == b""
            assert child.ended(8.0) == 0
            there.close()
        assert not (tmp_path / "here").exists()
        until(lambda: sshd.sessions() == 0, "the connection is closed")
