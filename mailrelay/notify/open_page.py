"""Opens the page of `mailrelay web` from the daemon, when the person presses the button of a notification.

The page is a process of its own, with the settings of the daemon (MAILRELAY_CONFIG, which `mailrelay serve` sets). If
the daemon is a systemd unit, the page is a unit of its own, for two reasons. A browser that the page starts must not have
the restrictions of the daemon's unit, or end with that unit. And the systemd manager of the session has the environment
variables of the display, which the daemon may lack because it was started earlier.
"""

import asyncio
import logging
import os
import shutil
import sys
from collections.abc import Mapping

log = logging.getLogger(__name__)
_running: set["asyncio.Task[None]"] = set()
"""The tasks that run: the event loop keeps only weak references to them."""


def open_page(queue_id: str) -> None:
    """Starts the page at a message; at the queue if `queue_id` is "". Returns at once. An error is written to the log."""
    task = asyncio.get_running_loop().create_task(_run(page_command(queue_id, os.environ, shutil.which("systemd-run"))))
    _running.add(task)
    task.add_done_callback(_running.discard)


def page_command(queue_id: str, environ: Mapping[str, str], systemd_run: str | None) -> list[str]:
    """The argv that opens the page. environ: of the daemon. systemd_run: the path of systemd-run(1), None if there is
    none."""
    page = [sys.executable, "-m", "mailrelay", "web", *([queue_id] if queue_id else [])]
    # systemd sets INVOCATION_ID for the processes of its units.
    if systemd_run is None or not environ.get("INVOCATION_ID"):
        return page
    variables = [f"--setenv={name}={environ[name]}" for name in ("MAILRELAY_CONFIG", "PATH") if environ.get(name)]
    return [systemd_run, "--user", "--collect", "--quiet", *variables, "--", *page]


async def _run(argv: list[str]) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        log.error("the page cannot be opened: %s: %s", error.filename or argv[0], error.strerror)
        return
    status = await process.wait()
    if status:
        log.error("the page ended with status %d; run `mailrelay web`, which says why", status)
