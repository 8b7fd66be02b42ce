"""The content of one message that is being sent: its progress, and whether the person wants to stop it.

A content can be stopped until its end is about to be written: from then on the mail server may accept the message. The rate
is measured only when it is asked for.
"""

import asyncio
import enum
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mailrelay.mail.pace import Pace
from mailrelay.ssh.interface import Channel


class Phase(enum.Enum):
    BEFORE = enum.auto()
    """No octet of the content was read yet."""
    STARTED = enum.auto()
    """It is being read and written."""
    COMPLETE = enum.auto()
    """Its end is written, or about to be: the mail server may accept the message."""


@dataclass(slots=True, eq=False)
class Transfer:
    """The state of the transfer of one content.

    is_stop_wanted: the person wants to cancel the message, and it can still be stopped. is_cancelled: the message is
    cancelled on disk. ended: set when the job has ended; after a stop, when the spool has written the result. wake: called
    after `is_stop_wanted` was set, so that the conversation reads it.
    """

    phase: Phase = Phase.BEFORE
    is_stop_wanted: bool = False
    is_cancelled: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    wake: Callable[[], None] = lambda: None
    _channel: Channel | None = None
    _pace: Pace = field(default_factory=lambda: Pace(0.0))
    # Octets of the content that are not written yet, and those that are.
    _unwritten: int = 0
    _written: int = 0
    # `Channel.written` after the last write of octets of the content.
    _position: int = 0
    _acknowledged: int = 0

    def begin(self, channel: Channel) -> None:
        """The content is about to be read."""
        self.phase = Phase.STARTED
        self._channel = channel
        self._pace = Pace(time.monotonic())

    def add(self, octets: int) -> None:
        """The next write to the channel will have so many more octets of the content."""
        self._unwritten += octets

    def mark_written(self) -> None:
        """The octets of `add` were written to the channel."""
        if self._channel is not None:
            self._written += self._unwritten
            self._unwritten = 0
            self._position = self._channel.written

    def end(self) -> None:
        """The end of the content is about to be written."""
        self.phase = Phase.COMPLETE

    @property
    def octets(self) -> int:
        """Octets of the content that have arrived, as an estimate (`Channel.acknowledged`); never fewer than before."""
        if self._channel is not None:
            # `_position` also counts the end of the content, and commands, if they were written with the last octets.
            found = self._written - max(0, self._position - self._channel.acknowledged)
            self._acknowledged = max(self._acknowledged, found)
        return self._acknowledged

    def octets_and_rate(self) -> tuple[int, float]:
        """`octets`, and the rate in octets a second (`mail.pace`)."""
        octets = self.octets
        return octets, self._pace.rate(octets, time.monotonic())

    def want_stop(self) -> bool:
        """Asks the conversation to stop the content. Returns False if it is too late: its end is written."""
        if self.phase is Phase.COMPLETE:
            return False
        self.is_stop_wanted = True
        self.wake()
        return True
