"""What is owed is carried until it has been carried, whatever the backends and the ledger do."""

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
from mailrelay.notify import notifier as room
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


class Ledger:
    """What is owed, in memory, with a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = 1000.0
        self.due: dict[tuple[int, Backend], tuple[float, PendingNotice]] = {}
        self.told_by: list[tuple[int, Backend]] = []
        self.excuses: list[tuple[int, Backend, float, str]] = []
        self.reports: list[tuple[Envelope, bytes]] = []
        self.broken = False
        self.failures = 0
        self.changed = asyncio.Condition()

    def owe(self, notice: Notice, *by: Backend) -> None:
        for backend in by:
            self.due[notice.id, backend] = (self.clock, PendingNotice(notice, backend, 0))

    async def until(self, seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(seen)

    async def _check(self) -> None:
        async with self.changed:
            self.failures += self.broken
            self.changed.notify_all()
        if self.broken:
            raise OSError("disk I/O error")

    async def update_delays(self, after: float, backends: object) -> float | None:
        return None

    async def pending_notices(self) -> list[PendingNotice]:
        return [owed for at, owed in sorted(self.due.values(), key=lambda one: one[0]) if at <= self.clock]

    async def next_notice_due(self) -> float | None:
        return min((at for at, _ in self.due.values()), default=None)

    async def notice_delivered(self, owed: PendingNotice) -> None:
        await self._check()
        del self.due[owed.notice.id, owed.backend]
        async with self.changed:
            self.told_by.append((owed.notice.id, owed.backend))
            self.changed.notify_all()

    async def notice_failed(self, owed: PendingNotice, next_try: float, why: str) -> None:
        await self._check()
        again = dataclasses.replace(owed, tries=owed.tries + 1)
        self.due[owed.notice.id, owed.backend] = (next_try, again)
        async with self.changed:
            self.excuses.append((owed.notice.id, owed.backend, next_try - self.clock, why))
            self.changed.notify_all()

    async def content_start(self, message: int, limit: int) -> bytes:
        return ORIGINAL[:limit]

    async def accept_report(self, owed: PendingNotice, envelope: Envelope, content: bytes) -> None:
        self.reports.append((envelope, content))
        await self.notice_delivered(owed)


@contextlib.asynccontextmanager
async def notifying(settings: Notify, ledger: Ledger) -> AsyncIterator[Notifier]:
    notifier = Notifier(settings, ledger, 900.0, lazy, lambda: ledger.clock)
    running = asyncio.create_task(notifier.run())
    try:
        yield notifier
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def quiet(**wanted: object) -> Notify:
    return Notify(**{"desktop": False, "dsn": False, **wanted})  # type: ignore[arg-type]


def test_what_is_owed_is_carried_by_every_backend_once_and_said_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        ledger = Ledger()
        ledger.owe(refused(1), Backend.COMMAND, Backend.MAILBOX, Backend.DSN)
        settings = Notify(
            desktop=False, mailbox=tmp_path / "reports", command=("sh", "-c", f"cat >>'{tmp_path}/heard'")
        )
        async with notifying(settings, ledger):
            await ledger.until(lambda: len(ledger.told_by) == 3)
        assert ledger.due == {}

    with caplog.at_level(logging.INFO, "mailrelay.notify"):
        asyncio.run(main())
    assert len((tmp_path / "heard").read_text().splitlines()) == 1
    assert len(list((tmp_path / "reports" / "new").iterdir())) == 1
    assert sorted(caplog.messages) == [
        f"notice 1 failed told by {backend}" for backend in ("command", "dsn", "mailbox")
    ]


def test_what_becomes_owed_while_the_notifier_sleeps_is_told_at_the_ring(tmp_path: Path) -> None:
    async def main() -> None:
        ledger = Ledger()
        async with notifying(quiet(command=("true",)), ledger) as notifier:
            await asyncio.sleep(0)
            ledger.owe(refused(1), Backend.COMMAND)
            notifier.ring()
            await ledger.until(lambda: ledger.told_by == [(1, Backend.COMMAND)])

    asyncio.run(main())


def test_a_report_by_mail_goes_from_the_null_path_to_the_sender_and_names_only_who_wanted_it() -> None:
    async def main() -> list[tuple[Envelope, bytes]]:
        ledger = Ledger()
        never = dataclasses.replace(BOB, address=b"ann@example.net", notify=b"NEVER")
        ledger.owe(refused(1, BOB, never), Backend.DSN)
        async with notifying(quiet(dsn=True), ledger):
            await ledger.until(lambda: bool(ledger.told_by))
        return ledger.reports

    ((envelope, content),) = asyncio.run(main())
    assert envelope == Envelope(sender=b"", recipients=(Recipient(b"me@example.org"),))
    report = email.message_from_bytes(content, policy=email.policy.default)
    assert report["In-Reply-To"] == "<dinner@example.org>"
    assert b"bob@example.net" in content
    assert b"ann@example.net" not in content


def test_a_report_with_an_address_outside_ascii_asks_for_smtputf8() -> None:
    async def main() -> Envelope:
        ledger = Ledger()
        ledger.owe(refused(1, dataclasses.replace(BOB, address="jörg@example.net".encode())), Backend.DSN)
        async with notifying(quiet(dsn=True), ledger):
            await ledger.until(lambda: bool(ledger.told_by))
        return ledger.reports[0][0]

    envelope = asyncio.run(main())
    assert (envelope.smtputf8, envelope.body) == (True, b"8BITMIME")


def test_a_backend_that_fails_leaves_the_notice_owed_ever_later_and_other_backends_go_on(tmp_path: Path) -> None:
    async def main() -> list[float]:
        ledger = Ledger()
        ledger.owe(refused(1), Backend.COMMAND, Backend.MAILBOX)
        async with notifying(quiet(command=("false",), mailbox=tmp_path / "reports"), ledger) as notifier:
            for tries in range(1, 9):
                await ledger.until(lambda tries=tries: len(ledger.excuses) == tries)  # type: ignore[misc]
                ledger.clock += ledger.excuses[-1][2]
                notifier.ring()
            await ledger.until(lambda: ledger.told_by == [(1, Backend.MAILBOX)])
        assert (1, Backend.COMMAND) in ledger.due
        return [wait for _, _, wait, _ in ledger.excuses]

    assert asyncio.run(main())[:8] == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_a_backend_that_fixes_itself_carries_what_it_still_owes(tmp_path: Path) -> None:
    async def main() -> None:
        ledger = Ledger()
        ledger.owe(refused(1), Backend.MAILBOX)
        place = tmp_path / "reports"
        place.write_text("in the way")
        async with notifying(quiet(mailbox=place), ledger) as notifier:
            await ledger.until(lambda: len(ledger.excuses) == 1)
            assert "File exists" in ledger.excuses[0][3]
            place.unlink()
            ledger.clock += 60
            notifier.ring()
            await ledger.until(lambda: ledger.told_by == [(1, Backend.MAILBOX)])

    asyncio.run(main())


def test_a_backend_that_hangs_is_cut_off_and_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BACKEND_TIMEOUT", 1.0)

    async def main() -> None:
        ledger = Ledger()
        ledger.owe(refused(1), Backend.COMMAND)
        async with notifying(quiet(command=("sleep", "60"), mailbox=tmp_path / "reports"), ledger) as notifier:
            await asyncio.sleep(0)
            ledger.owe(refused(2), Backend.MAILBOX)
            notifier.ring()
            await ledger.until(lambda: len(ledger.excuses) == 1)
        assert ledger.told_by == [(2, Backend.MAILBOX)]
        assert "no answer within 1 s" in ledger.excuses[0][3]

    asyncio.run(main())


def test_a_ledger_that_fails_is_tried_again_and_nothing_is_told_twice_meanwhile(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        ledger = Ledger()
        ledger.owe(refused(1), Backend.COMMAND)
        ledger.broken = True
        async with notifying(quiet(command=("sh", "-c", f"cat >>'{tmp_path}/heard'")), ledger) as notifier:
            for failures in (1, 2):
                await ledger.until(lambda failures=failures: ledger.failures == failures)  # type: ignore[misc]
                for _ in range(50):
                    notifier.ring()
                    await asyncio.sleep(0)
                assert ledger.failures == failures
                ledger.clock += room.LEDGER_WAIT
                notifier.ring()
            await ledger.until(lambda: ledger.failures == 3)
            ledger.broken = False
            await asyncio.sleep(0)
            ledger.clock += room.LEDGER_WAIT
            notifier.ring()
            await ledger.until(lambda: ledger.told_by == [(1, Backend.COMMAND)])

    asyncio.run(main())
    assert len((tmp_path / "heard").read_text().splitlines()) == 1
    assert "notices wait, the spool fails: OSError: disk I/O error" in caplog.messages


def test_what_is_owed_by_a_backend_that_was_taken_out_of_the_settings_goes_by_one_that_is_in(tmp_path: Path) -> None:
    async def main() -> None:
        ledger = Ledger()
        ledger.owe(refused(1), Backend.URLS, Backend.DSN)
        async with notifying(quiet(mailbox=tmp_path / "reports"), ledger):
            await ledger.until(lambda: len(ledger.told_by) == 2)

    asyncio.run(main())
    assert len(list((tmp_path / "reports" / "new").iterdir())) == 2


def test_with_no_backend_at_all_the_notices_stay_owed_and_the_notifier_rests() -> None:
    async def main() -> None:
        ledger = Ledger()
        ledger.owe(refused(1), Backend.COMMAND)
        async with notifying(quiet(), ledger) as notifier:
            for _ in range(5):
                notifier.ring()
                await asyncio.sleep(0)
        assert (1, Backend.COMMAND) in ledger.due

    asyncio.run(main())


def test_however_often_it_is_rung_what_is_late_is_counted_once_in_a_while(tmp_path: Path) -> None:
    class Late(Ledger):
        looks = 0

        async def update_delays(self, after: float, backends: object) -> float | None:
            self.looks += 1
            return self.clock - 1

    async def main() -> None:
        ledger = Late()
        async with notifying(quiet(mailbox=tmp_path / "reports"), ledger) as notifier:
            for number in range(1, 5):
                ledger.owe(refused(number), Backend.MAILBOX)
                notifier.ring()
                await ledger.until(lambda number=number: len(ledger.told_by) == number)  # type: ignore[misc]
        assert ledger.looks == 1

    asyncio.run(main())


def test_a_look_at_the_ledger_that_is_overtaken_by_a_backend_tells_nothing_twice(tmp_path: Path) -> None:
    heard = tmp_path / "heard"

    class SlowLedger(Ledger):
        """Its second answer is old by the time it comes: the backend has told the notice meanwhile."""

        looks = 0

        async def pending_notices(self) -> list[PendingNotice]:
            answer = await super().pending_notices()
            self.looks += 1
            if self.looks == 2:
                (tmp_path / "go").touch()
                await self.until(lambda: bool(self.told_by))
            async with self.changed:
                self.changed.notify_all()
            return answer

    async def main() -> None:
        ledger = SlowLedger()
        ledger.owe(refused(1), Backend.COMMAND)
        wait = f"until [ -e '{tmp_path}/go' ]; do sleep 0.01; done; cat >>'{heard}'"
        async with notifying(quiet(command=("sh", "-c", wait)), ledger) as notifier:
            await ledger.until(lambda: ledger.looks == 1)
            notifier.ring()
            await ledger.until(lambda: ledger.looks == 3)
            ledger.owe(refused(2), Backend.COMMAND)
            notifier.ring()
            await ledger.until(lambda: (2, Backend.COMMAND) in ledger.told_by)
        assert ledger.told_by == [(1, Backend.COMMAND), (2, Backend.COMMAND)]

    asyncio.run(main())
    assert len(heard.read_text().splitlines()) == 2
