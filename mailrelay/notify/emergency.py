"""The notice that the spool cannot be used. It is not stored in the spool: it is delivered at once, by every backend in the
settings except dsn.

Promises: one notice for one failure, also if many processes have it: a small file outside of the spool (`memory`) contains
the times of the notices. There is another notice after an hour if the failure lasts, and when it comes back after its end,
at most `MAX_AN_HOUR` an hour. Backends do not wait for one another. If none of them delivers it, the next report after
`RETRY` starts another delivery. A failed delivery raises no error.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from mailrelay.config import Notify
from mailrelay.mail.notice import Backend, Kind, Notice
from mailrelay.mail.spool_errors import SpoolError, SpoolFull
from mailrelay.notify.backend import BackendFailed
from mailrelay.notify.delivery import Loaders, deliver, delivery_functions
from mailrelay.notify.memory import Memory, Told

log = logging.getLogger("mailrelay.notify")

REMIND = 3600.0
"""Seconds between two notices about a failure that lasts."""
RETRY = 60.0
"""Seconds until a notice that no backend delivered is due again."""
MAX_AN_HOUR = 4
"""Notices an hour about a failure that ends and comes back."""


class Emergency:
    """Tells the person about failures of the spool in `directory`. now: epoch seconds.

    Raises BackendFailed if the settings enable a backend that can never work on this computer.
    """

    def __init__(
        self,
        settings: Notify,
        directory: Path,
        loaders: Loaders,
        memory: Memory,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._deliver_by = delivery_functions(settings, loaders, now)
        self._memory = memory
        self._now = now
        self._deliveries: set[asyncio.Task[None]] = set()

    def tell(self, error: SpoolError, *, only_if_remembered: bool = False) -> None:
        """Starts the delivery, if it is time for one. only_if_remembered: not if its time cannot be saved.

        Call it in the event loop.
        """
        name = "full" if isinstance(error, SpoolFull) else "unusable"
        now = self._now()
        told = self._memory.told.get(name, Told())
        if not self._deliver_by or not is_due(told, now):
            return
        repeats = 0 if told.is_over else len(told.at)
        self._memory.told[name] = Told([*_recent(told, now), now])
        if not self._memory.save() and only_if_remembered:
            return
        delivery = asyncio.create_task(self._deliver(name, _notice(error, self._directory, now, repeats)))
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)

    @property
    def is_remembered(self) -> bool:
        """Whether a failure of which the person was told, by this process or an earlier one, has not ended yet."""
        return any(not told.is_over for told in self._memory.told.values())

    def over(self) -> None:
        """To be called when the spool can be used again: the next failure is a new one."""
        for told in self._memory.told.values():
            told.is_over = True
        self._memory.save()

    async def finish(self, timeout: float) -> None:
        """Waits up to `timeout` seconds for the deliveries, then cancels the rest."""
        if self._deliveries:
            _, late = await asyncio.wait(self._deliveries, timeout=timeout)
            for delivery in late:
                delivery.cancel()
            # No longer wait: a thread or a process may hang in an access to the disk.
            if late:
                await asyncio.wait(late, timeout=0.1)

    async def _deliver(self, name: str, notice: Notice) -> None:
        deliveries = (self._deliver_by_one(backend, notice) for backend in self._deliver_by)
        if not any(await asyncio.gather(*deliveries)):
            # As if told earlier, so that it is due again after RETRY.
            self._memory.told[name] = Told([self._now() - REMIND + RETRY])
            self._memory.save()

    async def _deliver_by_one(self, backend: Backend, notice: Notice) -> bool:
        try:
            why = await deliver(self._deliver_by[backend], [notice])
        except BackendFailed as error:
            why = str(error)
        if why:
            log.warning("notice %s not delivered by %s: %s", notice.kind, backend, why)
        else:
            log.info("notice %s delivered by %s", notice.kind, backend)
        return not why


def is_due(told: Told, now: float) -> bool:
    """Whether a notice about a failure is due. told: the earlier notices about it. now: epoch seconds."""
    recent = _recent(told, now)
    return not recent or (told.is_over and len(recent) < MAX_AN_HOUR)


def _recent(told: Told, now: float) -> list[float]:
    # A time in the future is ignored: the clock was set back after it.
    return [at for at in told.at if now - REMIND < at <= now]


def _notice(error: SpoolError, directory: Path, now: float, repeats: int) -> Notice:
    # The text of the error has two parts: "what happened; what to do".
    what, _, fix = str(error).rpartition("; ")
    what, fix = (what, fix) if what else (fix, "look at the disk")
    where = "" if str(directory) in what else f" The spool is {directory}."
    return Notice(0, Kind.SPOOL, "", now, text=f"{_capital(what)}.{where}", fix=_capital(fix), repeats=repeats)


def _capital(text: str) -> str:
    """The text with a capital at its beginning, unless that is a path or a command."""
    return text if text.startswith(("/", "chmod ")) else text[:1].upper() + text[1:]
