"""A disk on which the Nth call of a class fails, for one process: failing_disk.c, preloaded into it.

SQLite, apsw and Python reach the kernel through the C library, so a preloaded library sees each of their calls. It counts
those on files below one directory, over all threads, one count for each class:

    make    open that creates a file, mkdir, mknod, rename, link, chmod, fchmod, fchown
    open    open of a file that is there, opendir
    read    read, pread64
    write   write, pwrite64, fallocate
    sync    fsync, fdatasync
    remove  unlink, rmdir, truncate, ftruncate
    stat    stat, lstat, fstat, statfs, fstatfs, access, readlink
    lock    fcntl that locks or asks (F_SETLK, F_SETLKW, F_GETLK), flock
    map     mmap
    log     all of these on mailrelay.log

close(), munmap() and fcntl that unlocks are not counted: they do not fail on a local disk. Octets through the trigger (a
FIFO) do not reach the disk, and are not counted either. FAULTS says which faults a class can have: a disk that is full does
not fail a read.
"""

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from harness.processes import missing, program

SOURCE = Path(__file__).with_suffix(".c")
FAULTS = {
    "make": ("EIO", "ENOSPC", "KILL"),
    "write": ("EIO", "ENOSPC", "KILL"),
    "sync": ("EIO", "ENOSPC", "KILL"),
    "remove": ("EIO", "ENOSPC", "KILL"),
    "open": ("EIO", "KILL"),
    "read": ("EIO", "KILL"),
    "map": ("EIO", "KILL"),
    "stat": ("EIO", "KILL"),
    "lock": ("EIO", "KILL"),
    "log": ("EIO", "ENOSPC"),
}
"""The faults of each class of calls. KILL: the process is killed instead of the call."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to call number `number` (from 1) of a class; `kind` is one of FAULTS."""

    name: str
    number: int
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.name} {self.number}"


@dataclass(frozen=True, slots=True)
class Counted:
    """A line of the report. fault: "" for a call that was carried out. at: epoch seconds. file: below the directory."""

    at: float
    fault: str
    name: str
    number: int
    call: str
    file: str

    @classmethod
    def read(cls, line: str) -> Self:
        at, fault, name, number, call, file = line.split(" ", 5)
        return cls(float(at), fault.replace("-", ""), name, int(number), call, file)


def build(directory: Path) -> Path:
    """Compiles the library; returns its path."""
    if sys.platform != "linux":
        missing("LD_PRELOAD")
    library = directory / "failing_disk.so"
    compiler = [program("cc", "gcc"), "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*compiler, "-o", library, SOURCE, "-ldl"], check=True)
    return library


def report(file: Path) -> list[Counted]:
    """The calls in a report; none if nothing was reported."""
    return [Counted.read(line) for line in file.read_text().splitlines()] if file.exists() else []


def numbers(calls: list[Counted]) -> Counter[str]:
    """The number of calls of each class."""
    return Counter(each.name for each in calls)
