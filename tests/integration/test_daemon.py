"""The whole daemon in one process: what it does at its start and at its end, and with more than one relayhost."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from harness.daemon import served, settings, stopping_at_content, submit
from harness.messages import LIMIT, NO_SUCH_USER, NOW, ending, letter
from harness.processes import PATIENCE

from mailrelay.demo.remote import Remote
from mailrelay.mail.lifecycle import Act, State
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.record import NewNotice
from mailrelay.mail.spool_errors import NotAllowed
from mailrelay.spool import accepting, actions, attempts, ballast, listing, notice_lifecycle, notices, trigger
from mailrelay.spool.database import connect, transaction

UNREADABLE = Outcome(Stage.CONTENT, cause=Cause.UNREADABLE, text="torn")


def states(directory: Path) -> list[str]:
    db = connect(directory)
    try:
        return [to.state for one in listing.everything(db) for to in one.recipients]
    finally:
        db.close()


async def refused(port: int) -> None:
    """Waits until nothing listens on the port: the daemon has begun to stop."""
    with suppress(ConnectionError):
        while True:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.transport.abort()


def accepted_by_hand(directory: Path, relayhost: str) -> int:
    """A message in the spool, as `mailrelay sendmail` leaves it there while no daemon runs."""
    db = connect(directory)
    try:
        with transaction(db):
            return accepting.accept(db, letter(at=time.time(), relayhost=relayhost), LIMIT)
    finally:
        db.close()


async def test_a_client_that_waits_when_the_daemon_is_stopped_gets_the_remotes_word(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    async with (
        Remote(tmp_path / "remote") as remote,
        served(settings(tmp_path, remote.relayhost())) as (port, daemon),
    ):
        reached, go_on = stopping_at_content(remote)
        client = asyncio.create_task(asyncio.to_thread(submit, port))
        await reached.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await refused(port)
        go_on.set()
        code, text = await client
        assert (code, b" sent: " in text) == (250, True)
        await daemon
        assert states(tmp_path / "spool") == ["sent"]


async def test_mail_that_is_being_sent_when_the_daemon_is_stopped_need_not_be_sent_twice(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    for _ in range(20):
        accepted_by_hand(tmp_path / "spool", "default")
    async with Remote(tmp_path / "remote") as remote:
        reached, go_on = stopping_at_content(remote)
        async with served(settings(tmp_path, remote.relayhost("default"))) as (port, daemon):
            await reached.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            await refused(port)
            go_on.set()
            await daemon
        assert states(tmp_path / "spool").count("sent") == len(remote.received) > 0
        db = connect(tmp_path / "spool")
        assert not any(to.uncertain for one in listing.everything(db) for to in one.recipients)
        assert db.execute("SELECT count(*) FROM attempt WHERE closed IS NULL").get == 0
        db.close()


async def test_a_relayhost_out_of_reach_delays_no_mail_of_another(tmp_path: Path) -> None:
    (tmp_path / "near").mkdir()
    (tmp_path / "far").mkdir()
    async with Remote(tmp_path / "near") as near, Remote(tmp_path / "far") as far:
        await far.mute()
        ways = near.relayhost("near"), far.relayhost("far", senders=("far@example.org",))
        async with served(settings(tmp_path, *ways)) as (port, _):
            waiting = asyncio.create_task(asyncio.to_thread(submit, port, "far@example.org"))
            code, text = await asyncio.to_thread(submit, port)
            assert (code, b" sent: " in text) == (250, True)
            code, text = await waiting
            assert (code, b" queued" in text) == (250, True)


async def test_mail_whose_relayhost_has_left_the_settings_goes_the_way_that_its_sender_goes_now(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    accepted_by_hand(tmp_path / "spool", "old name")
    async with Remote(tmp_path / "remote") as remote:
        async with served(settings(tmp_path, remote.relayhost("new name"))):
            await remote.arrived(1)
        assert states(tmp_path / "spool") == ["sent"]


async def test_a_disk_that_has_no_room_for_ballast_does_not_keep_the_daemon_from_serving(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    (tmp_path / "spool").mkdir(mode=0o700)
    (tmp_path / "spool" / ballast.FILE).symlink_to(tmp_path / "nowhere" / "ballast")
    async with (
        Remote(tmp_path / "remote") as remote,
        served(settings(tmp_path, remote.relayhost())) as (port, _),
    ):
        assert (await asyncio.to_thread(submit, port))[0] == 250


async def test_what_the_person_does_to_mail_that_is_being_sent_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    async with (
        Remote(tmp_path / "remote") as remote,
        served(settings(tmp_path, remote.relayhost())) as (port, _),
    ):
        reached, go_on = stopping_at_content(remote)
        client = asyncio.create_task(asyncio.to_thread(submit, port))
        await reached.wait()
        db = connect(tmp_path / "spool")
        (active,) = listing.live(db)
        refusals = 0
        for what in Act:
            try:
                with transaction(db):
                    actions.act(db, active.id, active.queue_id, what, time.time())
            except NotAllowed:
                refusals += 1
        db.close()
        assert refusals == len(Act)
        go_on.set()
        assert (await client)[0] == 250
        await remote.arrived(1)


def test_the_person_who_drops_failed_mail_still_hears_of_what_is_held(tmp_path: Path) -> None:
    db = connect(tmp_path / "spool")
    with transaction(db):
        key = accepting.accept(db, letter(b"gone@example.net", b"held@example.net"), LIMIT)
        (message,) = attempts.take(db, "default", [], 1, "test", NOW)
        states = {State.BOUNCED: NO_SUCH_USER, State.HELD: UNREADABLE}
        attempts.record(db, ending(key, message.recipient_ids, states, backends=(Backend.MAILBOX,)), "test")
        notice_lifecycle.add_notice(db, key, NewNotice(Kind.HELD, message.recipient_ids[1:], (Backend.MAILBOX,)), NOW)
        actions.act(db, key, message.queue_id, Act.DROP, NOW)
    assert [one.notice.kind for one in notices.pending_notices(db, NOW)] == [Kind.HELD]
    db.close()


def test_a_backend_that_nobody_serves_hides_no_other_however_much_is_owed_by_it(tmp_path: Path) -> None:
    db = connect(tmp_path / "spool")
    with transaction(db):
        for _ in range(notices.BATCH + 10):
            key = accepting.accept(db, letter(), LIMIT)
            to = db.execute("SELECT id FROM recipient WHERE message = ?", (key,)).get
            notice_lifecycle.add_notice(db, key, NewNotice(Kind.FAILED, (to,), (Backend.DESKTOP,)), NOW)
        notice_lifecycle.add_notice(db, key, NewNotice(Kind.FAILED, (to,), (Backend.DSN,)), NOW + 1)
    assert Backend.DSN in {one.backend for one in notices.pending_notices(db, NOW + 2)}
    db.close()


async def test_what_waits_for_a_way_leaves_when_a_hook_says_that_the_network_has_changed(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    async with Remote(tmp_path / "remote") as remote:
        right = remote.ssh_config.read_text()
        remote.ssh_config.write_text(right.replace("HostName 127.0.0.1", "HostName nowhere.invalid"))
        chosen = settings(tmp_path, remote.relayhost(name="default"))
        async with served(chosen) as (port, _):
            reply = await asyncio.to_thread(submit, port)
            assert b"There is no host with the name" in reply[1]
            remote.ssh_config.write_text(right)
            assert trigger.fire(chosen.queue.directory, trigger.NETWORK)
            await remote.arrived(1)


async def test_a_trigger_that_was_removed_is_made_again_and_mail_meanwhile_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrelay.daemon.TRIGGER_LOOK", 0.05)
    (tmp_path / "remote").mkdir()
    spool = tmp_path / "spool"
    async with (
        Remote(tmp_path / "remote") as remote,
        served(settings(tmp_path, remote.relayhost())),
        asyncio.timeout(PATIENCE),
    ):
        for number in (1, 2):
            (spool / trigger.FILE).unlink()
            accepted_by_hand(spool, "demo")
            while len(remote.received) < number or not trigger.is_listened_to(spool):
                await asyncio.sleep(0.01)
