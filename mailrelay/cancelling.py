"""Cancels messages that are being sent, for `queue cancel` and the page: the daemon's end of the socket `spool.stopping`.

Each command that connects sends the key of a message in one line, and gets the result in one line (`mail.sending.Stop`).
Only the account of the daemon can connect to the socket, as with the spool's files.

Promises: the reply "cancelled" is sent after the commit that cancels the message. A program that sends nothing, or no key,
is disconnected after ASK_TIMEOUT seconds at most. No error here ends the daemon.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from mailrelay.mail.sending import Stop
from mailrelay.spool import liveness, stopping

log = logging.getLogger("mailrelay.cancelling")

ASK_TIMEOUT = 5.0
"""Seconds for a program to send its line."""
MAX_CONNECTIONS = 32
"""Connections that are served at once; others wait in the backlog."""
RETRY = 10.0
"""Seconds until the socket is made again after a failure, and between two checks that it still exists."""

Cancel = Callable[[int], Awaitable[Stop]]
"""Cancels the message with this key of the spool."""


async def serve(directory: Path, cancel: Cancel) -> None:
    """Serves the socket until this task is cancelled."""
    is_logged = False
    while True:
        try:
            await _serve(directory, cancel)
            log.warning("the socket %s was removed, and is made again", directory / stopping.FILE)
        except OSError as error:
            if not is_logged:
                log.warning("messages that are being sent cannot be cancelled: %s", error.strerror or error)
            is_logged = True
            await asyncio.sleep(RETRY)


async def _serve(directory: Path, cancel: Cancel) -> None:
    """Serves the socket until it is removed from the directory. Raises OSError."""
    loop = asyncio.get_running_loop()
    free = asyncio.Semaphore(MAX_CONNECTIONS)
    with socket.socket(fileno=liveness.listen(directory, stopping.FILE)) as listening:
        listening.setblocking(False)
        async with asyncio.TaskGroup() as group:
            while True:
                await free.acquire()
                try:
                    async with asyncio.timeout(RETRY):
                        connected, _ = await loop.sock_accept(listening)
                except TimeoutError:
                    free.release()
                    if not (directory / stopping.FILE).is_socket():
                        return
                    continue
                group.create_task(_answer(connected, cancel)).add_done_callback(lambda _: free.release())


async def _answer(connected: socket.socket, cancel: Cancel) -> None:
    """Reads the line of a command, cancels the message, and sends the result. Closes the connection."""
    loop = asyncio.get_running_loop()
    with connected, contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ASK_TIMEOUT):
            line = b""
            while not line.endswith(b"\n") and len(line) < stopping.MAX_LINE:
                if not (part := await loop.sock_recv(connected, stopping.MAX_LINE)):
                    return
                line += part
        key = stopping.key_of(line)
        if key is not None:
            stop = await cancel(key)
            await loop.sock_sendall(connected, stopping.answer(stop))
