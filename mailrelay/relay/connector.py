"""The line to one relayhost: the SSH connection while there is one, what is wrong with the way, and when to try it again.

Promises: at most one dial at a time; a fault of the way is one fault, told once, however much mail waits for it; servers
that lock out who knocks again are left alone for longer; no attempt of any message is counted for it.
When the network has changed, it is tried anew, whatever the back-off said, and a connection that may have died with the
network of before begins nothing more.
Lends the connection for streams to anything else there (`stream`). What becomes of them is no fault of the way.
Decides nothing about mail: its scheduler says when there is a reason to dial, and when there is none to stay.
"""

import asyncio
import contextlib
import dataclasses
import logging
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Protocol

from mailrelay.config import Relayhost
from mailrelay.endpoint import Endpoint
from mailrelay.mail.backoff import wait
from mailrelay.mail.conclusion import Terms
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.printable import printable
from mailrelay.mail.triage import PENALISED, QUIET, is_setup_fault
from mailrelay.ssh.interface import Connection, Dial, Fault, Stream

log = logging.getLogger("mailrelay.relay")

PENALTY_SCHEDULE = (60.0, 120.0, 300.0, 900.0)
"""Seconds between dials after causes for which servers lock out who knocks again (`mail.triage.PENALISED`)."""
IMPATIENCE = 5.0
"""Seconds after a dial that failed before new mail may cause another one ahead of its time."""
SETTLING_SCHEDULE = (1.0, 1.0, 2.0, 2.0, 3.0, 5.0, 10.0)
"""Seconds between the first dials after the network has changed: addresses, routes and names come in steps."""
YOUNG = 10.0
"""Seconds for which a connection counts as made in the midst of such steps: it stands on what has come by then."""
REDIAL_INTERVAL = 60.0
"""Seconds between two dials for a connection that is only to be kept up."""
DIAL_GRACE = 2.0
"""Seconds that a dial has left when the network changes under it."""
EXPECTATION = 10.0
"""Seconds for which a client's MAIL makes it worth dialling ahead."""


class NetworkChange(Protocol):
    """What has happened to the network (`network.events.Change`)."""

    @property
    def may_connect(self) -> bool: ...
    @property
    def removed_addresses(self) -> frozenset[str]: ...
    @property
    def suspended(self) -> float: ...


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


class Spool(Protocol):
    """Where it stands written what is wrong with the way. Writes are on disk when awaited."""

    async def relayhost_failed(
        self, name: str, outcome: Outcome, next_dial: float, setup: bool, backends: Sequence[Backend], now: float
    ) -> None: ...
    async def relayhost_up(self, name: str, backends: Sequence[Backend], now: float) -> bool: ...
    async def relayhost_failure(self, name: str) -> Failure | None: ...


class Connector:
    """One relayhost's SSH connection, on demand.

    see_through: runs what must not be cancelled. notices_owed: called when a commit made notices owed. changed: called when
    the scheduler should look again. now: the clock, epoch seconds.
    """

    def __init__(
        self,
        relayhost: Relayhost,
        spool: Spool,
        dial: Dial,
        terms: Terms,
        see_through: Callable[[Coroutine[Any, Any, None]], None],
        notices_owed: Callable[[], None],
        changed: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._relayhost = relayhost
        self._name = relayhost.name
        self._spool = spool
        self._dial = dial
        self._terms = terms
        self._see_through = see_through
        self._notices_owed = notices_owed
        self._changed = changed
        self._now = now
        self.connection: Connection | None = None
        """The connection, which may have ended already (`Connection.is_up`)."""
        self.retired: Connection | None = None
        """The connection of before the network changed: what is under way on it may end, nothing more is begun."""
        self.has_network_news = False
        """Whether the network has changed, and the scheduler has not yet done its part."""
        self._failure: Failure | None = None
        self._failures_before: int | None = None
        self._is_to_be_tried = False
        self._dialling: asyncio.Timeout | None = None
        self._is_open = False
        self._dialled_at = self._tried_at = -math.inf
        self._dialled = 0.0
        self._expected_until = 0.0
        self._wishes: set[asyncio.Future[Connection | Outcome]] = set()
        self._streams: Counter[Connection] = Counter()
        self._lent_until = 0.0

    @property
    def trouble(self) -> str:
        """Why the way is known to be shut, not escaped; "" if it is not known to be."""
        return self._failure.text if self._failure is not None else ""

    def expect(self) -> None:
        """There is a reason to dial ahead of mail."""
        is_news = not self.is_expected
        self._expected_until = time.monotonic() + EXPECTATION
        if is_news:
            self._changed()

    @property
    def is_expected(self) -> bool:
        return time.monotonic() < self._expected_until

    def network_changed(self, change: NetworkChange) -> None:
        """The network is another one, or the computer has slept."""
        connection = self.connection
        if (
            connection is not None
            and connection.is_up
            and (
                change.suspended
                or connection.address in change.removed_addresses
                or (change.may_connect and time.monotonic() - self._dialled_at > YOUNG)
            )
        ):
            connection.check_alive()
            self.retired, self.connection = connection, None
        if change.may_connect or change.suspended:
            self.has_network_news = self._is_to_be_tried = True
            self._failures_before = self._failure.failures if self._failure is not None else 0
            if self._dialling is not None and self._dialling.when() is None:
                # It may be on its way through a network that is gone.
                self._dialling.reschedule(asyncio.get_running_loop().time() + DIAL_GRACE)
        self._changed()

    def lost(self) -> None:
        """The connection is of no use any more."""
        self.connection = None
        if time.monotonic() - self._dialled_at > YOUNG:
            # It stood: perhaps the network has changed, and nothing else says so.
            self._failures_before = self._failure.failures if self._failure is not None else 0

    async def bury(self) -> None:
        """Nothing is under way any more on the connection of before."""
        connection, self.retired = self.retired, None
        # It may be alive after all, and then what others run on it goes on.
        if connection is not None and not self._streams[connection]:
            await connection.close()
            log.info("relay=%s closed: the network has changed", self._name)

    def met(self) -> None:
        """What was expected, or to be tried, is here."""
        self._expected_until = 0.0
        self._is_to_be_tried = False

    @contextlib.asynccontextmanager
    async def stream(self, to: Endpoint) -> AsyncIterator[Stream | Outcome]:
        """A byte stream to `to`, as seen from there, or why there is none.

        The connection is dialled if there is none, and nobody hangs up before the context has ended and `linger` is over.
        """
        connection = await self._borrow()
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
                    # It has outlived its network, and nobody else needs it.
                    self._see_through(connection.close())
            self._lent_until = time.monotonic() + self._relayhost.linger
            self._changed()

    async def _borrow(self) -> Connection | Outcome:
        """The connection; or why there is none, once that is known."""
        if self.connection is not None and self.connection.is_up:
            return self.connection
        wish: asyncio.Future[Connection | Outcome] = asyncio.get_running_loop().create_future()
        self._wishes.add(wish)
        self._changed()
        try:
            return await wish
        finally:
            self._wishes.discard(wish)

    def _grant(self, connection: Connection | Outcome) -> None:
        for wish in self._wishes:
            if not wish.done():
                wish.set_result(connection)

    def decline(self, why: str) -> None:
        """Whoever wishes for the connection is not to wait for it."""
        self._grant(Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text=why))

    @property
    def is_wished_for(self) -> bool:
        return any(not wish.done() for wish in self._wishes)

    @property
    def is_lent(self) -> bool:
        """Whether others than mail have the connection, or have just been granted it."""
        return bool(self._wishes) or (self.connection is not None and self._streams[self.connection] > 0)

    @property
    def stays(self) -> float:
        """Seconds for which the connection stays though no mail needs it; infinity while nobody can say."""
        if self.is_lent or self._relayhost.linger == math.inf:
            return math.inf
        return max(0.0, self._lent_until - time.monotonic())

    def claim_dialled(self) -> float:
        """Seconds that the last dial took, once: for the message that had to wait for it."""
        dialled, self._dialled = self._dialled, 0.0
        return dialled

    @property
    def unrest(self) -> float:
        """Seconds for which nobody dials only to have a connection: one that ended soon may do so again."""
        return 0.0 if self._is_to_be_tried else max(0.0, self._dialled_at + REDIAL_INTERVAL - time.monotonic())

    async def look(self) -> None:
        """Read anew what is wrong with the way: a command of the person's may have cut the wait short."""
        if not self._is_open:
            self._failure = await self._spool.relayhost_failure(self._name)

    def pause(self, *, has_new_mail: bool) -> float:
        """Seconds until the next dial; 0 or less: now."""
        failure = self._failure
        if failure is None:
            return 0.0
        rest = failure.next_dial - self._now()
        ahead = self._ahead_of_time(failure, has_new_mail=has_new_mail)
        return rest if ahead is None else min(rest, self._tried_at + ahead - time.monotonic())

    def _ahead_of_time(self, failure: Failure, *, has_new_mail: bool) -> float | None:
        """Seconds after the last try from which one is worth while whatever the back-off says; None if none is."""
        if failure.cause in PENALISED:
            return PENALTY_SCHEDULE[0] if self._is_to_be_tried else None
        if self._is_to_be_tried and failure.cause in QUIET:
            return 0.0
        # The person is sending something: perhaps the way is open again.
        is_asked_for = has_new_mail or self.is_expected or self.is_wished_for
        return IMPATIENCE if self._is_to_be_tried or is_asked_for else None

    async def open(self) -> Connection | None:
        """Dials. None if the network changed meanwhile: then it is to be tried again, now. Raises Fault, which is for the
        scheduler to bring to `shut`."""
        began = time.monotonic()
        self._is_to_be_tried = False
        try:
            async with asyncio.timeout(None) as self._dialling:
                self.connection = await self._dial(self._relayhost)
        except TimeoutError:
            self._is_to_be_tried = True
            return None
        except Fault as fault:
            self._grant(fault.outcome)
            raise
        finally:
            self._dialling = None
            self._tried_at = self._dialled_at = time.monotonic()
            self._dialled = self._dialled_at - began
            self._expected_until = 0.0
        log.info("relay=%s connected in %.2f s", self._name, self._dialled)
        self._grant(self.connection)
        return self.connection

    async def hang_up(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.close()
            log.info("relay=%s closed", self._name)

    def usable(self) -> None:
        """The remote's mail server is ready for mail: whatever was wrong with the way is over."""
        self._failures_before = None
        if self._is_open:
            return
        self._is_open = True
        if self._failure is not None:
            self._failure = None
            self._see_through(self._up())
            log.info("relay=%s usable again", self._name)

    async def _up(self) -> None:
        backends = self._terms.backends_for(Kind.RESUMED, b"", b"")
        if await self._spool.relayhost_up(self._name, backends, self._now()):
            self._notices_owed()

    async def shut(self, outcome: Outcome) -> str:
        """The way is shut: all mail of this relayhost waits, and no attempt is counted for any of it. Returns why."""
        self._is_open = False
        self._tried_at = time.monotonic()
        setup = is_setup_fault(outcome)
        if setup and outcome.reply is not None:
            outcome = _refused(outcome, self._relayhost)
        failures = self._failure.failures + 1 if self._failure is not None else 1
        now = self._now()
        next_dial = now + self._wait(outcome.cause, failures)
        words = outcome.words.decode("utf-8", "backslashreplace")
        level = logging.ERROR if setup else logging.WARNING
        fix = f"; {outcome.fix}" if outcome.fix else ""
        log.log(level, "relay=%s unusable (%s: %s)%s", self._name, outcome.stage, printable(words), fix)
        backends = self._terms.backends_for(Kind.SETUP, b"", b"")
        await self._spool.relayhost_failed(self._name, outcome, next_dial, setup, backends, now)
        # Owed now, or once the mail that waits has waited for too long.
        self._notices_owed()
        self._failure = await self._spool.relayhost_failure(self._name)
        return words

    def _wait(self, cause: Cause, failures: int) -> float:
        """Seconds until the next dial, after so many that failed."""
        chance = random.random()  # noqa: S311
        if cause in PENALISED:
            return wait(PENALTY_SCHEDULE, failures, chance)
        if cause in QUIET and self._failures_before is not None:
            return wait((*SETTLING_SCHEDULE, *self._terms.schedule), max(1, failures - self._failures_before), chance)
        return wait(self._terms.schedule, failures, chance)


def _refused(outcome: Outcome, relayhost: Relayhost) -> Outcome:
    """The mail server there wants to hear nothing of us: its words say why, or its log."""
    server = relayhost.command or f"{relayhost.smtp}"
    fix = f"So says the mail server there ({server}). See its log; it must take mail from its own host."
    return dataclasses.replace(outcome, fix=printable(fix))
