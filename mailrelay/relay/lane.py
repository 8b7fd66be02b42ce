"""The way to one relayhost: when to dial, how many conversations to hold, when to wait and when to hang up.

Promises: nothing is tried without an open attempt; a fault of the way is one fault, however much mail waits for it; at most
one dial at a time; mail that has just come in goes ahead of mail that waits.
Sleeps until mail is due, the back-off is over, or the bell rings. Never polls.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, Protocol

from mailrelay.config import Relayhost
from mailrelay.mail.backoff import wait
from mailrelay.mail.conclusion import Terms
from mailrelay.mail.envelope import Message
from mailrelay.mail.notice import Kind, Road
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.printable import printable
from mailrelay.mail.triage import PENALISED, is_setup_fault
from mailrelay.relay import faults, settlement
from mailrelay.relay.conversation import Conversation
from mailrelay.relay.delivery import Wire, converse
from mailrelay.relay.transport import Fault
from mailrelay.relay.watch import Queued, Watches

log = logging.getLogger("mailrelay.relay")

PENALTY_SCHEDULE = (60.0, 120.0, 300.0, 900.0)
"""Seconds between dials after causes for which servers lock out who knocks again (`mail.triage.PENALISED`)."""
IMPATIENCE = 5.0
"""Seconds after a dial that failed before new mail may cause another one ahead of its time."""
EXPECTATION = 10.0
"""Seconds for which a client's MAIL makes it worth dialling ahead."""
STUMBLE = 10.0
"""Seconds to wait after the spool has failed us."""
NAP = 60.0
"""Seconds to sleep at most while mail waits: timers stand still while a laptop sleeps, and mail becomes due."""
EHLO_NAME = b"localhost"
"""To the remote's mail server we come from its own localhost, and this machine's name is nobody's business."""


class Failure(Protocol):
    """What is known to be wrong with the way: after how many dials, and until when (epoch seconds) not to dial again."""

    @property
    def failures(self) -> int: ...
    @property
    def next_dial(self) -> float: ...
    @property
    def cause(self) -> Cause: ...
    @property
    def text(self) -> str: ...


class Spool(settlement.Spool, Protocol):
    """What the relay needs of the spool. Writes are on disk when awaited."""

    async def next_due(self, relayhost: str) -> float | None: ...
    async def take(self, relayhost: str, first: Sequence[int], limit: int, now: float) -> list[Message]: ...
    def pieces(self, message: int) -> AsyncGenerator[bytes, None]: ...
    async def relayhost_failed(
        self, name: str, outcome: Outcome, next_dial: float, setup: bool, roads: Sequence[Road], now: float
    ) -> None: ...
    async def relayhost_up(self, name: str, roads: Sequence[Road], now: float) -> bool: ...
    async def relayhost_failure(self, name: str) -> Failure | None: ...


class Link(Protocol):
    """An SSH connection."""

    @property
    def is_up(self) -> bool: ...
    async def open_wire(self) -> Wire: ...
    async def wait_closed(self) -> None: ...
    async def close(self) -> None: ...


Dial = Callable[[Relayhost], Coroutine[Any, Any, Link]]


class Lane:
    """One relayhost's mail on its way out.

    notices_owed: called when a commit made notices owed. now: the clock, epoch seconds.
    """

    def __init__(
        self,
        relayhost: Relayhost,
        spool: Spool,
        dial: Dial,
        terms: Terms,
        notices_owed: Callable[[], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._relayhost = relayhost
        self._name = relayhost.name
        self._spool = spool
        self._dial = dial
        self._terms = terms
        self._notices_owed = notices_owed
        self._now = now
        self._bell = asyncio.Event()
        self._settlement = settlement.Settlement(spool, terms, notices_owed, self._bell.set, now)
        self._first: list[int] = []
        self._asking = 0
        self._link: Link | None = None
        self._channels = relayhost.channels
        self._conversations: set[Conversation] = set()
        self._talks: set[asyncio.Task[None]] = set()
        self._is_leaving = False
        self._failure: Failure | None = None
        self._faults: list[Outcome] = []
        self._is_open = False
        self._dialled_at = -IMPATIENCE
        self._dialled = 0.0
        self._expected_until = 0.0
        self._rests_until = 0.0

    # What others tell the lane, and ask it.

    def ring(self) -> None:
        """Look again: something is due, or the person did something."""
        self._bell.set()

    def hurry(self, message: int) -> None:
        """A message has just come in: it goes ahead of what waits."""
        self._first.append(message)
        self._bell.set()

    def expect(self) -> None:
        """A client has said MAIL: dial ahead, so that the way is open when its message has come."""
        self._expected_until = time.monotonic() + EXPECTATION
        self._bell.set()

    @property
    def watches(self) -> Watches:
        """Where a client waits for the remote's word."""
        return self._settlement.watches

    @property
    def trouble(self) -> str:
        """Why the way is known to be shut, not escaped; "" if it is not known to be."""
        return self._failure.text if self._failure is not None else ""

    @property
    def stuck(self) -> bool:
        """Whether there are outcomes that the disk refuses to take: no new mail should be taken over."""
        return self._settlement.stuck

    async def finish(self) -> None:
        """Begins nothing more, and returns once what is under way has come to its end. Then `run` is to be cancelled."""
        self._is_leaving = True
        for conversation in self._conversations:
            conversation.wake()
        if self._talks:
            await asyncio.wait(set(self._talks))

    # The loop.

    async def run(self) -> None:
        """Runs until cancelled. What is under way then is judged and recorded; what was not begun is put back."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._bell.clear()
                    try:
                        timeout = await self._step(group)
                    except Exception as error:
                        timeout = self._stumble(error)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(None if timeout is None else min(timeout, NAP)):
                            await self._bell.wait()
        finally:
            # What the disk does not take in time, the next start finds as open attempts.
            await self._settlement.close()
            if self._link is not None:
                await self._link.close()

    async def _step(self, group: asyncio.TaskGroup) -> float | None:
        """Does what is to be done now. Returns the seconds until there may be more to do, None: when the bell rings."""
        if self._is_leaving:
            return None
        rest = self._rests_until - time.monotonic()
        if rest > 0:
            return rest
        if self._faults:
            await self._shut(self._faults.pop())
        now = self._now()
        if not self._is_open:
            # Read anew each time: a command of the person's may have cut the wait short.
            self._failure = await self._spool.relayhost_failure(self._name)
        due = await self._spool.next_due(self._name)
        if self._faults:
            # Met while the spool was asked: it comes before another dial.
            return 0.0
        has_mail = due is not None and due <= now
        until_due = None if due is None or due <= now else due - now
        always = self._relayhost.linger == float("inf")
        if self._link is not None and not self._link.is_up:
            if self._conversations:
                # What they have to say about it comes before another dial; they ring the bell.
                return None
            self._link = None
        if self._settlement.stuck or not (has_mail or self._is_expected() or (always and self._link is None)):
            if self._link is not None and not self._conversations and not always:
                await self._hang_up()
            return until_due
        if self._link is None:
            pause = self._pause(now)
            if pause > 0:
                self.watches.tell_all(Queued(self.trouble))
                return pause
            await self._open(group)
            return until_due if self._link is not None else 0.0
        if self._wants_conversation(has_mail):
            self._talk(group, self._link)
        return until_due

    def _is_expected(self) -> bool:
        return time.monotonic() < self._expected_until

    def _pause(self, now: float) -> float:
        """Seconds until the next dial; 0 or less: now."""
        failure = self._failure
        if failure is None:
            return 0.0
        if (self._first or self._is_expected()) and failure.cause not in PENALISED:
            # The person is sending something: perhaps the network is back.
            return min(failure.next_dial - now, self._dialled_at + IMPATIENCE - time.monotonic())
        return failure.next_dial - now

    async def _open(self, group: asyncio.TaskGroup) -> None:
        began = time.monotonic()
        try:
            link = await self._dial(self._relayhost)
        except Fault as fault:
            await self._shut(fault.outcome)
        else:
            log.info("relay=%s connected in %.2f s", self._name, time.monotonic() - began)
            self._link = link
            self._channels = self._relayhost.channels
            group.create_task(self._watch(link))
            self._talk(group, link)
        finally:
            self._dialled_at = time.monotonic()
            self._dialled = self._dialled_at - began
            self._expected_until = 0.0

    async def _watch(self, link: Link) -> None:
        await link.wait_closed()
        self._bell.set()

    async def _hang_up(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()
            log.info("relay=%s closed", self._name)

    def _wants_conversation(self, has_mail: bool) -> bool:
        """One more while there is mail and nobody about to take it; each round of starts at most doubles them."""
        idle = next((one for one in self._conversations if one.is_idle), None)
        if idle is not None:
            if has_mail:
                idle.wake()
            return False
        if not self._conversations:
            return True
        if self._asking:
            # They may be about to take what is there; the bell rings when they have.
            return False
        starting = sum(not one.is_ready for one in self._conversations)
        running = len(self._conversations) - starting
        return has_mail and starting < max(1, running) and len(self._conversations) < self._channels

    def _talk(self, group: asyncio.TaskGroup, link: Link) -> None:
        conversation = Conversation(self)
        self._conversations.add(conversation)
        self._expected_until = 0.0
        talk = group.create_task(self._converse(conversation, link))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _converse(self, conversation: Conversation, link: Link) -> None:
        ended: Outcome | None
        try:
            ended = await converse(await link.open_wire(), EHLO_NAME, conversation)
        except Fault as fault:
            ended = fault.outcome
        except Exception:
            log.exception("relay=%s: a conversation failed; its mail is tried again", self._name)
            ended = Outcome(
                Stage.CHANNEL, cause=Cause.LOST, text="mailrelay failed on its way to the server; see the log"
            )
        finally:
            self._conversations.discard(conversation)
            self._bell.set()
        if ended is None or conversation.is_idle or conversation.was_answered:
            return
        if conversation.has_finished and link.is_up:
            # That message's own trouble; where the whole connection went, the next message would fare no better.
            return
        if any(one.is_ready for one in self._conversations):
            # The remote allows no more of them: those that run go on.
            self._channels = max(1, len(self._conversations))
        elif self._link is link:
            # Given up at once: nothing more is begun on it, and what its end does to others is not news.
            self._faults.append(ended)
            self._link = None
            await link.close()

    def opened(self) -> None:
        """The remote's mail server is ready for mail: whatever was wrong with the way is over."""
        self._bell.set()
        if self._is_open:
            return
        self._is_open = True
        if self._failure is not None:
            self._failure = None
            self._settlement.see_through(self._up())
            log.info("relay=%s usable again", self._name)

    async def _up(self) -> None:
        roads = self._terms.roads_for(Kind.RESUMED, b"", b"")
        if await self._spool.relayhost_up(self._name, roads, self._now()):
            self._notices_owed()

    async def _shut(self, outcome: Outcome) -> None:
        """The way is shut: all mail of this relayhost waits, and no attempt is counted for any of it."""
        self._is_open = False
        setup = is_setup_fault(outcome)
        if setup and outcome.reply is not None:
            outcome = faults.refused(outcome, self._relayhost)
        failures = self._failure.failures + 1 if self._failure is not None else 1
        schedule = PENALTY_SCHEDULE if outcome.cause in PENALISED else self._terms.schedule
        now = self._now()
        next_dial = now + wait(schedule, failures, random.random())  # noqa: S311
        words = outcome.words.decode("utf-8", "backslashreplace")
        level = logging.ERROR if setup else logging.WARNING
        mend = f"; {outcome.mend}" if outcome.mend else ""
        log.log(level, "relay=%s unusable (%s: %s)%s", self._name, outcome.stage, printable(words), mend)
        roads = self._terms.roads_for(Kind.SETUP, b"", b"")
        await self._spool.relayhost_failed(self._name, outcome, next_dial, setup, roads, now)
        # Owed now, or once the mail that waits has waited for too long.
        self._notices_owed()
        self._failure = await self._spool.relayhost_failure(self._name)
        self._first.clear()
        self.watches.tell_all(Queued(words))

    def _stumble(self, error: Exception) -> float:
        """The spool has failed us, or we ourselves: nothing is begun for a while. Returns the seconds."""
        log.critical("relay=%s cannot go on: %s; will try again", self._name, error)
        self._rests_until = time.monotonic() + STUMBLE
        return STUMBLE

    # What conversations ask for and bring back.

    async def next(self) -> Message | None:
        """The next message to send, with its attempt opened; None if nothing is due. Cancelling loses nothing."""
        if self._is_leaving or self._settlement.stuck or time.monotonic() < self._rests_until:
            return None
        first = self._first[:1]
        del self._first[:1]
        # One at a time: what is open when we die counts as begun, and may arrive twice.
        taking = asyncio.ensure_future(self._spool.take(self._name, first, 1, self._now()))
        self._asking += 1
        try:
            return next(iter(await asyncio.shield(taking)), None)
        except asyncio.CancelledError:
            self._settlement.see_through(self._return(taking))
            raise
        except Exception as error:
            self._stumble(error)
            return None
        finally:
            self._asking -= 1
            self._bell.set()

    async def _return(self, taking: asyncio.Future[list[Message]]) -> None:
        """Who asked for it has gone: what has been taken must not be forgotten."""
        self._settlement.put_back(await taking)

    def pieces(self, message: int) -> AsyncGenerator[bytes, None]:
        return self._spool.pieces(message)

    def finished(self, message: Message, outcomes: Sequence[Outcome], *, relays_dsn: bool, transaction: float) -> None:
        self._settlement.finished(
            message, outcomes, relays_dsn=relays_dsn, dialled=self._dialled, transaction=transaction
        )
        self._dialled = 0.0

    def untried(self, message: Message) -> None:
        self._settlement.untried(message)

    def is_last(self, conversation: Conversation) -> bool:
        """Whether no other conversation goes on: the last one stays for a while."""
        return all(one.is_leaving for one in self._conversations if one is not conversation)

    @property
    def linger(self) -> float:
        """Seconds for which the last conversation stays without mail."""
        return 0.0 if self._is_leaving else self._relayhost.linger
