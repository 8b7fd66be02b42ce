"""Mail on its way out: a real spool, a real SSH server and a scripted mail server, in one process."""

import asyncio
import time
from pathlib import Path

import pytest
from harness.messages import letter
from harness.relay import running_relay

from mailrelay.demo.mailserver import refuse_by_name
from mailrelay.mail.outcome import Cause
from mailrelay.relay.waiters import DeliveryResult, Queued, Refused
from mailrelay.spool import actions, listing, trigger
from mailrelay.spool.database import connect, transaction


async def test_mail_is_sent_once_the_remote_has_said_so_and_arrives_as_it_was(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        content = b".dot\r\n..two\r\n\r\n" + b"x" * 990 + b"\r\n.\r\nend\r\n"
        key = await at.send(content=content)
        await at.settled(key, "sent")
        assert at.remote.received[0].content.endswith(b"Subject: a letter\r\n\r\n" + content)


async def test_many_messages_cost_one_login(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        keys = [await at.send() for _ in range(60)]
        await at.remote.arrived(60)
        for key in keys:
            await at.settled(key, "sent")
        assert at.remote.logins == 1
        assert 1 <= at.remote.channels <= 8


async def test_mixed_verdicts_in_one_transaction_come_out_right(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        key = await at.send(b"bob@example.net", b"refused@example.net", b"later@example.net")
        await at.settled(key, "sent", "bounced", "deferred")
        assert [letter.recipients for letter in at.remote.received] == [(b"bob@example.net",)]
        owed = await at.spool.pending_notices()
        assert [one.address for one in owed[0].notice.concerned] == [b"refused@example.net"]


async def test_a_refused_message_does_not_delay_the_next_one(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        refused, later, fine = [await at.send(to) for to in (b"refused@x.org", b"later@x.org", b"bob@x.org")]
        await at.settled(refused, "bounced")
        await at.settled(later, "deferred")
        await at.settled(fine, "sent")


async def test_deferred_mail_is_tried_again_by_itself(tmp_path: Path) -> None:
    async with running_relay(tmp_path, retry=0.2) as at:
        refuse = at.remote.policy
        key = await at.send(b"later@example.net")
        await at.settled(key, "deferred")

        async def welcome(_verb: str, _argument: bytes) -> bytes | None:
            return None

        at.remote.policy = welcome
        await at.settled(key, "sent")
        assert refuse is not welcome


async def test_a_remote_that_is_down_is_one_fault_and_no_attempt_however_much_mail_waits(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        await at.remote.down()
        keys = [await at.send() for _ in range(20)]
        assert await at.failure() is Cause.SSH_REFUSED
        for key in keys:
            assert await at.states(key) == ["queued"]
        owed = await at.spool.pending_notices()
        assert len(owed) == 1


async def test_waiting_mail_leaves_when_the_person_says_so_whatever_the_back_off_said(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        await at.remote.down()
        key = await at.send()
        await at.failure()
        await at.remote.up()
        db = connect(at.directory)
        with transaction(db):
            actions.retry_all(db, time.time())
        db.close()
        at.scheduler.look_again()
        await at.settled(key, "sent")
        assert await at.spool.relayhost_failure("default") is None
        assert not trigger.fire(at.directory)


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        ("refuse_key", Cause.AUTH_REFUSED),
        ("forbid_forwarding", Cause.FORWARDING_PROHIBITED),
        ("change_host_key", Cause.HOST_KEY_CHANGED),
        ("mail_down", Cause.SMTP_CLOSED),
    ],
)
async def test_a_setup_fault_stops_all_mail_at_once_with_one_notice_that_says_how_to_fix_it(
    tmp_path: Path, spoil: str, cause: Cause
) -> None:
    async with running_relay(tmp_path) as at:
        if isinstance(getattr(at.remote, spoil), bool):
            setattr(at.remote, spoil, True)
        else:
            await getattr(at.remote, spoil)()
        first, second = await at.send(), await at.send()
        assert await at.failure() is cause
        assert await at.states(first) == await at.states(second) == ["queued"]
        (owed,) = await at.spool.pending_notices()
        assert owed.notice.text
        assert owed.notice.fix


@pytest.mark.parametrize("greeting", [b"554 5.3.2 go away", b"421 4.3.2 too busy"])
async def test_a_remote_that_greets_with_no_bounces_nothing(tmp_path: Path, greeting: bytes) -> None:
    async with running_relay(tmp_path) as at:

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            return greeting if verb == "GREETING" else None

        at.remote.policy = policy
        key = await at.send()
        assert await at.failure() is Cause.REPLY
        assert await at.states(key) == ["queued"]
        assert len(await at.spool.pending_notices()) == greeting.startswith(b"5")


async def test_a_connection_cut_before_the_dot_is_tried_again_and_is_not_uncertain(tmp_path: Path) -> None:
    async with running_relay(tmp_path, retry=0.1) as at:
        cuts = 0

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            nonlocal cuts
            if verb == "DATA" and cuts == 0:
                cuts += 1
                return b""
            return None

        at.remote.policy = policy
        key = await at.send()
        await at.settled(key, "sent")
        assert len(at.remote.received) == 1
        (to,) = at.message(key).recipients
        assert to.uncertain is None


async def test_a_connection_cut_after_the_dot_is_uncertain_and_may_arrive_twice(tmp_path: Path) -> None:
    async with running_relay(tmp_path, retry=0.1) as at:
        cuts = 0

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            nonlocal cuts
            if verb == "CONTENT" and cuts == 0:
                cuts += 1
                return b""
            return None

        at.remote.policy = policy
        key = await at.send()
        await at.settled(key, "sent")
        (to,) = at.message(key).recipients
        assert to.uncertain is not None


async def test_a_message_that_cannot_be_read_is_held_and_told_and_the_others_go_on(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        await at.remote.down()
        broken, whole = await at.send(content=b"x" * 600_000), await at.send()
        await at.failure()
        at.db.execute("DELETE FROM content WHERE message = ? AND seq = 1", (broken,))
        await at.remote.up()
        with transaction(at.db):
            actions.retry_all(at.db, time.time())
        at.scheduler.look_again()
        await at.settled(broken, "held")
        await at.settled(whole, "sent")
        kinds = [one.notice.kind.value for one in await at.spool.pending_notices()]
        assert "held" in kinds
        assert len(at.remote.received) == 1


async def test_the_connection_is_closed_when_it_has_lingered(tmp_path: Path) -> None:
    async with running_relay(tmp_path, linger=0.0) as at:
        first = await at.send()
        await at.settled(first, "sent")

        async def closed() -> bool:
            return not at.remote.connections

        await at.until(closed)
        second = await at.send()
        await at.settled(second, "sent")
        assert at.remote.logins == 2


async def test_a_recipient_is_vetted_on_a_connection_that_is_there_and_no_message_comes_of_it(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:

        async def word(to: bytes) -> bytes:
            outcome = await at.scheduler.probe_recipient(letter(to, at=time.time()).envelope)
            return outcome.description if outcome is not None else b""

        assert await word(b"refused@example.net") == b"", "nobody dials for that"
        await at.settled(await at.send(), "sent")
        assert (await word(b"refused@example.net")).startswith(b"550 5.1.1")
        assert (await word(b"later@example.net")).startswith(b"451")
        assert (await word(b"bob@example.net")).startswith(b"250")
        await at.settled(await at.send(), "sent")
        assert len(at.remote.received) == 2
        assert (at.remote.logins, at.remote.channels) == (1, 1)


@pytest.mark.parametrize("gives_up", [True, False])
async def test_who_waits_for_a_word_on_a_recipient_may_give_up_and_is_let_go_when_the_connection_goes(
    tmp_path: Path, gives_up: bool
) -> None:
    async with running_relay(tmp_path) as at:
        await at.settled(await at.send(), "sent")
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            if verb != "RCPT":
                return None
            asked.set()
            await go_on.wait()
            return None if gives_up else b""

        at.remote.policy = policy
        vetting = asyncio.ensure_future(at.scheduler.probe_recipient(letter(at=time.time()).envelope))
        await asked.wait()
        behind = asyncio.ensure_future(at.scheduler.probe_recipient(letter(at=time.time()).envelope))
        if gives_up:
            for one in (vetting, behind):
                one.cancel()
            await asyncio.wait({vetting, behind})
        go_on.set()
        if not gives_up:
            # The first of them may be known as lost in the middle.
            for word in await asyncio.gather(vetting, behind):
                assert word is None or word.reply is None
        at.remote.policy = refuse_by_name
        await at.settled(await at.send(), "sent")


async def test_who_waits_for_the_remotes_word_gets_it(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:

        async def word(to: bytes) -> object:
            message = letter(to, at=time.time())
            watch = at.scheduler.waiters.open(message.queue_id)
            at.scheduler.message_arrived(await at.spool.accept(message))
            said = await watch.result
            if isinstance(said, Refused):
                watch.told.set_result(True)
            return said

        sent = await word(b"bob@example.net")
        assert isinstance(sent, DeliveryResult)
        refused = await word(b"refused@example.net")
        assert isinstance(refused, Refused)
        assert refused.outcome.description.startswith(b"550 5.1.1")
        queued = await word(b"later@example.net")
        assert isinstance(queued, Queued)
        assert queued.why.startswith("451")


@pytest.mark.parametrize(("told", "state", "owed"), [(True, "refused", 0), (False, "bounced", 1)])
async def test_a_refusal_is_told_to_the_client_or_owed_to_the_person_and_never_neither(
    tmp_path: Path, told: bool, state: str, owed: int
) -> None:
    async with running_relay(tmp_path) as at:
        message = letter(b"refused@example.net", at=time.time())
        watch = at.scheduler.waiters.open(message.queue_id)
        key = await at.spool.accept(message)
        at.scheduler.message_arrived(key)
        await watch.result
        assert await at.states(key) == ["active"]
        watch.told.set_result(told)
        await at.settled(key, state)
        assert len(await at.spool.pending_notices()) == owed


async def test_stopping_in_the_middle_leaves_every_message_sent_or_due(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        stuck = asyncio.Event()

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            if verb == "CONTENT" and len(at.remote.received) >= 3:
                stuck.set()
                await asyncio.Event().wait()
            return None

        at.remote.policy = policy
        keys = [await at.send() for _ in range(40)]
        await stuck.wait()

        async def three_are_settled() -> bool:
            # What the remote has taken, its words may be on their way for still.
            return [await at.states(key) for key in keys].count(["sent"]) >= 3

        await at.until(three_are_settled)
    db = connect(at.directory)
    assert db.execute("SELECT count(*) FROM attempt WHERE closed IS NULL").get == 0
    states = [to.state for key in keys for to in listing.one(db, key).recipients]
    assert set(states) <= {"sent", "queued", "deferred"}
    assert states.count("sent") >= 3
    due = db.execute("SELECT count(*) FROM message WHERE next_attempt IS NOT NULL").get
    assert due == len(states) - states.count("sent")
    db.close()


async def test_one_slow_message_does_not_block_another(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        go_on = asyncio.Event()

        async def policy(verb: str, argument: bytes) -> bytes | None:
            if verb == "RCPT" and b"slow" in argument:
                await go_on.wait()
            return None

        at.remote.policy = policy
        slow = await at.send(b"slow@example.net")
        quick = await at.send(b"quick@example.net")
        await at.settled(quick, "sent")
        assert await at.states(slow) == ["active"]
        go_on.set()
        await at.settled(slow, "sent")
