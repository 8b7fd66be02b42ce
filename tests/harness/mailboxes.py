"""The mailboxes of a test's mail server: one directory for each account, one file for each message.

The accounts are the same on every kind of mail server, so that one test can run against all of them.
"""

import os
import pwd
from pathlib import Path

from harness.processes import until

DOMAIN = "remote.example"
"""The mail domain of every mail server of the tests."""
LOGIN = pwd.getpwuid(os.getuid()).pw_name
"""The account that runs the tests, here and on every relayhost."""
ACCOUNTS = ("me", "alice", "bob", "postmaster", LOGIN, *(f"u{number}" for number in range(40)))
"""Local parts that exist. Others are refused with 550 5.1.1, `later` with 450 4.2.1, `closed` with 550 5.2.1."""


def unstamped(raw: bytes) -> bytes:
    """A delivered message without the mbox line that a local mailer may have put before it, and with CRLF line ends."""
    if raw.startswith(b"From "):
        raw = raw.partition(b"\n")[2]
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


class Boxes:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def read(self, account: str, token: str = "") -> list[bytes]:
        """The messages of one account that contain the token, with CRLF line ends, oldest first."""
        files = [
            path for path in (self.directory / account).rglob("*") if path.is_file() and "tmp" not in path.parts[-2:]
        ]
        files.sort(key=lambda path: path.stat().st_mtime_ns)
        return [message for path in files if token.encode() in (message := unstamped(path.read_bytes()))]

    def wait(self, account: str, token: str, count: int = 1) -> list[bytes]:
        """Waits until so many messages with the token are there."""
        what = f"{account} has {count} message(s) with {token}"
        return until(lambda: found if len(found := self.read(account, token)) >= count else [], what)
