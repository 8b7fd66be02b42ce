"""Lines for systemd's journal: sd-daemon(3), and JOURNAL_STREAM of systemd.exec(5)."""

import logging
import os
from pathlib import Path

import pytest

from mailrelay import journal


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_each_line_has_the_priority(level: int, priority: int) -> None:
    assert journal.lines("one\ntwo", level) == f"<{priority}>one\n<{priority}>two\n"


def test_the_stream_is_the_journal_if_the_variable_names_its_device_and_inode(tmp_path: Path) -> None:
    with (tmp_path / "one").open("w") as one, (tmp_path / "two").open("w") as two:
        found = os.fstat(one.fileno())
        named = f"{found.st_dev}:{found.st_ino}"
        assert journal.is_journal(one, named)
        assert not journal.is_journal(two, named)
        assert not journal.is_journal(one, "")
    assert not journal.is_journal(one, named)
    assert not journal.is_journal(None, named)
