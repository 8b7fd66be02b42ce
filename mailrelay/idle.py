"""The end of a daemon that has nothing to do (`listen.idle_exit`). A service manager starts it again with the next mail.

    await until_idle(parts, …)      # returns when the daemon may end; nothing is accepted any more

Nothing is lost between the decision and the end of the process. The service manager keeps the listening sockets and the
trigger: a connection waits in the backlog of the kernel, an octet in the FIFO, and either starts the next daemon. So
the daemon first stops accepting connections and reading the trigger, then checks again whether it has something to do.
If it has, it goes on.
"""

import asyncio
import logging
import sys
from collections.abc import Callable

from mailrelay.endpoint import Endpoint
from mailrelay.mail.spool_errors import SpoolError
from mailrelay.parts import Parts
from mailrelay.spool import trigger

log = logging.getLogger("mailrelay.daemon")

CHECKS = 4
"""Checks during the time of `idle_exit`: the daemon ends after it was idle at so many checks in a row."""
ACCEPT_ROUNDS = 3
"""Rounds of the event loop until the listener and the forwards count a connection that was accepted last."""


async def until_idle(parts: Parts, stop_trigger: Callable[[], None], start_trigger: Callable[[], None]) -> None:
    """Waits until the daemon has been idle for `listen.idle_exit`. Waits for ever if it cannot end, because no service
    manager would start it again.

    stop_trigger: stops reading the trigger. start_trigger: starts reading it again.
    """
    log_wrong_sockets(parts)
    idle_checks, activity = 0, parts.activity
    # That the trigger was lost.
    is_told = False
    while True:
        # Also without `idle_exit`, because a reload may set it.
        await asyncio.sleep((parts.settings.listen.idle_exit or 60.0) / CHECKS)
        is_quiet = bool(parts.settings.listen.idle_exit) and not _not_inherited(parts) and not await _is_busy(parts)
        idle_checks = idle_checks + 1 if is_quiet and activity == parts.activity else 0
        activity = parts.activity
        if idle_checks < CHECKS:
            continue
        if parts.ask_before_end():
            idle_checks = 0
            continue
        stop_trigger()
        parts.pause()
        for _ in range(ACCEPT_ROUNDS):
            await asyncio.sleep(0)
        if not _is_trigger_kept(parts):
            if not is_told:
                log.warning(
                    "listen.idle_exit has no effect: the service manager does not listen on %s, and no command could start"
                    " the daemon. Restart the socket unit",
                    parts.settings.queue.directory / trigger.FILE,
                )
            is_told = True
        elif activity == parts.activity and not await _is_busy(parts):
            log.info("nothing to do: ends until the next mail")
            return
        await parts.resume()
        start_trigger()
        idle_checks = 0


def _not_inherited(parts: Parts) -> list[Endpoint]:
    """The addresses on which the daemon listens, but no service manager does."""
    return [address for address in parts.addresses if address not in parts.sockets.inherited]


def log_wrong_sockets(parts: Parts) -> None:
    """Logs where the sockets of the service manager are not those of the settings. After the start, and after a reload."""
    if unknown := parts.sockets.inherited.difference(parts.addresses):
        log.error(
            "the service manager listens on %s, which the settings do not name: clients there get no reply."
            " Run `mailrelay setup` again",
            " and ".join(sorted(map(str, unknown))),
        )
    if parts.settings.listen.idle_exit and (missing := _not_inherited(parts)):
        log.warning(
            "listen.idle_exit has no effect: no service manager listens on %s to start the daemon with the next mail."
            " Run `mailrelay setup` again",
            " and ".join(map(str, missing)),
        )


def _is_trigger_kept(parts: Parts) -> bool:
    """Whether the service manager listens on the trigger. The daemon itself must not at this moment."""
    # launchd cannot listen on it.
    return sys.platform == "darwin" or trigger.is_listened_to(parts.settings.queue.directory)


async def _is_busy(parts: Parts) -> bool:
    """Whether the daemon does something, or has something to do later: an attempt or a notice."""
    if parts.is_busy:
        return True
    try:
        return (await parts.spool.next_due_of_any(), await parts.spool.next_notice_due()) != (None, None)
    except SpoolError:
        # The health of the daemon reports the error.
        return True
