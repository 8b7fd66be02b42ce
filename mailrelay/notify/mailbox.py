"""The `mailbox` backend: the report of `mail.dsn` as a file in a Maildir, which a mail program reads without any network.

It delivers every kind of notice, also for mail from the null reverse path. The report does not quote the message: its
content may be what cannot be read.

Promises: `deliver` returns after the fsync of the report and of its directory entry. A missing Maildir is created with mode
0700. An incomplete report is only ever in tmp/, which mail programs do not read. Line ends are LF, as is usual in Maildirs.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mailrelay.atomic_file import make_directory, sync_directory
from mailrelay.mail.notice import Notice
from mailrelay.mail.printable import printable
from mailrelay.notify.backend import BackendFailed, Deliver
from mailrelay.notify.dsn import render


def mailbox(maildir: Path, now: Callable[[], float] = time.time) -> Deliver:
    """A backend into the Maildir at `maildir`."""

    async def deliver(notices: Sequence[Notice]) -> None:
        for notice in notices:
            content = render(notice, b"", now())
            try:
                await asyncio.to_thread(_write, maildir, content.replace(b"\r\n", b"\n"), now())
            except OSError as error:
                raise BackendFailed(
                    f"no report can be written to {printable(str(maildir))}: {error.strerror or error}"
                ) from error

    return deliver


def _write(maildir: Path, content: bytes, now: float) -> None:
    for folder in (maildir, maildir / "tmp", maildir / "new", maildir / "cur"):
        make_directory(folder)
    name = f"{int(now)}.{secrets.token_hex(12)}.mailrelay"
    part, whole = maildir / "tmp" / name, maildir / "new" / name
    try:
        with open(part, "xb", opener=_open_private) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(whole)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    for folder in (whole.parent, maildir, maildir.parent):
        sync_directory(folder)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
