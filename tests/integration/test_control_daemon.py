"""What a command finds out about the daemon, and how it wakes it: the lock and the trigger of a spool."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from mailrelay.control import daemon
from mailrelay.spool import lock, trigger

OURS = str(os.getpid())


@pytest.mark.parametrize(
    ("runs", "is_listened_to", "pid", "is_served", "is_asleep"),
    [
        (False, False, None, False, False),
        (False, True, None, True, True),
        (True, True, OURS, True, False),
        # A daemon that has just begun to start.
        (True, False, OURS, True, False),
    ],
    ids=["neither", "asleep", "runs", "starts"],
)
def test_a_daemon_runs_or_is_asleep_or_neither(
    tmp_path: Path, runs: bool, is_listened_to: bool, pid: str | None, is_served: bool, is_asleep: bool
) -> None:
    with ExitStack() as stack:
        if runs:
            stack.enter_context(lock.lock(tmp_path))
        if is_listened_to:
            stack.callback(os.close, trigger.listen(tmp_path))
        assert daemon.daemon_pid(tmp_path) == pid
        assert (daemon.is_served(tmp_path), daemon.is_asleep(tmp_path)) == (is_served, is_asleep)


@pytest.mark.parametrize(
    ("tell", "heard"), [(daemon.wake, trigger.LOOK), (daemon.report_network_change, trigger.NETWORK)]
)
def test_who_wakes_a_daemon_learns_whether_one_hears_it(
    tmp_path: Path, tell: Callable[[Path], bool], heard: bytes
) -> None:
    assert not tell(tmp_path)
    handle = trigger.listen(tmp_path)
    try:
        assert tell(tmp_path)
        assert trigger.drain(handle) == heard
    finally:
        os.close(handle)
    assert not tell(tmp_path)
