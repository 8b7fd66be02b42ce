"""The connections of a forward, without SSH: what goes on to which side, how each end is passed on, and what is logged."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mailrelay.config import Forward, Listen
from mailrelay.endpoint import Endpoint, Tcp, Unix
from mailrelay.listener import forwarding as module
from mailrelay.listener.access import Access
from mailrelay.listener.forwarding import Forwarding, forward
from mailrelay.listener.sockets import Sockets
from mailrelay.mail.outcome import Cause, Outcome, Stage

TARGET = Tcp("db.example", 5432)


class Stream:
    """The other side: what it has got, and what it says (b"" ends it). error: what the next read raises."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[bytes] = asyncio.Queue()
        self.says: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self.is_drained = asyncio.Event()
        self.is_drained.set()
        self.has_closed = asyncio.Event()
        self.aborted = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.got.put_nowait(data)

    async def drain(self) -> None:
        await self.is_drained.wait()

    def write_eof(self) -> None:
        self.got.put_nowait(b"")

    async def read(self) -> bytes:
        said = await self.says.get()
        if isinstance(said, Exception):
            raise said
        return said

    def abort(self) -> None:
        self.aborted.set()

    async def wait_closed(self) -> None:
        await self.has_closed.wait()


class There:
    """Opens streams to the target, or says why there is none."""

    def __init__(self) -> None:
        self.asked: list[Endpoint] = []
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()
        self.outcome: Outcome | None = None
        self.error: Exception | None = None

    @contextlib.asynccontextmanager
    async def open(self, to: Endpoint) -> AsyncIterator[Any]:
        self.asked.append(to)
        if self.error is not None:
            raise self.error
        if self.outcome is not None:
            yield self.outcome
            return
        stream = Stream()
        self.streams.put_nowait(stream)
        yield stream


@contextlib.asynccontextmanager
async def forwarded(
    there: There, listen: Endpoint = Tcp("127.0.0.1", 0), sockets: Sockets | None = None, **access: object
) -> AsyncIterator[Forwarding]:
    made = await forward(Forward(listen, "default", TARGET), Listen(**access), there.open, sockets)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def is_reset(self) -> bool:
        try:
            return await self.reader.read() is None
        except ConnectionResetError:
            return True
        finally:
            self.writer.close()


async def connect(made: Forwarding) -> Client:
    (address,) = made.addresses
    assert isinstance(address, Tcp)
    return Client(*await asyncio.open_connection(address.host, address.port))


async def none_left(made: Forwarding) -> None:
    while made.connections:
        await asyncio.sleep(0)


async def test_both_directions_and_their_ends_are_passed_on_and_the_end_waits_for_the_other_side() -> None:
    there = There()
    async with forwarded(there) as made:
        client = await connect(made)
        stream = await there.streams.get()
        assert (there.asked, made.connections) == ([TARGET], 1)
        client.writer.write(b"question")
        assert await stream.got.get() == b"question"
        client.writer.write_eof()
        assert await stream.got.get() == b""
        stream.says.put_nowait(b"answer")
        assert await client.reader.readexactly(6) == b"answer"
        stream.says.put_nowait(b"")
        assert await client.reader.read() == b""
        assert not stream.aborted.is_set()
        assert made.connections == 1
        stream.has_closed.set()
        await none_left(made)
        assert stream.aborted.is_set()
        client.writer.close()


async def test_the_client_is_not_read_while_the_other_side_is_not() -> None:
    there = There()
    async with forwarded(there) as made:
        client = await connect(made)
        stream = await there.streams.get()
        stream.is_drained.clear()
        client.writer.write(b"1")
        assert await stream.got.get() == b"1"
        client.writer.write(b"2")
        for _ in range(20):
            await asyncio.sleep(0)
        assert stream.got.empty()
        stream.is_drained.set()
        assert await stream.got.get() == b"2"
        client.writer.close()
        stream.says.put_nowait(ConnectionResetError())


@pytest.mark.parametrize("error", [ConnectionResetError(), BrokenPipeError()])
async def test_a_stream_that_breaks_resets_the_client_without_a_line(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    there = There()
    async with forwarded(there) as made:
        client = await connect(made)
        stream = await there.streams.get()
        stream.says.put_nowait(error)
        assert await client.is_reset()
        await stream.aborted.wait()
        await none_left(made)
    assert caplog.messages == []


async def test_an_unexpected_failure_is_logged_and_ends_that_connection_alone(caplog: pytest.LogCaptureFixture) -> None:
    there = There()
    there.error = KeyError("x")
    async with forwarded(there) as made:
        assert await (await connect(made)).is_reset()
        there.error = None
        client = await connect(made)
        await there.streams.get()
        client.writer.close()
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.ERROR, "mailrelay.listener")
    assert record.exc_info
    assert "forward=127.0.0.1:0 to=db.example:5432: a connection failed" in record.message


def no(text: str, fix: str = "") -> Outcome:
    return Outcome(Stage.CHANNEL, cause=Cause.LOST, text=text, fix=fix)


async def test_the_same_reason_is_logged_once_a_minute_and_another_at_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = There()
    async with forwarded(there) as made:
        for seconds, outcome in (
            (1e9, no("a\x1b")),
            (1e9, no("a\x1b")),
            (0.0, no("a\x1b")),
            (1e9, no("b", "mend it")),
            (1e9, no("a\x1b")),
        ):
            monkeypatch.setattr(module, "SAME_AGAIN", seconds)
            there.outcome = outcome
            assert await (await connect(made)).is_reset()
    begin = "forward=127.0.0.1:0 to=db.example:5432: connection dropped: "
    assert caplog.messages == [begin + text for text in ("a\\x1b", "a\\x1b", "b mend it", "a\\x1b")]


@pytest.mark.parametrize(
    ("access", "lines"),
    [
        (
            Access.REFUSED,
            [
                "security: forward=127.0.0.1:0 to=db.example:5432: connection dropped: "
                "the client belongs to account x, which allow_users does not name"
            ],
        ),
        (Access.CLIENT_CLOSED, []),
    ],
)
async def test_a_client_that_may_not_connect_or_has_gone_opens_no_stream(
    access: Access, lines: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "check_access", lambda *_: (access, "account x"))
    there = There()
    async with forwarded(there) as made:
        assert await (await connect(made)).is_reset()
    assert (there.asked, caplog.messages) == ([], lines)


async def test_new_settings_hold_for_the_next_client(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(module, "check_access", lambda _, allowed: asked.append(allowed) or (Access.ALLOWED, ""))
    there = There()
    async with forwarded(there, max_connections=1, allow_users=("4711",)) as made:
        first = await connect(made)
        stream = await there.streams.get()
        assert await (await connect(made)).is_reset()
        made.change(Listen(max_connections=2), frozenset({4712}))
        second = await connect(made)
        await there.streams.get()
        first.writer.write(b"x")
        assert await stream.got.get() == b"x"
        for client in (first, second):
            client.writer.close()
    assert asked == [frozenset({4711}), frozenset({4712})]
    (line,) = caplog.messages
    assert "more than 1 connections at once" in line


async def test_a_forward_that_was_paused_goes_on_where_the_service_manager_listens() -> None:
    there = There()
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        address = Tcp(*inherited.getsockname())
        sockets = Sockets([inherited])
        async with forwarded(there, address, sockets) as made:
            made.pause()
            assert made.addresses == []
            # What comes meanwhile waits in the kernel.
            waiting = Client(*await asyncio.open_connection(address.host, address.port))
            assert made.connections == 0
            sockets.reset_claims()
            await made.resume()
            assert made.addresses == [address]
            await there.streams.get()
            waiting.writer.close()


async def test_the_end_of_a_forward_ends_its_connections_and_its_socket_file(tmp_path: Path) -> None:
    there = There()
    path = tmp_path / "socket"
    async with forwarded(there, Unix(str(path))) as made:
        assert path.is_socket()
        reader, writer = await asyncio.open_unix_connection(path)
        stream = await there.streams.get()
    assert made.connections == 0
    assert stream.aborted.is_set()
    assert not path.exists()
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
