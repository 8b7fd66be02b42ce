"""Makes a delivery function for each backend in the settings, and runs one delivery. `notifier` uses them for the notices in
the spool, `emergency` for those about the spool itself.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

from mailrelay.config import Notify
from mailrelay.mail.notice import Backend, Notice, PendingNotice
from mailrelay.mail.printable import printable
from mailrelay.notify.backend import BackendFailed, BackendMissing, Deliver
from mailrelay.ports import NoticePort

BACKEND_TIMEOUT = 30.0
"""Seconds that a backend may take for one delivery, of one notice or several."""


class Loaders(Protocol):
    """Functions that import a module of this package which is slow to load, and return its function (`mailrelay.lazy`).

    An import takes up to half a second, so the running notifier calls these on a thread. They raise the errors of the
    import. `report` delivers a notice by dsn; its float is the time now in epoch seconds.
    """

    def desktop(self) -> Deliver: ...
    def mailbox(self) -> Callable[[Path, Callable[[], float]], Deliver]: ...
    def command(self) -> Callable[[Sequence[str]], Deliver]: ...
    def urls(self) -> Callable[[Sequence[str]], Deliver]: ...
    def report(self) -> Callable[[PendingNotice, NoticePort, float], Coroutine[Any, Any, None]]: ...


async def deliver(by: Deliver, notices: Sequence[Notice]) -> str:
    """Delivers notices by one backend. Returns why it could not, or "". Raises BackendMissing."""
    try:
        async with asyncio.timeout(BACKEND_TIMEOUT):
            await by(notices)
    except BackendMissing:
        raise
    except BackendFailed as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {BACKEND_TIMEOUT:.0f} s"
    except Exception as error:
        # A backend's library may raise anything. The notice stays pending, and the other backends go on.
        return f"{type(error).__name__}: {printable(str(error), 200)}"
    return ""


def delivery_functions(settings: Notify, loaders: Loaders, now: Callable[[], float]) -> dict[Backend, Deliver]:
    """The function of each enabled backend except DSN, which needs the spool. Raises BackendFailed if `urls` can never
    work."""
    functions: dict[Backend, Deliver] = {}
    maildir = settings.mailbox
    if settings.desktop:
        functions[Backend.DESKTOP] = _loaded_on_use(loaders.desktop)
    if maildir is not None:
        functions[Backend.MAILBOX] = _loaded_on_use(lambda: loaders.mailbox()(maildir, now))
    if settings.command:
        functions[Backend.COMMAND] = _loaded_on_use(lambda: loaders.command()(settings.command))
    if settings.urls:
        functions[Backend.URLS] = loaders.urls()(settings.urls)
    return functions


def _loaded_on_use(load_backend: Callable[[], Deliver]) -> Deliver:
    """A backend whose module is imported for its first notice, on a thread."""
    backend: Deliver | None = None

    async def load_and_deliver(notices: Sequence[Notice]) -> None:
        nonlocal backend
        if backend is None:
            backend = await asyncio.to_thread(load_backend)
        await backend(notices)

    return load_and_deliver
