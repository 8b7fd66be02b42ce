"""An embedded remote: an SSH server, and behind it a mail server, both on ephemeral ports of 127.0.0.1.

    async with Remote(directory) as remote:
        link = await dial(remote.relayhost())
        ...
        await remote.arrived(1)

Promises: it keeps what it took over (`received`), refuses by `policy`, goes down and comes back on the same ports, and
leaves nothing open at its end.
Never: a port that is not on loopback, a file outside its directory.
"""

import asyncio
import contextlib
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, Self, TypeVar

import asyncssh
from asyncssh.stream import SSHTCPStreamSession

from mailrelay.config import Relayhost
from mailrelay.demo.mailserver import EXTENSIONS, Policy, converse, refuse_by_name
from mailrelay.demo.mailserver import Received as Received

HOST = "demo-remote"
"""What ssh_config calls the remote."""

PORT_PATIENCE = 20.0
"""Seconds for a port of the first time to be free again."""

_Acceptor = TypeVar("_Acceptor")
_MAIL_COMMANDS = ("sendmail -bs", "nc localhost 25")


class Remote:
    """The remote, up from `__aenter__` to `__aexit__`. Its attributes may be changed while it runs.

    policy, extensions: what the mail server replies, and what it offers after EHLO.
    refuse_key, forbid_forwarding: what the SSH server refuses. noise: what a command's shell prints before the greeting.
    received, logins, channels: what happened so far. connections, dialogues: those that are open now; a dialogue through a
    connection is a task on either side of its channel.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.policy: Policy = refuse_by_name
        self.extensions: tuple[bytes, ...] = EXTENSIONS
        self.refuse_key = False
        self.forbid_forwarding = False
        self.noise = b""
        self.received: list[Received] = []
        self.logins = 0
        self.channels = 0
        self.ssh_port = 0
        self.smtp_port = 0
        self.ssh_config = directory / "ssh_config"
        self.known_hosts = directory / "known_hosts"
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.client_key = asyncssh.generate_private_key("ssh-ed25519")
        self._ssh: asyncssh.SSHAcceptor | asyncio.Server | None = None
        self._smtp: asyncio.Server | None = None
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self.dialogues: set[asyncio.Task[None]] = set()
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        await self.up()
        self._write_files()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    def relayhost(self, name: str = "demo", **changes: object) -> Relayhost:
        """Settings for a relay to this remote; `changes` are other fields of `Relayhost`."""
        return Relayhost(name=name, ssh=HOST, ssh_config=self.ssh_config, **changes)  # type: ignore[arg-type]

    async def up(self) -> None:
        """Listen, on the ports of the first time. Opens only what is not open."""
        if self._smtp is None:
            self._smtp = await _again(
                lambda: asyncio.start_server(self._take_call, "127.0.0.1", self.smtp_port, limit=1 << 20)
            )
            self.smtp_port = self._smtp.sockets[0].getsockname()[1]
        if self._ssh is None:
            self._ssh = await _again(
                lambda: asyncssh.listen(
                    "127.0.0.1",
                    self.ssh_port,
                    config=None,
                    server_factory=self.door,
                    server_host_keys=[self.host_key],
                    encoding=None,
                    agent_forwarding=False,
                    allow_scp=False,
                    gss_host=None,
                )
            )
            self.ssh_port = self._ssh.get_port()

    def door(self) -> asyncssh.SSHServer:
        """What stands at the SSH port, anew for each connection."""
        return Door(self)

    async def down(self) -> None:
        """Close both ports and cut every connection."""
        ssh, self._ssh = self._ssh, None
        if ssh is not None:
            ssh.close()
        cut = list(self.connections)
        for connection in cut:
            connection.abort()
        await self.mail_down()
        for connection in cut:
            await connection.wait_closed()
        if ssh is not None:
            await ssh.wait_closed()

    async def mail_down(self) -> None:
        """Close the mail server's port and cut its dialogues; the SSH server stays. `up` brings it back."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.close()
        dialogues = list(self.dialogues)
        for dialogue in dialogues:
            dialogue.cancel()
        await asyncio.gather(*dialogues, return_exceptions=True)
        if smtp is not None:
            await smtp.wait_closed()

    async def mute(self) -> None:
        """Go down, then accept connections to the SSH port and never say a word. `down` ends it."""
        await self.down()

        async def never_answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._own_this_task()
            try:
                await asyncio.Event().wait()
            finally:
                await _end(writer)

        self._ssh = await asyncio.start_server(never_answer, "127.0.0.1", self.ssh_port)

    async def change_host_key(self) -> None:
        """Come back with another host key, which known_hosts does not know."""
        await self.down()
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        await self.up()

    async def arrived(self, count: int) -> None:
        """Wait until `count` messages have been received, since the beginning."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.received) >= count)

    async def keep(self, message: Received) -> None:
        """Add to `received`, and wake whoever waits for it."""
        async with self._news:
            self.received.append(message)
            self._news.notify_all()

    def _write_files(self) -> None:
        identity = self.directory / "id_ed25519"
        identity.touch(mode=0o600)
        identity.write_bytes(self.client_key.export_private_key())
        self.known_hosts.write_text(
            f"[127.0.0.1]:{self.ssh_port} {self.host_key.export_public_key().decode('ascii').strip()}\n",
            encoding="ascii",
        )
        self.ssh_config.write_text(
            f"""Host {HOST}
    HostName 127.0.0.1
    Port {self.ssh_port}
    User demo
    IdentityFile "{identity}"
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile "{self.known_hosts}"
    GlobalKnownHostsFile none
""",
            encoding="utf-8",
        )

    async def _take_call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._own_this_task()
        try:
            try:
                await converse(self, reader, writer)
            finally:
                await _end(writer)
        except asyncio.CancelledError:
            # By `mail_down`, for good: the streams of Python before 3.12 report a cancelled callback as an error.
            pass

    def _own_this_task(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the streams run their callbacks as tasks
        self.dialogues.add(task)
        task.add_done_callback(self.dialogues.discard)


class Door(asyncssh.SSHServer):
    """One SSH connection, from the remote's side."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.connection: asyncssh.SSHServerConnection

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connection = conn
        self.remote.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self.remote.connections.discard(self.connection)

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return not self.remote.refuse_key and key.public_data == self.remote.client_key.public_data

    def auth_completed(self) -> None:
        self.remote.logins += 1

    async def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> asyncssh.SSHTCPSession[bytes]:
        self.remote.channels += 1
        if self.remote.forbid_forwarding or dest_host not in ("localhost", "127.0.0.1"):
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed")
        # Other ports of loopback stay what they are, so that one remote can be the way to another (ProxyJump).
        port = self.remote.smtp_port if (dest_host, dest_port) == ("localhost", 25) else dest_port
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "Connection refused") from error

        # Not the library's forwarder: it drops what the port says before the channel is up, and a mail server speaks first.
        async def forward(from_client: asyncssh.SSHReader[bytes], to_client: asyncssh.SSHWriter[bytes]) -> None:
            if port == self.remote.smtp_port:
                self.remote._own_this_task()
            try:
                await asyncio.gather(_pump(from_client, writer), _pump(reader, to_client))
            finally:
                to_client.close()
                await _end(writer)

        return SSHTCPStreamSession[bytes](forward)

    def session_requested(self) -> Callable[..., Awaitable[None]]:
        return self.run_command

    async def run_command(
        self, stdin: asyncssh.SSHReader[bytes], stdout: asyncssh.SSHWriter[bytes], stderr: asyncssh.SSHWriter[bytes]
    ) -> None:
        self.remote.channels += 1
        command = stdin.channel.get_command()
        stdout.write(self.remote.noise)
        if command in _MAIL_COMMANDS:
            await converse(self.remote, stdin, stdout)
            return
        stderr.write(f"sh: 1: {command}: not found\n".encode())
        stdout.channel.exit(127)  # type: ignore[attr-defined]


class _Reader(Protocol):
    async def read(self, n: int, /) -> bytes: ...


class _Writer(Protocol):
    def write(self, data: bytes, /) -> None: ...
    def write_eof(self) -> None: ...
    async def drain(self) -> None: ...


async def _pump(reader: _Reader, writer: _Writer) -> None:
    """Carry bytes until either side ends; an end is passed on as one."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, asyncssh.Error):
        writer.write_eof()


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _again(listen: Callable[[], Awaitable[_Acceptor]]) -> _Acceptor:
    """Listens; where its port of the first time has been given to some connection meanwhile, once that has gone."""
    async with asyncio.timeout(PORT_PATIENCE):
        while True:
            try:
                return await listen()
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            await asyncio.sleep(0.05)
