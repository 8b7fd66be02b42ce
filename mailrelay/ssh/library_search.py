"""Finds shared libraries without running a program.

asyncssh looks for two optional libraries when it is imported. On Linux, Python's `ctypes.util.find_library` runs ldconfig,
gcc and ld for that, and fails where no directory for temporary files can be written. `find` takes its place in this process,
before the first import of asyncssh (`mailrelay.ssh`).
"""

import ctypes
import ctypes.util
import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

SEARCHED = ("/usr/local/lib", "/lib", "/usr/lib", "/lib64", "/usr/lib64")
"""Where ld.so(8) looks, except for ld.so.conf. Below some of them are directories named after the machine, as in Debian."""


def install() -> None:
    """Makes `ctypes.util.find_library` run no program. Does nothing on systems where it runs none."""
    if sys.platform == "linux":
        ctypes.util.find_library = find


def find(name: str) -> str | None:
    """The path of the newest library `name`, such as "nettle", that can be loaded; None if there is none."""
    machine = str(sysconfig.get_config_var("MULTIARCH") or "")
    named = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    directories = [path for path in named if path]
    directories += [path for base in SEARCHED for path in (f"{base}/{machine}", base)]
    return next((path for path in _candidates(name, directories) if _loads(path)), None)


def _candidates(name: str, directories: Iterable[str]) -> Iterable[str]:
    for directory in directories:
        found = Path(directory).glob(f"lib{name}.so*")
        yield from sorted(map(str, found), key=_version, reverse=True)


def _version(path: str) -> list[int]:
    return [int(part) for part in path.rpartition(".so")[2].split(".") if part.isdecimal()]


def _loads(path: str) -> bool:
    try:
        ctypes.CDLL(path)
    except OSError:
        return False
    return True
