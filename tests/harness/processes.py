"""Programs as children of a test: start one, wait for its output, end it and all that it started.

Promises: nothing that a test started outlives it, and only what a test started is ever signalled. A wait is for a line of
output or for a fact; after a limit it fails the test with a sentence.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TypeVar

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which something that should have happened has not. Only a failing test waits that long."""
pytest = sys.modules.get("pytest")
"""None outside of tests: the benches use this file too, and need no pytest."""


def fail(why: str, *, pytrace: bool = True) -> NoReturn:
    """Fails the test; a bench ends with this text."""
    __tracebackhide__ = True
    if pytest is not None:
        pytest.fail(why, pytrace=pytrace)
    raise SystemExit(why)


def missing(what: str) -> NoReturn:
    """Skips the test, or fails it where MAILRELAY_SYSTEM_TESTS=1 says that every part is there."""
    if os.environ.get("MAILRELAY_SYSTEM_TESTS") == "1":
        fail(f"{what} is missing, and MAILRELAY_SYSTEM_TESTS=1 promises it", pytrace=False)
    if pytest is not None:
        pytest.skip(f"{what} is missing")
    fail(f"{what} is missing")


def program(name: str, package: str) -> str:
    """The path of a program, also from the places that an ordinary user's PATH leaves out."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        missing(f"{name} (Debian package {package})")
    return found


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int, before: Sequence[str] = ()) -> bool:
    """Whether something listens on that port of 127.0.0.1. before: the command that runs the question in another network."""
    if before:
        ask = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        return subprocess.run([*before, sys.executable, "-c", ask], capture_output=True, check=False).returncode == 0
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(fact: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """The first true value of `fact`, which is asked again and again; fails after `patience` seconds, naming `what`."""
    end = time.monotonic() + patience
    while not (value := fact()):
        if time.monotonic() > end:
            fail(f"after {patience:.0f} s still not so: {what}; last seen: {value!r}")
        time.sleep(0.03)
    return value


def descendants(pid: int) -> list[int]:
    """The processes below one, children before grandchildren, from /proc: a daemon's sessions leave its process group."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            text = stat.read_text(errors="replace")
            parent = int(text.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(children.get(pid, []))
    for one in found:
        found.extend(children.get(one, []))
    return found


class Child:
    """A running program. Its stderr and stdout are read to the end, line by line, into `lines`."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        keep: Sequence[int] = (),
    ) -> None:
        """keep: descriptors that it inherits."""
        self.name = Path(argv[0]).name
        self.lines: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [str(word) for word in argv],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=keep,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.decode(errors="backslashreplace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_line(self, pattern: str, patience: float = PATIENCE) -> str:
        """The first line, said already or yet to come, in which the pattern is found."""
        sought = re.compile(pattern)

        def found() -> str | None:
            return next((line for line in self.lines if sought.search(line)), None)

        with self._news:
            self._news.wait_for(lambda: found() or not self._reader.is_alive(), patience)
            line = found()
        if line is None:
            fail(f"{self.name} never said {pattern!r} (status {self.process.poll()}); it said:\n{self.output}")
        return line

    def wait_port(self, port: int, patience: float = PATIENCE, before: Sequence[str] = ()) -> None:
        """Until it listens there; fails at once if it ends instead."""
        until(
            lambda: listens(port, before) or self.process.poll() is not None, f"{self.name} listens on {port}", patience
        )
        if self.process.poll() is not None:
            self._reader.join(5)
            fail(f"{self.name} ended with status {self.process.returncode}:\n{self.output}")

    def ended(self, patience: float = PATIENCE) -> int:
        """Waits for its end; the exit status, negative for a signal."""
        try:
            status = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            fail(f"{self.name} still runs after {patience:.0f} s; it said:\n{self.output}")
        self._reader.join(5)
        return status

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Ends it and every process below it, however deep, and waits for that."""
        below = descendants(self.pid) if self.process.poll() is None else []
        if self.process.poll() is None:
            self.process.send_signal(signum)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        self._reader.join(5)
