"""Builds the daemon out of its rooms, starts and stops them in order, and waits for signals.

Order: lock, spool, recovery, listener, schedulers, notifier; then it says that it is ready. The other way round at
the end: first no new mail, then what is under way is finished and recorded.
Promises: a second daemon on the same spool fails within a second; a disk that fails under the spool ends the process, for
only a fresh one may trust the file again.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mailrelay import lazy
from mailrelay.config import Queue, Relayhost, Settings, SettingsError
from mailrelay.endpoint import Endpoint
from mailrelay.intake import Intake
from mailrelay.listener.forwarding import forward
from mailrelay.listener.listening import NoSuchAccount, listen
from mailrelay.listener.sockets import CannotListen
from mailrelay.mail.backends import backends_for
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.routing import choose
from mailrelay.mail.spool_errors import SpoolBroken, SpoolError
from mailrelay.network.events import Change
from mailrelay.network.monitor import changes
from mailrelay.notify.backend import BackendFailed
from mailrelay.notify.notifier import Notifier, backends
from mailrelay.relay.scheduler import Scheduler
from mailrelay.spool import lock, trigger
from mailrelay.spool.database import prepare_directory
from mailrelay.spool.spool import Spool
from mailrelay.ssh.interface import Connection

log = logging.getLogger("mailrelay.service")

GRACE = 10.0
"""Seconds for the messages that are being sent when we are stopped, so that they need not be sent twice."""
HOUSEKEEPING = 3600.0
"""Seconds between two rounds of taking old history away."""


class CannotStart(Exception):
    """What is outside the spool and the settings keeps the daemon from starting. The text is one sentence for the person."""


async def serve(settings: Settings, ready: Callable[[list[Endpoint]], None] | None = None) -> None:
    """Runs the daemon until SIGTERM, SIGINT or SIGHUP. `ready` is called with the addresses once it listens.

    Raises what keeps it from starting: SpoolError, lock.Held, SettingsError, CannotStart; and SpoolBroken if the disk fails
    under it.
    """
    os.umask(0o077)
    prepare_directory(settings.queue.directory)
    with lock.lock(settings.queue.directory):
        schedulers: dict[str, Scheduler] = {}
        spool = Spool(settings.queue.directory, settings.queue.max_size, lambda name: _ring(schedulers, name))
        try:
            await _run(settings, spool, schedulers, ready or _say_ready)
        finally:
            spool.close()


async def _run(
    settings: Settings, spool: Spool, schedulers: dict[str, Scheduler], ready: Callable[[list[Endpoint]], None]
) -> None:
    interrupted = await spool.recover()
    if interrupted:
        log.warning("%d attempts were interrupted by a crash; their mail may arrive twice", interrupted)
    removed = await spool.unstage_all()
    if removed:
        log.info("%d messages whose content was not completed were removed; their clients have no 250", removed)
    names = {relayhost.name for relayhost in settings.relayhosts}
    moved, left = await spool.reroute(names, lambda sender: choose(sender, settings.relayhosts))
    if moved:
        log.warning("%d messages were for relayhosts that the settings no longer name; they go another way now", moved)
    if left:
        log.error("%d messages wait for relayhosts that the settings do not name: see `mailrelay queue`", left)
    try:
        notifier = Notifier(settings.notify, spool, settings.queue.delay_notice_after, lazy)
    except BackendFailed as error:
        raise SettingsError(f"notify: {error}") from None
    in_force = backends(settings.notify)
    terms = RetryPolicy(
        settings.queue.retry,
        settings.queue.expire_after,
        lambda kind, sender, notify: backends_for(kind, sender, (notify,), in_force),
    )
    for relayhost in settings.relayhosts:
        schedulers[relayhost.name] = Scheduler(relayhost, spool, _dial, terms, notifier.wake)
    intake = Intake(settings.relayhosts, schedulers, spool, notifier.mail_waits, settings.listen.answer_within)
    addresses, doors = await _open_doors(settings, intake, schedulers)
    async with asyncio.TaskGroup() as group:
        relaying = [group.create_task(scheduler.run()) for scheduler in schedulers.values()]
        helping = [
            group.create_task(notifier.run()),
            group.create_task(_hear_trigger(settings.queue.directory, schedulers, notifier)),
            group.create_task(_hear_changes(settings.queue, spool, schedulers, notifier)),
            group.create_task(_keep_house(spool, settings.queue)),
        ]
        try:
            ready(addresses)
            broken = await _until_stopped(spool)
        finally:
            log.info("stopping")
            await doors.aclose()
            finishing = [asyncio.ensure_future(scheduler.finish()) for scheduler in schedulers.values()]
            _, unfinished = await asyncio.wait(finishing, timeout=GRACE)
            for task in (*unfinished, *relaying):
                task.cancel()
            await asyncio.wait(relaying)
            for task in helping:
                task.cancel()
    if broken is not None:
        raise broken
    log.info("stopped")


async def _dial(relayhost: Relayhost) -> Connection:
    dial = await asyncio.to_thread(lazy.ssh_dial)
    return await dial(relayhost)


async def _open_doors(
    settings: Settings, intake: Intake, schedulers: dict[str, Scheduler]
) -> tuple[list[Endpoint], contextlib.AsyncExitStack]:
    """Listens for mail and for what is forwarded, or for nothing. Returns where, mail's first, and what closes it again."""
    async with contextlib.AsyncExitStack() as opened:
        try:
            listening = await listen(settings.listen, intake)
            opened.push_async_callback(listening.close)
            addresses = [*listening.addresses]
            for each in settings.forwards:
                forwarding = await forward(each, settings.listen, schedulers[each.relayhost].stream)
                opened.push_async_callback(forwarding.close)
                addresses += forwarding.addresses
        except NoSuchAccount as error:
            raise SettingsError(str(error)) from None
        except CannotListen as error:
            raise CannotStart(str(error)) from None
        return addresses, opened.pop_all()


def _ring(schedulers: dict[str, Scheduler], name: str) -> None:
    # A notice may speak of mail whose relayhost has left the settings.
    if name in schedulers:
        schedulers[name].look_again()


async def _until_stopped(spool: Spool) -> SpoolBroken | None:
    """Until a signal asks for the end (a closed terminal sends one too), or the disk fails: returns how, then."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    stopping = loop.create_task(stopped.wait())
    ends: list[asyncio.Future[Any]] = [stopping, spool.broken]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    return spool.broken.result() if spool.broken.done() else None


async def _hear_trigger(directory: Path, schedulers: dict[str, Scheduler], notifier: Notifier) -> None:
    """Passes on the bell that commands ring beside the spool."""
    handle = trigger.listen(directory)
    rung = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, rung.set)
    try:
        while True:
            await rung.wait()
            rung.clear()
            network_changed = trigger.NETWORK in trigger.drain(handle)
            for scheduler in schedulers.values():
                scheduler.look_again()
                if network_changed:
                    scheduler.network_changed(Change(may_connect=True))
            notifier.wake()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def _hear_changes(settings: Queue, spool: Spool, schedulers: dict[str, Scheduler], notifier: Notifier) -> None:
    """Passes on what happens to the network and the clock of this computer."""
    since = time.time()
    async for change in changes():
        if change.suspended:
            log.info("awake again, after %.0f s", change.suspended)
        if change.clock_step:
            log.warning("the clock was set by %+.0f s; what waits keeps its age", change.clock_step)
            try:
                await spool.clock_jumped(change.clock_step, since)
                await _set_right(spool, settings)
            except SpoolError as error:
                log.error("what the clock of before has written stays for now: %s", error)
            since = time.time()
            notifier.wake()
        for scheduler in schedulers.values():
            scheduler.network_changed(change)


async def _set_right(spool: Spool, settings: Queue) -> None:
    # No step of a schedule is longer: what lies further off was put there by a clock that was wrong.
    moved = await spool.cap_waits(2 * max(*settings.retry, HOUSEKEEPING))
    if moved:
        log.warning("the clock was ahead: %d messages that it had put off are due now", moved)


async def _keep_house(spool: Spool, settings: Queue) -> None:
    while True:
        try:
            await _set_right(spool, settings)
            while await spool.purge(settings.keep_sent):
                pass
        except SpoolError as error:
            log.error("old history stays for now: %s", error)
        await asyncio.sleep(HOUSEKEEPING)


def _say_ready(addresses: list[Endpoint]) -> None:
    """One line on stderr, and READY=1 to a service manager that asked for it (sd_notify(3))."""
    print(f"mailrelay: ready, listening on {' and '.join(map(str, addresses))}", file=sys.stderr, flush=True)  # noqa: T201
    where = os.environ.get("NOTIFY_SOCKET", "")
    if where:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.sendto(b"READY=1", "\0" + where[1:] if where.startswith("@") else where)
