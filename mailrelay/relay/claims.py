"""Claims mail for conversations: opens attempts in the spool, one commit for all conversations that ask meanwhile.

Promises: a claimed message reaches the conversation that asked, or is put back; a message that has just arrived goes first.
Nothing is claimed that no conversation asked for: an attempt that is open when the process dies counts as begun, and its
message may arrive twice.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from mailrelay.mail.completion import Completion
from mailrelay.mail.envelope import Message
from mailrelay.ports import RelayPort
from mailrelay.relay.results import Results

PORTION = 8
"""Messages that one conversation gets at most: each portion costs a commit, and a message that one conversation holds is
sent by no other."""


@dataclass(frozen=True, slots=True)
class _Request:
    portion: asyncio.Future[Sequence[Message]]
    limit: int


class Claims:
    """Claims the mail of one relayhost.

    may_begin: whether anything may be begun. failed: called when the spool fails. completion: what bare addresses of the
    messages become. others: the relayhosts in whose place this one sends now.
    new: keys of messages that have just arrived, in their order. asking: how many conversations wait for messages. claimed:
    how many messages were claimed so far.
    """

    def __init__(
        self,
        relayhost: str,
        spool: RelayPort,
        results: Results,
        may_begin: Callable[[], bool],
        failed: Callable[[Exception], object],
        completion: Callable[[], Completion],
        others: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self.new: dict[int, None] = {}
        self.asking = 0
        self.claimed = 0
        self._relayhost = relayhost
        self._spool = spool
        self._results = results
        self._may_begin = may_begin
        self._failed = failed
        self._completion = completion
        self._others = others
        self._requests: list[_Request] = []
        self._is_running = False

    async def ask(self, limit: int) -> Sequence[Message]:
        """A message to send, or up to `limit` small ones, with open attempts; none if none is due. Cancelling loses
        nothing."""
        request = _Request(asyncio.get_running_loop().create_future(), min(limit, PORTION))
        self._requests.append(request)
        if not self._is_running:
            self._is_running = True
            self._results.run_to_end(self._claim())
        self.asking += 1
        try:
            return await request.portion
        except asyncio.CancelledError:
            if not request.portion.cancelled() and (messages := request.portion.result()):
                self._results.put_back(messages)
            raise
        finally:
            self.asking -= 1

    async def _claim(self) -> None:
        while self._requests:
            requests, self._requests = self._requests, []
            await self._claim_for([request for request in requests if not request.portion.done()])
        self._is_running = False

    async def _claim_for(self, requests: Sequence[_Request]) -> None:
        limits = [request.limit for request in requests]
        found: list[Message] = []
        if requests and self._may_begin():
            first = list(islice(self.new, len(requests)))
            more = sum(limits) - len(limits)
            try:
                found = await self._spool.take(
                    self._relayhost, first, len(requests), more, self._completion(), self._others()
                )
            except Exception as error:
                self._failed(error)
            # The spool may have given other new messages, too.
            for key in (*first, *(message.id for message in found)):
                self.new.pop(key, None)
        self.claimed += len(found)
        for request, portion in zip(requests, dealt(found, limits), strict=True):
            if not request.portion.done():
                request.portion.set_result(portion)
            elif portion:
                # The conversation has ended meanwhile.
                self._results.put_back(portion)


def dealt(messages: Sequence[Message], limits: Sequence[int]) -> list[list[Message]]:
    """A portion for each limit, dealt like cards, one message at a time. There are no more messages than the limits allow
    together."""
    portions: list[list[Message]] = [[] for _ in limits]
    unfilled = deque(zip(portions, limits, strict=True))
    for message in messages:
        portion, limit = unfilled.popleft()
        portion.append(message)
        if len(portion) < limit:
            unfilled.append((portion, limit))
    return portions
