"""Socket activation: `mailrelay serve` with sockets that a service manager has opened (sd_listen_fds(3)), and its end."""

import asyncio
import os
import signal
import smtplib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from harness.daemon_process import Relay
from harness.processes import PATIENCE, Child, free_port

from mailrelay import idle
from mailrelay.listener import activation
from mailrelay.spool import trigger

START = 'export LISTEN_PID=$$ LISTEN_FDS={count}; exec "$@" {redirections}'


class Manager:
    """Listens on the address of the settings and on the trigger, as systemd does, and starts daemons."""

    def __init__(self, directory: Path, idle_exit: str = "200ms") -> None:
        directory.chmod(0o700)
        self.relay = Relay(directory / "relay", directory / "ssh_config", 25, answer_within="0s", retry=["1h"])
        text = self.relay.config.read_text().replace("[listen]", f'[listen]\nidle_exit = "{idle_exit}"')
        self.relay.config.write_text(text)
        self.listening = socket.create_server(("127.0.0.1", self.relay.port))
        spool = self.relay.directory / "spool"
        spool.mkdir(mode=0o700)
        os.mkfifo(spool / "trigger", 0o600)
        self.trigger = os.open(spool / "trigger", os.O_RDWR | os.O_NONBLOCK)
        self.daemons: list[Child] = []

    def start(self, handles: "tuple[int, ...] | None" = None) -> Child:
        handles = (self.listening.fileno(), self.trigger) if handles is None else handles
        redirections = " ".join(f"{number}<&{handle}" for number, handle in enumerate(handles, activation.FIRST))
        words = ["bash", "-c", START.format(count=len(handles), redirections=redirections), "bash"]
        daemon = Child(
            [*words, *self.relay.command("serve")], env=self.relay.environment, cwd=self.relay.directory, keep=handles
        )
        self.daemons.append(daemon)
        daemon.wait_line("ready")
        return daemon

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.stop()
        self.listening.close()
        os.close(self.trigger)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


@contextmanager
def a_client(manager: Manager) -> Iterator[None]:
    """A client is connected: a daemon that starts does not end meanwhile."""
    with socket.create_connection(("127.0.0.1", manager.relay.port), PATIENCE):
        yield


def submit(manager: Manager) -> tuple[int, bytes]:
    with smtplib.SMTP("127.0.0.1", manager.relay.port, timeout=PATIENCE) as client:
        client.ehlo("client.example")
        client.mail("me@example.org")
        client.rcpt("you@example.net")
        return client.data(b"Subject: hello\r\n\r\nhello\r\n")


def test_a_daemon_without_work_ends_with_0_and_leaves_what_comes_to_the_next(manager: Manager) -> None:
    assert manager.start().ended() == 0
    # Nobody accepts, and the connection waits.
    waiting = socket.create_connection(("127.0.0.1", manager.relay.port), PATIENCE)
    manager.start()
    assert waiting.recv(3) == b"220"
    waiting.close()


def test_the_trigger_that_is_used_while_it_sleeps_is_kept_for_the_next(manager: Manager) -> None:
    assert manager.start().ended() == 0
    assert manager.relay.run("queue", "retry", "--all").returncode == 0
    manager.relay.do("sendmail", "-f", "me@example.org", "you@example.net")
    assert os.read(manager.trigger, 10)


def test_a_daemon_with_a_client_or_with_mail_that_waits_stays(manager: Manager) -> None:
    with a_client(manager):
        daemon = manager.start()
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(1)
        assert submit(manager)[0] == 250
    manager.relay.logged("unusable")
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(1)
    (message,) = manager.relay.queue()
    manager.relay.do("queue", "cancel", message["queue_id"])
    assert daemon.ended() == 0


def test_a_daemon_with_mail_that_no_relayhost_takes_stays_and_sends_it_with_new_settings(manager: Manager) -> None:
    with a_client(manager):
        daemon = manager.start()
        assert submit(manager)[0] == 250
    text = manager.relay.config.read_text()
    other = text.replace("[relayhost.default]", '[relayhost.other]\nsenders = ["*@example.com"]')
    manager.relay.config.write_text(other)
    manager.relay.do("reload")
    daemon.wait_line("1 messages wait for relayhosts that are not in the settings")
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(1)
    manager.relay.config.write_text(text)
    manager.relay.do("reload")
    manager.relay.logged("unusable")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Relay]:
    tmp_path.chmod(0o700)
    relay = Relay(tmp_path / "relay", tmp_path / "ssh_config", 25)
    relay.config.write_text(relay.config.read_text().replace("[listen]", '[listen]\nidle_exit = "100ms"'))
    yield relay
    relay.stop()


def test_without_a_service_manager_idle_exit_has_no_effect(alone: Relay) -> None:
    daemon = alone.start()
    daemon.wait_line("listen.idle_exit has no effect: no service manager listens on")
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(0.5)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.ended() == 0


def test_an_address_that_only_the_service_manager_knows_is_an_error_in_the_log(manager: Manager) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        daemon = manager.start((manager.listening.fileno(), manager.trigger, other.fileno()))
        daemon.wait_line(f"the service manager listens on 127.0.0.1:{other.getsockname()[1]}")


def test_clients_of_an_address_that_a_reload_leaves_to_the_service_manager_are_an_error_in_the_log(
    tmp_path: Path,
) -> None:
    # It does not end before it has read the settings.
    with closing(Manager(tmp_path, idle_exit="1h")) as manager:
        daemon = manager.start()
        text = manager.relay.config.read_text().replace(f":{manager.relay.port}", f":{free_port()}")
        manager.relay.config.write_text(text)
        manager.relay.do("reload")
        old = f"127.0.0.1:{manager.relay.port}"
        daemon.wait_line(f"the service manager listens on {old}, which the settings do not name")


def test_a_daemon_whose_trigger_the_service_manager_does_not_have_any_more_stays(manager: Manager) -> None:
    (manager.relay.directory / "spool/trigger").unlink()
    daemon = manager.start()
    daemon.wait_line("listen.idle_exit has no effect: the service manager does not listen on .*trigger")
    assert submit(manager)[0] == 250
    manager.relay.logged("unusable")
    assert daemon.process.poll() is None


async def test_what_comes_between_the_last_look_and_the_end_makes_it_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger, "is_listened_to", lambda _: True)
    calls: list[str] = []
    looks = iter([None] * 2 * idle.CHECKS + [0.0] + [None] * (idle.CHECKS + 1))

    async def next_due_of_any() -> float | None:
        calls.append("look")
        return next(looks)

    async def none() -> None:
        return None

    async def resume() -> None:
        calls.append("resume")

    stays = iter([True, False, False])

    def ask_before_end() -> bool:
        calls.append("ask")
        return next(stays)

    parts = SimpleNamespace(
        settings=SimpleNamespace(listen=SimpleNamespace(idle_exit=0.01), queue=SimpleNamespace(directory=Path())),
        sockets=SimpleNamespace(inherited=frozenset()),
        addresses=[],
        activity=0,
        is_busy=False,
        spool=SimpleNamespace(next_due_of_any=next_due_of_any, next_notice_due=none),
        ask_before_end=ask_before_end,
        pause=lambda: calls.append("pause"),
        resume=resume,
    )
    await asyncio.wait_for(
        idle.until_idle(cast(Any, parts), lambda: calls.append("stop"), lambda: calls.append("start")), PATIENCE
    )
    look = [*["look"] * idle.CHECKS, "ask"]
    assert calls == [*look, *look, "stop", "pause", "look", "resume", "start", *look, "stop", "pause", "look"]


def test_variables_of_another_process_are_not_believed_and_are_removed() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "HOME": "/"}
    assert activation.inherited_sockets(environ) == []
    assert environ == {"HOME": "/"}
