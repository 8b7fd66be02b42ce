"""Messages that are being sent: the progress of each, and how to stop one. Both need the daemon.

    sending(queue)                       the messages whose content is being sent, with octets, rate and time left
    stop_sending(directory, ids, …)      stops messages before the end of their content, and cancels them

The daemon answers within milliseconds. Without a daemon, or with one of an older version, the progress is not known, and no
message can be stopped. `mail.sending` has the texts for it.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mailrelay.control.daemon import daemon_pid
from mailrelay.control.errors import NoSuchMessage, SpoolError
from mailrelay.mail.overview import Listed
from mailrelay.mail.sending import Sending, Stop
from mailrelay.spool import liveness, stopping
from mailrelay.spool.command_spool import CommandSpool

if TYPE_CHECKING:
    from mailrelay.control.system import Queue

TIMEOUT = 1.0
"""Seconds to wait for the daemon's answer about progress. If it hangs, the progress is not known."""
STOP_TIMEOUT = 15.0
"""Seconds to wait for a stop: the daemon itself gives up after 8 seconds (`relay.scheduler`), and then writes the spool."""
SETTLE_TIMEOUT, SETTLE_INTERVAL = 2.0, 0.05
"""Seconds to wait until the spool has an attempt that has ended, and seconds between two reads."""


def sending(queue: "Queue") -> list[Sending]:
    """The messages whose content is being sent now, or that wait for the mail server's reply to it; [] if it is not
    known."""
    if not isinstance(queue, Path):
        try:
            return queue.ask(list[Sending], "sending")
        except SpoolError:
            # The mailrelay of the system is of an older version.
            return []
    try:
        answer = liveness.ask(queue, TIMEOUT)
    except liveness.NoAnswer:
        return []
    return list(answer.sending) if answer is not None else []


def stop_sending(
    directory: Path, ids: Iterable[str], is_wanted: Callable[[Listed], bool] = lambda _: True
) -> frozenset[str]:
    """Stops those of the messages that are being sent, where the end of the content was not written yet, and cancels them.
    Returns the whole queue ids of those that are cancelled now.

    ids: whole, or unique beginnings; others are left out. is_wanted: whether to stop a message. Raises SpoolError.
    """
    if daemon_pid(directory) is None:
        return frozenset()
    active: list[Listed] = []
    with suppress(FileNotFoundError), CommandSpool(directory).reading() as view:
        for given in ids:
            with suppress(NoSuchMessage):
                message = view.one(view.find(given)[0])
                if message.queue_name == "active" and is_wanted(message):
                    active.append(message)
    return frozenset(message.queue_id for message in active if _cancel(directory, message))


def _cancel(directory: Path, message: Listed) -> bool:
    """Asks the daemon to stop and cancel a message. Returns whether it is cancelled now."""
    until = time.monotonic() + SETTLE_TIMEOUT
    while True:
        stop = stopping.ask(directory, message.id, STOP_TIMEOUT)
        if stop is not Stop.NOT_SENDING or time.monotonic() > until:
            return stop is Stop.CANCELLED
        # The daemon is about to record the end of the attempt, or to start the attempt.
        time.sleep(SETTLE_INTERVAL)
        with CommandSpool(directory).reading() as view:
            if view.one(message.id).queue_name != "active":
                return False
