"""The whole daemon as a task in the process of the test, and a client for it."""

import asyncio
import os
import smtplib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mailrelay.config import Listen, Notify, Queue, Relayhost, Settings
from mailrelay.demo.remote import Remote
from mailrelay.demo.scenario import running_daemon as serving
from mailrelay.endpoint import Tcp

LETTER = b"From: a@example.org\r\nTo: b@example.net\r\nSubject: a letter\r\n\r\nhello\r\n"


def settings(tmp_path: Path, *relayhosts: Relayhost) -> Settings:
    return Settings(
        listen=Listen(address=Tcp("127.0.0.1", 0), answer_within=5.0),
        relayhosts=relayhosts,
        queue=Queue(directory=tmp_path / "spool", retry=(3600.0,)),
        notify=Notify(desktop=False, dsn=False, mailbox=tmp_path / "Maildir"),
    )


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[tuple[int, "asyncio.Task[None]"]]:
    """A daemon that is ready: the port on which it listens, and its task."""
    umask = os.umask(0o077)
    try:
        async with serving(settings) as ready:
            yield ready
    finally:
        # The daemon makes the umask of its process strict, which here is the process of all tests.
        os.umask(umask)


def submit(port: int, sender: str = "a@example.org", timeout: float = 20) -> tuple[int, bytes]:
    """Sends a message; returns the reply to its content."""
    client = smtplib.SMTP("127.0.0.1", port, timeout=timeout)
    try:
        client.ehlo()
        client.mail(sender)
        client.rcpt("b@example.net")
        return client.data(LETTER)
    finally:
        client.close()


def stopping_at_content(remote: Remote) -> tuple[asyncio.Event, asyncio.Event]:
    """Makes the remote wait before its reply to a content. Returns an event that is set when it waits, and one that the test
    sets to end that."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def policy(verb: str, _argument: bytes) -> bytes | None:
        if verb == "CONTENT":
            reached.set()
            await go_on.wait()
        return None

    remote.policy = policy
    return reached, go_on
