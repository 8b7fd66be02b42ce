"""The daemon reads its settings again: SIGHUP and `mailrelay reload`, with `mailrelay serve` as a process."""

import os
import pty
import signal
import smtplib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.processes import PATIENCE, free_port, listens

from mailrelay.control import daemon
from mailrelay.spool import liveness

LETTER = b"Subject: across a reload\r\n\r\nhello\r\n"


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    tmp_path.chmod(0o700)
    # Its relayhost cannot be reached: the ssh_config is missing, and no host has this name.
    relay = Relay(tmp_path / "relay", tmp_path / "ssh_config", 25, answer_within="0s")
    relay.start()
    yield relay
    relay.stop()


def edit(relay: Relay, old: str, new: str) -> None:
    text = relay.config.read_text()
    assert old in text
    relay.config.write_text(text.replace(old, new))


def begun(port: int) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE)
    client.ehlo("client.example")
    assert client.mail("me@example.org")[0] == client.rcpt("you@example.net")[0] == 250
    return client


def test_a_transaction_that_has_begun_goes_on_with_the_new_settings(relay: Relay) -> None:
    client = begun(relay.port)
    edit(relay, "[relayhost.default]", "max_connections = 2\n[relayhost.other]")
    relay.do("reload")
    assert client.data(LETTER)[0] == 250
    (message,) = relay.queue()
    assert message["relayhost"] == "other"
    assert client.noop()[0] == 250
    client.quit()


def test_mail_of_a_relayhost_that_is_removed_goes_by_the_one_that_its_sender_has_now(relay: Relay) -> None:
    client = begun(relay.port)
    assert client.data(LETTER)[0] == 250
    edit(relay, "[relayhost.default]", "[relayhost.other]")
    relay.do("reload")
    assert [message["relayhost"] for message in relay.queue()] == ["other"]


def test_another_address_is_listened_on_and_clients_of_the_old_one_stay(relay: Relay) -> None:
    client, port = begun(relay.port), free_port()
    edit(relay, f"127.0.0.1:{relay.port}", f"localhost:{port}")
    relay.do("reload")
    assert listens(port)
    assert not listens(relay.port)
    assert client.data(LETTER)[0] == 250
    edit(relay, f"localhost:{port}", f"127.0.0.1:{port}")
    relay.do("reload")
    assert listens(port)
    if socket.has_ipv6:
        with pytest.raises(OSError), socket.create_connection(("::1", port), 5):
            pass


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("[queue]", "[queue]\nwrong = 1", "queue.wrong: no such setting"),
        ('address = "', 'allow_users = ["no.such.account"]\naddress = "', "there is no account"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line_and_the_daemon_goes_on(
    relay: Relay, old: str, new: str, why: str
) -> None:
    assert relay.child is not None
    edit(relay, old, new)
    done = relay.run("reload")
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert why in done.stderr
    os.kill(relay.child.pid, signal.SIGHUP)
    relay.child.wait_line(f"goes on with the old settings: .*{why}")
    edit(relay, new, old)
    assert begun(relay.port).data(LETTER)[0] == 250


def test_an_address_that_is_taken_changes_nothing(relay: Relay) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        edit(
            relay,
            "[queue]",
            f'[[forward]]\nlisten = "127.0.0.1:{port}"\nto = "localhost:1"\n[queue]\nmax_size = "60MB"',
        )
        edit(relay, f"127.0.0.1:{relay.port}", f"127.0.0.1:{(new := free_port())}")
        done = relay.run("reload")
    assert done.returncode == 78
    assert f"127.0.0.1:{port} is taken" in done.stderr
    assert listens(relay.port)
    assert not listens(new)
    relay.do("reload")
    assert listens(new)
    assert listens(port)


def test_an_address_that_is_named_twice_is_refused(relay: Relay) -> None:
    edit(relay, "[queue]", f'[[forward]]\nlisten = "127.0.0.1:{relay.port}"\nto = "localhost:1"\n[queue]')
    done = relay.run("reload")
    assert "the settings name it twice" in done.stderr


def test_without_a_daemon_there_is_nothing_to_reload(relay: Relay) -> None:
    relay.stop()
    done = relay.run("reload")
    assert done.returncode == 1
    assert "the daemon is not running" in done.stderr


def test_with_another_directory_of_the_queue_the_line_says_that_a_reload_cannot_change_it(relay: Relay) -> None:
    edit(relay, "/spool", "/other")
    done = relay.run("reload")
    assert done.returncode == 1
    assert "A reload cannot change queue.directory" in done.stderr


@pytest.mark.parametrize(
    ("answers", "is_asleep", "result"),
    [([None], True, ""), ([None, liveness.Answer(2, "", "")], False, ""), ([None], False, None)],
    ids=["nothing to do", "started again", "stopped"],
)
def test_a_daemon_that_ends_during_a_reload_is_missed_only_if_none_is_started(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: "list[liveness.Answer | None]",
    is_asleep: bool,
    result: "str | None",
) -> None:
    said = iter([liveness.Answer(os.getpid(), "", ""), *answers])
    holders = iter([str(os.getpid())] if len(answers) > 1 else [])
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(liveness, "ask", lambda *_: next(said))
    monkeypatch.setattr(daemon.lock, "holder", lambda _: next(holders, None))
    monkeypatch.setattr(daemon, "is_asleep", lambda _: is_asleep)
    try:
        assert daemon.reload(tmp_path) == result
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_daemon_whose_terminal_is_closed_ends(relay: Relay) -> None:
    relay.stop()
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(relay.directory)
        os.execve(sys.executable, relay.command("serve"), relay.environment)
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
