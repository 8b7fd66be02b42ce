"""Whether bad news reaches the person: each backend that is set, as far as it can be tried without telling anything.

Asks this machine alone. Never: a notice, or a Maildir that is made.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator

from mailrelay.check.finding import Finding
from mailrelay.check.machine import nearest
from mailrelay.config import Notify
from mailrelay.notify.backend import BackendFailed
from mailrelay.notify.desktop import Desktop

PATIENCE = 5.0
"""Seconds for a desktop to answer."""


async def examine(notify: Notify) -> list[Finding]:
    """The checks, in order."""
    backends = [name for name in ("desktop", "dsn", "mailbox", "command", "urls") if getattr(notify, name)]
    if not backends:
        return [Finding("notify", False, "no backend leads to you: every one is off", "set one under [notify]")]
    shut = [(backend, finding) async for backend, finding in _shut(notify)]
    left = [backend for backend in backends if backend not in dict(shut)]
    found = [finding for _, finding in shut]
    return [*found, Finding("notify", True, f"bad news reaches you by {', '.join(left)}")] if left else found


async def _shut(notify: Notify) -> AsyncIterator[tuple[str, Finding]]:
    """The backends that lead nowhere."""
    if notify.desktop:
        try:
            async with asyncio.timeout(PATIENCE):
                await Desktop().probe()
        except TimeoutError:
            yield "desktop", _no_desktop("the desktop does not answer", notify)
        except BackendFailed as error:
            yield "desktop", _no_desktop(str(error), notify)
    if notify.command and shutil.which(notify.command[0]) is None:
        what = f"notify.command: {notify.command[0]} cannot be run"
        yield "command", Finding("notify", False, what, "fix its path in the settings, or make it executable")
    if notify.mailbox is not None and not os.access(nearest(notify.mailbox), os.W_OK | os.X_OK):
        what = f"notify.mailbox: {notify.mailbox} cannot be written"
        yield "mailbox", Finding("notify", False, what, "make it yours, or name another")


def _no_desktop(why: str, notify: Notify) -> Finding:
    off = "notify.desktop = false, if it is to stay so"
    if notify.command or notify.mailbox is not None:
        return Finding("notify", False, why, off)
    return Finding("notify", False, why, f"set notify.mailbox or notify.command, which need no network; {off}")
