"""The spool breaks under the daemon: what its clients hear, what is still sent, and how it ends."""

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from harness.daemon import served, settings, stopping_at_content, submit
from harness.messages import LIMIT, letter

from mailrelay.config import Settings
from mailrelay.demo.remote import Remote
from mailrelay.mail.spool_errors import SpoolBroken
from mailrelay.spool import accepting, stored
from mailrelay.spool.database import FILE, connect, transaction


@asynccontextmanager
async def remote_and_settings(tmp_path: Path) -> AsyncIterator[tuple[Remote, Settings]]:
    (tmp_path / "remote").mkdir()
    async with Remote(tmp_path / "remote") as remote:
        yield remote, settings(tmp_path, remote.relayhost("default"))


def remove(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "spool")
    (tmp_path / "spool").mkdir(mode=0o700)


def wait_in_spool(tmp_path: Path, count: int) -> None:
    db = connect(tmp_path / "spool")
    with transaction(db):
        for _ in range(count):
            accepting.accept(db, letter(), LIMIT)
    db.close()


async def test_a_client_that_waits_when_the_spool_is_removed_is_not_told_that_its_message_is_safe(
    tmp_path: Path,
) -> None:
    async with remote_and_settings(tmp_path) as (remote, all_settings), served(all_settings) as (port, daemon):
        reached, _ = stopping_at_content(remote)
        client = asyncio.create_task(asyncio.to_thread(submit, port))
        await reached.wait()
        remove(tmp_path)
        assert (await client)[0] == 451
        with pytest.raises(SpoolBroken, match="was removed"):
            await daemon


async def test_a_client_whose_message_the_mail_server_takes_meanwhile_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrelay.relay.conversations.LAST_REPLIES", 10.0)
    monkeypatch.setattr("mailrelay.daemon.BROKEN_GRACE", 10.0)
    async with remote_and_settings(tmp_path) as (remote, all_settings), served(all_settings) as (port, daemon):
        reached, go_on = stopping_at_content(remote)
        client = asyncio.create_task(asyncio.to_thread(submit, port))
        await reached.wait()
        (tmp_path / "spool" / FILE).unlink()
        # Refused at once, although the end waits for the mail server.
        while (await asyncio.to_thread(refused_or_closed, port)) is False:
            pass
        go_on.set()
        code, text = await client
        assert (code, b" sent: " in text) == (250, True)
        with pytest.raises(SpoolBroken):
            await daemon


def refused_or_closed(port: int) -> bool:
    # A daemon that is ending may leave a client that has just connected without a greeting.
    try:
        return submit(port, timeout=2)[0] == 451
    except Exception:
        return True


async def test_messages_that_are_not_begun_when_the_spool_breaks_are_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_in_spool(tmp_path, 40)
    async with remote_and_settings(tmp_path) as (remote, all_settings):
        reached, go_on = stopping_at_content(remote)
        async with served(all_settings) as (_, daemon):
            await reached.wait()
            sent = len(remote.received)
            (tmp_path / "spool" / FILE).unlink()
            go_on.set()
            with pytest.raises(SpoolBroken):
                await daemon
        # What was in flight on the channels that were open, of 40.
        assert len(remote.received) - sent <= 16


async def test_a_content_that_is_not_sent_whole_when_the_spool_breaks_does_not_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = connect(tmp_path / "spool")
    with transaction(db):
        accepting.accept(db, letter(content=b"x" * 70 + b"\r\n" + b"y" * 70 + b"\r\n" * 200_000), LIMIT)
    db.close()
    piece, broken = stored.piece, False

    def removed_meanwhile(db: object, message: int, seq: int) -> tuple[bytes, bool] | None:
        nonlocal broken
        if seq == 3 and not broken:
            broken = True
            (tmp_path / "spool" / FILE).unlink()
            # As a read of it that fails.
            raise SpoolBroken("removed")
        return piece(db, message, seq)  # type: ignore[arg-type]

    monkeypatch.setattr(stored, "piece", removed_meanwhile)
    async with remote_and_settings(tmp_path) as (remote, all_settings):
        async with served(all_settings) as (_, daemon):
            with pytest.raises(SpoolBroken, match="removed"):
                await daemon
        assert remote.received == []


async def test_the_end_of_a_broken_spool_is_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wait_in_spool(tmp_path, 40)
    async with remote_and_settings(tmp_path) as (remote, all_settings):
        reached, _ = stopping_at_content(remote)
        caplog.set_level(logging.WARNING)
        async with served(all_settings) as (port, daemon):
            await reached.wait()
            clients = [asyncio.create_task(asyncio.to_thread(refused_or_closed, port)) for _ in range(10)]
            await asyncio.sleep(0)
            (tmp_path / "spool" / FILE).unlink()
            with pytest.raises(SpoolBroken):
                await daemon
            assert await asyncio.gather(*clients) == [True] * 10
    # The listener logs each client that it refuses, up to a limit.
    lines = [one for one in caplog.records if one.name.startswith("mailrelay") and one.name != "mailrelay.listener"]
    assert [one.getMessage() for one in lines] == [
        f"the spool in {tmp_path / 'spool'} is not what it was: spool.db was removed or moved;"
        " see what has changed it; mailrelay ends"
    ]


async def test_a_trigger_that_cannot_be_made_does_not_end_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrelay.daemon.TRIGGER_RETRY", 0.01)
    tried = asyncio.Event()

    def no_space(*_arguments: object) -> None:
        tried.set()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.mkfifo", no_space)
        async with remote_and_settings(tmp_path) as (remote, all_settings), served(all_settings) as (port, _):
            await tried.wait()
            assert (await asyncio.to_thread(submit, port))[0] == 250
            wait_in_spool(tmp_path, 1)
            disk.undo()
            # It looks by itself once there is a trigger.
            await remote.arrived(2)


async def test_a_spool_that_breaks_while_the_daemon_stops_is_not_called_a_good_end(tmp_path: Path) -> None:
    async with remote_and_settings(tmp_path) as (remote, all_settings), served(all_settings) as (port, daemon):
        reached, _ = stopping_at_content(remote)
        client = asyncio.create_task(asyncio.to_thread(refused_or_closed, port))
        await reached.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        (tmp_path / "spool" / FILE).unlink()
        with pytest.raises(SpoolBroken):
            await daemon
        await client
