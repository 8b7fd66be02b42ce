"""A line that breaks while mail is being sent, with a record kept on the server: each message arrives once, and none is
uncertain."""

import asyncio
import contextlib
import os
import random
import re
import signal
import smtplib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from harness.daemon_process import Relay
from harness.processes import until
from harness.proof import PATIENCE, Bench, MailServer, bench, know
from harness.sshd import Sshd

from mailrelay.demo.mailserver import EXTENSIONS
from mailrelay.spool.database import connect, rows

OFFERS = {"pipelining": EXTENSIONS, "chunking": (*EXTENSIONS, b"CHUNKING")}


@pytest.fixture(params=OFFERS)
async def at(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    know(tmp_path / "spool")
    far = Sshd(tmp_path / "far")
    far.start()
    try:
        async with bench(tmp_path, far, MailServer(OFFERS[request.param])) as made:
            yield made
    finally:
        far.stop()


@pytest.mark.parametrize("seed", range(int(os.environ.get("MAILRELAY_CUTS", "3"))))
async def test_after_a_cut_every_message_arrives_once(at: Bench, seed: int) -> None:
    chance = random.Random(seed)
    at.server.pause = 0.002
    contents = await at.accept(60)
    for left in sorted(chance.sample(range(5, 55), 3), reverse=True):
        await at.until("state != 'sent'", left)
        at.cut()
    await at.until("state != 'sent'")
    assert {content.rpartition(b"\r\n\r\n")[2] for content in at.server.taken} == contents
    assert set(at.server.taken.values()) == {1}
    assert at.db.execute("SELECT count(*) FROM recipient WHERE uncertain IS NOT NULL").get == 0


@pytest.mark.parametrize("seed", range(int(os.environ.get("MAILRELAY_CUTS", "2"))))
async def test_after_a_kill_of_the_daemon_no_message_arrives_twice_without_a_mark(tmp_path: Path, seed: int) -> None:
    """Where a reply stands is written beside the message, not before it: only the messages whose place was not written at a
    kill may be in doubt."""
    chance = random.Random(seed)
    far = Sshd(tmp_path / "far")
    far.start()
    server = MailServer(OFFERS["chunking"])
    server.pause = 0.005
    without_place: set[str] = set()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        relay = Relay(
            tmp_path / "relay",
            far.ssh_config,
            listening.sockets[0].getsockname()[1],
            answer_within="0s",
            retry=["1h"],
        )
        know(relay.directory / "spool")
        try:
            await asyncio.to_thread(relay.start)
            await asyncio.to_thread(submit, relay.port, 60)
            for left in sorted(chance.sample(range(5, 55), 3), reverse=True):
                async with asyncio.timeout(PATIENCE):
                    while sum(server.taken.values()) < 60 - left:
                        await asyncio.sleep(0.002)
                await asyncio.to_thread(relay.kill)
                without_place |= begun_without_place(relay.directory / "spool")
                await asyncio.to_thread(relay.start)
            messages = await asyncio.to_thread(all_sent, relay)
        finally:
            await asyncio.to_thread(relay.stop)
            far.stop()
    doubtful = {message["queue_id"] for message in messages if message["recipients"][0]["uncertain"]}
    numbers = {message["subject"]: message["queue_id"] for message in messages}
    twice = {numbers[number_in(content)] for content, times in server.taken.items() if times > 1}
    assert {number_in(content) for content in server.taken} == set(numbers)
    assert twice <= doubtful, relay.account()
    assert doubtful <= without_place, relay.account()


def begun_without_place(spool: Path) -> set[str]:
    """The queue ids of messages that are being sent, and of which the spool does not know where the reply will stand."""
    with contextlib.closing(connect(spool, create=False)) as db:
        found = rows(
            db,
            "SELECT queue_id FROM message JOIN attempt ON message = message.id"
            " WHERE closed IS NULL AND NOT EXISTS (SELECT 1 FROM exchange WHERE attempt = attempt.id)",
        )
        return {queue_id for (queue_id,) in found}


def submit(port: int, count: int) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        for number in range(count):
            client.sendmail("a@example.org", ["b@example.net"], f"Subject: number {number}\r\n\r\nhello\r\n")


def all_sent(relay: Relay) -> list[dict[str, Any]]:
    """All messages, once each is sent."""

    def listed() -> list[dict[str, Any]]:
        found = relay.queue("--all")
        return found if all(one["recipients"][0]["state"] == "sent" for one in found) else []

    return until(listed, "all messages are sent")


def number_in(content: bytes) -> str:
    found = re.search(rb"^Subject: (.*)\r$", content, re.MULTILINE)
    assert found is not None
    return found[1].decode()


async def test_messages_of_a_recorder_that_was_killed_are_in_doubt_where_the_mail_server_may_have_them(
    at: Bench,
) -> None:
    at.server.pause = 0.01
    contents = await at.accept(60)
    await at.until("state != 'sent'", 50)
    for recorder in at.recorders():
        os.kill(recorder, signal.SIGKILL)
    await at.until("state NOT IN ('sent', 'deferred')")
    at.db.execute("UPDATE message SET next_attempt = 0 WHERE next_attempt IS NOT NULL")
    at.scheduler.look_again()
    await at.until("state != 'sent'")
    assert {content.rpartition(b"\r\n\r\n")[2] for content in at.server.taken} == contents
    uncertain = at.db.execute("SELECT count(*) FROM recipient WHERE uncertain IS NOT NULL").get
    assert sum(times > 1 for times in at.server.taken.values()) <= uncertain
    assert max(at.server.taken.values()) <= 2
