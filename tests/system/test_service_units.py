"""The systemd user unit, as it is delivered, under a real systemd."""

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from harness.processes import until
from harness.systemd import SETTINGS, Machine

pytestmark = pytest.mark.system

QUICK = "RestartSec=100ms\nWatchdogSec=3s"
SYSTEMCTL = ("systemctl", "--user")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine") / "it") as made:
        made.add_person("alice")
        made.install("alice", drop_in=QUICK)
        yield made


@pytest.fixture(autouse=True)
def running(machine: Machine) -> None:
    machine.person("alice", *SYSTEMCTL, "start", "mailrelay")


def restarted(machine: Machine, pid: str) -> str:
    """Waits until another process than `pid` is the daemon, and ready; its pid."""

    def found() -> str:
        now = machine.show("alice", "MainPID")
        return now if now not in ("0", pid) and machine.show("alice", "ActiveState") == "active" else ""

    return until(found, "the daemon was started again")


def queue(machine: Machine) -> list[dict[str, Any]]:
    said = machine.person("alice", "mailrelay", "queue", "--all", "--json")
    return [json.loads(line) for line in said.splitlines()]


def send(
    machine: Machine, subject: str, sender: str = "me@example.org", *options: str
) -> "subprocess.CompletedProcess[str]":
    words = ("mailrelay", "sendmail", *options, "-f", sender, "you@example.net")
    return machine.try_person("alice", *words, stdin=f"Subject: {subject}\n\nhello\n")


@pytest.mark.parametrize("sender", ["me@example.org", "me@proxy.example"], ids=["direct", "ProxyCommand"])
def test_a_stop_at_the_final_dot_waits_for_the_reply(machine: Machine, sender: str) -> None:
    subject = f"at the dot {sender}"
    machine.hold_replies(hold=True)
    try:
        assert send(machine, subject, sender).returncode == 0
        until(lambda: machine.has_content(subject), "the mail server has the content")
        with ThreadPoolExecutor() as pool:
            stopping = pool.submit(machine.try_person, "alice", *SYSTEMCTL, "stop", "mailrelay")
            until(lambda: machine.show("alice", "SubState").startswith("stop-"), "systemd stops the daemon")
            machine.hold_replies(hold=False)
            assert stopping.result().returncode == 0
    finally:
        machine.hold_replies(hold=False)
    assert machine.show("alice", "Result") == "success"
    assert machine.arrived(subject) == 1
    (message,) = [one for one in queue(machine) if one["subject"] == subject]
    assert [(one["state"], one["uncertain"]) for one in message["recipients"]] == [("sent", False)]


@pytest.mark.parametrize("signal", ["TERM", "KILL", "SEGV"])
def test_a_daemon_that_ends_without_being_stopped_is_started_again(machine: Machine, signal: str) -> None:
    pid = machine.show("alice", "MainPID")
    machine.person("alice", *SYSTEMCTL, "kill", "--kill-who=main", "--signal", signal, "mailrelay")
    restarted(machine, pid)


def test_a_daemon_that_crashes_often_is_still_started_again(machine: Machine) -> None:
    for _ in range(7):
        pid = machine.show("alice", "MainPID")
        machine.person("alice", *SYSTEMCTL, "kill", "--kill-who=main", "--signal", "KILL", "mailrelay")
        restarted(machine, pid)


def test_a_daemon_that_hangs_is_started_again(machine: Machine) -> None:
    pid = machine.show("alice", "MainPID")
    machine.person("alice", "kill", "-STOP", pid)
    restarted(machine, pid)
    assert any("Watchdog timeout" in line for line in machine.journal("alice"))


def test_wrong_settings_end_it_for_good_and_the_watchdog_reports_it_at_once(machine: Machine) -> None:
    watchdog = Path(__file__).parent.parent.parent / "contrib/shell/mailrelay-watchdog"
    machine.person("alice", "tee", ".local/bin/mailrelay-watchdog", stdin=watchdog.read_text())
    machine.person("alice", "chmod", "755", ".local/bin/mailrelay-watchdog")
    machine.person("alice", "cp", ".config/mailrelay/config.toml", "good.toml")
    try:
        machine.person("alice", "sh", "-c", "echo 'wrong = 1' >.config/mailrelay/config.toml")
        machine.try_person("alice", *SYSTEMCTL, "restart", "mailrelay")
        until(lambda: machine.show("alice", "ActiveState") == "failed", "the unit has failed")
        assert machine.show("alice", "ExecMainStatus") == "78"
        (line,) = [line for line in machine.journal("alice", "-p", "err", "-o", "cat") if "wrong" in line]
        assert line.startswith("/home/alice/.config/mailrelay/config.toml: wrong: no such setting")
        until(
            lambda: any("cannot tell" in line for line in machine.journal("alice", unit="mailrelay-watchdog")),
            "the watchdog reports it",
        )
    finally:
        machine.person("alice", "cp", "good.toml", ".config/mailrelay/config.toml")
        machine.person("alice", *SYSTEMCTL, "reset-failed", "mailrelay")


def test_the_journal_shows_lines_by_priority_and_names_the_program_once(machine: Machine) -> None:
    machine.run("systemctl", "stop", "post-ssh")
    try:
        assert send(machine, "no way").returncode == 0
        until(lambda: any("unusable" in line for line in machine.journal("alice", "-p", "warning")), "a warning")
    finally:
        machine.run("systemctl", "start", "post-ssh")
    assert not any("ready, listening" in line for line in machine.journal("alice", "-p", "warning"))
    lines = machine.journal("alice", "-o", "short", "-t", "mailrelay")
    assert any("ready, listening" in line for line in lines)
    assert not any(line.count("mailrelay") > 1 and "mailrelay:" in line for line in lines), lines
    machine.person("alice", "mailrelay", "queue", "retry", "--all")
    until(lambda: machine.arrived("no way") == 1, "the message is sent")


def test_the_unit_is_hardened_as_far_as_a_user_manager_can(machine: Machine) -> None:
    said = machine.person("alice", "systemd-analyze", "--user", "security", "--no-pager", "mailrelay.service")
    found = re.search(r"Overall exposure level for mailrelay.service: ([0-9.]+)", said)
    assert found
    assert float(found[1]) <= 7.6, said


def test_the_timer_of_the_watchdog_is_exact(machine: Machine) -> None:
    machine.person("alice", *SYSTEMCTL, "start", "mailrelay-watchdog.timer")
    assert machine.show("alice", "AccuracyUSec", unit="mailrelay-watchdog.timer") == "5s"
    machine.person("alice", *SYSTEMCTL, "stop", "mailrelay-watchdog.timer")


def test_setup_in_a_shell_without_a_session_installs_the_unit_and_knows_of_the_lingering(machine: Machine) -> None:
    machine.add_person("carol", SETTINGS.replace("[queue]", '[listen]\naddress = "localhost:7779"\n[queue]'))
    # As after `su - carol`, or under cron.
    bare = ("env", "-u", "XDG_RUNTIME_DIR", "-u", "USER", "-u", "LOGNAME", "-u", "DBUS_SESSION_BUS_ADDRESS")
    said = machine.person("carol", *bare, "mailrelay", "setup", "--yes", "post")
    assert "systemd runs the daemon" in said
    assert "loginctl enable-linger" not in said
    assert machine.show("carol", "ActiveState") == "active"
    assert "/home/carol/.local/bin/mailrelay reload" in machine.show("carol", "ExecReload")
    said = machine.person("carol", *bare, "mailrelay", "check")
    assert "taken from the daemon" in said
