"""A notice on the screen: over a real message bus of the test's own, to a notification service of the test's own."""

import asyncio
import contextlib
import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import uvloop

from mailrelay import lazy
from mailrelay.config import Notify
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.notice import Backend, Concerned, Kind, Notice, PendingNotice
from mailrelay.notify.backend import BackendFailed
from mailrelay.notify.desktop import Desktop
from mailrelay.notify.notifier import FRESH, Notifier

pytestmark = pytest.mark.skipif(
    sys.platform == "darwin" or shutil.which("dbus-daemon") is None, reason="needs dbus-daemon (package dbus)"
)

if sys.platform != "darwin":
    from dbus_fast.aio import MessageBus
    from dbus_fast.annotations import DBusSignature
    from dbus_fast.service import ServiceInterface, dbus_method, dbus_signal

NAME, PATH = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"
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


class Screen(ServiceInterface):  # type: ignore[misc,unused-ignore]
    """A notification service (Desktop Notifications Specification 1.2) that remembers what it was asked to show."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.shown: list[tuple[str, str, int]] = []
        self.changed = asyncio.Condition()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(lambda: len(self.shown) >= count)

    @dbus_method(name="Notify")
    async def notify(
        self,
        app: Annotated[str, DBusSignature("s")],
        replaces: Annotated[int, DBusSignature("u")],
        icon: Annotated[str, DBusSignature("s")],
        summary: Annotated[str, DBusSignature("s")],
        body: Annotated[str, DBusSignature("s")],
        actions: Annotated[list[str], DBusSignature("as")],
        hints: Annotated[dict[str, Any], DBusSignature("a{sv}")],
        timeout: Annotated[int, DBusSignature("i")],
    ) -> Annotated[int, DBusSignature("u")]:
        async with self.changed:
            self.shown.append((summary, body, hints["urgency"].value))
            self.changed.notify_all()
        return len(self.shown)

    @dbus_method(name="GetCapabilities")
    def capabilities(self) -> Annotated[list[str], DBusSignature("as")]:
        return ["body", "body-markup", "persistence"]

    @dbus_method(name="GetServerInformation")
    def information(self) -> Annotated[tuple[str, str, str, str], DBusSignature("ssss")]:
        return ["screen", "mailrelay", "1", "1.2"]  # type: ignore[return-value]

    @dbus_signal(name="NotificationClosed")
    def closed(self) -> Annotated[tuple[int, int], DBusSignature("uu")]:
        return [0, 0]  # type: ignore[return-value]

    @dbus_signal(name="ActionInvoked")
    def invoked(self) -> Annotated[tuple[int, str], DBusSignature("us")]:
        return [0, ""]  # type: ignore[return-value]


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A session bus of the test's own, the only one in its environment, which starts no service of this machine's."""
    address = f"unix:path={tmp_path}/bus"
    config = tmp_path / "bus.conf"
    config.write_text(
        f"<busconfig><type>session</type><listen>{address}</listen><policy context='default'>"
        "<allow send_destination='*' eavesdrop='true'/><allow eavesdrop='true'/><allow own='*'/></policy></busconfig>"
    )
    with subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address=1"],
        stdout=subprocess.PIPE,
    ) as daemon:
        try:
            assert daemon.stdout is not None
            assert daemon.stdout.readline().startswith(b"unix:")
            monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
            yield address
        finally:
            daemon.kill()


@contextlib.asynccontextmanager
async def a_screen(address: str) -> Any:
    connection = await MessageBus(bus_address=address).connect()
    try:
        screen = Screen()
        connection.export(PATH, screen)
        await connection.request_name(NAME)
        yield screen
    finally:
        connection.disconnect()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_notice_is_shown_as_critical_and_its_markup_is_not_obeyed(
    bus: str, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def main() -> None:
        async with a_screen(bus) as screen:
            desktop = Desktop()
            await desktop.carry([REFUSED])
            await desktop.carry([REFUSED])
            title, body, urgency = screen.shown[0]
            assert len(screen.shown) == 2
        assert title == "Mail to bob@example.net was refused"
        assert "550 &lt;b&gt;no &amp; never&lt;/b&gt; \\x1b[2J" in body
        assert urgency == 2

    run(main())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_bus_without_a_desktop_fails_the_backend_and_leaves_no_connection_behind(bus: str) -> None:
    async def main() -> None:
        desktop = Desktop()
        before = open_files()
        for _ in range(4):
            with pytest.raises(BackendFailed, match="no desktop session takes notices"):
                await desktop.carry([REFUSED])
        # What has been let go of closes with the next turns of the loop; what leaks never does.
        async with asyncio.timeout(20):
            while open_files() > before:
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_no_bus_at_all_fails_the_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    with pytest.raises(BackendFailed, match="no desktop session takes notices"):
        asyncio.run(Desktop().carry([REFUSED]))


def test_where_there_is_no_session_the_backend_says_so_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DBUS_SESSION_BUS_ADDRESS", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "is_socket", lambda _path: False)
    with pytest.raises(BackendFailed) as failed:
        asyncio.run(Desktop().carry([REFUSED]))
    assert (
        str(failed.value) == "no desktop session takes notices (for good? notify.desktop = false): there is none here"
    )


def test_a_desktop_that_went_away_and_came_back_is_used_again(bus: str) -> None:
    async def main() -> None:
        desktop = Desktop()
        async with a_screen(bus):
            await desktop.carry([REFUSED])
        with pytest.raises(BackendFailed):
            await desktop.carry([REFUSED])
        async with a_screen(bus) as screen:
            await desktop.carry([REFUSED])
            assert len(screen.shown) == 1

    asyncio.run(main())


class Ledger:
    """What is owed to the screen, in memory, with a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = 1000.0
        self.due: dict[int, PendingNotice] = {}

    def owe(self, *numbers: int) -> None:
        for number in numbers:
            self.due[number] = PendingNotice(dataclasses.replace(REFUSED, id=number), Backend.DESKTOP, 0)

    async def update_delays(self, after: float, backends: object) -> float | None:
        return None

    async def pending_notices(self) -> list[PendingNotice]:
        return list(self.due.values())

    async def next_notice_due(self) -> float | None:
        return self.clock if self.due else None

    async def notice_delivered(self, owed: PendingNotice) -> None:
        del self.due[owed.notice.id]

    async def notice_failed(self, owed: PendingNotice, next_try: float, why: str) -> None:
        raise AssertionError(why)

    async def content_start(self, message: int, limit: int) -> bytes:
        raise AssertionError

    async def accept_report(self, owed: PendingNotice, envelope: Envelope, content: bytes) -> None:
        raise AssertionError


def test_a_flood_is_shown_as_one_summary_and_what_follows_close_behind_is_shown_together(bus: str) -> None:
    async def main() -> None:
        ledger = Ledger()
        ledger.owe(*range(50))
        async with a_screen(bus) as screen:
            notifier = Notifier(Notify(dsn=False), ledger, 900.0, lazy, lambda: ledger.clock)
            running = asyncio.create_task(notifier.run())
            await screen.until(1)
            while ledger.due:
                await asyncio.sleep(0)
            for number in range(50, 60):
                ledger.owe(number)
                notifier.ring()
                for _ in range(20):
                    await asyncio.sleep(0)
            assert len(screen.shown) == 1
            ledger.clock += FRESH
            notifier.ring()
            await screen.until(2)
            while ledger.due:
                await asyncio.sleep(0)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        assert [title for title, _, _ in screen.shown] == ["50 troubles with your mail", "10 troubles with your mail"]

    asyncio.run(main())
