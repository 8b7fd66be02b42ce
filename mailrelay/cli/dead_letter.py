"""What is left of a message that a program has handed in and that cannot be stored: a file, and a line in the system's log.

Programs such as cron look neither at the exit status nor at stderr. sendmail(1) leaves such a message in ~/dead.letter,
and so does mailrelay: mail programs can open the file as a mailbox (mbox).

    save(content)   appends the message to ~/dead.letter
    report(line)    one line in the system's log, facility mail

Promises: nothing here raises or waits for more than a moment. Only a regular file of this user is written, and it is
readable by nobody else. A message is appended whole or not at all.
"""

import fcntl
import os
import stat
import syslog
import threading
import time
from pathlib import Path

from mailrelay.atomic_file import sync_directory
from mailrelay.mail.printable import printable

FILE = "dead.letter"
"""In the home directory."""
MAX_SIZE = 100_000_000
"""Octets of the file, at most: a job that fails every minute must not fill the disk."""
PATIENCE = 1.0
"""Seconds to wait for the system's log, at most."""
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def save(content: bytes) -> Path | None:
    """Appends a message to the file. content: with LF or CRLF line ends. Returns the file; None if that was not possible."""
    try:
        path = Path.home() / FILE
        handle = os.open(path, _FLAGS, 0o600)
    except (OSError, RuntimeError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(handle)
        entry = _entry(content)
        is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1
        if not is_ours or found.st_size + len(entry) > MAX_SIZE:
            return None
        if not found.st_size:
            # The file may be new: its name must be on disk too.
            sync_directory(path.parent)
        return path if _append(handle, entry, found.st_size) else None
    except OSError:
        return None
    finally:
        os.close(handle)


def report(line: str) -> None:
    """Writes one line to the system's log. What cannot be printed is escaped."""
    thread = threading.Thread(target=_write, args=(printable(line),), daemon=True)
    thread.start()
    thread.join(PATIENCE)


def _write(line: str) -> None:
    syslog.openlog("mailrelay", syslog.LOG_PID, syslog.LOG_MAIL)
    syslog.syslog(syslog.LOG_ERR, line)


def _entry(content: bytes) -> bytes:
    """The message as a mailbox has it, with an empty line at its end."""
    lines = content.replace(b"\r\n", b"\n").split(b"\n")
    # Lines that mailboxes take for the beginning of a message.
    body = b"\n".join(b">" + line if line.lstrip(b">").startswith(b"From ") else line for line in lines)
    return b"From MAILER-DAEMON %s\n%s\n\n" % (time.asctime().encode("ascii"), body.rstrip(b"\n"))


def _append(handle: int, entry: bytes, size: int) -> bool:
    """Whether all of `entry` is on disk. size: of the file, to which it is cut back if not."""
    try:
        written = 0
        while written < len(entry):
            written += os.write(handle, entry[written:])
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, size)
        return False
    return True
