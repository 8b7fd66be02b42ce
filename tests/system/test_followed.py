"""What a person sees of mail after the mail server's 250: a real Postfix over there hands it to a next server, which takes
it, defers it at first, or refuses it."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from harness.daemon_process import Relay
from harness.mail_clients import message, submit
from harness.mailboxes import DOMAIN, LOGIN
from harness.postfix import Package, Postfix
from harness.processes import free_port, until
from harness.sshd import Sshd

pytestmark = pytest.mark.system

NEXT = "next.example"
SETTINGS = """\
transport_maps = inline:{{{{{next}=smtp:[127.0.0.1]:{port}}}}}
relay_domains = {next}
smtpd_recipient_restrictions = permit_mynetworks, reject
smtp_dns_support_level = disabled
minimal_backoff_time = 3s
maximal_backoff_time = 3s
queue_run_delay = 2s
"""


class NextServer:
    """The mail server of the domain `next.example`. Its replies to RCPT are by the local part: `gone` does not exist, `grey`
    is refused for now while `open` is false."""

    def __init__(self) -> None:
        self.port = free_port()
        self.open = False
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("gone"):
            return "550 5.1.1 No such user here"
        if address.startswith("grey") and not self.open:
            return "451 4.7.1 Greylisted, come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        return "250 2.0.0 Taken as 77"

    def stop(self) -> None:
        self._controller.stop()


@pytest.fixture
def next_server() -> Iterator[NextServer]:
    server = NextServer()
    yield server
    server.stop()


@pytest.fixture
def postfix(postfix_package: Package, next_server: NextServer) -> Iterator[Postfix]:
    settings = SETTINGS.format(next=NEXT, port=next_server.port).replace("{{", "{").replace("}}", "}")
    with tempfile.TemporaryDirectory(prefix="postfix-") as directory:
        Path(directory).chmod(0o755)
        server = Postfix(postfix_package, Path(directory) / "remote", settings)
        yield server
        server.stop()


@pytest.fixture
def relay(
    postfix: Postfix, postfix_package: Package, sshd: Sshd, relays: Callable[..., Relay], tmp_path: Path
) -> Relay:
    """A relay whose account over there may list the queue of that Postfix, and has its mailbox in ~/Maildir."""
    relay = relays(postfix.port, dsn=False)
    variables = f"MAIL_CONFIG={postfix.directory}/etc LD_LIBRARY_PATH={postfix_package.libraries}"
    account_there(sshd, postfix, tmp_path, f'{variables} exec {postfix_package.program("postqueue")} "$@"')
    relay.start()
    return relay


def account_there(sshd: Sshd, postfix: Postfix, tmp_path: Path, postqueue: str) -> None:
    """Gives the account over there a home, a mailbox and the program `postqueue`, a script."""
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    box = postfix.boxes.directory / LOGIN
    (home / "Maildir").symlink_to(box)
    script = programs / "postqueue"
    script.write_text(f"#!/bin/sh\n{postqueue}\n")
    script.chmod(0o755)
    sshd.stop()
    sshd.start(SetEnv=f"HOME={home} MAIL={box} PATH={programs}:/usr/bin:/bin")


def send(relay: Relay, to: str, token: str) -> str:
    """Sends a message from the account over there; its queue id."""
    address = f"{to}@{NEXT}"
    _, words = submit(relay.port, [address], message(token, to=address), f"{LOGIN}@{DOMAIN}")
    return words.split()[1]


def there(relay: Relay, queue_id: str) -> dict[str, Any]:
    """What `queue --json` says of the only recipient."""
    listed = next(one for one in relay.queue("--all") if one["queue_id"] == queue_id)
    assert listed["recipients"][0]["state"] == "sent"
    return dict(listed["recipients"][0]["there"] or {})


def listed_relayhost(relay: Relay, queue_id: str) -> str:
    return next(str(one["relayhost"]) for one in relay.queue("--all") if one["queue_id"] == queue_id)


def wait_there(relay: Relay, queue_id: str, state: str) -> dict[str, Any]:
    return until(
        lambda: found if (found := there(relay, queue_id)).get("state") == state else {}, f"it is {state} there"
    )


def test_what_the_next_server_takes_has_left_and_no_bounce_came(relay: Relay, token: str) -> None:
    queue_id = send(relay, "alice", token)
    wait_there(relay, queue_id, "left")
    assert relay.run("status").returncode == 0
    assert "no bounce came" in relay.do("queue", "--all")


def test_what_bounces_there_is_told_at_once_and_can_be_sent_again(
    relay: Relay, token: str, next_server: NextServer
) -> None:
    queue_id = send(relay, "gone", token)
    found = wait_there(relay, queue_id, "bounced")
    assert found["source"] == "report"
    assert "550 5.1.1 No such user here" in found["words"]
    assert relay.run("status").returncode == 2
    listing = relay.do("queue")
    assert "bounced there: 550 5.1.1 No such user here" in listing
    assert "a report in your mailbox there says so" in listing
    (notice,) = until(lambda: relay.notices(queue_id), "a notice comes")
    assert "No such user here" in str(notice)
    assert "mailbox" in relay.letters(queue_id)[0]
    relay.do("queue", "resend", queue_id, "--to", f"alice@{NEXT}")
    assert relay.run("status").returncode == 0
    (again,) = (one for one in relay.queue("--all") if one["queue_id"] != queue_id)
    wait_there(relay, again["queue_id"], "left")


def test_a_test_message_that_bounces_there_fails_in_the_words_of_the_next_server(relay: Relay) -> None:
    done = relay.run("test", f"gone@{NEXT}", "--from", f"{LOGIN}@{DOMAIN}")
    assert done.returncode == 1
    assert "bounced there: 550 5.1.1 No such user here" in done.stdout
    assert "has bounced there; see `mailrelay queue show " in done.stderr


def test_what_is_greylisted_is_shown_with_its_reason_and_may_be_tried_again(
    relay: Relay, token: str, next_server: NextServer
) -> None:
    queue_id = send(relay, "grey", token)
    found = wait_there(relay, queue_id, "deferred")
    assert found["source"] == "queue"
    assert "451 4.7.1 Greylisted" in found["words"]
    shown = relay.do("queue", "show", queue_id)
    assert "           deferred there since " in shown
    assert ": 451 4.7.1 Greylisted" in shown
    next_server.open = True
    asked = relay.do("queue", "retry", queue_id)
    assert asked == f"{queue_id} waits on {listed_relayhost(relay, queue_id)}: its mail server was asked to try again\n"
    wait_there(relay, queue_id, "left")


def test_where_the_queue_is_not_shown_a_bounce_is_still_seen_in_the_mailbox(
    postfix: Postfix, sshd: Sshd, relays: Callable[..., Relay], tmp_path: Path, token: str
) -> None:
    refusal = "postqueue: fatal: User me(1001) is not allowed to view the mail queue"
    account_there(sshd, postfix, tmp_path, f'echo "{refusal}" >&2; exit 69')
    relay = relays(postfix.port, dsn=False)
    relay.start()
    fine, gone = send(relay, "alice", f"{token}-fine"), send(relay, "gone", f"{token}-gone")
    assert wait_there(relay, gone, "bounced")["source"] == "report"
    found = there(relay, fine)
    assert found["state"] == "not followed"
    assert "may not see the queue" in found["words"]
    assert relay.run("status").returncode == 2
    relay.do("queue", "cancel", gone)
    assert relay.run("status").returncode == 0
