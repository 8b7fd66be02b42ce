"""Real mail servers that refuse mailrelay itself: one setup fault with its fix, and no mail is lost."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.mail_clients import message, submit
from harness.mailboxes import DOMAIN
from harness.postfix import Package, Postfix
from harness.processes import until

pytestmark = pytest.mark.system

ALICE = f"alice@{DOMAIN}"
HELO = """\
smtpd_helo_required = yes
smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname, permit
"""
AT_ONCE = "smtpd_delay_reject = no\n"
CLIENT = "smtpd_client_restrictions = check_client_access inline:{{127.0.0.1 = REJECT}}\n"
TLS = "smtpd_client_restrictions = reject_plaintext_session\n"


@pytest.fixture
def servers(postfix_package: Package) -> Iterator[Callable[[str], Postfix]]:
    """Starts a Postfix with these lines in main.cf."""
    started: list[Postfix] = []
    directories: list[Path] = []

    def start(settings: str) -> Postfix:
        # Postfix gives up root, and pytest's own directories let nobody else through.
        directories.append(Path(tempfile.mkdtemp(prefix="postfix-")))
        directories[-1].chmod(0o755)
        started.append(Postfix(postfix_package, directories[-1] / "remote", settings))
        return started[-1]

    yield start
    for server in started:
        server.stop()
    for directory in directories:
        shutil.rmtree(directory)


def waits(relay: Relay, token: str, reply: str, fix: str) -> None:
    """Three messages wait with their 250, there is one notice, and `check` finds the fault."""
    relay.start()
    for number in range(3):
        code, words = submit(relay.port, [ALICE], message(f"{token}-{number}", b"hello\r\n"))
        assert (code, words.split()[2]) == (250, "queued:"), words
        assert reply in words
    (notice,) = until(relay.notices, "the command has the notice")
    assert notice["kind"] == "setup"
    assert fix in notice["fix"]
    assert {one["attempts"] for one in relay.queue()} == {0}
    assert relay.run("status").returncode == 2
    checked = relay.run("check")
    assert fix in " ".join(checked.stdout.split()), checked.stdout


def arrives(relay: Relay, server: Postfix, token: str) -> None:
    relay.start()
    code, words = submit(relay.port, [ALICE], message(token, b"hello\r\n"))
    assert (code, words.split()[2]) == (250, "sent:"), words
    server.boxes.wait("alice", token)


@pytest.mark.parametrize("more", ["", AT_ONCE], ids=["at RCPT", "at EHLO"])
def test_a_mail_server_that_wants_a_whole_name_is_content_with_the_default(
    servers: Callable[[str], Postfix], relays: Callable[..., Relay], token: str, more: str
) -> None:
    server = servers(HELO + more)
    arrives(relays(server.port), server, token)


@pytest.mark.parametrize("more", ["", AT_ONCE], ids=["at RCPT", "at EHLO"])
def test_a_refused_name_is_one_setup_fault_and_no_mail_is_lost(
    servers: Callable[[str], Postfix], relays: Callable[..., Relay], token: str, more: str
) -> None:
    server = servers(HELO + more)
    relay = relays(server.port, helo="localhost")
    waits(relay, token, "Helo command rejected", "Set helo")
    relay.stop()
    relay.config.write_text(relay.config.read_text().replace('helo = "localhost"', 'helo = "laptop.example.org"'))
    relay.start()
    relay.do("queue", "retry", "--all")
    server.boxes.wait("alice", token, 3)
    until(lambda: [one["kind"] for one in relay.notices()] == ["setup", "resumed"], "mail moves again")


@pytest.mark.parametrize("more", ["", AT_ONCE], ids=["at RCPT", "at the greeting"])
def test_a_mail_server_that_refuses_its_own_host_is_one_setup_fault(
    servers: Callable[[str], Postfix], relays: Callable[..., Relay], token: str, more: str
) -> None:
    waits(relays(servers(CLIENT + more).port), token, "Client host rejected", "permit 127.0.0.1")


def test_a_mail_server_that_wants_tls_is_one_setup_fault(
    servers: Callable[[str], Postfix], relays: Callable[..., Relay], token: str
) -> None:
    waits(relays(servers(TLS).port), token, "Session encryption is required", "without TLS")


def test_a_mail_server_that_wants_starttls_first_is_one_setup_fault(
    servers: Callable[[str], Postfix], relays: Callable[..., Relay], token: str, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={DOMAIN}", "-days", "2"]
    subprocess.run([*words, "-keyout", key, "-out", key], check=True, capture_output=True)
    tls = f"smtpd_tls_security_level = encrypt\nsmtpd_tls_chain_files = {key}\n"
    server = servers(tls)
    waits(relays(server.port), token, "Must issue a STARTTLS command first", "smtpd_tls_security_level = may")
