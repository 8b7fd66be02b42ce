"""Clients that wait for the result of their message.

A waiter is opened before the message is on disk, so that no result comes too early. After it is closed, a refusal becomes a
bounce.
"""

import asyncio
from dataclasses import dataclass, field, replace

from mailrelay.mail.lifecycle import State
from mailrelay.mail.outcome import Outcome, Reply

TOLD_WITHIN = 30.0
"""Seconds for a refusal to be written to the client; after that it counts as not told."""


@dataclass(frozen=True, slots=True)
class NotTaken:
    """A recipient for whom the mail server did not take the message. reason: not escaped."""

    address: bytes
    state: State
    reason: bytes


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """How an attempt ended for each recipient, unless the mail server refused all.

    taken: for how many recipients the mail server took the message. reply: its reply to the content, None if it took it for
    none. Recipients that failed or are held have notices, too. waiting: how many others it was not offered for; why: the
    reason, not escaped, "" if they go in the next transaction.
    """

    taken: int
    reply: Reply | None
    not_taken: tuple[NotTaken, ...]
    waiting: int = 0
    why: str = ""

    @property
    def total(self) -> int:
        """The number of recipients."""
        return self.taken + len(self.not_taken) + self.waiting


@dataclass(frozen=True, slots=True)
class Refused:
    """The mail server refused every recipient for good."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Queued:
    """The message waits in the spool; `why` is not escaped."""

    why: str


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """The spool is broken: whether the message will be found in it again is not known."""


Result = DeliveryResult | Refused | Queued | Unconfirmed


@dataclass(slots=True)
class Waiter:
    """The relay sets `result`. A client's side that gets `Refused` sets `told`: whether the client has received it.

    home: the relayhost of the message's sender. at: whose it is. so_far: the result of the transactions of a round that goes
    on, None before the first one has ended.
    """

    home: str
    at: "Waiters"
    so_far: DeliveryResult | None = None
    result: asyncio.Future[Result] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    told: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Waiters:
    """The waiters of a relayhost, by queue id. open_waiters: those of all relayhosts, because a fallback may send a message
    whose client waits at another relayhost.

    is_spool_broken: from then on, a client whose message was not taken by the mail server for all recipients gets
    `Unconfirmed`."""

    def __init__(self, open_waiters: dict[str, Waiter] | None = None) -> None:
        self.is_spool_broken = False
        self._open = open_waiters if open_waiters is not None else {}

    @property
    def queue_ids(self) -> frozenset[str]:
        """The messages whose result is waited for at this relayhost."""
        return frozenset(queue_id for queue_id, waiter in self._open.items() if waiter.at is self)

    def open(self, queue_id: str, home: str = "") -> Waiter:
        """From now on, the result of this message is kept for the client. home: the relayhost of its sender."""
        waiter = self._open[queue_id] = Waiter(home, self)
        return waiter

    def home(self, queue_id: str) -> str:
        """The relayhost of the sender of a message whose result is waited for."""
        return self._open[queue_id].home

    def adopt(self, queue_id: str) -> None:
        """The client, if it waits, waits at this relayhost: it sends the message."""
        if queue_id in self._open:
            self._open[queue_id].at = self

    def close(self, queue_id: str) -> None:
        """The client waits no more."""
        self._open.pop(queue_id, None)

    def add(self, queue_id: str, part: DeliveryResult) -> None:
        """A transaction of a round has ended, and the round goes on: the client waits for its end. part: its `waiting` are
        all the recipients that are left."""
        waiter = self._open.get(queue_id)
        if waiter is not None:
            waiter.so_far = part if waiter.so_far is None else _joined(waiter.so_far, part)

    def tell(self, queue_id: str, result: DeliveryResult | Queued) -> None:
        """Gives the result to the client, if it waits; after other transactions of the same round, that of all together."""
        waiter = self._open.pop(queue_id, None)
        if waiter is None or waiter.result.done():
            return
        if waiter.so_far is not None:
            result = _joined(waiter.so_far, result)
        is_sent = isinstance(result, DeliveryResult) and result.taken == result.total
        waiter.result.set_result(Unconfirmed() if self.is_spool_broken and not is_sent else result)

    async def tell_refusal(self, queue_id: str, refused: Refused) -> bool:
        """Gives a refusal to the client, if it waits. Returns whether the client has received it."""
        waiter = self._open.pop(queue_id, None)
        if waiter is None or waiter.result.done():
            return False
        waiter.result.set_result(refused)
        # `wait_for` would cancel `told` at the time-out, and the listener may set it later.
        await asyncio.wait({waiter.told}, timeout=TOLD_WITHIN)
        return waiter.told.done() and waiter.told.result()


def _joined(so_far: DeliveryResult, result: DeliveryResult | Queued) -> DeliveryResult:
    """The result of a round so far, and that of its next transaction."""
    if isinstance(result, Queued):
        return replace(so_far, why=result.why)
    return DeliveryResult(
        so_far.taken + result.taken,
        result.reply or so_far.reply,
        (*so_far.not_taken, *result.not_taken),
        result.waiting,
        result.why,
    )
