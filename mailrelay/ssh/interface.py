"""The SSH connection as other packages see it: how to get one, how to use it, and how it fails.

Imports no SSH library and nothing else that is slow to load, because the relay imports it at start.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from mailrelay.config import Relayhost
from mailrelay.endpoint import Endpoint
from mailrelay.mail.outcome import Outcome


class Fault(Exception):
    """A relayhost cannot be used. outcome: the reason, of scope relayhost."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome


class Channel(Protocol):
    """A byte stream to the mail server."""

    async def read(self) -> bytes: ...
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...


class Stream(Channel, Protocol):
    """A byte stream to another endpoint, for a forward."""

    def write_eof(self) -> None: ...
    def abort(self) -> None: ...
    async def wait_closed(self) -> None: ...


class Connection(Protocol):
    """An SSH connection to a relayhost."""

    @property
    def is_up(self) -> bool: ...
    @property
    def address(self) -> str:
        """Our own address on the connection, as inet_ntop(3) writes it; "" if it is not known (ProxyCommand)."""

    def check_alive(self) -> None:
        """Asks the server for a sign of life and ends the connection if none comes within two seconds."""

    async def open_channel(self) -> Channel:
        """A new byte stream to the mail server. Raises Fault."""

    async def open_stream(self, to: Endpoint) -> Stream:
        """A new byte stream to `to`, as seen from the relayhost. Raises Fault."""

    async def wait_closed(self) -> None: ...
    async def close(self) -> None:
        """Takes at most a few seconds and never raises."""


Dial = Callable[[Relayhost], Coroutine[Any, Any, Connection]]
"""Connects and logs in. Raises Fault. Leaves nothing open if it is cancelled."""
