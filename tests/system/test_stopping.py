"""A large message on a slow line: its progress is what has arrived there, and once cancelled, no mail server takes it."""

from collections.abc import Callable

import pytest
from harness.daemon_process import Relay
from harness.mail_clients import message, submit
from harness.mailboxes import DOMAIN
from harness.postfix import Postfix
from harness.processes import until
from harness.sendmail import Sendmail
from harness.slow_line import SlowLine
from harness.sshd import Sshd

from mailrelay.control.progress import sending

pytestmark = pytest.mark.system

LARGE = b"x" * 70 + b"\r\n"
RATE = 500_000


@pytest.fixture(params=["sendmail", "postfix", "command"])
def relay(request: pytest.FixtureRequest, relays: Callable[..., Relay]) -> tuple[Relay, Sendmail | Postfix]:
    if request.param == "command":
        remote = request.getfixturevalue("sendmail")
        return relays(remote.port, command=remote.on_stdin, answer_within="0s"), remote
    remote = request.getfixturevalue(request.param)
    return relays(remote.port, answer_within="0s"), remote


def test_a_message_that_is_cancelled_while_it_is_sent_never_arrives(
    relay: tuple[Relay, Sendmail | Postfix], sshd: Sshd, token: str
) -> None:
    mailrelay, remote = relay
    with SlowLine(sshd.port, RATE) as line:
        line.lead(sshd.ssh_config, sshd.directory / "known_hosts")
        mailrelay.start()
        submit(mailrelay.port, [f"alice@{DOMAIN}"], message(f"{token}-large", LARGE * 30_000))
        spool = mailrelay.directory / "spool"
        first = until(lambda: next((one for one in sending(spool) if one.octets > 100_000), None), "it is being sent")
        again = until(
            lambda: next((one for one in sending(spool) if one.octets > first.octets + 200_000), None), "more is sent"
        )
        assert again.octets < again.size
        # The line is the only thing that is slow: nothing that waits before it counts. A busy machine makes it slower still.
        assert 0 < again.rate < 1.5 * RATE
        assert mailrelay.do("queue", "cancel", again.queue_id) == f"{again.queue_id} is cancelled\n"
        assert sending(spool) == []
        submit(mailrelay.port, [f"alice@{DOMAIN}"], message(f"{token}-small"))
        (letter,) = remote.boxes.wait("alice", f"{token}-small")
        assert b"xxxxxxx" not in letter
        assert remote.boxes.read("alice", f"{token}-large") == []
        assert "sent" not in mailrelay.do("queue", "show", again.queue_id)
