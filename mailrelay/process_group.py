"""Signals to a process and to all processes that it started, for children that lead a session of their own."""

import contextlib
import os
import signal
from typing import Protocol


class Leader(Protocol):
    """A child started with `start_new_session=True`: subprocess.Popen or asyncio.subprocess.Process."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...


def signal_group(leader: Leader, number: signal.Signals) -> None:
    """Sends a signal to the process group of `leader`. Does nothing if the leader is known to have ended: its process id may
    then belong to another process."""
    if leader.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, number)
