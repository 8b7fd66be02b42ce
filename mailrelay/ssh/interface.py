"""The SSH connection as other packages see it: `Dial` opens one, `Connection` is its use, `Fault` its failure.

Imports no SSH library and nothing else that is slow to load, because the relay imports it at start.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mailrelay.config import Relayhost
from mailrelay.endpoint import Endpoint
from mailrelay.mail.outcome import Outcome
from mailrelay.tracking.question import Answer, Question


class Fault(Exception):
    """A relayhost cannot be used. outcome: the reason, with the scope relayhost."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome


class NotRecorded(Exception):
    """The relayhost keeps no record of a conversation, or does not show its records. The text is one sentence, escaped.

    is_temporary: another time it may (no more sessions now, or it did not answer in time).
    """

    def __init__(self, text: str, *, is_temporary: bool = False) -> None:
        super().__init__(text)
        self.is_temporary = is_temporary


class NotAnswered(Exception):
    """The relayhost gives no answer to a question about mail there. The text is one sentence, escaped.

    is_temporary: it opens no more sessions now (MaxSessions).
    """

    def __init__(self, text: str, *, is_temporary: bool = False) -> None:
        super().__init__(text)
        self.is_temporary = is_temporary


@dataclass(frozen=True, slots=True)
class RecordRead:
    """The record of a conversation. octets: those of the mail server, in order, from the greeting on.

    is_complete: the mail server said nothing more before it closed the connection. is_growing: the recorder still waits for
    the mail server, so that the record may be complete later.
    """

    octets: bytes
    is_complete: bool
    is_growing: bool = False


class Channel(Protocol):
    """A byte stream to the mail server. written: octets that were queued by now."""

    written: int

    @property
    def acknowledged(self) -> int:
        """How many of them have left this computer, and are not known to wait before the mail server: for small ones an
        estimate. Never fewer than before."""

    async def read(self) -> bytes:
        """The next octets; b"" once the other side has ended the stream, and all its octets were read. Raises
        ConnectionError."""

    def write(self, data: bytes) -> None:
        """Queues octets; does not wait. Raises ConnectionError."""

    async def drain(self) -> None:
        """Waits until most of the queued octets have been sent. Raises ConnectionError."""

    def close(self) -> None: ...


class RecordedChannel(Channel, Protocol):
    """A byte stream to the mail server through a recorder. is_ehlo_sent: the recorder sends EHLO behind the greeting."""

    is_ehlo_sent: bool


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

    async def check_forwarding(self) -> None:
        """Raises Fault if the SSH server prohibits forwarding to the mail server."""

    async def open_recorded(self, token: str, *, with_ehlo: bool = False) -> RecordedChannel:
        """A new byte stream to the mail server, whose replies the relayhost records under `token` (32 hexadecimal digits).
        with_ehlo: the recorder is to send EHLO, if it can. Raises Fault, and NotRecorded if the relayhost cannot record."""

    async def read_records(self, tokens: Sequence[str]) -> Mapping[str, RecordRead]:
        """Ends these recorders and returns their records; no entry for a token without a record. Takes ten seconds and more
        if a mail server still works. Raises Fault, and NotRecorded if the relayhost does not show them."""

    async def remove_records(self, tokens: Sequence[str]) -> None:
        """Removes these records, and those that are older than seven days. Raises as `read_records`."""

    async def ask(self, question: Question) -> Answer:
        """What is known on the relayhost about mail that its mail server has accepted. Takes 20 seconds and a little more at
        most. Raises Fault, and NotAnswered if the account may run no command, or the answer is not complete."""

    async def open_stream(self, to: Endpoint) -> Stream:
        """A new byte stream to `to`, as seen from the relayhost. Raises Fault."""

    async def wait_closed(self) -> None: ...
    async def close(self) -> None:
        """Closes the connection. Takes at most a few seconds and never raises."""


Dial = Callable[[Relayhost], Coroutine[Any, Any, Connection]]
"""A function that connects to a relayhost and logs in. Raises Fault. Leaves nothing open if it is cancelled."""
