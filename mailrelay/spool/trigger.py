"""The bell beside the spool: a FIFO that the daemon reads and any command writes to, as in Postfix and nullmailer.

It means "look again": what is to be done stands in the spool. One word there is that no spool can hold: that the network
has changed, from where the system itself tells nobody (`NETWORK`).
"""

import os
from pathlib import Path

FILE = "trigger"
LOOK, NETWORK = b"\n", b"n"


def listen(directory: Path) -> int:
    """Opens the daemon's end, made if it is not there; returns a non-blocking descriptor to wait on and to `drain`."""
    path = directory / FILE
    # Copies and backups make a plain file of it, which hears nothing.
    if path.is_symlink() or (path.exists() and not path.is_fifo()):
        path.unlink()
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        pass
    # Read and write: so that the last writer's close is not an end of file that never ends.
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def drain(handle: int) -> bytes:
    """Reads what has been rung, so that the descriptor can be waited on again."""
    rung = b""
    try:
        while read := os.read(handle, 4096):
            rung += read
    except BlockingIOError:
        pass
    return rung


def ring(directory: Path, word: bytes = LOOK) -> bool:
    """Rings the bell. Returns whether a daemon is there to hear it."""
    path = directory / FILE
    try:
        if not path.is_fifo():
            return False
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(handle, word)
    except BlockingIOError:
        pass
    except BrokenPipeError:
        # It ended between the two calls.
        return False
    finally:
        os.close(handle)
    return True
