"""A mail server that ends conversations: all mail waits where it turns every message away, and one message where that is the
reason. Nothing is doubtful that the mail server did not accept."""

import asyncio
import dataclasses
import time
from collections import Counter
from contextvars import ContextVar
from pathlib import Path

import pytest
from harness.daemon import served, settings, submit
from harness.messages import letter
from harness.relay import RelayHarness, running_relay

from mailrelay.demo.mailserver import EXTENSIONS
from mailrelay.demo.remote import Remote
from mailrelay.mail.outcome import Cause, Stage
from mailrelay.mail.record import Arrival
from mailrelay.relay import conversations
from mailrelay.smtp.flight import MAX_IN_FLIGHT
from mailrelay.smtp.transaction import REPLY_TIMEOUTS

OFFERS = {
    "nothing": (b"8BITMIME",),
    "pipelining": EXTENSIONS,
    "chunking": (*EXTENSIONS, b"CHUNKING"),
}
GONE = b"421 4.3.2 go away"
CLOSE = b""
HANG = b"hang"


class Server:
    """The policy of a mail server that replies `reply` to `verb`: to every message behind the first `most` of a
    conversation, or only to those from <poison@…>. verbs: all that it was asked. conversations: how many have begun."""

    def __init__(self, verb: str, reply: bytes, *, most: int = 0, only_poison: bool = False) -> None:
        self.verb, self.reply, self.most, self.only_poison = verb, reply, most, only_poison
        self.verbs: list[str] = []
        # Of the conversation, of which a task runs each.
        self._messages: ContextVar[int] = ContextVar("messages", default=0)
        self._sender: ContextVar[bytes] = ContextVar("sender", default=b"")

    @property
    def conversations(self) -> int:
        return self.verbs.count("GREETING")

    async def __call__(self, verb: str, argument: bytes) -> bytes | None:
        self.verbs.append(verb)
        if verb == "MAIL":
            self._messages.set(self._messages.get() + 1)
            self._sender.set(argument)
        is_spared = self._messages.get() <= self.most if self.most else False
        if verb != self.verb or is_spared or (self.only_poison and b"poison" not in self._sender.get()):
            return None
        if self.reply == HANG:
            await asyncio.Event().wait()
        return self.reply


async def accept(at: RelayHarness, count: int) -> list[int]:
    """Messages in the spool that the scheduler has not heard of."""
    return [await at.spool.accept(letter(at=time.time())) for _ in range(count)]


def uncertain(at: RelayHarness) -> int:
    """How many recipients may get their message twice."""
    return int(at.db.execute("SELECT count(*) FROM recipient WHERE uncertain IS NOT NULL").get)


def attempts(at: RelayHarness) -> int:
    """The counted attempts at all messages."""
    return int(at.db.execute("SELECT sum(attempts) FROM message").get)


async def back_off_is_over(at: RelayHarness) -> None:
    """Makes the next dial due, as time does."""
    at.db.execute("UPDATE relayhost SET next_dial = 0 WHERE failures > 0")
    at.scheduler.look_again()


def due(at: RelayHarness) -> int:
    """How many messages are due."""
    return int(at.db.execute("SELECT count(*) FROM message WHERE next_attempt <= ?", (time.time(),)).get)


def failures(at: RelayHarness) -> int:
    return int(at.db.execute("SELECT coalesce(max(failures), 0) FROM relayhost").get)


ENDS = [
    (verb, reply, offers)
    for verb in ("MAIL", "RCPT", "DATA")
    for reply in (GONE, CLOSE)
    for offers in OFFERS
    if not (verb == "DATA" and offers == "chunking")
]


@pytest.mark.parametrize(("verb", "reply", "offers"), ENDS)
async def test_a_server_that_turns_every_message_away_is_asked_twice_and_all_mail_waits_uncounted(
    tmp_path: Path, verb: str, reply: bytes, offers: str
) -> None:
    async with running_relay(tmp_path) as at:
        server = at.remote.policy = Server(verb, reply)
        at.remote.extensions = OFFERS[offers]
        keys = await accept(at, 300 if (verb, offers) == ("MAIL", "chunking") else 20)
        at.scheduler.look_again()
        assert await at.failure() is Cause.TURNED_AWAY
        await at.until(lambda: not at.open_attempts())
        assert server.conversations == 2
        assert server.verbs.count("MAIL") == 2
        assert (attempts(at), uncertain(at)) == (0, 0)
        assert {state for key in keys for state in await at.states(key)} == {"queued"}

        # One conversation tests, as often as the retry schedule says, and the fault lasts.
        await back_off_is_over(at)
        await at.until(lambda: failures(at) == 2)
        await at.until(lambda: not at.open_attempts())
        assert (server.conversations, attempts(at), uncertain(at)) == (3, 0, 0)

        at.remote.policy = Server("", b"")
        await back_off_is_over(at)
        await at.remote.arrived(len(keys))
        for key in keys:
            await at.settled(key, "sent")
        assert await at.spool.relayhost_failure("default") is None


@pytest.mark.parametrize("offers", OFFERS)
@pytest.mark.parametrize("reply", [GONE, CLOSE])
async def test_a_server_that_ends_the_conversation_at_every_content_gets_two_messages_and_no_more(
    tmp_path: Path, reply: bytes, offers: str
) -> None:
    """It may have these: they are attempts, and uncertain where it gave no reply."""

    async with running_relay(tmp_path) as at:
        server = at.remote.policy = Server("CONTENT", reply)
        at.remote.extensions = OFFERS[offers]
        await accept(at, 20)
        at.scheduler.look_again()
        assert await at.failure() is Cause.TURNED_AWAY
        await at.until(lambda: not at.open_attempts())
        assert (server.conversations, attempts(at), uncertain(at)) == (2, 2, 2 if reply == CLOSE else 0)


@pytest.mark.parametrize("reply", [GONE, CLOSE])
async def test_a_server_that_is_proven_and_turns_every_message_away_leaves_no_doubt(
    tmp_path: Path, reply: bytes
) -> None:
    async with running_relay(tmp_path) as at:
        at.remote.extensions = OFFERS["chunking"]
        await at.settled(await at.send(), "sent")
        server = at.remote.policy = Server("MAIL", reply)
        await accept(at, 300)
        at.scheduler.look_again()
        assert await at.failure() is Cause.TURNED_AWAY
        await at.until(lambda: not at.open_attempts())
        # Content was sent ahead to those conversations that were open.
        assert server.conversations <= 10
        assert uncertain(at) == 0
        assert attempts(at) <= 2, "the first message, and the one that was tried again to see whether it is the reason"


def poison() -> Arrival:
    one = letter(at=time.time())
    return dataclasses.replace(one, envelope=dataclasses.replace(one.envelope, sender=b"poison@example.org"))


@pytest.mark.parametrize("is_alone", [False, True])
@pytest.mark.parametrize("offers", OFFERS)
@pytest.mark.parametrize(("verb", "reply"), [("MAIL", GONE), ("RCPT", CLOSE)])
async def test_one_message_that_ends_every_conversation_is_deferred_and_delays_no_other(
    tmp_path: Path, verb: str, reply: bytes, offers: str, is_alone: bool
) -> None:
    async with running_relay(tmp_path) as at:
        at.remote.extensions = OFFERS[offers]
        at.remote.policy = Server(verb, reply, only_poison=True)
        bad = await at.spool.accept(poison())
        keys = [] if is_alone else await accept(at, 20)
        at.scheduler.look_again()
        for key in keys:
            await at.settled(key, "sent")
        await at.settled(bad, "deferred")
        assert at.message(bad).attempts == 1
        # If another was in flight behind it, the mail server may have lost its replies to the bad one.
        assert uncertain(at) <= (1 if (reply, offers) == (CLOSE, "chunking") else 0)
        assert await at.spool.relayhost_failure("default") is None
        assert all(at.message(key).attempts == 1 for key in keys)
        # It cost its own conversations, and those of nobody else.
        assert at.remote.policy.conversations <= 12


async def test_a_message_that_meets_the_same_as_one_before_it_shows_that_the_server_is_the_reason(
    tmp_path: Path,
) -> None:
    async with running_relay(tmp_path) as at:
        server = at.remote.policy = Server("MAIL", GONE)
        await at.settled(await at.send(), "deferred")
        assert await at.spool.relayhost_failure("default") is None
        second = await at.send()
        assert await at.failure() is Cause.TURNED_AWAY
        await at.until(lambda: not at.open_attempts())
        assert at.message(second).attempts == 0
        assert server.verbs.count("MAIL") == 3


@pytest.mark.parametrize(
    ("verb", "reply", "offers"),
    [
        ("MAIL", GONE, "nothing"),
        ("MAIL", GONE, "pipelining"),
        ("MAIL", GONE, "chunking"),
        ("MAIL", CLOSE, "nothing"),
        ("MAIL", CLOSE, "pipelining"),
        ("RCPT", GONE, "nothing"),
        ("RCPT", GONE, "pipelining"),
        ("RCPT", GONE, "chunking"),
    ],
)
async def test_a_server_that_takes_only_so_many_messages_in_a_conversation_gets_all_of_them_without_delay(
    tmp_path: Path, verb: str, reply: bytes, offers: str
) -> None:
    """Each conversation goes on in a new one, and no attempt is counted for it."""

    async with running_relay(tmp_path, channels=2) as at:
        at.remote.extensions = OFFERS[offers]
        at.remote.policy = Server(verb, reply, most=5)
        keys = await accept(at, 40)
        at.scheduler.look_again()
        for key in keys:
            await at.settled(key, "sent")
        assert {at.message(key).attempts for key in keys} == {1}
        assert at.remote.policy.conversations <= 12
        assert uncertain(at) == 0
        assert await at.spool.relayhost_failure("default") is None
        assert len(at.remote.received) == 40


async def test_a_server_that_closes_among_its_replies_leaves_doubt_about_what_was_in_flight_and_gets_single_messages_then(
    tmp_path: Path,
) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        at.remote.extensions = OFFERS["chunking"]
        await at.settled(await at.send(), "sent")
        at.remote.policy = Server("MAIL", CLOSE, most=5)
        keys = await accept(at, 60)
        at.scheduler.look_again()
        await at.until(lambda: not at.open_attempts() and not due(at))
        doubtful = [key for key in keys if at.message(key).recipients[0].uncertain]
        # On a busy machine, nothing may be in flight when it closes.
        assert len(doubtful) < MAX_IN_FLIGHT, "only the first conversation leaves doubt"
        for key in keys:
            assert await at.states(key) == ["deferred" if key in doubtful else "sent"]
        at.db.execute("UPDATE message SET next_attempt = 0 WHERE next_attempt IS NOT NULL")
        at.scheduler.look_again()
        for key in doubtful:
            await at.settled(key, "sent")
        assert uncertain(at) == len(doubtful)


async def test_a_server_that_closes_behind_ehlo_is_a_fault_that_lasts_until_it_takes_mail(tmp_path: Path) -> None:
    """The reply to EHLO alone does not end it: the waits between two tests grow."""

    async with running_relay(tmp_path) as at:

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            # The mail server closes behind the first reply that is no greeting.
            return b"250 demo-remote\r\n421 4.3.2 go away" if verb == "EHLO" else None

        at.remote.policy = policy
        await accept(at, 10)
        at.scheduler.look_again()
        assert await at.failure() is Cause.TURNED_AWAY
        await back_off_is_over(at)
        await at.until(lambda: failures(at) == 2)
        assert attempts(at) == 0


@pytest.mark.parametrize("offers", OFFERS)
async def test_a_server_that_hangs_at_every_mail_is_a_fault_and_leaves_doubt_about_what_it_had_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offers: str
) -> None:
    monkeypatch.setitem(REPLY_TIMEOUTS, Stage.MAIL, 0.05)  # type: ignore[arg-type]
    async with running_relay(tmp_path) as at:
        at.remote.extensions = OFFERS[offers]
        server = at.remote.policy = Server("MAIL", HANG)
        await accept(at, 20)
        at.scheduler.look_again()
        assert await at.failure() is Cause.TURNED_AWAY
        await at.until(lambda: not at.open_attempts())
        # With CHUNKING, it had the whole first message.
        had = 1 if offers == "chunking" else 0
        assert (server.conversations, attempts(at), uncertain(at)) == (2, had, had)


async def test_a_server_that_is_slow_at_the_first_message_delays_the_others_only_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "PROOF_WAIT", 0.05)
    async with running_relay(tmp_path) as at:
        at.remote.policy = Server("MAIL", HANG, only_poison=True)
        slow = await at.spool.accept(poison())
        keys = await accept(at, 10)
        at.scheduler.look_again()
        for key in keys:
            await at.settled(key, "sent")
        assert await at.states(slow) == ["active"]


async def test_the_client_hears_why_its_message_waits_and_status_says_so(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    async with Remote(tmp_path / "remote") as remote:
        remote.policy = Server("MAIL", GONE)
        async with served(settings(tmp_path, remote.relayhost())) as (port, _):
            for _ in range(2):
                code, text = await asyncio.to_thread(submit, port)
                assert (code, text.split(b" queued: ")[1]) == (250, GONE)


async def test_a_server_that_goes_on_after_421_gets_no_message_more_than_twice(tmp_path: Path) -> None:
    """RFC 5321 section 3.8: it should have closed the connection."""
    async with running_relay(tmp_path, channels=1) as at:
        at.remote.extensions = OFFERS["chunking"]
        await at.settled(await at.send(), "sent")
        count = 0

        async def every_second(verb: str, _argument: bytes) -> bytes | None:
            nonlocal count
            count += verb == "MAIL"
            return GONE if verb == "MAIL" and count % 2 == 0 else None

        at.remote.policy = every_second
        for number in range(60):
            await at.spool.accept(letter(at=time.time(), content=b"number-%d\r\n" % number))
        at.scheduler.look_again()
        await at.until(lambda: not at.open_attempts() and not due(at))
        assert max(Counter(one.content for one in at.remote.received).values()) <= 2
