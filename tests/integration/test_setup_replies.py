"""A mail server that refuses mailrelay and not the mail, or an extension that it offers: no message is lost by it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from harness.messages import letter
from harness.relay import PATIENCE, RelayHarness, running_relay

from mailrelay.demo.mailserver import EXTENSIONS
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.notice import Kind
from mailrelay.mail.outcome import Cause, Scope
from mailrelay.mail.triage import Disposition, classify
from mailrelay.relay.waiters import DeliveryResult, Queued
from mailrelay.spool import actions
from mailrelay.spool.database import transaction

Policy = Callable[[str, bytes], Awaitable[bytes | None]]


def saying(**replies: bytes) -> Policy:
    """The policy that replies so to these verbs, and to all others as usual."""

    async def policy(verb: str, _argument: bytes) -> bytes | None:
        return replies.get(verb)

    return policy


async def notices(at: RelayHarness) -> list[tuple[Kind, str]]:
    return [(one.notice.kind, one.notice.fix) for one in await at.spool.pending_notices()]


@pytest.mark.parametrize(
    ("verb", "reply", "cause", "fix"),
    [
        ("MAIL", b"530 5.7.0 Must issue a STARTTLS command first", Cause.TLS_WANTED, "smtpd_tls_security_level"),
        ("MAIL", b"503 5.5.1 bad sequence of commands", Cause.COMMAND_REFUSED, "smtp"),
        (
            "RCPT",
            b"504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname",
            Cause.HELO_REFUSED,
            "helo",
        ),
        ("RCPT", b"450 4.7.1 <localhost>: Helo command rejected: Host not found", Cause.HELO_REFUSED, "helo"),
        ("RCPT", b"554 5.7.1 <x[127.0.0.1]>: Client host rejected: Access denied", Cause.CLIENT_REFUSED, "mynetworks"),
        ("DATA", b"530 5.7.1 Authentication required", Cause.LOGIN_WANTED, "login"),
        ("EHLO", b"450 4.7.1 <localhost>: Helo command rejected: Host not found", Cause.HELO_REFUSED, "helo"),
        ("GREETING", b"554 5.7.1 Your host 127.0.0.1 is blocked", Cause.CLIENT_REFUSED, "mynetworks"),
    ],
)
async def test_a_reply_that_refuses_us_is_one_setup_fault_and_costs_no_attempt(
    tmp_path: Path, verb: str, reply: bytes, cause: Cause, fix: str
) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        at.remote.policy = saying(**{verb: reply})
        waiter = at.scheduler.waiters.open("none")
        keys = [await at.send() for _ in range(5)]
        assert await at.failure() is cause
        result = await asyncio.wait_for(waiter.result, PATIENCE)
        assert isinstance(result, Queued) and reply.decode() in result.why
        for key in keys:
            await at.settled(key, "queued")
            assert at.message(key).attempts == 0
        [(kind, told)] = await notices(at)
        assert kind is Kind.SETUP and fix in told
        assert at.scheduler.fault_text == reply.decode()
        assert at.remote.received == []


async def test_the_fault_lasts_until_mail_is_judged_again_and_then_mail_goes(tmp_path: Path) -> None:
    async with running_relay(tmp_path, retry=0.05) as at:
        mails = 0

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            nonlocal mails
            mails += verb == "MAIL"
            return b"530 5.7.0 Must issue a STARTTLS command first" if verb == "MAIL" and mails < 4 else None

        at.remote.policy = policy
        key = await at.send()
        await at.failure()
        [pending] = await at.spool.pending_notices()
        await at.spool.notice_delivered(pending)
        await at.settled(key, "sent")
        assert mails == 4

        async def resumed() -> bool:
            return [kind for kind, _ in await notices(at)] == [Kind.RESUMED]

        # One notice for all four attempts, and one that mail moves again.
        await at.until(resumed)
        assert await at.spool.relayhost_failure("default") is None


async def test_mail_in_flight_behind_such_a_reply_is_put_back_and_not_counted(tmp_path: Path) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        at.remote.extensions = (*EXTENSIONS, b"CHUNKING")
        at.remote.policy = saying(MAIL=b"530 5.7.0 Authentication required", RCPT=b"503 5.5.1 need MAIL")
        await at.remote.down()
        keys = [await at.send() for _ in range(20)]
        await at.failure()
        await at.remote.up()
        with transaction(at.db):
            actions.retry_all(at.db, time.time())
        at.scheduler.look_again()

        async def refused() -> bool:
            failure = await at.spool.relayhost_failure("default")
            return failure is not None and failure.cause is Cause.LOGIN_WANTED

        await at.until(refused)
        for key in keys:
            await at.settled(key, "queued")
            assert at.message(key).attempts == 0


async def test_a_server_that_has_just_accepted_mail_refuses_this_mail(tmp_path: Path) -> None:
    async with running_relay(tmp_path, channels=1) as at:

        async def policy(verb: str, argument: bytes) -> bytes | None:
            return b"550 Authentication required" if verb == "RCPT" and b"<far@" in argument else None

        at.remote.policy = policy
        key = await at.send(b"near@example.net", b"far@example.net")
        await at.settled(key, "sent", "bounced")
        assert await at.spool.relayhost_failure("default") is None


EXTENSIONS_OFFERED = [(b"ENHANCEDSTATUSCODES",), EXTENSIONS, (*EXTENSIONS, b"CHUNKING")]


async def refuse_far(verb: str, argument: bytes) -> bytes | None:
    return b"550 Authentication required" if verb == "RCPT" and b"<far@" in argument else None


@pytest.mark.parametrize("offered", EXTENSIONS_OFFERED)
async def test_a_recipient_refused_before_others_are_accepted_bounces_alone(
    tmp_path: Path, offered: tuple[bytes, ...]
) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        at.remote.extensions, at.remote.policy = offered, refuse_far
        key = await at.send(b"far@example.net", b"near@example.net")
        await at.settled(key, "bounced", "sent")
        assert await at.spool.relayhost_failure("default") is None


@pytest.mark.parametrize("offered", EXTENSIONS_OFFERED)
async def test_a_message_refused_before_others_are_accepted_keeps_no_mail_waiting(
    tmp_path: Path, offered: tuple[bytes, ...]
) -> None:
    async with running_relay(tmp_path, channels=1, retry=0.1) as at:
        at.remote.extensions, at.remote.policy = offered, refuse_far
        to = (b"far@example.net", *(b"near%d@example.net" % number for number in range(10)))
        keys = [await at.spool.accept(letter(address, at=time.time())) for address in to]
        at.scheduler.look_again()
        await at.settled(keys[0], "bounced")
        for key in keys[1:]:
            await at.settled(key, "sent")
            assert at.message(key).attempts == 1
        assert await at.spool.relayhost_failure("default") is None


async def test_of_a_server_that_begins_to_want_a_login_one_message_bounces_at_most(tmp_path: Path) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        mails = 0

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            nonlocal mails
            mails += verb == "MAIL"
            return b"530 5.7.0 Authentication required" if verb == "MAIL" and mails > 5 else None

        at.remote.policy = policy
        keys = [await at.spool.accept(letter(at=time.time())) for _ in range(30)]
        at.scheduler.look_again()
        assert await at.failure() is Cause.LOGIN_WANTED
        states = [(await at.states(key))[0] for key in keys]
        assert (states.count("sent"), states.count("bounced")) == (5, 1)


async def test_a_probed_recipient_is_not_reported_as_refused(tmp_path: Path) -> None:
    async with running_relay(tmp_path, linger=float("inf"), channels=1) as at:
        at.scheduler.expect_message()

        async def is_ready() -> bool:
            envelope = Envelope(b"a@example.org", (Recipient(b"b@example.net"),))
            return await at.scheduler.probe_recipient(envelope) is not None

        await at.until(is_ready)
        at.remote.policy = saying(MAIL=b"530 5.7.0 Must issue a STARTTLS command first")
        for dialogue in list(at.remote.dialogues):
            dialogue.cancel()
        at.scheduler.expect_message()
        outcomes = []

        async def is_refused() -> bool:
            envelope = Envelope(b"a@example.org", (Recipient(b"b@example.net"),))
            outcomes.append(await at.scheduler.probe_recipient(envelope))
            at.scheduler.expect_message()
            return outcomes[-1] is not None

        await at.until(is_refused)
        outcome = outcomes[-1]
        assert outcome is not None
        assert (outcome.scope, classify(outcome)) == (Scope.RELAYHOST, Disposition.NOT_TRIED)
        assert await at.failure() is Cause.TLS_WANTED


# Extensions.

LARGE = (b"x" * 998 + b"\r\n") * 300


class NoBdat:
    """The policy of a server that offers BDAT and replies so to it. refused: how often it did."""

    def __init__(self, reply: bytes) -> None:
        self.refused = 0
        self._reply = reply
        self._is_data = False

    async def __call__(self, verb: str, _argument: bytes) -> bytes | None:
        is_bdat = verb == "CONTENT" and not self._is_data
        self._is_data = verb == "DATA"
        self.refused += is_bdat
        return self._reply if is_bdat else None


@pytest.mark.parametrize(
    "reply",
    [
        b"500 5.5.1 unrecognized command",
        b"502 5.5.1 not implemented",
        b"503 5.5.1 bad sequence of commands",
        b"504 not implemented",
    ],
)
async def test_a_server_that_offers_bdat_and_refuses_it_gets_the_message_by_data(tmp_path: Path, reply: bytes) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        at.remote.extensions = (*EXTENSIONS, b"CHUNKING")
        at.remote.policy = policy = NoBdat(reply)
        for content in (b"hello\r\n", b"hello\r\n", LARGE):
            key = await at.send(content=content)
            await at.settled(key, "sent")
            assert at.message(key).attempts == 1
        assert policy.refused == 1
        assert at.remote.logins == 1
        assert len(at.remote.received) == 3
        assert await at.spool.relayhost_failure("default") is None
        assert await notices(at) == []


async def test_a_large_message_that_is_being_sent_by_bdat_is_sent_by_data(tmp_path: Path) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        at.remote.extensions = (*EXTENSIONS, b"CHUNKING")
        at.remote.policy = NoBdat(b"502 5.5.1 not implemented")
        key = await at.send(content=LARGE)
        await at.settled(key, "sent")
        assert len(at.remote.received) == 1


async def test_a_client_that_waits_hears_that_the_message_was_sent_by_data(tmp_path: Path) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        at.remote.extensions = (*EXTENSIONS, b"CHUNKING")
        at.remote.policy = NoBdat(b"502 5.5.1 not implemented")
        arrival = letter(at=time.time())
        waiter = at.scheduler.waiters.open(arrival.queue_id)
        at.scheduler.message_arrived(await at.spool.accept(arrival))
        result = await asyncio.wait_for(waiter.result, PATIENCE)
        assert isinstance(result, DeliveryResult) and result.taken == 1


@pytest.mark.parametrize(
    "reply",
    [b"555 5.5.4 Unsupported option: %b", b"501 5.5.4 parameter %b not recognized", b"504 %b is not implemented"],
)
async def test_a_parameter_that_was_offered_and_is_refused_is_left_out(tmp_path: Path, reply: bytes) -> None:
    async with running_relay(tmp_path, channels=1) as at:

        async def policy(verb: str, argument: bytes) -> bytes | None:
            return reply % b"SIZE" if verb == "MAIL" and b"SIZE=" in argument else None

        at.remote.policy = policy
        key = await at.send()
        await at.settled(key, "sent")
        assert at.message(key).attempts == 1
        assert b"SIZE=" not in at.remote.received[0].arguments[0]


async def test_pipelined_commands_that_are_refused_are_sent_one_by_one(tmp_path: Path) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        refused = 0

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            nonlocal refused
            if verb == "RCPT" and not refused:
                refused += 1
                return b"503 5.5.1 bad sequence of commands"
            return None

        at.remote.policy = policy
        key = await at.send()
        await at.settled(key, "sent")
        assert (at.message(key).attempts, refused) == (1, 1)


async def test_a_bad_sequence_between_two_messages_costs_a_new_conversation_and_nothing_else(tmp_path: Path) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        mails = 0

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            nonlocal mails
            mails += verb == "MAIL"
            return b"503 5.5.1 nested MAIL command" if verb == "MAIL" and mails == 2 else None

        at.remote.policy = policy
        first = await at.send()
        await at.settled(first, "sent")
        second = await at.send()
        await at.settled(second, "sent")
        assert at.message(second).attempts == 1
        assert (at.remote.logins, at.remote.channels) == (1, 2)
