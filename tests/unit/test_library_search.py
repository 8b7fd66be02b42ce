"""Shared libraries for asyncssh are found without a program."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from mailrelay.ssh import library_search

STARTS = """
import os, sys
def hear(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "os.exec", "tempfile.mkstemp"):
        print(event, arguments, flush=True)
sys.addaudithook(hear)
import mailrelay.ssh.dial
import asyncssh.crypto.pq
print("imported")
"""

LOOKS = """
import sys, mailrelay.ssh
before = set(sys.modules)
found = sys.meta_path[0].find_spec("asyncssh")
print(found.name, set(sys.modules) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux looks for libraries by programs")
def test_the_first_connection_runs_no_program_and_makes_no_file() -> None:
    done = subprocess.run([sys.executable, "-c", STARTS], capture_output=True, text=True, check=False)
    assert done.stdout == "imported\n", done.stdout + done.stderr


def test_nothing_is_imported_while_python_holds_the_lock_of_all_imports() -> None:
    """The daemon hung when another thread imported something at the moment of the first dial."""
    done = subprocess.run([sys.executable, "-c", LOOKS], capture_output=True, text=True, check=False)
    assert done.stdout == "asyncssh set()\n", done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the names are Linux's")
def test_what_is_found_can_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = library_search.find("c")
    assert found is not None
    ctypes.CDLL(found)
    assert library_search.find("no-such-library") is None
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    (tmp_path / "libours.so.1").write_bytes(b"not a library")
    assert library_search.find("ours") is None
    (tmp_path / "libours.so.9").symlink_to(found)
    (tmp_path / "libours.so.10").symlink_to(found)
    assert library_search.find("ours") == str(tmp_path / "libours.so.10")
