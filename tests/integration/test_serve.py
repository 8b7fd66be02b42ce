"""`mailrelay serve` as a process: what a service manager, the person and `mailrelay status` see if it hangs or fails."""

import json
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.processes import Child, until

from mailrelay import config
from mailrelay.control.status import read_status
from mailrelay.spool import liveness

HANGING = """\
import sys, time
from mailrelay import health
from mailrelay.cli.command_line import main
from mailrelay.notify import mailbox
health.FINISH = 0.5
mailbox._write = lambda *_: time.sleep(60)
main()
"""
"""mailrelay with a Maildir on a disk that hangs."""


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    tmp_path.chmod(0o700)
    relay = Relay(tmp_path / "relay", tmp_path / "ssh_config", 25)
    yield relay
    relay.stop()


def test_a_daemon_that_is_stopped_does_not_answer_and_its_watchdog_gets_nothing(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "ANSWER_TIMEOUT", 0.2)
    settings = config.load(relay.config)
    address = relay.directory / "manager"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(30)
        environment = relay.environment | {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "200000"}
        relay.child = child = Child(relay.command("serve"), env=environment, cwd=relay.directory)
        heard = [manager.recv(100)]
        while heard.count(b"WATCHDOG=1") < 3 or b"READY=1" not in heard:
            heard.append(manager.recv(100))
        assert read_status(settings, 0.0).answers is True
        child.process.send_signal(signal.SIGSTOP)
        status = read_status(settings, 0.0)
        assert (status.answers, [text for _, text in status.reasons]) == (False, ["the daemon does not answer"])
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                manager.recv(100)
        child.process.send_signal(signal.SIGCONT)
        manager.settimeout(30)
        assert manager.recv(100) == b"WATCHDOG=1"
        monkeypatch.setattr(liveness, "ANSWER_TIMEOUT", 30.0)
        assert read_status(settings, 0.0).answers is True
        assert relay.stop() == 0


def test_the_log_of_an_idle_daemon_is_made_again_when_it_was_deleted(relay: Relay) -> None:
    relay.start()
    log = relay.directory / "spool" / "mailrelay.log"
    until(log.exists, "there is a log")
    log.unlink()
    until(log.exists, "the log is made again", 5)
    relay.do("log")


def test_a_start_that_fails_because_of_the_spool_is_one_line_and_one_notice_however_often_it_is_tried(
    relay: Relay,
) -> None:
    spool = relay.directory / "spool"
    spool.mkdir()
    spool.chmod(0o755)
    for _ in range(3):
        child = relay.launch()
        assert child.ended() == 1
        (line,) = child.lines
        assert "open to other users" in line
    assert [notice["kind"] for notice in relay.notices()] == ["spool"]
    (letter,) = relay.letters()
    assert "accepts no mail" in letter


def test_a_maildir_that_hangs_does_not_hold_up_the_end(relay: Relay) -> None:
    (relay.directory / "spool").mkdir(mode=0o755)
    (relay.directory / "spool").chmod(0o755)
    argv = [sys.executable, "-c", HANGING, *relay.command("serve")[3:]]
    child = Child(argv, env=relay.environment, cwd=relay.directory)
    assert child.ended(20) == 1
    assert [notice["kind"] for notice in relay.notices()] == ["spool"]


def test_an_error_of_the_daemon_itself_is_in_its_status_as_long_as_it_lasts(relay: Relay) -> None:
    broken = relay.directory / "broken"
    program = (
        "import os, sys\nfrom mailrelay import lazy\nfrom mailrelay.cli.command_line import main\n"
        "from mailrelay.relay import scheduler\nscheduler.SPOOL_RETRY = 0.1\nusual = lazy.ssh_dial\n"
        f"def ssh_dial():\n    if os.path.exists({str(broken)!r}):\n        raise ImportError('no \\033 way')\n"
        "    return usual()\nlazy.ssh_dial = ssh_dial\nmain()\n"
    )
    broken.touch()
    words = relay.command("serve")[3:]
    relay.child = child = Child([sys.executable, "-c", program, *words], env=relay.environment, cwd=relay.directory)
    child.wait_line("ready")
    assert relay.run("status").returncode == 0
    relay.do("sendmail", "-f", "me@example.org", "you@example.net")
    until(lambda: relay.run("status").returncode == 2, "status tells of the error")
    status = json.loads(relay.run("status", "--json").stdout)
    assert status["errors"] == [{"name": "default", "text": "ImportError: no \\x1b way"}]
    assert "default cannot go on" in relay.run("status", "--brief").stdout
    broken.unlink()
    until(lambda: json.loads(relay.run("status", "--json").stdout)["errors"] == [], "the error is over")
