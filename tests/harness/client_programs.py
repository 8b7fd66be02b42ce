"""Programs that send mail: how they are run, and what is in a spool after them."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from harness.messages import LIMIT
from mailrelay.config import Listen, Relayhost
from mailrelay.endpoint import Tcp
from mailrelay.intake import Intake
from mailrelay.listener.listening import listen
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.relay.scheduler import Scheduler
from mailrelay.spool.spool import Spool
from mailrelay.ssh.dial import dial


def needs(program: str, *files: str) -> pytest.MarkDecorator:
    """Skips a test if a program, or a file of its library, is not installed; where nothing may be missing, it fails then.

    files: patterns, relative to the root directory.
    """
    is_there = shutil.which(program) is not None and all(any(Path("/").glob(file)) for file in files)
    return pytest.mark.skipif(
        not is_there and os.environ.get("MAILRELAY_SYSTEM_TESTS") != "1",
        reason=f"{program} or its library is not installed",
    )


def environment(home: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"} | more


def run(argv: list[str], env: Mapping[str, str], cwd: Path, stdin: str = "") -> None:
    done = subprocess.run(argv, env=env, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done


async def received(directory: Path, client: Callable[[str], object]) -> list[tuple[bytes, list[bytes], bytes]]:
    """What is in a new spool after a client ran, which is told the port of a listener: reverse path, recipients, content."""
    directory.mkdir(0o700)
    spool = Spool(directory, LIMIT, lambda _name: None)
    relayhost = Relayhost(name="default", ssh="server", ssh_config=Path("/nowhere"))
    # It never runs, so the messages stay in the spool.
    scheduler = Scheduler(relayhost, spool, dial, RetryPolicy((60.0,), 432_000.0, lambda *_: ()), lambda: None)
    intake = Intake([relayhost], {"default": scheduler}, spool, lambda: None, 0.0)
    listening = await listen(Listen(address=Tcp("127.0.0.1", 0)), intake)
    try:
        await asyncio.to_thread(client, str(listening.addresses[0]).rpartition(":")[2])
        return [
            (
                message.envelope.sender,
                [to.address for to in message.envelope.recipients],
                b"".join([piece async for piece in spool.pieces(message.id)]),
            )
            for message in await spool.take("default", (), 10)
        ]
    finally:
        await listening.close()
        spool.close()


def has_come(found: list[tuple[bytes, list[bytes], bytes]], sender: bytes = b"me@example.org") -> None:
    """There is one message in the spool: its envelope, and its content with our Received field and CRLF line ends."""
    ((reverse_path, recipients, content),) = found
    assert reverse_path == sender
    assert recipients == [b"you@example.net"]
    header, _, body = content.partition(b"\r\n\r\n")
    assert header.startswith(b"Received: ")
    assert re.search(rb"^subject: (\[PATCH\] )?hello\r?$", header, re.IGNORECASE | re.MULTILINE)
    assert re.search(rb"^to: <?you@example\.net>?\r?$", header, re.IGNORECASE | re.MULTILINE)
    assert body.startswith(b"hello\r\n")
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", content)
