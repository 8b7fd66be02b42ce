"""The distribution: its name in every command that is told, a complete sdist, and repeatable builds."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from harness.readme import PAGES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NAME = PROJECT["name"]
TOLD = (*PAGES, *sorted((ROOT / "mailrelay").rglob("*.py")), *sorted((ROOT / "contrib/man").glob("*.[158]")))
"""Files that tell commands."""
EXTRAS = set(PROJECT["optional-dependencies"])
OTHERS = {
    re.split(r"[^\w.-]", one)[0]
    for listed in (
        PROJECT["dependencies"],
        *PROJECT["optional-dependencies"].values(),
        (ROOT / "tox.ini").read_text("utf-8").partition("\ndeps =\n")[2].partition("\npass_env")[0].split(),
    )
    for one in listed
} | {"tox", "pytest-cov"}
"""Distributions of others that the project uses."""


def installed_by(path: Path) -> list[list[str]]:
    """The arguments of every `pip install` and `pipx install` in a file."""
    text = (
        path.read_text("utf-8").replace("\\f[BR]", "").replace("\\fB", "`").replace("\\fR", "`").replace("\\(aq", "'")
    )
    found = re.findall(r"(?:pip|pipx|pip\d) install ([^`\n]*?)(?: &&| {2,}|[`\n]|\"$|\"\n)", text)
    return [shlex.split(arguments) for arguments in found]


def mistake(word: str) -> str:
    """Why an argument of `pip install` leads nowhere today; "" if it works."""
    wanted, _, extra = word.partition("[")
    if extra and extra.rstrip("]") not in EXTRAS:
        return "no such extra"
    wanted = re.split("[<>=~]", wanted)[0]
    if wanted.startswith("-") or wanted in (".", "./") or wanted in OTHERS:
        return ""
    if re.fullmatch(rf"(?:\S*/)?{NAME.replace('-', '_')}-[\w.*-]+\.whl", wanted):
        return ""
    return "not published, and not of the project"


def test_every_command_that_installs_something_works_today() -> None:
    found = {(path.name, word): mistake(word) for path in TOLD for words in installed_by(path) for word in words}
    assert ("README.md", ".[apprise]") in found
    assert ("mailrelay.toml.5", ".[apprise]") in found
    assert ("urls.py", "apprise") in found
    assert {where: why for where, why in found.items() if why} == {}


@pytest.mark.parametrize("word", ["mailrelay", "mailrelay[apprise]", NAME, ".[nothing]", "git+https://example.org/x"])
def test_a_command_that_does_not_work_is_found(word: str) -> None:
    assert mistake(word)


def test_the_pythons_of_the_classifiers_are_those_that_tox_can_test() -> None:
    said = {one.rpartition(" ")[2] for one in PROJECT["classifiers"] if "Python :: 3." in one}
    tested = re.search(r"pythons = (.*)", (ROOT / "tox.ini").read_text("utf-8"))
    assert tested
    assert said == {f"3.{name.removeprefix('py3')}" for name in tested[1].split(", ")}
    assert PROJECT["requires-python"] == f">={min(said)}"


needs_hatchling = pytest.mark.skipif(
    "TOX_ENV_NAME" not in os.environ and find_spec("hatchling") is None, reason="needs hatchling, which tox installs"
)


def build(source: Path, into: Path) -> dict[str, bytes]:
    """The sdist and the wheel of a tree, by the ends of their names."""
    argv = [sys.executable, "-m", "hatchling", "build", "-d", into]
    subprocess.run(
        argv, cwd=source, check=True, capture_output=True, env=os.environ | {"SOURCE_DATE_EPOCH": "1800000000"}
    )
    return {path.suffix: path.read_bytes() for path in into.iterdir()}


@cache
def tracked() -> set[str]:
    """The files of the repository."""
    argv = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git, and a checkout")
    listed = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).exists()}


@needs_hatchling
def test_the_sdist_is_complete_and_builds_the_same_octets_again(tmp_path: Path) -> None:
    first = build(ROOT, tmp_path / "first")
    with tarfile.open(next((tmp_path / "first").glob("*.tar.gz"))) as sdist:
        assert {one.mtime for one in sdist} == {1_800_000_000}
        assert {(one.uid, one.gid) for one in sdist} == {(0, 0)}
        sdist.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    assert source.name.startswith(f"{NAME.replace('-', '_')}-")
    # Another time, other owners and other modes.
    for path in source.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(path.stat().st_mode & ~0o077)
    assert build(source, tmp_path / "again") == first
    files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    assert files - {"PKG-INFO"} == tracked()


@needs_hatchling
def test_the_wheel_has_every_file_of_the_package(tmp_path: Path) -> None:
    build(ROOT, tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert {name for name in wheel.namelist() if name.startswith("mailrelay/")} == {
            name for name in tracked() if name.startswith("mailrelay/")
        }
