"""`mailrelay demo`: the real relay against the embedded remote, in a temporary directory, told as it happens.

Three letters: one is delivered, one is refused while its client waits, one is written while the remote is down, and once it
is back arrives for one of two recipients and is refused for the other. Promises: touches nothing of the person's (no ~/.ssh,
no settings, no spool), opens nothing but ports of loopback, and ends by itself; status 0 only if all came out as told.
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
from mailrelay.spool.database import connect
from mailrelay.spool.listing import live
from mailrelay.spool.notices import next_owed

PATIENCE = 20.0
"""Seconds in which each part of the story must have come to its end."""

SENDER = "you@example.org"


def run() -> int:
    """Tells the story on stdout. Returns 0 if it came out as it should, 1 otherwise."""
    with tempfile.TemporaryDirectory(prefix="mailrelay-demo-") as directory:
        try:
            return asyncio.run(_tell(Path(directory)))
        except TimeoutError:
            print(
                f"\nThe demo did not come to its end within {PATIENCE:.0f} s; see the lines above for where it stopped."
            )
            return 1


async def _tell(directory: Path) -> int:
    print(
        "A mail client, mailrelay, an SSH server and a mail server, all on loopback and in a temporary directory.\n"
        "  mail client --SMTP--> mailrelay --SSH--> server --localhost:25--> mail server"
    )
    (directory / "remote").mkdir()
    async with Remote(directory / "remote") as remote, _relay(directory, remote) as port:
        _chapter("1", "A letter to bob@example.net")
        await _write(port, ["bob@example.net"], "Hello Bob")
        async with asyncio.timeout(PATIENCE):
            await remote.arrived(1)

        _chapter("2", "A letter to refused@example.net, who does not exist there")
        await _write(port, ["refused@example.net"], "Hello nobody")

        _chapter("3", "The server goes down, and a letter to carol@example.net and refused@example.net is written")
        await remote.down()
        await _write(port, ["carol@example.net", "refused@example.net"], "Hello both")
        _show_queue(directory / "spool")
        print("         the server comes back")
        await remote.up()
        async with asyncio.timeout(PATIENCE):
            # The letters to bob and carol, and the report that goes to their sender through the same relay.
            await remote.arrived(3)
        await _settled(directory / "spool")
        for report in _reports(directory / "Maildir"):
            print(f"         a Maildir that needs no network has: {report!r}")

        _chapter("End", "What is left in the queue: the refused letter, kept whole until you have dealt with it")
        _show_queue(directory / "spool")
        got = sorted(address.decode() for letter in remote.received for address in letter.recipients)
    expected = ["bob@example.net", "carol@example.net", SENDER]
    fine = got == expected
    print("\nEverything came out as it should." if fine else f"\nSomething went wrong: delivered to {got}.")
    return 0 if fine else 1


@contextlib.asynccontextmanager
async def _relay(directory: Path, remote: Remote) -> AsyncIterator[int]:
    """A daemon for as long as the context lasts; gives the port on which it listens."""
    settings = Settings(
        listen=Listen(address=Tcp("127.0.0.1", 0)),
        relayhosts=(remote.relayhost(linger=1.0),),
        queue=Queue(directory=directory / "spool", retry=(1.0,)),
        notify=Notify(desktop=False, mailbox=directory / "Maildir"),
    )
    with _timeline():
        async with served(settings) as (port, _):
            yield port


@contextlib.asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[tuple[int, "asyncio.Task[None]"]]:
    """A daemon that is ready, for as long as the context lasts: the port on which it listens, and its task."""
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


async def _write(port: int, recipients: list[str], subject: str) -> None:
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = SENDER, ", ".join(recipients), subject
    letter.set_content("This is a letter of the demo.\n")
    _line("client", "writes a letter")
    _line("client", "hears: " + await asyncio.to_thread(_submit, port, recipients, letter.as_bytes(policy=SMTP)))


def _submit(port: int, recipients: list[str], letter: bytes) -> str:
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.ehlo()
        client.mail(SENDER)
        answers = [client.rcpt(recipient) for recipient in recipients]
        taken = any(code == 250 for code, _ in answers)
        code, text = client.data(letter) if taken else answers[-1]
    return f"{code} {text.decode('ascii', 'replace')}"


def _show_queue(directory: Path) -> None:
    db = connect(directory)
    for message in live(db):
        for to in message.recipients:
            words = to.words.decode("utf-8", "replace") or message.trouble
            print(f"         in the queue: {message.queue_id} to {to.address.decode()}: {to.state} ({words})")
    db.close()


async def _settled(directory: Path) -> None:
    """Waits until nothing is pending, and all notices have been told."""
    db = connect(directory)
    try:
        async with asyncio.timeout(PATIENCE):
            # Another process could do no better: the spool rings for its daemon alone.
            while any(message.queue_name != "failed" for message in live(db)) or next_owed(db) is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        db.close()


def _reports(maildir: Path) -> list[str]:
    """The subjects of what was told, oldest first."""
    files = sorted((maildir / "new").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    return [str(message_from_bytes(file.read_bytes(), policy=SMTP)["Subject"]) for file in files]


def _chapter(number: str, title: str) -> None:
    print(f"\n{number}. {title}" if number != "End" else f"\n{title}")


_START = time.monotonic()


def _line(who: str, text: str) -> None:
    print(f"{time.monotonic() - _START:6.2f} s  {who:<10} {text}", flush=True)


class _Timeline(logging.Handler):
    """The relay's own log, as it is written."""

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
