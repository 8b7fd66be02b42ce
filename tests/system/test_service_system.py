"""The system's mailrelay under a real systemd: cron, www-data, root, and who sees what in the queue."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.processes import until
from harness.system_service import PROGRAM, as_account, prepare, set_up
from harness.systemd import SETTINGS, Machine

pytestmark = pytest.mark.system

CRON = """\
MAILTO=you@example.net
@reboot carol echo said by carol
@reboot www-data echo said by www-data
@reboot root echo said by root
"""
BY_SOCKET = """
import smtplib, socket
class Client(smtplib.SMTP):
    def _get_socket(self, *_):
        opened = socket.socket(socket.AF_UNIX)
        opened.connect("/run/mailrelay/smtp")
        return opened
with Client("mailrelay") as client:
    client.sendmail("me@example.org", "you@example.net", "Subject: by the socket\\r\\n\\r\\nx\\r\\n")
"""
BY_PORT = """
import smtplib
with smtplib.SMTP("127.0.0.1", 7777) as client:
    client.sendmail("me@example.org", "you@example.net", "Subject: by the port\\r\\n\\r\\nx\\r\\n")
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine") / "it") as made:
        prepare(made)
        set_up(made, "--key", "/root/key", "--sendmail", "post")
        yield made


@pytest.fixture
def waiting(machine: Machine) -> Iterator[dict[str, str]]:
    """The ids of messages that wait, by the account that has submitted them: the relayhost cannot be reached."""
    machine.run("systemctl", "stop", "post-ssh")
    try:
        for name in ("carol", "www-data"):
            send(machine, name, f"{name} waits")
        yield {
            subject.split()[0]: queue_id for subject, queue_id in queue(machine, "root").items() if "waits" in subject
        }
    finally:
        machine.run("systemctl", "start", "post-ssh")
        for queue_id in queue(machine, "root").values():
            machine.try_run(PROGRAM, "queue", "release", queue_id)
        machine.run(PROGRAM, "queue", "retry", "--all")
        until(lambda: not queue(machine, "root"), "all mail is sent")


def send(machine: Machine, name: str, subject: str, *options: str) -> None:
    words = ("mailrelay", "sendmail", *options, "you@example.net")
    status, _, said = as_account(machine, name, *words, stdin=f"Subject: {subject}\n\nhello\n")
    assert (status, said) == (0, "")


def queue(machine: Machine, name: str) -> dict[str, str]:
    """The ids of the messages that this account sees, by their subjects."""
    status, lines, said = as_account(machine, name, "mailrelay", "queue", "--json")
    assert (status, said) == (0, "")
    return {record["subject"]: record["queue_id"] for record in map(json.loads, lines.splitlines())}


def log(machine: Machine) -> str:
    return machine.run(PROGRAM, "log")


def test_cron_www_data_and_root_send_mail_by_the_system_service_and_the_log_names_them(machine: Machine) -> None:
    machine.run("tee", "/etc/cron.d/test", stdin=CRON)
    machine.run("systemd-run", "--unit=test-cron", "cron", "-f")
    host = machine.run("hostname").strip()
    for name in ("carol", "www-data", "root"):
        subject = f"Cron <{name}@{host}> echo said by {name}"
        until(lambda subject=subject: machine.arrived(subject) == 1, subject)
        assert f"status=accepted account={name}\n" in machine.run("cat", "/var/lib/mailrelay/mailrelay.log")


def test_sendmail_waits_for_the_mail_server_and_names_a_wrong_address(machine: Machine) -> None:
    send(machine, "carol", "waited for", "--wait")
    assert machine.arrived("waited for") == 1
    words = ("/usr/sbin/sendmail", "-t", "-i")
    status, _, said = as_account(machine, "carol", *words, stdin="To: wrong@@, you@example.net\nSubject: half\n\nx\n")
    assert status == 0
    assert "<wrong@@> is bounced" in said
    until(lambda: machine.arrived("half") == 1, "the other recipient gets it")
    (queue_id,) = queue(machine, "carol").values()
    assert as_account(machine, "carol", "mailrelay", "queue", "drop", queue_id)[0] == 0


def test_an_account_with_settings_of_its_own_uses_those(machine: Machine) -> None:
    machine.add_person("frank", SETTINGS)
    machine.person("frank", "mailrelay", "sendmail", "you@example.net", stdin="Subject: of frank\n\nx\n")
    assert "of frank" in machine.person("frank", "mailrelay", "queue", "--json")
    assert "of frank" not in queue(machine, "root")


def test_the_socket_is_for_every_account_and_the_port_for_those_that_allow_users_names(machine: Machine) -> None:
    assert as_account(machine, "www-data", "python3", "-c", BY_SOCKET)[0] == 0
    assert machine.arrived("by the socket") == 1
    assert "5.7.1 this account may not send mail here" in as_account(machine, "www-data", "python3", "-c", BY_PORT)[2]
    assert as_account(machine, "root", "python3", "-c", BY_PORT)[0] == 0
    lines = machine.run("cat", "/var/lib/mailrelay/mailrelay.log").splitlines()
    accounts = [line.rpartition("account=")[2] for line in lines if "from=<me@example.org>" in line]
    assert accounts == ["www-data", "root"]


def test_an_account_sees_and_changes_its_own_mail_and_root_all(machine: Machine, waiting: dict[str, str]) -> None:
    assert set(waiting) == {"carol", "www-data"}
    for mine, other in (("carol", "www-data"), ("www-data", "carol")):
        assert list(queue(machine, mine)) == [f"{mine} waits"]
        for verb in ("show", "hold", "cancel", "resend"):
            status, shown, said = as_account(machine, mine, "mailrelay", "queue", verb, waiting[other])
            assert (status, shown) == (1, "")
            assert f"no message has the id {waiting[other]}" in said
        assert as_account(machine, mine, "mailrelay", "queue", "hold", waiting[mine])[1] == f"{waiting[mine]} is held\n"
    assert as_account(machine, "erin", "mailq")[1] == "the queue is empty\n"
    shown = as_account(machine, "root", "mailrelay", "queue", "show", waiting["carol"])[1]
    assert "account    carol" in shown
    # The new message in its place belongs to the same account.
    resent = as_account(machine, "root", "mailrelay", "queue", "resend", waiting["www-data"])
    assert resent[0] == 0, resent
    assert list(queue(machine, "www-data")) == ["www-data waits"]


def test_accounts_cannot_read_what_is_not_theirs(machine: Machine) -> None:
    for path in (
        "/etc/mailrelay/config.toml",
        "/var/lib/mailrelay/spool.db",
        "/run/credentials/mailrelay.service/ssh_key",
    ):
        assert as_account(machine, "carol", "cat", path)[0] != 0
    assert as_account(machine, "carol", "sh", "-c", "echo x >/run/mailrelay/trigger")[0] != 0
    # The daemon has a copy of root's key.
    assert as_account(machine, "mailrelay", "cat", "/root/key")[0] != 0
    assert as_account(machine, "mailrelay", "cat", "/run/credentials/mailrelay.service/ssh_key")[0] == 0
    status, _, said = as_account(machine, "carol", "mailrelay", "status")
    assert status != 0
    assert "this account has no mailrelay of its own" in said


def test_root_uses_all_commands(machine: Machine) -> None:
    until(lambda: machine.try_run(PROGRAM, "status").stdout.startswith("fine\n"), "the relayhost is reached again")
    machine.run(PROGRAM, "test", "you@example.net")
    machine.run(PROGRAM, "reload")
    machine.run("systemctl", "reload", "mailrelay")
    machine.run(PROGRAM, "check")
    # The key of the server has changed: only root may accept another one.
    lines = machine.run("cat", "/etc/mailrelay/known_hosts")
    machine.run("tee", "/etc/mailrelay/known_hosts", stdin="")
    assert "Written to /etc/mailrelay/known_hosts" in machine.run(PROGRAM, "trust", "--yes")
    assert machine.run("stat", "--format=%U %a", "/etc/mailrelay/known_hosts") == "root 644\n"
    machine.run("tee", "/etc/mailrelay/known_hosts", stdin=lines)
    owners = set(machine.run("stat", "--format=%U", *machine.shell("echo /var/lib/mailrelay/*").split()).split())
    assert owners == {"mailrelay"}


def test_mail_starts_a_daemon_that_does_not_run_and_where_nothing_listens_sendmail_keeps_the_message(
    machine: Machine,
) -> None:
    machine.run("systemctl", "stop", "mailrelay")
    send(machine, "carol", "to a daemon that does not run")
    until(lambda: machine.arrived("to a daemon that does not run") == 1, "the message arrives")
    machine.run("systemctl", "stop", "mailrelay.socket", "mailrelay")
    try:
        words = ("mailrelay", "sendmail", "you@example.net")
        status, _, said = as_account(machine, "carol", *words, stdin="Subject: kept\n\nx\n")
        assert status == 75
        assert said.startswith("mailrelay: the system's mailrelay cannot be reached (/run/mailrelay/control: ")
        assert said.endswith("; the message is in /home/carol/dead.letter\n")
        assert "Subject: kept" in machine.run("cat", "/home/carol/dead.letter")
        assert as_account(machine, "carol", "mailrelay", "queue")[0] == 1
    finally:
        machine.run("systemctl", "start", "mailrelay.socket", "mailrelay-control.socket", "mailrelay")
    send(machine, "carol", "and again")
    until(lambda: machine.arrived("and again") == 1, "the message arrives")


def test_a_daemon_with_nothing_to_do_ends_and_is_started_by_each_socket(machine: Machine) -> None:
    machine.shell(
        'sed -i -e \'s/^\\[listen\\]/&\\nidle_exit = "400ms"/\' -e \'s/^ssh = .*/&\\nlinger = "0s"\\ntrack = "off"/\''
        " /etc/mailrelay/config.toml; systemctl restart mailrelay"
    )
    for submit in (lambda: send(machine, "carol", "asleep"), lambda: machine.run("python3", "-c", BY_PORT)):
        until(lambda: machine.run("systemctl", "show", "-P", "MainPID", "mailrelay") == "0\n", "the daemon ends")
        assert "asleep; starts with the next mail" in machine.run(PROGRAM, "status")
        submit()
    until(lambda: machine.arrived("asleep") == 1, "the message arrives")


def test_the_units_are_confined(machine: Machine) -> None:
    for unit in ("mailrelay.service", "mailrelay-control@x.service"):
        last = machine.run("systemd-analyze", "security", "--no-pager", unit).strip().splitlines()[-1]
        assert float(last.partition(": ")[2].split()[0]) <= 1.4
    machine.run("systemd-analyze", "verify", "/etc/systemd/system/mailrelay.service")


def test_setup_makes_a_key_that_only_root_can_read_and_says_where_it_has_to_be(tmp_path: Path) -> None:
    with Machine(tmp_path / "it") as machine:
        prepare(machine)
        machine.run("rm", "/etc/mailrelay/known_hosts")
        done = machine.try_run(PROGRAM, "setup", "--system", "--yes", "post")
        assert done.returncode == 1
        public = machine.run("cat", "/etc/mailrelay/ssh/id_ed25519.pub")
        assert f"By hand: put this line into ~/.ssh/authorized_keys there: {public.strip()};" in done.stderr
        machine.run("tee", "-a", "/home/server/.ssh/authorized_keys", stdin=public)
        set_up(machine, "post")
        assert machine.run("stat", "--format=%U %a", "/etc/mailrelay/ssh/id_ed25519") == "root 600\n"
        send(machine, "www-data", "by the new key", "--wait")
        machine.run("ssh-keygen", "-q", "-N", "secret", "-f", "/root/protected")
        done = machine.try_run(PROGRAM, "setup", "--system", "--yes", "--key", "/root/protected", "post")
        assert "a service cannot use this key: ~/protected needs a passphrase" in done.stderr
        # Only root sets it up.
        assert as_account(machine, "carol", PROGRAM, "setup", "--system", "post")[0] == 1


def test_setup_may_be_run_again_and_undoes_the_alternatives(machine: Machine) -> None:
    pid = machine.run("systemctl", "show", "-P", "MainPID", "mailrelay.socket")
    assert "has post already" in set_up(machine, "post")
    assert machine.run("systemctl", "show", "-P", "MainPID", "mailrelay.socket") == pid
    set_up(machine, "--no-sendmail")
    assert machine.try_run("ls", "/usr/sbin/sendmail").returncode != 0
    # Another user's program in its place is left alone.
    machine.run("cp", "/bin/true", "/usr/sbin/sendmail")
    done = machine.try_run(PROGRAM, "setup", "--system", "--sendmail")
    assert done.returncode == 1
    assert "/usr/sbin/sendmail belongs to another program" in done.stderr
    set_up(machine, "--no-sendmail")
