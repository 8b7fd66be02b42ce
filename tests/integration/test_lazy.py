"""A daemon that waits for mail has loaded nothing that it does not wait with, and loading the rest does not hold it up."""

import asyncio
import importlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mailrelay import lazy

HEAVY = {"asyncssh", "cryptography", "desktop_notifier", "apprise", "rich", "tempfile", "mailrelay.mail.dsn"}


def test_the_daemon_starts_without_what_only_mail_or_bad_news_will_need() -> None:
    program = "import sys, mailrelay.cli.serve; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())


async def test_the_loop_goes_on_while_a_module_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_to_load.py").write_text("import threading\nloaded = threading.went_on.wait(20)\n")
    monkeypatch.syspath_prepend(tmp_path)
    went_on = threading.Event()
    monkeypatch.setattr(threading, "went_on", went_on, raising=False)

    loading = asyncio.create_task(lazy.load("slow_to_load"))
    await asyncio.sleep(0)
    # The module waits for this, and this for the loop.
    went_on.set()
    assert (await loading).loaded


async def test_what_could_not_be_loaded_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ImportError):
        await lazy.load("not_there_yet")
    (tmp_path / "not_there_yet.py").write_text("")
    importlib.invalidate_caches()
    await lazy.load("not_there_yet")
