"""The count of the preloaded disk is the kernel's: no call on the spool passes it by."""

import asyncio
import re
from collections import Counter
from pathlib import Path

import pytest
from harness.failing_disk import build, report
from harness.fault_story import Mailboxes, Story
from harness.fault_verdict import complaints
from harness.fork_server import ForkServer
from harness.strace import calls, tracing

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

NAMES = {"openat": "open", "newfstatat": "stat", "mknodat": "mknod"}
"""System calls that the library names otherwise."""
PASSED = {"close", "ioctl", "lseek", "epoll_ctl", "statx"}
"""Calls that the library does not count: those that do not fail on a local disk, and its own."""


def of_the_kernel(trace: Path, directory: Path) -> Counter[tuple[str, str]]:
    """How often each call was made on each file below the directory."""
    found: Counter[tuple[str, str]] = Counter()
    for call in calls(trace):
        # The first file that is named: as a descriptor, or as a path.
        named = re.search(
            rf'(?:<|(?<!\\)"){re.escape(str(directory))}(?:/([^">]*))?[">]', call.text.partition(" = ")[0]
        )
        if named is None or call.name in PASSED:
            continue
        file = named[1] or "."
        name = NAMES.get(call.name, call.name)
        if name == "fcntl" and not re.search(r"F_GETLK|F_SETLKW?, {l_type=F_(RD|WR)LCK", call.text):
            continue
        if name == "stat" and '"", ' in call.text:
            name = "fstat"
        if name == "stat" and "AT_SYMLINK_NOFOLLOW" in call.text:
            name = "lstat"
        if name in ("read", "write", "fstat") and file.endswith("/trigger"):
            continue
        found[name, file] += 1
    return found


def test_no_call_on_the_spool_passes_by_the_count(tmp_path: Path) -> None:
    async def tell() -> None:
        (tmp_path / "remote").mkdir()
        before = tracing("%file,%desc", tmp_path / "trace")
        async with Mailboxes(tmp_path / "remote") as mailboxes, ForkServer(build(tmp_path), before) as server:
            facts = await Story(server, mailboxes, tmp_path / "story").tell(None, traces=True)
            assert complaints(facts) == []

    asyncio.run(tell())
    counted = Counter(
        (call.call, call.file) for name in ("calls", "other-calls") for call in report(tmp_path / "story" / name)
    )
    made = of_the_kernel(tmp_path / "trace", tmp_path / "story/state")
    assert (made - counted, counted - made) == (Counter(), Counter())
    assert counted.total() > 1000
