"""A daemon that waits for mail has loaded nothing that it does not wait with, and loading the rest does not hold it up."""

import asyncio
import importlib
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mailrelay import lazy
from mailrelay.config import Notify
from mailrelay.mail.notice import Backend, Kind, Notice, PendingNotice
from mailrelay.notify.backend import Deliver
from mailrelay.notify.notifier import Notifier

HEAVY = {"asyncssh", "cryptography", "desktop_notifier", "apprise", "tempfile", "mailrelay.mail.dsn"}


def test_the_daemon_starts_without_what_only_mail_or_bad_news_will_need() -> None:
    program = "import sys, mailrelay.cli.serve; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())


def test_every_late_import_finds_what_it_names() -> None:
    loads = [load for name, load in vars(lazy).items() if getattr(load, "__module__", "") == lazy.__name__]
    assert len(loads) == 6
    assert all(callable(load()) for load in loads)


class FakeSpool:
    """A spool with one notice for the command backend, until it is delivered."""

    def __init__(self) -> None:
        notice = Notice(1, Kind.FAILED, "default", 0.0)
        self.due: list[PendingNotice] = [PendingNotice(notice, Backend.COMMAND, 0)]
        self.failures: list[str] = []
        self.changed = asyncio.Event()

    async def update_delays(self, *_: object) -> None:
        return None

    async def pending_notices(self) -> list[PendingNotice]:
        return self.due

    async def next_notice_due(self) -> None:
        return None

    async def notice_delivered(self, pending: PendingNotice) -> None:
        self.due.remove(pending)
        self.changed.set()

    async def notice_failed(self, _pending: PendingNotice, _next_try: float, why: str) -> None:
        self.failures.append(why)
        self.changed.set()


@asynccontextmanager
async def notifies_with(loaders: Any) -> AsyncIterator[tuple[FakeSpool, Notifier]]:
    """A notifier that runs, and its spool."""
    spool: Any = FakeSpool()
    one = Notifier(Notify(desktop=False, dsn=False, command=("true",)), spool, 900.0, loaders)
    running = asyncio.create_task(one.run())
    yield spool, one
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


def backend_of(module: ModuleType) -> Callable[[Sequence[str]], Deliver]:
    async def deliver(_: Sequence[Notice]) -> None:
        assert module

    return lambda _: deliver


async def test_the_loop_goes_on_while_a_module_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_to_load.py").write_text(
        "import threading\nthreading.begun.set()\nif not threading.went_on.wait(20): raise ImportError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    begun, went_on = threading.Event(), threading.Event()
    monkeypatch.setattr(threading, "begun", begun, raising=False)
    monkeypatch.setattr(threading, "went_on", went_on, raising=False)

    loaders = SimpleNamespace(command=lambda: backend_of(importlib.import_module("slow_to_load")))
    async with notifies_with(loaders) as (spool, _):
        await asyncio.to_thread(begun.wait, 20)
        # The module waits for this, and this for the loop.
        went_on.set()
        await spool.changed.wait()
        assert (spool.due, spool.failures) == ([], [])


async def test_what_could_not_be_loaded_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    loaders = SimpleNamespace(command=lambda: backend_of(importlib.import_module("not_there_yet")))
    async with notifies_with(loaders) as (spool, one):
        await spool.changed.wait()
        assert spool.failures == ["ModuleNotFoundError: No module named 'not_there_yet'"]
        (tmp_path / "not_there_yet.py").write_text("")
        importlib.invalidate_caches()
        spool.changed.clear()
        one.wake()
        await spool.changed.wait()
        assert spool.due == []
