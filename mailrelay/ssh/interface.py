"""The SSH connection as other packages see it: `Dial` opens one, `Connection` is its use, `Fault` its failure.

Imports no SSH library and nothing else that is slow to load, because the relay imports it at start.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from mailrelay.config import Relayhost
from mailrelay.endpoint import Endpoint
from mailrelay.mail.outcome import Outcome


class Fault(Exception):
    """A relayhost cannot be used. outcome: the reason, with the scope relayhost."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome


class Channel(Protocol):
    """A byte stream to the mail server."""

    async def read(self) -> bytes:
        """The next octets; b"" once the other side has ended the stream, and all its octets were read. Raises
        ConnectionError."""

    def write(self, data: bytes) -> None:
        """Queues octets; does not wait. Raises ConnectionError."""

    async def drain(self) -> None:
        """Waits until most of the queued octets have been sent. Raises ConnectionError."""

    def close(self) -> None: ...


class Stream(Channel, Protocol):
    """A byte stream to an endpoint other than the mail server, for a forward."""

    def write_eof(self) -> None: ...
    def abort(self) -> None: ...
    async def wait_closed(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TcpState:
    """The TCP connection to the first hop, as the kernel knows it.

    silence: seconds since the hop last acknowledged anything. round_trip: seconds within which the kernel expects an
    acknowledgement: the mean and four times its variation (RFC 6298).
    """

    silence: float
    round_trip: float


class Connection(Protocol):
    """An SSH connection to a relayhost."""

    @property
    def is_up(self) -> bool:
        """Whether the connection can still be used, as far as is known."""

    @property
    def address(self) -> str:
        """Our own address on the connection, as inet_ntop(3) writes it; "" if it is not known (ProxyCommand)."""

    @property
    def account(self) -> str:
        """The account on the relayhost, as ssh(1) has it."""

    @property
    def host(self) -> str:
        """The host name of the relayhost, as ssh(1) has it: a name or an IP address."""

    @property
    def tcp_state(self) -> TcpState | None:
        """None if it is not known (ProxyCommand, or a system other than Linux)."""

    def check_alive(self, patience: float) -> None:
        """From now on, ends the connection if nothing comes from the server for `patience` seconds, although it is asked for
        a reply. Does not wait for it."""

    async def response(self) -> None:
        """Asks the server once for a reply. Returns when any octets come from it, or the connection ends."""

    async def open_channel(self) -> Channel:
        """A new byte stream to the mail server. Raises Fault."""

    async def open_stream(self, to: Endpoint) -> Stream:
        """A new byte stream to `to`, as seen from the relayhost. Raises Fault."""

    async def wait_closed(self) -> None: ...
    async def close(self) -> None:
        """Closes the connection. Takes at most a few seconds and never raises."""


Dial = Callable[[Relayhost], Coroutine[Any, Any, Connection]]
"""A function that connects to a relayhost and logs in. Raises Fault. Leaves nothing open if it is cancelled."""
