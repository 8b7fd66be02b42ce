"""A D-Bus session bus and a notification service (Desktop Notifications Specification 1.2) for one test."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest

if sys.platform != "darwin":
    from dbus_fast.aio import MessageBus
    from dbus_fast.annotations import DBusSignature
    from dbus_fast.service import ServiceInterface, dbus_method, dbus_signal

NAME, PATH = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"


class Screen(ServiceInterface):  # type: ignore[misc,unused-ignore]
    """A notification service (Desktop Notifications Specification 1.2) that remembers what it was asked to show."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.shown: list[tuple[str, str, int]] = []
        self.actions: list[list[str]] = []
        self._pressed = [0, ""]
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
            self.actions.append(actions)
            self.changed.notify_all()
        return len(self.shown)

    @dbus_method(name="GetCapabilities")
    def capabilities(self) -> Annotated[list[str], DBusSignature("as")]:
        return ["actions", "body", "body-markup", "persistence"]

    @dbus_method(name="GetServerInformation")
    def information(self) -> Annotated[tuple[str, str, str, str], DBusSignature("ssss")]:
        return ["screen", "mailrelay", "1", "1.2"]  # type: ignore[return-value]

    @dbus_signal(name="NotificationClosed")
    def closed(self) -> Annotated[tuple[int, int], DBusSignature("uu")]:
        return [0, 0]  # type: ignore[return-value]

    @dbus_signal(name="ActionInvoked")
    def invoked(self) -> Annotated[tuple[int, str], DBusSignature("us")]:
        return self._pressed  # type: ignore[return-value]

    def press(self, title: str) -> None:
        """The person presses this button of the notification that was shown last."""
        actions = self.actions[-1]
        self._pressed = [len(self.shown), actions[actions.index(title) - 1]]
        self.invoked()


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a session bus for one test, the only one in its environment. It starts no service of this machine."""
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
