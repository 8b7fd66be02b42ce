"""Remembers, outside of the spool, when the person was told that the spool cannot be used: a service manager starts the
daemon again every few seconds, and the person needs one notice.

The file lies in $XDG_RUNTIME_DIR, or else in the temporary directory. Other accounts can write there, so it is used only if
it is a plain file of this account, without permissions for others, with one hard link, and not a symbolic link.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

MAX_FILE = 4096
"""Octets of the file that are read."""


@dataclass
class Told:
    """at: when the person was told, epoch seconds, in order. is_over: whether the failure has ended since."""

    at: list[float] = field(default_factory=list)
    is_over: bool = False


def memory_file(directory: Path, environ: Mapping[str, str]) -> Path:
    """The file for the spool in `directory`."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    folder = Path(runtime) if runtime.startswith("/") else Path(environ.get("TMPDIR") or "/tmp")  # noqa: S108 - see above
    spool = hashlib.sha256(os.fsencode(directory.absolute())).hexdigest()[:16]
    return folder / f"mailrelay-{os.geteuid()}-{spool}"


class Memory:
    """The earlier notices, by the name of the failure, as `file` contains them; empty if it cannot be read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.told: dict[str, Told] = {}
        try:
            handle = _opened(file, os.O_RDONLY)
            try:
                self.told = _told(os.read(handle, MAX_FILE))
            finally:
                os.close(handle)
        except (OSError, ValueError, RecursionError):
            pass

    def save(self) -> bool:
        """Writes the file. Returns whether it could."""
        content = json.dumps({name: asdict(told) for name, told in self.told.items()}, separators=(",", ":")).encode()
        try:
            handle = _opened(self._file, os.O_RDWR | os.O_CREAT)
            try:
                # Truncated after the write, so that replacing the content needs no new space on a full disk.
                written = os.pwrite(handle, content, 0)
                os.ftruncate(handle, written)
            finally:
                os.close(handle)
        except OSError:
            return False
        return written == len(content)


def _told(content: bytes) -> dict[str, Told]:
    """The notices in the content of the file. Raises ValueError."""
    match json.loads(content):
        case dict() as found:
            return {name: _one(value) for name, value in found.items()}
    raise ValueError("no object")


def _one(value: object) -> Told:
    match value:
        case {"at": list() as at, "is_over": bool() as is_over} if all(isinstance(one, int | float) for one in at):
            return Told(at, is_over)
    raise ValueError("no notices of a failure")


def _opened(file: Path, flags: int) -> int:
    """A descriptor of the file. Raises OSError, also if other accounts can use the file."""
    # O_NONBLOCK: opening a FIFO must not wait.
    handle = os.open(file, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077 or found.st_nlink != 1:
        os.close(handle)
        raise PermissionError(f"{file} is not a file of this account alone")
    return handle
