"""Mail without whole addresses, as cron and other local programs hand it in, through a real sendmail, Postfix and Exim.

The account over there is the one that runs the tests, and each mail server names itself remote.example.
"""

import json
import os
import re
import shlex
import smtplib
import subprocess
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.exim import Exim
from harness.mail_clients import message, require_git_send_email
from harness.mailboxes import DOMAIN, LOGIN
from harness.postfix import Postfix
from harness.processes import Child, program
from harness.sendmail import Sendmail
from harness.sshd import ALIAS

pytestmark = pytest.mark.system

Remote = Sendmail | Postfix | Exim
ACCOUNT = f"{LOGIN}@{DOMAIN}"
CRON = ["sendmail", "-i", "-FCronDaemon", "-B8BITMIME", "-oem", LOGIN]
OUTPUT = "disk is nearly full"


@pytest.fixture(params=["sendmail", "postfix", "exim"])
def remote(request: pytest.FixtureRequest) -> Remote:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture
def relay(remote: Remote, relays: Callable[..., Relay]) -> Iterator[Relay]:
    """A relay whose daemon runs and has never dialled."""
    made = relays(remote.port)
    made.start()
    yield made


def of_cron(token: str) -> bytes:
    return (
        f"From: {LOGIN} (Cron Daemon)\nTo: {LOGIN}\nSubject: Cron <{LOGIN}@pc> {token}\n"
        f"Auto-Submitted: auto-generated\n\n{OUTPUT}\n"
    ).encode()


def with_submission(relay: Relay, **settings: str) -> None:
    lines = "".join(f'{key.rstrip("_")} = "{value}"\n' for key, value in settings.items())
    relay.config.write_text(f"{relay.config.read_text()}\n[submission]\n{lines}")


def arrived(remote: Remote, account: str, token: str) -> tuple[str, Message]:
    """The only message of the account with the token: its reverse path, and the message."""
    (raw,) = remote.boxes.wait(account, token)
    found = message_from_bytes(raw)
    path = found["Return-Path"] or ""
    if isinstance(remote, Exim):
        path = re.search(r"\(envelope-from (<\S*>)\)", found["Received"])[1]  # type: ignore[index]
    return path.strip("<>"), found


def handed_in(relay: Relay, words: list[str], stdin: bytes) -> None:
    done = relay.run(*words, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, ""), done


def test_the_mail_of_cron_arrives_in_the_account_over_there(remote: Remote, relay: Relay, token: str) -> None:
    handed_in(relay, CRON, of_cron(token))
    sender, found = arrived(remote, LOGIN, token)
    assert sender == ACCOUNT or isinstance(remote, Sendmail)
    assert (found["From"], found["To"]) == (f"{ACCOUNT} (Cron Daemon)", ACCOUNT)
    assert found["Subject"] == f"Cron <{LOGIN}@pc> {token}"
    assert found["Message-ID"].endswith(f"@{DOMAIN}>")
    assert str(found.get_payload()).strip() == OUTPUT
    # The whole addresses are those of the queue too.
    (record,) = relay.queue("--all")
    assert (record["sender"], [to["address"] for to in record["recipients"]]) == (ACCOUNT, [ACCOUNT])
    assert relay.notices() == []


def test_the_test_message_needs_no_sender(remote: Remote, relay: Relay) -> None:
    assert "your server took it" in relay.do("test", f"alice@{DOMAIN}")


def test_the_last_step_of_setup_needs_no_sender(remote: Remote, relay: Relay) -> None:
    said = relay.do("setup", ALIAS, "--yes")
    assert f"a test message to <{ACCOUNT}> is queued" in said
    assert "your server took it" in said
    records = relay.queue("--all")
    assert [(one["sender"], one["recipients"][0]["address"]) for one in records] == [(ACCOUNT, ACCOUNT)]


def test_check_shows_the_sender_and_whether_the_mail_server_takes_it(remote: Remote, relay: Relay) -> None:
    found = [json.loads(line) for line in relay.run("check", "--json").stdout.splitlines()]
    (sender,) = [one for one in found if one["check"] == "sender"]
    assert (sender["ok"], sender["text"].split(",")[0]) == (True, ACCOUNT)


def test_the_settings_decide_who_sends_and_where_local_mail_goes(
    remote: Remote, relays: Callable[..., Relay], token: str
) -> None:
    relay = relays(remote.port)
    with_submission(relay, from_=f"me@{DOMAIN}", domain="pc.example", local=f"bob@{DOMAIN}")
    relay.start()
    handed_in(relay, CRON, of_cron(token))
    _, found = arrived(remote, "bob", token)
    assert (found["From"], found["To"]) == (f"{LOGIN}@pc.example (Cron Daemon)", f"{LOGIN}@pc.example")
    assert found["Message-ID"].endswith(f"@{DOMAIN}>")
    (record,) = relay.queue("--all")
    assert record["sender"] == f"me@{DOMAIN}"


def test_the_envelope_of_mail_by_smtp_is_completed(remote: Remote, relay: Relay, token: str) -> None:
    # Debian's Exim refuses bare addresses in a header too. What comes by SMTP is the client's own.
    content = message(token)
    for recipients in (["alice"], ["postmaster", LOGIN]):
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=60) as client:
            client.ehlo()
            assert client.mail(LOGIN)[0] == 250
            assert [client.rcpt(one)[0] for one in recipients] == [250] * len(recipients)
            code, reply = client.data(content)
        assert (code, b" sent" in reply) == (250, True), reply
    for account in ("alice", "postmaster", LOGIN):
        arrived(remote, account, token)
    records = relay.queue("--all")
    assert {record["sender"] for record in records} == {ACCOUNT}
    queued = sorted(to["address"] for record in records for to in record["recipients"])
    assert queued == sorted([f"alice@{DOMAIN}", "postmaster", ACCOUNT])


def test_a_report_to_a_bare_sender_arrives(remote: Remote, relay: Relay, token: str) -> None:
    handed_in(relay, ["sendmail", "-i", f"closed@{DOMAIN}"], f"Subject: {token}\n\nHello.\n".encode())
    (raw,) = remote.boxes.wait(LOGIN, token)
    report = message_from_bytes(raw)
    assert report.get_content_type() == "multipart/report"


def test_a_report_from_before_the_first_dial_arrives(remote: Remote, relays: Callable[..., Relay], token: str) -> None:
    relay = relays(remote.port)
    letter = f"From: root\nTo: a b@c\nSubject: {token}\n\nx\n".encode()
    assert relay.run("sendmail", "-t", stdin=letter).returncode == 0
    relay.start()
    (raw,) = remote.boxes.wait(LOGIN, token)
    report = message_from_bytes(raw)
    assert (report.get_content_type(), report["To"]) == ("multipart/report", f"<{ACCOUNT}>")


def test_git_send_email_needs_no_envelope_sender(remote: Remote, relay: Relay, token: str, tmp_path: Path) -> None:
    require_git_send_email()
    patch = tmp_path / "0001.patch"
    patch.write_text(f"From {'0' * 40} Mon Sep 17 00:00:00 2001\nFrom: me@{DOMAIN}\nSubject: {token}\n\nhello\n")
    settings = tmp_path / "gitconfig"
    settings.write_text(f'[sendemail]\n  sendmailCmd = "{shlex.join(relay.command("sendmail"))}"\n')
    me = {f"GIT_{who}_{what}": f"me@{DOMAIN}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = relay.environment | me | {"GIT_CONFIG_GLOBAL": str(settings)}
    argv = [program("git", "git"), "send-email", "--quiet", "--confirm=never", "--suppress-cc=all"]
    argv += [f"--from=me@{DOMAIN}", f"--to=alice@{DOMAIN}", str(patch)]
    subprocess.run(argv, env=env, cwd=tmp_path, check=True, timeout=100, capture_output=True)
    _, found = arrived(remote, "alice", token)
    assert found["From"] == f"me@{DOMAIN}"


def test_phps_mail_needs_no_sender(remote: Remote, relay: Relay, token: str) -> None:
    code = f"exit(mail('alice@{DOMAIN}', '{token}', 'hello', 'From: shop@example.org') ? 0 : 1);"
    sendmail_path = f"sendmail_path={shlex.join(relay.command('sendmail', '-t', '-i'))}"
    argv = [program("php", "php-cli"), "-n", "-d", sendmail_path, "-r", code]
    subprocess.run(argv, env=relay.environment, check=True, timeout=100, capture_output=True)
    _, found = arrived(remote, "alice", token)
    assert found["From"] == "shop@example.org"
    (record,) = relay.queue("--all")
    assert record["sender"] == ACCOUNT


def test_what_a_job_of_cron_prints_arrives(
    sendmail: Sendmail, relays: Callable[..., Relay], token: str, tmp_path: Path
) -> None:
    if os.getuid() != 0:
        pytest.skip("cron and its crontab need root")
    relay = relays(sendmail.port)
    relay.start()
    script = tmp_path / "sendmail"
    variables = shlex.join(f"{name}={value}" for name, value in relay.environment.items())
    script.write_text(f'#!/bin/sh\nexec env {variables} {shlex.join(relay.command("sendmail"))} "$@"\n')
    script.chmod(0o755)
    crontabs = tmp_path / "crontabs"
    crontabs.mkdir()
    crontab = crontabs / LOGIN
    crontab.write_text(f'MAILTO={LOGIN}\n@reboot echo "{OUTPUT} {token}"\n')
    crontab.chmod(0o600)
    nothing = tmp_path / "nothing"
    nothing.touch()
    # Cron with this crontab alone, and mailrelay in the place of sendmail, in a mount namespace.
    mounts = [
        "mount -t tmpfs none /run",
        "mount -t tmpfs none /etc/cron.d",
        f"mount --bind {nothing} /etc/crontab",
        f"mount --bind {crontabs} /var/spool/cron/crontabs",
        f"mount --bind {script} /usr/sbin/sendmail",
    ]
    inside = f"{' && '.join(mounts)} && exec {program('cron', 'cron')} -f"
    cron = Child([program("unshare", "util-linux"), "--mount", "sh", "-c", inside])
    try:
        _, found = arrived(sendmail, LOGIN, token)
    finally:
        cron.stop()
    assert found["From"] == f"{ACCOUNT} (Cron Daemon)"
    assert found["To"] == ACCOUNT
    assert str(found.get_payload()).strip() == f"{OUTPUT} {token}"
    print(found.as_string())
