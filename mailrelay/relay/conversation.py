"""One conversation as its scheduler sees it: its phase, and how long it stays without mail."""

import asyncio
import enum
from collections.abc import Sequence
from typing import Protocol

from mailrelay.relay.jobs import Job

EXTRA_LINGER = 2.0
"""Seconds for which a conversation stays without mail while there are others: opening one costs round trips."""


class ConversationPhase(enum.Enum):
    OPENING = enum.auto()
    """From the opening of the channel to the reply to EHLO."""
    WORKING = enum.auto()
    """It has jobs, or asks for some."""
    IDLE = enum.auto()
    """It waits for mail, with none due."""
    LEAVING = enum.auto()
    """It takes no more jobs."""


class ConversationPort(Protocol):
    """What a conversation needs of its scheduler."""

    @property
    def linger(self) -> float:
        """Seconds for which the last conversation stays without mail; may be inf."""

    def conversation_ready(self, in_flight: int, server_names: Sequence[bytes]) -> None:
        """The mail server has replied to EHLO. in_flight: jobs that a conversation carries at once. server_names: its names
        for itself (`smtp.session`)."""

    async def next_jobs(self, limit: int) -> Sequence[Job]:
        """Up to `limit` jobs, none if none is due. Cancelling loses nothing."""

    def is_last(self, conversation: "Conversation") -> bool:
        """Whether all other conversations are leaving."""


class Conversation:
    """Gives jobs to the conversation that `delivery` runs (its `delivery.JobSource`)."""

    def __init__(self, scheduler: ConversationPort) -> None:
        self.phase = ConversationPhase.OPENING
        self._scheduler = scheduler
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is mail again, or the end of the scheduler."""
        self._woken.set()

    def ready(self, in_flight: int, server_names: Sequence[bytes]) -> None:
        self.phase = ConversationPhase.WORKING
        self._scheduler.conversation_ready(in_flight, server_names)

    async def next(self, limit: int) -> Sequence[Job]:
        self.phase = ConversationPhase.WORKING
        while not (jobs := await self._scheduler.next_jobs(limit)):
            self._woken.clear()
            self.phase = ConversationPhase.IDLE
            is_last = self._scheduler.is_last(self)
            linger = self._scheduler.linger if is_last else min(self._scheduler.linger, EXTRA_LINGER)
            try:
                async with asyncio.timeout(None if linger == float("inf") else linger):
                    await self._woken.wait()
            except TimeoutError:
                if is_last or not self._scheduler.is_last(self):
                    break
        self.phase = ConversationPhase.WORKING if jobs else ConversationPhase.LEAVING
        return jobs
