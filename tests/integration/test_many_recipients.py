"""A message with more recipients than the mail server takes in one transaction: the rest goes in further transactions at
once, and the client, the person and the spool see one attempt."""

import asyncio
import re
import smtplib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from harness.daemon import LETTER, served, settings
from harness.messages import letter
from harness.relay import RelayHarness, running_relay

from mailrelay.demo.mailserver import EXTENSIONS
from mailrelay.demo.remote import Remote
from mailrelay.mail.notice import Kind
from mailrelay.relay.waiters import DeliveryResult, Queued
from mailrelay.spool import attempts, notices, stored
from mailrelay.spool.database import connect

OFFERS = {
    "nothing": (b"8BITMIME",),
    "pipelining": EXTENSIONS,
    "chunking": (*EXTENSIONS, b"CHUNKING"),
}
TOO_MANY = b"452 4.5.3 Too many recipients"
Policy = Callable[[str, bytes], Awaitable[bytes | None]]


class Limit:
    """The policy of a mail server that takes `most` recipients in a transaction, and says `reply` to the others.

    bad: the replies to recipients by their address. at_data: the reply to DATA where there were too many. commands: every
    verb. transactions: the recipients offered in each.
    """

    def __init__(
        self, most: int, reply: bytes = TOO_MANY, *, bad: dict[bytes, bytes] | None = None, at_data: bytes | None = None
    ) -> None:
        self.most, self.reply, self.bad, self.at_data = most, reply, bad or {}, at_data
        self.commands: list[str] = []
        self.transactions: list[list[bytes]] = []
        self.accepted = 0
        self.surplus = False

    async def __call__(self, verb: str, argument: bytes) -> bytes | None:
        self.commands.append(verb)
        if verb == "MAIL":
            self.transactions.append([])
            self.accepted, self.surplus = 0, False
        if verb == "DATA" and self.surplus:
            return self.at_data
        if verb != "RCPT":
            return None
        address = argument[4:].partition(b">")[0]
        self.transactions[-1].append(address)
        if self.accepted >= self.most:
            self.surplus = True
            return self.reply
        if address in self.bad:
            return self.bad[address]
        self.accepted += 1
        return None


def numbered(count: int) -> list[bytes]:
    return [b"r%04d@example.net" % number for number in range(count)]


def got(remote: Remote) -> list[bytes]:
    """The recipients of all messages that have arrived, in their order."""
    return [to for message in remote.received for to in message.recipients]


async def delivered(at: RelayHarness, policy: Policy, recipients: Sequence[bytes], offers: str = "pipelining") -> int:
    """Sends a message; returns its key once no recipient is queued or active."""
    at.remote.policy = policy
    at.remote.extensions = OFFERS[offers]
    key = await at.send(*recipients)

    async def holds() -> bool:
        return not {"queued", "active"} & set(await at.states(key)) and not at.open_attempts()

    await at.until(holds)
    return key


@pytest.mark.parametrize("offers", OFFERS)
@pytest.mark.parametrize(("most", "count"), [(10, 60), (100, 1000), (1000, 1000), (7, 50)])
async def test_the_rest_goes_at_once_in_further_transactions_of_the_same_conversation(
    tmp_path: Path, offers: str, most: int, count: int
) -> None:
    async with running_relay(tmp_path) as at:
        policy = Limit(most)
        recipients = numbered(count)
        key = await delivered(at, policy, recipients, offers)
        assert set(await at.states(key)) == {"sent"}
        assert got(at.remote) == recipients
        sizes = [len(message.recipients) for message in at.remote.received]
        assert sizes == [most] * (count // most) + [count % most] * bool(count % most)
        assert "EHLO" not in policy.commands[policy.commands.index("MAIL") :]
        # The limit is learnt: only the first transaction offers too many.
        assert [len(offered) for offered in policy.transactions] == [count, *sizes[1:]]
        assert at.message(key).attempts == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"452 too many recipients",
        b"452 4.3.1 Too many recipients received this session",
        b"451 4.5.3 Too many recipients",
        b"452 4.5.3 Maximum limit of 10 recipients reached",
        b"552 5.5.3 Too many recipients",
        b"552 Too many recipients",
        b"552 Requested mail action aborted",
        b"550 Too many recipients.",
        b"452 Requested action not taken",
        b"421 4.5.3 Too many recipients",
        b"421 too many recipients, closing connection",
    ],
)
async def test_what_servers_say_to_one_recipient_too_many_is_understood(tmp_path: Path, reply: bytes) -> None:
    async with running_relay(tmp_path) as at:
        key = await delivered(at, Limit(10, reply), numbered(25))
        assert set(await at.states(key)) == {"sent"}
        assert [len(message.recipients) for message in at.remote.received] == [10, 10, 5]


async def test_a_server_that_refuses_data_because_of_too_many_recipients_gets_fewer_at_once(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        policy = Limit(10, b"552 too many recipients", at_data=b"554 too many recipients")
        key = await delivered(at, policy, numbered(25))
        assert set(await at.states(key)) == {"sent"}
        assert [len(offered) for offered in policy.transactions] == [25, 10, 10, 5]
        assert at.message(key).attempts == 1


async def test_a_server_that_hangs_up_at_one_recipient_too_many_gets_each_recipient_once(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        limit = Limit(10)

        async def policy(verb: str, argument: bytes) -> bytes | None:
            if limit.surplus and verb not in ("GREETING", "EHLO", "MAIL"):
                return b""
            reply = await limit(verb, argument)
            return b"421 4.5.3 Too many recipients" if reply == TOO_MANY else reply

        key = await delivered(at, policy, numbered(25))
        assert set(await at.states(key)) == {"sent"}
        assert [len(offered) for offered in limit.transactions[1:]] == [10, 10, 5]
        assert at.message(key).attempts == 1
        assert await at.spool.relayhost_failure("default") is None


async def test_the_next_message_begins_with_the_limit_that_was_learnt(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        await delivered(at, Limit(10), numbered(25))
        policy = Limit(10)
        key = await delivered(at, policy, numbered(25))
        assert set(await at.states(key)) == {"sent"}
        assert [len(offered) for offered in policy.transactions] == [10, 10, 5]
        assert at.message(key).attempts == 1


async def test_bad_and_busy_recipients_among_them_are_each_tried_once(tmp_path: Path) -> None:
    recipients = numbered(30)
    bad = {
        recipients[2]: b"550 5.1.1 no such user",
        recipients[14]: b"452 4.2.2 mailbox full",
        recipients[3]: b"452 4.3.1 no space",
        recipients[29]: b"552 5.2.2 mailbox full",
    }
    async with running_relay(tmp_path) as at:
        policy = Limit(10, bad=bad)
        key = await delivered(at, policy, recipients)
        states = dict(zip(recipients, await at.states(key), strict=True))
        assert {to: state for to, state in states.items() if state != "sent"} == {
            recipients[2]: "bounced",
            recipients[14]: "deferred",
            recipients[3]: "deferred",
            recipients[29]: "bounced",
        }
        later = [to for offered in policy.transactions[1:] for to in offered]
        assert len(later) == len(set(later))
        assert not {recipients[2], recipients[3]} & set(later)
        shown = at.message(key)
        assert shown.attempts == 1
        assert shown.next_attempt is not None
        assert shown.next_attempt > time.time() + 3000


async def test_a_transaction_without_progress_waits_for_the_schedule_and_counts(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        policy = Limit(0)
        key = await delivered(at, policy, numbered(3))
        assert await at.states(key) == ["deferred"] * 3
        assert len(policy.transactions) == 1
        assert at.message(key).attempts == 1


@pytest.mark.parametrize("at_data", [b"451 4.3.0 try later", b"421 4.3.0 try later"])
async def test_a_server_that_defers_the_content_ends_the_round(tmp_path: Path, at_data: bytes) -> None:
    async with running_relay(tmp_path) as at:
        policy = Limit(10, at_data=at_data)
        key = await delivered(at, policy, numbered(25))
        assert await at.states(key) == ["deferred"] * 25
        assert len(policy.transactions) == 1
        assert at.message(key).attempts == 1


async def test_recipients_that_are_all_deferred_do_not_keep_the_next_part_from_being_tried(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        await delivered(at, Limit(10), numbered(25))
        recipients = numbered(25)
        policy = Limit(10, bad=dict.fromkeys(recipients[:12], b"450 4.2.0 greylisted"))
        key = await delivered(at, policy, recipients)
        assert await at.states(key) == ["deferred"] * 12 + ["sent"] * 13


async def test_there_is_one_notice_for_the_whole_when_all_fail(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        await delivered(at, Limit(10), numbered(11))
        recipients = numbered(45)
        key = await delivered(at, Limit(10, bad=dict.fromkeys(recipients, b"550 5.1.1 no such user")), recipients)
        assert set(await at.states(key)) == {"bounced"}
        (pending,) = await at.spool.pending_notices()
        assert pending.notice.kind is Kind.FAILED
        assert [one.address for one in pending.notice.concerned] == recipients


async def test_a_round_that_is_interrupted_does_not_keep_its_notices(tmp_path: Path) -> None:
    recipients = numbered(25)
    cut = asyncio.Event()

    class Cutting(Limit):
        async def __call__(self, verb: str, argument: bytes) -> bytes | None:
            if verb == "MAIL" and len(self.transactions) == 1:
                cut.set()
                await asyncio.Event().wait()
            return await super().__call__(verb, argument)

    async with running_relay(tmp_path) as at:
        at.remote.policy = Cutting(10, bad={recipients[0]: b"550 5.1.1 no such user"})
        await at.send(*recipients)
        await cut.wait()
        assert await at.spool.pending_notices() == []
        (pending,) = notices.pending_notices(at.db, time.time() + 61)
        assert [one.address for one in pending.notice.concerned] == recipients[:1]


async def test_what_one_transaction_has_brought_is_on_disk_before_the_next_one_begins(tmp_path: Path) -> None:
    """A crash between two transactions sends nothing twice: the spool is read as the next start would find it."""
    seen: list[list[str]] = []

    class Looking(Limit):
        async def __call__(self, verb: str, argument: bytes) -> bytes | None:
            if verb == "MAIL":
                db = connect(directory)
                seen.append([state for (state,) in db.execute("SELECT state FROM recipient ORDER BY id")])
                db.close()
            return await super().__call__(verb, argument)

    async with running_relay(tmp_path) as at:
        directory = at.directory
        key = await delivered(at, Looking(10), numbered(25))
        assert [[states.count("sent"), states.count("queued")] for states in seen] == [[0, 25], [10, 15], [20, 5]]
        assert set(await at.states(key)) == {"sent"}


async def test_after_a_kill_between_two_transactions_only_the_rest_is_sent(tmp_path: Path) -> None:
    stuck = asyncio.Event()

    class Stopping(Limit):
        async def __call__(self, verb: str, argument: bytes) -> bytes | None:
            if verb == "MAIL" and len(self.transactions) == 1:
                stuck.set()
                await asyncio.Event().wait()
            return await super().__call__(verb, argument)

    recipients = numbered(25)
    async with running_relay(tmp_path) as at:
        at.remote.policy = Stopping(10)
        key = await at.send(*recipients)
        await stuck.wait()
        # What the next start of a daemon does with attempts that are open.
        assert attempts.recover(at.db, time.time()) == 1
        assert (await at.states(key)).count("sent") == 10
        await at.stop()
        first = got(at.remote)
        message = stored.load_message(at.db, key)
        assert first == recipients[:10]
        assert [to.address for to in message.envelope.recipients] == recipients[10:]


async def told(at: RelayHarness, recipients: Sequence[bytes]) -> DeliveryResult:
    """The result that a client gets which waits for it."""
    arrival = letter(*recipients, at=time.time())
    waiter = at.scheduler.waiters.open(arrival.queue_id)
    at.scheduler.message_arrived(await at.spool.accept(arrival))
    result = await waiter.result
    assert isinstance(result, DeliveryResult)
    return result


async def test_a_client_is_told_of_the_whole_round(tmp_path: Path) -> None:
    recipients = numbered(25)
    async with running_relay(tmp_path) as at:
        at.remote.policy = Limit(10)
        result = await told(at, recipients)
        assert (result.taken, result.total, result.not_taken) == (25, 25, ())
        at.remote.policy = Limit(10, bad={recipients[24]: b"550 5.1.1 no such user"})
        result = await told(at, recipients)
        assert (result.taken, result.total) == (24, 25)
        assert [one.address for one in result.not_taken] == recipients[24:]


async def test_a_client_is_told_what_was_sent_when_the_connection_is_lost_in_between(tmp_path: Path) -> None:
    class Breaking(Limit):
        async def __call__(self, verb: str, argument: bytes) -> bytes | None:
            if verb == "MAIL" and self.transactions:
                return b""
            return await super().__call__(verb, argument)

    async with running_relay(tmp_path) as at:
        at.remote.policy = Breaking(10)
        result = await told(at, numbered(25))
        assert (result.taken, result.total) == (10, 25)


@asynccontextmanager
async def served_remote(directory: Path) -> AsyncIterator[tuple[Remote, int]]:
    """A mail server, and the port of a daemon that sends through it."""
    (directory / "remote").mkdir()
    async with (
        Remote(directory / "remote") as remote,
        served(settings(directory, remote.relayhost(name="default"))) as (port, _task),
    ):
        yield remote, port


def submit(port: int, recipients: Sequence[bytes]) -> str:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo()
        client.mail("a@example.org")
        for one in recipients:
            assert client.rcpt(one.decode())[0] == 250
        code, words = client.data(LETTER)
    assert code == 250
    return re.sub(r"2\.0\.0 \w{8} ", "", words.decode())


async def test_the_reply_says_sent_only_if_all_were_sent(tmp_path: Path) -> None:
    async with served_remote(tmp_path) as (remote, port):
        recipients = numbered(60)
        remote.policy = Limit(10)
        assert (await asyncio.to_thread(submit, port, recipients)).startswith("sent: ")
        assert len(got(remote)) == 60
        # From the second transaction on nobody is accepted.
        remote.policy = Limit(10, bad=dict.fromkeys(recipients[10:], b"452 4.2.2 full"))
        words = await asyncio.to_thread(submit, port, recipients)
        assert words.startswith("sent to 10 of 60; <r0010@example.net> waits: 452 4.2.2 full; ")
        assert "; 45 more, see `mailrelay queue show " in words


async def test_the_notice_of_a_round_is_delivered_at_its_end(tmp_path: Path) -> None:
    class Refusing(Limit):
        """Refuses a recipient behind another one, so not when it is probed."""

        async def __call__(self, verb: str, argument: bytes) -> bytes | None:
            if self.accepted and argument == b"TO:<r0001@example.net>":
                return b"550 5.1.1 no such user"
            return await super().__call__(verb, argument)

    async with served_remote(tmp_path) as (remote, port):
        recipients = numbered(25)
        remote.policy = Refusing(10)
        words = await asyncio.to_thread(submit, port, recipients)
        assert words.startswith("sent to 24 of 25; <r0001@example.net> was refused: 550 ")
        async with asyncio.timeout(20):
            while not (found := list((tmp_path / "Maildir/new").glob("*"))):
                await asyncio.sleep(0.01)
        (report,) = found
        assert "r0001@example.net" in report.read_text()


async def test_a_client_whose_time_is_over_hears_how_far_the_round_has_come(tmp_path: Path) -> None:
    class Stopping(Limit):
        async def __call__(self, verb: str, argument: bytes) -> bytes | None:
            if verb == "MAIL" and len(remote.received) == 2:
                await asyncio.Event().wait()
            return await super().__call__(verb, argument)

    async with served_remote(tmp_path) as (remote, port):
        remote.policy = Stopping(10)
        words = await asyncio.to_thread(submit, port, numbered(60))
        assert words == "queued: sent to 20 of 60 so far; the rest follows"


async def test_the_log_names_each_recipient_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mailrelay")
    async with running_relay(tmp_path) as at:
        await delivered(at, Limit(10), numbered(25))
    lines = [line for line in caplog.messages if "status=" in line]
    assert sum("status=sent" in line for line in lines) == 25
    assert [re.sub(r"^\w+ ", "", line) for line in lines if "status=sent" not in line] == [
        f"nrcpt={left} relay=default status=goes-on (the mail server takes no more recipients in one transaction)"
        for left in (15, 5)
    ]


async def test_a_message_that_waits_is_told_as_queued(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        at.remote.policy = Limit(0)
        arrival = letter(*numbered(3), at=time.time())
        waiter = at.scheduler.waiters.open(arrival.queue_id)
        at.scheduler.message_arrived(await at.spool.accept(arrival))
        assert await waiter.result == Queued("452 4.5.3 Too many recipients")
