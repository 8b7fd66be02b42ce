"""What a key that is for mail alone can do besides, found out by trying it: a shell, a command, files, other ports.

    for trial in await trials(relayhost, key): trial.what, trial.is_refused, trial.said

Promises: only the key of the given file is offered, so that nothing else lets us in; each trial is harmless where it is not
refused, and what it opened is closed. "Refused" is only what the remote was seen to refuse.
Never: the mail way itself; that it works is found out by using it.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from mailrelay.config import Relayhost
from mailrelay.ssh import errors
from mailrelay.ssh.connection import close, connect, read_way
from mailrelay.ssh.hops import Hop

TRIAL = 10.0
"""Seconds after which a session in which nothing happened counts as refused."""
SOCKETS = ("/run/dbus/system_bus_socket", "/run/systemd/journal/stdout", "/var/run/docker.sock", "/run/docker.sock")
"""Where hosts have sockets that a login may open. No option of authorized_keys but no-port-forwarding is against it."""

_SUM = b"echo $((6*7919))\n"
_TOTAL = b"47514"
"""What only a shell makes of that; an echo of it would not do."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Something that was tried: what, whether the remote refused it, and what came of it or was said, if anything."""

    what: str
    is_refused: bool
    said: str


async def trials(relayhost: Relayhost, key: Path) -> list[Trial]:
    """Tries all of it with the key alone. Raises Fault where the key is not let in."""
    way = await read_way(relayhost)
    connections: list[asyncssh.SSHClientConnection] = []
    try:
        for hop in way:
            chosen = _with_alone(hop, key) if hop is way[-1] else hop
            connections.append(await connect(chosen, connections[-1] if connections else None))
        connection = connections[-1]
        other_port = 22 if relayhost.smtp_port != 22 else 80
        tried: list[tuple[str, Callable[[], Coroutine[Any, Any, str]]]] = [
            ("a shell", lambda: _evaluates(connection, None)),
            ("a command", lambda: _evaluates(connection, _SUM.decode().strip())),
            ("file transfer (sftp)", lambda: _sftp(connection)),
            (f"-L to another port (localhost:{other_port})", lambda: _reach(connection, "localhost", other_port)),
            ("-L to another host (192.0.2.1)", lambda: _reach(connection, "192.0.2.1", relayhost.smtp_port)),
            ("-L to a UNIX socket", lambda: _reach_socket(connection)),
            ("-R, a port opened there", lambda: _listen(connection)),
            ("agent forwarding", lambda: _forward_agent(connection)),
        ]
        return [await _try(what, attempt) for what, attempt in tried]
    finally:
        await close(connections)


def _with_alone(hop: Hop, key: Path) -> Hop:
    return dataclasses.replace(hop, identities=tuple(one for one in hop.identities if one.file == key), agent="")


async def _try(what: str, attempt: Callable[[], Awaitable[str]]) -> Trial:
    """`attempt` returns what it achieved, "" for nothing."""
    try:
        async with asyncio.timeout(TRIAL):
            achieved = await attempt()
    except asyncssh.ChannelOpenError as error:
        # "Connect failed" is said by a server that would have let us through.
        said = errors.words(error) if error.reason else ""
        return Trial(what, error.code != asyncssh.OPEN_CONNECT_FAILED, said)
    except TimeoutError:
        return Trial(what, True, "no answer")
    except (asyncssh.Error, asyncssh.ChannelListenError, OSError, ValueError) as error:
        return Trial(what, True, errors.words(error))
    return Trial(what, not achieved, achieved)


async def _evaluates(connection: asyncssh.SSHClientConnection, command: str | None) -> str:
    # Not as a context: at its end that waits for the remote, for however long.
    process = await connection.create_process(
        command, encoding=None, request_pty=False, env=None, send_env=None, stderr=asyncssh.STDOUT
    )
    try:
        if command is None:
            process.stdin.write(_SUM)
        process.stdin.write_eof()
        said = b""
        while len(said) < 65536 and (data := await process.stdout.read(4096)):
            said += data
            if _TOTAL in said:
                return "it was run"
        return ""
    finally:
        process.close()


async def _sftp(connection: asyncssh.SSHClientConnection) -> str:
    files = await connection.start_sftp_client(env=None, send_env=None)
    try:
        await files.getcwd()
        return "files can be read and written"
    finally:
        files.exit()


async def _reach(connection: asyncssh.SSHClientConnection, host: str, port: int) -> str:
    try:
        async with asyncio.timeout(TRIAL / 2):
            _, writer = await connection.open_connection(host, port)
    except TimeoutError:
        # Who refuses does so at once. What takes long is a connection that the remote tries to make.
        return "the remote tries to get there"
    writer.close()
    return "it was let through"


async def _reach_socket(connection: asyncssh.SSHClientConnection) -> str:
    """A socket that is not there looks like one that is not allowed, so we try some that may be there."""
    for path in SOCKETS:
        with contextlib.suppress(asyncssh.ChannelOpenError):
            _, writer = await connection.open_unix_connection(path)
            writer.close()
            return f"{path} can be reached"
    return ""


async def _listen(connection: asyncssh.SSHClientConnection) -> str:
    listener = await connection.forward_remote_port("localhost", 0, "localhost", 9)
    listener.close()
    await listener.wait_closed()
    return "it was opened"


async def _forward_agent(connection: asyncssh.SSHClientConnection) -> str:
    # The library asks for it without waiting for an answer; so this asks itself, on a session that runs nothing.
    channel = asyncssh.SSHClientChannel[bytes](
        connection, asyncio.get_running_loop(), "strict", None, "strict", 1 << 16, 1 << 15
    )
    await channel._open(b"session")
    try:
        return "it was granted" if await channel._make_request(b"auth-agent-req@openssh.com") else ""
    finally:
        channel.abort()
