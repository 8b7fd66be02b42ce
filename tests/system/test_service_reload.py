"""Reloads of the systemd user unit, while mail comes in and goes out."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.processes import until
from harness.systemd import SETTINGS, Machine

pytestmark = pytest.mark.system

SYSTEMCTL = ("systemctl", "--user")
MAILS = 15
SUBMIT = f"""
import smtplib, time
for number in range({MAILS}):
    with smtplib.SMTP("127.0.0.1", 7777, timeout=30) as client:
        client.sendmail("me@example.org", "you@example.net", f"Subject: during reloads {{number}}\\r\\n\\r\\nhello\\r\\n")
        print("taken", flush=True)
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine") / "it") as made:
        made.add_person("bob")
        made.install("bob")
        yield made


@pytest.fixture(autouse=True)
def usual_settings(machine: Machine) -> None:
    settle(machine, SETTINGS)
    machine.person("bob", *SYSTEMCTL, "start", "mailrelay")


def settle(machine: Machine, text: str) -> None:
    machine.person("bob", "tee", ".config/mailrelay/config.toml", stdin=text)


def test_no_mail_is_refused_or_lost_during_reloads(machine: Machine) -> None:
    pid = machine.show("bob", "MainPID")
    with ThreadPoolExecutor() as pool:
        sending = pool.submit(machine.person, "bob", "python3", "-c", SUBMIT)
        for linger in range(1, 5):
            settle(machine, SETTINGS.replace('ssh = "post"', f'ssh = "post"\nlinger = "{linger}s"'))
            machine.person("bob", *SYSTEMCTL, "reload", "mailrelay")
        assert sending.result().split() == ["taken"] * MAILS
    until(lambda: all(machine.arrived(f"during reloads {number}") for number in range(MAILS)), "all mail arrives")
    assert [machine.arrived(f"during reloads {number}") for number in range(MAILS)] == [1] * MAILS
    assert machine.show("bob", "MainPID") == pid
    assert machine.show("bob", "ActiveState") == "active"


def test_a_message_at_its_final_dot_is_finished_by_the_old_relayhost(machine: Machine) -> None:
    machine.hold_replies(hold=True)
    try:
        with ThreadPoolExecutor() as pool:
            text = "Subject: at the dot\n\nhello\n"
            words = ("mailrelay", "sendmail", "--wait", "-f", "me@example.org", "you@example.net")
            sending = pool.submit(machine.try_person, "bob", *words, stdin=text)
            until(lambda: machine.has_content("at the dot"), "the mail server has the content")
            settle(machine, SETTINGS.replace('ssh = "post"', 'ssh = "post"\nlinger = "7s"'))
            machine.person("bob", *SYSTEMCTL, "reload", "mailrelay")
            machine.hold_replies(hold=False)
            assert sending.result().returncode == 0
    finally:
        machine.hold_replies(hold=False)
    assert machine.arrived("at the dot") == 1
    lines = machine.person("bob", "mailrelay", "queue", "--all", "--json").splitlines()
    (message,) = [one for line in lines if (one := json.loads(line))["subject"] == "at the dot"]
    assert [(one["state"], one["uncertain"]) for one in message["recipients"]] == [("sent", False)]


def test_wrong_settings_fail_the_reload_and_leave_the_daemon_as_it_was(machine: Machine) -> None:
    pid = machine.show("bob", "MainPID")
    settle(machine, SETTINGS + "wrong = 1\n")
    assert machine.try_person("bob", *SYSTEMCTL, "reload", "mailrelay").returncode != 0
    assert (machine.show("bob", "MainPID"), machine.show("bob", "ActiveState")) == (pid, "active")
    lines = machine.journal("bob", "-p", "err", "-o", "cat")
    assert any("wrong: no such setting" in line for line in lines), lines
    # A signal alone does the same.
    machine.person("bob", *SYSTEMCTL, "kill", "--kill-who=main", "--signal", "HUP", "mailrelay")
    until(
        lambda: any(
            "goes on with the old settings" in line for line in machine.journal("bob", "-p", "err", "-o", "cat")
        ),
        "the daemon says so",
    )
    assert (machine.show("bob", "MainPID"), machine.show("bob", "ActiveState")) == (pid, "active")
