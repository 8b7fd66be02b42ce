"""Takes mail out of the spool for conversations; one commit opens the attempts of all that ask meanwhile.

Promises: a message that was taken reaches one who asked, or is put back; what has just come in goes first. Nothing is taken
that nobody asked for: what is open when we die counts as begun, and may arrive twice.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from mailrelay.mail.envelope import Message
from mailrelay.relay.results import Results

PORTION = 8
"""Messages that one who asks gets at most: for each portion the disk is waited for, and what one has no other sends."""


class Spool(Protocol):
    """What taking needs of the spool. It is on disk when awaited."""

    async def take(self, relayhost: str, first: Sequence[int], limit: int, more: int) -> list[Message]: ...


@dataclass(frozen=True, slots=True)
class _Asker:
    portion: asyncio.Future[Sequence[Message]]
    limit: int


class Claims:
    """Takes the mail of one relayhost.

    may_take: whether anything may be begun. failed: called where the spool fails.
    new: keys of messages that have just come in, in their order. asking: how many wait for mail. taken: how many messages
    were, so far.
    """

    def __init__(
        self,
        relayhost: str,
        spool: Spool,
        settlement: Results,
        may_take: Callable[[], bool],
        failed: Callable[[Exception], object],
    ) -> None:
        self.new: dict[int, None] = {}
        self.asking = 0
        self.taken = 0
        self._relayhost = relayhost
        self._spool = spool
        self._settlement = settlement
        self._may_take = may_take
        self._failed = failed
        self._askers: list[_Asker] = []
        self._is_at_it = False

    async def ask(self, limit: int) -> Sequence[Message]:
        """A message to send, or up to `limit` small ones, with their attempts opened; none if none is due. Cancelling loses
        nothing."""
        asker = _Asker(asyncio.get_running_loop().create_future(), min(limit, PORTION))
        self._askers.append(asker)
        if not self._is_at_it:
            self._is_at_it = True
            self._settlement.see_through(self._take())
        self.asking += 1
        try:
            return await asker.portion
        except asyncio.CancelledError:
            if not asker.portion.cancelled() and (messages := asker.portion.result()):
                self._settlement.put_back(messages)
            raise
        finally:
            self.asking -= 1

    async def _take(self) -> None:
        while self._askers:
            askers, self._askers = self._askers, []
            await self._take_for([asker for asker in askers if not asker.portion.done()])
        self._is_at_it = False

    async def _take_for(self, askers: Sequence[_Asker]) -> None:
        limits = [asker.limit for asker in askers]
        found: list[Message] = []
        if askers and self._may_take():
            first = list(islice(self.new, len(askers)))
            more = sum(limits) - len(limits)
            try:
                found = await self._spool.take(self._relayhost, first, len(askers), more)
            except Exception as error:
                self._failed(error)
            # Beside those that go first, others that are new may have been found.
            for key in (*first, *(message.id for message in found)):
                self.new.pop(key, None)
        self.taken += len(found)
        for asker, portion in zip(askers, dealt(found, limits), strict=True):
            if not asker.portion.done():
                asker.portion.set_result(portion)
            elif portion:
                # Who asked for it has gone.
                self._settlement.put_back(portion)


def dealt(messages: Sequence[Message], limits: Sequence[int]) -> list[list[Message]]:
    """A portion for each limit, dealt round and round: no more messages than the limits allow together."""
    portions: list[list[Message]] = [[] for _ in limits]
    hungry = deque(zip(portions, limits, strict=True))
    for message in messages:
        portion, limit = hungry.popleft()
        portion.append(message)
        if len(portion) < limit:
            hungry.append((portion, limit))
    return portions
