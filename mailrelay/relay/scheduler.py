"""Sends the mail of one relayhost: observes the state, lets `plan` decide, and carries the plan out.

Its parts: the connection (`connector`), the conversations on it (`conversations`), the mail that is claimed for them
(`claims`), and what has become of that mail (`results`).

While a relayhost cannot be reached, its fallbacks send its mail (`fallback`).

A stream carries the octets of a forward (`[[forward]]` in the settings) through the same connection (`connector`).

Promises: nothing is sent without an open attempt in the spool; a message that has just arrived goes before mail that waits.
The loop sleeps until mail is due, the back-off is over, or an event comes, and for `MAX_SLEEP` at most while mail waits.
"""

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from mailrelay.config import Relayhost
from mailrelay.endpoint import Endpoint
from mailrelay.mail.completion import NOTHING_KNOWN, Completion, account_address, completed
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Outcome
from mailrelay.mail.sending import Sending, Stop, seconds_left
from mailrelay.mail.spool_errors import SpoolBroken
from mailrelay.ports import FollowPort, RelayhostPort, RelayPort
from mailrelay.relay import claims, connector, conversations, records, results, tracker
from mailrelay.relay.dial_policy import EARLY_DIAL_WAIT, NetworkChange
from mailrelay.relay.fallback import REACHED, Group, is_unreachable
from mailrelay.relay.jobs import Job, MessageJob
from mailrelay.relay.plan import MESSAGES_PER_CHANNEL, Action, ConnectionState, Facts, Plan, decide
from mailrelay.relay.reach import Reach
from mailrelay.relay.transfer import Phase
from mailrelay.relay.waiters import Queued, Waiters
from mailrelay.ssh.interface import Connection, Dial, Fault, Stream

log = logging.getLogger("mailrelay.relay")

STOP_WAIT = 8.0
"""Seconds within which a message that is to be cancelled must have been stopped: a mail server may be slow to reply to other
messages of the conversation, which must not be left in doubt."""
SPOOL_RETRY = 10.0
"""Seconds to wait after an error of the spool, or any other error of the loop."""
MAX_SLEEP = 60.0
"""Seconds of sleep at most: timers stand still while a laptop is suspended, but mail becomes due meanwhile."""


class SpoolPort(RelayPort, RelayhostPort, FollowPort, Protocol):
    """The ports that a scheduler needs."""


@dataclass(slots=True)
class _Due:
    """What the spool has returned since the plan was last carried out. None: the spool was not asked since.

    next_due: epoch seconds, inf if nothing is pending. due_count: as in `Facts`.
    """

    next_due: float | None = None
    due_count: int | None = None


class Scheduler:
    """Sends one relayhost's mail.

    policy: the retry schedule, and the notice backends. notices_pending: called when a commit has made notices pending.
    now: the clock, epoch seconds. completion: what the settings say about bare addresses; the scheduler adds the account on
    the relayhost. waiters: those of the scheduler that this one replaces. group: the schedulers of all relayhosts.
    """

    def __init__(
        self,
        relayhost: Relayhost,
        spool: SpoolPort,
        dial: Dial,
        policy: RetryPolicy,
        notices_pending: Callable[[], None],
        now: Callable[[], float] = time.time,
        completion: Completion = NOTHING_KNOWN,
        waiters: Waiters | None = None,
        group: "Group[Scheduler] | None" = None,
    ) -> None:
        self._group: Group[Scheduler] = group if group is not None else Group({relayhost.name: self})
        self._reach = Reach(relayhost, spool)
        self.relayhost = relayhost
        self._name = relayhost.name
        self._spool = spool
        self._now = now
        self._completion = completion
        # SSH account and host of the last connection.
        self._login = ("", "")
        self._event = asyncio.Event()
        self._tracker = tracker.Tracker(relayhost, spool, policy.backends_for, notices_pending, self._event.set, now)
        self._results = results.Results(
            spool,
            policy,
            notices_pending,
            self._event.set,
            self._mail_judged,
            self._tracker.accepted,
            self.message_arrived,
            now,
            is_followed=relayhost.track != "off",
            returned=self._wake_others,
            waiters=waiters or Waiters(self._group.waiters),
        )
        self._connector = connector.Connector(
            relayhost, spool, dial, policy, self._results.run_to_end, notices_pending, self._event.set, now
        )
        self._claims = claims.Claims(
            self._name,
            spool,
            self._results,
            self._may_begin,
            self._spool_failed,
            lambda: self._completion,
            lambda: self._group.replaced_by(self._name),
        )
        self._records = records.Records(relayhost, spool, self._results, self._event.set, now)
        self._conversations = conversations.Conversations(
            relayhost,
            self._connector,
            self._results,
            self._records,
            self.next_messages,
            self._server_named,
            self._event.set,
        )
        self._jobs: dict[int, MessageJob] = {}
        self._must_ask = False
        self._is_stopping = False
        self._spool_pause_end = 0.0
        self._error = ""

    # For the daemon and the intake.

    def look_again(self) -> None:
        """The spool has changed: mail is due, or the person did something."""
        self._must_ask = True
        self._event.set()

    def stand_ins_cleared(self) -> None:
        """The spool has cleared which fallback sends. The caller calls `look_again`."""
        self._reach.cleared()

    def complete_by(self, completion: Completion) -> None:
        """Replaces `completion`: the settings were read again."""
        self._completion = dataclasses.replace(completion, account=self._completion.account)

    def resume(self) -> None:
        """The spool can be used again: ends the pause after its failure."""
        self._spool_pause_end = 0.0
        self.look_again()

    def message_arrived(self, message: int) -> None:
        """A message was accepted, or its round goes on: it goes before mail that waits. message: the spool's key."""
        for scheduler in (self, *self._group.candidates(self._name)):
            scheduler._add_new(message)

    def message_waits(self) -> None:
        """A message was accepted that waits for its time, which may come before anything else is due."""
        for scheduler in (self, *self._group.candidates(self._name)):
            scheduler.look_again()

    def _add_new(self, message: int) -> None:
        self._claims.new[message] = None
        if len(self._claims.new) == 1 or self._connector.connection is not None:
            # While disconnected, only the first new message wakes the loop.
            self._event.set()

    def expect_message(self) -> None:
        """A client has begun a message: a reason to dial, so that the connection is up when the message is complete."""
        for scheduler in (self, *self._group.candidates(self._name)):
            scheduler._connector.expect_message()

    def network_changed(self, change: NetworkChange) -> None:
        """A dial may succeed now; mail that waits for the network is tried again ahead of the schedule."""
        self._must_ask = True
        self._connector.network_changed(change)

    async def probe_recipient(self, envelope: Envelope) -> Outcome | None:
        """The mail server's reply to MAIL and RCPT for an envelope with one recipient; None if it cannot be asked.

        Needs a connection and a conversation that are ready: see `Conversations.probe`.
        """
        if self._connector.state is not ConnectionState.UP:
            return None
        return await self._conversations.probe(completed(envelope, self._completion))

    def waited_in_vain(self) -> None:
        """A client has waited for the result of its message, and got none: asks the SSH server for a response."""
        self._connector.waited_in_vain()

    def octets_sent(self, message: int) -> int:
        """Octets of a message's content that were acknowledged by now (`Transfer.octets`). message: the spool's key."""
        job = self._jobs.get(message)
        return job.transfer.octets if job is not None else 0

    def sending(self) -> list[Sending]:
        """The messages whose content is being sent, or that wait for the reply to it."""
        found = []
        for job in self._jobs.values():
            if job.transfer.phase is not Phase.BEFORE:
                octets, rate = job.transfer.octets_and_rate()
                left = seconds_left(octets, job.size, rate)
                found.append(Sending(job.queue_id, self._name, octets, job.size, rate, left))
        return found

    async def cancel(self, message: int) -> Stop:
        """Stops a message that is being sent, before the end of its content, and cancels it. message: the spool's key."""
        job = self._jobs.get(message)
        if job is None:
            return Stop.NOT_SENDING
        if not job.transfer.want_stop():
            return Stop.TOO_LATE
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_WAIT):
                await job.transfer.ended.wait()
        if self._jobs.get(message) is job:
            job.transfer.is_stop_wanted = False
            return Stop.TOO_LATE
        # It was stopped, and the spool is slow.
        await job.transfer.ended.wait()
        return Stop.CANCELLED if job.transfer.is_cancelled else Stop.NOT_SENDING

    @property
    def name(self) -> str:
        """That of the relayhost."""
        return self._name

    @property
    def waiters(self) -> Waiters:
        """Clients that wait for the result of their message."""
        return self._results.waiters

    def stream(self, to: Endpoint) -> AbstractAsyncContextManager[Stream | Outcome]:
        """A byte stream to `to`, as seen from the relayhost: see `Connector.stream`."""
        return self._connector.stream(to)

    @property
    def is_unreachable(self) -> bool:
        """Whether it has a fault because of which its fallbacks send its mail."""
        return is_unreachable(self._connector.fault.known)

    @property
    def carrier(self) -> "Scheduler":
        """The scheduler that sends the mail of this relayhost now: itself, or that of a fallback."""
        return self._group.carrier(self._name)

    @property
    def fault_text(self) -> str:
        """Why no client should wait for the relayhost: a fault, a connection in doubt. Not escaped; "" if none is known."""
        return self._connector.fault.text or self._connector.doubt_text

    @property
    def error_text(self) -> str:
        """Why the scheduler itself cannot go on, not escaped; "" if it can. It is no fault of the relayhost."""
        return self._error or ("results cannot be recorded" if self.is_stuck else "")

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection for mail."""
        return self._connector.connection is not None

    def ask_before_end(self) -> bool:
        """Nothing else is to be done. Returns whether the daemon has to stay, to ask about mail on the relayhost."""
        return self._tracker.ask_before_end()

    @property
    def is_stuck(self) -> bool:
        """Whether there are outcomes that could not be recorded yet: no new mail should be accepted."""
        return self._results.is_stuck

    async def finish(self) -> None:
        """Begins no new message, and returns when those in progress have ended. After that, cancel `run`."""
        self._is_stopping = True
        await self._conversations.finish()

    def spool_broken(self) -> None:
        """The spool can no longer be used: begins nothing, and breaks off all messages whose content is not sent whole.

        Clients that wait learn that their message may not be found again, unless the mail server takes it now.
        """
        self._is_stopping = self.waiters.is_spool_broken = True
        in_progress = {job.queue_id for job in self._jobs.values()}
        for queue_id in self.waiters.queue_ids - in_progress:
            self.waiters.tell(queue_id, Queued(""))
        self._conversations.break_off()

    # The loop.

    async def run(self) -> None:
        """Runs until cancelled. Then the outcomes of messages in progress are recorded; messages not begun are put back."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._event.clear()
                    is_paused = time.monotonic() < self._spool_pause_end
                    try:
                        sleep = await self._step(group)
                        if not is_paused:
                            self._error = ""
                    except Exception as error:
                        sleep = self._spool_failed(error)
                    try:
                        async with asyncio.timeout(min(sleep, MAX_SLEEP) if sleep < math.inf else None):
                            await self._event.wait()
                    except TimeoutError:
                        self._must_ask = True
        finally:
            self._connector.refuse_streams("mailrelay was stopped")
            # An outcome that is not recorded in time leaves an open attempt; the next start closes it as interrupted.
            await self._results.close()
            await self._connector.hang_up()

    async def _step(self, group: asyncio.TaskGroup) -> float:
        """Carries out plans until one says to sleep. Returns the seconds to sleep at most; inf: until an event."""
        view = _Due()
        while True:
            await self._look_at_reach()
            plan = decide(self._observe(view))
            if plan.blocked > 0:
                self._group.tell_blocked(self._name, self.waiters, self.fault_text)
            if plan.blocked > EARLY_DIAL_WAIT:
                # A shorter wait may end with a dial for these streams.
                self._connector.refuse_streams(self.fault_text)
            match plan.action:
                case Action.ASK_NEXT_DUE:
                    await self._tracker.look(must_ask=self._must_ask)
                    self._must_ask = False
                    await self._connector.fault.read()
                    await self._records.ask()
                    # What was read of the fault may concern others.
                    await self._look_at_reach()
                    due = await self._spool.next_due(self._name, self._group.replaced_by(self._name))
                    view.next_due = math.inf if due is None else due
                case Action.COUNT_DUE:
                    view.due_count = await self._count_due()
                case _:
                    await self._apply(plan, group)
                    if plan.sleep > 0:
                        return plan.sleep
                    view = _Due()

    def _observe(self, view: _Due) -> Facts:
        return Facts(
            is_stopping=self._is_stopping,
            spool_pause=self._spool_pause_end - time.monotonic(),
            has_fault=bool(self._conversations.faults),
            must_ask=self._must_ask,
            is_stuck=self.is_stuck,
            connection=self._connector.state,
            conversations=self._conversations.count,
            idle=self._conversations.idle,
            all_ready=self._conversations.all_ready,
            more_allowed=self._conversations.more_allowed,
            asking=self._claims.asking,
            messages_in_progress=len(self._jobs),
            is_recording=self._results.is_recording or self._records.is_reading or self._tracker.is_asking,
            is_untested=self._conversations.is_untested,
            has_records=bool(self._records.is_wanted) and not self._records.is_reading,
            has_needless_records=self._records.has_needless and not self._records.is_reading,
            question_in=self._tracker.question_in(is_connected=self._connector.state is ConnectionState.UP),
            dial_pause=self._connector.pause(has_new_mail=bool(self._claims.new)),
            is_message_expected=self._connector.is_message_expected,
            is_stream_wanted=self._connector.is_stream_wanted,
            is_replaced=self.is_unreachable and self._group.is_replaced(self._name),
            always_connected=self.relayhost.linger == math.inf,
            redial_pause=self._connector.redial_pause,
            linger_left=max(self._connector.linger_left, self._tracker.connection_wanted_for),
            network_changed=self._connector.must_retry_lost,
            waited_in_vain=self._connector.must_check,
            due_in=None if view.next_due is None else view.next_due - self._now(),
            due_count=view.due_count,
        )

    async def _apply(self, plan: Plan, group: asyncio.TaskGroup) -> None:  # noqa: C901 - one case for each action
        match plan.action:
            case Action.RECORD_FAULT:
                await self._record_fault(self._conversations.faults.pop())
            case Action.CLOSE_RETIRED:
                await self._close_retired()
            case Action.FORGET_LOST:
                log.info("relay=%s lost the connection", self._name)
                self._connector.forget()
            case Action.CHECK:
                group.create_task(self._connector.start_check())
            case Action.RETRY_LOST:
                self._connector.must_retry_lost = False
                await self._spool.retry_lost(self._name)
                if self.is_unreachable:
                    self._wake_others()
            case Action.HANG_UP:
                await self._connector.hang_up()
            case Action.DIAL | Action.DIAL_WITHOUT_MAIL:
                await self._dial(group, for_mail=plan.action is Action.DIAL)
            case Action.READ_RECORDS | Action.ASK_THERE:
                connection = self._connector.connection
                if connection is not None:
                    group.create_task(await self._work_there(plan.action, connection))
            case Action.WAKE_CONVERSATION:
                self._conversations.wake_one()
            case Action.OPEN_CONVERSATIONS:
                self._conversations.open(plan.conversations, group)

    async def _work_there(self, action: Action, connection: Connection) -> Coroutine[None, None, None]:
        """The work on the relayhost that is not sending mail; it goes on beside it."""
        if action is Action.ASK_THERE:
            self._tracker.is_asking = True
            return self._tracker.ask(connection)
        return self._records.read(connection, await self._records.begin_reading())

    async def _count_due(self) -> int:
        """How many messages are due, at most as many as would fill all channels."""
        claimed = self._claims.claimed
        most = MESSAGES_PER_CHANNEL * self._conversations.channels
        count = await self._spool.count_due(self._name, most, self._group.replaced_by(self._name))
        # Messages that were claimed during the count are no reason for another conversation.
        return count - (self._claims.claimed - claimed)

    async def _dial(self, group: asyncio.TaskGroup, *, for_mail: bool) -> None:
        try:
            connection = await self._connector.open()
        except Fault as fault:
            self._tracker.not_reached()
            await self._record_fault(fault.outcome)
            return
        if connection is None:
            return
        self._login = (connection.account, connection.host)
        # A dial for mail opens a conversation in any case. After a fault, only a conversation shows whether it is over.
        self._conversations.connected(is_untested=for_mail or bool(self._connector.fault.text))
        if not for_mail:
            # No message has waited for this dial: do not log its time for a later one.
            self._connector.claim_dial_seconds()
        group.create_task(self._watch(connection))

    async def _watch(self, connection: Connection) -> None:
        try:
            await connection.wait_closed()
        finally:
            self._event.set()
            # Also after its end, which does not close the connections to jump hosts.
            await connection.close()

    async def _record_fault(self, outcome: Outcome) -> None:
        if self.relayhost.fallback and outcome.cause not in REACHED:
            # Before the fault: its notice says which fallback sends the mail.
            await self._reach.note(self._group.first_reachable(self.relayhost.fallback))
        text = await self._connector.record_fault(outcome)
        # These messages are no reason for an early dial any more: they wait like all others, or a fallback sends them.
        new = list(self._claims.new)
        self._claims.new.clear()
        await self._look_at_reach()
        for scheduler in self._group.candidates(self._name):
            for message in new:
                scheduler._add_new(message)
        self._group.tell_blocked(self._name, self.waiters, text)

    async def _look_at_reach(self) -> None:
        """Wakes the other schedulers if the relayhost can be reached now and could not before, or the reverse, or its
        stand-in has changed. Raises SpoolError."""
        if self._group.members.get(self._name) is not self:
            # Another scheduler has replaced it.
            return
        was_unreachable, carrier = self._reach.is_unreachable, self.carrier
        has_changed = await self._reach.update(
            carrier._name if carrier is not self else "",
            is_unreachable=self.is_unreachable,
            has_fault=self._connector.fault.known is not None,
        )
        if has_changed and self._reach.stand_in and not was_unreachable:
            # Mail that waits because the connection was lost need not wait any more.
            await self._spool.retry_lost(self._name)
        if has_changed:
            self._wake_others()

    def _wake_others(self) -> None:
        for scheduler in self._group.linked(self._name):
            scheduler.look_again()

    async def _close_retired(self) -> None:
        """Closes a retired connection on which no message is in progress."""
        # Idle conversations may linger, and no dial is made before all conversations have ended.
        self._conversations.cancel()
        await self._connector.close_retired()

    def _spool_failed(self, error: Exception) -> float:
        """After an error of the spool, or any other error: logs it, and begins nothing for `SPOOL_RETRY`. Returns that."""
        # The daemon itself reports a broken spool, and ends.
        if not isinstance(error, SpoolBroken):
            self._error = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            log.critical("relay=%s cannot go on: %s; will try again", self._name, self._error)
        self._spool_pause_end = time.monotonic() + SPOOL_RETRY
        self._connector.refuse_streams("mailrelay cannot go on for now; see the log")
        return SPOOL_RETRY

    # For its parts.

    def _mail_judged(self) -> None:
        self._connector.fault.mail_judged()

    def _server_named(self, server_names: Sequence[bytes]) -> None:
        account, host = self._login
        self._tracker.hosts = server_names
        self._completion = dataclasses.replace(self._completion, account=account_address(account, server_names, host))

    async def next_messages(self, limit: int) -> Sequence[Job]:
        """A message to send, or up to `limit` small ones, with open attempts; none if none is due. Cancelling loses
        nothing."""
        rounds = self._results.rounds
        messages = await self._claims.ask(limit)
        others = self._group.linked(self._name)
        for message in messages:
            self.waiters.adopt(message.queue_id)
            for other in others:
                other._claims.new.pop(message.id, None)
        return [
            MessageJob(
                rounds.part(message), self._spool.pieces, self._results, self._connector.claim_dial_seconds, self._jobs
            )
            for message in messages
        ]

    def _may_begin(self) -> bool:
        is_doubtful = self._connector.state is ConnectionState.DOUBTFUL
        return not (self._is_stopping or self.is_stuck or is_doubtful or time.monotonic() < self._spool_pause_end)
