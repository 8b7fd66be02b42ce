"""The backend to the screen: a desktop notification that stays until it is dismissed.

Promises: `show` returns only once the desktop's notification service has taken the text. The library underneath hides
every failure, so the service is asked for its capabilities first, which does raise, and the notification must be
confirmed as dispatched. Markup characters are escaped: notification bodies are read as markup on free desktops.

Everything that failed is let go of, with its connection, so that an hour-long absence of a desktop costs nothing.

Never: to start a session bus or to wait for one; where there is no desktop, the backend fails and says so.
"""

import html
import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from desktop_notifier import Capability, DesktopNotifier, Urgency

from mailrelay.mail.notice import Notice
from mailrelay.mail.printable import printable
from mailrelay.mail.wording import body, summary, title
from mailrelay.notify.backend import BackendFailed

# Its tracebacks would say a second time, and at length, what BackendFailed says in a sentence.
logging.getLogger("desktop_notifier").setLevel(logging.CRITICAL)

_TOOK_NOTHING = "no desktop session takes notices: its notification service took nothing"


class Desktop:
    """A backend that keeps its connection to the desktop session from one notice to the next."""

    def __init__(self) -> None:
        self._notifier: DesktopNotifier | None = None

    async def carry(self, notices: Sequence[Notice]) -> None:
        """Shows a notice, or one summary of several. Raises BackendFailed."""
        await self.show(*((title(notices[0]), body(notices[0])) if len(notices) == 1 else summary(notices)))

    async def show(self, headline: str, text: str) -> None:
        """Shows printable text as critical. Raises BackendFailed."""
        dispatched: list[bool] = []
        async with self._answering() as notifier:
            await notifier.send(
                _marked_up(headline),
                _marked_up(text),
                urgency=Urgency.Critical,
                on_dispatched=lambda: dispatched.append(True),
            )
            if not dispatched:
                raise BackendFailed(_TOOK_NOTHING)

    async def ask(self) -> None:
        """Shows nothing. Raises BackendFailed where no desktop would take a notice now."""
        async with self._answering() as notifier:
            pass
        self._notifier = None
        _disconnect(notifier)

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[DesktopNotifier]:
        """What reaches a desktop that has answered; kept for the next notice if nothing fails. Raises BackendFailed."""
        notifier, self._notifier = self._notifier or _new(), None
        try:
            if Capability.TITLE not in await notifier.get_capabilities():
                raise BackendFailed(_TOOK_NOTHING)
            yield notifier
            self._notifier = notifier
        except BackendFailed:
            raise
        except Exception as error:
            # Without a session the library speaks of the variables in which it has looked for one.
            there = sys.platform == "darwin" or not os.environ.keys().isdisjoint(
                ("DBUS_SESSION_BUS_ADDRESS", "DISPLAY")
            )
            said = printable(str(error), 200) if there else "there is none here"
            raise BackendFailed(
                f"no desktop session takes notices (for good? notify.desktop = false): {said}"
            ) from error
        finally:
            if self._notifier is None:
                _disconnect(notifier)


def _new() -> DesktopNotifier:
    # The library looks for the session bus in the environment only, and a service may have been started without one.
    bus = Path(f"/run/user/{os.getuid()}/bus")
    if "DBUS_SESSION_BUS_ADDRESS" not in os.environ and bus.is_socket():
        os.environ["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={bus}"
    return DesktopNotifier(app_name="mailrelay", app_icon=None)


def _disconnect(notifier: DesktopNotifier) -> None:
    # The library has no way to close what it opened, and the event loop keeps the connection alive for ever.
    bus = getattr(getattr(notifier, "_backend", None), "bus", None)
    if bus is not None:
        bus.disconnect()


def _marked_up(text: str) -> str:
    return text if sys.platform == "darwin" else html.escape(text, quote=False)
