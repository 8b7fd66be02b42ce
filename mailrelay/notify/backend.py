"""The interface of a notice backend: an async function that delivers notices to the person.

A backend is called with one notice, or with several that it sums up as one where it can. It returns once the notices are
delivered and cannot be lost any more, and raises `BackendFailed` otherwise. It may be cancelled at any time.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from mailrelay.mail.envelope import Envelope
from mailrelay.mail.notice import Notice, Owed

Deliver = Callable[[Sequence[Notice]], Coroutine[Any, Any, None]]


class BackendFailed(Exception):
    """The backend delivered nothing; the notice stays pending. The text is one sentence with a fix, escaped."""


class Reports(Protocol):
    """The part of the spool that the `dsn` backend needs, which delivers by queueing a message."""

    async def original(self, message: int, limit: int) -> bytes:
        """The first `limit` octets of the message's content, b"" if it is gone."""
        ...

    async def report(self, owed: Owed, envelope: Envelope, content: bytes, now: float) -> None:
        """Queues the report and marks the notice `owed` as delivered, in one commit."""
        ...
