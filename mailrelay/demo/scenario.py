"""`mailrelay demo`: a real daemon and the embedded SSH and mail server of `demo.remote`, in a temporary directory, with a
commentary.

It sends three messages. One is delivered. One is refused while its client waits. One is sent while the server is down; when
the server is up again, it is delivered to one of its two recipients and refused for the other. With `--web` everything stays
up, and a page shows it (`mailrelay web`), until nobody reads the page any more.
Promises: uses none of the person's files (~/.ssh, settings, spool), listens only on loopback, and ends by itself, with
status 0 only if everything happened as described.
"""

import asyncio
import contextlib
import logging
import smtplib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

from mailrelay import daemon
from mailrelay.config import Listen, Notify, Queue, Settings
from mailrelay.control.listing import messages
from mailrelay.demo.remote import HOST, Remote
from mailrelay.endpoint import Endpoint, Tcp
from mailrelay.mail.reply_text import reply_text
from mailrelay.spool.database import connect
from mailrelay.spool.listing import live
from mailrelay.spool.notices import next_notice_due

STEP_TIMEOUT = 20.0
"""Seconds within which each step of the demo must be complete."""

SENDER = "you@example.org"


Show = Callable[[str, int], None]
"""Prints a line of the commentary. The number is the column at which its further lines begin if it is wrapped."""
TEXT_AT = 21
"""The column at which the text of an event begins."""


def run(show: Show, *, opens_page: bool = False) -> int:
    """Runs the demo. show: prints the commentary. opens_page: whether it stays up for its page. Returns 0 if everything
    happened as it should, 1 otherwise."""
    with tempfile.TemporaryDirectory(prefix="mailrelay-demo-") as directory:
        try:
            return asyncio.run(_run(Path(directory), show, opens_page=opens_page))
        except TimeoutError:
            show("", 0)
            show(f"The demo stopped: its last step took more than {STEP_TIMEOUT:.0f} s. The lines above show where.", 0)
            return 1


async def _run(directory: Path, show: Show, *, opens_page: bool) -> int:
    show("A mail client, mailrelay, an SSH server and a mail server, all on loopback and in a temporary directory.", 0)
    show("  mail client --SMTP--> mailrelay --SSH--> server --localhost:25--> mail server", 2)
    (directory / "remote").mkdir()
    async with Remote(directory / "remote") as remote, _daemon(directory, remote, show) as (port, running):
        _heading(show, "1. A message to bob@example.net")
        await _send(show, port, ["bob@example.net"], "Hello Bob")
        async with asyncio.timeout(STEP_TIMEOUT):
            await remote.arrived(1)

        _heading(show, "2. A message to refused@example.net, an address that does not exist")
        await _send(show, port, ["refused@example.net"], "Hello nobody")

        _heading(show, "3. A message to carol@example.net and refused@example.net while the server is down")
        await remote.down()
        await _send(show, port, ["carol@example.net", "refused@example.net"], "Hello both")
        _show_queue(show, directory / "spool")
        show("         the server is up again", 9)
        await remote.up()
        async with asyncio.timeout(STEP_TIMEOUT):
            # The messages to bob and carol, and the report to their sender, which the same daemon delivers.
            await remote.arrived(3)
        await _settled(directory / "spool")
        for report in _reports(directory / "Maildir"):
            show(f"         the report Maildir, which needs no network, contains: {report!r}", 11)

        _heading(show, "The queue keeps the refused messages until you have dealt with them")
        _show_queue(show, directory / "spool")
        delivered = sorted(address.decode() for message in remote.received for address in message.recipients)
        if opens_page:
            await _page(directory, remote, port, running, show)
    expected = ["bob@example.net", "carol@example.net", SENDER]
    succeeded = delivered == expected
    show("", 0)
    show("Everything happened as it should." if succeeded else f"Something went wrong: delivered to {delivered}.", 0)
    if not opens_page:
        show("To mend the refused messages on a page in the browser: mailrelay demo --web", 0)
    return 0 if succeeded else 1


SETTINGS = """\
[listen]
address = "127.0.0.1:{port}"
[relayhost.demo]
ssh = "{host}"
ssh_config = "{ssh_config}"
record = "off"
track = "off"
[queue]
directory = "{directory}/spool"
[notify]
desktop = false
mailbox = "{directory}/Maildir"
"""
"""The settings of the demo's daemon, for commands beside it."""


async def _page(directory: Path, remote: Remote, port: int, running: "asyncio.Task[None]", show: Show) -> None:
    """Opens the page of the demo at a refused message, and waits until it ends, or the daemon does with Ctrl-C."""
    _heading(show, "The page of this demo: correct the address of a refused message, and send it again")
    file = directory / "config.toml"
    file.touch(mode=0o600)
    file.write_text(SETTINGS.format(port=port, host=HOST, ssh_config=remote.ssh_config, directory=directory), "utf-8")
    failed = [one.queue_id for one in messages(directory / "spool", history=False) if one.queue_name == "failed"]
    page = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mailrelay", "--config", str(file), "web", *failed[:1])
    )
    ended = asyncio.create_task(page.wait())
    try:
        await asyncio.wait((ended, running), return_when=asyncio.FIRST_COMPLETED)
    finally:
        if page.returncode is None:
            page.terminate()
        await ended


@contextlib.asynccontextmanager
async def _daemon(directory: Path, remote: Remote, show: Show) -> AsyncIterator[tuple[int, "asyncio.Task[None]"]]:
    """As `running_daemon`, with the settings of the demo, and its log in the commentary."""
    settings = Settings(
        listen=Listen(address=Tcp("127.0.0.1", 0)),
        relayhosts=(remote.relayhost(linger=1.0),),
        queue=Queue(directory=directory / "spool", retry=(1.0,)),
        notify=Notify(desktop=False, mailbox=directory / "Maildir"),
    )
    with _timeline(show):
        async with running_daemon(settings) as started:
            yield started


@contextlib.asynccontextmanager
async def running_daemon(settings: Settings) -> AsyncIterator[tuple[int, "asyncio.Task[None]"]]:
    """A daemon that is ready and runs for the time of the context; yields the port on which it listens, and its task."""
    listening: asyncio.Future[list[Endpoint]] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(daemon.serve(settings, listening.set_result))
    try:
        either: list[asyncio.Future[Any]] = [running, listening]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        address = listening.result()[0]
        assert isinstance(address, Tcp)  # noqa: S101 - the demo and its tests listen on TCP
        yield address.port, running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _send(show: Show, port: int, recipients: list[str], subject: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, ", ".join(recipients), subject
    message.set_content("This is a message of the demo.\n")
    _line(show, "client", "sends a message")
    _line(show, "client", "gets: " + await asyncio.to_thread(_submit, port, recipients, message.as_bytes(policy=SMTP)))


def _submit(port: int, recipients: list[str], message: bytes) -> str:
    with smtplib.SMTP("127.0.0.1", port, timeout=STEP_TIMEOUT) as client:
        client.ehlo()
        client.mail(SENDER)
        replies = [client.rcpt(recipient) for recipient in recipients]
        is_accepted = any(code == 250 for code, _ in replies)
        code, text = client.data(message) if is_accepted else replies[-1]
    return f"{code} {text.decode('ascii', 'replace')}"


def _show_queue(show: Show, directory: Path) -> None:
    db = connect(directory)
    for message in live(db):
        for to in message.recipients:
            words = reply_text(to.description) or message.fault_text
            show(f"         in the queue: {message.queue_id} to {to.address.decode()}: {to.state} ({words})", 11)
    db.close()


async def _settled(directory: Path) -> None:
    """Waits until no message is pending, and all notices have been delivered."""
    db = connect(directory)
    try:
        async with asyncio.timeout(STEP_TIMEOUT):
            # Polls, because the trigger wakes only the daemon.
            while any(message.queue_name != "failed" for message in live(db)) or next_notice_due(db) is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        db.close()


def _reports(maildir: Path) -> list[str]:
    """The subjects of the delivered reports, oldest first."""
    files = sorted((maildir / "new").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    return [str(message_from_bytes(file.read_bytes(), policy=SMTP)["Subject"]) for file in files]


def _heading(show: Show, title: str) -> None:
    show("", 0)
    show(title, 3)


_START = time.monotonic()
"""The zero of the times in the commentary."""


def _line(show: Show, source: str, text: str) -> None:
    show(f"{time.monotonic() - _START:6.2f} s  {source:<10} {text}", TEXT_AT)


class _Timeline(logging.Handler):
    """Shows the daemon's log as it is written."""

    def __init__(self, show: Show) -> None:
        super().__init__()
        self.show = show

    def emit(self, record: logging.LogRecord) -> None:
        _line(self.show, "mailrelay", record.getMessage())


@contextlib.contextmanager
def _timeline(show: Show) -> Iterator[None]:
    log = logging.getLogger("mailrelay")
    handler = _Timeline(show)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = True
