"""The connection: SSH to a relayhost when mail needs it, and in it one byte stream for each SMTP dialogue.

    connection = await dial(relayhost)      # raises Fault
    channel = await connection.open_channel()     # raises Fault; open_stream("host:port") leads to anything else there
    await channel.read(); channel.write(b"EHLO …"); await channel.drain()

Promises: every failure is one `Fault` with one sentence that says what happened and where, and the step that fixes it
where a person must act. Every host on the way is verified before anything is said to it, and nothing is tried after a
mismatch. Everything that can hang has a bound; a `dial` that is cancelled leaves nothing open.
Never: a prompt, a password, a log line, a process (but for the person's own ssh_config: its ProxyCommand, and ssh(1) to
read it).
"""

import asyncio
import contextlib
import copy
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import cast

import asyncssh
import msgspec

from mailrelay import grammar
from mailrelay.config import Relayhost
from mailrelay.ssh import errors, known_hosts
from mailrelay.ssh.asyncssh_patches import offer_keys_alone
from mailrelay.ssh.channel import Channel, Pipe
from mailrelay.ssh.hops import Hop, hops
from mailrelay.ssh.interface import Fault
from mailrelay.ssh.known_hosts import Verdict
from mailrelay.ssh.proxy_command import Proxy, run

LOGIN = 60.0
"""Seconds from the TCP connection to the end of authentication."""
CONNECT_RETRY = 3.0
"""Seconds without an answer after which a connection is asked for once more, beside those that wait: the kernel asks ever
more seldom, and on a network that comes back unannounced the next time may be half a minute away. Where the kernel lets us
say so, what was sent on a connection that stands is not repeated more seldom either."""
_TCP_RTO_MAX_MS = 44
"""Of linux/tcp.h; the socket module does not name it."""
CHANNEL = 30.0
"""Seconds for the remote to open a channel."""
GREETING = 300.0
"""Seconds for a command to show its greeting (RFC 5321 section 4.5.3.2.1)."""
FIRST_WORDS = 2.0
"""Seconds for a server that spoke no SSH to say something else."""
SIGN_OF_LIFE = 0.5
"""Seconds between questions to a connection in doubt whether it is there; three that stay unanswered end it."""
MAX_FIRST_WORDS = 1024
CLOSE = 5.0
UNSENT = 64 * 1024
"""Octets that the kernel may hold beyond what is on the way; the more it holds, the later comes what is small."""

asyncssh.set_log_level("WARNING")

AsyncsshConnection = asyncssh.SSHClientConnection
"""The library's own, for rooms that only pass it on."""


class SSHConnection:
    """An SSH connection to a relayhost, with its jump hosts. Made by `dial`."""

    def __init__(self, relayhost: Relayhost, hop: Hop, connections: list[asyncssh.SSHClientConnection]) -> None:
        self._relayhost = relayhost
        self._hop = hop
        self._connections = connections
        self._connection = connections[-1]
        self._pipe = Pipe(connections)

    @property
    def is_up(self) -> bool:
        return not self._connection.is_closed()

    @property
    def address(self) -> str:
        """The address from which the first connection goes; "" where a ProxyCommand makes it."""
        sockname = self._connections[0].get_extra_info("sockname")
        return str(sockname[0]) if sockname else ""

    def doubt(self) -> None:
        """Let silence end the connection within two seconds: the network below it may have gone."""
        self._connection.set_keepalive(SIGN_OF_LIFE, 3)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended, by either side or by the network."""
        await self._connection.wait_closed()
        self._pipe.let_go()

    async def close(self) -> None:
        """End the connection and those below it. Takes at most a few seconds and never raises."""
        self._pipe.let_go()
        await close(self._connections)

    def by(self, command: str) -> "SSHConnection":
        """The same connection, with another command as the way to the mail server, "" for forwarding."""
        other = copy.copy(self)
        other._relayhost = msgspec.structs.replace(self._relayhost, command=command)
        return other

    async def open_channel(self) -> Channel:
        """A new channel to the mail server there. Raises Fault of stage channel."""
        if not self._relayhost.command:
            return await self._open(
                self._forward(self._relayhost.smtp_host, self._relayhost.smtp_port), self._channel_fault
            )
        channel = await self._open(self._run(), self._channel_fault)
        try:
            async with asyncio.timeout(GREETING):
                last_words = await channel.skip_noise()
        except (TimeoutError, ConnectionError) as error:
            channel.close()
            raise self._channel_fault(error) from error
        except BaseException:
            channel.close()
            raise
        if last_words is not None:
            channel.close()
            raise Fault(errors.no_greeting(last_words, self._relayhost, self._hop))
        return channel

    async def open_stream(self, to: str) -> Channel:
        """A new channel to "host:port" or "unix:/path", as seen from there. Raises Fault of stage channel."""

        def fault(error: Exception) -> Fault:
            return Fault(errors.stream(error, to, self._hop, is_up=self.is_up))

        if to.startswith("unix:"):
            return await self._open(self._forward_unix(to.removeprefix("unix:")), fault)
        return await self._open(self._forward(*grammar.host_port(to)), fault)

    async def _forward(self, host: str, port: int) -> Channel:
        reader, writer = await self._connection.open_connection(host, port)
        return Channel(
            cast(asyncssh.SSHReader[bytes], reader), cast(asyncssh.SSHWriter[bytes], writer), None, self._pipe
        )

    async def _forward_unix(self, path: str) -> Channel:
        reader, writer = await self._connection.open_unix_connection(path)
        return Channel(
            cast(asyncssh.SSHReader[bytes], reader), cast(asyncssh.SSHWriter[bytes], writer), None, self._pipe
        )

    async def _run(self) -> Channel:
        try:
            return await self._start()
        except asyncssh.ChannelOpenError as error:
            if error.code != asyncssh.OPEN_REQUEST_SESSION_FAILED or not self.is_up:
                raise
            # dropbear closes a session that is opened while another one is ending (2022.83).
            return await self._start()

    async def _start(self) -> Channel:
        writer, reader, stderr = await self._connection.open_session(
            self._relayhost.command, encoding=None, request_pty=False, env=None, send_env=None, x11_forwarding=False
        )
        return Channel(reader, writer, stderr, self._pipe)

    async def _open(self, opening: Coroutine[None, None, Channel], fault: Callable[[Exception], Fault]) -> Channel:
        task = asyncio.create_task(opening)
        try:
            async with asyncio.timeout(CHANNEL):
                return await asyncio.shield(task)
        except (asyncssh.Error, OSError) as error:
            task.add_done_callback(_close_late)
            # One turn of the loop, after which a connection that was being torn down knows that it is.
            await asyncio.sleep(0)
            raise fault(error) from error
        except asyncio.CancelledError:
            task.add_done_callback(_close_late)
            raise

    def _channel_fault(self, error: Exception) -> Fault:
        return Fault(errors.channel(error, self._relayhost, self._hop, is_up=self.is_up))


async def dial(relayhost: Relayhost) -> SSHConnection:
    """Connect and log in, through jump hosts where ssh_config says so. Raises Fault."""
    way = await read_way(relayhost)
    connections: list[asyncssh.SSHClientConnection] = []
    try:
        for hop in way:
            connections.append(await connect(hop, connections[-1] if connections else None))
    except BaseException:
        await close(connections)
        raise
    return SSHConnection(relayhost, way[-1], connections)


async def read_way(relayhost: Relayhost, within: float | None = None) -> list[Hop]:
    """The hosts on the way there, by the person's own files. within: seconds, LOGIN if not given. Raises Fault."""
    try:
        async with asyncio.timeout(LOGIN if within is None else within):
            return await _reading(relayhost)
    except Exception as error:
        # Of whatever kind: these files are anybody's, and the library's parsers trip over some of them.
        raise Fault(errors.config(error, relayhost)) from error


def _reading(relayhost: Relayhost) -> asyncio.Future[list[Hop]]:
    """The way there, read on a thread of its own, which may stay for ever in a Match exec that hangs: one of the loop's
    would be missed by the others that need one, and waited for when we stop."""
    loop = asyncio.get_running_loop()
    way: asyncio.Future[list[Hop]] = loop.create_future()

    def answer(found: list[Hop] | Exception) -> None:
        if way.done():
            return
        if isinstance(found, Exception):
            way.set_exception(found)
        else:
            way.set_result(found)

    def read() -> None:
        found: list[Hop] | Exception
        try:
            found = hops(relayhost)
        except Exception as error:
            found = error
        # Nobody may be there any more to hear it.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(answer, found)

    threading.Thread(target=read, name="ssh-config", daemon=True).start()
    return way


class Client(asyncssh.SSHClient):
    """What the library asks while it connects, and what it does not tell afterwards."""

    def __init__(self, hop: Hop) -> None:
        self.hop = hop
        self.seen = errors.Seen()
        self._agent: asyncssh.SSHAgentClient | None = None
        self._connection: asyncssh.SSHClientConnection
        self._asked = False

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn
        self.seen.reached = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.greeted = self._connection.get_extra_info("server_version") is not None
        self._leave_agent()

    def begin_auth(self, username: str) -> None:
        offer_keys_alone(self._connection)

    def auth_completed(self) -> None:
        self._leave_agent()

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return self._judge(key, authority=False)

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return self._judge(key, authority=True)

    def _judge(self, key: asyncssh.SSHKey, *, authority: bool) -> bool:
        self.seen.offered = key
        self.seen.verdict = known_hosts.judge(self.hop.known, key, authority=authority)
        return self.seen.verdict is Verdict.TRUSTED

    async def public_key_auth_requested(self) -> list[asyncssh.SSHKeyPair] | None:
        """All keys at once, best first; servers give up after about six."""
        if self._asked:
            return None
        self._asked = True
        named = frozenset().union(*(identity.public for identity in self.hop.identities))
        held = await self._agent_keys()
        certificates = [cert for identity in self.hop.identities for cert in identity.certificates]
        chosen = [each for key in held if key.public_data in named for each in (*_certified(key, certificates), key)]
        known = {key.public_data for key in held}
        for identity in self.hop.identities:
            in_agent = identity.public & known
            note = "in the agent" if in_agent else identity.note
            self.seen.tried.append(f"{identity.file} ({note})" if note else str(identity.file))
            chosen += [pair for pair in identity.pairs if pair.public_data not in known]
        if not self.hop.identities_only:
            others = [key for key in held if key.public_data not in named]
            if others:
                self.seen.tried.append(f"{len(others)} more of the agent's")
            chosen += others
        return chosen or None

    async def _agent_keys(self) -> list[asyncssh.SSHKeyPair]:
        if not self.hop.agent:
            return []
        try:
            self._agent = await asyncssh.connect_agent(self.hop.agent)
            return list(await self._agent.get_keys())
        except (OSError, ValueError):
            self.seen.tried.append(f"the agent at {self.hop.agent} (does not answer)")
            return []

    def _leave_agent(self) -> None:
        if self._agent is not None:
            self._agent.close()


def _certified(key: asyncssh.SSHKeyPair, certificates: list[asyncssh.SSHCertificate]) -> Iterator[asyncssh.SSHKeyPair]:
    """An agent's key once with each certificate that is for it."""
    for certificate in certificates:
        if certificate.key.public_data == key.public_data:
            certified = copy.copy(key)
            certified.set_certificate(certificate)
            yield certified


async def connect(
    hop: Hop, through: asyncssh.SSHClientConnection | None, client: Client | None = None
) -> asyncssh.SSHClientConnection:
    """One hop, from nothing to logged in. client: who judges its host key, if somebody else. Raises Fault."""
    client = client or Client(hop)
    sock: socket.socket | None = None
    proxy: Proxy | None = None
    try:
        if through is None and hop.proxy:
            proxy = await run(hop.proxy)
            sock = proxy.sock
        elif through is None:
            sock = await _reach(hop)
        async with asyncio.timeout(LOGIN):
            connection = await asyncssh.connect(
                hop.host,
                hop.port,
                options=hop.options,
                config=None,
                encryption_algs=_quick_first(hop.options.encryption_algs),
                sock=sock,
                tunnel=through,
                client_factory=lambda: client,
            )
    except BaseException as error:
        try:
            if sock is not None:
                sock.close()
            if not isinstance(error, Exception):
                raise
            if proxy is not None:
                client.seen.proxy_status, client.seen.proxy_said = await proxy.last_words()
            elif sock is not None and not client.seen.greeted:
                client.seen.first_words = await _first_words(hop)
        finally:
            if proxy is not None:
                proxy.close()
                await proxy.wait_closed()
        raise Fault(errors.dialling(error, hop, client.seen)) from error
    if proxy is not None:
        connection.set_tunnel(proxy)
        if connection.is_closed():
            proxy.close()
    return connection


def _quick_first(ciphers: Sequence[bytes]) -> list[str]:
    """The same ciphers, those first that cost the library least for a packet."""
    names = [name.decode("ascii") for name in ciphers]
    return sorted(names, key=lambda name: "-gcm" not in name)


async def _reach(hop: Hop) -> socket.socket:
    """A TCP connection, by whichever address answers first in the resolver's order. Raises OSError."""
    loop = asyncio.get_running_loop()
    end = loop.time() + hop.connect
    async with asyncio.timeout_at(end):
        found = await loop.getaddrinfo(hop.host, hop.port, family=hop.options.family, type=socket.SOCK_STREAM)
    refusals: list[OSError] = []
    for position, (family, kind, protocol, _, address) in enumerate(found):
        try:
            # An even share for each: an address that swallows packets (IPv6 in many a café) leaves time for the next.
            async with asyncio.timeout((end - loop.time()) / (len(found) - position)):
                return await _knock(lambda: _connected(hop, family, kind, protocol, address))  # noqa: B023
        except OSError as error:
            refusals.append(error)
    raise next((each for each in refusals if isinstance(each, ConnectionRefusedError)), refusals[0])


async def _knock(connect: Callable[[], Coroutine[None, None, socket.socket]]) -> socket.socket:
    """The first of several connections, each begun while those before it wait for an answer. Raises OSError."""
    knocking: set[asyncio.Task[socket.socket]] = set()
    try:
        while True:
            knocking.add(asyncio.create_task(connect()))
            answered, _ = await asyncio.wait(knocking, timeout=CONNECT_RETRY, return_when=asyncio.FIRST_COMPLETED)
            if answered:
                first = answered.pop()
                knocking.discard(first)
                return first.result()
    finally:
        for other in knocking:
            other.cancel()
            other.add_done_callback(_close_other)


def _close_other(knocking: asyncio.Task[socket.socket]) -> None:
    if not knocking.cancelled() and knocking.exception() is None:
        knocking.result().close()


async def _connected(hop: Hop, family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        if sys.platform == "linux":
            # Kernels before 6.15 do not know it.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, int(CONNECT_RETRY * 1000))
        if hop.options.local_addr:
            sock.bind(hop.options.local_addr)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _first_words(hop: Hop) -> bytes:
    """What a server says first that has not spoken SSH to us, b"" if that is nothing, or SSH."""
    said = b""
    with contextlib.suppress(OSError):
        sock = await _reach(hop)
        with sock:
            async with asyncio.timeout(FIRST_WORDS):
                said = await asyncio.get_running_loop().sock_recv(sock, MAX_FIRST_WORDS)
    return b"" if said.startswith(b"SSH-") else said


def _close_late(opening: asyncio.Task[Channel]) -> None:
    """For a channel that opens after nobody waits for it any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def close(connections: list[asyncssh.SSHClientConnection]) -> None:
    for connection in reversed(connections):
        connection.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE):
            for connection in connections:
                await connection.wait_closed()
    for connection in connections:
        connection.abort()
