"""A connection between a scheduler and its remote that a test can cut or hold back without a word."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from harness.relay import RelayHarness


class Wire:
    """A port that passes all on to the remote's SSH port, until it is `cut`: then the connections that there are swallow
    everything without a word, and others can be made. Clear `is_open` to hold everything back for a while. requests: how
    often the client's end has written."""

    def __init__(self) -> None:
        self.requests = 0
        self.is_open = asyncio.Event()
        self.is_open.set()
        self._passing: set[asyncio.Task[None]] = set()
        self._swallowing: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        self._swallowing |= self._passing

    @property
    def is_cut(self) -> bool:
        return bool(self._swallowing)

    async def take(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        for one, other, requests in ((reader, back, 1), (there, writer, 0)):
            self._passing.add(asyncio.create_task(self._pass(one, other, requests)))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: int) -> None:
        try:
            while data := await reader.read(65536):
                self.requests += requests
                await self.is_open.wait()
                if asyncio.current_task() not in self._swallowing:
                    writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    async def end(self) -> None:
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)


@asynccontextmanager
async def wired(at: RelayHarness) -> AsyncIterator[Wire]:
    """Leads the next dials to the remote through a wire that can be cut."""
    wire = Wire()
    async with await asyncio.start_server(partial(wire.take, at.remote.ssh_port), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for file in (at.remote.ssh_config, at.remote.known_hosts):
            file.write_text(file.read_text().replace(str(at.remote.ssh_port), str(port)))
        yield wire
        server.close()
        await wire.end()
