"""What programs did to the files below one directory, read from a trace of strace, in the order in which it took effect.

A write takes effect when its call ends. A sync covers what took effect before its call began, and holds from the end of its
call. A line that a program says (to a client, to its log, to the test) counts from the beginning of its call. So nothing
here is later than a power cut at that place could be, and no promise is counted late.
Not in a trace: what is written through a memory mapping. Only SQLite's -shm file is written so, which no start relies on.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.strace import Call, calls, require_strace

FILE_CALLS = (
    "openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,truncate,ftruncate,fallocate,fsync,fdatasync,"
    "sync_file_range,copy_file_range,sendfile,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,"
    "rename,renameat,renameat2,unlink,unlinkat,sendto,sendmsg"
)
LONGEST = 9000
"""Octets of one write to a file, at most. SQLite writes a page at a time."""


@dataclass(frozen=True, slots=True)
class Write:
    """at: the offset; None for an appended piece."""

    path: str
    at: int | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    path: str
    length: int


@dataclass(frozen=True, slots=True)
class Make:
    """A file that was opened, and made if it did not exist, or a directory."""

    path: str
    is_directory: bool


@dataclass(frozen=True, slots=True)
class Move:
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Remove:
    path: str


@dataclass(frozen=True, slots=True)
class SyncBegins:
    """A sync of a file or directory. number: the same in its `SyncEnds`."""

    path: str
    number: int


@dataclass(frozen=True, slots=True)
class SyncEnds:
    path: str
    number: int


@dataclass(frozen=True, slots=True)
class Said:
    """Octets written to a socket, or to a file that is listened to. to: the path, or "socket:[…]"."""

    to: str
    data: bytes


Step = Write | Resize | Make | Move | Remove | SyncBegins | SyncEnds | Said


def recording(output: Path, *inject: str) -> list[str]:
    """What to put before a command to record it and all that it starts. inject: tampering, as for `strace -e inject=`."""
    traced = ",".join(f"?{call}" for call in FILE_CALLS.split(","))
    options = ["-f", "-qq", "-y", "-xx", "-s", str(LONGEST), "-o", str(output), "-e", f"trace={traced}"]
    return [require_strace(), *options, *(word for each in inject for word in ("-e", f"inject={each}"))]


_HANDLE = re.compile(r"(?:\d+|AT_FDCWD)<([^<>]*)>(\(deleted\))?")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_RESULT = re.compile(r"\) += (-?\d+)(?:<[^<>]*>)?(?: [A-Z].*| \(.*)?$")


def _octets(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _path(text: str) -> str:
    # strace writes the names of sockets in the same way as those of files.
    return _octets(text).decode() if text.startswith("\\x") else text


def steps(output: Path, below: Path, heard: Sequence[Path]) -> list[Step]:
    """The steps in a trace that concern files below a directory, in order; their paths are relative to it.

    heard: files whose appended pieces are what a program said (`Said`), and no files of the disk.
    """
    found: list[tuple[int, Step]] = []
    listened = {str(path) for path in heard}
    for number, call in enumerate(calls(output)):
        for place, step in _steps(call, number, str(below), listened):
            found.append((place, step))
    found.sort(key=lambda one: one[0])
    return [step for _, step in found]


def _steps(call: Call, number: int, below: str, heard: set[str]) -> Iterator[tuple[int, Step]]:
    result = _RESULT.search(call.text)
    if result is None or int(result[1]) < 0 or call.text.endswith("(INJECTED)"):
        return
    arguments = call.text[: result.start()]
    handle = _HANDLE.match(arguments)
    target = _path(handle[1]) if handle is not None and not handle[2] else ""
    if target.startswith("socket:") and call.name in ("sendto", "sendmsg", "write", "writev"):
        yield call.began, Said(target, b"".join(_octets(text) for text, _ in _STRING.findall(arguments)))
    elif target in heard:
        if call.name == "write":
            yield call.began, Said(target, _data(arguments, int(result[1])))
    elif call.name in ("write", "pwrite64", "ftruncate", "fsync", "fdatasync"):
        if _is_inside(target, below) or target == below:
            yield from _through_a_handle(call, number, _relative(target, below), arguments, int(result[1]))
    else:
        names = [_octets(text).decode(errors="replace") for text, _ in _STRING.findall(arguments)]
        if any(_is_inside(name, below) and name not in heard for name in (target, *names)):
            yield from _by_name(call, [_relative(name, below) for name in names], arguments)


def _is_inside(path: str, below: str) -> bool:
    return path.startswith(f"{below}/")


def _relative(path: str, below: str) -> str:
    return path[len(below) + 1 :]


def _by_name(call: Call, names: Sequence[str], arguments: str) -> Iterator[tuple[int, Step]]:
    match call.name, names:
        case (("openat" | "open" | "creat"), [path]):
            if "O_CREAT" in arguments:
                yield call.ended, Make(path, is_directory=False)
            if "O_TRUNC" in arguments:
                yield call.ended, Resize(path, 0)
        case (("mkdir" | "mkdirat"), [path]):
            yield call.ended, Make(path, is_directory=True)
        case (("rename" | "renameat" | "renameat2"), [old, new]):
            yield call.ended, Move(old, new)
        case (("unlink" | "unlinkat"), [path]):
            yield call.ended, Remove(path)
        case _:
            raise AssertionError(f"the recorder does not know this call: {call.name}({call.text[:300]}")


def _through_a_handle(call: Call, number: int, path: str, arguments: str, result: int) -> Iterator[tuple[int, Step]]:
    match call.name:
        case "fsync" | "fdatasync":
            yield call.began, SyncBegins(path, number)
            yield call.ended, SyncEnds(path, number)
        case "ftruncate":
            yield call.ended, Resize(path, int(arguments.rpartition(",")[2]))
        case "pwrite64":
            yield call.ended, Write(path, int(arguments.rpartition(",")[2]), _data(arguments, result))
        case _:
            yield call.ended, Write(path, None, _data(arguments, result))


def _data(arguments: str, written: int) -> bytes:
    """What was written, `written` octets."""
    string = _STRING.search(arguments)
    assert string is not None, arguments[:300]
    data = _octets(string[1])
    assert len(data) >= written, "a longer piece than LONGEST"
    return data[:written]
