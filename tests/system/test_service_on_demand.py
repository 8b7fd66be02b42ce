"""The systemd user units on demand: the daemon ends when there is nothing to do, and is started by the next mail."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.processes import until
from harness.systemd import SETTINGS, Machine

pytestmark = pytest.mark.system

SYSTEMCTL = ("systemctl", "--user")
LISTEN = '[listen]\nidle_exit = "{idle}"\nanswer_within = "{answer}"\n'
MAILS = 24
SUBMIT = f"""
import random, smtplib, subprocess, time
random.seed(7)
for number in range({MAILS}):
    text = f"Subject: at the end {{number}}\\r\\n\\r\\nhello\\r\\n"
    if number % 4:
        with smtplib.SMTP("127.0.0.1", 7777, timeout=30) as client:
            client.sendmail("me@example.org", "you@example.net", text)
    else:
        words = ["mailrelay", "sendmail", "-f", "me@example.org", "you@example.net"]
        subprocess.run(words, input=text.encode(), check=True)
    print("taken", flush=True)
    time.sleep(random.uniform(0.2, 0.5))
"""


def settings(idle: str, answer: str = "8s", track: str = "auto") -> str:
    text = SETTINGS.replace('ssh = "post"', f'ssh = "post"\nlinger = "0s"\ntrack = "{track}"')
    return LISTEN.format(idle=idle, answer=answer) + text


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine") / "it") as made:
        made.add_person("dave", settings("400ms"))
        made.person("dave", "mailrelay", "setup", "--yes", "post")
        drop_in = ".config/systemd/user/mailrelay.service.d/quick.conf"
        made.person("dave", "tee", drop_in, stdin="[Service]\nRestartSec=1s\n")
        made.person("dave", *SYSTEMCTL, "daemon-reload")
        yield made


@pytest.fixture(autouse=True)
def asleep(machine: Machine) -> None:
    machine.person("dave", "tee", ".config/mailrelay/config.toml", stdin=settings("400ms"))
    machine.person("dave", *SYSTEMCTL, "restart", "mailrelay")
    sleeps(machine)


def sleeps(machine: Machine) -> None:
    until(lambda: machine.show("dave", "ActiveState") == "inactive", "the daemon has ended")


def submit(machine: Machine, subject: str, *options: str) -> None:
    words = ("mailrelay", "sendmail", *options, "-f", "me@example.org", "you@example.net")
    machine.person("dave", *words, stdin=f"Subject: {subject}\n\nhello\n")


def test_a_daemon_that_sleeps_uses_no_memory_and_its_status_is_fine(machine: Machine) -> None:
    assert machine.show("dave", "MainPID") == "0"
    assert machine.show("dave", "Result") == "success"
    assert "asleep; starts with the next mail" in machine.person("dave", "mailrelay", "status")
    assert machine.person("dave", "mailrelay", "status", "--brief") == "\n"
    status = json.loads(machine.person("dave", "mailrelay", "status", "--json"))
    assert (status["status"], status["asleep"], status["serving"]) == ("fine", True, False)
    # Neither a look nor new settings start it.
    machine.person("dave", "mailrelay", "queue", "--all")
    machine.person("dave", "mailrelay", "reload")
    assert machine.show("dave", "MainPID") == "0"


def test_a_connection_starts_it_and_it_ends_again(machine: Machine) -> None:
    program = "import smtplib\nwith smtplib.SMTP('127.0.0.1', 7777, timeout=30) as client:\n"
    program += "    client.sendmail('me@example.org', 'you@example.net', 'Subject: by a client\\r\\n\\r\\nhello\\r\\n')"
    machine.person("dave", "python3", "-c", program)
    assert machine.arrived("by a client") == 1
    sleeps(machine)


@pytest.mark.parametrize("options", [[], ["--wait"]])
def test_sendmail_starts_it(machine: Machine, options: list[str]) -> None:
    subject = f"by sendmail {options}"
    submit(machine, subject, *options)
    until(lambda: machine.arrived(subject) == 1, "the message arrives")
    assert "nobody" not in machine.person("dave", "mailrelay", "status")
    sleeps(machine)


def test_a_daemon_that_was_killed_is_started_again_also_on_demand(machine: Machine) -> None:
    machine.run("systemctl", "stop", "post-ssh")
    try:
        submit(machine, "after a kill")
        pid = until(lambda: machine.show("dave", "MainPID").strip("0"), "the daemon runs")
        until(lambda: "unusable" in machine.person("dave", "mailrelay", "log"), "the relayhost cannot be reached")
        machine.person("dave", *SYSTEMCTL, "kill", "--kill-who=main", "--signal", "KILL", "mailrelay")
        until(lambda: machine.show("dave", "MainPID").strip("0") not in ("", pid), "the daemon was started again")
    finally:
        machine.run("systemctl", "start", "post-ssh")
    # It waits for the retry, and so it does not sleep.
    until(lambda: machine.arrived("after a kill") == 1, "the message arrives")


def test_nothing_is_lost_that_comes_in_when_the_daemon_ends(machine: Machine) -> None:
    machine.person("dave", "tee", ".config/mailrelay/config.toml", stdin=settings("200ms", "0s", track="off"))
    before = int(machine.show("dave", "NRestarts"))
    starts = sum("ready, listening" in line for line in machine.journal("dave"))
    assert machine.person("dave", "python3", "-c", SUBMIT).split() == ["taken"] * MAILS
    until(lambda: all(machine.arrived(f"at the end {number}") for number in range(MAILS)), "all mail arrives")
    assert [machine.arrived(f"at the end {number}") for number in range(MAILS)] == [1] * MAILS
    sleeps(machine)
    assert int(machine.show("dave", "NRestarts")) == before
    # It did end and start in between.
    assert sum("ready, listening" in line for line in machine.journal("dave")) > starts + 1


def test_wrong_settings_are_tried_again_in_peace_and_a_client_that_waits_is_served_in_the_end(machine: Machine) -> None:
    machine.person("dave", "tee", ".config/mailrelay/config.toml", stdin=settings("400ms") + "wrong = 1\n")
    program = "import smtplib\nwith smtplib.SMTP('127.0.0.1', 7777, timeout=30) as client:\n"
    program += "    client.sendmail('me@example.org', 'you@example.net', 'Subject: patience\\r\\n\\r\\nhello\\r\\n')"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(machine.person, "dave", "python3", "-c", program)
        until(lambda: machine.show("dave", "NRestarts") == "2", "it was tried twice more")
        refusals = [line for line in machine.journal("dave", "-p", "err") if "wrong: no such setting" in line]
        assert len(refusals) <= 3
        machine.person("dave", "tee", ".config/mailrelay/config.toml", stdin=settings("400ms"))
        waiting.result()
    assert machine.arrived("patience") == 1
    sleeps(machine)


def test_setup_without_idle_exit_makes_it_run_always_again(machine: Machine) -> None:
    machine.person("dave", "tee", ".config/mailrelay/config.toml", stdin=settings("0s"))
    machine.person("dave", "mailrelay", "setup", "--yes", "post")
    assert machine.show("dave", "ActiveState") == "active"
    assert machine.show("dave", "ActiveState", unit="mailrelay.socket") == "inactive"
