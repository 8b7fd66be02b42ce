"""strace: cutting a program off at an exact system call, and reading the order in which it made its calls."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.processes import missing, program


def require_strace() -> str:
    """The path of strace, where it may trace."""
    strace = program("strace", "strace")
    tried = subprocess.run([strace, "-f", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        missing(f"the right to trace processes with strace ({tried.stderr.strip()})")
    return strace


def killing(call: str, when: int) -> list[str]:
    """What to put before a command so that SIGKILL hits it as a thread of it makes this system call for the nth time.

    The call itself is not carried out any more. Without --seccomp-bpf, which makes strace 6.1 miss calls.
    """
    return [
        require_strace(), "-f", "-qq", "-o", "/dev/null",
        "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}",
    ]  # fmt: skip


def tracing(calls: str, output: Path) -> list[str]:
    """What to put before a command so that these calls of it are written down, with the paths of their files."""
    return [require_strace(), "-f", "-qq", "-y", "-s", "9000", "-o", str(output), "-e", f"trace={calls}"]


@dataclass(frozen=True)
class Call:
    """One system call. `began` and `ended` are places in the order of all; it took effect between them."""

    name: str
    text: str
    began: int
    ended: int


_WHOLE = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\((?P<text>.*)$")
_RESUMED = re.compile(r"^(?P<pid>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<text>.*)$")


def calls(output: Path) -> Iterator[Call]:
    """The calls in a trace. One that another thread's event interrupted is put together again."""
    unfinished: dict[str, tuple[int, str]] = {}
    for place, line in enumerate(output.read_text(errors="replace").splitlines()):
        if resumed := _RESUMED.match(line):
            began, text = unfinished.pop(resumed["pid"])
            yield Call(resumed["name"], text + resumed["text"], began, place)
        elif whole := _WHOLE.match(line):
            if whole["text"].endswith("<unfinished ...>"):
                unfinished[whole["pid"]] = (place, whole["text"].removesuffix("<unfinished ...>"))
            else:
                yield Call(whole["name"], whole["text"], place, place)
