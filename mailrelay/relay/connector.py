"""The connection to one relayhost: the SSH connection while there is one, its known fault (`fault`), and when to dial again.

Promises: at most one dial at a time. After a change of the network, a connection that may be dead is retired: nothing new
begins on it. After a client has waited in vain, the connection is checked (`doubt`).
Streams (for forwards) use the same connection (`stream`). A stream's failure is no fault of the relayhost.
The scheduler decides when to dial and when to hang up.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from mailrelay.config import Relayhost
from mailrelay.endpoint import Endpoint
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.ports import RelayhostPort
from mailrelay.relay import dial_policy
from mailrelay.relay.dial_policy import DialFacts, NetworkChange
from mailrelay.relay.doubt import Doubt, DoubtPhase
from mailrelay.relay.fault import KnownFault
from mailrelay.relay.plan import ConnectionState
from mailrelay.ssh.interface import Connection, Dial, Fault, Stream

log = logging.getLogger("mailrelay.relay")

REDIAL_INTERVAL = 60.0
"""Seconds between two dials for a connection that is only to be kept up (`linger = "always"`)."""
DIAL_GRACE = 2.0
"""Seconds that a dial may still take when the network changes meanwhile."""
EXPECTATION = 10.0
"""Seconds for which a client's MAIL is a reason to dial."""


class Connector:
    """One relayhost's SSH connection, on demand.

    run_to_end: runs a coroutine that must not be cancelled. notices_pending: called when a commit may have made notices
    pending. changed: called when the scheduler should decide again. now: the clock, epoch seconds.

    connection: the connection for mail, which may have ended already (`Connection.is_up`); None if there is none. retired:
    the connection from before a change of the network; None if there is none. must_retry_lost: the network has changed, and
    the scheduler has not yet made due the mail that waits for it. fault: the known fault of the relayhost, if there is one.
    """

    def __init__(
        self,
        relayhost: Relayhost,
        spool: RelayhostPort,
        dial: Dial,
        policy: RetryPolicy,
        run_to_end: Callable[[Coroutine[Any, Any, None]], None],
        notices_pending: Callable[[], None],
        changed: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self.connection: Connection | None = None
        self.retired: Connection | None = None
        self.must_retry_lost = False
        self.fault = KnownFault(relayhost, spool, policy, run_to_end, notices_pending, now)
        self._relayhost = relayhost
        self._name = relayhost.name
        self._dial = dial
        self._run_to_end = run_to_end
        self._changed = changed
        self._now = now
        # The network has changed, and no dial was made since.
        self._retry_pending = False
        self._dialling: asyncio.Timeout | None = None
        # Monotonic times: the end of the last dial, successful or not; the end of the last dial, or the last fault.
        self._dialled_at = self._tried_at = -math.inf
        self._dial_seconds = self._unclaimed_dial_seconds = 0.0
        self._expected_until = 0.0
        self._requests: set[asyncio.Future[Connection | Outcome]] = set()
        self._streams: Counter[Connection] = Counter()
        self._linger_end = 0.0
        self._doubt = Doubt(relayhost, changed)

    @property
    def state(self) -> ConnectionState:
        if self.retired is not None:
            return ConnectionState.RETIRED
        if self.connection is None:
            return ConnectionState.NONE
        if not self.connection.is_up:
            return ConnectionState.DOWN
        return ConnectionState.DOUBTFUL if self._doubt.phase is DoubtPhase.NO_RESPONSE else ConnectionState.UP

    # Reasons to dial.

    def expect_message(self) -> None:
        """A client has begun a message."""
        is_new = not self.is_message_expected
        self._expected_until = time.monotonic() + EXPECTATION
        if is_new:
            self._changed()

    @property
    def is_message_expected(self) -> bool:
        return time.monotonic() < self._expected_until

    def conversation_begun(self) -> None:
        """Neither an expected message nor a change of the network is a reason for a dial any more."""
        self._expected_until = 0.0
        self._retry_pending = False

    def network_changed(self, change: NetworkChange) -> None:
        """Retires the connection if it may be dead. If a dial may succeed now, allows it at once."""
        connection = self.connection
        age = time.monotonic() - self._dialled_at
        if connection is not None and connection.is_up and dial_policy.may_be_dead(change, connection.address, age):
            connection.check_alive(self._patience(connection))
            self.retired, self.connection = connection, None
        if change.may_connect or change.suspended:
            self._retry_now()
            if self._dialling is not None and self._dialling.when() is None:
                # This dial may use an address or a route that no longer works.
                self._dialling.reschedule(asyncio.get_running_loop().time() + DIAL_GRACE)
        self._changed()

    def _retry_now(self) -> None:
        """Allows a dial at once, and makes the mail due that waits for the network."""
        self.must_retry_lost = self._retry_pending = True
        self.fault.network_changed()

    # The connection.

    async def open(self) -> Connection | None:
        """Dials. Returns None if the network changed meanwhile: dial again, now. Raises Fault; the caller records it."""
        began = time.monotonic()
        self._retry_pending = False
        try:
            async with asyncio.timeout(None) as self._dialling:
                self.connection = await self._dial(self._relayhost)
        except TimeoutError:
            return None
        except Fault as fault:
            self._end_requests(fault.outcome)
            raise
        finally:
            self._dialling = None
            self._tried_at = self._dialled_at = time.monotonic()
            self._dial_seconds = self._unclaimed_dial_seconds = self._dialled_at - began
            self._expected_until = 0.0
            if not self._retry_pending:
                self._doubt = Doubt(self._relayhost, self._changed)
        log.info("relay=%s connected in %.2f s", self._name, self._dial_seconds)
        self._end_requests(self.connection)
        return self.connection

    def claim_dial_seconds(self) -> float:
        """Seconds that the last dial took; 0 on all calls but the first. For the message that had to wait for the dial."""
        seconds, self._unclaimed_dial_seconds = self._unclaimed_dial_seconds, 0.0
        return seconds

    def forget(self) -> None:
        """Drops the connection without closing it: it is lost, or the caller closes it."""
        self.connection = None
        if time.monotonic() - self._dialled_at > dial_policy.SETTLING_TIME:
            # It was stable: perhaps the network has changed without an event. Dial again soon, as after an event.
            self.fault.network_changed()

    async def hang_up(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.close()
            log.info("relay=%s closed", self._name)

    async def close_retired(self) -> None:
        """Closes the retired connection, once its messages have ended."""
        connection, self.retired = self.retired, None
        # It may still work: its streams go on.
        if connection is not None and connection.is_up and not self._streams[connection]:
            await connection.close()
            log.info("relay=%s closed: the network has changed", self._name)

    @property
    def redial_pause(self) -> float:
        """Seconds until a dial that only keeps a connection up is allowed: do not dial again and again if each soon ends."""
        return 0.0 if self._retry_pending else max(0.0, self._dialled_at + REDIAL_INTERVAL - time.monotonic())

    @property
    def linger_left(self) -> float:
        """Seconds for which the connection stays without mail; inf for streams, or if the settings want it always."""
        if self.has_streams or self._relayhost.linger == math.inf:
            return math.inf
        return max(0.0, self._linger_end - time.monotonic())

    # Doubt.

    def waited_in_vain(self) -> None:
        """A client has waited for the result of its message in vain."""
        if self._dialling is not None:
            self._doubt.dialled_in_vain()
        elif self.state is ConnectionState.UP:
            self._doubt.waited_in_vain()

    @property
    def must_check(self) -> bool:
        """Whether the server must be asked for a response."""
        return self._doubt.phase is DoubtPhase.WAITED_IN_VAIN

    @property
    def doubt_text(self) -> str:
        """Why no client should wait for the connection, not escaped; "" if it is not in doubt."""
        return self._doubt.text(is_dialling=self.connection is None and self.retired is None)

    def start_check(self) -> Coroutine[Any, Any, None]:
        """Returns the check of the connection, to be run as a task."""
        self._doubt.phase = DoubtPhase.ASKED
        return self._check(self.connection)

    async def _check(self, connection: Connection | None) -> None:
        """Closes the connection if it is dead. Its messages are sent through a new one; until then no client waits."""
        if connection is None or await self._doubt.check(connection, lambda: self._patience(connection)):
            return
        if self.connection is connection:
            log.warning("relay=%s lost the connection: no response", self._name)
            self.retired, self.connection = connection, None
            self._retry_now()
        await connection.close()
        self._changed()

    def _patience(self, connection: Connection) -> float:
        return dial_policy.patience(self._dial_seconds, connection.tcp_state)

    # Streams.

    @contextlib.asynccontextmanager
    async def stream(self, to: Endpoint) -> AsyncIterator[Stream | Outcome]:
        """A byte stream to `to`, as seen from the relayhost, or why there is none.

        Waits for a connection, and causes a dial if there is none. The connection stays until `linger` after the end of the
        context.
        """
        connection = await self._request()
        if isinstance(connection, Outcome):
            yield connection
            return
        self._streams[connection] += 1
        try:
            found: Stream | Outcome
            try:
                found = await connection.open_stream(to)
            except Fault as fault:
                found = fault.outcome
            yield found
        finally:
            self._streams[connection] -= 1
            if not self._streams[connection]:
                del self._streams[connection]
                if connection not in (self.connection, self.retired):
                    # It was open only for its streams.
                    self._run_to_end(connection.close())
            self._linger_end = time.monotonic() + self._relayhost.linger
            self._changed()

    async def _request(self) -> Connection | Outcome:
        """Waits for the connection. Returns it, or why there is none."""
        if self.connection is not None and self.connection.is_up:
            return self.connection
        request: asyncio.Future[Connection | Outcome] = asyncio.get_running_loop().create_future()
        self._requests.add(request)
        self._changed()
        try:
            return await request
        finally:
            self._requests.discard(request)

    def _end_requests(self, connection: Connection | Outcome) -> None:
        for request in self._requests:
            if not request.done():
                request.set_result(connection)

    def refuse_streams(self, why: str) -> None:
        """Ends the wait of streams for the connection: there is none. why: one sentence, not escaped."""
        self._end_requests(Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text=why))

    @property
    def is_stream_wanted(self) -> bool:
        return any(not request.done() for request in self._requests)

    @property
    def has_streams(self) -> bool:
        """Whether streams use the connection, or are about to get it."""
        return bool(self._requests) or (self.connection is not None and self._streams[self.connection] > 0)

    # The fault.

    def pause(self, *, has_new_mail: bool) -> float:
        """Seconds until a dial is allowed; 0 or less: now. has_new_mail: a message has just arrived."""
        is_asked_for = has_new_mail or self.is_message_expected or self.is_stream_wanted
        since_last_try = time.monotonic() - self._tried_at
        facts = DialFacts(self._now(), since_last_try, self._retry_pending, is_asked_for)
        return dial_policy.pause(self.fault.known, facts)

    async def record_fault(self, outcome: Outcome) -> str:
        """Records that the relayhost cannot be used (`KnownFault.record`)."""
        self._tried_at = time.monotonic()
        return await self.fault.record(outcome)
