"""One conversation with the remote's mail server: pumps bytes between a channel and a session, messages in, outcomes out.

Promises: every message that `Mail.next` gave is given back exactly once, to `finished` or to `untried`, and every vetting
is answered, whatever happens: a lost line, a time-out, a remote that talks nonsense, a cancellation. Never decides what an
outcome means.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from mailrelay.mail.envelope import Message, Unreadable
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.relay.rcpt_probe import RcptProbe
from mailrelay.smtp.session import (
    REPLY_TIMEOUTS,
    ContentWanted,
    Ended,
    Event,
    Finished,
    Ready,
    Session,
    Untried,
)
from mailrelay.ssh.interface import Channel

BLOCK = 32 * 1024
"""Octets of content that are written at once, and that who has something small to say may have to let go first."""


class Mail(Protocol):
    """Where messages come from and outcomes go. `finished` and `untried` only take note: they never wait."""

    def ready(self, in_flight: int) -> None:
        """The remote is ready for mail, of which this conversation carries `in_flight` at once."""

    async def next(self, limit: int) -> Sequence[Message | RcptProbe]:
        """The next messages or vettings, `limit` at most and more than one only if they are small, waited for while the
        conversation is worth keeping; none ends it. Cancelling loses nothing. Raises nothing: where no message can be had,
        there is none."""

    def pieces(self, message: int) -> AsyncGenerator[bytes, None]: ...
    def finished(
        self, message: Message, outcomes: Sequence[Outcome], *, relays_dsn: bool, transaction: float
    ) -> None: ...
    def untried(self, message: Message) -> None: ...


async def converse(channel: Channel, name: bytes, mail: Mail) -> Outcome | None:
    """Talks to the mail server on `channel` until there is no more mail, or it ends.

    name: the EHLO argument. Returns how it broke off, None if it was ended by us.
    """
    return await _Conversation(channel, Session(name), mail).run()


class _Conversation:
    def __init__(self, channel: Channel, session: Session, mail: Mail) -> None:
        self._channel = channel
        self._session = session
        self._mail = mail
        # What `Mail.next` gave: what has not been started, and what has.
        self._given: deque[Message | RcptProbe] = deque()
        self._started: dict[int, tuple[Message | RcptProbe, float]] = {}
        self._wanted: list[int] = []
        self._ended: Outcome | None = None
        self._reading: asyncio.Future[bytes] = asyncio.ensure_future(channel.read())
        # The channel takes nothing any more. What the remote said before is still to be read; its end comes behind that.
        self._is_cut = False

    async def run(self) -> Outcome | None:
        fetching: asyncio.Future[Sequence[Message | RcptProbe]] | None = None
        leaving = False
        try:
            while self._ended is None:
                if leaving and not (self._given or self._started):
                    self._session.quit()
                    self._flush()
                    return None
                self._flush()
                if not (leaving or self._is_cut or self._given) and fetching is None and self._session.capacity:
                    fetching = asyncio.ensure_future(self._next())
                waited: set[asyncio.Future[bytes] | asyncio.Future[Sequence[Message | RcptProbe]]] = {self._reading}
                if fetching is not None:
                    waited.add(fetching)
                stage = self._session.awaiting or (Stage.CONTENT if self._is_cut else None)
                limit = REPLY_TIMEOUTS[stage] if stage is not None else None
                done, _ = await asyncio.wait(waited, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    self._note(self._session.lost(f"the remote gave no reply within {limit:.0f} s"))
                self._hear()
                if self._ended is None and fetching is not None and fetching in done:
                    given = fetching.result()
                    fetching = None
                    leaving = not given
                    self._given += given
                await self._send_content()
                while self._given and self._ended is None and self._session.capacity:
                    self._begin(self._given.popleft())
                    await self._send_content()
            return self._ended
        except BaseException as error:
            self._hear()
            stopped = isinstance(error, asyncio.CancelledError)
            self._note(self._session.lost("mailrelay was stopped" if stopped else "mailrelay failed; see its log"))
            raise
        finally:
            self._reading.cancel()
            for message in (*self._given, *(message for message, _ in self._started.values())):
                self._give_back(message)
            self._channel.close()
            # Not to be cancelled any more: it may have messages already, which nobody else will give back.
            if fetching is not None and not fetching.cancel():
                for late in _brought(fetching):
                    self._give_back(late)

    async def _next(self) -> Sequence[Message | RcptProbe]:
        # What is handed over but not sent yet is as uncertain as what is on its way: on a slow line it must not pile up.
        with contextlib.suppress(ConnectionError):
            await self._channel.drain()
        return await self._mail.next(self._session.capacity)

    def _hear(self) -> None:
        """What the remote has said by now, if anything."""
        if self._ended is None and self._reading.done():
            self._note(self._received(self._reading))
            self._reading = asyncio.ensure_future(self._channel.read())

    def _received(self, reading: asyncio.Future[bytes]) -> list[Event]:
        try:
            data = reading.result()
        except OSError as error:
            return self._session.lost(f"the connection was lost ({error})")
        if not data:
            return self._session.lost("the remote closed the connection")
        return self._session.receive(data)

    def _give_back(self, message: Message | RcptProbe) -> None:
        if isinstance(message, RcptProbe):
            message.answer(())
        else:
            self._mail.untried(message)

    def _begin(self, message: Message | RcptProbe) -> None:
        self._started[message.id] = (message, time.monotonic())
        self._note(self._session.start(message.id, message.envelope, message.size))

    def _note(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Ready():
                    self._mail.ready(self._session.in_flight)
                case ContentWanted(key):
                    self._wanted.append(key)
                case Finished(key, outcomes):
                    message, since = self._started.pop(key)
                    if isinstance(message, RcptProbe):
                        message.answer(outcomes)
                        continue
                    extensions = self._session.extensions
                    self._mail.finished(
                        message,
                        outcomes,
                        relays_dsn=extensions is not None and extensions.dsn,
                        transaction=time.monotonic() - since,
                    )
                case Untried(key):
                    message, _ = self._started.pop(key)
                    self._give_back(message)
                case Ended(outcome):
                    self._ended = outcome

    def _flush(self) -> None:
        output = self._session.take_output()
        if output and not self._is_cut:
            try:
                self._channel.write(output)
            except ConnectionError:
                self._is_cut = True

    async def _send_content(self) -> None:
        while self._wanted and self._ended is None and not self._is_cut:
            message, _ = self._started[self._wanted.pop(0)]
            if isinstance(message, RcptProbe):
                raise RuntimeError("content was asked for where there is no message")
            fault = None
            try:
                await self._stream(message)
            except Unreadable as error:
                fault = Outcome(
                    Stage.CONTENT,
                    cause=Cause.UNREADABLE,
                    text=f"the message cannot be read from the spool: {error}",
                    fix=f"see `mailrelay queue show {message.queue_id} --content`, then cancel it and send it again",
                )
            except TimeoutError:
                self._hear()
                self._note(self._session.lost(f"the remote took no content for {REPLY_TIMEOUTS[Stage.CONTENT]:.0f} s"))
            if not self._is_cut:
                self._note(self._session.end_content(fault))

    async def _stream(self, message: Message) -> None:
        """As much of the content as the remote will have: it may refuse in the middle, or go."""
        async with contextlib.aclosing(self._mail.pieces(message.id)) as pieces:
            unsent = 0
            async for piece in pieces:
                for start in range(0, len(piece), BLOCK):
                    block = piece[start : start + BLOCK]
                    self._session.send_content(block)
                    unsent += len(block)
                    # What is small goes out with its end, and with what follows.
                    if unsent >= BLOCK:
                        unsent = 0
                        self._flush()
                        try:
                            async with asyncio.timeout(REPLY_TIMEOUTS[Stage.CONTENT]):
                                await self._channel.drain()
                        except ConnectionError:
                            self._is_cut = True
                    self._hear()
                    if self._is_cut or self._ended is not None:
                        return


def _brought(fetching: asyncio.Future[Sequence[Message | RcptProbe]]) -> Sequence[Message | RcptProbe]:
    """What a `Mail.next` which has ended gave, if it gave anything."""
    return () if fetching.cancelled() or fetching.exception() is not None else fetching.result()
