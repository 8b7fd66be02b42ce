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
    # A copy or a restored backup has a plain file instead, which wakes nothing. A link may lead to the FIFO of a service
    # manager.
    if not path.is_fifo():
        path.unlink(missing_ok=True)
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        pass
    # Read and write: otherwise the descriptor reports end of file for ever once the last writer has closed its end.
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def is_at(directory: Path, handle: int) -> bool:
    """Whether the FIFO with this descriptor is still the one that commands find."""
    try:
        return os.path.samestat(os.fstat(handle), (directory / FILE).stat())
    except OSError:
        return False


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
    """Wakes the daemon. Returns whether one runs, or is started by the service manager now."""
    handle = _open(directory)
    if handle is None:
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


def is_listened_to(directory: Path) -> bool:
    """Whether a daemon reads the FIFO, or a service manager that starts one."""
    handle = _open(directory)
    if handle is None:
        return False
    os.close(handle)
    return True


def _open(directory: Path) -> int | None:
    """The writing end of the FIFO; None if nobody reads it."""
    path = directory / FILE
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC) if path.is_fifo() else None
    except OSError:
        return None
