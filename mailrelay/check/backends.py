"""Checks each notice backend in the settings, as far as that is possible without sending a notice.

Uses no network. Never: send a notice, or create a Maildir.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator

from mailrelay.check.finding import Finding
from mailrelay.check.machine import nearest_existing
from mailrelay.config import Notify
from mailrelay.notify.backend import BackendFailed
from mailrelay.notify.desktop import Desktop
from mailrelay.notify.desktop_presence import can_have_desktop

DESKTOP_TIMEOUT = 5.0
"""Seconds."""
EXAMPLE_MAILBOX = "~/Maildir"


async def examine(notify: Notify) -> list[Finding]:
    """The checks, in order."""
    backends = [name for name in ("desktop", "dsn", "mailbox", "command", "urls") if getattr(notify, name)]
    if not backends:
        return [Finding("notify", False, "no notice can reach you: all backends are off", "enable one under [notify]")]
    failures = [(backend, finding) async for backend, finding in _failures(notify)]
    working = [backend for backend in backends if backend not in dict(failures)]
    found = [finding for _, finding in failures]
    return [*found, Finding("notify", True, f"notices reach you by {', '.join(working)}")] if working else found


async def _failures(notify: Notify) -> AsyncIterator[tuple[str, Finding]]:
    """The backends that cannot deliver a notice now."""
    if notify.desktop:
        try:
            async with asyncio.timeout(DESKTOP_TIMEOUT):
                await Desktop().probe()
        except TimeoutError:
            yield "desktop", _no_desktop(f"the desktop does not respond within {DESKTOP_TIMEOUT:.0f} s", notify)
        except BackendFailed as error:
            yield "desktop", _no_desktop(str(error), notify)
    if notify.command and shutil.which(notify.command[0]) is None:
        what = f"notify.command: {notify.command[0]} cannot be run"
        yield "command", Finding("notify", False, what, "correct its path in the settings, or make it executable")
    if notify.mailbox is not None and not os.access(nearest_existing(notify.mailbox), os.W_OK | os.X_OK):
        what = f"notify.mailbox: you cannot write to {notify.mailbox}"
        yield "mailbox", Finding("notify", False, what, "make it writable, or set another directory")


def _no_desktop(why: str, notify: Notify) -> Finding:
    """A computer without a desktop needs none, if notices reach the person by another backend that needs no mail server."""
    disable = "set notify.desktop = false if there is never a desktop"
    exists = can_have_desktop(os.environ)
    if notify.command or notify.mailbox is not None:
        return Finding("notify", False if exists else None, why, disable)
    example = f'set notify.mailbox (for example to "{EXAMPLE_MAILBOX}") or notify.command, which need no network'
    return Finding("notify", False, why, f"{example}; {disable}")
