"""Pending notices are delivered in the end, whatever the backends and the spool do."""

import asyncio
import contextlib
import dataclasses
import email
import email.policy
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mailrelay import lazy
from mailrelay.config import Notify
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.notice import Backend, Concerned, Kind, Notice, PendingNotice
from mailrelay.notify import delivery
from mailrelay.notify import notifier as notifier_module
from mailrelay.notify.notifier import Notifier

BOB = Concerned(b"bob@example.net", "bounced", "5.1.1", b"550 5.1.1 no such user", "RCPT", True)
ORIGINAL = b"Message-ID: <dinner@example.org>\r\n\r\nAt eight?\r\n"


def refused(number: int, *concerned: Concerned) -> Notice:
    return Notice(
        id=number,
        kind=Kind.FAILED,
        relayhost="default",
        created=0.0,
        message=number,
        queue_id=f"Q{number}",
        sender=b"me@example.org",
        size=len(ORIGINAL),
        concerned=concerned or (BOB,),
    )


class FakeSpool:
    """A spool in memory with pending notices, and a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = 1000.0
        self.due: dict[tuple[int, Backend], tuple[float, PendingNotice]] = {}
        self.delivered_by: list[tuple[int, Backend]] = []
        self.failed_tries: list[tuple[int, Backend, float, str]] = []
        self.reports: list[tuple[Envelope, bytes]] = []
        self.broken = False
        self.dropped: list[tuple[int, Backend]] = []
        self.failures = 0
        self.looks = 0
        self.changed = asyncio.Condition()

    def add(self, notice: Notice, *by: Backend) -> None:
        for backend in by:
            self.due[notice.id, backend] = (self.clock, PendingNotice(notice, backend, 0))

    async def until(self, seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(seen)

    async def looked_at_again(self) -> None:
        """Waits until the notifier has seen what is due, once more: all that it decided before has begun."""
        looks = self.looks
        await self.until(lambda: self.looks > looks)

    async def _check(self) -> None:
        async with self.changed:
            self.failures += self.broken
            self.changed.notify_all()
        if self.broken:
            raise OSError("disk I/O error")

    async def update_delays(self, after: float, backends: object) -> float | None:
        return None

    async def pending_notices(self) -> list[PendingNotice]:
        return [one for at, one in sorted(self.due.values(), key=lambda one: one[0]) if at <= self.clock]

    async def next_notice_due(self) -> float | None:
        async with self.changed:
            self.looks += 1
            self.changed.notify_all()
        return min((at for at, _ in self.due.values()), default=None)

    async def notice_delivered(self, pending: PendingNotice) -> None:
        await self._check()
        del self.due[pending.notice.id, pending.backend]
        async with self.changed:
            self.delivered_by.append((pending.notice.id, pending.backend))
            self.changed.notify_all()

    async def notice_failed(self, pending: PendingNotice, next_try: float, why: str) -> None:
        await self._check()
        again = dataclasses.replace(pending, tries=pending.tries + 1)
        self.due[pending.notice.id, pending.backend] = (next_try, again)
        async with self.changed:
            self.failed_tries.append((pending.notice.id, pending.backend, next_try - self.clock, why))
            self.changed.notify_all()

    async def notice_dropped(self, pending: PendingNotice) -> None:
        await self._check()
        del self.due[pending.notice.id, pending.backend]
        async with self.changed:
            self.dropped.append((pending.notice.id, pending.backend))
            self.changed.notify_all()

    async def content_start(self, message: int, limit: int) -> bytes:
        return ORIGINAL[:limit]

    async def accept_report(self, pending: PendingNotice, envelope: Envelope, content: bytes) -> None:
        self.reports.append((envelope, content))
        await self.notice_delivered(pending)


@contextlib.asynccontextmanager
async def notifying(settings: Notify, spool: FakeSpool) -> AsyncIterator[Notifier]:
    notifier = Notifier(settings, spool, 900.0, lazy, lambda: spool.clock)
    running = asyncio.create_task(notifier.run())
    try:
        yield notifier
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def quiet(**wanted: object) -> Notify:
    return Notify(**{"desktop": False, "dsn": False, **wanted})  # type: ignore[arg-type]


async def test_every_backend_delivers_a_pending_notice_once_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mailrelay.notify"):
        spool = FakeSpool()
        spool.add(refused(1), Backend.COMMAND, Backend.MAILBOX, Backend.DSN)
        settings = Notify(
            desktop=False, mailbox=tmp_path / "reports", command=("sh", "-c", f"cat >>'{tmp_path}/heard'")
        )
        async with notifying(settings, spool):
            await spool.until(lambda: len(spool.delivered_by) == 3)
        assert spool.due == {}
    assert len((tmp_path / "heard").read_text().splitlines()) == 1
    assert len(list((tmp_path / "reports" / "new").iterdir())) == 1
    assert sorted(caplog.messages) == [
        f"notice 1 failed delivered by {backend}" for backend in ("command", "dsn", "mailbox")
    ]


async def test_a_notice_that_becomes_pending_is_delivered_when_the_notifier_is_woken(tmp_path: Path) -> None:
    spool = FakeSpool()
    async with notifying(quiet(command=("true",)), spool) as notifier:
        await spool.looked_at_again()
        spool.add(refused(1), Backend.COMMAND)
        notifier.wake()
        await spool.until(lambda: spool.delivered_by == [(1, Backend.COMMAND)])


async def test_a_report_goes_from_the_null_path_to_the_sender_and_names_only_recipients_with_a_report_wanted() -> None:
    spool = FakeSpool()
    never = dataclasses.replace(BOB, address=b"ann@example.net", notify=b"NEVER")
    spool.add(refused(1, BOB, never), Backend.DSN)
    async with notifying(quiet(dsn=True), spool):
        await spool.until(lambda: bool(spool.delivered_by))
    ((envelope, content),) = spool.reports
    assert envelope == Envelope(sender=b"", recipients=(Recipient(b"me@example.org"),))
    report = email.message_from_bytes(content, policy=email.policy.default)
    assert report["In-Reply-To"] == "<dinner@example.org>"
    assert b"bob@example.net" in content
    assert b"ann@example.net" not in content


async def test_a_report_with_an_address_outside_ascii_requests_smtputf8() -> None:
    spool = FakeSpool()
    spool.add(refused(1, dataclasses.replace(BOB, address="jörg@example.net".encode())), Backend.DSN)
    async with notifying(quiet(dsn=True), spool):
        await spool.until(lambda: bool(spool.delivered_by))
    envelope = spool.reports[0][0]
    assert (envelope.smtputf8, envelope.body) == (True, b"8BITMIME")


async def test_a_failed_backend_is_tried_at_growing_intervals_and_other_backends_go_on(tmp_path: Path) -> None:
    async def main() -> list[float]:
        spool = FakeSpool()
        spool.add(refused(1), Backend.COMMAND, Backend.MAILBOX)
        async with notifying(quiet(command=("false",), mailbox=tmp_path / "reports"), spool) as notifier:
            for tries in range(1, 9):
                await spool.until(lambda tries=tries: len(spool.failed_tries) == tries)  # type: ignore[misc]
                spool.clock += spool.failed_tries[-1][2]
                notifier.wake()
            await spool.until(lambda: spool.delivered_by == [(1, Backend.MAILBOX)])
        assert (1, Backend.COMMAND) in spool.due
        return [wait for _, _, wait, _ in spool.failed_tries]

    assert (await main())[:8] == [60, 120, 240, 480, 960, 1920, 3600, 3600]


async def test_a_backend_that_works_again_delivers_the_pending_notice(tmp_path: Path) -> None:
    spool = FakeSpool()
    spool.add(refused(1), Backend.MAILBOX)
    place = tmp_path / "reports"
    place.write_text("in the way")
    async with notifying(quiet(mailbox=place), spool) as notifier:
        await spool.until(lambda: len(spool.failed_tries) == 1)
        assert "File exists" in spool.failed_tries[0][3]
        place.unlink()
        spool.clock += 60
        notifier.wake()
        await spool.until(lambda: spool.delivered_by == [(1, Backend.MAILBOX)])


async def test_a_backend_that_hangs_is_cancelled_and_delays_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "BACKEND_TIMEOUT", 1.0)

    spool = FakeSpool()
    spool.add(refused(1), Backend.COMMAND)
    async with notifying(quiet(command=("sleep", "60"), mailbox=tmp_path / "reports"), spool) as notifier:
        await spool.looked_at_again()
        spool.add(refused(2), Backend.MAILBOX)
        notifier.wake()
        await spool.until(lambda: len(spool.failed_tries) == 1)
    assert spool.delivered_by == [(2, Backend.MAILBOX)]
    assert "no answer within 1 s" in spool.failed_tries[0][3]


async def test_a_spool_that_fails_is_tried_again_and_no_notice_is_delivered_twice_meanwhile(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = FakeSpool()
    spool.add(refused(1), Backend.COMMAND)
    spool.broken = True
    async with notifying(quiet(command=("sh", "-c", f"cat >>'{tmp_path}/heard'")), spool) as notifier:
        for failures in (1, 2):
            await spool.until(lambda failures=failures: spool.failures == failures)  # type: ignore[misc]
            for _ in range(5):
                notifier.wake()
                await spool.looked_at_again()
            assert spool.failures == failures
            spool.clock += notifier_module.SPOOL_RETRY
            notifier.wake()
        await spool.until(lambda: spool.failures == 3)
        spool.broken = False
        # The end of the delivery that failed wakes the notifier.
        await spool.looked_at_again()
        spool.clock += notifier_module.SPOOL_RETRY
        notifier.wake()
        await spool.until(lambda: spool.delivered_by == [(1, Backend.COMMAND)])
    assert len((tmp_path / "heard").read_text().splitlines()) == 1
    assert "notices wait, the spool fails: OSError: disk I/O error" in caplog.messages


async def test_notices_that_wait_because_the_spool_failed_are_delivered_as_soon_as_it_can_be_used_again(
    tmp_path: Path,
) -> None:
    spool = FakeSpool()
    spool.add(refused(1), Backend.MAILBOX)
    spool.broken = True
    async with notifying(quiet(mailbox=tmp_path / "reports"), spool) as notifier:
        await spool.until(lambda: spool.failures == 1)
        await spool.looked_at_again()
        spool.broken = False
        notifier.resume()
        await spool.until(lambda: spool.delivered_by == [(1, Backend.MAILBOX)])


async def test_a_notice_for_a_backend_removed_from_the_settings_is_delivered_by_an_enabled_one(
    tmp_path: Path,
) -> None:
    spool = FakeSpool()
    spool.add(refused(1), Backend.URLS, Backend.DSN)
    async with notifying(quiet(mailbox=tmp_path / "reports"), spool):
        await spool.until(lambda: len(spool.delivered_by) == 2)
    assert len(list((tmp_path / "reports" / "new").iterdir())) == 2


async def test_a_removed_backend_is_replaced_by_the_desktop_only_if_there_is_no_other(tmp_path: Path) -> None:
    spool = FakeSpool()
    spool.add(refused(1), Backend.URLS)
    async with notifying(quiet(desktop=True, mailbox=tmp_path / "reports"), spool):
        await spool.until(lambda: spool.delivered_by == [(1, Backend.URLS)])
    assert len(list((tmp_path / "reports" / "new").iterdir())) == 1


async def test_where_only_reports_by_mail_are_left_a_notice_is_not_kept_for_a_removed_backend() -> None:
    spool = FakeSpool()
    spool.add(refused(1), Backend.DESKTOP, Backend.DSN)
    async with notifying(quiet(dsn=True), spool):
        await spool.until(lambda: spool.due == {})
    assert spool.dropped == [(1, Backend.DESKTOP)]
    assert len(spool.reports) == 1


async def test_without_any_backend_notices_stay_pending() -> None:
    spool = FakeSpool()
    spool.add(refused(1), Backend.COMMAND)
    async with notifying(quiet(), spool) as notifier:
        for _ in range(5):
            notifier.wake()
            await spool.looked_at_again()
    assert (1, Backend.COMMAND) in spool.due


async def test_however_often_it_is_woken_the_notifier_checks_delays_once_in_an_interval(tmp_path: Path) -> None:
    class Late(FakeSpool):
        checks = 0

        async def update_delays(self, after: float, backends: object) -> float | None:
            self.checks += 1
            return self.clock - 1

    spool = Late()
    async with notifying(quiet(mailbox=tmp_path / "reports"), spool) as notifier:
        for number in range(1, 5):
            spool.add(refused(number), Backend.MAILBOX)
            notifier.wake()
            await spool.until(lambda number=number: len(spool.delivered_by) == number)  # type: ignore[misc]
    assert spool.checks == 1


async def test_a_notice_delivered_while_the_spool_is_read_is_not_delivered_twice(tmp_path: Path) -> None:
    heard = tmp_path / "heard"

    class SlowSpool(FakeSpool):
        """Its second result is outdated when it arrives: the backend has delivered the notice meanwhile."""

        reads = 0

        async def pending_notices(self) -> list[PendingNotice]:
            result = await super().pending_notices()
            self.reads += 1
            if self.reads == 2:
                (tmp_path / "go").touch()
                await self.until(lambda: bool(self.delivered_by))
            async with self.changed:
                self.changed.notify_all()
            return result

    spool = SlowSpool()
    spool.add(refused(1), Backend.COMMAND)
    wait = f"until [ -e '{tmp_path}/go' ]; do sleep 0.01; done; cat >>'{heard}'"
    async with notifying(quiet(command=("sh", "-c", wait)), spool) as notifier:
        await spool.until(lambda: spool.reads == 1)
        notifier.wake()
        await spool.until(lambda: spool.reads == 3)
        spool.add(refused(2), Backend.COMMAND)
        notifier.wake()
        await spool.until(lambda: (2, Backend.COMMAND) in spool.delivered_by)
    assert spool.delivered_by == [(1, Backend.COMMAND), (2, Backend.COMMAND)]
    assert len(heard.read_text().splitlines()) == 2


async def test_mail_that_comes_while_the_notifier_looks_for_delays_is_looked_for_again(tmp_path: Path) -> None:
    """The read may have begun before the message was on disk."""

    class Busy(FakeSpool):
        def __init__(self) -> None:
            super().__init__()
            self.reads = 0
            self.is_reading, self.mail_has_come = asyncio.Event(), asyncio.Event()

        async def update_delays(self, after: float, backends: object) -> float | None:
            self.reads += 1
            if self.reads > 1:
                return self.clock + after
            self.is_reading.set()
            await self.mail_has_come.wait()
            return None

    spool = Busy()
    async with notifying(Notify(desktop=False, mailbox=tmp_path), spool) as notifier:
        await spool.is_reading.wait()
        notifier.start_delay_checks()
        spool.mail_has_come.set()
        await spool.until(lambda: spool.looks == 1)
        assert spool.reads == 2
