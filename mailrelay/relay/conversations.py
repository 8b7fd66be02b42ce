"""The conversations with one relayhost's mail server: opens them, gives them jobs, and decides what follows from the end
of each.

A conversation asks for jobs when it has none: first recipient probes, for which clients wait, then messages. Without mail it
stays open for a while (`Conversation.next`), so that the next message needs no round trips for a new one. The scheduler
decides when conversations are opened, and how many (`plan`); `delivery` runs each. While it is not known whether the
relayhost records conversations, a trial runs beside the first one (`records`), which gives way to a recorded one.

Promises: a conversation that fails before the mail server has replied to a job is a fault of the relayhost, which the
scheduler records (`faults`), or means that the mail server allows fewer conversations (`plan.consequence`). A mail server
that ends two conversations in a row, each in the transaction of another message, is such a fault too, and no attempt is
counted for these messages; if always the same message ends them, it is deferred (`CutMessages`). While the mail server is
not proven (`smtp.flight.Trust`), no conversation is opened beside another for `PROOF_WAIT` after the other's opening. An
extension that the mail server offers and refuses is not used again until the daemon ends or the mail server refuses
mailrelay itself. CHUNKING, by which many messages are in flight at once, is not used on a connection on which a
conversation has left doubt. Every probe gets a result: None when the last conversation ends.
Never: a new job on a retired connection; a conversation on a connection that is not the current one.
"""

import asyncio
import dataclasses
import enum
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from mailrelay.config import Relayhost
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import SETUP_REPLIES, Cause, Outcome, Scope, Stage
from mailrelay.mail.printable import printable
from mailrelay.mail.spool_errors import SpoolBroken, SpoolError
from mailrelay.relay.connector import Connector
from mailrelay.relay.cut_messages import CutMessages
from mailrelay.relay.delivery import ConversationEnd, CutMessage, converse
from mailrelay.relay.jobs import Job, ProbeQueue
from mailrelay.relay.mail_channel import MailChannel, open_channel
from mailrelay.relay.plan import Consequence, ConversationFacts, ConversationProgress, consequence, is_attempt
from mailrelay.relay.records import Records
from mailrelay.relay.results import Results
from mailrelay.smtp.extensions import Extension
from mailrelay.smtp.flight import Trust
from mailrelay.ssh.interface import Connection, Fault

log = logging.getLogger("mailrelay.relay")

EXTRA_LINGER = 2.0
"""Seconds for which a conversation without mail stays open beside others: opening one costs round trips."""
LAST_REPLIES = 0.4
"""Seconds to wait for replies to contents that were sent whole, when conversations are broken off."""
PROOF_WAIT = 2.0
"""Seconds from the opening of a conversation in which none is opened beside it, while the mail server is not proven: one
that turns every message away gets one conversation after the other. If it is slow at the first message, the other messages
wait no longer than this."""


class ConversationPhase(enum.Enum):
    OPENING = enum.auto()
    """From the opening of the channel to the reply to EHLO."""
    WORKING = enum.auto()
    """It has jobs, or asks for some."""
    IDLE = enum.auto()
    """It waits for mail, with none due."""
    LEAVING = enum.auto()
    """It takes no more jobs."""


class Conversations:
    """The open conversations of one relayhost.

    next_messages: returns up to the given number of messages to send, none if none is due; cancelling it loses nothing.
    server_named: called with the mail server's names for itself (`smtp.session`) at each reply to EHLO. changed: called
    when the scheduler should decide again.

    channels: how many conversations the settings allow at once: `channels`, or `backlog_channels` if each carries only one
    message at a time.
    is_untested: the connection was dialled for mail or after a fault, and no conversation has been opened on it yet.
    faults: those that were found, and that the scheduler has not yet recorded.
    """

    def __init__(
        self,
        relayhost: Relayhost,
        connector: Connector,
        results: Results,
        records: Records,
        next_messages: Callable[[int], Awaitable[Sequence[Job]]],
        server_named: Callable[[Sequence[bytes]], None],
        changed: Callable[[], None],
    ) -> None:
        self.channels = relayhost.channels
        self.is_untested = False
        self.faults: list[Outcome] = []
        self._relayhost = relayhost
        self._connector = connector
        self._results = results
        self._records = records
        self._next_messages = next_messages
        self._server_named = server_named
        self._changed = changed
        self._backlog_channels = max(relayhost.channels, relayhost.backlog_channels)
        # The most conversations that the mail server allows; lowered when it refuses one.
        self._server_limit = self._backlog_channels
        self._open: set[Conversation] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._probes = ProbeQueue()
        self._cut_messages = CutMessages()
        self._trust = Trust.UNKNOWN
        # Monotonic time until which PROOF_WAIT lasts.
        self._proof_wait_end = 0.0
        # Extensions that the mail server has offered and refused.
        self._unusable: frozenset[Extension] = frozenset()
        # Those that are not used on this connection.
        self._doubtful: frozenset[Extension] = frozenset()
        self._is_stopping = False
        # As `delivery.JobSource.last_wait`.
        self.last_wait = 0.0

    # For the scheduler.

    @property
    def count(self) -> int:
        return len(self._open)

    @property
    def idle(self) -> int:
        """How many conversations are IDLE."""
        return sum(one.phase is ConversationPhase.IDLE for one in self._open)

    @property
    def all_ready(self) -> bool:
        """Whether each conversation has received the reply to EHLO."""
        return all(one.phase is not ConversationPhase.OPENING for one in self._open)

    @property
    def more_allowed(self) -> int:
        """How many more conversations may be opened; 0 or less: none."""
        is_alone = self._trust is not Trust.PROVEN and (not self._open or time.monotonic() < self._proof_wait_end)
        return (1 if is_alone else min(self.channels, self._server_limit)) - len(self._open)

    def connected(self, *, is_untested: bool) -> None:
        """Resets what was learned on the last connection: there is a new one. is_untested: see the class."""
        self.channels = self._relayhost.channels
        self._server_limit = self._backlog_channels
        self._doubtful = frozenset()
        self._records.connected()
        self.is_untested = is_untested

    def open(self, count: int, group: asyncio.TaskGroup) -> None:
        """Opens `count` conversations, with their tasks in `group`."""
        for _ in range(count):
            # A change of the network may have retired the connection since the plan was made.
            if self._connector.connection is not None:
                self._open_one(group, self._connector.connection)

    def wake_one(self) -> None:
        """Has an idle conversation ask for jobs again, if there is one."""
        idle = next((one for one in self._open if one.phase is ConversationPhase.IDLE), None)
        if idle is not None:
            idle.wake()

    async def probe(self, envelope: Envelope) -> Outcome | None:
        """The mail server's reply to MAIL and RCPT for an envelope with one recipient; None if it cannot be asked.

        Needs a conversation that has received the reply to EHLO. If all are busy, the probe waits for one. Cancelling
        withdraws the probe.
        """
        if not any(one.phase in (ConversationPhase.WORKING, ConversationPhase.IDLE) for one in self._open):
            return None
        probe = self._probes.add(envelope)
        self.wake_one()
        try:
            return await probe.reply
        finally:
            probe.reply.cancel()

    def cancel(self) -> None:
        """Cancels all conversations. Their jobs are given back."""
        for task in self._tasks:
            task.cancel()

    def break_off(self) -> None:
        """Cancels all conversations, and each one that is still opened. Contents that are not sent whole are broken off; the
        replies to the others are awaited for LAST_REPLIES."""
        self._is_stopping = True
        self.last_wait = LAST_REPLIES
        self.cancel()

    async def finish(self) -> None:
        """Ends each conversation once it has no mail. Returns when all have ended."""
        self._is_stopping = True
        for conversation in self._open:
            conversation.wake()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    # For each conversation.

    @property
    def linger(self) -> float:
        """Seconds for which the last conversation stays open without mail; may be inf."""
        return 0.0 if self._is_stopping or self._connector.retired is not None else self._relayhost.linger

    def is_last(self, conversation: "Conversation") -> bool:
        """Whether all other conversations are leaving."""
        return all(one.phase is ConversationPhase.LEAVING for one in self._open if one is not conversation)

    def ready(self, in_flight: int, server_names: Sequence[bytes]) -> None:
        """The mail server has replied to EHLO (`delivery.JobSource.ready`)."""
        self._server_named(server_names)
        self._connector.fault.mail_server_ready()
        if in_flight == 1:
            # Each conversation carries only one message at a time: allow more of them.
            self.channels = self._backlog_channels
        self._changed()

    def judged(self, job: Job) -> None:
        """The mail server has judged a job (`delivery.JobSource.judged`)."""
        self._cut_messages.judged(job)
        if self._trust is not Trust.PROVEN:
            self._trust = Trust.PROVEN
            self._changed()

    async def next_jobs(self, limit: int) -> Sequence[Job]:
        """A probe for which a client waits; else a message, or up to `limit` small ones, with open attempts; else none.
        Cancelling loses nothing."""
        if self._connector.retired is not None:
            return ()
        # Look for probes again: a probe that came while this conversation waited for the spool could not wake it.
        return self._probes.next() or await self._next_messages(limit) or self._probes.next()

    # From the opening to the end.

    def _open_one(self, group: asyncio.TaskGroup, connection: Connection) -> None:
        conversation = Conversation(self)
        self._open.add(conversation)
        if self._trust is not Trust.PROVEN:
            self._proof_wait_end = time.monotonic() + PROOF_WAIT
            asyncio.get_running_loop().call_later(PROOF_WAIT, self._changed)
        self.is_untested = False
        self._connector.conversation_begun()
        task = group.create_task(self._converse(conversation, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before it starts never runs its `finally`.
        task.add_done_callback(lambda _task: self._ended(conversation))

    async def _converse(self, conversation: "Conversation", connection: Connection) -> None:
        token, end = await self._run(conversation, connection)
        if end.refused:
            self._unusable |= end.refused
            names = ", ".join(sorted(one.upper() for one in end.refused))
            log.info("relay=%s offers %s and refuses it; it is not used any more", self._relayhost.name, names)
        if end.leaves_doubt and connection.is_up:
            self._doubtful = frozenset({Extension.CHUNKING})
        cut = end.cut
        facts = ConversationFacts(
            end.progress,
            broke_off=end.outcome is not None,
            was_idle=conversation.phase is ConversationPhase.IDLE,
            is_connected=connection.is_up,
            others=len(self._open - {conversation}),
            refuses_us=end.outcome is not None and end.outcome.cause in SETUP_REPLIES,
            refuses_extension=bool(end.refused),
            cut_reason=self._cut_messages.cut(cut.job, end.progress) if cut is not None and connection.is_up else None,
        )
        effect = consequence(facts)
        fault = _fault(end.outcome, facts) if effect is Consequence.FAULT and end.outcome is not None else None
        if cut is not None and facts.is_connected:
            self._trust = Trust.DOUBTED
        elif fault is not None and self._trust is Trust.PROVEN:
            # The fix may be another mail server.
            self._trust = Trust.UNKNOWN
        if cut is not None:
            _end_cut(cut, facts, fault)
        if end.goes_on or cut is not None or token:
            # Its messages must be due again before the scheduler decides whether to close the connection, and its results be
            # on disk before their record is read or removed.
            await self._results.written()
        if token:
            self._records.ended(token, leaves_doubt=end.leaves_doubt)
        self._ended(conversation)
        if effect is Consequence.FEWER_CONVERSATIONS:
            # Others may have ended since `facts`.
            self._server_limit = max(1, len(self._open))
        elif fault is not None and self._connector.connection is connection:
            await self._found_fault(connection, fault)

    async def _run(self, conversation: "Conversation", connection: Connection) -> tuple[str, ConversationEnd]:
        """Runs a conversation. Returns the token of its record too, "" if there is none."""
        try:
            opened = await open_channel(connection, self._records)
        except Fault as fault:
            return "", ConversationEnd(fault.outcome, ConversationProgress.NOTHING)
        try:
            return opened.token, await self._talk(opened, conversation)
        except asyncio.CancelledError:
            if opened.token:
                self._records.ended(opened.token, leaves_doubt=True)
            raise

    async def _talk(self, opened: MailChannel, conversation: "Conversation") -> ConversationEnd:
        name, unusable = self._relayhost.helo.encode(), self._unusable | self._doubtful
        try:
            return await converse(
                opened.channel,
                name,
                conversation,
                unusable,
                self._trust,
                opened.token,
                is_ehlo_sent=opened.is_ehlo_sent,
            )
        except SpoolError as error:
            # No fault of the relayhost. The daemon itself reports a broken spool, and ends.
            if not isinstance(error, SpoolBroken):
                log.critical(
                    "relay=%s: a conversation failed: %s; its mail is tried again", self._relayhost.name, error
                )
            return ConversationEnd(None, ConversationProgress.NOTHING)
        except Exception:
            log.exception("relay=%s: a conversation failed; its mail is tried again", self._relayhost.name)
            outcome = Outcome(Stage.CHANNEL, cause=Cause.LOST, text="mailrelay had an internal error; see the log")
            return ConversationEnd(outcome, ConversationProgress.NOTHING)

    async def _found_fault(self, connection: Connection, fault: Outcome) -> None:
        """Records a fault for the scheduler, and closes the connection unless streams (forwards) use it."""
        if fault.cause in SETUP_REPLIES:
            # The fix may be another mail server, which may accept these extensions.
            self._unusable = frozenset()
        self.faults.append(fault)
        if connection.is_up and self._connector.has_streams:
            # The connection works: the fault is the mail server's, and its streams go on.
            return
        # At once: nothing new may begin on it, and its end must not count as another fault.
        self._connector.forget()
        await connection.close()

    def _ended(self, conversation: "Conversation") -> None:
        """Removes a conversation that has ended. If it was the last, gives back the probes. May be called twice for one."""
        self._open.discard(conversation)
        if not self._open:
            self._probes.give_back()
        self._changed()


def _fault(outcome: Outcome, facts: ConversationFacts) -> Outcome:
    """The fault of the relayhost that the end of a conversation shows. outcome: why it ended."""
    if facts.is_connected and outcome.scope is not Scope.RELAYHOST:
        return dataclasses.replace(outcome, cause=Cause.TURNED_AWAY)
    return outcome


def _end_cut(cut: CutMessage, facts: ConversationFacts, fault: Outcome | None) -> None:
    """Ends the job in whose transaction a conversation ended. fault: the fault of the relayhost, None if there is none."""
    # If not before the content, the mail server may have the message, or the content may be the reason.
    is_before_content = all(
        one.ends_conversation and one.stage in (Stage.MAIL, Stage.RCPT, Stage.DATA) for one in cut.outcomes
    )
    if is_attempt(facts) or not is_before_content:
        cut.finish()
    elif fault is not None:
        cut.finish([dataclasses.replace(one, cause=Cause.TURNED_AWAY) for one in cut.outcomes])
    else:
        why = printable(cut.outcomes[0].description.decode("utf-8", "backslashreplace"))
        log.info("%s: the conversation ended (%s); the message goes on in another one", cut.job.queue_id, why)
        # After messages that were judged, the mail server may accept only so many in a conversation. Otherwise the next
        # conversation is to begin with another message.
        cut.job.give_back(goes_on=True, is_next=facts.progress is ConversationProgress.REPLIED)


class Conversation:
    """One conversation: its phase, and the jobs for it (it is the `delivery.JobSource`)."""

    def __init__(self, conversations: Conversations) -> None:
        self.phase = ConversationPhase.OPENING
        self._conversations = conversations
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Ends the wait for mail: there is mail, or the scheduler is stopping."""
        self._woken.set()

    @property
    def last_wait(self) -> float:
        return self._conversations.last_wait

    def ready(self, in_flight: int, server_names: Sequence[bytes]) -> None:
        self.phase = ConversationPhase.WORKING
        self._conversations.ready(in_flight, server_names)

    def judged(self, job: Job) -> None:
        self._conversations.judged(job)

    async def next(self, limit: int) -> Sequence[Job]:
        self.phase = ConversationPhase.WORKING
        while not (jobs := await self._conversations.next_jobs(limit)):
            self._woken.clear()
            self.phase = ConversationPhase.IDLE
            is_last = self._conversations.is_last(self)
            linger = self._conversations.linger if is_last else min(self._conversations.linger, EXTRA_LINGER)
            try:
                async with asyncio.timeout(None if linger == float("inf") else linger):
                    await self._woken.wait()
            except TimeoutError:
                # If the others have left meanwhile, this one is the last: it stays for the longer time.
                if is_last or not self._conversations.is_last(self):
                    break
        self.phase = ConversationPhase.WORKING if jobs else ConversationPhase.LEAVING
        return jobs
