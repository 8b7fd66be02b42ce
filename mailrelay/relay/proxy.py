"""The ProxyCommand of ssh_config: a program that carries the connection to the first host, run as ssh(1) runs it.

    proxy = await run("nc mail.example.org 22")     # by the person's shell; raises OSError
    ... proxy.sock ...                                # its stdin and stdout, for the SSH library
    proxy.end_after(connection.wait_closed())

Promises: what it says on stderr is kept, and never gets between the octets of SSH. It ends with the connection: it sees the
end of its stdin, and is sent SIGHUP with all that it started in its session.
Never: a command of anybody's but the person's own ssh_config.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Coroutine
from dataclasses import dataclass

LAST_WORDS = 1.0
"""Seconds for a command that has closed its stdout to say why on stderr, and to end."""
MAX_STDERR = 1024


@dataclass(slots=True)
class Proxy:
    """A ProxyCommand that runs."""

    sock: socket.socket
    _process: asyncio.subprocess.Process
    _tail: asyncio.Task[bytes]
    _ending: asyncio.Task[None] | None = None

    async def last_words(self) -> tuple[int | None, bytes]:
        """Its exit status, None while it runs on, and the end of what it said on stderr."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                return await self._process.wait(), await asyncio.shield(self._tail)
        return self._process.returncode, b""

    def end_after(self, closed: Coroutine[None, None, None]) -> None:
        """`end`, once the connection that it carries has ended."""

        async def wait() -> None:
            try:
                await closed
            finally:
                self.end()

        self._ending = asyncio.create_task(wait())

    def end(self) -> None:
        """May be called more than once."""
        self.sock.close()
        self._tail.cancel()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGHUP)


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
    return Proxy(near, process, asyncio.create_task(_last(process.stderr)))


async def _last(stderr: asyncio.StreamReader) -> bytes:
    tail = b""
    while data := await stderr.read(MAX_STDERR):
        tail = (tail + data)[-MAX_STDERR:]
    return tail
