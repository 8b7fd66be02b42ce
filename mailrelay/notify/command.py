"""The `command` backend: runs the person's command with the notice as one JSON object on its stdin, UTF-8.

Promises: a notice is delivered if the command exits with status 0, whatever it read or wrote. On cancellation (by the
notifier's time-out, for instance) the command is killed with all processes of its process group. Of the daemon's environment
the command gets only `PASSED_ON`. No disk is needed but for the command itself.
"""

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO

from mailrelay.mail.notice import Notice
from mailrelay.mail.printable import printable
from mailrelay.mail.wording import record
from mailrelay.notify.backend import BackendFailed, Deliver
from mailrelay.process_group import signal_group

_TAIL = 300
"""Octets from the end of stderr that are shown as the reason of a failure."""
PASSED_ON = ("PATH", "HOME", "LANG", "DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS")
PASSED_ON_PREFIXES = ("LC_", "XDG_")
"""The variables of the environment that the command gets, and the beginnings of their names: what a program needs to start,
to speak the person's language, and to reach the desktop."""


def command(argv: Sequence[str]) -> Deliver:
    """The backend that runs `argv` once for each notice, without a shell.

    It raises BackendFailed at the first notice that fails. Then all of them are tried again, also those before it.
    """

    async def deliver(notices: Sequence[Notice]) -> None:
        for notice in notices:
            await _run(argv, json.dumps(record(notice)).encode() + b"\n")

    return deliver


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the command, from that of the daemon."""
    return {name: value for name, value in environ.items() if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)}


async def _run(argv: Sequence[str], stdin: bytes) -> None:
    name = printable(argv[0])
    # A file instead of a pipe: a background process of the command would keep a pipe open, and reading would never end.
    with _file_without_disk() as stderr:
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                env=environment(os.environ),
                start_new_session=True,
            )
        )
        try:
            # If the start itself is cancelled, asyncio kills the command alone, not the processes that it has started.
            process = await asyncio.shield(starting)
            await _feed(process, stdin)
            status = await process.wait()
        except OSError as error:
            raise BackendFailed(f"the command {name} cannot be started: {error.strerror or error}") from error
        finally:
            await _kill(starting)
        if status != 0:
            ended = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
            raise BackendFailed(": ".join(filter(None, (f"the command {name} {ended}", _tail(stderr)))))


def _file_without_disk() -> IO[bytes]:
    """A temporary file: in memory where the system has that, because the notice may be about a disk that is full."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


async def _kill(starting: asyncio.Future[asyncio.subprocess.Process]) -> None:
    # OSError: the command could not be started, or it exits at this moment.
    with contextlib.suppress(OSError):
        process = await starting
        if process.returncode is None:
            signal_group(process, signal.SIGKILL)
            await process.wait()


async def _feed(process: asyncio.subprocess.Process, stdin: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 - `_run` requests a pipe
    # A command need not read its stdin.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(stdin)
        await process.stdin.drain()
    process.stdin.close()


def _tail(stderr: IO[bytes]) -> str:
    stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _TAIL))
    return printable(stderr.read().strip())
