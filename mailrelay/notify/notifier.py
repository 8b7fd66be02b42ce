"""Delivers pending notices: each notice by each of its backends. A backend that fails is tried again until it has delivered
the notice.

Promises:
- A notice is marked as delivered only after its backend has delivered it. After a crash it may be delivered twice; it is
  never lost.
- Backends do not wait for one another. A backend that fails is retried after 60 s, doubling to an hour. One that hangs is
  cancelled after `delivery.BACKEND_TIMEOUT`.
- The desktop shows few notifications: after each one, none is shown for `DESKTOP_PAUSE`. Notices that become pending in this
  time are shown together afterwards, more than `MAX_SINGLE` of them as one summary.
- If the spool fails, it is used again after `SPOOL_RETRY`, or at once after `resume`. A notice whose delivery could not be
  recorded is not delivered again, except after a restart.
- Notices for a backend that is no longer in the settings are delivered by another one in the settings: not by dsn, and by
  the desktop only if there is no other.
- A notice is not kept for a backend that can never deliver it: the desktop of a computer that has none, or a backend that is
  no longer in the settings, if dsn is the only one that is. The log says so. `mailrelay status` shows the failure itself.

Never: the use of a backend that is not in the settings; an end of `run` for a reason other than its cancellation.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from mailrelay.config import Notify
from mailrelay.mail.backends import backends_for, enabled_backends
from mailrelay.mail.notice import Backend, Kind, PendingNotice
from mailrelay.mail.printable import printable
from mailrelay.mail.spool_errors import SpoolBroken
from mailrelay.notify.backend import BackendMissing
from mailrelay.notify.delivery import Loaders, deliver, delivery_functions
from mailrelay.ports import NoticePort

log = logging.getLogger("mailrelay.notify")

FIRST_RETRY, LONGEST_RETRY = 60.0, 3600.0
"""Seconds until a backend that failed is tried again for a notice: the first wait, doubled up to the longest."""
MAX_DELAY_CHECK_INTERVAL = 60.0
"""Seconds between two checks for delayed mail, at most: timers stop while a computer is suspended, but mail becomes
older."""
MIN_DELAY_CHECK_INTERVAL = 5.0
"""Seconds between two checks while mail is delayed, at least: each check counts all delayed mail."""
SPOOL_RETRY = 60.0
"""Seconds until the spool is used again after it has failed."""
MAX_SINGLE = 3
"""Notices that the desktop shows one by one; more at once become one summary."""
DESKTOP_PAUSE = 10.0
"""Seconds without a new notification on the desktop, for each notification shown before."""


class Notifier:
    """Delivers the notices that are pending in the spool. delay_after: seconds after which undelivered mail counts as
    delayed. now: returns epoch seconds.

    Raises BackendFailed at once if the settings enable a backend that can never work on this computer.
    """

    def __init__(
        self,
        settings: Notify,
        spool: NoticePort,
        delay_after: float,
        loaders: Loaders,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._spool = spool
        self._delay_after = delay_after
        self._now = now
        self._enabled = enabled_backends(settings)
        self._loaders = loaders
        self._deliver_by = delivery_functions(settings, loaders, now)
        self._wake = asyncio.Event()
        # Whether `run` already knows that mail waits, and checks it for delays.
        self._is_checking_delays = False
        # A message has arrived since this was last set to False: a read that began before may not show it.
        self._mail_arrived = False
        # Monotonic time.
        self._no_check_before = 0.0
        # Backends with a delivery in progress.
        self._busy: set[Backend] = set()
        # Epoch seconds before which a backend is not used.
        self._paused_until: dict[Backend, float] = {}
        # Notice ids and backends of deliveries that the spool has not recorded yet.
        self._unrecorded: set[tuple[int, Backend]] = set()

    def wake(self) -> None:
        """To be called when a notice may have become pending: `run` checks now. Call it on the event loop of `run`."""
        self._wake.set()

    def start_delay_checks(self) -> None:
        """To be called when the spool has undelivered mail: `run` checks it for delays until there is none. Call it on the
        event loop of `run`."""
        self._mail_arrived = True
        if not self._is_checking_delays:
            self._wake.set()

    def resume(self) -> None:
        """To be called when the spool can be used again: ends the pauses after its failures. Call it on the event loop of
        `run`."""
        self._paused_until.clear()
        self._wake.set()

    async def run(self) -> None:
        """Delivers pending notices and waits until the next is due. Ends by cancellation only."""
        async with asyncio.TaskGroup() as deliveries:
            while True:
                self._wake.clear()
                try:
                    pause = await self._start_due(deliveries)
                except Exception as error:
                    _log_spool_error(error)
                    pause = SPOOL_RETRY
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _start_due(self, deliveries: asyncio.TaskGroup) -> float | None:
        """Starts a delivery by every backend that has notices due and may be used now. Returns the seconds until the next
        call, None to wait for `wake`. Raises what the spool raises."""
        now = self._now()
        self._is_checking_delays = True
        next_check = await self._check_delays(now)
        # Copied before the spool is read: a backend that ends during the read has delivered notices that the read still
        # returns as pending.
        busy = frozenset(self._busy)
        due: dict[Backend, list[PendingNotice]] = {}
        for pending in await self._spool.pending_notices():
            # The address to which a report would go is damaged.
            is_lost = pending.backend is Backend.DSN and pending.notice.is_damaged
            is_usable = pending.backend in self._enabled and not is_lost
            backend = pending.backend if is_usable else self._replacement()
            if backend is not None:
                due.setdefault(backend, []).append(pending)
            elif self._enabled:
                why = "the address of its sender is damaged" if is_lost else "it is no longer in the settings"
                await self._drop(pending, why)
        # A pause longer than the longest one was set before the clock was set back. It has no effect.
        paused = {backend: at for backend, at in self._paused_until.items() if now < at <= now + LONGEST_RETRY}
        for backend, batch in due.items():
            if backend not in busy and backend not in paused:
                self._busy.add(backend)
                deliveries.create_task(self._deliver_batch(backend, batch))
        next_due = await self._spool.next_notice_due()
        # A notice that is due already needs no time here: its delivery ends with `wake`, or its backend is paused.
        pauses = [at - now for at in (next_due, *paused.values()) if at is not None and at > now]
        if next_check is not None:
            pauses.append(next_check)
        return min(pauses, default=None)

    async def _check_delays(self, now: float) -> float | None:
        """Makes notices about delayed mail pending. Returns the seconds until the next check, None if there is none."""
        pause = self._no_check_before - time.monotonic()
        if pause > 0:
            return pause
        backends = backends_for(Kind.DELAYED, b"", (), self._enabled)
        next_change = await self._spool.update_delays(self._delay_after, backends)
        while next_change is None and self._mail_arrived:
            self._mail_arrived = False
            next_change = await self._spool.update_delays(self._delay_after, backends)
        self._is_checking_delays = next_change is not None
        if next_change is None:
            return None
        if next_change > now:
            return min(next_change - now, MAX_DELAY_CHECK_INTERVAL)
        self._no_check_before = time.monotonic() + MIN_DELAY_CHECK_INTERVAL
        return MAX_DELAY_CHECK_INTERVAL

    def _replacement(self) -> Backend | None:
        """The backend for notices whose own backend is not enabled any more, None if there is none."""
        # Not DSN: RFC 3461 limits what a report may be sent for. The desktop last: this computer may have none.
        others = [backend for backend in self._enabled if backend is not Backend.DSN]
        return next((backend for backend in others if backend is not Backend.DESKTOP), next(iter(others), None))

    async def _drop(self, pending: PendingNotice, why: str) -> None:
        """Ends the wait of a notice for a backend that will never deliver it. Raises what the spool raises."""
        log.warning("notice %d %s is not kept for %s: %s", pending.notice.id, pending.notice.kind, pending.backend, why)
        await self._spool.notice_dropped(pending)

    async def _deliver_batch(self, backend: Backend, batch: Sequence[PendingNotice]) -> None:
        """Delivers a batch by one backend. Raises only CancelledError, because `run` must go on."""
        is_summary = backend is Backend.DESKTOP and len(batch) > MAX_SINGLE
        groups = [batch] if is_summary else [[pending] for pending in batch]
        try:
            for group in groups:
                await self._deliver_group(backend, group)
            if backend is Backend.DESKTOP:
                self._paused_until[backend] = self._now() + DESKTOP_PAUSE * len(groups)
        except Exception as error:
            _log_spool_error(error)
            self._paused_until[backend] = self._now() + SPOOL_RETRY
        finally:
            self._busy.discard(backend)
            self.wake()

    async def _deliver_group(self, backend: Backend, group: Sequence[PendingNotice]) -> None:
        """Delivers a group with one call of the backend, and records the result. Raises only what the spool raises."""
        if backend is Backend.DSN:
            report = await asyncio.to_thread(self._loaders.report)
            for pending in group:
                await report(pending, self._spool, self._now())
                _log_delivered(pending)
            return
        undelivered = [pending for pending in group if (pending.notice.id, pending.backend) not in self._unrecorded]
        try:
            notices = [pending.notice for pending in undelivered]
            why = await deliver(self._deliver_by[backend], notices) if notices else ""
        except BackendMissing as error:
            for pending in undelivered:
                await self._drop(pending, str(error))
            return
        if not why:
            self._unrecorded.update((pending.notice.id, pending.backend) for pending in undelivered)
        for pending in group:
            if why and pending in undelivered:
                wait = min(FIRST_RETRY * 2.0 ** min(pending.tries, 10), LONGEST_RETRY)
                log.warning(
                    "notice %d %s not delivered by %s: %s; next try in %.0f s",
                    pending.notice.id,
                    pending.notice.kind,
                    backend,
                    why,
                    wait,
                )
                await self._spool.notice_failed(pending, self._now() + wait, why)
            else:
                await self._spool.notice_delivered(pending)
                self._unrecorded.discard((pending.notice.id, pending.backend))
                _log_delivered(pending)


def _log_delivered(pending: PendingNotice) -> None:
    log.info("notice %d %s delivered by %s", pending.notice.id, pending.notice.kind, pending.backend)


def _log_spool_error(error: Exception) -> None:
    # The daemon itself reports a broken spool, and ends.
    if isinstance(error, SpoolBroken):
        return
    log.error("notices wait, the spool fails: %s: %s", type(error).__name__, printable(str(error), 200))
