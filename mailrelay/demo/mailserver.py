"""One dialogue of the embedded mail server: RFC 5321, with RFC 1870, 2920, 3030, 3461, 6152 and 6531 as offered.

It is stricter than most servers: it refuses parameters of extensions that it did not offer, bare CR or LF, and addresses
beyond ASCII without SMTPUTF8. So a client that it accepts keeps to the RFCs.
Never: accept a message that the policy refused.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import asyncssh

Policy = Callable[[str, bytes], Awaitable[bytes | None]]
"""Called before every reply of the mail server. First argument: the verb in capitals, or GREETING or CONTENT. Second: the
argument of the command, or the content without dot-stuffing. Returns the reply without its last CRLF, None for the ordinary
reply, or b"" to close the connection without a reply."""

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
    """An accepted message. Addresses without angle brackets; content with CRLF line ends, without dot-stuffing.

    arguments: those of MAIL and of each accepted RCPT, as sent.
    """

    sender: bytes
    recipients: tuple[bytes, ...]
    content: bytes
    arguments: tuple[bytes, ...]


async def refuse_by_name(verb: str, argument: bytes) -> bytes | None:
    """The policy of a new remote: recipients named `refused…` get a 550, those named `later…` a 451."""
    if verb == "RCPT":
        address = _path(argument)
        if address.startswith(b"refused"):
            return b"550 5.1.1 <%s>: no such user" % address
        if address.startswith(b"later"):
            return b"451 4.2.1 <%s>: mailbox is busy, try again later" % address
    return None


class ByteReader(Protocol):
    """The methods that asyncio.StreamReader and asyncssh.SSHReader[bytes] share, as far as the demo uses them."""

    async def read(self, n: int, /) -> bytes: ...
    async def readline(self) -> bytes: ...
    async def readexactly(self, n: int, /) -> bytes: ...


class ByteWriter(Protocol):
    """The methods that asyncio.StreamWriter and asyncssh.SSHWriter[bytes] share, as far as the demo uses them."""

    def write(self, data: bytes, /) -> None: ...
    def write_eof(self) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...


class Mailbox(Protocol):
    """What the mail server replies and offers, and where it keeps its messages."""

    policy: Policy
    extensions: tuple[bytes, ...]
    received: list[Received]

    async def keep(self, message: Received, /) -> None: ...


class _Cut(Exception):
    """The client has disconnected, or the policy closes the connection."""


def _path(argument: bytes) -> bytes:
    """The address of `FROM:<…>` or `TO:<…>`, without angle brackets; b"" where there is none."""
    found = _PATH.match(argument)
    return found[1] if found else b""


async def converse(mailbox: Mailbox, reader: ByteReader, writer: ByteWriter) -> None:
    """One SMTP dialogue (RFC 5321; RFC 3030 for BDAT), until QUIT or until either side disconnects."""
    try:
        await _Dialogue(mailbox, reader, writer).run()
    except (_Cut, OSError, EOFError, ValueError, asyncssh.Error):
        # The stream raises EOFError if the connection ends within a chunk, and ValueError for a line that is too long.
        pass
    finally:
        writer.close()


class _Dialogue:
    """arguments: those of MAIL and of each accepted RCPT of the transaction. chunks: the content so far, by BDAT."""

    def __init__(self, mailbox: Mailbox, reader: ByteReader, writer: ByteWriter) -> None:
        self._mailbox = mailbox
        self._reader = reader
        self._writer = writer
        self._arguments: list[bytes] = []
        self._chunks = b""

    async def run(self) -> None:
        """Until QUIT. Raises _Cut, and what the streams raise."""
        await self._reply("GREETING", b"", b"220 demo-remote ESMTP")
        while True:
            line = await self._reader.readline()
            if not line:
                raise _Cut
            word, _, argument = line.removesuffix(b"\r\n").partition(b" ")
            verb = word.upper().decode("ascii", "replace")
            if not line.endswith(b"\r\n"):
                await self._reply(verb, argument, b"500 5.5.2 a line ends with CR LF")
            elif verb == "QUIT":
                await self._reply(verb, argument, b"221 2.0.0 bye")
                return
            else:
                await self._command(verb, argument)

    async def _reply(self, verb: str, argument: bytes, ordinary: bytes) -> bool:
        """Sends the reply of the policy, or else the ordinary one. Returns whether the reply is positive."""
        reply = await self._mailbox.policy(verb, argument)
        if reply == b"":
            raise _Cut
        reply = reply or ordinary
        self._writer.write(reply + b"\r\n")
        await self._writer.drain()
        return reply.startswith((b"2", b"3"))

    async def _command(self, verb: str, argument: bytes) -> None:
        match verb:
            case "EHLO" | "HELO" | "RSET":
                ordinary = {"EHLO": self._ehlo(), "HELO": b"250 demo-remote", "RSET": b"250 2.0.0 ok"}[verb]
                await self._reply(verb, argument, ordinary)
                self._arguments, self._chunks = [], b""
            case "MAIL" | "RCPT":
                await self._mail_or_rcpt(verb, argument)
            case "DATA" | "BDAT" if len(self._arguments) < 2:
                if verb == "BDAT":
                    await self._chunk(argument)
                await self._reply(verb, argument, b"554 5.5.1 no valid recipients")
            case "DATA":
                if await self._reply(verb, argument, b"354 go ahead"):
                    await self._take(await read_content(self._reader))
                self._arguments = []
            case "BDAT" if b"CHUNKING" in self._offered():
                await self._bdat(argument)
            case "NOOP":
                await self._reply(verb, argument, b"250 2.0.0 ok")
            case _:
                await self._reply(verb, argument, b"500 5.5.1 unknown command")

    def _ehlo(self) -> bytes:
        *lines, last = [b"demo-remote", *self._mailbox.extensions]
        return b"\r\n".join([*(b"250-" + line for line in lines), b"250 " + last])

    def _offered(self) -> set[bytes]:
        return {extension.split()[0] for extension in self._mailbox.extensions}

    async def _mail_or_rcpt(self, verb: str, argument: bytes) -> None:
        if objection := _objection(verb, argument, self._arguments, self._offered()):
            await self._reply(verb, argument, objection)
        elif await self._reply(verb, argument, b"250 2.1.0 ok" if verb == "MAIL" else b"250 2.1.5 ok"):
            self._arguments.append(argument)

    async def _bdat(self, argument: bytes) -> None:
        self._chunks += await self._chunk(argument)
        if argument.upper().endswith(b" LAST"):
            await self._take(self._chunks)
            self._arguments, self._chunks = [], b""
        else:
            await self._reply("BDAT", argument, b"250 2.0.0 chunk taken")

    async def _chunk(self, argument: bytes) -> bytes:
        return await self._reader.readexactly(int(argument.split()[0]))

    async def _take(self, content: bytes) -> None:
        if _BARE.search(content):
            await self._reply("CONTENT", content, b"550 5.6.11 bare CR or LF")
            return
        if await self._reply("CONTENT", content, b"250 2.0.0 taken as %d" % (len(self._mailbox.received) + 1)):
            sender, *recipients = (_path(argument) for argument in self._arguments)
            await self._mailbox.keep(Received(sender, tuple(recipients), content, tuple(self._arguments)))


def _objection(verb: str, argument: bytes, arguments: list[bytes], offered: set[bytes]) -> bytes:
    """The reply that refuses an invalid MAIL or RCPT; b"" for a valid one."""
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


async def read_content(reader: ByteReader) -> bytes:
    """The content after DATA, without dot-stuffing and the final dot (RFC 5321 section 4.5.2)."""
    lines = []
    while (line := await reader.readline()) != b".\r\n":
        if not line:
            raise _Cut
        lines.append(line[1:] if line.startswith(b".") else line)
    return b"".join(lines)
