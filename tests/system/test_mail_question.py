"""The question about mail, asked of a relayhost with a real mail server: delivered, deferred, and bounced with a report."""

import asyncio
import shlex
import smtplib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.account_there import AccountThere
from harness.exim import Exim
from harness.mailboxes import DOMAIN, LOGIN
from harness.postfix import Package, Postfix, Sink
from harness.sendmail import Sendmail

from mailrelay.ssh.connection import RelayhostConnection
from mailrelay.tracking.listing import Listed, read_listing
from mailrelay.tracking.question import Answer, Place, Question
from mailrelay.tracking.queue_id import Server, queue_id_in
from mailrelay.tracking.report import Ours, read_reports
from mailrelay.tracking.server_log import read_log
from mailrelay.tracking.sighting import Seen, Sighting

pytestmark = pytest.mark.system

PATIENCE = 40.0
"""Seconds for a mail server to do what is expected of it."""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AccountThere]:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    there = AccountThere(tmp_path)
    yield there
    there.stop()


@pytest.fixture
def routing_postfix(postfix_package: Package, sinks: Callable[..., Sink]) -> Iterator[Postfix]:
    """A Postfix behind which gone.example refuses all recipients, and later.example for now."""
    gone, later = sinks("-f", "RCPT"), sinks("-r", "RCPT")
    routes = f"{{gone.example = smtp:[127.0.0.1]:{gone.port}}}, {{later.example = smtp:[127.0.0.1]:{later.port}}}"
    # Postfix gives up root, and pytest's own directories let nobody else through.
    with tempfile.TemporaryDirectory(prefix="postfix-") as directory:
        Path(directory).chmod(0o755)
        remote = Postfix(postfix_package, Path(directory) / "remote", f"transport_maps = inline:{{{routes}}}\n")
        yield remote
        remote.stop()


def send(port: int, recipient: str, message_id: str) -> tuple[Server, str]:
    """Sends a message of the account there; what the 250 names."""
    with smtplib.SMTP("127.0.0.1", port, "laptop.example", timeout=60) as smtp:
        smtp.ehlo()
        assert smtp.mail(f"{LOGIN}@{DOMAIN}")[0] == 250
        code, words = smtp.rcpt(recipient)
        assert code == 250, words
        code, words = smtp.data(f"From: {LOGIN}@{DOMAIN}\r\nMessage-ID: <{message_id}>\r\nSubject: x\r\n\r\ntext\r\n")
    found = queue_id_in(words)
    assert code == 250 and found is not None, words
    return found.server, found.id


class Seeing:
    """What was seen of one message. listed, logged, reported: sightings of its recipient."""

    def __init__(self, name: str, message_id: str) -> None:
        self.ours = Ours((name,), message_id=message_id.encode())
        self.place: Place | None = None
        self.listed: list[Sighting] = []
        self.logged: list[Sighting] = []
        self.reported: list[Sighting] = []
        self.is_gone = False

    async def until(self, connection: RelayhostConnection, is_seen: Callable[["Seeing"], bool]) -> Answer:
        name, message_id = self.ours.queue_ids[0], self.ours.message_id.decode()
        end = time.monotonic() + PATIENCE
        while True:
            question = Question([name], [name, message_id], since=time.time() - 60, place=self.place)
            answer = await connection.ask(question)
            self.place = answer.place
            assert answer.listing is not None
            found = read_listing(answer.server, answer.listing.octets, answer.listing.status)
            assert isinstance(found, Listed), (found, answer.listing)
            self.listed = [one for one in found.sightings if one.queue_id == name]
            self.is_gone = name not in found.ids
            self.logged += read_log(answer.log or b"", [name]).sightings
            self.reported += read_reports(answer.reports or b"", [self.ours])
            if is_seen(self):
                return answer
            assert time.monotonic() < end, (self.listed, self.logged, self.reported, answer)
            await asyncio.sleep(0.2)


def words_of(sightings: list[Sighting], seen: Seen) -> bytes:
    return b" ".join(one.words for one in sightings if one.seen is seen)


async def test_postfix_shows_its_queue_its_log_and_its_reports_in_a_maildir(
    there: AccountThere, routing_postfix: Postfix, token: str
) -> None:
    postfix = routing_postfix
    there.install("postqueue", f'exec {shlex.join(postfix.command("postqueue"))} "$@"')
    (there.logs / "mail.log").symlink_to(postfix.directory / "log")
    # Mail makes the Maildir.
    send(postfix.port, f"{LOGIN}@{DOMAIN}", f"first.{token}@laptop.example")
    await asyncio.to_thread(postfix.boxes.wait, LOGIN, token)
    there.start(f"MAIL={postfix.boxes.directory / LOGIN}")
    async with there.connected() as connection:
        for to in (f"alice@{DOMAIN}", "x@gone.example", "x@later.example"):
            message_id = f"{to.partition('@')[2]}.{token}@laptop.example"
            server, name = send(postfix.port, to, message_id)
            seeing = Seeing(name, message_id)
            if to == "x@later.example":
                answer = await seeing.until(connection, lambda seen: bool(words_of(seen.listed, Seen.DEFERRED)))
                assert b"450 4.3.0" in words_of(seeing.listed, Seen.DEFERRED)
                assert b"450 4.3.0" in words_of(seeing.logged, Seen.DEFERRED)
                retried = (await connection.ask(Question([name], [], retry=[name]))).retried
                assert retried is not None and retried.status == 0, retried
            elif to == "x@gone.example":
                answer = await seeing.until(connection, lambda seen: seen.is_gone)
                assert b"500 5.3.0" in words_of(seeing.logged, Seen.BOUNCED)
                # It is there by the time the message has left the queue.
                assert b"500 5.3.0" in words_of(seeing.reported, Seen.BOUNCED)
            else:
                answer = await seeing.until(connection, lambda seen: seen.is_gone)
                assert b"delivered" in words_of(seeing.logged, Seen.DELIVERED)
                assert answer.reports == b""
            assert server is answer.server is Server.POSTFIX
            assert answer.account == LOGIN


async def test_postfix_refuses_its_queue_to_those_whom_its_settings_do_not_name(
    there: AccountThere, postfix_package: Package
) -> None:
    with tempfile.TemporaryDirectory(prefix="postfix-") as directory:
        Path(directory).chmod(0o755)
        postfix = Postfix(postfix_package, Path(directory) / "remote", "authorized_mailq_users = root\n")
        try:
            # A plain account, as far as Postfix knows.
            plain = shlex.join(["setpriv", "--reuid=nobody", "--clear-groups", *postfix.command("postqueue")])
            there.install("postqueue", f'exec {plain} "$@"')
            async with there.connected() as connection:
                listing = (await connection.ask(Question(["4ABC1234567"], []))).listing
            assert listing is not None and listing.status == 69, listing
        finally:
            # Its log has this refusal, which `stop` would take for a failure.
            postfix.child.stop()


async def test_sendmail_shows_its_queue_and_its_reports_in_an_mbox(
    there: AccountThere, sendmail: Sendmail, token: str
) -> None:
    # There is no submission queue.
    there.install("sendmail", f'[ "$1" = -Ac ] && exit 1; exec {sendmail.command} "$@"')
    async with there.connected() as connection:
        for to in (f"alice@{DOMAIN}", "x@gone.example", "x@[127.0.0.2]"):
            message_id = f"{len(to)}.{token}@laptop.example"
            server, name = send(sendmail.port, to, message_id)
            seeing = Seeing(name, message_id)
            if to == "x@[127.0.0.2]":
                answer = await seeing.until(connection, lambda seen: bool(words_of(seen.listed, Seen.DEFERRED)))
                assert b"Connection refused" in words_of(seeing.listed, Seen.DEFERRED)
                assert seeing.listed[0].recipient == b"x@[127.0.0.2]"
            else:
                answer = await seeing.until(connection, lambda seen: seen.is_gone)
            if to == "x@gone.example":
                [report] = await asyncio.to_thread(sendmail.boxes.wait, LOGIN, message_id)
                there.box.write_bytes(b"From MAILER-DAEMON Sat Nov 28 12:00:00 2026\n" + report.replace(b"\r\n", b"\n"))
                await seeing.until(connection, lambda seen: bool(seen.reported))
                assert words_of(seeing.reported, Seen.BOUNCED), seeing.reported
            assert server is answer.server is Server.SENDMAIL


async def test_exim_shows_its_queue_where_it_may_its_log_and_its_reports_in_a_maildir(
    there: AccountThere, exim: Exim, token: str
) -> None:
    there.install("exim4", f'exec {exim.command} "$@"')
    (there.logs / "exim4").mkdir()
    (there.logs / "exim4/mainlog").symlink_to(exim.directory / "log/mainlog")
    send(exim.port, f"{LOGIN}@{DOMAIN}", f"first.{token}@laptop.example")
    await asyncio.to_thread(exim.boxes.wait, LOGIN, token)
    there.start(f"MAIL={exim.boxes.directory / LOGIN}")
    async with there.connected() as connection:
        for to in (f"alice@{DOMAIN}", "x@gone.example"):
            message_id = f"{len(to)}.{token}@laptop.example"
            server, name = send(exim.port, to, message_id)
            seeing = Seeing(name, message_id)
            answer = await seeing.until(connection, lambda seen: seen.is_gone)
            if to == "x@gone.example":
                assert words_of(seeing.logged, Seen.BOUNCED), seeing.logged
                await seeing.until(connection, lambda seen: bool(seen.reported))
                assert words_of(seeing.reported, Seen.BOUNCED), seeing.reported
            else:
                assert words_of(seeing.logged, Seen.DELIVERED), seeing.logged
            assert server is answer.server is Server.EXIM
