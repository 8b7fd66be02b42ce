"""What a reload does to a relayhost that it changes: to its messages in progress, and to its known fault."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from harness.daemon import settings, stopping_at_content, submit
from harness.processes import PATIENCE

from mailrelay import daemon
from mailrelay.config import Settings
from mailrelay.demo.remote import Remote
from mailrelay.endpoint import Endpoint, Tcp
from mailrelay.spool import attempts, listing
from mailrelay.spool.database import connect

LATER = 20.0
"""Seconds: longer than any grace of the daemon."""


@asynccontextmanager
async def reloadable(first: Settings, then: Settings) -> AsyncIterator[int]:
    """A daemon that is ready, and that finds other settings when it gets SIGHUP. The port on which it listens."""
    umask = os.umask(0o077)
    listening: asyncio.Future[list[Endpoint]] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(daemon.serve(first, listening.set_result, lambda: then))
    try:
        address = (await asyncio.wait_for(listening, PATIENCE))[0]
        assert isinstance(address, Tcp)
        yield address.port
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        os.umask(umask)


async def reload(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    os.kill(os.getpid(), signal.SIGHUP)
    async with asyncio.timeout(PATIENCE):
        while "has the settings of the file now" not in caplog.text:
            await asyncio.sleep(0.01)


def recipients(directory: Path) -> list[tuple[str, float | None]]:
    """The state of each recipient in the spool, and when it became uncertain."""
    db = connect(directory)
    try:
        return [(to.state, to.uncertain) for one in listing.everything(db) for to in one.recipients]
    finally:
        db.close()


async def test_a_message_at_its_final_dot_is_not_cut_off_however_long_the_reply_takes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "remote").mkdir()
    async with Remote(tmp_path / "remote") as remote:
        reached, go_on = stopping_at_content(remote)
        first = settings(tmp_path, remote.relayhost())
        async with reloadable(first, settings(tmp_path, remote.relayhost(linger=1.0))) as port:
            client = asyncio.create_task(asyncio.to_thread(submit, port))
            await reached.wait()
            await reload(caplog)
            loop = asyncio.get_running_loop()
            time = loop.time
            monkeypatch.setattr(loop, "time", lambda: time() + LATER)
            # The client has waited for the reply long enough.
            assert (await client)[0] == 250
            go_on.set()
            async with asyncio.timeout(2 * LATER):
                while [state for state, _ in recipients(tmp_path / "spool")] != ["sent"]:
                    await asyncio.sleep(0.01)
        assert recipients(tmp_path / "spool") == [("sent", None)]
        assert len(remote.received) == 1


async def test_a_fault_of_the_old_settings_does_not_delay_mail_with_the_new_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "remote").mkdir()
    async with Remote(tmp_path / "remote") as remote:
        wrong = remote.relayhost(smtp=Tcp("localhost", 1))
        first = settings(tmp_path, wrong)
        async with reloadable(first, settings(tmp_path, remote.relayhost())) as port:
            reply = await asyncio.to_thread(submit, port)
            assert b"queued" in reply[1]
            await reload(caplog)
            async with asyncio.timeout(PATIENCE):
                while not remote.received:
                    await asyncio.sleep(0.01)


async def test_mail_of_a_relayhost_that_was_removed_is_sent_once_a_full_disk_has_space_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "remote").mkdir()
    reroute, left = attempts.reroute, [*range(8)]

    def full_at_first(*arguments: Any) -> tuple[int, int]:
        if left:
            left.pop()
            raise apsw.FullError("database or disk is full")
        return reroute(*arguments)

    monkeypatch.setattr("mailrelay.health.SETTLE", 0.01)
    async with Remote(tmp_path / "remote") as remote:
        first = settings(tmp_path, remote.relayhost("old", smtp=Tcp("localhost", 1)))
        async with reloadable(first, settings(tmp_path, remote.relayhost("new"))) as port:
            await asyncio.to_thread(submit, port)
            monkeypatch.setattr(attempts, "reroute", full_at_first)
            await reload(caplog)
            async with asyncio.timeout(PATIENCE):
                while not remote.received:
                    await asyncio.sleep(0.01)
    assert not left


async def test_a_reload_leaves_known_which_fallback_sends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "remote").mkdir()
    async with Remote(tmp_path / "remote") as remote:
        away = remote.relayhost(name="away", smtp=Tcp("localhost", 1), fallback=("backup",))
        first = settings(tmp_path, away, remote.relayhost(name="backup"))
        then = first._replace(queue=first.queue._replace(keep_sent=1.0))
        async with reloadable(first, then) as port:
            db = connect(tmp_path / "spool")
            for number in (1, 2):
                assert (await asyncio.to_thread(submit, port))[0] == 250
                async with asyncio.timeout(PATIENCE):
                    while [fault.stand_in for fault in listing.status(db).faults] != ["backup"]:
                        await asyncio.sleep(0.01)
                if number == 1:
                    await reload(caplog)
            db.close()
