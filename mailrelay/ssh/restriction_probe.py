"""Tries what the key for mail alone can do besides mail: a shell, a command, files, other ports. Also tries what such a key
may do if it is for tracking, too.

    for trial in await trials(relayhost, key): trial.what, trial.is_refused, trial.detail
    for use in await tracking_uses(relayhost, key): use.what, use.why_not

Promises: only the key of the given file is offered, so no other key allows the login. Each trial is harmless if it is not
refused, and it closes all that it opened. A trial counts as refused only if the server refused it.
Never: a test of the mail path itself; `mail_path` does that.
"""

import asyncio
import contextlib
import dataclasses
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from mailrelay.config import Relayhost
from mailrelay.ssh import errors
from mailrelay.ssh.asyncssh_patches import request_agent_forwarding
from mailrelay.ssh.connection import RelayhostConnection
from mailrelay.ssh.dial import read_hops
from mailrelay.ssh.hop_connection import HopConnection, connected, with_session
from mailrelay.ssh.hops import Hop
from mailrelay.ssh.interface import NotAnswered, NotRecorded
from mailrelay.tracking.question import Question

TRIAL_TIMEOUT = 10.0
"""Seconds after which a trial without any reaction counts as refused."""
SOCKETS = ("/run/dbus/system_bus_socket", "/run/systemd/journal/stdout", "/var/run/docker.sock", "/run/docker.sock")
"""UNIX sockets that exist on many hosts and that an account may open. Of the options of authorized_keys, only
no-port-forwarding prohibits forwarding to them."""

_SUM = b"echo $((6*7919))\n"
_TOTAL = b"47514"
"""The output of a shell for _SUM; a server that only echoes its input does not send it."""
_ODD = (
    "echo $((6*7919)) mailrelay ask",
    "echo $((6*7919)); : mailrelay ask $(echo $((6*7919)))",
    "echo $((6*7919)); : mailrelay record ../../../tmp/x",
    "echo $((6*7919)); : mailrelay read /etc/passwd",
    "x mailrelay record\necho $((6*7919))",
)
"""Commands that end in the words of mailrelay's own."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One attempt at something that should be refused. detail: the server's message or the achieved result, or ""."""

    what: str
    is_refused: bool
    detail: str


async def trials(relayhost: Relayhost, key: Path) -> list[Trial]:
    """Tries everything, with this key alone. Raises Fault if the login fails."""
    hops = await read_hops(relayhost)
    async with connected([*hops[:-1], _with_only(hops[-1], key)]) as connections:
        connection = connections[-1]
        other_port = 22 if relayhost.smtp.port != 22 else 80
        tried: list[tuple[str, Callable[[], Coroutine[Any, Any, str]]]] = [
            ("a shell", lambda: _run(connection, None)),
            ("a command", lambda: _run(connection, _SUM.decode().strip())),
            ("a command in words of mailrelay's", lambda: _run_odd(connection)),
            ("file transfer (sftp)", lambda: _sftp(connection)),
            (f"-L to another port (localhost:{other_port})", lambda: _forward(connection, "localhost", other_port)),
            ("-L to another host (192.0.2.1)", lambda: _forward(connection, "192.0.2.1", relayhost.smtp.port)),
            ("-L to a UNIX socket", lambda: _forward_to_socket(connection)),
            ("-R, a port opened there", lambda: _listen(connection)),
            ("agent forwarding", lambda: _forward_agent(connection)),
        ]
        return [await _try(connection, what, attempt) for what, attempt in tried]


@dataclass(frozen=True, slots=True)
class Use:
    """Something that a key for tracking is to do. why_not: why it cannot, "" if it can."""

    what: str
    why_not: str


async def tracking_uses(relayhost: Relayhost, key: Path) -> list[Use]:
    """Records a conversation, reads and removes its record, and asks about a message that does not exist, with this key
    alone. The question is the last one of the result. Raises Fault."""
    hops = await read_hops(relayhost)
    async with connected([*hops[:-1], _with_only(hops[-1], key)]) as connections:
        connection = RelayhostConnection(relayhost, hops[-1], connections)
        try:
            await connection.ask(Question(["000000-000000-00"], [], since=time.time()))
            uses = [Use("a question about mail", "")]
        except NotAnswered as error:
            uses = [Use("a question about mail", str(error))]
        # A conversation through a command is not recorded.
        return uses if relayhost.command else [await _record(connection), *uses]


async def _record(connection: RelayhostConnection) -> Use:
    token = secrets.token_hex(16)
    try:
        (await connection.open_recorded(token)).close()
        found = await connection.read_records([token])
        await connection.remove_records([token])
    except NotRecorded as error:
        return Use("a record of a conversation", str(error))
    return Use("a record of a conversation", "" if token in found else "it cannot be read")


def _with_only(hop: Hop, key: Path) -> Hop:
    return dataclasses.replace(hop, identities=tuple(one for one in hop.identities if one.file == key), agent="")


async def _try(connection: HopConnection, what: str, attempt: Callable[[], Awaitable[str]]) -> Trial:
    """attempt: returns its result, "" if it achieved nothing."""
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT):
            achieved = await with_session(connection, attempt)
    except asyncssh.ChannelOpenError as error:
        # With "connect failed" the server allowed the forwarding; only its connection to the target failed.
        detail = errors.message(error) if error.reason else ""
        return Trial(what, error.code != asyncssh.OPEN_CONNECT_FAILED, detail)
    except TimeoutError:
        return Trial(what, True, "no answer")
    except (asyncssh.Error, asyncssh.ChannelListenError, OSError, ValueError) as error:
        return Trial(what, True, errors.message(error))
    return Trial(what, not achieved, achieved)


async def _run(connection: HopConnection, command: str | None) -> str:
    # Not as a context manager: its end waits for the server without a limit.
    process = await connection.create_process(
        command, encoding=None, request_pty=False, env=None, send_env=None, stderr=asyncssh.STDOUT
    )
    try:
        if command is None:
            process.stdin.write(_SUM)
        process.stdin.write_eof()
        output = b""
        while len(output) < 65536 and (data := await process.stdout.read(4096)):
            output += data
            if _TOTAL in output:
                return "it was run"
        return ""
    finally:
        process.close()


async def _run_odd(connection: HopConnection) -> str:
    for command in _ODD:
        if achieved := await _run(connection, command):
            return achieved
    return ""


async def _sftp(connection: HopConnection) -> str:
    files = await connection.start_sftp_client(env=None, send_env=None)
    try:
        await files.getcwd()
        return "files can be read and written"
    finally:
        files.exit()


async def _forward(connection: HopConnection, host: str, port: int) -> str:
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT / 2):
            _, writer = await connection.open_connection(host, port)
    except TimeoutError:
        # A refusal comes at once. A delay means that the server tries to connect.
        return "the server tries to connect"
    writer.close()
    return "it was connected"


async def _forward_to_socket(connection: HopConnection) -> str:
    """Tries several sockets, because a socket that does not exist looks like one that is prohibited."""
    for path in SOCKETS:
        with contextlib.suppress(asyncssh.ChannelOpenError):
            _, writer = await connection.open_unix_connection(path)
            writer.close()
            return f"{path} can be reached"
    return ""


async def _listen(connection: HopConnection) -> str:
    listener = await connection.forward_remote_port("localhost", 0, "localhost", 9)
    listener.close()
    await listener.wait_closed()
    return "it was opened"


async def _forward_agent(connection: HopConnection) -> str:
    return "it was granted" if await request_agent_forwarding(connection) else ""
