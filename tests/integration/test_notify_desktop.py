"""The desktop backend, with a real message bus and a notification service that belong to the test."""

import asyncio
import contextlib
import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
from harness.desktop import a_screen
from harness.desktop import bus as bus
from harness.loops import on_both_loops
from harness.waiting import until

from mailrelay import lazy
from mailrelay.config import Notify
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.notice import Backend, Concerned, Kind, Notice, PendingNotice
from mailrelay.notify import desktop as desktop_module
from mailrelay.notify.backend import BackendFailed, BackendMissing
from mailrelay.notify.desktop import Desktop
from mailrelay.notify.notifier import DESKTOP_PAUSE, Notifier
from mailrelay.notify.open_page import page_command

pytestmark = pytest.mark.skipif(
    sys.platform == "darwin" or shutil.which("dbus-daemon") is None, reason="needs dbus-daemon (package dbus)"
)

BOB = Concerned(b"bob@example.net", "bounced", "5.1.1", b"550 <b>no & never</b> \x1b[2J", "RCPT", True)
REFUSED = Notice(
    id=1,
    kind=Kind.FAILED,
    relayhost="default",
    created=0.0,
    message=1,
    queue_id="3KQ7Z",
    sender=b"me@example.org",
    subject="Dinner",
    concerned=(BOB,),
)


@on_both_loops
async def test_a_notice_is_shown_as_critical_and_its_markup_is_escaped(bus: str) -> None:
    async with a_screen(bus) as screen:
        desktop = Desktop()
        await desktop.deliver([REFUSED])
        await desktop.deliver([REFUSED])
        title, body, urgency = screen.shown[0]
        assert len(screen.shown) == 2
    assert title == "Mail to bob@example.net was refused"
    assert "550 &lt;b&gt;no &amp; never&lt;/b&gt; \\x1b[2J" in body
    assert urgency == 2


async def test_the_button_of_a_notification_opens_the_page_at_its_message(
    bus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(desktop_module, "open_page", opened.append)
    async with a_screen(bus) as screen:
        desktop = Desktop()
        await desktop.deliver([REFUSED])
        screen.press("Open")
        await until(lambda: opened == ["3KQ7Z"])
        await desktop.deliver([REFUSED, REFUSED])
        screen.press("Open")
        await until(lambda: opened == ["3KQ7Z", ""])


def test_the_page_runs_outside_of_the_unit_of_the_daemon() -> None:
    page = [sys.executable, "-m", "mailrelay", "web", "3KQ7Z"]
    assert page_command("3KQ7Z", {}, "/usr/bin/systemd-run") == page
    assert page_command("3KQ7Z", {"INVOCATION_ID": "x"}, None) == page
    environ = {"INVOCATION_ID": "x", "MAILRELAY_CONFIG": "/c", "SECRET": "y"}
    assert page_command("3KQ7Z", environ, "/usr/bin/systemd-run") == [
        *("/usr/bin/systemd-run", "--user", "--collect", "--quiet", "--setenv=MAILRELAY_CONFIG=/c", "--"),
        *page,
    ]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_bus_without_a_desktop_fails_the_backend_and_leaves_no_connection_behind(bus: str) -> None:
    desktop = Desktop()
    before = open_files()
    for _ in range(4):
        with pytest.raises(BackendFailed, match="no desktop session accepts notifications"):
            await desktop.deliver([REFUSED])
    # A released connection is closed soon; a leaked one never is.
    await until(lambda: open_files() <= before)


async def test_no_bus_at_all_fails_the_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    with pytest.raises(BackendFailed, match="no desktop session accepts notifications"):
        await Desktop().deliver([REFUSED])


async def test_without_a_session_the_error_says_so_and_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DBUS_SESSION_BUS_ADDRESS", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "is_socket", lambda _path: False)
    with pytest.raises(BackendFailed) as failed:
        await Desktop().deliver([REFUSED])
    reason = "no desktop session accepts notifications: no session is running"
    assert str(failed.value) == f"{reason}; if there is never one, set notify.desktop = false"


async def test_a_computer_that_can_have_a_desktop_waits_for_it_and_another_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    for there_is_one in (True, False):
        monkeypatch.setattr(desktop_module, "can_have_desktop", lambda _environ, found=there_is_one: found)
        with pytest.raises(BackendFailed, match="no desktop session accepts notifications") as failed:
            await Desktop().deliver([REFUSED])
        assert isinstance(failed.value, BackendMissing) is not there_is_one


async def test_on_a_computer_without_a_desktop_a_notice_does_not_stay_pending_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    monkeypatch.setattr(desktop_module, "can_have_desktop", lambda _environ: False)
    spool = FakeSpool()
    spool.add(*range(5))
    notifier = Notifier(Notify(), spool, 900.0, lazy, lambda: spool.clock)
    running = asyncio.create_task(notifier.run())
    await asyncio.wait_for(spool.all_delivered.wait(), 30)
    await until(lambda: len(spool.dropped) == 5)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert "notice 0 failed is not kept for desktop: no desktop session" in caplog.text


async def test_a_desktop_that_went_away_and_came_back_is_used_again(bus: str) -> None:
    desktop = Desktop()
    async with a_screen(bus):
        await desktop.deliver([REFUSED])
    with pytest.raises(BackendFailed):
        await desktop.deliver([REFUSED])
    async with a_screen(bus) as screen:
        await desktop.deliver([REFUSED])
        assert len(screen.shown) == 1


class FakeSpool:
    """A spool in memory with notices for the desktop, and a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = 1000.0
        self.due: dict[int, PendingNotice] = {}
        self.looked = asyncio.Event()
        self.all_delivered = asyncio.Event()
        self.dropped: list[int] = []

    def add(self, *numbers: int) -> None:
        for number in numbers:
            self.all_delivered.clear()
            self.due[number] = PendingNotice(dataclasses.replace(REFUSED, id=number), Backend.DESKTOP, 0)

    async def update_delays(self, after: float, backends: object) -> float | None:
        return None

    async def pending_notices(self) -> list[PendingNotice]:
        return list(self.due.values())

    async def next_notice_due(self) -> float | None:
        self.looked.set()
        return self.clock if self.due else None

    async def notice_delivered(self, pending: PendingNotice) -> None:
        del self.due[pending.notice.id]
        if not self.due:
            self.all_delivered.set()

    async def notice_failed(self, pending: PendingNotice, next_try: float, why: str) -> None:
        raise AssertionError(why)

    async def notice_dropped(self, pending: PendingNotice) -> None:
        del self.due[pending.notice.id]
        self.dropped.append(pending.notice.id)
        self.all_delivered.set()

    async def content_start(self, message: int, limit: int) -> bytes:
        raise AssertionError

    async def accept_report(self, pending: PendingNotice, envelope: Envelope, content: bytes) -> None:
        raise AssertionError


async def test_many_notices_are_shown_as_one_summary_and_those_that_follow_soon_as_another(bus: str) -> None:
    spool = FakeSpool()
    spool.add(*range(50))
    async with a_screen(bus) as screen:
        notifier = Notifier(Notify(dsn=False), spool, 900.0, lazy, lambda: spool.clock)
        running = asyncio.create_task(notifier.run())
        await screen.until(1)
        await spool.all_delivered.wait()
        for number in range(50, 60):
            spool.add(number)
            spool.looked.clear()
            notifier.wake()
            await spool.looked.wait()
        # Behind what the notifier may have sent to the same service.
        await Desktop().probe()
        assert len(screen.shown) == 1
        spool.clock += DESKTOP_PAUSE
        notifier.wake()
        await screen.until(2)
        await spool.all_delivered.wait()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert [title for title, _, _ in screen.shown] == ["50 notices about your mail", "10 notices about your mail"]
