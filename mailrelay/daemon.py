"""Starts and stops the parts of the daemon (`parts`) in order, and waits for signals.

Start: lock, spool, recovery, listener, schedulers, notifier, then readiness. Stop: the listener closes, messages in
progress end and are recorded, the notifier ends, and the spool closes. `health` works before the start of the others
and after their end. Promises: a second daemon on the same spool fails within a second. The process ends within two
seconds if the disk fails, or if the spool's file was moved or replaced, because only a new process may open the file
again (`spool.writer`).
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mailrelay import cancelling, journal, service_manager
from mailrelay.config import Settings, SettingsError
from mailrelay.endpoint import Endpoint
from mailrelay.health import Health
from mailrelay.idle import log_wrong_sockets, until_idle
from mailrelay.listener.activation import inherited_sockets
from mailrelay.listener.sockets import Sockets
from mailrelay.mail.backends import backends_of
from mailrelay.mail.backoff import SPREAD
from mailrelay.mail.spool_errors import SpoolBroken, SpoolError
from mailrelay.network.events import Change
from mailrelay.network.monitor import changes
from mailrelay.parts import CannotStart as CannotStart
from mailrelay.parts import Parts, build, emergency_of
from mailrelay.relay.scheduler import Scheduler
from mailrelay.spool import lock, trigger
from mailrelay.spool.database import prepare_directory
from mailrelay.spool.spool import Spool

log = logging.getLogger("mailrelay.daemon")

GRACE = 10.0
"""Seconds that messages in progress have to end when the daemon stops, so that they are not sent twice."""
BROKEN_GRACE = 0.8
"""Seconds for each step of the end when the spool is broken: clients get their replies, conversations end. Longer than
`conversations.LAST_REPLIES`."""
TRIGGER_LOOK = 5.0
"""Seconds between two looks whether the trigger is still there."""
TRIGGER_RETRY = 10.0
"""Seconds until the trigger is made again after that has failed."""
HOUSEKEEPING = 3600.0
"""Seconds between two rounds of housekeeping."""
INSPECTION = 86_400.0
"""Seconds between two searches for damage in the spool."""
START_INSPECTION = 0.5
"""Seconds for such a search before the daemon listens, at most: enough for about 50 MB. A search that takes longer is broken
off, and begun again while the daemon runs."""

Reread = Callable[[], Settings]
"""Reads the settings again. Raises SettingsError. Called on a thread."""


async def serve(
    settings: Settings, ready: Callable[[list[Endpoint]], None] | None = None, reread: Reread | None = None
) -> None:
    """Runs the daemon until SIGTERM or SIGINT. SIGHUP makes it read the settings again; if its terminal was closed, or
    without `reread`, it ends. `ready` is called with the addresses once it listens; without it, the daemon reports this
    itself on stderr and to the service manager.

    Raises SpoolError, lock.Held, SettingsError or CannotStart if it cannot start, and SpoolBroken if the spool can no
    longer be used while it runs.
    """
    os.umask(0o077)
    directory = settings.queue.directory
    sockets = Sockets(inherited_sockets(os.environ))
    async with Health(directory, emergency_of(settings)) as health:
        prepare_directory(directory)
        with lock.lock(directory):
            schedulers: dict[str, Scheduler] = {}
            spool = Spool(
                directory,
                settings.queue.max_size,
                lambda name: _dsn_accepted(schedulers, name),
                health=health.report,
            )
            try:
                is_inspected = await _inspect_at_start(settings, spool)
                await _recover(spool)
                daemon = build(settings, spool, schedulers, health, sockets, is_inspected=is_inspected)
                await daemon.try_rerouting()
                if spool.broken.done():
                    raise spool.broken.result()
                await daemon.listen()
                await _run(daemon, lambda: (ready or _say_ready)(daemon.addresses), reread)
            finally:
                # Before the spool waits for its threads: they may hang in the disk.
                await health.finish()
                spool.close()


async def _recover(spool: Spool) -> None:
    """Repairs what a crash has left in the spool."""
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


async def _run(daemon: Parts, ready: Callable[[], None], reread: Reread | None) -> None:
    """Runs the parts until the daemon is asked to stop, then stops them. Raises SpoolBroken."""
    async with asyncio.TaskGroup() as group:
        daemon.start(group)
        stopped, reload = _signals(can_reload=reread is not None)
        trigger_tasks = [group.create_task(_watch_trigger(daemon))]
        background = [
            group.create_task(daemon.spool.watch()),
            group.create_task(_watch_changes(daemon)),
            group.create_task(_run_housekeeping(daemon)),
            group.create_task(daemon.health.watch(daemon.spool.try_storing, lambda: _resume(daemon))),
            group.create_task(_run_inspections(daemon)),
            group.create_task(cancelling.serve(daemon.settings.queue.directory, daemon.cancel)),
        ]
        cancelled_first = [group.create_task(_run_reloads(daemon, reload, reread))] if reread is not None else []
        # At once, because no outcome can be recorded any more: messages that are sent after this are sent again after
        # the restart.
        daemon.spool.broken.add_done_callback(lambda _: _stop_sending(daemon))
        try:
            daemon.health.answer(
                lambda: {name: one.error_text for name, one in daemon.schedulers.items()},
                lambda: _connected(daemon),
                lambda: [sending for scheduler in daemon.relaying for sending in scheduler.sending()],
            )
            ready()
            cancelled_first.append(group.create_task(_stop_when_idle(daemon, trigger_tasks, group, stopped)))
            await _until_stopped(daemon.spool, stopped)
        finally:
            log.info("stopping")
            service_manager.notify("STOPPING=1", os.environ)
            for task in cancelled_first:
                task.cancel()
            is_broken = daemon.spool.broken.done()
            # If the spool is broken, every pending reply to a client is a 451, which needs no disk.
            await daemon.close(BROKEN_GRACE if is_broken else None)
            finishing = [asyncio.ensure_future(scheduler.finish()) for scheduler in daemon.relaying]
            is_broken = daemon.spool.broken.done()
            _, unfinished = await asyncio.wait(finishing, timeout=BROKEN_GRACE if is_broken else GRACE)
            relaying = [*daemon.relaying.values()]
            for task in (*unfinished, *daemon.retiring, *relaying):
                task.cancel()
            _, unfinished = await asyncio.wait(relaying, timeout=BROKEN_GRACE if is_broken else None)
            for task in (*unfinished, *background, *trigger_tasks, *((daemon.notifying,) if daemon.notifying else ())):
                task.cancel()
    # The spool may also have broken while the daemon was stopping.
    if daemon.spool.broken.done():
        raise daemon.spool.broken.result()
    log.info("stopped")


def _connected(daemon: Parts) -> list[str]:
    return [name for name, scheduler in daemon.schedulers.items() if scheduler.is_connected]


def _stop_sending(daemon: Parts) -> None:
    """The spool is broken: logs why, and makes all schedulers break off."""
    broken = daemon.spool.broken.result()
    log.critical("%s; mailrelay ends", broken)
    broken.is_logged = True
    for scheduler in daemon.relaying:
        scheduler.spool_broken()


def _signals(*, can_reload: bool) -> tuple[asyncio.Event, asyncio.Event]:
    """Two events that signals set: to stop, and to read the settings again."""
    loop = asyncio.get_running_loop()
    stopped, reload = asyncio.Event(), asyncio.Event()
    has_terminal = _has_terminal()

    def hung_up() -> None:
        is_terminal_closed = has_terminal and not _has_terminal()
        if is_terminal_closed:
            _drop_output()
        (reload if can_reload and not is_terminal_closed else stopped).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    return stopped, reload


async def _stop_when_idle(
    daemon: Parts, trigger_tasks: "list[asyncio.Task[None]]", group: asyncio.TaskGroup, stopped: asyncio.Event
) -> None:
    """Stops the daemon when it has been idle for `listen.idle_exit`. trigger_tasks: has the task that reads the
    trigger, if one runs."""

    def stop_trigger() -> None:
        trigger_tasks.pop().cancel()

    def start_trigger() -> None:
        trigger_tasks.append(group.create_task(_watch_trigger(daemon)))

    await until_idle(daemon, stop_trigger, start_trigger)
    stopped.set()


def _drop_output() -> None:
    """What is written to stdout and stderr goes nowhere from now on: a failed write would change the exit status."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    for handle in (1, 2):
        os.dup2(nowhere, handle)
    os.close(nowhere)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


async def _run_reloads(daemon: Parts, wanted: asyncio.Event, reread: Reread) -> None:
    """Reads the settings file again each time the event is set, and uses the new settings. If they cannot be used, one
    line in the log says why."""
    while True:
        await wanted.wait()
        wanted.clear()
        service_manager.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", os.environ)
        why = ""
        try:
            await daemon.change(await asyncio.to_thread(reread))
            log.info("the daemon has the settings of the file now")
            log_wrong_sockets(daemon)
        except (SettingsError, CannotStart) as error:
            why = str(error)
            log.error("the daemon goes on with the old settings: %s", why)
        except Exception as error:
            # The daemon must not end because of it.
            why = f"{type(error).__name__}: {error}"
            log.exception("the daemon goes on, perhaps with the old settings")
        daemon.health.reloaded(why)
        service_manager.notify("READY=1", os.environ)


def _dsn_accepted(schedulers: Mapping[str, Scheduler], name: str) -> None:
    """Wakes the scheduler of the relayhost `name`: a DSN was accepted for it."""
    # The DSN may be about mail of a relayhost that is no longer in the settings.
    if name in schedulers:
        for scheduler in schedulers.values():
            # All of them: it may be the fallback that sends it.
            scheduler.look_again()


async def _until_stopped(spool: Spool, stopped: asyncio.Event) -> None:
    """Waits for the event, or a failure of the disk."""
    stopping = asyncio.get_running_loop().create_task(stopped.wait())
    ends: list[asyncio.Future[Any]] = [stopping, spool.broken]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()


async def _watch_trigger(daemon: Parts) -> None:
    """Wakes the schedulers and the notifier when the trigger is used: the spool has changed, or there is a network."""
    directory = daemon.settings.queue.directory
    while True:
        handle = await _open_trigger(directory)
        triggered = asyncio.Event()
        # Commands may have changed the spool before there was a trigger.
        triggered.set()
        loop = asyncio.get_running_loop()
        loop.add_reader(handle, triggered.set)
        try:
            while triggered.is_set() or trigger.is_at(directory, handle):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TRIGGER_LOOK):
                        await triggered.wait()
                        _use_trigger(daemon, handle)
                triggered.clear()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
        log.warning(
            "the file with which commands wake the daemon is gone, and is made again: %s/%s", directory, trigger.FILE
        )


def _use_trigger(daemon: Parts, handle: int) -> None:
    network_changed = trigger.NETWORK in (octets := trigger.drain(handle))
    daemon.triggered += bool(octets)
    daemon.wake()
    if network_changed:
        for scheduler in daemon.schedulers.values():
            scheduler.network_changed(Change(may_connect=True))


async def _open_trigger(directory: Path) -> int:
    """Makes and opens the trigger for reading; returns the descriptor. After a failure, such as a full disk, tries
    again every TRIGGER_RETRY seconds."""
    is_logged = False
    while True:
        try:
            return trigger.listen(directory)
        except OSError as error:
            if not is_logged:
                log.error("commands cannot wake the daemon: %s: %s", error.filename or directory, error.strerror)
            is_logged = True
        await asyncio.sleep(TRIGGER_RETRY)


def _resume(daemon: Parts) -> None:
    """Ends the pauses after a failure of the spool, and does what failed."""
    daemon.reroute_again()
    for scheduler in daemon.schedulers.values():
        scheduler.resume()
    daemon.notifier.resume()


async def _watch_changes(daemon: Parts) -> None:
    """Reports changes of the network to the schedulers, and corrects times in the spool when the clock was set."""
    since = time.time()
    async for change in changes():
        if change.suspended:
            log.info("the computer is awake again, after %.0f s", change.suspended)
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


async def _cap_waits(daemon: Parts) -> None:
    """Makes due what waits longer than any schedule allows, because a clock was wrong. Raises SpoolError."""
    # `queue.retry` or an hour: the waits for notices and after a fault of a relayhost are an hour at most.
    moved = await daemon.spool.cap_waits((1 + SPREAD) * max(*daemon.settings.queue.retry, 3600.0))
    if moved:
        log.warning(
            "the clock was ahead: the next attempts at %d messages were planned too late; they are due now", moved
        )


async def _run_housekeeping(daemon: Parts) -> None:
    """Corrects times that a wrong clock has set and deletes old history, at the start and then every HOUSEKEEPING
    seconds."""
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
    """Looks for damage in the spool before anything reads it. Returns whether the search was completed within
    START_INSPECTION."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_INSPECTION):
            await _inspect(settings, spool)
            return True
    return False


async def _inspect(settings: Settings, spool: Spool) -> None:
    """Looks for damage in the spool, repairs and logs it. Raises SpoolBroken for damage that cannot be repaired."""
    for one in await spool.inspect(backends_of(settings.notify)):
        log.error("the spool's file was damaged, and is repaired; look at the disk: %s", one)


async def _run_inspections(daemon: Parts) -> None:
    """Looks for damage every INSPECTION seconds. Damage that cannot be repaired ends the daemon (`Spool.broken`)."""
    if daemon.is_inspected:
        await asyncio.sleep(INSPECTION)
    while True:
        try:
            await _inspect(daemon.settings, daemon.spool)
        except SpoolError as error:
            log.error("%s", error)
        # After a repair there may be mail that could not be found before, and pending notices.
        daemon.wake()
        await asyncio.sleep(INSPECTION)


def _say_ready(addresses: list[Endpoint]) -> None:
    """Prints one line on stderr, and tells the service manager."""
    line = f"ready, listening on {' and '.join(map(str, addresses))}"
    text = journal.lines(line, journal.INFO) if journal.is_journal(sys.stderr) else f"mailrelay: {line}\n"
    print(text, end="", file=sys.stderr, flush=True)  # noqa: T201
    service_manager.notify("READY=1", os.environ)
