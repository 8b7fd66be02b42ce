"""Host keys with OpenSSH's server and client, a jump host included: no login before the key is accepted."""

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.mail_clients import message, submit
from harness.mailboxes import DOMAIN
from harness.nameserver import Nameserver
from harness.processes import program
from harness.sendmail import Sendmail
from harness.sshd import ALIAS, Sshd, make_key

pytestmark = pytest.mark.system


@pytest.fixture
def jump(sshd: Sshd, tmp_path: Path) -> Iterator[Sshd]:
    """A jump host in front of `sshd`, with a known_hosts file of its own."""
    server = Sshd(tmp_path / "jump")
    server.start()
    host = server.ssh_config.read_text().replace(f"Host {ALIAS}", "Host jump")
    sshd.ssh_config.write_text(f"{sshd.ssh_config.read_text()}  ProxyJump jump\n{host}Host *\n  HashKnownHosts yes\n")
    yield server
    server.stop()


@pytest.mark.parametrize("verdict", ["unknown", "changed"])
@pytest.mark.parametrize("where", ["target", "jump"])
def test_mail_waits_until_the_key_is_accepted_and_is_sent_at_once(
    verdict: str, where: str, sshd: Sshd, jump: Sshd, sendmail: Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    server = sshd if where == "target" else jump
    known = server.directory / "known_hosts"
    if verdict == "unknown":
        known.write_text("")
    else:
        server.know(make_key(server.directory / "another"))
    relay = relays(sendmail.port)
    relay.start()
    code, words = submit(relay.port, [f"alice@{DOMAIN}"], message(token))
    assert (code, words.split()[2]) == (250, "queued:"), words

    before = known.read_text()
    said = relay.run("trust")
    assert said.returncode == 1 and "say --yes" in said.stderr
    assert verdict in said.stdout and known.read_text() == before
    assert server.logins() == 0
    assert not any("Failed" in line or "Invalid user" in line for line in server.log)

    said = relay.run("trust", "--yes")
    assert said.returncode == 0, said.stderr
    # A second back-off would take a minute and more.
    assert len(sendmail.boxes.wait("alice", token)) == 1

    # ssh(1) accepts the file, and its host names are hashed.
    assert known.read_text().startswith("|1|")
    ssh, options = program("ssh", "openssh-client"), ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes")
    assert subprocess.run([ssh, "-F", sshd.ssh_config, *options, ALIAS, "true"], check=False).returncode == 0
    keygen = program("ssh-keygen", "openssh-client")
    found = subprocess.run([keygen, "-F", f"[127.0.0.1]:{server.port}", "-f", known], capture_output=True, check=True)
    assert server.host_key.encode() in found.stdout

    if verdict == "unknown":
        undo = said.stdout.partition("Undo: ")[2].splitlines()[0]
        subprocess.run(shlex.split(undo), capture_output=True, check=True)
        assert known.read_text() == ""


def test_a_revoked_key_stays_refused_and_check_names_it(
    sshd: Sshd, jump: Sshd, sendmail: Sendmail, relays: Callable[..., Relay]
) -> None:
    known = jump.directory / "known_hosts"
    known.write_text(f"@revoked * {jump.host_key}\n{known.read_text()}")
    relay = relays(sendmail.port)
    said = relay.run("trust", "--yes")
    assert said.returncode == 1 and "revoked" in said.stderr
    assert jump.logins() == sshd.logins() == 0
    found = relay.run("check", "--json")
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    (wrong,) = [line for line in lines if line["check"] == "host key"]
    assert wrong["ok"] is False and "jump" in wrong["text"] and found.returncode == 1


def test_check_finds_no_failure_on_a_path_that_works(
    sshd: Sshd, jump: Sshd, sendmail: Sendmail, relays: Callable[..., Relay]
) -> None:
    relay = relays(sendmail.port)
    relay.start()
    with Nameserver({}) as server:
        found = relay.run("check", "--json", "--nameserver", server.address)
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert {line["check"] for line in lines if line["ok"] is False} == set(), found.stdout
    assert found.returncode == 0
    (greeting,) = [line["text"] for line in lines if line["check"] == "greeting"]
    assert greeting.startswith("220 ")
    assert jump.logins() == sshd.logins() == 1
