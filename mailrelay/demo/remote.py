"""An embedded remote: an SSH server, and behind it a mail server, both on ephemeral ports of 127.0.0.1.

    async with Remote(directory) as remote:
        connection = await dial(remote.relayhost())
        ...
        await remote.arrived(1)

Promises: it keeps the messages that it accepts (`received`), refuses by `policy`, can go down and come back on the same
ports, and leaves nothing open at its end.
Never: listen on an address other than loopback, or write a file outside its directory.
"""

import asyncio
import contextlib
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self, TypeVar

import asyncssh
from asyncssh.stream import SSHTCPStreamSession

from mailrelay.config import Relayhost
from mailrelay.demo.mailserver import EXTENSIONS, ByteReader, ByteWriter, Policy, converse, refuse_by_name
from mailrelay.demo.mailserver import Received as Received

HOST = "demo-remote"
"""The name of the remote in ssh_config."""

REBIND_TIMEOUT = 20.0
"""Seconds for an earlier port to become free again."""

_Acceptor = TypeVar("_Acceptor")
_MAIL_COMMANDS = ("sendmail -bs", "nc localhost 25")


class Remote:
    """The remote, up from `__aenter__` to `__aexit__`. Its attributes may be changed while it runs.

    policy, extensions: the replies of the mail server, and what it offers after EHLO.
    refuse_key, forbid_forwarding: what the SSH server refuses. noise: the shell's output before that of a command.
    received, logins, channels: the messages accepted so far, and the number of logins and of channels requested.
    connections, dialogues: the SSH connections and the tasks of SMTP dialogues that are open. A dialogue through SSH has two
    tasks, one for each side of its channel.
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
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        await self.up()
        self._write_files()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    def relayhost(self, name: str = "demo", **changes: object) -> Relayhost:
        """Settings for a relay to this remote, which runs no commands, so that it keeps no records and answers no questions;
        `changes` are other fields of `Relayhost`."""
        fields = {"record": "off", "track": "off"} | changes
        return Relayhost(name=name, ssh=HOST, ssh_config=self.ssh_config, **fields)  # type: ignore[arg-type]

    async def up(self) -> None:
        """Listen; after `down`, on the same ports as before. Opens only what is not open."""
        if self._smtp is None:
            self._smtp = await _listen_again(
                lambda: asyncio.start_server(self._serve_mail, "127.0.0.1", self.smtp_port, limit=1 << 20)
            )
            self.smtp_port = self._smtp.sockets[0].getsockname()[1]
        if self._ssh is None:
            self._ssh = await _listen_again(
                lambda: asyncssh.listen(
                    "127.0.0.1",
                    self.ssh_port,
                    config=None,
                    server_factory=self.ssh_server,
                    server_host_keys=[self.host_key],
                    encoding=None,
                    agent_forwarding=False,
                    allow_scp=False,
                    gss_host=None,
                )
            )
            self.ssh_port = self._ssh.get_port()

    def ssh_server(self) -> asyncssh.SSHServer:
        """The handler of one new SSH connection; subclasses return their own."""
        return RemoteSSHServer(self)

    async def down(self) -> None:
        """Close both ports and abort every connection."""
        ssh, self._ssh = self._ssh, None
        if ssh is not None:
            ssh.close()
        aborted = list(self.connections)
        for connection in aborted:
            connection.abort()
        await self.mail_down()
        for connection in aborted:
            await connection.wait_closed()
        if ssh is not None:
            await ssh.wait_closed()

    async def mail_down(self) -> None:
        """Close the mail server's port and cancel its dialogues; the SSH server stays up. `up` reopens the port."""
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
        """Go down, then accept connections to the SSH port and never send anything. `down` ends it."""
        await self.down()

        async def never_answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._register_this_task()
            try:
                await asyncio.Event().wait()
            finally:
                await _close(writer)

        self._ssh = await asyncio.start_server(never_answer, "127.0.0.1", self.ssh_port)

    async def change_host_key(self) -> None:
        """Come back with another host key, which is not in known_hosts."""
        await self.down()
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        await self.up()

    async def arrived(self, count: int) -> None:
        """Wait until `count` messages in all have been received."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.received) >= count)

    async def keep(self, message: Received) -> None:
        """Add to `received`, and wake all calls of `arrived`."""
        async with self._changed:
            self.received.append(message)
            self._changed.notify_all()

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

    async def _serve_mail(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._register_this_task()
        try:
            try:
                await converse(self, reader, writer)
            finally:
                await _close(writer)
        except asyncio.CancelledError:
            # Only `mail_down` cancels it. Before Python 3.12, asyncio's streams log a cancelled callback as an error.
            pass

    def _register_this_task(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the streams run their callbacks as tasks
        self.dialogues.add(task)
        task.add_done_callback(self.dialogues.discard)


class RemoteSSHServer(asyncssh.SSHServer):
    """The server's half of one SSH connection."""

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
        # Other ports of loopback are not replaced, so that one remote can be a jump host to another (ProxyJump).
        port = self.remote.smtp_port if (dest_host, dest_port) == ("localhost", 25) else dest_port
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "Connection refused") from error

        # asyncssh's own forwarder drops what the port sends before the channel is open, and a mail server sends first.
        async def forward(from_client: asyncssh.SSHReader[bytes], to_client: asyncssh.SSHWriter[bytes]) -> None:
            if port == self.remote.smtp_port:
                self.remote._register_this_task()
            try:
                await asyncio.gather(_copy(from_client, writer), _copy(reader, to_client))
            finally:
                to_client.close()
                await _close(writer)

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


async def _copy(reader: ByteReader, writer: ByteWriter) -> None:
    """Copy bytes until either side ends, then send EOF."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, asyncssh.Error):
        writer.write_eof()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _listen_again(listen: Callable[[], Awaitable[_Acceptor]]) -> _Acceptor:
    """Calls `listen`. If some connection uses the earlier port meanwhile, tries until the port is free."""
    async with asyncio.timeout(REBIND_TIMEOUT):
        while True:
            try:
                return await listen()
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            await asyncio.sleep(0.05)
