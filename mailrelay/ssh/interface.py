"""What the relay knows of an SSH connection, whichever library makes it: how it is asked for and used, and how it fails.

Imports nothing that is slow to load: who waits for mail needs none of SSH.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from mailrelay.config import Relayhost
from mailrelay.mail.outcome import Outcome


class Fault(Exception):
    """What keeps a relayhost from being used, as an outcome of scope relayhost."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome


class Channel(Protocol):
    """A byte stream to the remote's mail server."""

    async def read(self) -> bytes: ...
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...


class Stream(Channel, Protocol):
    """A byte stream to anything else there."""

    def write_eof(self) -> None: ...
    def abort(self) -> None: ...
    async def wait_closed(self) -> None: ...


class Connection(Protocol):
    """An SSH connection to a relayhost."""

    @property
    def is_up(self) -> bool: ...
    @property
    def address(self) -> str:
        """The address from which it goes, as inet_ntop(3) writes it; "" where that is not known (ProxyCommand)."""

    def doubt(self) -> None:
        """From now on a moment's silence ends it: its network may have gone."""

    async def open_channel(self) -> Channel:
        """A new byte stream to the mail server there. Raises Fault."""

    async def open_stream(self, to: str) -> Stream:
        """A new byte stream to "host:port" or "unix:/path", as seen from there. Raises Fault."""

    async def wait_closed(self) -> None: ...
    async def close(self) -> None:
        """Takes at most a few seconds and never raises."""


Dial = Callable[[Relayhost], Coroutine[Any, Any, Connection]]
"""Connects and logs in. Raises Fault. Cancelling leaves nothing open."""
