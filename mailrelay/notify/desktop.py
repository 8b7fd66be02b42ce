"""The `desktop` backend: a desktop notification that stays until the person dismisses it. Its button opens the page of
`mailrelay web`, as long as the daemon runs that has shown it.

Promises: `show` returns only after the desktop's notification service has accepted the text. The library,
desktop_notifier, hides every failure, so `show` first requests the service's capabilities, which does raise, and then
requires that the library reports the notification as dispatched. Markup characters are escaped, because the desktops of
Linux and BSD read notification bodies as markup.

After a failure the connection to the desktop is closed, so retries for hours without a desktop do not leave connections
open.

Never: start a session bus or wait for one. Where there is no desktop, the backend fails and says so. If this computer cannot
have a desktop session (`desktop_presence`), it says that waiting for one is in vain.
"""

import html
import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from desktop_notifier import Button, Capability, DesktopNotifier, Urgency

from mailrelay.mail.notice import Notice
from mailrelay.mail.printable import printable
from mailrelay.mail.wording import body, summary, title
from mailrelay.notify.backend import BackendFailed, BackendMissing
from mailrelay.notify.desktop_presence import can_have_desktop
from mailrelay.notify.open_page import open_page

# The library logs a traceback for what BackendFailed says in one sentence.
logging.getLogger("desktop_notifier").setLevel(logging.CRITICAL)

_NOT_ACCEPTED = "no desktop session accepts notifications: its notification service did not accept one"

_BUTTON = "Open"


class Desktop:
    """A backend that keeps its connection to the desktop session from one notice to the next."""

    def __init__(self) -> None:
        self._notifier: DesktopNotifier | None = None

    async def deliver(self, notices: Sequence[Notice]) -> None:
        """Shows a notice, or one summary of several. Raises BackendFailed, BackendMissing."""
        try:
            if len(notices) == 1:
                await self.show(title(notices[0]), body(notices[0]), notices[0].queue_id)
            else:
                await self.show(*summary(notices))
        except BackendFailed as error:
            if can_have_desktop(os.environ):
                raise
            raise BackendMissing(str(error)) from error

    async def show(self, headline: str, text: str, queue_id: str = "") -> None:
        """Shows printable text with the urgency "critical". queue_id: of the message that it is about, "" for none. Raises
        BackendFailed."""
        dispatched: list[bool] = []
        async with self._connected() as notifier:
            # Some desktops show a dialog where they cannot show a button.
            has_buttons = Capability.BUTTONS in await notifier.get_capabilities()
            await notifier.send(
                _escaped(headline),
                _escaped(text),
                urgency=Urgency.Critical,
                buttons=[Button(_BUTTON, lambda: open_page(queue_id))] if has_buttons else (),
                on_dispatched=lambda: dispatched.append(True),
            )
            if not dispatched:
                raise BackendFailed(_NOT_ACCEPTED)

    async def probe(self) -> None:
        """Shows nothing. Raises BackendFailed if no desktop would accept a notification now."""
        async with self._connected() as notifier:
            pass
        self._notifier = None
        _disconnect(notifier)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[DesktopNotifier]:
        """A connection to a desktop that has replied. It is kept for the next notice unless the body fails. Raises
        BackendFailed."""
        notifier, self._notifier = self._notifier or _new(), None
        try:
            if Capability.TITLE not in await notifier.get_capabilities():
                raise BackendFailed(_NOT_ACCEPTED)
            yield notifier
            self._notifier = notifier
        except BackendFailed:
            raise
        except Exception as error:
            # Without a session, the library's error names only the environment variables that it has read.
            has_session = sys.platform == "darwin" or not os.environ.keys().isdisjoint(
                ("DBUS_SESSION_BUS_ADDRESS", "DISPLAY")
            )
            reason = printable(str(error), 200) if has_session else "no session is running"
            raise BackendFailed(
                f"no desktop session accepts notifications: {reason}; if there is never one, set notify.desktop = false"
            ) from error
        finally:
            if self._notifier is None:
                _disconnect(notifier)


def _new() -> DesktopNotifier:
    # The library finds the session bus through the environment only, and a service may run without that variable.
    bus = Path(f"/run/user/{os.getuid()}/bus")
    if "DBUS_SESSION_BUS_ADDRESS" not in os.environ and bus.is_socket():
        os.environ["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={bus}"
    return DesktopNotifier(app_name="mailrelay", app_icon=None)


def _disconnect(notifier: DesktopNotifier) -> None:
    # The library cannot close its connection, and the event loop keeps it open for ever.
    bus = getattr(getattr(notifier, "_backend", None), "bus", None)
    if bus is not None:
        bus.disconnect()


def _escaped(text: str) -> str:
    return text if sys.platform == "darwin" else html.escape(text, quote=False)
