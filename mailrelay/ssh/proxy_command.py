"""The ProxyCommand of ssh_config: a program that carries the connection to the first host, run as ssh(1) runs it.

    proxy = await run("nc mail.example.org 22")       # by the person's shell; raises OSError
    connection = await … proxy.sock …                 # its stdin and stdout, for the SSH library
    connection.set_tunnel(proxy)                      # which closes it, and waits for its end

Promises: what it says on stderr is kept, and never gets between the octets of SSH. It ends with the connection: it sees the
end of its stdin, is sent SIGHUP with all that it started in its session, and SIGKILL if that does not do.
Never: a command of anybody's but the person's own ssh_config.
"""

import asyncio
import contextlib
import os
import signal
import socket

PATIENCE = 1.0
"""Seconds for a command to end once it has nothing left to do."""
MAX_STDERR = 1024


class Proxy:
    """A ProxyCommand that runs; to the SSH library, the tunnel of a connection. sock: its stdin and stdout."""

    def __init__(self, sock: socket.socket, process: asyncio.subprocess.Process, stderr: asyncio.StreamReader) -> None:
        self.sock = sock
        self._process = process
        self._tail = asyncio.create_task(_last(stderr))
        self._closed = asyncio.Event()

    async def last_words(self) -> tuple[int | None, bytes]:
        """Its exit status, None while it runs on, and the end of what it said on stderr."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                return await self._process.wait(), await asyncio.shield(self._tail)
        return self._process.returncode, b""

    def close(self) -> None:
        """May be called more than once."""
        self._closed.set()
        self.sock.close()
        self._tail.cancel()
        self._signal(signal.SIGHUP)

    async def wait_closed(self) -> None:
        """Wait for `close`, and then for its end."""
        await self._closed.wait()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


async def run(command: str) -> Proxy:
    """Runs a command line. Raises OSError where there is no shell to run it."""
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
    assert process.stderr is not None  # noqa: S101 - it was asked for
    return Proxy(near, process, process.stderr)


async def _last(stderr: asyncio.StreamReader) -> bytes:
    tail = b""
    while data := await stderr.read(MAX_STDERR):
        tail = (tail + data)[-MAX_STDERR:]
    return tail
