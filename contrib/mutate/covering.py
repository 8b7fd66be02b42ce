"""Knows which tests run which lines: a map that is made once, by a run of the tests with `coverage`.

Promises: a map is used only for the sources with which it was made. The map names tests as pytest does, with their seconds.
"""

import hashlib
import subprocess
import sys
from collections.abc import Container, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from coverage import CoverageData
from running import environment_of

TESTS = ("tests/unit", "tests/property", "tests/integration")


class CoveringTests:
    """The tests that run a line of the sources. new: tests that the map does not know.

    Raises FileNotFoundError, and ValueError for a map of other sources.
    """

    def __init__(self, directory: Path, tree: Path) -> None:
        if (directory / "sources").read_text() != _digest(tree):
            raise ValueError("the map was made with other sources")
        self._data = CoverageData(str(directory / "coverage"))
        self._data.read()
        # The files as they were called where the map was made, which may be several places.
        self._files: dict[str, list[str]] = {}
        for name in self._data.measured_files():
            self._files.setdefault(name.rpartition("/mailrelay/")[2], []).append(name)
        self._seconds = {
            f"{case.get('classname')}.{case.get('name')}": float(case.get("time", 1))
            for times in directory.glob("tests*.xml")
            for case in ET.parse(times).iter("testcase")
        }
        self._existing = _collected(tree)
        self.new = sorted(test for test in self._existing if _name_in_xml(test) not in self._seconds)

    def of(self, file: str, lines: tuple[int, int]) -> list[str]:
        """The tests that run a line of `file` (a path below mailrelay/), the fastest first.

        Of a line that runs at the import, such as a constant: the tests that run anything else of the file, or of a file in
        the same directory.
        """
        directory = file.rpartition("/")[0]
        beside = [name for name in self._files if name.rpartition("/")[0] == directory]
        of_lines, of_file = self._running([file], range(lines[0], lines[1] + 1)), self._running([file])
        return sorted((of_lines or of_file or self._running(beside)) & self._existing, key=self.seconds)

    def _running(self, files: Sequence[str], lines: Container[int] | None = None) -> set[str]:
        """The tests that run one of the lines, None for any, of one of the files."""
        return {
            context.rpartition("|")[0]
            for file in files
            for name in self._files.get(file, [])
            for line, contexts in self._data.contexts_by_lineno(name).items()
            if lines is None or line in lines
            for context in contexts
            if context
        }

    def seconds(self, test: str) -> float:
        return self._seconds.get(_name_in_xml(test), 1.0)


def make_map(directory: Path, tree: Path, processes: int, new: Sequence[str] = ()) -> None:
    """Runs all tests, or adds those that are `new`. It takes twice as long as they take. tree: a copy of the checkout."""
    directory.mkdir(exist_ok=True)
    if not new:
        for file in directory.iterdir():
            file.unlink()
        (directory / "sources").write_text(_digest(tree))
    (directory / "new").write_text("\n".join(new))
    times = directory / f"tests{len([*directory.glob('tests*.xml')])}.xml"
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-n", str(processes), "--dist", "loadfile", "--timeout", "300"),
        *("--cov=mailrelay", "--cov-context=test", "--cov-append", "--cov-report=", f"--junitxml={times}"),
        *([f"@{directory / 'new'}"] if new else TESTS),
    ]
    subprocess.run(
        command, cwd=tree, env=environment_of(tree) | {"COVERAGE_FILE": str(directory / "coverage")}, check=False
    )


def _digest(tree: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted((tree / "mailrelay").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _collected(tree: Path) -> set[str]:
    """All tests of today: pytest refuses a list with one that is gone."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", *TESTS]
    output = subprocess.run(
        command, cwd=tree, env=environment_of(tree), capture_output=True, text=True, check=True
    ).stdout
    return {line for line in output.splitlines() if "::" in line}


def _name_in_xml(test: str) -> str:
    """As JUnit's XML has the class and the name of a test."""
    head, bracket, parameters = test.partition("[")
    file, *names = head.split("::")
    return ".".join((file.removesuffix(".py").replace("/", "."), *names)) + bracket + parameters
