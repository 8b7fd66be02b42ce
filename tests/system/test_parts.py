"""The servers without mailrelay: if one of these tests fails, the other system tests prove nothing about mailrelay."""

import smtplib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.mailboxes import DOMAIN
from harness.postfix import Package, Postfix, Sink, send_with_source
from harness.sendmail import Sendmail
from harness.sshd import ALIAS, Sshd

pytestmark = pytest.mark.system


@pytest.mark.parametrize("kind", ["sendmail", "postfix"])
def test_a_real_remote_delivers_known_accounts_and_refuses_the_others(
    kind: str, request: pytest.FixtureRequest
) -> None:
    remote: Sendmail | Postfix = request.getfixturevalue(kind)
    with smtplib.SMTP("127.0.0.1", remote.port) as client:
        refused = client.sendmail(
            f"me@{DOMAIN}",
            [f"{name}@{DOMAIN}" for name in ("alice", "nobody-here", "later", "closed", "u39")],
            b"Subject: parts-alone\r\n\r\n\xc3\xa4\r\n.dot\r\n",
        )
    assert {address.partition("@")[0]: reply[0] for address, reply in refused.items()} == {
        "nobody-here": 550,
        "later": 450,
        "closed": 550,
    }
    for account in ("alice", "u39"):
        (letter,) = remote.boxes.wait(account, "parts-alone")
        assert letter.endswith(b"\r\n\r\n\xc3\xa4\r\n.dot\r\n")


def test_openssh_reaches_the_sink_through_sshd_only_while_forwarding_is_allowed(
    sshd: Sshd, sinks: Callable[..., Sink]
) -> None:
    sink = sinks()
    through = ["ssh", "-F", str(sshd.ssh_config), "-W", f"localhost:{sink.port}", ALIAS]
    greeting = subprocess.run(through, input=b"QUIT\r\n", capture_output=True, timeout=30, check=False)
    assert greeting.stdout.startswith(b"220 "), (greeting, sshd.log)
    sshd.stop()
    sshd.start(forwarding=False)
    refused = subprocess.run(through, input=b"QUIT\r\n", capture_output=True, timeout=30, check=False)
    assert refused.returncode != 0
    assert b"administratively prohibited" in refused.stderr
    assert sshd.logins() == 2


def test_the_sink_keeps_complete_messages_only(
    sinks: Callable[..., Sink], postfix_package: Package, tmp_path: Path
) -> None:
    sink = sinks()
    send_with_source(postfix_package, sink.port, messages=5, sessions=2)
    client = smtplib.SMTP("127.0.0.1", sink.port)
    client.mail(f"me@{DOMAIN}")
    client.rcpt(f"alice@{DOMAIN}")
    client.docmd("DATA")
    client.send(b"Subject: half\r\n\r\nhalf\r\n")
    client.close()
    with smtplib.SMTP("127.0.0.1", sink.port) as after:
        after.sendmail(f"me@{DOMAIN}", [f"bob@{DOMAIN}"], b"Subject: whole\r\n\r\nwhole\r\n")
    arrived = sink.wait(6)
    assert len(arrived) == 6
    assert not any(b"half" in message for message in arrived)
