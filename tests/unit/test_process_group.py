"""A signal reaches a child and the processes that it started, and no process that has its number later."""

import os
import signal
import subprocess
from types import SimpleNamespace

import pytest

from mailrelay.process_group import signal_group


def test_the_children_of_the_child_get_the_signal_too() -> None:
    with subprocess.Popen(
        ["sh", "-c", "sleep 3600 & echo started; wait"], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        signal_group(process, signal.SIGKILL)
        # Both have it open: it ends with the last of them.
        assert process.stdout.read() == b""
        assert process.wait() == -signal.SIGKILL
        # All of them have ended.
        signal_group(SimpleNamespace(pid=process.pid, returncode=None), signal.SIGKILL)


def test_a_child_that_is_known_to_have_ended_gets_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(pid: int, number: int) -> None:
        raise AssertionError("a signal was sent")

    monkeypatch.setattr(os, "killpg", never)
    signal_group(SimpleNamespace(pid=1, returncode=0), signal.SIGKILL)
