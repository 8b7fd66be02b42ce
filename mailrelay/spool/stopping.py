"""The protocol by which a command asks the daemon to cancel a message that is being sent, and the command's end of it.

It is a UNIX socket in the spool's directory. The command sends the key of the message as a decimal number in one line. The
daemon replies with one line, a value of `mail.sending.Stop`, and closes the connection (`mailrelay.cancelling`). The daemon,
not the command, cancels the message in the spool, because only the daemon knows whether the end of the content was written.

The socket is missing with a daemon of an older version. Commands use `ask`, so this module must not import asyncio.
"""

import time
from _socket import AF_UNIX, SOCK_STREAM, socket
from pathlib import Path

from mailrelay.mail.sending import Stop
from mailrelay.spool.liveness import address_of

FILE = "cancel"
"""The name of the socket."""
MAX_LINE = 32
"""Octets of a line, with its end."""
MAX_KEY = 2**63 - 1
"""The largest key of SQLite."""


def ask(directory: Path, key: int, timeout: float) -> Stop | None:
    """Asks the daemon to cancel the message with this key of the spool. None: no answer within `timeout` seconds, so the
    result is not known."""
    end = time.monotonic() + timeout
    asking = socket(AF_UNIX, SOCK_STREAM)
    try:
        asking.settimeout(timeout)
        with address_of(directory / FILE) as address:
            asking.connect(address)
        asking.sendall(b"%d\n" % key)
        line = b""
        while not line.endswith(b"\n") and len(line) < MAX_LINE:
            asking.settimeout(max(end - time.monotonic(), 0.01))
            if not (part := asking.recv(MAX_LINE)):
                break
            line += part
        return Stop(line.removesuffix(b"\n").decode("ascii", "replace"))
    except (OSError, ValueError):
        # No socket, no process that listens, no answer in time, or the daemon has ended.
        return None
    finally:
        asking.close()


def key_of(line: bytes) -> int | None:
    """The key in the line of a command; None if the line is not a key."""
    digits = line.removesuffix(b"\n")
    if len(digits) == len(line) or not digits.isdigit():
        return None
    key = int(digits)
    return key if key <= MAX_KEY else None


def answer(stop: Stop) -> bytes:
    """The line with which the daemon replies."""
    return stop.value.encode() + b"\n"
