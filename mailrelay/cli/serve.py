"""`mailrelay serve`: runs the daemon in the foreground. Service units call this.

It logs to `mailrelay.log` in the spool's directory, with rotation, and to stderr (`daemon_log`): warnings and above, with
`--verbose` everything. Exit status: 0 after a signal to stop, 78 the settings are wrong, 1 it could not start or the disk
failed. SIGHUP makes it read the settings again (`mailrelay reload`).

Promises: once the daemon has ended, the process ends at once, also if a thread hangs in a disk that fails.
"""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

from mailrelay import daemon
from mailrelay.cli.base import Failed, say, settings_path
from mailrelay.cli.daemon_log import LogFile, log_to
from mailrelay.config import Settings, load
from mailrelay.control.errors import SpoolError
from mailrelay.mail.spool_errors import SpoolBroken

try:
    import uvloop
except ImportError:
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

GC_THRESHOLD = 10_000
"""Threshold of generation 0: new objects until a garbage collection."""
LOOK_INTERVAL = 1.0
"""Seconds between two looks at the log file."""


@click.command("serve")
@click.option("-v", "--verbose", is_flag=True, help="Log everything to stderr too.")
def command(verbose: bool) -> None:
    """Run the daemon in the foreground."""
    file = settings_path()
    settings = load(file)
    # For the commands of mailrelay that the daemon starts (`notify.open_page`).
    os.environ["MAILRELAY_CONFIG"] = str(file.absolute())
    os.umask(0o077)
    log_file = log_to(settings.queue.directory, logging.INFO if verbose else logging.WARNING)
    # The imports left garbage (see `mailrelay.__main__`). The other objects stay, so later collections skip them. Messages
    # leave few reference cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        try:
            runner.run(_serve(settings, file, log_file))
        except daemon.CannotStart as error:
            raise Failed(str(error)) from None
        except SpoolError as error:
            if not (isinstance(error, SpoolBroken) and error.is_logged):
                say(str(error))
            _end(1)
        except OSError as error:
            say(f"{error.filename or settings.queue.directory}: {error.strerror or error}")
            _end(1)
        _end(0)


async def _serve(settings: Settings, file: Path, log_file: LogFile) -> None:
    looking = asyncio.create_task(_look_at(log_file))
    try:
        await daemon.serve(settings, reread=lambda: load(file))
    finally:
        looking.cancel()


async def _look_at(log_file: LogFile) -> None:
    while True:
        log_file.look()
        await asyncio.sleep(LOOK_INTERVAL)


def _end(status: int) -> NoReturn:
    # The interpreter would wait for all threads. The spool is closed already.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)
