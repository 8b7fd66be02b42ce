"""The mail server of a test machine (`harness.systemd`): takes all mail on localhost:25.

It appends the subject of each message that it has taken to /var/log/mail-sink, and of each content that it has read to
/run/mail-sink-has. While /run/mail-sink-holds exists, it gives no reply to content.
"""

import asyncio
import os
import re
from pathlib import Path

from mailrelay.demo.mailserver import EXTENSIONS, Policy, Received, converse
from mailrelay.service_manager import notify

LOG, HOLDS, HAS = Path("/var/log/mail-sink"), Path("/run/mail-sink-holds"), Path("/run/mail-sink-has")


class Sink:
    def __init__(self) -> None:
        self.policy: Policy = self._hold
        self.extensions: tuple[bytes, ...] = EXTENSIONS
        self.received: list[Received] = []

    async def _hold(self, verb: str, argument: bytes) -> bytes | None:
        if verb == "CONTENT":
            _append(HAS, _subject(argument))
            while HOLDS.exists():
                await asyncio.sleep(0.05)
        return None

    async def keep(self, message: Received) -> None:
        _append(LOG, _subject(message.content))


def _subject(content: bytes) -> str:
    found = re.search(rb"^Subject: (.*?)\r$", content, re.MULTILINE)
    return found[1].decode() if found else ""


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")


async def main() -> None:
    sink = Sink()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await converse(sink, reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 25, limit=1 << 20)
    notify("READY=1", os.environ)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
