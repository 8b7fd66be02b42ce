"""Builds the daemon from its packages, starts and stops them in order, and waits for signals.

Start: lock, spool, recovery, listener, schedulers, notifier, then readiness. Stop: the listener closes, messages in progress
end and are recorded, the notifier ends, and the spool closes. `health` is there from the start to the end.
Promises: a second daemon on the same spool fails within a second. A disk that fails, and a spool that is not the one at its
path any more, end the process within two seconds, because only a new process may open the file again (`spool.writer`).
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailrelay import lazy, service_manager, submission
from mailrelay.config import Relayhost, Settings, SettingsError
from mailrelay.endpoint import Endpoint
from mailrelay.health import Health
from mailrelay.intake import Intake
from mailrelay.listener.forwarding import forward
from mailrelay.listener.listening import Listening, NoSuchAccount, listen
from mailrelay.listener.sockets import CannotListen
from mailrelay.mail.backends import backends_of
from mailrelay.mail.backoff import SPREAD
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.routing import choose
from mailrelay.mail.spool_errors import SpoolBroken, SpoolError
from mailrelay.network.events import Change
from mailrelay.network.monitor import changes
from mailrelay.notify.backend import BackendFailed
from mailrelay.notify.emergency import Emergency
from mailrelay.notify.memory import Memory, memory_file
from mailrelay.notify.notifier import Notifier
from mailrelay.relay.scheduler import Scheduler
from mailrelay.spool import lock, trigger
from mailrelay.spool.database import prepare_directory
from mailrelay.spool.spool import Spool
from mailrelay.ssh.interface import Connection

log = logging.getLogger("mailrelay.daemon")

GRACE = 10.0
"""Seconds that messages in progress have to end when the daemon is stopped, so that they are not sent twice."""
BROKEN_GRACE = 0.8
"""Seconds for each step of the end when the spool is broken: clients get their replies, conversations end. Longer than
`conversations.LAST_REPLIES`."""
TRIGGER_RETRY = 10.0
"""Seconds until the trigger is made again after that has failed."""
HOUSEKEEPING = 3600.0
"""Seconds between two rounds of housekeeping."""
INSPECTION = 86_400.0
"""Seconds between two searches for damage in the spool."""
START_INSPECTION = 0.5
"""Seconds for such a search before the daemon listens, at most: enough for about 50 MB. A longer one goes on beside it."""


class CannotStart(Exception):
    """The daemon cannot start, for a reason other than the spool and the settings. The text is one sentence."""


@dataclass(frozen=True, slots=True)
class _Daemon:
    """The parts of a running daemon. schedulers: by the relayhost's name. is_inspected: whether the whole spool was searched
    for damage at the start."""

    settings: Settings
    spool: Spool
    schedulers: Mapping[str, Scheduler]
    notifier: Notifier
    intake: Intake
    health: Health
    is_inspected: bool


async def serve(settings: Settings, ready: Callable[[list[Endpoint]], None] | None = None) -> None:
    """Runs the daemon until SIGTERM, SIGINT or SIGHUP. `ready` is called with the addresses once it listens.

    Raises SpoolError, lock.Held, SettingsError or CannotStart if it cannot start, and SpoolBroken if the disk fails while it
    runs.
    """
    os.umask(0o077)
    directory = settings.queue.directory
    async with Health(directory, _emergency(settings)) as health:
        prepare_directory(directory)
        with lock.lock(directory):
            schedulers: dict[str, Scheduler] = {}
            spool = Spool(
                directory,
                settings.queue.max_size,
                lambda name: _report_queued(schedulers, name),
                health=health.report,
            )
            try:
                is_inspected = await _inspect_at_start(settings, spool)
                await _recover(settings, spool)
                daemon = _build(settings, spool, schedulers, health, is_inspected=is_inspected)
                addresses, listeners = await _listen(daemon)
                await _run(daemon, listeners, lambda: (ready or _say_ready)(addresses))
            finally:
                # Before the spool waits for its threads: they may hang in the disk.
                await health.finish()
                spool.close()


def _emergency(settings: Settings) -> Emergency:
    """What tells the person of a failure of the spool. Raises SettingsError if a notice backend can never work."""
    directory = settings.queue.directory
    try:
        return Emergency(settings.notify, directory, lazy, Memory(memory_file(directory, os.environ)))
    except BackendFailed as error:
        raise SettingsError(f"notify: {error}") from None


async def _recover(settings: Settings, spool: Spool) -> None:
    """Repairs what a crash has left in the spool, and moves mail of relayhosts that the settings no longer have."""
    if spool.unreadable_commits:
        log.error(
            "%d commits at the end of the spool's log cannot be read. After a power cut this is no loss: no client was told"
            " that they are on disk. Otherwise look at the disk: the mail that came in last may be lost",
            spool.unreadable_commits,
        )
    interrupted = await spool.recover()
    if interrupted:
        log.warning("%d attempts were interrupted by a crash; their mail may arrive twice", interrupted)
    removed = await spool.unstage_all()
    if removed:
        log.info("%d messages whose content was not completed were removed; their clients have no 250", removed)
    names = {relayhost.name for relayhost in settings.relayhosts}
    moved, left = await spool.reroute(names, lambda sender: choose(sender, settings.relayhosts))
    if moved:
        log.warning("%d messages of relayhosts that are no longer in the settings go by another relayhost now", moved)
    if left:
        log.error("%d messages wait for relayhosts that are not in the settings: see `mailrelay queue`", left)


def _build(
    settings: Settings, spool: Spool, schedulers: dict[str, Scheduler], health: Health, *, is_inspected: bool
) -> _Daemon:
    """Builds all parts; puts the schedulers into `schedulers`."""
    notifier = Notifier(settings.notify, spool, settings.queue.delay_notice_after, lazy)
    policy = RetryPolicy(
        settings.queue.retry,
        settings.queue.expire_after,
        backends_of(settings.notify),
    )
    completion = submission.completion(settings.submission)
    for relayhost in settings.relayhosts:
        schedulers[relayhost.name] = Scheduler(relayhost, spool, _dial, policy, notifier.wake, completion=completion)
    intake = Intake(
        settings.relayhosts,
        schedulers,
        spool,
        notifier.start_delay_checks,
        settings.listen.answer_within,
        completion=completion,
    )
    return _Daemon(settings, spool, schedulers, notifier, intake, health, is_inspected)


async def _listen(daemon: _Daemon) -> tuple[list[Endpoint], contextlib.AsyncExitStack]:
    """Opens the listener for mail and all forwards, or none of them.

    Returns the addresses, those for mail first, and the stack that closes them. Raises SettingsError, CannotStart.
    """
    settings = daemon.settings
    async with contextlib.AsyncExitStack() as opened:
        try:
            listening = await listen(settings.listen, daemon.intake)
            opened.push_async_callback(_close, listening, daemon.spool)
            addresses = [*listening.addresses]
            for each in settings.forwards:
                forwarding = await forward(each, settings.listen, daemon.schedulers[each.relayhost].stream)
                opened.push_async_callback(forwarding.close)
                addresses += forwarding.addresses
        except NoSuchAccount as error:
            raise SettingsError(str(error)) from None
        except CannotListen as error:
            raise CannotStart(str(error)) from None
        return addresses, opened.pop_all()


async def _close(listening: Listening, spool: Spool) -> None:
    if spool.broken.done():
        # Every reply that is pending is a 451, which needs no disk.
        await listening.close(BROKEN_GRACE)
    else:
        await listening.close()


async def _run(daemon: _Daemon, listeners: contextlib.AsyncExitStack, ready: Callable[[], None]) -> None:
    async with asyncio.TaskGroup() as group:
        relaying = [group.create_task(scheduler.run()) for scheduler in daemon.schedulers.values()]
        helping = [
            group.create_task(daemon.spool.watch()),
            group.create_task(daemon.notifier.run()),
            group.create_task(_watch_trigger(daemon)),
            group.create_task(_watch_changes(daemon)),
            group.create_task(_run_housekeeping(daemon)),
            group.create_task(daemon.health.watch(daemon.spool.try_storing, lambda: _resume(daemon))),
            group.create_task(_run_inspections(daemon)),
        ]
        # At once: whatever is sent from now on is sent again after the restart.
        daemon.spool.broken.add_done_callback(lambda _: _stop_sending(daemon))
        try:
            daemon.health.answer()
            stopped = _signals_to_stop()
            ready()
            await _until_stopped(daemon.spool, stopped)
        finally:
            log.info("stopping")
            await listeners.aclose()
            finishing = [asyncio.ensure_future(scheduler.finish()) for scheduler in daemon.schedulers.values()]
            is_broken = daemon.spool.broken.done()
            _, unfinished = await asyncio.wait(finishing, timeout=BROKEN_GRACE if is_broken else GRACE)
            for task in (*unfinished, *relaying):
                task.cancel()
            _, unfinished = await asyncio.wait(relaying, timeout=BROKEN_GRACE if is_broken else None)
            for task in (*unfinished, *helping):
                task.cancel()
    # It may also have broken while the daemon was stopping.
    if daemon.spool.broken.done():
        raise daemon.spool.broken.result()
    log.info("stopped")


def _stop_sending(daemon: _Daemon) -> None:
    broken = daemon.spool.broken.result()
    log.critical("%s; mailrelay ends", broken)
    broken.is_logged = True
    for scheduler in daemon.schedulers.values():
        scheduler.spool_broken()


async def _dial(relayhost: Relayhost) -> Connection:
    dial = await asyncio.to_thread(lazy.ssh_dial)
    return await dial(relayhost)


def _report_queued(schedulers: Mapping[str, Scheduler], name: str) -> None:
    """A DSN was accepted for the relayhost `name`."""
    # It may be about mail of a relayhost that is no longer in the settings.
    if name in schedulers:
        schedulers[name].look_again()


def _signals_to_stop() -> asyncio.Event:
    """An event that SIGTERM, SIGINT or SIGHUP (a closed terminal) sets."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    return stopped


async def _until_stopped(spool: Spool, stopped: asyncio.Event) -> None:
    """Waits for the event, or a failure of the disk."""
    stopping = asyncio.get_running_loop().create_task(stopped.wait())
    ends: list[asyncio.Future[Any]] = [stopping, spool.broken]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()


async def _watch_trigger(daemon: _Daemon) -> None:
    """Wakes the schedulers and the notifier when the trigger is used: the spool has changed, or there is a network."""
    handle = await _open_trigger(daemon.settings.queue.directory)
    triggered = asyncio.Event()
    # Commands may have changed the spool before there was a trigger.
    triggered.set()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, triggered.set)
    try:
        while True:
            await triggered.wait()
            triggered.clear()
            network_changed = trigger.NETWORK in trigger.drain(handle)
            for scheduler in daemon.schedulers.values():
                scheduler.look_again()
                if network_changed:
                    scheduler.network_changed(Change(may_connect=True))
            daemon.notifier.wake()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def _open_trigger(directory: Path) -> int:
    """The daemon's end of the trigger. On a full disk, waits until it can be made."""
    is_logged = False
    while True:
        try:
            return trigger.listen(directory)
        except OSError as error:
            if not is_logged:
                log.error("commands cannot wake the daemon: %s: %s", error.filename or directory, error.strerror)
            is_logged = True
        await asyncio.sleep(TRIGGER_RETRY)


def _resume(daemon: _Daemon) -> None:
    """Ends the pauses after a failure of the spool."""
    for scheduler in daemon.schedulers.values():
        scheduler.resume()
    daemon.notifier.resume()


async def _watch_changes(daemon: _Daemon) -> None:
    """Reports changes of the network to the schedulers, and corrects times in the spool when the clock was set."""
    since = time.time()
    async for change in changes():
        if change.suspended:
            log.info("awake again, after %.0f s", change.suspended)
        if change.clock_step:
            log.warning("the clock was set by %+.0f s; waiting mail keeps its age", change.clock_step)
            try:
                await daemon.spool.clock_jumped(change.clock_step, since)
                await _cap_waits(daemon)
            except SpoolError as error:
                log.error("times in the spool from before the clock was set are not corrected: %s", error)
            # What was written since then is on the new clock now.
            since += change.clock_step
            daemon.notifier.wake()
        for scheduler in daemon.schedulers.values():
            scheduler.network_changed(change)


async def _cap_waits(daemon: _Daemon) -> None:
    # Other waits, for notices and after a fault of a relayhost, are an hour at most.
    moved = await daemon.spool.cap_waits((1 + SPREAD) * max(*daemon.settings.queue.retry, 3600.0))
    if moved:
        log.warning("the clock was ahead: %d messages that waited for too late a time are due now", moved)


async def _run_housekeeping(daemon: _Daemon) -> None:
    """Corrects times of a wrong clock and deletes old history, at the start and then every HOUSEKEEPING seconds."""
    while True:
        try:
            await _cap_waits(daemon)
            while await daemon.spool.purge(daemon.settings.queue.keep_sent):
                pass
        except SpoolBroken:
            return
        except SpoolError as error:
            log.error("old history is not deleted: %s", error)
        await asyncio.sleep(HOUSEKEEPING)


async def _inspect_at_start(settings: Settings, spool: Spool) -> bool:
    """Looks for damage in the spool before anything reads it, unless it is too large for that. Returns whether it has."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_INSPECTION):
            await _inspect(settings, spool)
            return True
    return False


async def _inspect(settings: Settings, spool: Spool) -> None:
    """Looks for damage in the spool. Raises SpoolBroken for damage that cannot be repaired."""
    for one in await spool.inspect(backends_of(settings.notify)):
        log.error("the spool's file was damaged, and is repaired; look at the disk: %s", one)


async def _run_inspections(daemon: _Daemon) -> None:
    """Looks for damage every INSPECTION seconds. What cannot be repaired ends the daemon (`Spool.broken`)."""
    if daemon.is_inspected:
        await asyncio.sleep(INSPECTION)
    while True:
        try:
            await _inspect(daemon.settings, daemon.spool)
        except SpoolError as error:
            log.error("%s", error)
        # A repair shows mail that was hidden, and makes notices pending.
        for scheduler in daemon.schedulers.values():
            scheduler.look_again()
        daemon.notifier.wake()
        await asyncio.sleep(INSPECTION)


def _say_ready(addresses: list[Endpoint]) -> None:
    """Prints one line on stderr, and tells the service manager."""
    print(f"mailrelay: ready, listening on {' and '.join(map(str, addresses))}", file=sys.stderr, flush=True)  # noqa: T201
    service_manager.notify("READY=1", os.environ)
