"""One dialogue of the embedded remote's mail server: RFC 5321, with RFC 1870, 2920, 3030, 3461, 6152 and 6531 as offered.

It is stricter than most: it takes no parameter that it did not offer, no bare CR or LF, no address beyond ASCII without
SMTPUTF8; so whoever gets along with it keeps to the RFCs. Never: a message taken over that the policy refused.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import asyncssh

Policy = Callable[[str, bytes], Awaitable[bytes | None]]
"""Asked before every reply of the mail server: with the verb in capitals, or GREETING or CONTENT, and with its argument, or
the content (dots unstuffed). Gives the reply without its last CRLF, None for the ordinary one, b"" to cut the connection."""

EXTENSIONS = (b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"SIZE 50000000", b"DSN", b"ENHANCEDSTATUSCODES")
_OFFERED_BY = {
    b"BODY": b"8BITMIME",
    b"SMTPUTF8": b"SMTPUTF8",
    b"SIZE": b"SIZE",
    b"RET": b"DSN",
    b"ENVID": b"DSN",
    b"NOTIFY": b"DSN",
    b"ORCPT": b"DSN",
}
_PATH = re.compile(rb'(?:FROM|TO):<((?:"(?:[^"\\]|\\.)*"|[^">])*)>', re.IGNORECASE)
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


@dataclass(frozen=True, slots=True)
class Received:
    """A message taken over. Addresses without angle brackets; content with CRLF line ends, dots unstuffed.

    arguments: those of MAIL and of each RCPT that was accepted, as sent.
    """

    sender: bytes
    recipients: tuple[bytes, ...]
    content: bytes
    arguments: tuple[bytes, ...]


async def refuse_by_name(verb: str, argument: bytes) -> bytes | None:
    """The policy of a new remote: recipients named `refused…` do not exist, those named `later…` are asked to wait."""
    if verb == "RCPT":
        address = _path(argument)
        if address.startswith(b"refused"):
            return b"550 5.1.1 <%s>: no such user" % address
        if address.startswith(b"later"):
            return b"451 4.2.1 <%s>: mailbox is busy, try again later" % address
    return None


class _Reader(Protocol):
    async def readline(self) -> bytes: ...
    async def readexactly(self, n: int, /) -> bytes: ...


class _Writer(Protocol):
    def write(self, data: bytes, /) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...


class Mailbox(Protocol):
    """Whose mail server it is: what it replies and offers, and where its mail goes."""

    policy: Policy
    extensions: tuple[bytes, ...]
    received: list[Received]

    async def keep(self, message: Received, /) -> None: ...


class _Cut(Exception):
    """The client went, or the policy cuts the connection."""


def _path(argument: bytes) -> bytes:
    """The address of `FROM:<…>` or `TO:<…>`, without angle brackets; b"" where there is none."""
    found = _PATH.match(argument)
    return found[1] if found else b""


async def converse(mailbox: Mailbox, reader: _Reader, writer: _Writer) -> None:
    """One SMTP dialogue (RFC 5321; RFC 3030 for BDAT), until QUIT or until either side goes."""

    async def reply(verb: str, argument: bytes, ordinary: bytes) -> bool:
        answer = await mailbox.policy(verb, argument)
        if answer == b"":
            raise _Cut
        answer = answer or ordinary
        writer.write(answer + b"\r\n")
        await writer.drain()
        return answer.startswith((b"2", b"3"))

    try:
        await reply("GREETING", b"", b"220 demo-remote ESMTP")
        await _commands(mailbox, reader, reply)
    except (_Cut, OSError, EOFError, ValueError, asyncssh.Error):
        # EOFError and ValueError: the stream's own words for a wire that ended within a chunk, and for an endless line.
        pass
    finally:
        writer.close()


async def _commands(mailbox: Mailbox, reader: _Reader, reply: Callable[[str, bytes, bytes], Awaitable[bool]]) -> None:
    arguments: list[bytes] = []
    chunks = b""
    while True:
        line = await reader.readline()
        if not line:
            raise _Cut
        word, _, argument = line.removesuffix(b"\r\n").partition(b" ")
        verb = word.upper().decode("ascii", "replace")
        offered = {extension.split()[0] for extension in mailbox.extensions}
        objection = b"500 5.5.2 a line ends with CR LF" if not line.endswith(b"\r\n") else b""
        match verb:
            case _ if objection:
                await reply(verb, argument, objection)
            case "EHLO":
                lines = [b"demo-remote", *mailbox.extensions]
                await reply(
                    verb, argument, b"\r\n".join([*(b"250-" + each for each in lines[:-1]), b"250 " + lines[-1]])
                )
                arguments, chunks = [], b""
            case "HELO":
                await reply(verb, argument, b"250 demo-remote")
                arguments, chunks = [], b""
            case "MAIL" | "RCPT":
                if objection := _objection(verb, argument, arguments, offered):
                    await reply(verb, argument, objection)
                elif await reply(verb, argument, b"250 2.1.0 ok" if verb == "MAIL" else b"250 2.1.5 ok"):
                    arguments.append(argument)
            case "DATA" | "BDAT" if len(arguments) < 2:
                if verb == "BDAT":
                    await reader.readexactly(int(argument.split()[0]))
                await reply(verb, argument, b"554 5.5.1 no valid recipients")
            case "DATA":
                if await reply(verb, argument, b"354 go ahead"):
                    await _take(mailbox, arguments, await _content(reader), reply)
                arguments = []
            case "BDAT" if b"CHUNKING" in offered:
                chunks += await reader.readexactly(int(argument.split()[0]))
                if argument.upper().endswith(b" LAST"):
                    await _take(mailbox, arguments, chunks, reply)
                    arguments, chunks = [], b""
                else:
                    await reply(verb, argument, b"250 2.0.0 chunk taken")
            case "RSET":
                await reply(verb, argument, b"250 2.0.0 ok")
                arguments, chunks = [], b""
            case "NOOP":
                await reply(verb, argument, b"250 2.0.0 ok")
            case "QUIT":
                await reply(verb, argument, b"221 2.0.0 bye")
                return
            case _:
                await reply(verb, argument, b"500 5.5.1 unknown command")


def _objection(verb: str, argument: bytes, arguments: list[bytes], offered: set[bytes]) -> bytes:
    """What is wrong with a MAIL or RCPT, as a reply; b"" where nothing is."""
    if (verb == "MAIL") != (not arguments):
        return b"503 5.5.1 out of order"
    path = _PATH.match(argument)
    if path is None or argument[:1].upper() != (b"F" if verb == "MAIL" else b"T"):
        return b"501 5.5.4 an address in angle brackets"
    for parameter in argument[path.end() :].split():
        if _OFFERED_BY.get(parameter.partition(b"=")[0].upper()) not in offered:
            return b"555 5.5.4 not offered: " + parameter
    if not argument.isascii() and b"SMTPUTF8" not in (arguments or [argument])[0].upper().split():
        return b"553 5.6.7 an address beyond ASCII needs SMTPUTF8"
    return b""


async def _content(reader: _Reader) -> bytes:
    lines = []
    while (line := await reader.readline()) != b".\r\n":
        if not line:
            raise _Cut
        lines.append(line[1:] if line.startswith(b".") else line)
    return b"".join(lines)


async def _take(
    mailbox: Mailbox, arguments: list[bytes], content: bytes, reply: Callable[[str, bytes, bytes], Awaitable[bool]]
) -> None:
    if _BARE.search(content):
        await reply("CONTENT", content, b"550 5.6.11 bare CR or LF")
        return
    if await reply("CONTENT", content, b"250 2.0.0 taken as %d" % (len(mailbox.received) + 1)):
        sender, *recipients = (_path(argument) for argument in arguments)
        await mailbox.keep(Received(sender, tuple(recipients), content, tuple(arguments)))
