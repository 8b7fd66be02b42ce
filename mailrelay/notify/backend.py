"""What a backend is: an async function that carries notices to the person, or says in one sentence why it could not.

A backend is called with one notice, or with several where one message to the person is to stand for them all. It returns
once they have left our hands for good, raises `BackendFailed` otherwise, and may be cancelled at any time.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from mailrelay.mail.envelope import Envelope
from mailrelay.mail.notice import Notice, Owed

Carry = Callable[[Sequence[Notice]], Coroutine[Any, Any, None]]


class BackendFailed(Exception):
    """The backend carried nothing; the notice stays owed. The text is one sentence that a person can act on, escaped."""


class Reports(Protocol):
    """What reports by mail need of the spool: that backend ends in it."""

    async def original(self, message: int, limit: int) -> bytes:
        """The first `limit` octets of the message's content, b"" if it is gone."""
        ...

    async def report(self, owed: Owed, envelope: Envelope, content: bytes, now: float) -> None:
        """Queues the report and marks `owed` as told, in one commit."""
        ...
