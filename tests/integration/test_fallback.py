"""A fallback sends the mail of a relayhost that cannot be reached, and nothing is sent twice."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from harness.messages import LIMIT, letter
from harness.relay import PATIENCE, HeldContent, Network

from mailrelay.config import Relayhost
from mailrelay.demo.remote import Remote
from mailrelay.intake import Intake
from mailrelay.mail.completion import NOTHING_KNOWN
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.overview import Listed
from mailrelay.relay import dial_policy
from mailrelay.relay.fallback import Group
from mailrelay.relay.scheduler import Scheduler
from mailrelay.spool import actions, attempts, listing, notice_lifecycle, notices
from mailrelay.spool.accepting import accept
from mailrelay.spool.database import connect, transaction
from mailrelay.spool.spool import Spool

NAMES = ("first", "second", "third")


class Both:
    """Schedulers of relayhosts, of which the first one has the others as fallbacks, with a remote for each."""

    def __init__(self, tmp_path: Path, relayhosts: list[Relayhost], remotes: list[Remote]) -> None:
        self.remotes = remotes
        self.network = Network()
        self.spool = Spool(tmp_path / "spool", LIMIT, lambda _name: None)
        self.db: apsw.Connection = connect(tmp_path / "spool")
        policy = RetryPolicy((3600.0,), 432_000.0, lambda kind, sender, notify: (Backend.MAILBOX,))
        self.schedulers: dict[str, Scheduler] = {}
        group = Group(self.schedulers)
        for one in relayhosts:
            self.schedulers[one.name] = Scheduler(one, self.spool, self.network.dial, policy, lambda: None, group=group)
        self.intake = Intake(relayhosts, self.schedulers, self.spool, lambda: None, 8.0)
        self._running: list[asyncio.Future[None]] = []

    def start(self) -> None:
        self._running = [asyncio.ensure_future(one.run()) for one in self.schedulers.values()]

    async def stop(self) -> None:
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def send(self) -> int:
        key = await self.spool.accept(replace(letter(at=time.time()), relayhost="first"))
        self.schedulers["first"].message_arrived(key)
        return key

    def message(self, key: int) -> Listed:
        return listing.one(self.db, key)

    async def until(self, holds: Callable[[], bool | Awaitable[bool]]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not (await answer if isinstance(answer := holds(), Awaitable) else answer):
                await asyncio.sleep(0.01)

    async def until_retried(self, holds: Callable[[], bool]) -> None:
        """Waits, while the person wants all mail to be tried again: a dial that was under way may have failed since."""
        async with asyncio.timeout(PATIENCE):
            while not holds():
                actions.retry_all(self.db, time.time())
                for scheduler in self.schedulers.values():
                    scheduler.look_again()
                await asyncio.sleep(0.05)

    async def sent_by(self, key: int, relayhost: str) -> None:
        await self.until(lambda: self.message(key).recipients[0].state == "sent")
        message = self.message(key)
        assert message.relayhost == relayhost
        assert message.fallback_for == ("" if relayhost == "first" else "first")

    def faults(self) -> dict[str, str]:
        return {fault.relayhost: fault.stand_in for fault in listing.status(self.db).faults}

    def counts(self) -> list[int]:
        return [len(remote.received) for remote in self.remotes]


@asynccontextmanager
async def running(tmp_path: Path, count: int = 2) -> AsyncIterator[Both]:
    """Relayhosts with their remotes up; their schedulers do not run yet."""
    remotes = []
    for name in NAMES[:count]:
        (tmp_path / name).mkdir()
        remotes.append(Remote(tmp_path / name))
        await remotes[-1].__aenter__()
    relayhosts = [
        remote.relayhost(name=name, fallback=NAMES[1:count] if name == "first" else ())
        for name, remote in zip(NAMES, remotes, strict=False)
    ]
    both = Both(tmp_path, relayhosts, remotes)
    try:
        yield both
    finally:
        await both.stop()
        for remote in remotes:
            await remote.down()
        both.db.close()
        both.spool.close()


@pytest.fixture(autouse=True)
def dials_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_policy, "EARLY_DIAL_WAIT", 0.0)


async def test_a_fallback_takes_over_and_gives_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(tmp_path) as at:
        first, _second = at.remotes
        await first.down()
        at.start()
        await at.sent_by(await at.send(), "second")
        await at.sent_by(await at.send(), "second")
        assert at.faults() == {"first": "second"}
        assert "relay=first cannot be reached: second sends its mail until it can" in caplog.messages
        assert any("relay=second" in line and "status=sent" in line for line in caplog.messages)
        await first.up()
        await at.until_retried(lambda: not at.faults())
        await at.sent_by(await at.send(), "first")
        assert "relay=first can be reached again: it sends its mail itself" in caplog.messages
        assert at.counts() == [1, 2]
        assert [event.relayhost for event in listing.events(at.db, 1) if event.what == "attempt"] == ["second"]


async def test_the_relayhost_is_dialled_again_without_mail(tmp_path: Path) -> None:
    async with running(tmp_path) as at:
        first, _second = at.remotes
        await first.down()
        at.start()
        await at.sent_by(await at.send(), "second")
        await first.up()
        await at.until(lambda: bool(at.faults()))
        await at.until_retried(lambda: not at.faults())
        assert first.logins == 1


async def test_a_mail_server_that_is_down_is_replaced_and_the_notice_names_the_fallback(tmp_path: Path) -> None:
    async with running(tmp_path) as at:
        await at.remotes[0].mail_down()
        at.start()
        await at.sent_by(await at.send(), "second")
        (pending,) = notices.pending_notices(at.db, time.time() + 1)
        assert (pending.notice.kind, pending.notice.relayhost, pending.notice.stand_in) == (
            Kind.SETUP,
            "first",
            "second",
        )


async def test_a_refusal_of_the_message_is_no_reason_for_a_fallback(tmp_path: Path) -> None:
    async with running(tmp_path) as at:

        async def greylist(verb: str, _argument: bytes) -> bytes | None:
            return b"451 4.7.1 come back later" if verb == "RCPT" else None

        at.remotes[0].policy = greylist
        at.start()
        key = await at.send()
        await at.until(lambda: at.message(key).recipients[0].state == "deferred")
        await at.remotes[0].down()
        assert at.message(key).relayhost == "first"
        assert at.counts() == [0, 0]


async def test_a_mail_server_that_refuses_mailrelay_at_mail_was_reached(tmp_path: Path) -> None:
    async with running(tmp_path) as at:

        async def login_wanted(verb: str, _argument: bytes) -> bytes | None:
            return b"530 5.7.0 Authentication required" if verb == "MAIL" else None

        at.remotes[0].policy = login_wanted
        at.start()
        await at.send()
        await at.until(lambda: at.faults() == {"first": ""})
        assert not at.schedulers["first"].is_unreachable
        assert at.counts() == [0, 0]


async def test_with_all_down_mail_waits_with_one_notice_and_the_first_that_is_back_sends_it(tmp_path: Path) -> None:
    async with running(tmp_path) as at:
        at.network.is_away = True
        at.start()
        key = await at.send()
        await at.until(lambda: at.faults() == {"first": "", "second": ""})
        message = at.message(key)
        assert (message.relayhost, message.recipients[0].state, message.attempts) == ("first", "queued", 0)
        with transaction(at.db):
            notice_lifecycle.update_delays(at.db, 900.0, (Backend.MAILBOX,), time.time() + 1000)
        (pending,) = notices.pending_notices(at.db, time.time() + 2000)
        assert (pending.notice.kind, pending.notice.relayhost, pending.notice.waiting) == (Kind.DELAYED, "first", 1)
        at.network.is_away = False
        await at.remotes[0].down()
        await at.until_retried(lambda: at.message(key).recipients[0].state == "sent")
        await at.sent_by(key, "second")


async def test_the_order_of_fallbacks_holds(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as at:
        first, second, _third = at.remotes
        await first.down()
        at.start()
        await at.sent_by(await at.send(), "second")
        await second.down()
        await at.sent_by(await at.send(), "third")
        assert at.faults() == {"first": "third", "second": ""}
        await second.up()
        await at.until_retried(lambda: at.faults() == {"first": "second"})
        await at.sent_by(await at.send(), "second")
        assert at.counts() == [0, 2, 1]


async def test_a_client_that_waits_gets_the_reply_of_the_fallback(tmp_path: Path) -> None:
    async with running(tmp_path) as at:
        await at.remotes[0].down()
        at.start()
        for _ in range(2):
            # The first time, the fault is found while the client waits; then it is known.
            arrival = letter(at=time.time())
            client_reply = await at.intake.submit(arrival.envelope, b"Subject: a letter\r\n\r\nhello\r\n")
            assert client_reply.reply.code == 250
            assert b"sent: " in client_reply.reply.text
        await at.remotes[1].down()
        client_reply = await at.intake.submit(arrival.envelope, b"Subject: a letter\r\n\r\nhello\r\n")
        assert b"queued: " in client_reply.reply.text
        assert at.counts() == [0, 2]


async def test_a_fallback_sends_a_message_at_its_time_although_nothing_else_wakes_it(tmp_path: Path) -> None:
    async with running(tmp_path) as at:
        at.intake.change([one.relayhost for one in at.schedulers.values()], 8.0, NOTHING_KNOWN, undo=0.1)
        await at.remotes[0].down()
        at.start()
        at.schedulers["first"].expect_message()
        await at.until(lambda: at.schedulers["first"].carrier is at.schedulers["second"])
        for _ in range(9):
            # Both schedulers look into the spool once more, and go to sleep.
            await at.spool.next_due("second")
        await at.intake.submit(letter(at=time.time()).envelope, b"Subject: a letter\r\n\r\nhello\r\n")
        await at.sent_by(1, "second")


async def test_a_message_in_doubt_waits_for_its_relayhost_with_all_other_mail_going_through_the_fallback(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as at:
        first = at.remotes[0]
        first.policy = held = HeldContent()
        at.start()
        doubtful = await at.send()
        await held.reached.wait()
        await first.down()
        await at.until(lambda: at.message(doubtful).recipients[0].uncertain is not None)
        await at.sent_by(await at.send(), "second")
        assert at.faults() == {"first": "second"}
        actions.retry_all(at.db, time.time())
        for scheduler in at.schedulers.values():
            scheduler.look_again()
        await at.sent_by(await at.send(), "second")
        message = at.message(doubtful)
        assert (message.relayhost, message.recipients[0].state, message.stand_in) == ("first", "deferred", "")
        held.go_on.set()
        await first.up()
        await at.until_retried(lambda: at.message(doubtful).recipients[0].state == "sent")
        await at.sent_by(doubtful, "first")
        assert at.counts() == [1, 2]


async def test_a_message_in_doubt_at_the_fallback_stays_there(tmp_path: Path) -> None:
    async with running(tmp_path) as at:
        first, second = at.remotes
        second.policy = held = HeldContent()
        await first.down()
        at.start()
        doubtful = await at.send()
        await held.reached.wait()
        await second.down()
        await at.until(lambda: at.message(doubtful).recipients[0].uncertain is not None)
        await first.up()
        await at.until_retried(lambda: not at.schedulers["first"].is_unreachable)
        await at.sent_by(await at.send(), "first")
        message = at.message(doubtful)
        assert (message.relayhost, message.fallback_for, message.recipients[0].state) == ("second", "first", "deferred")
        held.go_on.set()
        await second.up()
        await at.until_retried(lambda: at.message(doubtful).recipients[0].state == "sent")
        await at.sent_by(doubtful, "second")
        assert at.counts() == [1, 1]


async def test_a_message_that_the_fallback_defers_goes_back(tmp_path: Path) -> None:
    async with running(tmp_path) as at:
        first, second = at.remotes

        async def greylist(verb: str, _argument: bytes) -> bytes | None:
            return b"451 4.7.1 come back later" if verb == "RCPT" else None

        second.policy = greylist
        await first.down()
        at.start()
        key = await at.send()
        await at.until(lambda: at.message(key).recipients[0].state == "deferred")
        message = at.message(key)
        assert (message.relayhost, message.fallback_for, message.stand_in) == ("first", "", "second")
        assert message.next_attempt is not None
        assert 3000 < message.next_attempt - time.time() < 4400
        with transaction(at.db):
            notice_lifecycle.update_delays(at.db, 900.0, (Backend.MAILBOX,), time.time() + 1000)
        late = [
            one.notice for one in notices.pending_notices(at.db, time.time() + 2000) if one.notice.kind is Kind.DELAYED
        ]
        assert [(one.relayhost, one.stand_in, one.text) for one in late] == [
            ("first", "second", "451 4.7.1 come back later")
        ]
        await first.up()
        await at.until_retried(lambda: at.message(key).recipients[0].state == "sent")
        await at.sent_by(key, "first")
        assert at.counts() == [1, 0]
        assert await at.spool.relayhost_failure("first") is None


async def test_a_report_about_mail_that_the_fallback_has_refused_goes_by_the_relayhost_of_the_sender(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as at:

        async def refuse(verb: str, _argument: bytes) -> bytes | None:
            return b"550 5.1.1 nobody here" if verb == "RCPT" else None

        at.remotes[1].policy = refuse
        await at.remotes[0].down()
        at.start()
        key = await at.send()
        await at.until(lambda: at.message(key).recipients[0].state == "bounced")
        failed = [one for one in notices.pending_notices(at.db, time.time() + 1) if one.notice.kind is Kind.FAILED]
        assert [one.notice.relayhost for one in failed] == ["second"]
        await at.spool.accept_report(failed[0], letter(at=time.time()).envelope, b"Subject: a report\r\n\r\nhello\r\n")
        assert at.message(key + 1).relayhost == "first"


async def test_a_fault_that_is_known_at_the_start_is_no_obstacle(tmp_path: Path) -> None:
    async with running(tmp_path) as at:
        await at.remotes[0].down()
        at.db.execute(
            "INSERT INTO relayhost (name, failures, since, next_dial, cause, text, stand_in)"
            " VALUES ('first', 3, ?1, ?1 + 9000, 'unreachable', 'away', 'gone')",
            (time.time(),),
        )
        await at.spool.reroute(set(NAMES), lambda _: "first")
        assert at.faults() == {"first": ""}
        key = await at.send()
        at.start()
        await at.sent_by(key, "second")
        assert at.faults() == {"first": "second"}


def test_after_a_crash_a_message_that_was_being_sent_stays_at_its_fallback(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(0o700)
    db = connect(tmp_path / "spool")
    now = time.time()
    with transaction(db):
        key = accept(db, replace(letter(at=now), relayhost="first"), LIMIT)
        (taken,) = attempts.take(db, "second", (), 1, "node", now, others=("first",))
        assert (taken.relayhost, taken.fallback_for, taken.envelope.is_damaged) == ("second", "first", False)
        attempts.recover(db, now)
    assert listing.one(db, key).relayhost == "second"
    for relayhost, others in (("first", ()), ("third", ("first", "second"))):
        assert attempts.next_due(db, relayhost, others) is None
        assert attempts.count_due(db, relayhost, 9, now, others) == 0
        assert attempts.take(db, relayhost, (key,), 9, "node", now, others=others) == []
    (again,) = attempts.take(db, "second", (), 1, "node", now)
    assert not again.envelope.is_damaged
    db.close()


def test_what_was_not_tried_is_back_at_its_relayhost(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(0o700)
    db = connect(tmp_path / "spool")
    now = time.time()
    with transaction(db):
        key = accept(db, replace(letter(at=now), relayhost="first"), LIMIT)
        attempts.take(db, "second", (key,), 1, "node", now, others=("first",))
        assert attempts.put_back(db, [key], "node", now) == []
    (own,) = attempts.take(db, "first", (), 1, "node", now)
    assert (own.relayhost, own.fallback_for, own.envelope.is_damaged) == ("first", "", False)
    db.close()


def test_a_message_that_is_released_goes_by_its_relayhost(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(0o700)
    db = connect(tmp_path / "spool")
    now = time.time()
    with transaction(db):
        arrival = replace(letter(at=now), relayhost="first")
        key = accept(db, arrival, LIMIT)
        attempts.take(db, "second", (key,), 1, "node", now, others=("first",))
        db.execute("UPDATE attempt SET closed = ?", (now,))
        db.execute("UPDATE recipient SET state = 'held'")
        actions.act(db, key, arrival.queue_id, Act.RELEASE, now)
    assert (listing.one(db, key).relayhost, listing.one(db, key).fallback_for) == ("first", "")
    db.close()


def test_settings_that_lose_a_relayhost_leave_no_message_behind(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(0o700)
    db = connect(tmp_path / "spool")
    now = time.time()
    with transaction(db):
        key = accept(db, replace(letter(at=now), relayhost="first"), LIMIT)
        attempts.take(db, "second", (key,), 1, "node", now, others=("first",))
        attempts.recover(db, now)
        attempts.reroute(db, {"second"}, lambda _: "second", now)
    assert (listing.one(db, key).relayhost, listing.one(db, key).fallback_for) == ("second", "")
    with transaction(db):
        attempts.reroute(db, {"third"}, lambda _: "third", now)
    (taken,) = attempts.take(db, "third", (), 1, "node", now)
    assert not taken.envelope.is_damaged
    db.close()


def test_a_message_at_a_fallback_that_the_settings_lose_goes_back_also_if_its_sender_has_no_relayhost_now(
    tmp_path: Path,
) -> None:
    (tmp_path / "spool").mkdir(0o700)
    db = connect(tmp_path / "spool")
    now = time.time()
    with transaction(db):
        key = accept(db, replace(letter(at=now), relayhost="first"), LIMIT)
        attempts.take(db, "second", (key,), 1, "node", now, others=("first",))
        attempts.recover(db, now)
        assert attempts.reroute(db, {"first"}, lambda _: None, now) == (1, 0)
    assert (listing.one(db, key).relayhost, listing.one(db, key).fallback_for) == ("first", "")
    db.close()
