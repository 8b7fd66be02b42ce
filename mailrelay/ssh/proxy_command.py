"""The ProxyCommand of ssh_config: a program that carries the connection to the first hop, run as ssh(1) runs it.

    proxy = await start("nc mail.example.org 22")     # by the person's shell; raises OSError
    connection = await … proxy.sock …                 # its stdin and stdout, for asyncssh
    connection.set_tunnel(proxy)                      # the connection closes it and waits for its end

Promises: its stderr is kept apart from the octets of SSH. It ends with the connection: its stdin ends, SIGHUP goes to it and
to all processes of its session, and SIGKILL if it does not end then.
Never: a command that is not from the person's own ssh_config.
"""

import asyncio
import contextlib
import os
import signal
import socket

from mailrelay.process_group import signal_group

END_TIMEOUT = 1.0
"""Seconds for the command to end after its connection has ended."""
MAX_STDERR = 1024


class ProxyCommand:
    """A running ProxyCommand. To asyncssh it is the tunnel of a connection. sock: its stdin and stdout."""

    def __init__(self, sock: socket.socket, process: asyncio.subprocess.Process, stderr: asyncio.StreamReader) -> None:
        self.sock = sock
        self._process = process
        self._stderr_tail = asyncio.create_task(_read_tail(stderr))
        self._closed = asyncio.Event()

    async def result(self) -> tuple[int | None, bytes]:
        """Its exit status, None if it does not end in time, and the end of its stderr."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT):
                return await self._process.wait(), await asyncio.shield(self._stderr_tail)
        return self._process.returncode, b""

    def close(self) -> None:
        """May be called more than once."""
        self._closed.set()
        self.sock.close()
        self._stderr_tail.cancel()
        signal_group(self._process, signal.SIGHUP)

    async def wait_closed(self) -> None:
        """Waits for `close`, and then for the end of the process."""
        await self._closed.wait()
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await self._process.wait()
        except TimeoutError:
            signal_group(self._process, signal.SIGKILL)
            await self._process.wait()


async def start(command: str) -> ProxyCommand:
    """Starts a command line. Raises OSError if the shell cannot be run."""
    near, far = socket.socketpair()
    try:
        with far:
            near.setblocking(False)
            process = await asyncio.create_subprocess_exec(
                os.environ.get("SHELL") or "/bin/sh",
                "-c",
                f"exec {command}",
                stdin=far.fileno(),
                stdout=far.fileno(),
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
    except BaseException:
        near.close()
        raise
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    return ProxyCommand(near, process, process.stderr)


async def _read_tail(stderr: asyncio.StreamReader) -> bytes:
    """Reads `stderr` to its end and returns the last MAX_STDERR octets."""
    tail = b""
    while data := await stderr.read(MAX_STDERR):
        tail = (tail + data)[-MAX_STDERR:]
    return tail
