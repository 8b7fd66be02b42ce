"""The known fault of a relayhost: what is recorded and logged, and when it is over."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from mailrelay.config import Relayhost
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.notice import Kind
from mailrelay.mail.outcome import SETUP_REPLIES, Cause, Outcome, Reply, Stage
from mailrelay.ports import RelayhostFailure, RelayhostPort
from mailrelay.relay.fault import KnownFault
from mailrelay.relay.reach import Reach

NOW = 1_000_000.0
LOST = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="no route to\x1bhost.", fix="see the cable")
HOST_KEY = Outcome(Stage.HOST_KEY, cause=Cause.HOST_KEY_UNKNOWN, text="the host key is unknown")


class Spool:
    """Keeps one fault, as a spool would. is_told: whether its end makes a notice pending."""

    def __init__(self) -> None:
        self.failure: RelayhostFailure | None = None
        self.is_told = True
        self.setup: list[bool] = []
        self.next_dials: list[float] = []
        self.up: list[object] = []
        self.reads = 0
        self.noted: list[str] = []

    async def relayhost_failure(self, name: str) -> RelayhostFailure | None:
        self.reads += 1
        return self.failure

    async def relayhost_failed(
        self, name: str, outcome: Outcome, next_dial: float, is_setup: bool, backends: object
    ) -> None:
        failures = self.failure.failures + 1 if self.failure is not None else 1
        self.failure = RelayhostFailure(failures, next_dial, outcome.cause, outcome.text)
        self.setup.append(is_setup)
        self.next_dials.append(next_dial)

    async def relayhost_up(self, name: str, backends: object) -> bool:
        self.failure = None
        self.up.append(backends)
        return self.is_told

    async def note_stand_in(self, name: str, stand_in: str) -> None:
        self.noted.append(stand_in)


class Rig:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("random.random", lambda: 0.0)
        self.spool = Spool()
        self.notices = 0
        self.works: list[asyncio.Future[None]] = []
        policy = RetryPolicy(
            schedule=(60.0, 120.0, 300.0), expire_after=1e6, backends_for=cast(Any, lambda kind, *_: [kind])
        )
        relayhost = Relayhost(name="default", ssh="me@mx.example", ssh_config=Path("/"))
        self.fault = KnownFault(
            relayhost, cast(RelayhostPort, self.spool), policy, self._run, self._noticed, lambda: NOW
        )

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self.works.append(asyncio.ensure_future(work))

    def _noticed(self) -> None:
        self.notices += 1

    async def written(self) -> Sequence[object]:
        await asyncio.gather(*self.works)
        return self.spool.up


async def test_a_fault_is_recorded_with_the_next_dial_of_the_schedule_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(monkeypatch)
    assert rig.fault.text == ""
    assert await rig.fault.record(LOST) == "no route to\x1bhost."
    assert rig.fault.text == "no route to\x1bhost."
    await rig.fault.record(LOST)
    assert rig.spool.next_dials == [NOW + 60.0, NOW + 120.0]
    assert rig.spool.setup == [False, False]
    assert rig.notices == 2, "mail may have waited long enough for one"
    (first, second) = caplog.records
    assert first.levelno == second.levelno == logging.WARNING
    assert first.message == "relay=default unusable (dial: no route to\\x1bhost). see the cable"


async def test_a_fault_of_the_setup_is_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(monkeypatch)
    await rig.fault.record(HOST_KEY)
    assert rig.spool.setup == [True]
    assert caplog.records[0].levelno == logging.ERROR
    assert caplog.records[0].message.endswith(": the host key is unknown)")


@pytest.mark.parametrize("is_told", [True, False])
async def test_a_fault_is_over_when_the_mail_server_is_ready_and_that_is_said_once(
    is_told: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mailrelay")
    rig = Rig(monkeypatch)
    rig.spool.is_told = is_told
    await rig.fault.record(LOST)
    for _ in range(2):
        rig.fault.mail_server_ready()
        rig.fault.mail_judged()
    assert rig.fault.known is None
    assert await rig.written() == [[Kind.RESUMED]]
    assert rig.notices == 1 + is_told
    assert [one.message for one in caplog.records][1:] == ["relay=default usable again"]


@pytest.mark.parametrize("cause", [Cause.TURNED_AWAY, *sorted(SETUP_REPLIES)])
async def test_a_fault_of_a_mail_server_that_was_reached_is_over_when_it_has_judged_a_message(
    cause: Cause, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(monkeypatch)
    await rig.fault.record(Outcome(Stage.MAIL, Reply(550, (b"5.7.1 no",)), cause=cause))
    rig.fault.mail_server_ready()
    assert rig.fault.known is not None
    rig.fault.mail_judged()
    assert rig.fault.known is None


async def test_the_spool_is_not_asked_for_a_fault_that_is_over_until_there_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(monkeypatch)
    rig.spool.failure = RelayhostFailure(4, NOW + 5.0, Cause.UNREACHABLE, "of an earlier daemon")
    await rig.fault.read()
    assert rig.fault.text == "of an earlier daemon"
    rig.fault.mail_judged()
    await rig.written()
    reads = rig.spool.reads
    await rig.fault.read()
    assert rig.spool.reads == reads
    await rig.fault.record(LOST)
    rig.spool.failure = RelayhostFailure(9, NOW, Cause.UNREACHABLE, "changed by a command")
    await rig.fault.read()
    assert rig.fault.text == "changed by a command"


async def test_a_fault_that_ends_while_the_spool_is_read_stays_over(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch)
    await rig.fault.record(LOST)
    reading = rig.spool.relayhost_failure

    async def ends_meanwhile(name: str) -> RelayhostFailure | None:
        found = await reading(name)
        rig.fault.mail_judged()
        return found

    rig.spool.relayhost_failure = ends_meanwhile  # type: ignore[method-assign]
    await rig.fault.read()
    assert rig.fault.known is None


async def test_after_a_change_of_the_network_the_first_dials_come_soon_until_the_mail_server_was_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(monkeypatch)
    await rig.fault.record(LOST)
    rig.fault.network_changed()
    await rig.fault.record(LOST)
    assert rig.spool.next_dials[-1] < NOW + 60.0
    rig.fault.mail_server_ready()
    await rig.written()
    await rig.fault.record(LOST)
    assert rig.spool.next_dials[-1] == NOW + 60.0


# Whether it can be reached, and who sends meanwhile.


async def test_each_change_of_the_stand_in_is_written_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mailrelay")
    spool = Spool()
    reach = Reach(
        Relayhost(name="default", ssh="me@mx", ssh_config=Path("/"), fallback=("other",)), cast(RelayhostPort, spool)
    )
    changes = []
    for stand_in, is_unreachable in (("", True), ("", True), ("other", True), ("other", True), ("", False)):
        changes.append(await reach.update(stand_in, is_unreachable=is_unreachable, has_fault=is_unreachable))
    assert changes == [True, False, True, False, True]
    assert spool.noted == ["other"]
    assert [one.message for one in caplog.records] == [
        "relay=default cannot be reached, and no fallback of it: its mail waits",
        "relay=default cannot be reached: other sends its mail until it can",
        "relay=default can be reached again: it sends its mail itself",
    ]
    await reach.update("other", is_unreachable=True, has_fault=True)
    assert spool.noted == ["other", "other"], "the spool has cleared it with the fault"
    reach.cleared()
    assert not await reach.update("other", is_unreachable=True, has_fault=True)
    assert spool.noted == ["other"] * 3
    assert (reach.stand_in, reach.is_unreachable) == ("other", True)


async def test_a_relayhost_without_a_fallback_says_nothing_of_fallbacks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mailrelay")
    reach = Reach(Relayhost(name="default", ssh="me@mx", ssh_config=Path("/")), cast(RelayhostPort, Spool()))
    assert await reach.update("", is_unreachable=True, has_fault=True)
    assert await reach.update("", is_unreachable=False, has_fault=False)
    assert caplog.records == []
