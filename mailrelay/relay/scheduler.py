"""One relayhost's mail on its way out: when its line is needed, how many conversations to hold, when to leave.

Promises: nothing is tried without an open attempt; mail that has just come in goes ahead of mail that waits.
Sleeps until mail is due, the back-off is over, or the bell rings. Never polls.
"""

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from mailrelay.config import Relayhost
from mailrelay.endpoint import Endpoint
from mailrelay.mail.conclusion import Terms
from mailrelay.mail.envelope import Envelope, Message
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.relay import claims, connector, results
from mailrelay.relay.conversation import Conversation
from mailrelay.relay.delivery import converse
from mailrelay.relay.rcpt_probe import RcptProbe
from mailrelay.relay.waiters import Queued, Waiters
from mailrelay.ssh.interface import Connection, Dial, Fault, Stream

log = logging.getLogger("mailrelay.relay")

SPOOL_RETRY = 10.0
"""Seconds to wait after the spool has failed us."""
MAX_SLEEP = 60.0
"""Seconds to sleep at most while mail waits: timers stand still while a laptop sleeps, and mail becomes due."""
MESSAGES_PER_CHANNEL = 4
"""Messages that make another conversation worth opening, beside those that there are: it costs about three round trips."""
EHLO_NAME = b"localhost"
"""To the remote's mail server we come from its own localhost, and this machine's name is nobody's business."""


class Spool(results.Spool, connector.Spool, claims.Spool, Protocol):
    """What the relay needs of the spool. Writes are on disk when awaited."""

    async def next_due(self, relayhost: str) -> float | None: ...
    async def recall(self, relayhost: str, now: float) -> None: ...
    async def count_due(self, relayhost: str, limit: int, now: float) -> int: ...
    def pieces(self, message: int) -> AsyncGenerator[bytes, None]: ...


class Scheduler:
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
        self._now = now
        self._bell = asyncio.Event()
        self._results = results.Results(spool, terms, notices_owed, self._bell.set, now)
        self._connector = connector.Connector(
            relayhost, spool, dial, terms, self._results.see_through, notices_owed, self._bell.set, now
        )
        self._claims = claims.Claims(self._name, spool, self._results, self._may_begin, self._stumble, now)
        self._probes: deque[RcptProbe] = deque()
        self._probe_ids = itertools.count(-1, -1)
        self._is_rung = False
        self._channels = relayhost.channels
        self._backlog_channels = max(relayhost.channels, relayhost.backlog_channels)
        self._allowed = self._backlog_channels
        self._conversations: set[Conversation] = set()
        self._talks: set[asyncio.Task[None]] = set()
        self._is_leaving = False
        self._faults: list[Outcome] = []
        self._progress: dict[int, int] = {}
        self._rests_until = 0.0

    # What others tell the scheduler, and ask it.

    def ring(self) -> None:
        """Look again: something is due, or the person did something."""
        self._is_rung = True
        self._bell.set()

    def hurry(self, message: int) -> None:
        """A message has just come in: it goes ahead of what waits."""
        self._claims.new[message] = None
        if len(self._claims.new) == 1 or self._connector.connection is not None:
            # Before there is a connection, the first one has said all that there is to say.
            self._bell.set()

    def expect(self) -> None:
        """A client has said MAIL: dial ahead, so that the way is open when its message has come."""
        self._connector.expect()

    def network_changed(self, change: connector.NetworkChange) -> None:
        """There may be a way where there was none; what waits for one leaves, whatever the schedule says."""
        self._is_rung = True
        self._connector.network_changed(change)

    async def vet(self, envelope: Envelope) -> Outcome | None:
        """What the remote says to an envelope with one recipient, without a message; None if that cannot be had.

        Asks only where a conversation is ready, and waits until it is free and answered: who cannot wait cancels it.
        """
        if self._connector.retired is not None or not any(
            one.is_ready and not one.is_leaving for one in self._conversations
        ):
            return None
        vetting = RcptProbe(next(self._probe_ids), envelope)
        self._probes.append(vetting)
        self._wake_one()
        try:
            return await vetting.word
        finally:
            vetting.word.cancel()

    def progress(self, message: int) -> int:
        """Octets of a message's content that have been handed to the connection by now."""
        return self._progress.get(message, 0)

    @property
    def watches(self) -> Waiters:
        """Where a client waits for the remote's word."""
        return self._results.watches

    def stream(self, to: Endpoint) -> AbstractAsyncContextManager[Stream | Outcome]:
        """The connection for something else than mail: see `Line.stream`."""
        return self._connector.stream(to)

    @property
    def trouble(self) -> str:
        """Why the way is known to be shut, not escaped; "" if it is not known to be."""
        return self._connector.trouble

    @property
    def stuck(self) -> bool:
        """Whether there are outcomes that the disk refuses to take: no new mail should be taken over."""
        return self._results.stuck

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
                    try:
                        async with asyncio.timeout(None if timeout is None else min(timeout, MAX_SLEEP)):
                            await self._bell.wait()
                    except TimeoutError:
                        self._is_rung = True
        finally:
            self._connector.decline("mailrelay was stopped")
            # What the disk does not take in time, the next start finds as open attempts.
            await self._results.close()
            await self._connector.hang_up()

    async def _step(self, group: asyncio.TaskGroup) -> float | None:
        """Does what is to be done now. Returns the seconds until there may be more to do, None: when the bell rings."""
        if self._is_leaving:
            return None
        rest = self._rests_until - time.monotonic()
        if rest > 0:
            return rest
        if self._faults:
            await self._shut(self._faults.pop())
        is_rung, self._is_rung = self._is_rung, False
        connection = self._connector.connection
        if connection is None and self._connector.retired is None and not is_rung and (pause := self._pause()) > 0:
            # Nobody but the person or the clock opens a way that is shut: the spool need not be asked for each new mail.
            return pause
        if connection is not None and connection.is_up and not self._may_talk():
            return None
        await self._connector.look()
        if self._connector.retired is not None:
            if any(one.under_way for one in self._conversations):
                # It ends one way or the other, and that rings the bell.
                return None
            for talk in self._talks:
                # It may linger on a connection that lives, and nobody would dial another one meanwhile.
                talk.cancel()
            await self._connector.bury()
        now = self._now()
        if self._connector.has_network_news:
            self._connector.has_network_news = False
            await self._spool.recall(self._name, now)
        due = await self._spool.next_due(self._name)
        if self._faults:
            # Met while the spool was asked: it comes before another dial.
            return 0.0
        has_mail = due is not None and due <= now
        until_due = None if due is None or due <= now else due - now
        connection = self._connector.connection
        if self._conversations and (connection is None or not connection.is_up):
            # What they have to say about it comes before another dial; they ring the bell.
            return None
        if connection is not None and not connection.is_up:
            log.info("relay=%s lost the connection", self._name)
            self._connector.lost()
            connection = None
        is_missed = connection is None and self._relayhost.linger == math.inf
        if is_missed and (unrest := self._connector.unrest) > 0:
            is_missed = False
            until_due = unrest if until_due is None else min(until_due, unrest)
        for_mail = not self._results.stuck and (has_mail or self._connector.is_expected or is_missed)
        wanted = for_mail or self._connector.is_wished_for
        # The way may be shut for mail alone, and the connection stay for others.
        if wanted and (connection is None or not self._conversations):
            pause = self._pause()
            if pause > 0:
                wanted, until_due = False, pause
        if not wanted:
            return until_due if connection is None or self._conversations else await self._rest(until_due)
        if connection is None:
            try:
                connection = await self._connector.open()
            except Fault as fault:
                await self._shut(fault.outcome)
                return 0.0
            if connection is None:
                return 0.0
            self._channels = self._relayhost.channels
            self._allowed = self._backlog_channels
            group.create_task(self._watch(connection))
            # Where something was wrong with the way, only a conversation tells whether it still is.
            if not for_mail and not self.trouble:
                self._connector.claim_dialled()
                return until_due
        elif not for_mail:
            return until_due
        count = await self._conversations_wanted(has_mail)
        if self._faults or self._connector.connection is not connection:
            # Met, or given up, while the spool was asked.
            return 0.0
        for _ in range(count):
            self._talk(group, connection)
        return until_due

    def _pause(self) -> float:
        """Seconds for which the way stays shut, which is said to those who wait; 0 or less: it may be tried."""
        pause = self._connector.pause(has_new_mail=bool(self._claims.new))
        if pause > 0:
            self.watches.tell_all(Queued(self.trouble))
        if pause > connector.IMPATIENCE:
            self._connector.decline(self.trouble)
        return pause

    async def _rest(self, until_due: float | None) -> float | None:
        """Without mail for the connection: hangs up once it need not stay for others. Returns as `_step` does."""
        stays = self._connector.stays
        if stays <= 0:
            await self._connector.hang_up()
            return until_due
        return min((wait for wait in (until_due, stays) if wait is not None and wait != math.inf), default=None)

    async def _watch(self, connection: Connection) -> None:
        try:
            await connection.wait_closed()
        finally:
            self._bell.set()
            # Those to its jump hosts do not end with it; nor does it, when we are stopped, for whoever has it still.
            await connection.close()

    async def _shut(self, outcome: Outcome) -> None:
        words = await self._connector.shut(outcome)
        self._claims.new.clear()
        self.watches.tell_all(Queued(words))

    def _may_talk(self) -> bool:
        """Whether anything could be made of mail that waits: somebody to wake, or one more conversation."""
        return self._room > 0 or any(one.is_idle for one in self._conversations)

    @property
    def _room(self) -> int:
        """How many conversations may be opened beside those that there are."""
        return min(self._channels, self._allowed) - len(self._conversations)

    async def _conversations_wanted(self, has_mail: bool) -> int:
        """How many to open now: one where there is none, one for mail that nobody is about to take, more for more mail."""
        if any(one.is_idle for one in self._conversations):
            if has_mail:
                self._wake_one()
            return 0
        taken = self._claims.taken
        waiting = (
            await self._spool.count_due(self._name, MESSAGES_PER_CHANNEL * self._channels, self._now())
            if has_mail
            else 0
        )
        # What was taken while it counted waits no more.
        waiting -= self._claims.taken - taken
        wanted = -(-waiting // MESSAGES_PER_CHANNEL) - len(self._conversations)
        if not self._conversations:
            wanted = max(1, wanted)
        elif waiting > self._claims.asking and all(one.is_ready for one in self._conversations):
            # Those who ask are about to take what there is for them; the bell rings when they have.
            wanted = max(1, wanted)
        return max(0, min(wanted, self._room))

    def _answer_probes(self) -> None:
        """Nobody is there to ask."""
        while self._probes:
            self._probes.popleft().answer(())

    def _wake_one(self) -> None:
        idle = next((one for one in self._conversations if one.is_idle), None)
        if idle is not None:
            idle.wake()

    def _talk(self, group: asyncio.TaskGroup, connection: Connection) -> None:
        conversation = Conversation(self)
        self._conversations.add(conversation)
        self._connector.met()
        talk = group.create_task(self._converse(conversation, connection))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)
        # What is cancelled before its first step comes to no `finally`.
        talk.add_done_callback(lambda _talk: self._left(conversation))

    async def _converse(self, conversation: Conversation, connection: Connection) -> None:
        ended: Outcome | None
        try:
            ended = await converse(await connection.open_channel(), EHLO_NAME, conversation)
        except Fault as fault:
            ended = fault.outcome
        except Exception:
            log.exception("relay=%s: a conversation failed; its mail is tried again", self._name)
            ended = Outcome(
                Stage.CHANNEL, cause=Cause.LOST, text="mailrelay failed on its way to the server; see the log"
            )
        finally:
            self._left(conversation)
        if ended is None or conversation.is_idle or conversation.was_answered:
            return
        if conversation.has_finished and connection.is_up:
            # That message's own trouble; where the whole connection went, the next message would fare no better.
            return
        if self._conversations:
            # The remote allows no more of them: the others go on, and the last one will say whether it allows any.
            self._allowed = len(self._conversations)
        elif self._connector.connection is connection:
            self._faults.append(ended)
            if connection.is_up and self._connector.is_lent:
                # What runs on it is not to suffer for the mail server.
                return
            # Given up at once: nothing more is begun on it, and what its end does to others is not news.
            self._connector.lost()
            await connection.close()

    def _left(self, conversation: Conversation) -> None:
        self._conversations.discard(conversation)
        if not self._conversations:
            self._answer_probes()
        self._bell.set()

    def opened(self, in_flight: int) -> None:
        """The remote's mail server is ready for mail, of which a conversation carries `in_flight` at once."""
        self._connector.usable()
        if in_flight == 1:
            # What it does not take at once in one conversation, it may in several.
            self._channels = self._backlog_channels
        self._bell.set()

    def _may_begin(self) -> bool:
        return not (self._is_leaving or self._results.stuck or time.monotonic() < self._rests_until)

    def _stumble(self, error: Exception) -> float:
        """The spool has failed us, or we ourselves: nothing is begun for a while. Returns the seconds."""
        log.critical("relay=%s cannot go on: %s; will try again", self._name, error)
        self._rests_until = time.monotonic() + SPOOL_RETRY
        self._connector.decline("mailrelay cannot go on for now; see the log")
        return SPOOL_RETRY

    # What conversations ask for and bring back.

    async def next(self, limit: int) -> Sequence[Message | RcptProbe]:
        """What to do next: a recipient to vet, for which a client waits, or messages to send, with their attempts opened, up
        to `limit` if they are small; nothing if nothing is due. Cancelling loses nothing."""
        if self._connector.retired is not None:
            return ()
        # Asked again behind the wait for the spool: who waits for mail from here on is there to be woken.
        return self._vetting() or await self._claims.ask(limit) or self._vetting()

    def _vetting(self) -> Sequence[RcptProbe]:
        while self._probes:
            vetting = self._probes.popleft()
            if not vetting.word.done():
                return (vetting,)
        return ()

    async def pieces(self, message: int) -> AsyncGenerator[bytes, None]:
        """A message's content, piece by piece. Asked for the next one, it takes the one before for sent."""
        async with contextlib.aclosing(self._spool.pieces(message)) as pieces:
            async for piece in pieces:
                yield piece
                self._progress[message] = self._progress.get(message, 0) + len(piece)

    def finished(self, message: Message, outcomes: Sequence[Outcome], *, relays_dsn: bool, transaction: float) -> None:
        self._progress.pop(message.id, None)
        self._results.finished(
            message, outcomes, relays_dsn=relays_dsn, dialled=self._connector.claim_dialled(), transaction=transaction
        )

    def untried(self, message: Message) -> None:
        self._progress.pop(message.id, None)
        self._results.untried(message)

    def is_last(self, conversation: Conversation) -> bool:
        """Whether no other conversation goes on: the last one stays for a while."""
        return all(one.is_leaving for one in self._conversations if one is not conversation)

    @property
    def linger(self) -> float:
        """Seconds for which the last conversation stays without mail."""
        return 0.0 if self._is_leaving or self._connector.retired is not None else self._relayhost.linger
