"""The backend to a Maildir: the report of `mail.dsn` as a file that a mail program finds, with no network in between.

It carries every kind of notice, mail from the null reverse path too, and asks nobody for the message itself: that may
be the very thing that cannot be read.

Promises: `carry` returns once the report and its name are on disk. A Maildir that is missing is made, for its owner
only. What is half written lies in tmp/, where no mail program looks. Line ends are LF, as Maildirs have them.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mailrelay.atomic_file import sync_directory
from mailrelay.mail.notice import Notice
from mailrelay.mail.printable import printable
from mailrelay.notify.backend import BackendFailed, Carry
from mailrelay.notify.dsn import written


def mailbox(maildir: Path, now: Callable[[], float] = time.time) -> Carry:
    """A backend into the Maildir at `maildir`."""

    async def carry(notices: Sequence[Notice]) -> None:
        for notice in notices:
            content = written(notice, b"", now())
            try:
                await asyncio.to_thread(_deliver, maildir, content.replace(b"\r\n", b"\n"), now())
            except OSError as error:
                raise BackendFailed(
                    f"no report fits into {printable(str(maildir))}: {error.strerror or error}"
                ) from error

    return carry


def _deliver(maildir: Path, content: bytes, now: float) -> None:
    for folder in (maildir, maildir / "tmp", maildir / "new", maildir / "cur"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{int(now)}.{secrets.token_hex(12)}.mailrelay"
    part, whole = maildir / "tmp" / name, maildir / "new" / name
    try:
        with open(part, "xb", opener=_private) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(whole)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    for folder in (whole.parent, maildir, maildir.parent):
        sync_directory(folder)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
