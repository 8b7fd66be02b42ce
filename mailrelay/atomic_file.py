"""Replaces files in one step: a reader sees the old or the new content, never a part, also after a power failure.

Puts the names of files and directories on disk: the fsync of a file does not put its name there.
"""

import os
import stat
from pathlib import Path


def replace_file(file: Path, data: bytes) -> None:
    """Replaces the content of a file with `data` and keeps its permissions. A new file is made with mode 0600, missing
    directories with mode 0700.

    If `file` is a symbolic link, its target is replaced. The data is on disk when this returns. Raises OSError.
    """
    file = file.resolve()
    make_directory(file.parent)
    mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else 0o600
    # Without `tempfile`: its import would delay the start of the daemon, which needs it for nothing else.
    fresh_file = file.with_name(f"{file.name}.{os.urandom(8).hex()}")
    handle = os.open(fresh_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as fresh:
            fresh.write(data)
            fresh.flush()
            os.fchmod(handle, mode)
            os.fsync(handle)
        fresh_file.replace(file)
    except BaseException:
        fresh_file.unlink(missing_ok=True)
        raise
    sync_directory(file.parent)


def make_directory(directory: Path) -> None:
    """Makes a directory and its missing parents, with mode 0700. They are on disk when this returns. Raises OSError."""
    missing = [each for each in (directory, *directory.parents) if not each.is_dir()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        sync_directory(each.parent)


def sync_directory(directory: Path) -> None:
    """Puts the entries of a directory on disk, after a file was made, renamed or removed there. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
