"""An ssh-agent for one test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh


@asynccontextmanager
async def agent(socket: Path, *keys: Path, confirm: bool = False) -> AsyncIterator[None]:
    """Listens at `socket` and holds `keys`. confirm: whether each use of them is asked for."""
    running = await asyncio.create_subprocess_exec("ssh-agent", "-D", "-a", str(socket), stdout=asyncio.subprocess.PIPE)
    try:
        # It prints where it listens once it listens.
        assert running.stdout is not None and await running.stdout.readline()
        async with asyncssh.connect_agent(str(socket)) as client:
            for key in keys:
                await client.add_keys([str(key)], confirm=confirm)
        yield
    finally:
        running.terminate()
        await running.wait()
