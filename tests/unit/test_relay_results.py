"""The end of attempts: what each party is told, in which order, and what the log says; records, rounds, claims, probes."""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from mailrelay.config import Relayhost
from mailrelay.mail.completion import Completion
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.lifecycle import State
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.mail.record import NewNotice, Place, Record, Settled
from mailrelay.mail.recorded import ReadExchange, RecordedExchange, Recording, RecordingState, UnreadExchange
from mailrelay.mail.spool_errors import SpoolBroken
from mailrelay.ports import RelayPort
from mailrelay.relay import records as records_module
from mailrelay.relay import results as results_module
from mailrelay.relay import waiters as waiters_module
from mailrelay.relay.claims import PORTION, Claims, dealt
from mailrelay.relay.jobs import MessageJob, ProbeQueue, RecipientProbe
from mailrelay.relay.records import MOST, Reading, Records, judge
from mailrelay.relay.results import Results
from mailrelay.relay.rounds import Rounds
from mailrelay.relay.waiters import DeliveryResult, NotTaken, Queued, Refused, Unconfirmed, Waiters
from mailrelay.smtp.record import Exchange
from mailrelay.ssh.interface import Connection, NotRecorded, RecordRead

TAKEN = Outcome(Stage.CONTENT, Reply(250, (b"2.0.0 taken",)))
BUSY = Outcome(Stage.RCPT, Reply(451, (b"4.2.1 busy",)))
REFUSED = Outcome(Stage.RCPT, Reply(550, (b"5.1.1 no such user",)))
TOO_MANY = Outcome(Stage.RCPT, Reply(452, (b"4.5.3 too many recipients",)))
HELD = Outcome(Stage.CONTENT, cause=Cause.UNREADABLE, text="damaged")
NOT_TRIED = Outcome(Stage.EHLO, Reply(550, (b"no",)))
NOW = 1000.0


def message(*addresses: bytes, **how: Any) -> Message:
    recipients = tuple(Recipient(address) for address in addresses or (b"b@example.net",))
    keys = tuple(range(11, 11 + len(recipients)))
    found = Message(7, "bcdfghjk", "default", Envelope(b"a@example.org", recipients), keys, 100, 900.0, 0)
    return dataclasses.replace(found, **how)


class Spool:
    """Has the attempt at message 7 open, or not. error: what its writes raise."""

    def __init__(self, *, is_open: bool = True, error: Exception | None = None) -> None:
        self.is_open, self.error = is_open, error
        self.written: list[object] = []
        self.accepted: list[tuple[Message, Record]] = []
        self.recording_known = Recording()
        self.unread: list[UnreadExchange] = []

    async def record(self, end: Record) -> bool:
        if self.error is not None:
            raise self.error
        self.written.append(end)
        return self.is_open

    async def put_back(self, messages: Sequence[int]) -> list[int]:
        if self.error is not None:
            raise self.error
        self.written.append(list(messages))
        return [] if self.is_open else list(messages)

    async def cancel_stopped(self, key: int) -> bool:
        if self.error is not None:
            raise self.error
        self.written.append(("cancel", key))
        return self.is_open

    async def note_exchange(self, key: int, exchange: RecordedExchange) -> None:
        self.written.append((key, exchange))

    async def resolve_exchanges(
        self, read: Sequence[ReadExchange], backends_for: Callable[..., object], *, is_followed: bool
    ) -> list[tuple[Message, Record]]:
        self.written.append((list(read), backends_for(Kind.FAILED, b"", b""), is_followed))
        return self.accepted

    async def recording(self, relayhost: str) -> Recording:
        self.written.append(relayhost)
        return self.recording_known

    async def unread_exchanges(self, _relayhost: str) -> list[UnreadExchange]:
        return self.unread

    async def note_recording(self, relayhost: str, known: Recording) -> None:
        self.written.append((relayhost, known))


class At:
    def __init__(self, spool: Spool | None = None, *, is_followed: bool = True) -> None:
        self.spool = spool or Spool()
        self.calls: list[str] = []
        self.results = Results(
            cast(RelayPort, self.spool),
            RetryPolicy((600.0, 1200.0), 432_000.0, lambda *_: (Backend.DESKTOP,)),
            lambda: self.calls.append("notices"),
            lambda: self.calls.append("recorded"),
            lambda: self.calls.append("judged"),
            lambda: self.calls.append("accepted"),
            lambda key: self.calls.append(f"goes on {key}"),
            lambda: NOW,
            is_followed=is_followed,
            returned=lambda: self.calls.append("returned"),
        )
        self.waiter = self.results.waiters.open("bcdfghjk")

    async def finish(self, of: Message, *outcomes: Outcome) -> Record:
        self.results.finished(of, outcomes, relays_dsn=False, dial_seconds=0.5, seconds=0.25)
        await self.results.close()
        return cast(Record, self.spool.written[-1])


@pytest.mark.parametrize(
    ("outcome", "calls", "level", "words"),
    [
        (TAKEN, ["judged", "accepted", "recorded"], logging.INFO, "status=sent (250 2.0.0 taken)"),
        (BUSY, ["judged", "recorded"], logging.INFO, "status=deferred (451 4.2.1 busy)"),
        (REFUSED, ["judged", "notices", "recorded"], logging.ERROR, "status=bounced (550 5.1.1 no such user)"),
        (HELD, ["notices", "recorded"], logging.ERROR, "status=held (damaged)"),
    ],
)
async def test_each_end_of_an_attempt_is_logged_at_its_level_and_told(
    outcome: Outcome, calls: list[str], level: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    at = At()
    at.results.waiters.close("bcdfghjk")
    record = await at.finish(message(), outcome)
    assert at.calls == calls
    assert (record.message, record.now, record.dialled, record.transaction) == (7, NOW, 0.5, 0.25)
    assert record.is_followed
    (logged,) = caplog.records
    assert (logged.levelno, logged.name) == (level, "mailrelay.relay")
    assert logged.message.startswith("bcdfghjk to=<b@example.net> relay=default")
    assert logged.message.endswith(words)


async def test_an_expired_recipient_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await At().finish(message(arrival=-1e9, attempts=5), BUSY)
    assert [one.levelno for one in caplog.records] == [logging.ERROR]


async def test_the_clients_result_counts_recipients(caplog: pytest.LogCaptureFixture) -> None:
    at = At()
    of = message(b"b@example.net", b"c@example.net", b"d@example.net")
    await at.finish(of, TAKEN, REFUSED, BUSY)
    assert at.waiter.result.result() == DeliveryResult(
        1,
        TAKEN.reply,
        (
            NotTaken(b"c@example.net", State.BOUNCED, b"550 5.1.1 no such user"),
            NotTaken(b"d@example.net", State.DEFERRED, b"451 4.2.1 busy"),
        ),
        0,
    )
    assert cast(DeliveryResult, at.waiter.result.result()).total == 3
    assert [one.levelno for one in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize(
    ("outcomes", "is_queued"), [((BUSY, BUSY), True), ((BUSY, REFUSED), False), ((TAKEN, TAKEN), False)]
)
async def test_a_client_whose_recipients_all_wait_for_the_same_reason_hears_that(
    outcomes: tuple[Outcome, ...], is_queued: bool
) -> None:
    at = At()
    await at.finish(message(b"b@example.net", b"c@example.net"), *outcomes)
    found = at.waiter.result.result()
    assert (found == Queued("451 4.2.1 busy")) is is_queued
    assert isinstance(found, DeliveryResult) is not is_queued


@pytest.mark.parametrize("told", [True, False, None])
async def test_a_refusal_that_the_client_has_received_is_no_bounce(
    told: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = At()

    async def tell() -> None:
        await at.waiter.result
        await asyncio.sleep(0)
        at.waiter.told.set_result(bool(told))

    if told is None:
        monkeypatch.setattr(waiters_module, "TOLD_WITHIN", 0.0)
    else:
        telling = asyncio.ensure_future(tell())
    record = await at.finish(message(), REFUSED)
    if told is not None:
        await telling
    assert at.waiter.result.result() == Refused(REFUSED)
    assert [one.state for one in record.settled] == [State.REFUSED if told else State.BOUNCED]
    assert ("notices" in at.calls) is not told


async def test_a_refusal_of_a_part_of_a_round_is_not_told_as_that_of_the_message() -> None:
    at = At()
    at.waiter.told.set_result(True)
    record = await at.finish(message(is_continued=True), REFUSED)
    assert (record.place, record.settled[0].state) == (Place.LAST, State.BOUNCED)
    assert isinstance(at.waiter.result.result(), DeliveryResult)


async def test_a_round_goes_on_and_the_client_waits_for_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    at = At()
    record = await at.finish(message(b"b@example.net", b"c@example.net"), TAKEN, TOO_MANY)
    assert record.place is Place.GOES_ON
    assert at.calls == ["judged", "accepted", "goes on 7", "recorded"]
    assert not at.waiter.result.done()
    assert caplog.records[-1].message.startswith("bcdfghjk nrcpt=1 relay=default status=goes-on")
    assert at.results.rounds.limit == 1
    at.calls.clear()
    await at.finish(message(b"c@example.net", is_continued=True, recipient_ids=(12,)), REFUSED)
    assert at.calls == ["judged", "notices", "recorded"]
    assert at.waiter.result.result() == DeliveryResult(
        1, TAKEN.reply, (NotTaken(b"c@example.net", State.BOUNCED, b"550 5.1.1 no such user"),), 0
    )


async def test_the_end_of_a_round_makes_its_notices_pending_also_without_new_ones() -> None:
    at = At()
    await at.finish(message(is_continued=True), TAKEN)
    assert "notices" in at.calls


async def test_a_message_that_was_not_tried_is_put_back_with_the_reason() -> None:
    at = At()
    assert await at.finish(message(), NOT_TRIED) == [7]
    assert (at.waiter.result.result(), at.calls) == (Queued("550 no"), ["recorded"])


@pytest.mark.parametrize("fallback_for", ["", "other"])
async def test_mail_that_was_taken_in_the_place_of_another_relayhost_may_be_there_again(fallback_for: str) -> None:
    of = message(fallback_for=fallback_for)
    for outcome in (TAKEN, NOT_TRIED):
        at = At()
        await at.finish(of, outcome)
        assert ("returned" in at.calls) is bool(fallback_for)


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_stopped_message_is_cancelled(is_open: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    at, ended = At(Spool(is_open=is_open)), []
    at.results.cancelled(message(), lambda *, is_cancelled: ended.append(is_cancelled))
    await at.results.close()
    assert (at.spool.written, ended, at.calls) == ([("cancel", 7)], [is_open], ["recorded"])
    assert at.waiter.result.done() is is_open
    if is_open:
        assert at.waiter.result.result() == Queued("it was cancelled")
        assert "bcdfghjk: cancelled while it was being sent, before the end of its content" in caplog.text
    else:
        assert "bcdfghjk: not cancelled: its attempt is not open, or not of this daemon" in caplog.text


@pytest.mark.parametrize("work", ["finished", "cancelled", "put_back"])
async def test_a_spool_that_is_broken_is_left_to_the_daemon(work: str, caplog: pytest.LogCaptureFixture) -> None:
    at, ended = At(Spool(error=SpoolBroken("EIO"))), []
    if work == "finished":
        at.results.finished(message(), [BUSY], relays_dsn=False, dial_seconds=0, seconds=0)
    elif work == "cancelled":
        at.results.cancelled(message(), lambda *, is_cancelled: ended.append(is_cancelled))
    else:
        at.results.put_back([message()])
    assert at.results.is_recording
    await at.results.written()
    assert not at.results.is_recording
    assert at.results.is_stuck is (work == "finished")
    assert ended == ([False] if work == "cancelled" else [])
    assert [one for one in caplog.records if one.levelno >= logging.CRITICAL] == []
    if work == "finished":
        assert at.waiter.result.result() == Unconfirmed()


async def test_work_that_fails_otherwise_is_critical(caplog: pytest.LogCaptureFixture) -> None:
    at = At()

    async def fail() -> None:
        raise OSError("no")

    at.results.run_to_end(fail())
    await at.results.written()
    assert [(one.levelno, one.message) for one in caplog.records] == [
        (logging.CRITICAL, "the spool cannot be written: no")
    ]
    assert at.calls == ["recorded"]


async def test_what_cannot_be_recorded_is_given_up_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert results_module.LAST_WAIT > 0
    monkeypatch.setattr(results_module, "LAST_WAIT", 0.0)
    at = At(Spool(error=OSError("no")))
    at.results.finished(message(), [BUSY], relays_dsn=False, dial_seconds=0, seconds=0)
    await at.results.close()
    await at.results.written()
    assert not at.results.is_recording
    assert not at.results.is_stuck


async def test_records_that_are_read_later_are_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    at = At()
    await at.results.read_later([])
    assert at.calls == []
    settled = (Settled(11, State.SENT, TAKEN, uncertain=False),)
    with_notice = Record(7, NOW, settled, None, (NewNotice(Kind.RELAYED, (11,), (Backend.DSN,)),))
    at.spool.accepted = [(message(), with_notice), (message(), dataclasses.replace(with_notice, notices=()))]
    read = [ReadExchange(3, 7, (11,))]
    await at.results.read_later(read)
    assert at.spool.written[-1] == (read, (Backend.DESKTOP,), True)
    assert at.calls == ["returned", "notices", "accepted", "accepted"]
    assert caplog.text.count("status=sent (250 2.0.0 taken; read from the record of the conversation)") == 2


async def test_a_planned_exchange_is_noted() -> None:
    at = At()
    exchange = RecordedExchange("0" * 32, 2, (11,), has_data=True, relays_dsn=False)
    at.results.planned(message(), exchange)
    await at.results.written()
    assert at.spool.written == [(7, exchange)]


# Clients.


async def test_a_client_waits_at_the_relayhost_that_sends_its_message() -> None:
    everybody: dict[str, Any] = {}
    home, other = Waiters(everybody), Waiters(everybody)
    waiter = home.open("a", "home")
    assert (home.queue_ids, other.queue_ids, other.home("a")) == ({"a"}, frozenset(), "home")
    other.adopt("a")
    other.adopt("unknown")
    assert (home.queue_ids, other.queue_ids) == (frozenset(), {"a"})
    home.tell("a", Queued("x"))
    assert (waiter.result.result(), everybody) == (Queued("x"), {})
    other.tell("a", Queued("y"))
    second = home.open("b")
    home.close("b")
    home.close("b")
    home.tell("b", Queued("z"))
    assert not second.result.done()
    assert not await home.tell_refusal("b", Refused(REFUSED))
    third = home.open("c")
    third.result.set_result(Queued("before"))
    assert not await home.tell_refusal("c", Refused(REFUSED))
    assert home.queue_ids == frozenset()


@pytest.mark.parametrize("is_broken", [True, False])
@pytest.mark.parametrize("is_sent", [True, False])
async def test_with_a_broken_spool_only_what_was_sent_is_confirmed(is_broken: bool, is_sent: bool) -> None:
    waiters = Waiters()
    waiter = waiters.open("a")
    waiters.is_spool_broken = is_broken
    result = DeliveryResult(1, TAKEN.reply, (), 0 if is_sent else 1)
    waiters.tell("a", result)
    assert waiter.result.result() == (Unconfirmed() if is_broken and not is_sent else result)


async def test_the_parts_of_a_round_are_one_result() -> None:
    waiters = Waiters()
    waiter = waiters.open("a")
    later = NotTaken(b"b@c", State.DEFERRED, b"later")
    other = Reply(250, (b"other",))
    waiters.add("unknown", DeliveryResult(9, None, ()))
    waiters.add("a", DeliveryResult(2, TAKEN.reply, (), 5))
    waiters.add("a", DeliveryResult(0, None, (later,), 4))
    waiters.tell("a", DeliveryResult(1, other, (later,), 3, "why"))
    assert waiter.result.result() == DeliveryResult(3, other, (later, later), 3, "why")
    waiter = waiters.open("b")
    waiters.add("b", DeliveryResult(2, TAKEN.reply, (), 5))
    waiters.tell("b", Queued("the connection was lost"))
    assert waiter.result.result() == DeliveryResult(2, TAKEN.reply, (), 5, "the connection was lost")


# Rounds.


def test_a_round_offers_each_recipient_once_and_at_most_its_limit() -> None:
    rounds = Rounds()
    of = message(b"b@x", b"c@x", b"d@x", b"e@x")
    assert rounds.part(of) is of
    rounds.limit = 4
    assert rounds.part(of) is of
    rounds.limit = 2
    first = rounds.part(of)
    assert (first.recipient_ids, first.later, first.waiting, first.is_continued) == ((11, 12), 2, 0, False)
    assert [one.address for one in first.envelope.recipients] == [b"b@x", b"c@x"]
    settled = (Settled(11, State.SENT, TAKEN, False), Settled(12, State.DEFERRED, BUSY, False))
    rounds.ended(first, (TAKEN, BUSY), Record(7, NOW, settled, NOW, (), place=Place.GOES_ON))
    left = dataclasses.replace(
        of, recipient_ids=of.recipient_ids[1:], envelope=Envelope(b"a@x", of.envelope.recipients[1:])
    )
    second = rounds.part(left)
    assert (second.recipient_ids, second.later, second.waiting, second.is_continued) == ((13, 14), 0, 1, True)
    # Only the deferred one is left: the person has cancelled the others.
    alone = dataclasses.replace(of, recipient_ids=(12,), envelope=Envelope(b"a@x", of.envelope.recipients[1:2]))
    third = rounds.part(alone)
    assert (third.recipient_ids, third.later, third.waiting, third.is_continued) == ((12,), 0, 0, True)
    rounds.ended(second, (TAKEN, TAKEN), Record(7, NOW, (), None, (), place=Place.LAST))
    assert rounds.part(alone) is alone


def test_the_smallest_limit_counts_and_a_cancelled_message_is_forgotten() -> None:
    rounds = Rounds()
    of = message(b"b@x", b"c@x")
    going_on = Record(7, NOW, (Settled(12, State.DEFERRED, BUSY, False),), NOW, (), place=Place.GOES_ON)
    for outcomes, limit in (
        ((BUSY, BUSY), None),
        ((TAKEN, TAKEN, TOO_MANY), 2),
        ((TAKEN, TAKEN, TAKEN, TOO_MANY), 2),
        ((TAKEN, TOO_MANY), 1),
    ):
        rounds.ended(of, outcomes, going_on)
        assert rounds.limit == limit
    assert rounds.part(of).is_continued
    rounds.forget(7)
    rounds.forget(7)
    assert not rounds.part(of).is_continued


# Records.


class There:
    """A connection with records. reads: what each call of `read_records` brings."""

    def __init__(self, *reads: Mapping[str, RecordRead] | Exception) -> None:
        self.is_up = True
        self.reads = list(reads)
        self.asked: list[Sequence[str]] = []
        self.removed: list[str] = []
        self.fails_to_remove = False

    async def read_records(self, tokens: Sequence[str]) -> Mapping[str, RecordRead]:
        self.asked.append(tokens)
        found = self.reads.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def remove_records(self, tokens: Sequence[str]) -> None:
        assert tokens
        if self.fails_to_remove:
            raise NotRecorded("no")
        self.removed += tokens


def unread(token: str, attempt: int = 3) -> UnreadExchange:
    return UnreadExchange(attempt, 7, "bcdfghjk", RecordedExchange(token, 2, (11,), has_data=False, relays_dsn=False))


OPENING = b"220 mx\r\n250 mx\r\n"
SENT = RecordRead(OPENING + b"250 a\r\n250 b\r\n250 2.0.0 taken\r\n", is_complete=False)
NOT_TAKEN = RecordRead(OPENING + b"250 a\r\n250 b\r\n", is_complete=True)
GROWING = RecordRead(OPENING, is_complete=False, is_growing=True)
POSSIBLE = Recording(RecordingState.POSSIBLE)


def records(at: At, **how: Any) -> tuple[Records, list[str]]:
    changes: list[str] = []
    relayhost = Relayhost(name="default", ssh="server", ssh_config=Path("/nowhere"), **how)
    found = Records(relayhost, cast(RelayPort, at.spool), at.results, lambda: changes.append("changed"), lambda: NOW)
    return found, changes


async def test_a_record_that_grows_is_read_again_and_others_are_removed_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(records_module.asyncio, "sleep", sleep)
    at = At()
    found, changes = records(at)
    one, other, third = "1" * 32, "2" * 32, "3" * 32
    again = {one: NOT_TAKEN, other: GROWING}
    there = There(
        NotRecorded("no session", is_temporary=True), again, {other: dataclasses.replace(SENT, is_growing=False)}
    )
    found.is_reading, found.is_wanted = True, False
    exchanges = [unread(one), unread(other, 4), unread(third, 5)]
    await found.read(cast(Connection, there), Reading(exchanges, ["9" * 32]))
    assert there.asked == [[one, other, third], [one, other, third], [other]]
    assert slept == [records_module.AGAIN]
    assert there.removed == [one, other, "9" * 32]
    read = [one for written in at.spool.written for one in cast(tuple[list[ReadExchange]], written)[0]]
    assert read == [
        ReadExchange(3, 7, (), (11,)),
        ReadExchange(5, 7),
        ReadExchange(4, 7, (11,), (), Reply(250, (b"2.0.0 taken",))),
    ]
    assert (found.is_reading, found.is_wanted, found.has_needless, changes) == (False, False, False, ["changed"])
    said = [one.message for one in caplog.records]
    assert said == [
        "relay=default: no record could be read: no session",
        "bcdfghjk: relay=default: its record says that the mail server has not taken it; it is sent again",
        "bcdfghjk: relay=default: there is no record of it; it is sent again and may arrive twice",
    ]
    assert {one.name for one in caplog.records} == {"mailrelay.relay"}


async def test_a_record_that_grows_for_too_long_is_judged_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    at = At()
    found, _ = records(at)
    monkeypatch.setattr(records_module, "READ_LIMIT", -1.0)
    there = There({"1" * 32: GROWING})
    there.fails_to_remove = True
    await found.read(cast(Connection, there), Reading([unread("1" * 32)], []))
    assert [len(tokens) for tokens in there.asked] == [1]
    assert there.removed == []
    assert found.is_wanted is None


async def test_a_connection_that_is_lost_leaves_its_records_to_the_next_one() -> None:
    at = At()
    found, changes = records(at)
    there = There(NotRecorded("lost"))
    there.is_up = False
    found.is_wanted = False
    await found.read(cast(Connection, there), Reading([unread("1" * 32)], ["9" * 32]))
    assert (found.is_wanted, found.has_needless, changes, at.spool.written) == (True, True, ["changed"], [])


async def test_what_is_to_be_read_is_asked_once_and_what_is_over_is_removed() -> None:
    at = At()
    at.spool.recording_known = POSSIBLE
    at.spool.unread = [unread("1" * 32)]
    found, changes = records(at)
    assert (found.is_wanted, found.is_possible, found.has_needless) == (None, False, False)
    await found.ask()
    await found.ask()
    assert (found.is_wanted, found.is_possible, at.spool.written) == (True, True, ["default"])
    token = found.begin()
    assert len(token) == 32
    assert int(token, 16) >= 0
    found.is_wanted = False
    found.ended(token, leaves_doubt=False)
    assert (found.is_wanted, found.has_needless, changes) == (False, True, ["changed"])
    reading = await found.begin_reading()
    assert reading == Reading(at.spool.unread, [token])
    assert (found.is_reading, found.is_wanted, found.has_needless) == (True, False, False)
    found.ended("2" * 32, leaves_doubt=True)
    assert (found.is_wanted, changes) == (True, ["changed"] * 2)


async def test_some_conversations_are_recorded_at_once_and_one_tries_where_it_is_not_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    at = At()
    found, _ = records(at)
    assert found.begin()
    assert found.begin() == ""
    found.started()
    assert found.is_possible
    assert [bool(found.begin()) for _ in range(MOST - 1)] == [True] * (MOST - 1)
    assert found.begin() == ""
    found.refused(NotRecorded("no more sessions", is_temporary=True))
    # Others are being recorded: the server allows no more than these.
    assert found.is_possible
    assert found.begin() == ""
    found.ended("1" * 32, leaves_doubt=False)
    assert found.begin()
    found.connected()
    assert found.begin()
    assert found.begin() == ""
    found.started()
    await at.results.written()
    assert at.spool.written == [("default", POSSIBLE)]
    assert [one.message for one in caplog.records] == ["relay=default records conversations from now on"]


async def test_a_relayhost_that_cannot_record_is_tried_again_later(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    at = At()
    found, _ = records(at)
    assert found.begin()
    found.refused(NotRecorded("no perl"))
    assert (found.is_possible, found.begin()) == (False, "")
    await at.results.written()
    known = Recording(RecordingState.IMPOSSIBLE, NOW + 86_400)
    assert at.spool.written == [("default", known)]
    assert [one.message for one in caplog.records] == ["relay=default keeps no record of conversations: no perl"]


@pytest.mark.parametrize(("how", "is_allowed"), [({}, True), ({"record": "no"}, False), ({"command": "x"}, False)])
async def test_records_are_kept_where_the_settings_allow_it(how: dict[str, str], is_allowed: bool) -> None:
    found, _ = records(At(), **how)
    assert bool(found.begin()) is is_allowed


def test_a_record_is_judged_for_the_recipients_of_its_attempt() -> None:
    exchange = RecordedExchange("1" * 32, 2, (11, 12), has_data=True, relays_dsn=False)
    octets = OPENING + b"250 a\r\n250 b\r\n550 c\r\n354 go\r\n250 taken\r\n"
    one = UnreadExchange(3, 7, "bcdfghjk", exchange)
    assert judge(one, RecordRead(octets, is_complete=False)) == ReadExchange(
        3, 7, (11,), (12,), Reply(250, (b"taken",))
    )


# Claims.


class Taking:
    """A spool that gives messages. asked: the arguments of each call."""

    def __init__(self, *portions: list[Message] | Exception) -> None:
        self.portions = list(portions)
        self.asked: list[tuple[object, ...]] = []

    async def take(self, *asked: object) -> list[Message]:
        self.asked.append(asked)
        await asyncio.sleep(0)
        found = self.portions.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def put_back(self, messages: Sequence[int]) -> list[int]:
        self.asked.append(("back", *messages))
        return []


def claims(taking: Taking, *, may_begin: bool = True) -> tuple[Claims, list[Exception], Results]:
    failures: list[Exception] = []
    results = At(cast(Spool, taking)).results
    found = Claims(
        "default", cast(RelayPort, taking), results, lambda: may_begin, failures.append, Completion, lambda: ("other",)
    )
    return found, failures, results


def numbered(*keys: int) -> list[Message]:
    return [dataclasses.replace(message(), id=key) for key in keys]


async def test_conversations_that_ask_together_share_a_commit_and_are_dealt_to() -> None:
    taking = Taking(numbered(1, 2, 3), numbered(4))
    found, failures, _ = claims(taking)
    found.new = dict.fromkeys((3, 9, 8, 7))
    asking = [asyncio.ensure_future(found.ask(limit)) for limit in (2, PORTION + 5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert found.asking == 2
    first, second = await asyncio.gather(*asking)
    assert [[one.id for one in portion] for portion in (first, second)] == [[1, 3], [2]]
    assert taking.asked == [("default", [3, 9], 2, PORTION, Completion(), ("other",))]
    assert (found.claimed, found.asking, list(found.new), failures) == (3, 0, [8, 7], [])
    assert [one.id for one in await found.ask(1)] == [4]
    assert found.claimed == 4


async def test_a_claim_that_fails_or_may_not_begin_gives_nothing() -> None:
    error = OSError("no")
    found, failures, _ = claims(Taking(error))
    found.new = {3: None}
    assert await found.ask(2) == []
    assert (failures, found.new, found.claimed) == ([error], {}, 0)
    taking = Taking()
    found, failures, _ = claims(taking, may_begin=False)
    found.new = {3: None}
    assert await found.ask(2) == []
    assert (taking.asked, list(found.new)) == ([], [3])


async def test_what_a_conversation_does_not_take_any_more_is_put_back() -> None:
    taking = Taking(numbered(1, 2))
    found, _, results = claims(taking)
    asking = asyncio.ensure_future(found.ask(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await results.written()
    await results.written()
    assert taking.asked[1:] == [("back", 1, 2)]
    assert found.asking == 0


def test_messages_are_dealt_one_at_a_time_within_each_limit() -> None:
    keys = [[one.id for one in portion] for portion in dealt(numbered(1, 2, 3, 4, 5), [1, 3, 1])]
    assert keys == [[1], [2, 4, 5], [3]]
    assert dealt([], [1, 2]) == [[], []]


# Jobs.


class Ends:
    """Takes the ends of a job."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def finished(self, of: Message, outcomes: Sequence[Outcome], **how: object) -> None:
        self.calls.append(("finished", of.id, outcomes, how))

    def untried(self, of: Message, **how: object) -> None:
        self.calls.append(("untried", of.id, how))

    def cancelled(self, of: Message, ended: Callable[..., None]) -> None:
        self.calls.append(("cancelled", of.id))
        ended(is_cancelled=True)

    def planned(self, of: Message, exchange: RecordedExchange) -> None:
        self.calls.append(("planned", of.id, exchange))


async def test_a_job_of_a_message_ends_once_and_is_in_progress_until_then() -> None:
    ends, in_progress = Ends(), {}
    of = message(b"b@x", b"c@x")

    def job() -> MessageJob:
        return MessageJob(of, cast(Any, lambda key: f"pieces of {key}"), cast(Any, ends), lambda: 0.5, in_progress)

    one = job()
    assert (one.envelope, one.size, one.queue_id, one.pieces()) == (of.envelope, 100, "bcdfghjk", "pieces of 7")
    assert in_progress == {7: one}
    one.planned("t", Exchange(2, (1,), has_data=True), relays_dsn=True)
    assert ends.calls.pop() == ("planned", 7, RecordedExchange("t", 2, (12,), has_data=True, relays_dsn=True))
    one.finish([TAKEN], relays_dsn=True, seconds=2.0)
    how = {"relays_dsn": True, "dial_seconds": 0.5, "seconds": 2.0}
    assert (ends.calls.pop(), in_progress) == (("finished", 7, [TAKEN], how), {})
    assert one.transfer.ended.is_set()
    one = job()
    one.give_back(goes_on=True)
    assert (ends.calls.pop(), in_progress) == (("untried", 7, {"goes_on": True, "is_next": False}), {})
    assert one.transfer.ended.is_set()
    one = job()
    one.cancel()
    assert (ends.calls.pop(), in_progress) == (("cancelled", 7), {})
    assert (one.transfer.ended.is_set(), one.transfer.is_cancelled) == (True, True)


async def test_probes_are_asked_in_their_order_but_for_withdrawn_ones() -> None:
    probes = ProbeQueue()
    first, second, third = (probes.add(message().envelope) for _ in range(3))
    first.reply.cancel()
    assert list(probes.next()) == [second]
    second.finish([REFUSED, TAKEN], relays_dsn=False, seconds=0)
    second.give_back()
    assert second.reply.result() == REFUSED
    probes.give_back()
    assert third.reply.result() is None
    assert list(probes.next()) == []
    assert (first.size, first.queue_id) == (None, "")
    for call in (first.pieces, first.cancel, lambda: first.planned("t", Exchange(0, (), False), relays_dsn=False)):
        with pytest.raises(RuntimeError, match="has no content"):
            call()
    assert isinstance(first, RecipientProbe)
