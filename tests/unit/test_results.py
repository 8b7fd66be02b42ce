"""The results of attempts: whom they are told, and what happens where the spool does not take them."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.outcome import Outcome, Reply, Stage
from mailrelay.mail.record import Record
from mailrelay.mail.spool_errors import SpoolBroken
from mailrelay.ports import RelayPort
from mailrelay.relay.results import Results
from mailrelay.relay.waiters import DeliveryResult, Queued

TAKEN = Outcome(Stage.CONTENT, Reply(250, (b"2.0.0 taken",)))
BUSY = Outcome(Stage.RCPT, Reply(451, (b"4.2.1 busy",)))
MESSAGE = Message(
    7, "bcdfghjk", "default", Envelope(b"a@example.org", (Recipient(b"b@example.net"),)), (1,), 100, 0.0, 0
)


class Spool:
    """Has the attempts that are `open`. error: what `record` raises."""

    def __init__(self, *open_attempts: int, error: Exception | None = None) -> None:
        self.open = set(open_attempts)
        self.error = error

    async def put_back(self, messages: Sequence[int]) -> list[int]:
        foreign = [key for key in messages if key not in self.open]
        self.open.difference_update(messages)
        return foreign

    async def record(self, end: Record) -> bool:
        if self.error is not None:
            raise self.error
        return end.message in self.open


class Told:
    """Results on a spool of the test's. calls: what they have called, in order."""

    def __init__(self, spool: Spool) -> None:
        self.calls: list[str] = []
        self.results = Results(
            cast(RelayPort, spool),
            RetryPolicy((600.0,), 432_000.0, lambda *_: ()),
            lambda: self.calls.append("notices"),
            lambda: self.calls.append("recorded"),
            lambda: self.calls.append("judged"),
            lambda: self.calls.append("accepted"),
            lambda key: self.calls.append(f"goes on {key}"),
            lambda: 0.0,
        )
        self.waiter = self.results.waiters.open(MESSAGE.queue_id)

    def finish(self, outcome: Outcome) -> None:
        self.results.finished(MESSAGE, [outcome], relays_dsn=False, dial_seconds=0.0, seconds=0.0)


@pytest.mark.parametrize(
    ("goes_on", "is_next", "calls"), [(True, True, ["goes on 7"]), (True, False, []), (False, False, [])]
)
async def test_a_message_that_was_not_tried_is_put_back_and_goes_on_before_mail_that_waits(
    goes_on: bool, is_next: bool, calls: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(7)
    told = Told(spool)
    assert not told.results.is_recording
    told.results.untried(MESSAGE, goes_on=goes_on, is_next=is_next)
    assert told.results.is_recording
    await told.results.close()
    assert not told.results.is_recording
    assert (spool.open, told.calls, caplog.text) == (set(), [*calls, "recorded"], "")
    assert told.waiter.result.done() is not goes_on
    if not goes_on:
        assert told.waiter.result.result() == Queued("the connection to the server was lost")


async def test_an_attempt_of_another_daemon_that_cannot_be_put_back_is_named_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = Told(Spool())
    told.results.put_back([MESSAGE])
    await told.results.close()
    assert "bcdfghjk: not put back: its attempt is not open, or not of this daemon" in caplog.text


@pytest.mark.parametrize(("key", "calls"), [(7, ["judged", "accepted", "recorded"]), (8, ["judged", "recorded"])])
async def test_an_outcome_that_the_spool_has_not_is_not_taken_for_an_accepted_message(
    key: int, calls: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(Spool(key))
    told.finish(TAKEN)
    await told.results.written()
    assert [call for call in told.calls if call != "judged"] == calls[1:]
    assert ("bcdfghjk: the outcome is not recorded" in caplog.text) == (key == 8)
    assert isinstance(told.waiter.result.result(), DeliveryResult)


async def test_an_outcome_that_is_recorded_late_reaches_the_client_and_until_then_nothing_new_is_accepted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(7, error=OSError("no space"))
    told = Told(spool)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert told.results.is_stuck
        if len(slept) == 8:
            spool.error = None

    monkeypatch.setattr(asyncio, "sleep", sleep)
    told.finish(BUSY)
    await told.results.written()
    assert slept == [1, 2, 4, 8, 16, 32, 60, 60]
    assert not told.results.is_stuck
    assert "bcdfghjk: what became of it cannot be recorded: no space; will try again" in caplog.text
    assert told.waiter.result.result() == Queued("451 4.2.1 busy")


async def test_where_the_spool_is_broken_the_client_hears_it_and_nothing_is_tried_again() -> None:
    told = Told(Spool(7, error=SpoolBroken("EIO")))
    told.finish(TAKEN)
    await told.results.written()
    assert told.results.is_stuck
    assert told.calls[-1] == "recorded"
    assert isinstance(told.waiter.result.result(), DeliveryResult)
