"""Scripts of the package that run on the relayhost: their command lines, their refusal, and the output of programs there.

Promises: any login shell passes a script on unchanged. Never: data in a script; it is passed in words or on stdin.
"""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from importlib import resources
from typing import TypeVar

import asyncssh

from mailrelay.mail.printable import printable
from mailrelay.ssh import errors
from mailrelay.ssh.channel import RelayhostChannel
from mailrelay.ssh.interface import NotAnswered, NotRecorded

Refusal = TypeVar("Refusal", NotAnswered, NotRecorded)


def text(name: str, values: Mapping[str, object]) -> str:
    """The text of a script on one line, without its comments: csh has no quoted newlines. values: of words in it."""
    script = resources.files(__package__).joinpath(name).read_text("utf-8")
    lines = (line.strip() for line in script.splitlines())
    joined = " ".join(line for line in lines if line and not line.startswith("#"))
    for word, value in values.items():
        joined = joined.replace(word, str(value))
    return joined


def command_line(script: str, *words: str) -> str:
    """A command line that any login shell understands in the same way. words: quoted where needed."""
    return " ".join(("exec sh -c", quoted(script), "sh", *words))


def quoted(script: str) -> str:
    r"""In single quotes, within which only ', ! (csh), \\ and \' (fish) mean something."""
    if re.search(r"['!\n]|\\\\", script):
        raise ValueError("the script cannot be quoted for every shell")
    return f"'{script}'"


async def answer(channel: RelayhostChannel, sent: bytes, *, limit: int, silence: float) -> bytes:
    """The whole output of the program on the channel after `sent`, its stdin. One that is longer than `limit` octets is cut
    off somewhere behind them. Raises ConnectionError, and TimeoutError after `silence` seconds without an octet."""
    found = bytearray()
    # A program that does not read ends with an output that says more.
    with contextlib.suppress(ConnectionError):
        channel.write(sent)
        channel.write_eof()
    while len(found) <= limit:
        async with asyncio.timeout(silence):
            octets = await channel.read()
        if not octets:
            break
        found += octets
    return bytes(found)


def refused(error: Exception, what: str, kind: type[Refusal]) -> Refusal:
    """The exception of this kind if the relayhost opens no session, or refuses a command in it. what: the purpose of the
    session. The relayhost opens none if there are as many as MaxSessions of sshd_config allows."""
    reason = "no reply in time" if isinstance(error, TimeoutError) else errors.message(error)
    if isinstance(error, asyncssh.ChannelOpenError) and error.code == asyncssh.OPEN_REQUEST_SESSION_FAILED:
        return kind(f"The SSH server refuses to run a command: {reason}.")
    return kind(f"The SSH server opens no session for {what}: {reason}.", is_temporary=True)


def shown(output: bytes) -> str:
    """The last line of an output, for a person."""
    return printable(output.strip().rpartition(b"\n")[2], 300).rstrip(".") or "it sent nothing"
