"""The wait of a mail client for the remote's word on one recipient, before there is a message.

A conversation with nothing better to do asks, by MAIL and RCPT alone. Who asked may give up at any time (cancel `word`),
and a conversation that ends leaves it unanswered: then nothing is known, and the message itself will show.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Outcome


@dataclass(frozen=True, slots=True, eq=False)
class RcptProbe:
    """A question. id: below 0, so that it is no message's. envelope: has one recipient. word: what the remote said to MAIL
    or RCPT, None if that cannot be had."""

    id: int
    envelope: Envelope
    size: None = None
    word: asyncio.Future[Outcome | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def answer(self, outcomes: Sequence[Outcome]) -> None:
        """The outcome of its recipient, or none."""
        if not self.word.done():
            self.word.set_result(next(iter(outcomes), None))
