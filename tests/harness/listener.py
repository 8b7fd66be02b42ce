"""The listener's two neighbours: an intake that keeps what it was given, and the client's end of a connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from mailrelay.config import Listen
from mailrelay.endpoint import Endpoint, Unix
from mailrelay.grammar import listen_endpoint
from mailrelay.listener.listening import Listening, listen
from mailrelay.listener.server_state import ServerState
from mailrelay.listener.submission import Submission, protocol_factory
from mailrelay.mail.client_reply import ClientReply
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Reply


class Intake:
    """Accepts every message, unless a test sets another behaviour.

    before_answer: awaited between the commit and the reply. before_probe_result: awaited in a recipient probe.
    piece_begun, piece_added, abandoned: what has happened to the content in pieces.
    current_refusal: why no message can be accepted. expected_from: the reverse paths of `expect_message`.
    """

    def __init__(self) -> None:
        self.expected_from: list[bytes] = []
        self.probed: list[Envelope] = []
        self.refusals: dict[bytes, Reply] = {}
        self.before_probe_result: Callable[[], Awaitable[object]] | None = None
        self.current_refusal: Reply | None = None
        self.reply = Reply(250, (b"2.0.0 queued",))
        self.committed: list[tuple[Envelope, bytes]] = []
        self.told: asyncio.Queue[bool] = asyncio.Queue()
        self.arrived = asyncio.Event()
        self.error: Exception | None = None
        self.before_answer: Callable[[], Awaitable[object]] | None = None
        self.in_pieces: list[Incoming] = []
        self.before_piece: Callable[[], Awaitable[object]] | None = None
        self.piece_begun = asyncio.Event()
        self.piece_added = asyncio.Event()
        self.abandoned = asyncio.Event()
        self.piece_refusal: Reply | None = None

    def expect_message(self, reverse_path: bytes) -> None:
        self.expected_from.append(reverse_path)

    def refusal(self) -> Reply | None:
        return self.current_refusal

    async def probe_recipient(self, envelope: Envelope, timeout: float) -> Reply | None:
        self.probed.append(envelope)
        if self.before_probe_result is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self.before_probe_result()
        return self.refusals.get(envelope.recipients[0].address)

    async def submit(self, envelope: Envelope, content: bytes) -> ClientReply:
        self.arrived.set()
        if self.error is not None:
            raise self.error
        if self.before_answer is not None:
            await self.before_answer()
        self.committed.append((envelope, content))
        return ClientReply(self.reply, self.told.put_nowait)

    def new_incoming(self, envelope: Envelope) -> "Incoming":
        self.in_pieces.append(Incoming(self, envelope))
        return self.in_pieces[-1]


class Incoming:
    """A message whose content is handed over in pieces."""

    def __init__(self, intake: Intake, envelope: Envelope) -> None:
        self.intake = intake
        self.envelope = envelope
        self.pieces: list[bytes] = []
        self.is_abandoned = False

    async def add(self, octets: bytes) -> Reply | None:
        self.intake.piece_begun.set()
        if self.intake.before_piece is not None:
            await self.intake.before_piece()
        if self.intake.piece_refusal is not None:
            return self.intake.piece_refusal
        self.pieces.append(octets)
        self.intake.piece_added.set()
        return None

    async def finish(self, octets: bytes) -> ClientReply:
        return await self.intake.submit(self.envelope, b"".join((*self.pieces, octets)))

    async def abandon(self) -> None:
        self.is_abandoned = True
        self.intake.abandoned.set()


class Wire:
    """The client's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> bytes:
        """One reply, all of its lines; b"" at the end of the connection."""
        lines = b""
        with contextlib.suppress(ConnectionError):
            while line := await self.reader.readline():
                lines += line
                if line[3:4] != b"-":
                    break
        return lines

    async def say(self, line: bytes) -> bytes:
        self.writer.write(line + b"\r\n")
        return await self.reply()

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        octets = b""
        with contextlib.suppress(ConnectionError):
            while more := await self.reader.read(65536):
                octets += more
        return octets

    async def begin(self, *recipients: bytes, mail: bytes = b"MAIL FROM:<me@example.org>") -> None:
        """EHLO to DATA, all of which must be accepted."""
        assert (await self.reply()).startswith(b"220 ")
        assert (await self.say(b"EHLO client")).startswith(b"250-")
        assert (await self.say(mail)).startswith(b"250 ")
        for recipient in recipients or (b"you@example.net",):
            assert (await self.say(b"RCPT TO:<%s>" % recipient)).startswith(b"250 ")
        assert (await self.say(b"DATA")).startswith(b"354 ")

    async def send(self, content: bytes) -> bytes:
        """A whole transaction after the greeting of a fresh connection; the reply to the content."""
        await self.begin()
        return await self.say(content + b".")

    def close(self) -> None:
        self.writer.close()


_open: list[Wire] = []


async def connect(listening: Listening, which: int = 0) -> Wire:
    """A client's connection; it is closed with the listener, if not before."""
    address = listening.addresses[which]
    if isinstance(address, Unix):
        wire = Wire(*await asyncio.open_unix_connection(address.path))
    else:
        wire = Wire(*await asyncio.open_connection(address.host, address.port))
    _open.append(wire)
    return wire


@contextlib.asynccontextmanager
async def listener(
    intake: Intake, address: Endpoint | str = "127.0.0.1:0", **settings: object
) -> AsyncIterator[Listening]:
    endpoint = listen_endpoint(address, {}) if isinstance(address, str) else address
    listening = await listen(Listen(address=endpoint, **settings), intake)  # type: ignore[arg-type]
    try:
        yield listening
    finally:
        await listening.close(grace=2.0)
        for wire in _open:
            wire.close()
            with contextlib.suppress(OSError):
                await wire.writer.wait_closed()
        _open.clear()


GROUP = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n"


class Transport(asyncio.Transport):
    """A connection that keeps what is written, write by write, and whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_read = True
        self.is_closed = False
        self.is_aborted = False
        self.has_sent_eof = False
        self._was_written = asyncio.Event()
        self._was_resumed = asyncio.Event()

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.written.append(data)
        self._was_written.set()

    async def until_written(self, lines: int) -> None:
        """Waits until so many lines have been written."""
        while b"".join(self.written).count(b"\n") < lines:
            self._was_written.clear()
            await self._was_written.wait()

    async def until_read(self) -> None:
        """Waits until the client is read again."""
        while not self.is_read:
            self._was_resumed.clear()
            await self._was_resumed.wait()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True
        self._was_resumed.set()

    def is_reading(self) -> bool:
        return self.is_read

    def is_closing(self) -> bool:
        return self.is_closed

    def write_eof(self) -> None:
        self.has_sent_eof = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True


class Clock:
    """An event loop whose time the test sets."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = loop.time()

    def time(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)


@contextlib.asynccontextmanager
async def greeted(
    intake: Intake, answer_within: float = 0.0, auth: str = "refuse"
) -> AsyncIterator[tuple[Submission, Transport]]:
    """A connection that has been greeted and has said EHLO, without a network."""
    settings = Listen(address="", answer_within=answer_within, auth=auth)
    submission, transport = protocol_factory(ServerState(settings, intake, None))(), Transport()
    submission.connection_made(transport)
    await transport.until_written(1)
    submission.data_received(b"EHLO x\r\n")
    transport.written.clear()
    yield submission, transport
    if not submission.closed.done():
        submission.connection_lost(None)


def codes(written: bytes) -> list[bytes]:
    return [line[:3] for line in written.splitlines()]
