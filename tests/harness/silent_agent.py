"""An SSH agent that hangs: it answers the first requests, and then takes more and never answers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
from asyncssh.packet import Byte, String, UInt32

IDENTITIES_ANSWER = 12


class SilentAgent:
    """requests: how often it was asked for something, answered or not."""

    def __init__(self, keys: Sequence[asyncssh.SSHKey], answers: int) -> None:
        listing = b"".join(String(key.public_data) + String("") for key in keys)
        self._listing = Byte(IDENTITIES_ANSWER) + UInt32(len(keys)) + listing
        self._answers = answers
        self.requests = 0
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while size := await reader.read(4):
                await reader.readexactly(int.from_bytes(size, "big"))
                self.requests += 1
                if self.requests <= self._answers:
                    writer.write(UInt32(len(self._listing)) + self._listing)
        finally:
            writer.close()


@asynccontextmanager
async def silent_agent(socket: Path, *public: Path, answers: int = 0) -> AsyncIterator[SilentAgent]:
    """Listens at `socket`. public: the keys that it lists. answers: requests that it answers, with its keys."""
    agent = SilentAgent([asyncssh.read_public_key(file) for file in public], answers)
    server = await asyncio.start_unix_server(agent.serve, socket)
    try:
        yield agent
    finally:
        server.close()
