"""The whole way of a message in one process, for dialogues that hypothesis makes: the real listener on a real socket, the
intake, a spool on disk, a scheduler, and a mail server behind SSH that keeps what it takes.

A dialogue is a list of flights: octets that a client sends before it waits for the replies to them.

    with Bench(tmp_path) as bench:                  # for all examples of a test
        replies = bench.run(bench.talk(flights))
"""

import asyncio
import contextlib
import itertools
import logging
import os
import re
import socket
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import uvloop
from hypothesis import HealthCheck, settings

from harness.relay import RelayHarness, running_relay
from mailrelay.config import Listen, Relayhost
from mailrelay.demo.remote import Received, Remote
from mailrelay.endpoint import Tcp
from mailrelay.intake import Intake
from mailrelay.listener.listening import Listening, listen

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds."""
REPLY_LINE = re.compile(rb"[2-5][0-9][0-9][ -][ -~]{0,507}\r\n")
ACCEPTED = re.compile(rb"250 2\.0\.0 ([A-Za-z0-9]{8,}) (?:sent|queued)")
"""A 250 to a content, with the queue id."""
OUR_FIELD = re.compile(rb"Received: by localhost \(mailrelay\) with ESMTP id ([A-Za-z0-9]+);\r\n\t[^\r\n]*\r\n")


def fuzzed(examples: int) -> settings:
    """Settings for a test: so many examples, the same in each run. With MAILRELAY_FUZZ=N it has N examples, and others in
    each run."""
    long = os.environ.get("MAILRELAY_FUZZ", "")
    return settings(
        max_examples=int(long or examples),
        derandomize=not long,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


@dataclass(frozen=True)
class Talk:
    """What a client got: the replies to each flight, and whether the listener closed the connection after the last one.

    is_reset: the connection broke while the client sent. Then replies may be lost that the listener has written.
    """

    replies: list[list[bytes]]
    is_closed: bool
    is_reset: bool = False

    @property
    def accepted(self) -> list[bytes]:
        """The queue ids that the replies name."""
        found = (ACCEPTED.match(reply) for flight in self.replies for reply in flight)
        return [match[1] for match in found if match]


@dataclass(frozen=True)
class Flight:
    """octets: what is sent. cuts: where it is cut into pieces, each sent for itself. replies: how many are waited for."""

    octets: bytes
    replies: int
    cuts: Sequence[int] = ()

    def pieces(self) -> list[bytes]:
        marks = sorted({0, len(self.octets), *(cut % (len(self.octets) + 1) for cut in self.cuts)})
        return [self.octets[start:end] for start, end in itertools.pairwise(marks)]


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # A refused message is an error of the relay, too, and one that is in order.
        if record.exc_info or record.name in ("asyncio", "mailrelay.listener"):
            self.lines.append(record.getMessage())


class Bench:
    """remote: the mail server; `received` is what it took. relay: the scheduler and the spool. Fails at
    the first traceback, and the first error of the listener, in the log."""

    def __init__(
        self, path: Path, remote: type[Remote] = Remote, answer_within: float = 8.0, retry: float = 0.02
    ) -> None:
        self._path = path
        self._remote = remote
        self._answer_within = answer_within
        self._retry = retry
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._errors = _Errors()
        self.relay: RelayHarness
        self.listening: Listening

    def __enter__(self) -> Self:
        self._runner.__enter__()
        self._stack = AsyncExitStack()
        for name in ("mailrelay", "asyncio"):
            logging.getLogger(name).addHandler(self._errors)
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stack.aclose())
        for name in ("mailrelay", "asyncio"):
            logging.getLogger(name).removeHandler(self._errors)
        self._runner.__exit__(None, None, None)

    async def _start(self) -> None:
        self.relay = await self._stack.enter_async_context(
            running_relay(self._path, retry=self._retry, remote=self._remote)
        )
        relay = self.relay
        relayhost = Relayhost(name="default", ssh="", ssh_config=Path("/nowhere"))
        intake = Intake([relayhost], {"default": relay.scheduler}, relay.spool, lambda: None, self._answer_within)
        settings = Listen(address=Tcp("127.0.0.1", 0), answer_within=self._answer_within, max_message_size=1 << 22)
        self.listening = await listen(settings, intake)
        self._stack.push_async_callback(self.listening.close, 2.0)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, within PATIENCE seconds. Fails if an error was logged meanwhile."""

        async def bounded() -> T:
            async with asyncio.timeout(PATIENCE):
                return await work

        found = self._runner.run(bounded())
        assert not self._errors.lines, self._errors.lines
        return found

    @property
    def remote(self) -> Remote:
        return self.relay.remote

    async def talk(self, flights: Sequence[Flight], *, is_cut: bool = False) -> Talk:
        """One connection of a client. It waits for the greeting, and after each flight for its replies. is_cut: it closes
        after its last flight, without waiting. The listener may close at any time."""
        address = self.listening.addresses[0]
        assert isinstance(address, Tcp)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = [await read_replies(reader, 1)]
        is_closed = is_reset = False
        try:
            for position, flight in enumerate(flights):
                try:
                    for piece in flight.pieces():
                        writer.write(piece)
                        await writer.drain()
                        # Two turns: the listener reads in between.
                        await asyncio.sleep(0)
                        await asyncio.sleep(0)
                except (ConnectionError, RuntimeError):
                    is_reset = True
                if is_cut and position == len(flights) - 1:
                    break
                replies.append(await read_replies(reader, flight.replies))
                if len(replies[-1]) < flight.replies:
                    is_closed = True
                    break
            else:
                # uvloop raises a RuntimeError for a transport that is closed.
                with contextlib.suppress(RuntimeError):
                    writer.write_eof()
                replies.append(await read_replies(reader, 1 << 30))
                is_closed = True
        except ConnectionError:
            is_closed = is_reset = True
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return Talk(replies, is_closed, is_reset or reader.exception() is not None)

    async def settled(self) -> None:
        """Waits until no client is connected, no content is in progress and nothing waits in the spool."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            waits = self.relay.db.execute("SELECT count(*) FROM recipient WHERE state IN ('queued', 'deferred')").get
            if not waits and not self.listening.connections and not self.relay.open_attempts():
                return
            await asyncio.sleep(0.002)
        raise AssertionError("mail still waits")


async def read_replies(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    """So many replies, each with all of its lines; fewer at the end of the connection. Each line must be a legal one."""
    found: list[bytes] = []
    lines = b""
    with contextlib.suppress(ConnectionError):
        while len(found) < count and (line := await reader.readline()):
            assert REPLY_LINE.fullmatch(line), line
            assert not lines or line[:3] == lines[:3], lines + line
            lines += line
            if line[3:4] == b" ":
                found.append(lines)
                lines = b""
    return found


def stuffed(content: bytes) -> bytes:
    """A content as it follows DATA (RFC 5321 section 4.5.2), with its end."""
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


def without_our_field(received: Received) -> tuple[bytes, bytes]:
    """The queue id in our trace line, and the content below it."""
    found = OUR_FIELD.match(received.content)
    assert found is not None, received.content[:200]
    return found[1], received.content[found.end() :]
