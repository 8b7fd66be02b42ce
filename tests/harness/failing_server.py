"""A mail server that fails at one stage of SMTP, in one way, behind an SSH server in the process of the test.

The stages and the ways are the rows and columns of the table in docs/failures.md, section "Stage by stage".
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
from asyncssh.stream import SSHTCPStreamSession

from mailrelay.demo.mailserver import EXTENSIONS, Policy, converse
from mailrelay.demo.remote import Remote, RemoteSSHServer
from mailrelay.mail.outcome import Stage

STAGES = ("connect", "greeting", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "content", "dot", "QUIT", "BDAT")
WAYS = ("4xx", "5xx", "close", "hang", "garbage", "endless line", "split reply")
OF_ALL_MAIL = ("connect", "greeting", "EHLO", "HELO", "QUIT")
"""The stages that belong to no message."""

UNLUCKY_SENDER, UNLUCKY_RECIPIENT = b"unlucky@example.org", b"unlucky@example.net"
"""Whose message, and at RCPT which recipient, meets the failure."""

LATER = b"451 4.3.0 come back another time"
CLOSING = b"421 4.3.2 come back another time"
"""A 4xx after which the server closes the channel."""
_NEVER = {
    "EHLO": b"502 5.5.1 no EHLO here, never",
    "HELO": b"550 5.7.0 not you, never",
    "RCPT": b"550 5.1.1 nobody of this name, never",
}


def never(stage: str) -> bytes:
    """The 5xx of a stage."""
    return _NEVER.get(stage, b"554 5.6.0 not this one, never")


GARBAGE = b"\x16\x03\x01\x00\xff\x1b[2J not a reply"
GOOD = {
    "greeting": b"220-demo-remote ESMTP\r\n220 at your service",
    "HELO": b"250-demo-remote\r\n250 at your service",
    "DATA": b"354-go\r\n354 ahead",
    "QUIT": b"221-2.0.0 bye\r\n221 2.0.0 bye",
}
GOOD_OTHERWISE = b"250-2.0.0 in two\r\n250 2.0.0 lines"
"""Replies of several lines. That to EHLO has several by itself."""
ENDLESS = b"250 " + b"x" * 4092

WAITED_FOR = {
    "greeting": Stage.GREETING,
    "EHLO": Stage.EHLO,
    "HELO": Stage.EHLO,
    "MAIL": Stage.MAIL,
    "RCPT": Stage.RCPT,
    "DATA": Stage.DATA,
    "content": Stage.CONTENT,
    "dot": Stage.AFTER_DOT,
    "BDAT": Stage.AFTER_DOT,
}
"""By the stage, the time-out in `smtp.transaction.REPLY_TIMEOUTS` that ends the wait for a server that hangs there."""
_BEFORE = {"EHLO": "greeting", "HELO": "EHLO", "RCPT": "MAIL", "DATA": "RCPT", "content": "DATA"}
_BEFORE |= {"dot": "DATA", "BDAT": "RCPT"}
"""The stage whose reply begins the wait for another stage."""

WINDOW = 32 * 1024
"""Octets that the server accepts unread. So a content that is larger is still being sent when the server stops reading."""
LINES_READ = 100
"""Lines of a content that are read before the failure at the stage "content"."""


class FailingServer(Remote):
    """Fails at `stage` in a `way`, while `fails` is true. From MAIL on it does so to the message of `UNLUCKY_SENDER`, or to
    every message if `fails_all` is true.

    reply: for "4xx", CLOSING, or b"" for LATER; for "split reply", the refusal in pieces, or b"" for the good reply.
    hurry: called when the time-out of the stage is to be short; relax: when it is to be as usual again.

    open: nobody is logged in before it is set. reached: set when the server has come to its failure. conversations: how many
    greetings were due.
    """

    def __init__(self, directory: Path, stage: str, way: str, reply: bytes = b"") -> None:
        super().__init__(directory)
        self.stage, self.way, self.reply = stage, way, reply
        self.fails, self.fails_all = True, False
        self.open, self.reached = asyncio.Event(), asyncio.Event()
        self.hurry: Callable[[], object] = lambda: None
        self.relax: Callable[[], object] = lambda: None
        self.conversations = 0
        self.extensions = (*EXTENSIONS, b"CHUNKING") if stage == "BDAT" else EXTENSIONS

    def ssh_server(self) -> asyncssh.SSHServer:
        return _SSHServer(self)

    @asynccontextmanager
    async def octet_by_octet(self) -> AsyncIterator[None]:
        """Has every octet of the next SSH connections come alone from the server."""

        async def slowly(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while octet := await source.read(1):
                self.reached.set()
                sink.write(octet)
                await asyncio.sleep(0)
            sink.close()

        async def at_once(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while octets := await source.read(65536):
                sink.write(octets)
            sink.close()

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._register_this_task()
            there, back = await asyncio.open_connection("127.0.0.1", self.ssh_port)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(slowly(there, writer), at_once(reader, back))

        async with await asyncio.start_server(carry, "127.0.0.1", 0) as between:
            port = between.sockets[0].getsockname()[1]
            for file in (self.ssh_config, self.known_hosts):
                file.write_text(file.read_text().replace(str(self.ssh_port), str(port)))
            yield
            between.close()
            await self.down()

    def waited_before(self, *, is_concerned: bool) -> str:
        """The stage whose reply begins the wait at the stage of the failure; "" if that reply is about other mail."""
        if self.stage == "MAIL":
            # A message that has ended the first conversation goes behind another one in the second.
            return "dot" if self.conversations == 2 and not self.fails_all else "EHLO"
        return _BEFORE.get(self.stage, "") if is_concerned or self.stage in OF_ALL_MAIL else ""

    # For each connection and each conversation.

    async def connect(self, connection: asyncssh.SSHServerConnection) -> None:
        """Opens a channel, or fails to. Raises ChannelOpenError."""
        self.channels += 1
        self.relax()
        if self.stage == "greeting" and self.fails:
            self.hurry()
        if not (self.stage == "connect" and self.fails):
            return
        self.reached.set()
        match self.way:
            case "4xx":
                raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "Connection refused")
            case "5xx":
                raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed")
            case "garbage":
                raise asyncssh.ChannelOpenError(4711, GARBAGE.decode("latin-1"))
            case "endless line":
                raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "x" * 30_000)
            case "close":
                connection.abort()
                await asyncio.Event().wait()
            case "hang":
                await asyncio.Event().wait()

    async def talk(self, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        self._register_this_task()
        self.conversations += 1
        dialogue = _Dialogue(self, reader, writer)
        await converse(dialogue, dialogue, dialogue)


class _SSHServer(RemoteSSHServer):
    remote: FailingServer

    async def begin_auth(self, username: str) -> bool:  # type: ignore[override]
        await self.remote.open.wait()
        if self.remote.stage == "connect" and self.remote.fails:
            self.remote.hurry()
        return True

    def connection_requested(  # type: ignore[override]
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> tuple[asyncssh.SSHTCPChannel[bytes], Awaitable[asyncssh.SSHTCPSession[bytes]]]:
        async def opened() -> asyncssh.SSHTCPSession[bytes]:
            self.remote._register_this_task()
            await self.remote.connect(self.connection)
            return SSHTCPStreamSession[bytes](self.remote.talk)

        return self.connection.create_tcp_channel(window=WINDOW), opened()


class _Dialogue:
    """One conversation: the mailbox of `demo.mailserver.converse`, and its reader and writer."""

    def __init__(
        self, server: FailingServer, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]
    ) -> None:
        self.policy: Policy = self._policy
        self.extensions, self.received, self.keep = server.extensions, server.received, server.keep
        self.close, self.write_eof = writer.close, writer.write_eof
        self.readexactly = reader.readexactly
        self.read = reader.read
        self._server, self._reader, self._writer = server, reader, writer
        self._is_unlucky = False
        # The next line of the client, which was read ahead of time.
        self._ahead = b""
        self._unsent = b""
        self._splits = False
        # Nothing more is read.
        self._is_closing = False
        # Lines of the content that are still to be read before the failure.
        self._lines_left: int | None = None

    # The mailbox.

    async def _policy(self, verb: str, argument: bytes) -> bytes | None:
        server = self._server
        stage = "greeting" if verb == "GREETING" else verb
        if verb == "CONTENT":
            stage = "BDAT" if b"CHUNKING" in self.extensions else "dot"
        if verb == "MAIL":
            self._is_unlucky = server.fails_all or UNLUCKY_SENDER in argument
        if not server.fails:
            return None
        if server.stage == "HELO" and stage == "EHLO":
            server.hurry()
            return never("EHLO")
        is_concerned = self._is_unlucky and (stage != "RCPT" or server.fails_all or UNLUCKY_RECIPIENT in argument)
        if stage == server.waited_before(is_concerned=is_concerned):
            server.hurry()
        if stage == "DATA" and server.stage == "content" and is_concerned:
            self._lines_left = LINES_READ
        if stage != server.stage or not (is_concerned or stage in OF_ALL_MAIL):
            return None
        if stage == "BDAT":
            # The next message must be in flight already: nothing waits for this reply.
            self._ahead = await self._reader.readline()
        return await self._fail(stage)

    async def _fail(self, stage: str) -> bytes | None:
        """Fails instead of a reply, or by the reply that it returns, None for the ordinary one."""
        self._server.reached.set()
        way = self._server.way
        if way == "hang":
            await asyncio.Event().wait()
        if way == "endless line":
            await self._write_endlessly()
        if way == "split reply":
            return self._in_pieces(stage)
        if way == "4xx":
            self._is_closing = self._server.reply == CLOSING
            return self._server.reply or LATER
        return {"5xx": never(stage), "garbage": GARBAGE}.get(way, b"")

    def _in_pieces(self, stage: str) -> bytes | None:
        """A reply of several lines, which is sent octet by octet."""
        self._splits = True
        if not self._server.reply:
            return None if stage == "EHLO" else GOOD.get(stage, GOOD_OTHERWISE)
        code, status, _ = self._server.reply.split(b" ", 2)
        return b"%b-%b in two\r\n%b" % (code, status, self._server.reply)

    async def _write_endlessly(self) -> None:
        while not self._writer.is_closing():
            self._writer.write(ENDLESS)
            await self._writer.drain()

    # The reader.

    async def readline(self) -> bytes:
        if self._ahead and not self._is_closing:
            line, self._ahead = self._ahead, b""
            return line
        if self._lines_left == 0:
            self._lines_left = None
            await self._fail_in_content()
        elif self._lines_left is not None:
            self._lines_left -= 1
        if self._is_closing:
            raise EOFError
        return await self._reader.readline()

    async def _fail_in_content(self) -> None:
        """Goes on reading, unless it hangs or has closed."""
        if self._server.way == "endless line":
            self._server.reached.set()
            task = asyncio.create_task(self._write_endlessly())
            self._server.dialogues.add(task)
            task.add_done_callback(self._server.dialogues.discard)
            return
        reply = await self._fail("content")
        if reply == b"":
            raise EOFError
        if reply is not None:
            self.write(reply + b"\r\n")
            await self.drain()

    # The writer.

    def write(self, data: bytes) -> None:
        self._unsent += data

    async def drain(self) -> None:
        data, self._unsent = self._unsent, b""
        for piece in [data[at : at + 1] for at in range(len(data))] if self._splits else [data]:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)
