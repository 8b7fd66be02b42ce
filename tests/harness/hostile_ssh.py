"""SSH servers that send without end, before and after the login, and a dial to one of them by a process of its own."""

import asyncio
import contextlib
import json
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from mailrelay.demo.remote import HOST, Remote, RemoteSSHServer

VERSION = b"SSH-2.0-hostile\r\n"
MSG_IGNORE, MSG_DEBUG, MSG_KEXINIT = 2, 4, 20
MSG_USERAUTH_BANNER, MSG_GLOBAL_REQUEST = 53, 80


def string(octets: bytes) -> bytes:
    """RFC 4251 section 5."""
    return struct.pack(">I", len(octets)) + octets


def packet(kind: int, payload: bytes) -> bytes:
    """A packet without encryption (RFC 4253 section 6)."""
    length = 1 + 1 + len(payload)
    padding = 8 - (4 + length) % 8
    padding += 8 if padding < 4 else 0
    return struct.pack(">IBB", length + padding, padding, kind) + payload + bytes(padding)


def kexinit(names: bytes = b"curve25519-sha256", host_keys: bytes = b"ssh-ed25519") -> bytes:
    """A KEXINIT (RFC 4253 section 7.1) as a packet without encryption."""
    ciphers, macs = b"aes128-ctr", b"hmac-sha2-256"
    lists = (names, host_keys, ciphers, ciphers, macs, macs, b"none", b"none", b"", b"")
    return packet(MSG_KEXINIT, bytes(16) + b"".join(map(string, lists)) + bytes(5))


@dataclass
class Scripted:
    """A server that sends `first` to each connection, and then `again` without end. b"" for `again`: it closes then.

    connections: how many there were. port: where it listens.
    """

    first: bytes
    again: bytes = b""
    connections: int = 0
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        reading = asyncio.ensure_future(_discard(reader))
        try:
            with contextlib.suppress(OSError):
                writer.write(self.first)
                while self.again:
                    writer.write(self.again)
                    await writer.drain()
                await writer.drain()
        except asyncio.CancelledError:
            # The server is closed. Before Python 3.12, asyncio's streams log a cancelled callback as an error.
            pass
        finally:
            reading.cancel()
            writer.close()


async def _discard(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(65536):
            pass


@asynccontextmanager
async def scripted(first: bytes, again: bytes = b"") -> AsyncIterator[Scripted]:
    at = Scripted(first, again)
    server = await asyncio.start_server(at.serve, "127.0.0.1", 0)
    at.port = server.sockets[0].getsockname()[1]
    try:
        yield at
    finally:
        server.close()


def write_config(directory: Path, port: int) -> Path:
    """An ssh_config for HOST on a port, with no key and no known host."""
    file = directory / "ssh_config"
    file.write_text(
        f"Host {HOST}\n    HostName 127.0.0.1\n    Port {port}\n    User demo\n    IdentitiesOnly yes\n"
        "    IdentityAgent none\n"
        f"    IdentityFile {directory}/none\n    UserKnownHostsFile {directory}/known\n    GlobalKnownHostsFile none\n"
    )
    return file


class FloodingRemote(Remote):
    """A remote that sends without end. before_login, after_login: called again and again with the connection."""

    before_login: Callable[[asyncssh.SSHServerConnection], None] | None = None
    after_login: Callable[[asyncssh.SSHServerConnection], None] | None = None

    def ssh_server(self) -> asyncssh.SSHServer:
        return _FloodingServer(self)


class _FloodingServer(RemoteSSHServer):
    remote: FloodingRemote

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        super().connection_made(conn)
        self._flooding: asyncio.Task[None] | None = None

    def begin_auth(self, username: str) -> bool:
        if self.remote.before_login is not None and self._flooding is None:
            self._flooding = asyncio.ensure_future(flood(self.connection, self.remote.before_login))
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:  # type: ignore[override]
        if self.remote.before_login is not None:
            await asyncio.Event().wait()
        return super().validate_public_key(username, key)

    def auth_completed(self) -> None:
        super().auth_completed()
        if self.remote.after_login is not None:
            self._flooding = asyncio.ensure_future(flood(self.connection, self.remote.after_login))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._flooding is not None:
            self._flooding.cancel()


async def flood(connection: asyncssh.SSHServerConnection, send: Callable[[asyncssh.SSHServerConnection], None]) -> None:
    """Calls `send` again and again; waits while the network takes no more."""
    transport = connection._transport
    assert transport is not None
    while not transport.is_closing():
        for _ in range(50):
            send(connection)
        await asyncio.sleep(0)
        while transport.get_write_buffer_size() > 1 << 20 and not transport.is_closing():
            await asyncio.sleep(0.001)


@dataclass(frozen=True)
class Dialled:
    """What one dial brought. grown: octets that the process has grown by, at most (RSS)."""

    text: str
    cause: str
    grown: int
    seconds: float


_DIAL = """
import asyncio, json, sys, time, uvloop
from pathlib import Path
from mailrelay.config import Relayhost
from mailrelay.ssh.dial import dial
from mailrelay.ssh.interface import Fault

def memory(name):
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(name))
    return int(line.split()[1]) * 1024

async def attempt(config, stays):
    try:
        connection = await dial(Relayhost(name="x", ssh=sys.argv[1], ssh_config=Path(config)))
    except Fault as fault:
        return fault.outcome
    try:
        async with asyncio.timeout(stays):
            await connection.wait_closed()
            return None
    except TimeoutError:
        return None
    finally:
        await connection.close()

async def main():
    await attempt(sys.argv[2], 0.0)
    Path("/proc/self/clear_refs").write_text("5")
    before, began = memory("VmRSS"), time.monotonic()
    outcome = await attempt(sys.argv[3], float(sys.argv[4]))
    text, cause = (outcome.text, str(outcome.cause)) if outcome else ("", "")
    print(json.dumps([text, cause, memory("VmHWM") - before, time.monotonic() - began]))

uvloop.run(main())
"""


async def dial_alone(config: Path, quiet: Path, stays: float = 20.0) -> Dialled:
    """Dials in a process of its own, after a dial with the ssh_config `quiet`, which loads what a dial needs.

    stays: seconds for which the connection is kept, if there is one.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _DIAL, HOST, str(quiet), str(config), str(stays), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return Dialled(*json.loads(out))
