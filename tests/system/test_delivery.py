"""Delivery with real programs: mail client, mailrelay, OpenSSH's sshd, and a mail server behind it."""

import os
import subprocess
from collections.abc import Callable
from email import message_from_bytes
from email.policy import SMTP
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.mail_clients import ME, curl, message, require_git_send_email, submit, swaks
from harness.mailboxes import DOMAIN
from harness.postfix import Postfix
from harness.processes import until
from harness.sendmail import Sendmail
from harness.sshd import Sshd

pytestmark = pytest.mark.system

BODIES = {
    "dots": b".\r\n..\r\n.two\r\n\r\n...\r\nend.\r\n.\r\n",
    "long": b"x" * 998 + b"\r\n" + b"." * 998 + b"\r\n",
    "eight": "Grüße, 你好, \u00a0\r\n".encode() + bytes(range(128, 256)) + b"\r\n",
    "empty": b"",
    "blank": b"\r\n\r\n\r\n",
    "from": b"From the start of a line\r\n>From another\r\n",
    "large": b"".join(b"%07d all work and no play\r\n" % number for number in range(40_000)),
}

Remote = Sendmail | Postfix


@pytest.fixture(params=["sendmail", "postfix"])
def remote(request: pytest.FixtureRequest) -> Remote:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def test_every_octet_of_the_content_arrives(remote: Remote, relays: Callable[..., Relay], token: str) -> None:
    relay = relays(remote.port)
    relay.start()
    for kind, body in BODIES.items():
        content = message(f"{token}-{kind}", body)
        code, words = submit(relay.port, [f"alice@{DOMAIN}"], content)
        assert (code, words.split()[2]) == (250, "sent:"), words
        (letter,) = remote.boxes.wait("alice", f"{token}-{kind}")
        head, _, arrived = letter.partition(b"\r\n\r\n")
        assert arrived == body
        for line in content.partition(b"\r\n\r\n")[0].split(b"\r\n"):
            assert line in head.split(b"\r\n")
    assert relay.states("--all") == {f"alice@{DOMAIN}": "sent"}
    assert relay.run("status").returncode == 0


def test_postfix_gets_the_message_unchanged_below_the_trace_lines(
    postfix: Postfix, relays: Callable[..., Relay], token: str
) -> None:
    relay = relays(postfix.port)
    relay.start()
    content = message(token, BODIES["dots"] + BODIES["eight"])
    submit(relay.port, [f"alice@{DOMAIN}"], content)
    (letter,) = postfix.boxes.wait("alice", token)
    assert letter.endswith(b"\r\n" + content)
    added = message_from_bytes(letter.removesuffix(content) + b"\r\n", policy=SMTP)
    assert set(added.keys()) <= {"Return-Path", "X-Original-To", "Delivered-To", "Received"}
    assert [line for line in added.get_all("Received", []) if "127.0.0.1" in line and "Postfix" not in line] == []


def test_swaks_and_curl_get_the_reply_sent(sendmail: Sendmail, relays: Callable[..., Relay], token: str) -> None:
    relay = relays(sendmail.port)
    relay.start()
    said = swaks(relay.port, [f"alice@{DOMAIN}", f"bob@{DOMAIN}"], token)
    assert said.returncode == 0, said.stdout
    assert "sent: " in said.stdout
    curled = curl(relay.port, f"me@{DOMAIN}", message(token, BODIES["dots"]))
    assert curled.returncode == 0, curled.stderr
    for account in ("alice", "bob", "me"):
        assert len(sendmail.boxes.wait(account, token)) == 1


def test_one_message_to_forty_recipients_is_one_transaction(
    remote: Remote, relays: Callable[..., Relay], token: str
) -> None:
    relay = relays(remote.port)
    relay.start()
    everybody = [f"u{number}" for number in range(40)]
    code, _ = submit(relay.port, [f"{name}@{DOMAIN}" for name in everybody], message(token))
    assert code == 250
    for name in everybody:
        assert len(remote.boxes.wait(name, token)) == 1
    assert set(relay.states("--all").values()) == {"sent"}
    (listed,) = relay.queue("--all")
    assert (listed["attempts"], len(listed["recipients"])) == (1, 40)


def test_the_null_reverse_path_and_an_address_that_needs_quotes_reach_the_remote(
    postfix: Postfix, relays: Callable[..., Relay], token: str
) -> None:
    relay = relays(postfix.port)
    relay.start()
    code, _ = submit(relay.port, [f'"alice"@{DOMAIN}'], message(token), sender="<>")
    assert code == 250
    (letter,) = postfix.boxes.wait("alice", token)
    assert message_from_bytes(letter)["Return-Path"] == "<>"


def test_the_connection_closes_after_the_last_mail_and_opens_for_the_next(
    sendmail: Sendmail, sshd: Sshd, relays: Callable[..., Relay], token: str
) -> None:
    relay = relays(sendmail.port, linger="1s")
    relay.start()
    assert sshd.logins() == 0
    for number in (1, 2):
        code, words = submit(relay.port, [f"alice@{DOMAIN}"], message(f"{token}-{number}"))
        assert (code, "sent: " in words) == (250, True), words
        until(lambda: sshd.sessions() == 0, "the connection is closed")
        assert sshd.logins() == number


def test_with_forwarding_prohibited_mail_is_delivered_by_sendmail_bs(
    sshd: Sshd, sendmail: Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    sshd.stop()
    sshd.start(forwarding=False)
    relay = relays(sendmail.port, command=sendmail.on_stdin)
    relay.start()
    for number in (1, 2):
        code, words = submit(relay.port, [f"alice@{DOMAIN}"], message(f"{token}-{number}", BODIES["dots"]))
        assert (code, "sent: " in words) == (250, True), words
        (letter,) = sendmail.boxes.wait("alice", f"{token}-{number}")
        assert letter.endswith(b"\r\n\r\n" + BODIES["dots"])


def test_the_sendmail_command_stores_mail_without_a_daemon_which_sends_it_later(
    sendmail: Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    relay = relays(sendmail.port)
    content = message(token, b".\nafter a dot\n").replace(b"\r\n", b"\n")
    stored = relay.run("sendmail", "-t", "-i", "-f", ME, stdin=content)
    assert stored.returncode == 0, stored.stderr
    assert relay.states() == {f"alice@{DOMAIN}": "queued"}
    assert relay.run("status").returncode == 2, "mail waits and nobody serves"
    relay.start()
    (letter,) = sendmail.boxes.wait("alice", token)
    assert letter.endswith(b"\r\n\r\n.\r\nafter a dot\r\n")
    stored = relay.run("sendmail", "-f", ME, f"bob@{DOMAIN}", stdin=content.partition(b"\n.\n")[0] + b"\n")
    assert stored.returncode == 0, stored.stderr
    sendmail.boxes.wait("bob", token)


def test_git_send_email_sends_a_patch(
    sendmail: Sendmail, relays: Callable[..., Relay], token: str, tmp_path: Path
) -> None:
    require_git_send_email()
    relay = relays(sendmail.port)
    relay.start()
    repository = tmp_path / "repository"
    repository.mkdir()
    who = {"GIT_AUTHOR_NAME": "Me", "GIT_AUTHOR_EMAIL": ME, "GIT_COMMITTER_NAME": "Me", "GIT_COMMITTER_EMAIL": ME}
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8", **who}

    def git(*words: str) -> None:
        done = subprocess.run(["git", *words], cwd=repository, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    git("init", "-q")
    (repository / "file").write_text("Grüße\n.\n")
    git("add", "file")
    git("commit", "-q", "-m", token)
    git("format-patch", "--root", "-o", str(tmp_path / "patches"))
    server = ["--smtp-server=127.0.0.1", f"--smtp-server-port={relay.port}", "--smtp-domain=client.example"]
    patches = [str(path) for path in (tmp_path / "patches").iterdir()]
    git("send-email", *server, f"--to=alice@{DOMAIN}", f"--from={ME}", "--confirm=never", "--quiet", *patches)
    (letter,) = sendmail.boxes.wait("alice", token)
    assert "+Grüße\r\n+.\r\n".encode() in letter
