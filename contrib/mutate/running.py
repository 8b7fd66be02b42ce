"""Runs tests against changed sources, each in a copy of the checkout.

Promises: a copy is as it was when the tests have ended; nothing that they started is left. Tests that hang have noticed the
change. A test that is red without the change, too, has not.
"""

import difflib
import itertools
import os
import queue
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from changes import Change, changes

FIRST = 50
"""Tests of the first round."""


class Covering(Protocol):
    """Which tests run a line (`covering.CoveringTests`)."""

    def of(self, file: str, lines: tuple[int, int]) -> list[str]: ...
    def seconds(self, test: str) -> float: ...


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed source. file: its path below mailrelay/."""

    file: str
    change: Change

    @property
    def package(self) -> str:
        return self.file.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Result:
    """how: "failed", "time-out" or "survived". tests: how many were to run. left_out: how many more cover the place."""

    mutant: Mutant
    how: str
    tests: int
    left_out: int
    seconds: float


class Runner:
    """Runs tests against mutants, each in one of the copies of the checkout."""

    # Of a file that is changed twice in a second, Python would take the compiled form of the first one.
    _times = itertools.count(int(time.time()))

    def __init__(self, covering: Covering, trees: Sequence[Path], budget: float) -> None:
        self._covering = covering
        self._budget = budget
        self._free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for tree in trees:
            self._free.put(tree)
        # Tests that were red: those that are green without a change, and those that are not.
        self._sound: set[str] = set()
        self._unsound: set[str] = set()

    def run(self, mutant: Mutant) -> Result:
        started = time.monotonic()
        tests = self._covering.of(mutant.file, mutant.change.lines)
        until = list(itertools.accumulate(map(self._covering.seconds, tests)))
        chosen = [test for test, seconds in zip(tests, until, strict=True) if seconds <= self._budget]
        timeout = 30 + 4 * sum(map(self._covering.seconds, chosen))
        tree = self._free.get()
        try:
            how = self._try(tree, mutant, chosen, timeout)
        finally:
            self._free.put(tree)
        return Result(mutant, how, len(chosen), len(tests) - len(chosen), time.monotonic() - started)

    def _try(self, tree: Path, mutant: Mutant, tests: Sequence[str], timeout: float) -> str:
        path = tree / "mailrelay" / mutant.file
        source = path.read_bytes()
        # Most changes turn one of the first tests red; the others are not even loaded then.
        for some in (tests[:FIRST], tests[FIRST:]):
            while left := [test for test in some if test not in self._unsound]:
                self._write(path, mutant.change.apply(source))
                try:
                    how, red = _run_tests(tree, left, timeout)
                finally:
                    self._write(path, source)
                if how == "survived":
                    break
                if red is None or self._is_sound(tree, red):
                    return how
        return "survived"

    def _is_sound(self, tree: Path, test: str) -> bool:
        """Whether a test that was red is green without the change."""
        if test not in self._sound:
            how, _ = _run_tests(tree, [test], 120)
            (self._sound if how == "survived" else self._unsound).add(test)
        return test in self._sound

    def _write(self, path: Path, source: bytes) -> None:
        path.write_bytes(source)
        at = next(self._times)
        os.utime(path, (at, at))


def _run_tests(tree: Path, tests: Sequence[str], timeout: float) -> tuple[str, str | None]:
    """How it went (`Result`), and the first test that was red, None if none has run to its end."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as names, tempfile.TemporaryFile("w+") as output:
        names.write("\n".join(tests))
        names.flush()
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", "--timeout", "60"]
        process = subprocess.Popen(
            [*command, f"@{names.name}"],
            cwd=tree,
            env=environment_of(tree),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            how = "failed" if process.wait(timeout) else "survived"
        except subprocess.TimeoutExpired:
            how = "time-out"
        finally:
            # Also what the tests have started and left.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        output.seek(0)
        words = [
            line.removeprefix("FAILED ").removeprefix("ERROR ")
            for line in output
            if line.startswith(("FAILED ", "ERROR "))
        ]
    red = [test for test in tests for line in words if line.strip() == test or line.startswith(f"{test} - ")]
    return how, max(red, key=len, default=None)


def environment_of(tree: Path) -> dict[str, str]:
    """The environment for tests of the sources in `tree`, also for the programs that they start."""
    return {**os.environ, "PYTHONPATH": str(tree)}


def mutants(tree: Path, parts: Sequence[str]) -> list[Mutant]:
    """All changes of the sources in these packages and files, in the order of their paths and places."""
    found = []
    for part in parts:
        path = tree / "mailrelay" / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            name = file.relative_to(tree / "mailrelay").as_posix()
            found += [Mutant(name, change) for change in changes(file.read_bytes())]
    return found


def diff(mutant: Mutant, tree: Path) -> str:
    path = f"mailrelay/{mutant.file}"
    source = (tree / path).read_bytes()
    before, after = source.decode(), mutant.change.apply(source).decode()
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), path, path, lineterm="", n=2)
    return "\n".join(lines)
