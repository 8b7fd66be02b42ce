"""Recipients on real mail servers: more than they take in one transaction, and odd addresses."""

import contextlib
import smtplib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.mail_clients import ME, message, submit
from harness.mailboxes import DOMAIN
from harness.postfix import Package, Postfix
from harness.processes import until
from harness.sendmail import Sendmail

pytestmark = pytest.mark.system

LIMITED = [f"u{number}@{DOMAIN}" for number in range(40)]


@pytest.fixture
def limited_postfix(postfix_package: Package) -> Iterator[Postfix]:
    with tempfile.TemporaryDirectory(prefix="postfix-") as directory:
        Path(directory).chmod(0o755)
        remote = Postfix(postfix_package, Path(directory) / "remote", "smtpd_recipient_limit = 10\n")
        yield remote
        remote.stop()


@pytest.fixture
def limited_sendmail(tmp_path: Path) -> Iterator[Sendmail]:
    remote = Sendmail(tmp_path / "sendmail", "-O", "MaxRecipientsPerMessage=10")
    yield remote
    remote.stop()


@pytest.fixture(params=["limited_postfix", "limited_sendmail"])
def limited(request: pytest.FixtureRequest) -> Postfix | Sendmail:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def test_a_limit_of_recipients_costs_transactions_and_no_time(
    limited: Postfix | Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    relay = relays(limited.port, retry=("1h",), answer_within="60s", dsn=False)
    relay.start()
    code, words = submit(relay.port, [*LIMITED, f"later@{DOMAIN}"], message(token))
    assert (code, words.split()[2:7]) == (250, ["sent", "to", "40", "of", "41;"]), words
    for to in LIMITED:
        assert len(limited.boxes.wait(to.partition("@")[0], token)) == 1
    states = relay.states()
    assert states.pop(f"later@{DOMAIN}") == "deferred"
    assert set(states.values()) <= {"sent"}
    (shown,) = relay.queue("--all")
    assert shown["attempts"] == 1


class LimitedServer:
    """A mail server on 127.0.0.1 that takes ten recipients in a transaction and gives no reply to MAIL while `is_stuck`.

    taken: the recipients of all contents that it took. reached: set when it gives no reply.
    """

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.is_stuck = False
        self.reached = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def stop(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        recipients: list[bytes] = []
        with contextlib.suppress(OSError), connection, connection.makefile("rwb") as stream:
            stream.write(b"220 limited\r\n")
            stream.flush()
            for line in stream:
                verb = line[:4].upper()
                reply = b"250 2.0.0 ok"
                if verb == b"EHLO":
                    reply = b"250-limited\r\n250-8BITMIME\r\n250 PIPELINING"
                elif verb == b"MAIL":
                    recipients = []
                    if self.is_stuck and self.taken:
                        self.reached.set()
                        stream.read()
                        return
                elif verb == b"RCPT" and len(recipients) == 10:
                    reply = b"452 4.5.3 Too many recipients"
                elif verb == b"RCPT":
                    recipients.append(line.partition(b"<")[2].partition(b">")[0])
                elif verb == b"DATA":
                    stream.write(b"354 go on\r\n")
                    stream.flush()
                    while stream.readline() != b".\r\n":
                        pass
                    self.taken += recipients
                stream.write(reply + b"\r\n")
                stream.flush()


def test_a_kill_between_two_transactions_sends_nothing_twice(relays: Callable[..., Relay], token: str) -> None:
    server = LimitedServer()
    try:
        relay = relays(server.port, retry=("1h",), answer_within="0s", dsn=False)
        server.is_stuck = True
        relay.start()
        submit(relay.port, LIMITED, message(token))
        assert server.reached.wait(60)
        relay.kill()
        assert server.taken == [to.encode() for to in LIMITED[:10]]
        server.is_stuck = False
        relay.start()
        until(lambda: len(server.taken) >= len(LIMITED), "the rest is sent")
        until(lambda: set(relay.states("--all").values()) == {"sent"}, "all is recorded")
        assert server.taken == [to.encode() for to in LIMITED]
    finally:
        server.stop()


TAKEN_BY_BOTH = [
    "taro..y.@docomo.ne.jp",
    ".a@example.net",
    "a.@example.net",
    "a@a_b.example",
    "a@example.org.",
    "a@localdomain",
    "CORP\\alice@example.org",
    '"CORP\\\\alice"@example.org',
    "user@[1.2.3.4]",
    '"quoted"@example.org',
    '"a".b@example.org',
    '"a b"@example.org',
    "a%b@example.org",
    "host!user@example.org",
    "user+tag@example.org",
    "l" * 70 + "@example.org",
    "alice@xn--mller-kva.example",
]
LEFT_TO_THE_SERVER = ["a@-x.example", "a@x-.example", "user@1.2.3.4"]
"""sendmail takes them, Postfix does not."""


@pytest.mark.parametrize("name", ["sendmail", "postfix"])
def test_what_is_passed_on_as_it_came_is_what_real_servers_take(name: str, request: pytest.FixtureRequest) -> None:
    server: Sendmail | Postfix = request.getfixturevalue(name)
    replies = {}
    for address in (*TAKEN_BY_BOTH, *LEFT_TO_THE_SERVER):
        with smtplib.SMTP("127.0.0.1", server.port, timeout=60) as client:
            client.ehlo("client.example")
            client.mail(ME)
            replies[address] = client.docmd(f"RCPT TO:<{address}>")[0]
    assert {address: replies[address] for address in TAKEN_BY_BOTH} == dict.fromkeys(TAKEN_BY_BOTH, 250)
    expected = 250 if name == "sendmail" else 501
    assert {address: replies[address] for address in LEFT_TO_THE_SERVER} == dict.fromkeys(LEFT_TO_THE_SERVER, expected)


@pytest.mark.parametrize("name", ["sendmail", "postfix"])
def test_a_dot_at_the_end_of_a_domain_reaches_the_mailbox(
    name: str, request: pytest.FixtureRequest, relays: Callable[..., Relay], token: str
) -> None:
    server: Sendmail | Postfix = request.getfixturevalue(name)
    relay = relays(server.port)
    relay.start()
    code, words = submit(relay.port, [f"alice@{DOMAIN}."], message(token))
    assert (code, words.split()[2]) == (250, "sent:"), words
    assert len(server.boxes.wait("alice", token)) == 1
