"""The trigger: a FIFO in the spool directory that wakes the daemon, as in Postfix and nullmailer. Any command may use it.

An octet in it means "look into the spool again" (`LOOK`), or "the network has changed" (`NETWORK`), for systems that do not
report that themselves.
"""

import os
from pathlib import Path

FILE = "trigger"
LOOK, NETWORK = b"\n", b"n"


def listen(directory: Path) -> int:
    """Opens the daemon's end of the FIFO, and makes it if needed; returns a non-blocking descriptor for `drain`."""
    path = directory / FILE
    # A copy or a restored backup has a plain file instead, which wakes nothing.
    if path.is_symlink() or (path.exists() and not path.is_fifo()):
        path.unlink()
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        pass
    # Read and write: otherwise the descriptor reports end of file for ever once the last writer has closed its end.
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def drain(handle: int) -> bytes:
    """Reads all octets that have been written, so that the descriptor can be waited on again."""
    read = b""
    try:
        while more := os.read(handle, 4096):
            read += more
    except BlockingIOError:
        pass
    return read


def fire(directory: Path, what: bytes = LOOK) -> bool:
    """Wakes the daemon. Returns whether one runs."""
    path = directory / FILE
    try:
        if not path.is_fifo():
            return False
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(handle, what)
    except BlockingIOError:
        pass
    except BrokenPipeError:
        # The daemon ended between the two calls.
        return False
    finally:
        os.close(handle)
    return True
