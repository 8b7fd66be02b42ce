"""Carries what is owed: every notice by every backend it is owed by, again and again until the backend has taken it.

Promises: a notice is marked as told only after its backend has carried it, so it may come twice after a crash and is never
lost. Backends do not wait for one another: one that fails waits 60 s, doubling to an hour; one that hangs is cut off. The
screen is not flooded: what comes while the last notices are still fresh is shown together, as one summary from the
fourth on. A ledger that fails is tried again after a minute; a notice carried meanwhile is remembered and not repeated.

What is owed by a backend that the settings no longer name goes by the first one that they do.

Never: to open a backend that the settings do not name, or to end for any other reason than its own cancellation.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

from mailrelay.config import Notify
from mailrelay.mail.backends import backends_for
from mailrelay.mail.notice import Backend, Kind, Notice, PendingNotice
from mailrelay.mail.printable import printable
from mailrelay.notify.backend import BackendFailed, Carry
from mailrelay.ports import NoticePort

log = logging.getLogger("mailrelay.notify")

BACKEND_TIMEOUT = 30.0
"""Seconds that a backend may take for one notice."""
FIRST_WAIT, LONGEST_WAIT = 60.0, 3600.0
"""Seconds until a backend that failed is tried again, doubling from the first to the longest."""
LOOK_WAIT = 60.0
"""Seconds between two looks at mail that waits, at most: timers stand still while a laptop sleeps, and mail waits on."""
LOOK_REST = 5.0
"""Seconds between two looks while mail is late, at least: each counts all that is late."""
LEDGER_WAIT = 60.0
"""Seconds for which what needs the ledger rests after the ledger has failed."""
SINGLY = 3
"""So many notices are shown on the screen one by one; more at once become one summary."""
FRESH = 10.0
"""Seconds for which the screen is left alone after a notice, for each notice shown."""


class Loaders(Protocol):
    """Functions that import a slow module of this package and return what the notifier needs of it (`mailrelay.lazy`).

    An import takes up to half a second, so the running notifier calls them on a thread. Raise what the import raises.
    """

    def desktop(self) -> Carry: ...
    def mailbox(self) -> Callable[[Path, Callable[[], float]], Carry]: ...
    def command(self) -> Callable[[Sequence[str]], Carry]: ...
    def urls(self) -> Callable[[Sequence[str]], Carry]: ...
    def report(self) -> Callable[[PendingNotice, NoticePort, float], Coroutine[Any, Any, None]]: ...


def backends(settings: Notify) -> tuple[Backend, ...]:
    """The backends in force. What they may carry is for `mail.backends` to say."""
    in_force = {
        Backend.DESKTOP: settings.desktop,
        Backend.DSN: settings.dsn,
        Backend.MAILBOX: settings.mailbox is not None,
        Backend.COMMAND: bool(settings.command),
        Backend.URLS: bool(settings.urls),
    }
    return tuple(backend for backend, wanted in in_force.items() if wanted)


class Notifier:
    """Tells the person what the ledger says is owed. `now` gives epoch seconds. delay_after: seconds of waiting that are a
    delay.

    Raises BackendFailed, at once, where the settings name a backend that can never be gone on this computer.
    """

    def __init__(
        self,
        settings: Notify,
        ledger: NoticePort,
        delay_after: float,
        loaders: Loaders,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._delay_after = delay_after
        self._now = now
        self._in_force = backends(settings)
        self._loaders = loaders
        self._carriers = _carriers(settings, loaders, now)
        self._bell = asyncio.Event()
        self._is_watching = False
        self._rests_until = 0.0
        self._busy: set[Backend] = set()
        self._resting: dict[Backend, float] = {}
        self._unrecorded: set[tuple[int, Backend]] = set()

    def ring(self) -> None:
        """Something has become owed: look now. To be called on the notifier's own loop."""
        self._bell.set()

    def mail_waits(self) -> None:
        """There is mail: from now on it is watched whether it waits for too long."""
        if not self._is_watching:
            self._bell.set()

    async def run(self) -> None:
        """Tells what is owed and sleeps until more is. Ends by cancellation only."""
        async with asyncio.TaskGroup() as carrying:
            while True:
                self._bell.clear()
                try:
                    pause = await self._round(carrying)
                except Exception as error:
                    _log_ledger(error)
                    pause = LEDGER_WAIT
                try:
                    async with asyncio.timeout(pause):
                        await self._bell.wait()
                except TimeoutError:
                    pass

    async def _round(self, carrying: asyncio.TaskGroup) -> float | None:
        """Starts every backend that something is due on. The seconds until the next look, None for "when it rings"."""
        now = self._now()
        self._is_watching = True
        look = await self._look(now)
        # Before the ledger is asked: a backend that comes to its end meanwhile has told what the answer still names.
        busy = frozenset(self._busy)
        due: dict[Backend, list[PendingNotice]] = {}
        for owed in await self._ledger.pending_notices():
            backend = owed.backend if owed.backend in self._in_force else self._stand_in()
            if backend is not None:
                due.setdefault(backend, []).append(owed)
        # What seems to rest for longer was sent to rest by a clock that has been set back.
        resting = {backend: at for backend, at in self._resting.items() if now < at <= now + LONGEST_WAIT}
        for backend, batch in due.items():
            if backend not in busy and backend not in resting:
                self._busy.add(backend)
                carrying.create_task(self._go(backend, batch))
        next_due = await self._ledger.next_notice_due()
        # What is due already is under way, and rings when it is done, or rests.
        wakes = [at - now for at in (next_due, *resting.values()) if at is not None and at > now]
        if look is not None:
            wakes.append(look)
        return min(wakes, default=None)

    async def _look(self, now: float) -> float | None:
        """Lets what waits for too long become owed. The seconds until it is worth another look, None if nothing waits."""
        rest = self._rests_until - time.monotonic()
        if rest > 0:
            return rest
        at = await self._ledger.update_delays(self._delay_after, backends_for(Kind.DELAYED, b"", (), self._in_force))
        self._is_watching = at is not None
        if at is None:
            return None
        if at > now:
            return min(at - now, LOOK_WAIT)
        self._rests_until = time.monotonic() + LOOK_REST
        return LOOK_WAIT

    def _stand_in(self) -> Backend | None:
        # A report by mail follows rules of its own, so it stands in for nothing.
        return next((backend for backend in self._in_force if backend is not Backend.DSN), None)

    async def _go(self, backend: Backend, batch: Sequence[PendingNotice]) -> None:
        """Carries a batch by one backend. The loop goes on whatever happens here."""
        together = backend is Backend.DESKTOP and len(batch) > SINGLY
        groups = [batch] if together else [[owed] for owed in batch]
        try:
            for group in groups:
                await self._tell(backend, group)
            if backend is Backend.DESKTOP:
                self._resting[backend] = self._now() + FRESH * len(groups)
        except Exception as error:
            _log_ledger(error)
            self._resting[backend] = self._now() + LEDGER_WAIT
        finally:
            self._busy.discard(backend)
            self.ring()

    async def _tell(self, backend: Backend, group: Sequence[PendingNotice]) -> None:
        """Carries a group as one, and records how that went. Raises only what the ledger raises."""
        if backend is Backend.DSN:
            report = await asyncio.to_thread(self._loaders.report)
            for owed in group:
                await report(owed, self._ledger, self._now())
                _log_told(owed)
            return
        fresh = [owed for owed in group if (owed.notice.id, owed.backend) not in self._unrecorded]
        why = await self._carry(backend, fresh) if fresh else ""
        if not why:
            self._unrecorded.update((owed.notice.id, owed.backend) for owed in fresh)
        for owed in group:
            if why and owed in fresh:
                wait = min(FIRST_WAIT * 2.0 ** min(owed.tries, 10), LONGEST_WAIT)
                log.warning(
                    "notice %d %s not told by %s: %s; next try in %.0f s",
                    owed.notice.id,
                    owed.notice.kind,
                    backend,
                    why,
                    wait,
                )
                await self._ledger.notice_failed(owed, self._now() + wait, why)
            else:
                await self._ledger.notice_delivered(owed)
                self._unrecorded.discard((owed.notice.id, owed.backend))
                _log_told(owed)

    async def _carry(self, backend: Backend, group: Sequence[PendingNotice]) -> str:
        """Why the backend could not carry the group, "" if it did."""
        try:
            async with asyncio.timeout(BACKEND_TIMEOUT):
                await self._carriers[backend]([owed.notice for owed in group])
        except BackendFailed as error:
            return str(error)
        except TimeoutError:
            return f"no answer within {BACKEND_TIMEOUT:.0f} s"
        except Exception as error:
            # Whatever a library of somebody else's raises, this notice stays owed and the other backends go on.
            return f"{type(error).__name__}: {printable(str(error), 200)}"
        return ""


def _carriers(settings: Notify, loaders: Loaders, now: Callable[[], float]) -> dict[Backend, Carry]:
    """The backends that are gone by here: all but reports by mail, which are the ledger's. Raises BackendFailed."""
    carriers: dict[Backend, Carry] = {}
    maildir = settings.mailbox
    if settings.desktop:
        carriers[Backend.DESKTOP] = _opened_late(loaders.desktop)
    if maildir is not None:
        carriers[Backend.MAILBOX] = _opened_late(lambda: loaders.mailbox()(maildir, now))
    if settings.command:
        carriers[Backend.COMMAND] = _opened_late(lambda: loaders.command()(settings.command))
    if settings.urls:
        carriers[Backend.URLS] = loaders.urls()(settings.urls)
    return carriers


def _opened_late(open_backend: Callable[[], Carry]) -> Carry:
    """A backend that is opened for its first notice, on a thread, as that imports its module."""
    backend: Carry | None = None

    async def carry(notices: Sequence[Notice]) -> None:
        nonlocal backend
        if backend is None:
            backend = await asyncio.to_thread(open_backend)
        await backend(notices)

    return carry


def _log_told(owed: PendingNotice) -> None:
    log.info("notice %d %s told by %s", owed.notice.id, owed.notice.kind, owed.backend)


def _log_ledger(error: Exception) -> None:
    log.error("notices wait, the spool fails: %s: %s", type(error).__name__, printable(str(error), 200))
