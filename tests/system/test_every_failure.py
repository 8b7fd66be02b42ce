"""Failures that only real servers can show, and the notices about them.

Each is a row of the table in docs/failures.md, like those in `integration/test_every_failure.py`, with the same assertions.
"""

import signal
import smtplib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email import message_from_string
from email.policy import SMTP
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.mail_clients import message, submit
from harness.mailboxes import DOMAIN
from harness.processes import free_port, until
from harness.readme import ROOT, Row, failures
from harness.sendmail import Sendmail
from harness.sshd import ALIAS, Sshd, make_key
from harness.strace import require_strace

pytestmark = pytest.mark.system

ALICE = f"alice@{DOMAIN}"
SETUP, RESUMED, SPOOL = 5.0, 10.0, 5.0
"""Seconds until a notice of this kind must be delivered."""


@dataclass(frozen=True)
class Scene:
    """Real servers, a daemon that is not started yet, and the row of docs/failures.md."""

    row: Row
    relay: Relay
    sshd: Sshd
    sendmail: Sendmail
    directory: Path
    token: str

    def submit(self) -> str:
        """A client sends a message and gets the reply code of the row; returns the text of the reply."""
        code, words = submit(self.relay.port, [ALICE], message(self.token))
        assert code == self.row.code, words
        return words

    def told(self, kind: str, within: float) -> tuple[dict[str, object], str]:
        """The only notice of this kind and its report, after both backends have delivered it."""
        assert kind in self.row.notices

        def notices() -> list[dict[str, object]]:
            return [one for one in self.relay.notices() if one["kind"] == kind]

        def letters() -> list[str]:
            letters = self.relay.letters()
            return [one for one in letters if notice["title"] in message_from_string(one, policy=SMTP)["Subject"]]

        (notice,) = until(notices, f"the command is told of {kind}", within)
        (letter,) = until(letters, f"the Maildir has {kind}", within)
        return notice, " ".join(letter.split())

    def status(self) -> str:
        """The output of `mailrelay status --brief`; its exit status is that of the row."""
        done = self.relay.run("status", "--brief")
        assert done.returncode == self.row.status, done
        return done.stdout

    def watchdog(self) -> str:
        """The output of the watchdog, which needs no daemon."""
        programs = self.directory / "bin"
        programs.mkdir()
        argv = " ".join(f"'{word}'" for word in self.relay.command())
        # These stubs keep its messages off the desktop and the terminals of the person who runs the tests.
        scripts = {"mailrelay": f'exec {argv} "$@"', "notify-send": "exit 0", "osascript": "exit 0", "wall": "exit 0"}
        for name, script in scripts.items():
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o700)
        path = f"{programs}:/usr/bin:/bin"
        environment = self.relay.environment | {"PATH": path, "XDG_RUNTIME_DIR": str(self.directory)}
        watchdog = ROOT / "contrib" / "shell" / "mailrelay-watchdog"
        return subprocess.run([watchdog], env=environment, capture_output=True, text=True, check=True).stderr


FAILURES: dict[str, tuple[Callable[[Scene], None], dict[str, str]]] = {}
"""The rows of docs/failures.md that are tested here, with what is other than usual in the settings."""


def failure(what: str, **settings: str) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    """Makes a function the test of the row `what` in docs/failures.md."""

    def named(story: Callable[[Scene], None]) -> Callable[[Scene], None]:
        FAILURES[what] = (story, settings)
        return story

    return named


def _setup(at: Scene, step: str, fixed: Callable[[], None]) -> None:
    """Five messages cause one notice, which names the fix; after the fix they are sent, with one more notice."""
    if at.relay.child is None:
        at.relay.start()
    for _ in range(5):
        assert "queued: " in at.submit()
    notice, letter = at.told("setup", SETUP)
    assert step in str(notice["fix"])
    assert step in letter
    assert " ERROR " in at.relay.logged("relay=default unusable")
    assert "default needs you" in at.status()
    fixed()
    at.relay.do("queue", "retry", "--all")
    at.told("resumed", RESUMED)
    at.sendmail.boxes.wait("alice", at.token, count=5)
    until(lambda: at.relay.queue() == [], "nothing waits")
    assert tuple(one["kind"] for one in at.relay.notices()) == at.row.notices
    assert at.relay.run("status").returncode == 0


@failure("the host key is not known")
def _unknown(at: Scene) -> None:
    known = at.sshd.directory / "known_hosts"
    known.write_text("")
    _setup(at, "mailrelay trust", lambda: at.sshd.know(at.sshd.host_key))


@failure("the host key has changed")
def _changed(at: Scene) -> None:
    at.sshd.know(make_key(at.directory / "another"))
    _setup(at, "mailrelay trust", lambda: at.sshd.know(at.sshd.host_key))


@failure("the host key is revoked")
def _revoked(at: Scene) -> None:
    known = at.sshd.directory / "known_hosts"
    known.write_text(f"@revoked * {at.sshd.host_key}\n{known.read_text()}")
    _setup(at, "Ask the administrator of remote for its new host key", lambda: at.sshd.know(at.sshd.host_key))


@failure("the key is refused")
def _key(at: Scene) -> None:
    allowed = at.sshd.directory / "authorized_keys"
    ours = allowed.read_text()
    allowed.write_text(make_key(at.directory / "another") + "\n")
    _setup(at, "authorized_keys", lambda: _write(allowed, ours))


@failure("there is no key, or the agent does not run")
def _no_key(at: Scene) -> None:
    text = at.sshd.ssh_config.read_text()
    gone = f"IdentityFile none\n  IdentityAgent {at.directory}/gone"
    _write(at.sshd.ssh_config, text.replace(f"IdentityFile {at.sshd.directory}/client", gone))
    _setup(at, "Make a key", lambda: _write(at.sshd.ssh_config, text))


@failure("the jump host does not forward the connection")
def _jump_host(at: Scene) -> None:
    jump = Sshd(at.directory / "jump")
    text = jump.ssh_config.read_text().replace(f"Host {ALIAS}", "Host jump")
    _write(at.sshd.ssh_config, at.sshd.ssh_config.read_text() + f"  ProxyJump jump\n{text}")

    def fixed() -> None:
        jump.stop()
        jump.start()

    jump.start(forwarding=False)
    try:
        _setup(at, "sshd_config of the jump host", fixed)
    finally:
        at.relay.stop()
        jump.stop()


@failure("forwarding is prohibited")
def _forwarding(at: Scene) -> None:
    def fixed() -> None:
        at.sshd.stop()
        at.sshd.start()

    at.sshd.stop()
    at.sshd.start(forwarding=False)
    _setup(at, "AllowTcpForwarding yes", fixed)


@failure("no mail server answers on port 25")
def _port(at: Scene) -> None:
    text = at.relay.config.read_text()
    _write(at.relay.config, text.replace(f"localhost:{at.sendmail.port}", f"localhost:{free_port()}"))

    def fixed() -> None:
        at.relay.stop()
        _write(at.relay.config, text)
        at.relay.start()

    _setup(at, "correct smtp in the settings", fixed)


@failure("no daemon runs")
def _nobody_serves(at: Scene) -> None:
    with pytest.raises(ConnectionRefusedError):
        at.submit()
    stored = at.relay.run("sendmail", "-f", f"me@{DOMAIN}", ALICE, stdin=message(at.token))
    assert stored.returncode == 0, stored
    assert at.relay.states() == {ALICE: "queued"}
    assert "nobody serves" in at.status()
    assert "nobody serves" in at.watchdog()
    at.relay.start()
    at.sendmail.boxes.wait("alice", at.token)


@failure("the settings are wrong")
def _settings(at: Scene) -> None:
    _write(at.relay.config, at.relay.config.read_text().replace("[queue]", "[queue]\nspeed = 9"))
    child = at.relay.launch()
    assert child.ended() == 78
    (line,) = child.lines
    assert "queue.speed: no such setting" in line
    with pytest.raises(ConnectionRefusedError):
        at.submit()
    assert "cannot tell" in at.status()
    assert "cannot tell" in at.watchdog()


@failure("the disk fails")
def _disk(at: Scene) -> None:
    # Without sshd, so that soon only new mail causes writes.
    at.sshd.stop()
    strace = [require_strace(), "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e"]
    child = at.relay.start(*strace, "inject=fdatasync:error=EIO:when=40+")
    while (code := _answer(at)) == 250:
        pass
    # 421: another write than that of a message has failed first.
    assert code in (at.row.code, 421)
    at.told("spool", SPOOL)
    assert child.ended(10) == 1
    assert "CRITICAL" in at.relay.run("log").stdout
    assert "nobody serves" in at.status()
    assert "nobody serves" in at.watchdog()
    at.sshd.start()
    at.relay.start()
    at.relay.do("queue", "retry", "--all")
    until(lambda: set(at.relay.states("--all").values()) == {"sent"}, "what was taken over is sent")


@failure("the spool cannot be used when the daemon starts")
def _spool(at: Scene) -> None:
    spool = at.relay.directory / "spool"
    at.relay.start()
    at.relay.stop()
    (spool / "spool.db").write_bytes(b"no database, " * 1000)
    child = at.relay.launch()
    assert child.ended(10) == 1
    at.told("spool", SPOOL)
    with pytest.raises(ConnectionRefusedError):
        at.submit()
    assert "nobody serves, the spool cannot be used" in at.status()
    assert "the spool cannot be used" in at.watchdog()


@failure("the daemon hangs")
def _hangs(at: Scene) -> None:
    child = at.relay.start()
    child.process.send_signal(signal.SIGSTOP)
    assert "the daemon does not answer" in at.status()
    child.process.send_signal(signal.SIGCONT)
    until(lambda: at.relay.run("status").returncode == 0, "it goes on")


def _answer(at: Scene) -> int:
    """The code of the reply to a message, or to the connection. Sends no QUIT, because a daemon that stops sends a reply of
    its own."""
    try:
        client = smtplib.SMTP("127.0.0.1", at.relay.port, timeout=60)
    except smtplib.SMTPConnectError as error:
        return error.smtp_code
    try:
        client.ehlo()
        client.mail(f"me@{DOMAIN}")
        client.rcpt(ALICE)
        return client.data(message(at.token))[0]
    finally:
        client.close()


@failure("the daemon is killed while it sends", answer_within="0s", record="off")
def _killed(at: Scene) -> None:
    with _falls_silent() as (port, heard):
        text = at.relay.config.read_text()
        _write(at.relay.config, text.replace(f"localhost:{at.sendmail.port}", f"localhost:{port}"))
        at.relay.start()
        at.submit()
        assert heard.wait(10)
        at.relay.kill()
    assert "nobody serves" in at.status()
    assert "nobody serves" in at.watchdog()
    _write(at.relay.config, text)
    child = at.relay.start()
    child.wait_line("may arrive twice")
    at.sendmail.boxes.wait("alice", at.token)
    until(lambda: at.relay.queue() == [], "it is sent")
    assert "may arrive twice" in at.relay.do("queue", "--all")


@contextmanager
def _falls_silent() -> Iterator[tuple[int, threading.Event]]:
    """A mail server that sends nothing after it has read MAIL. Yields its port, and an event that MAIL has come."""
    heard = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client, suppress(OSError):
                client.sendall(b"220 silent\r\n")
                client.recv(1000)
                client.sendall(b"250 silent\r\n")
                if client.recv(1000).startswith(b"MAIL"):
                    heard.set()
                client.recv(1000)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        thread.join(10)


def _write(file: Path, text: str) -> None:
    file.write_text(text)


@pytest.mark.parametrize("what", FAILURES)
def test_the_failure_is_reported_as_documented(
    what: str, sshd: Sshd, sendmail: Sendmail, relays: Callable[..., Relay], tmp_path: Path, token: str
) -> None:
    story, settings = FAILURES[what]
    relay = relays(sendmail.port, retry=("1h",), **settings)
    story(Scene(failures()[what], relay, sshd, sendmail, tmp_path, token))
