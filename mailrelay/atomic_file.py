"""A file replaced in one step: whoever reads it meets the old one or the new one, also after a power cut."""

import os
import stat
import tempfile
from pathlib import Path


def replace_file(file: Path, data: bytes) -> None:
    """Puts `data` in the place of a file, with its permissions, or makes it: 0600, and directories 0700.

    A link stays a link: what it leads to is replaced. It is on disk when this returns. Raises OSError.
    """
    file = file.resolve()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else 0o600
    handle, name = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as fresh:
            fresh.write(data)
            fresh.flush()
            os.fchmod(handle, mode)
            os.fsync(handle)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
