"""`mailrelay demo`: a real daemon and the embedded SSH and mail server of `demo.remote`, in a temporary directory, with a
commentary on stdout.

It sends three messages. One is delivered. One is refused while its client waits. One is sent while the server is down; when
the server is up again, it is delivered to one of its two recipients and refused for the other.
Promises: uses none of the person's files (~/.ssh, settings, spool), listens only on loopback, and ends by itself, with
status 0 only if everything happened as described.
"""

import asyncio
import contextlib
import logging
import smtplib
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

from mailrelay import daemon
from mailrelay.config import Listen, Notify, Queue, Settings
from mailrelay.demo.remote import Remote
from mailrelay.endpoint import Endpoint, Tcp
from mailrelay.mail.reply_text import reply_text
from mailrelay.spool.database import connect
from mailrelay.spool.listing import live
from mailrelay.spool.notices import next_notice_due

STEP_TIMEOUT = 20.0
"""Seconds within which each step of the demo must be complete."""

SENDER = "you@example.org"


def run() -> int:
    """Runs the demo, with its commentary on stdout. Returns 0 if everything happened as it should, 1 otherwise."""
    with tempfile.TemporaryDirectory(prefix="mailrelay-demo-") as directory:
        try:
            return asyncio.run(_run(Path(directory)))
        except TimeoutError:
            print(f"\nThe demo stopped: its last step took more than {STEP_TIMEOUT:.0f} s. The lines above show where.")
            return 1


async def _run(directory: Path) -> int:
    print(
        "A mail client, mailrelay, an SSH server and a mail server, all on loopback and in a temporary directory.\n"
        "  mail client --SMTP--> mailrelay --SSH--> server --localhost:25--> mail server"
    )
    (directory / "remote").mkdir()
    async with Remote(directory / "remote") as remote, _daemon(directory, remote) as port:
        _heading("1. A message to bob@example.net")
        await _send(port, ["bob@example.net"], "Hello Bob")
        async with asyncio.timeout(STEP_TIMEOUT):
            await remote.arrived(1)

        _heading("2. A message to refused@example.net, an address that does not exist")
        await _send(port, ["refused@example.net"], "Hello nobody")

        _heading("3. A message to carol@example.net and refused@example.net while the server is down")
        await remote.down()
        await _send(port, ["carol@example.net", "refused@example.net"], "Hello both")
        _show_queue(directory / "spool")
        print("         the server is up again")
        await remote.up()
        async with asyncio.timeout(STEP_TIMEOUT):
            # The messages to bob and carol, and the report to their sender, which the same daemon delivers.
            await remote.arrived(3)
        await _settled(directory / "spool")
        for report in _reports(directory / "Maildir"):
            print(f"         the report Maildir, which needs no network, contains: {report!r}")

        _heading("The queue keeps the refused messages until you have dealt with them")
        _show_queue(directory / "spool")
        delivered = sorted(address.decode() for message in remote.received for address in message.recipients)
    expected = ["bob@example.net", "carol@example.net", SENDER]
    succeeded = delivered == expected
    print("\nEverything happened as it should." if succeeded else f"\nSomething went wrong: delivered to {delivered}.")
    return 0 if succeeded else 1


@contextlib.asynccontextmanager
async def _daemon(directory: Path, remote: Remote) -> AsyncIterator[int]:
    """A daemon that runs for the time of the context; yields the port on which it listens."""
    settings = Settings(
        listen=Listen(address=Tcp("127.0.0.1", 0)),
        relayhosts=(remote.relayhost(linger=1.0),),
        queue=Queue(directory=directory / "spool", retry=(1.0,)),
        notify=Notify(desktop=False, mailbox=directory / "Maildir"),
    )
    with _timeline():
        async with running_daemon(settings) as (port, _):
            yield port


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


async def _send(port: int, recipients: list[str], subject: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, ", ".join(recipients), subject
    message.set_content("This is a message of the demo.\n")
    _line("client", "sends a message")
    _line("client", "gets: " + await asyncio.to_thread(_submit, port, recipients, message.as_bytes(policy=SMTP)))


def _submit(port: int, recipients: list[str], message: bytes) -> str:
    with smtplib.SMTP("127.0.0.1", port, timeout=STEP_TIMEOUT) as client:
        client.ehlo()
        client.mail(SENDER)
        replies = [client.rcpt(recipient) for recipient in recipients]
        is_accepted = any(code == 250 for code, _ in replies)
        code, text = client.data(message) if is_accepted else replies[-1]
    return f"{code} {text.decode('ascii', 'replace')}"


def _show_queue(directory: Path) -> None:
    db = connect(directory)
    for message in live(db):
        for to in message.recipients:
            words = reply_text(to.description) or message.fault_text
            print(f"         in the queue: {message.queue_id} to {to.address.decode()}: {to.state} ({words})")
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


def _heading(title: str) -> None:
    print(f"\n{title}")


_START = time.monotonic()
"""The zero of the times in the commentary."""


def _line(source: str, text: str) -> None:
    print(f"{time.monotonic() - _START:6.2f} s  {source:<10} {text}", flush=True)


class _Timeline(logging.Handler):
    """Prints the daemon's log as it is written."""

    def emit(self, record: logging.LogRecord) -> None:
        _line("mailrelay", record.getMessage())


@contextlib.contextmanager
def _timeline() -> Iterator[None]:
    log = logging.getLogger("mailrelay")
    handler = _Timeline()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = True
