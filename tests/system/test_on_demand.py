"""Connections on demand: nothing remains on the server, and a connection that breaks or stalls is replaced."""

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.dropbear import Dropbear
from harness.mail_clients import message, submit
from harness.mailboxes import DOMAIN
from harness.processes import descendants, program, until
from harness.sendmail import Sendmail
from harness.sshd import Sshd

pytestmark = pytest.mark.system

ALICE = f"alice@{DOMAIN}"
Server = Sshd | Dropbear


@pytest.fixture(params=["sshd", "dropbear"])
def server(request: pytest.FixtureRequest, sshd: Sshd, tmp_path: Path) -> Iterator[Server]:
    """The SSH server that the client's ssh_config calls `remote`."""
    if request.param == "sshd":
        yield sshd
        return
    dropbear = Dropbear(tmp_path / "dropbear", (sshd.directory / "client.pub").read_text())
    dropbear.start()
    sshd.ssh_config.write_text(sshd.ssh_config.read_text().replace(f"Port {sshd.port}", f"Port {dropbear.port}"))
    (sshd.directory / "known_hosts").write_text(f"[127.0.0.1]:{dropbear.port} {dropbear.host_key}\n")
    yield dropbear
    dropbear.stop()


def processes(server: Server) -> dict[int, str]:
    """The server's processes by id: itself, its descendants, and all processes that were started in an SSH session."""
    assert server.child is not None
    found = {server.child.pid, *descendants(server.child.pid)}
    session = re.compile(rb"\0SSH_CONNECTION=\S+ \d+ \S+ %d\0" % server.port)
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if session.search(b"\0" + environ.read_bytes()):
                found.add(int(environ.parent.name))
    shown = subprocess.run(
        [program("ps", "procps"), "-o", "pid=,args=", "-p", ",".join(map(str, found))],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return {int(line.split(maxsplit=1)[0]): line.split(maxsplit=1)[1] for line in shown.splitlines()}


def listening(server: Server) -> set[str]:
    """The addresses and paths on which these processes listen."""
    shown = subprocess.run([program("ss", "iproute2"), "-Hlntxup"], capture_output=True, text=True, check=True).stdout
    pids = {f"pid={pid}," for pid in processes(server)}
    return {line.split()[4] for line in shown.splitlines() if any(pid in line for pid in pids)}


@pytest.mark.parametrize("through", ["forwarding", "sendmail -bs"])
@pytest.mark.parametrize("linger", ["0s", "always"])
def test_nothing_remains_on_the_server(
    server: Server, sendmail: Sendmail, relays: Callable[..., Relay], token: str, through: str, linger: str
) -> None:
    before, ports = processes(server), listening(server)
    assert ports == {f"127.0.0.1:{server.port}"}
    relay = relays(sendmail.port, linger=linger, command=sendmail.on_stdin if through != "forwarding" else "")
    relay.start()
    # Compares ids only, because a server changes its title.
    assert processes(server).keys() == before.keys(), "nothing is dialled before there is mail"
    for number in (1, 2):
        code, words = submit(relay.port, [ALICE], message(f"{token}-{number}"))
        assert (code, words.split()[2]) == (250, "sent:"), words
        if linger == "always":
            assert len(processes(server)) > len(before)
            assert listening(server) == ports
        else:
            until(lambda: processes(server).keys() == before.keys(), "all that was started has ended")
            assert listening(server) == ports
    assert server.logins() == (1 if linger == "always" else 2)
    relay.stop()
    until(lambda: processes(server).keys() == before.keys(), "all that was started has ended")
    assert listening(server) == ports


class Halting:
    """A mail server that stops at a line of its first message, and accepts later ones. halted: it has stopped."""

    def __init__(self, at: bytes) -> None:
        self.taken: list[bytes] = []
        self.halted = threading.Event()
        self._at = at
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._converse, args=[client], daemon=True).start()

    def _converse(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as lines, suppress(OSError):
            client.sendall(b"220 halting ESMTP\r\n")
            while line := lines.readline():
                if line.upper().startswith(b"DATA"):
                    client.sendall(b"354 go on\r\n")
                    content = []
                    while not content or content[-1] != b".\r\n":
                        content.append(lines.readline())
                        if not content[-1]:
                            return
                        if content[-1] == self._at and not self.halted.is_set():
                            self.halted.set()
                            threading.Event().wait(60)
                            return
                    self.taken.append(b"".join(content[:-1]))
                client.sendall(b"250 halting\r\n")

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize(
    ("line", "uncertain"), [(b"half\r\n", False), (b".\r\n", True)], ids=["before the dot", "after the dot"]
)
def test_a_connection_that_breaks_in_a_message_gives_an_outcome_and_is_replaced(
    server: Server, relays: Callable[..., Relay], token: str, line: bytes, uncertain: bool
) -> None:
    remote = Halting(line)
    relay = relays(remote.port, answer_within="0s", retry=("1s",))
    relay.start()
    # Much more than fits into the buffers, so that the dot is not sent yet when the server reads the line.
    content = message(token, b"half\r\n" + (b"x" * 70 + b"\r\n") * 200_000)
    submit(relay.port, [ALICE], content)
    assert remote.halted.wait(30)
    assert server.child is not None
    for pid in descendants(server.child.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    relay.logged("status=deferred")
    until(lambda: relay.states("--all") == {ALICE: "sent"}, "it is sent by itself")
    assert [taken.endswith(content) for taken in remote.taken] == [True]
    (listed,) = relay.queue("--all")
    assert (listed["attempts"], listed["recipients"][0]["uncertain"]) == (2, uncertain)
    remote.close()


def test_a_connection_that_stalls_is_given_up_and_mail_uses_a_new_one(
    server: Server, sshd: Sshd, sendmail: Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    """As after a suspend, or behind a router that lost its state: the server is stopped, its kernel still acknowledges."""
    sshd.ssh_config.write_text(f"{sshd.ssh_config.read_text()}  ServerAliveInterval 1\n  ServerAliveCountMax 2\n")
    relay = relays(sendmail.port, linger="always", retry=("1s",))
    relay.start()
    submit(relay.port, [ALICE], message(f"{token}-1"))
    assert server.child is not None
    stopped = descendants(server.child.pid)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        submit(relay.port, [ALICE], message(f"{token}-2"))
        assert len(sendmail.boxes.wait("alice", f"{token}-2")) == 1
        assert server.logins() == 2
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
