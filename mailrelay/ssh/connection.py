"""An SSH connection to a relayhost: opens one byte stream for each SMTP conversation, and for each client of a forward.

    channel = await connection.open_channel()     # to the mail server; open_stream(endpoint): to another endpoint
    await channel.read(); channel.write(b"EHLO …"); await channel.drain()

Promises: every failure is a `Fault` with one sentence, and the fix if the person must act. Every wait has a time limit.
"""

import asyncio
import copy
import dataclasses
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import cast

import asyncssh

from mailrelay.config import Relayhost
from mailrelay.endpoint import Endpoint, Tcp, Unix
from mailrelay.mail import setup_reply
from mailrelay.mail.outcome import SETUP_REPLIES, Outcome
from mailrelay.ssh import errors, mail_question, recorder
from mailrelay.ssh.asyncssh_patches import (
    SERVER_FAULT,
    ServerFault,
    call_after_receive,
    forgive_keepalives,
    packet_size,
    request_reply,
)
from mailrelay.ssh.channel import RelayhostChannel
from mailrelay.ssh.flow_control import FlowControl
from mailrelay.ssh.hop_connection import HopConnection, close, with_session
from mailrelay.ssh.hops import Hop
from mailrelay.ssh.interface import Fault, NotAnswered, NotRecorded, RecordRead, TcpState
from mailrelay.ssh.tcp import octets_acknowledged, tcp_state
from mailrelay.tracking.question import Answer, Question

CLOSED = Tcp("localhost", 1)
"""A port on which no server listens."""
CHANNEL_TIMEOUT = 30.0
"""Seconds for the server to open a channel."""
MIN_PACKET = 1024
"""Octets that a server must take in one packet of a channel. RFC 4253 section 6.1 requires 32768; each packet costs time."""
GREETING_TIMEOUT = 300.0
"""Seconds for a command to send its greeting (RFC 5321 section 4.5.3.2.1)."""
KEEPALIVES = 3
"""Requests without a reply after which a connection whose network may be gone ends."""
PROGRESS = 1024
"""Octets that must be acknowledged between two keepalive requests for the connection to count as slow, not as dead."""


class RelayhostConnection:
    """Implements `interface.Connection`. Made by `dial`.

    hop: the last one, the relayhost itself. connections: to all hops, the relayhost's last.
    """

    def __init__(self, relayhost: Relayhost, hop: Hop, connections: list[HopConnection]) -> None:
        self._relayhost = relayhost
        self._hop = hop
        self._connections = connections
        self._connection = connections[-1]
        self._flow_control = FlowControl(connections)
        # Set when octets have come from the relayhost, and at the end of the connection.
        self._heard = asyncio.Event()
        self._can_hear = call_after_receive(self._connection, self._heard.set)
        for connection in connections:
            forgive_keepalives(connection, _Progress(connections[0]))

    @property
    def is_up(self) -> bool:
        """Whether the connection is open, as far as is known."""
        return not self._connection.is_closed()

    @property
    def address(self) -> str:
        """Our own address on the connection to the first hop; "" for a ProxyCommand."""
        sockname = self._connections[0].get_extra_info("sockname")
        return str(sockname[0]) if sockname else ""

    @property
    def account(self) -> str:
        """The user of the last hop."""
        return self._hop.user

    @property
    def host(self) -> str:
        """The host name of the last hop."""
        return self._hop.host

    @property
    def tcp_state(self) -> TcpState | None:
        """The TCP connection to the first hop; None if it is not known."""
        sock = self._connections[0].get_extra_info("socket")
        return tcp_state(sock) if sock is not None else None

    def check_alive(self, patience: float) -> None:
        """Ends the connection if nothing comes from the server for `patience` seconds: its network may be gone."""
        # The interval after the last request is a wait, too.
        self._connection.set_keepalive(patience / (KEEPALIVES + 1), KEEPALIVES)

    async def response(self) -> None:
        """Asks the server once for a reply. Returns when any octets come from it, or the connection ends.

        Returns at once if this version of the library cannot ask or does not report octets: the connection counts as alive.
        """
        self._heard.clear()
        if self._can_hear and self.is_up and request_reply(self._connection):
            closing = asyncio.ensure_future(self.wait_closed())
            try:
                await self._heard.wait()
            finally:
                closing.cancel()

    async def wait_closed(self) -> None:
        """Waits until either side has closed the connection, or the network has broken it."""
        await self._connection.wait_closed()
        self._released()

    async def close(self) -> None:
        """Closes the connections to all hops. Takes at most a few seconds and never raises."""
        self._released()
        await close(self._connections)

    def _released(self) -> None:
        self._flow_control.release()
        self._heard.set()

    def with_command(self, command: str) -> "RelayhostConnection":
        """The same connection with another mail path: a command, or "" for port forwarding."""
        other = copy.copy(self)
        other._relayhost = self._relayhost._replace(command=command)
        return other

    @property
    def helo(self) -> str:
        """The argument of EHLO for the mail server."""
        return self._relayhost.helo

    def refusal(self, outcome: Outcome) -> Fault:
        """The fault of a mail server that refuses all mail, with its fix. outcome: of scope relayhost."""
        if outcome.cause not in SETUP_REPLIES:
            return Fault(outcome)
        return Fault(dataclasses.replace(outcome, fix=setup_reply.fix(outcome.cause, self._relayhost)))

    async def open_channel(self) -> RelayhostChannel:
        """A new channel to the mail server. Raises Fault of stage channel."""
        if not self._relayhost.command:
            return await self._open(self._forward(self._relayhost.smtp), self._channel_fault)
        channel = await self._open(
            with_session(self._connection, lambda: self._run(self._relayhost.command)), self._channel_fault
        )
        try:
            async with asyncio.timeout(GREETING_TIMEOUT):
                output = await channel.skip_to_greeting()
        except (TimeoutError, ConnectionError) as error:
            channel.close()
            raise self._channel_fault(error) from error
        except BaseException:
            channel.close()
            raise
        if output is not None:
            channel.close()
            raise Fault(errors.no_greeting(output, self._relayhost, self._hop))
        return channel

    async def open_stream(self, to: Endpoint) -> RelayhostChannel:
        """A new channel to `to`, as seen from the relayhost. Raises Fault of stage channel."""

        def fault(error: Exception) -> Fault:
            return Fault(errors.stream_failed(error, to, self._hop, is_up=self.is_up))

        return await self._open(self._forward(to), fault)

    async def check_forwarding(self) -> None:
        """Raises Fault if the server prohibits forwarding to the mail server. In most cases the mail server sees no
        connection of it: forwarding to a port that is closed is refused in another way where it is prohibited."""
        try:
            channel = await self._open(self._forward(CLOSED), lambda error: error)
        except asyncssh.ChannelOpenError as error:
            if error.code != asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
                return
            # The server may permit the mail server alone.
            channel = await self.open_channel()
        except (asyncssh.Error, OSError) as error:
            raise self._channel_fault(error) from error
        channel.close()

    async def open_recorded(self, token: str, *, with_ehlo: bool = False) -> RelayhostChannel:
        """As `open_channel`, through a recorder on the relayhost (`ssh.recorder`). token: names the record, 32 hexadecimal
        digits. with_ehlo: the recorder is to send EHLO, if it can. Raises Fault, and NotRecorded if no record can be kept,
        or the recorder does not start in time."""
        smtp = self._relayhost.smtp
        if self._relayhost.command:
            raise NotRecorded("A conversation through a command of the settings is not recorded.")
        until = asyncio.get_running_loop().time() + recorder.START
        channel = await self._session(
            recorder.record_command(token, smtp, self.helo if with_ehlo else ""), within=recorder.START
        )
        try:
            unreached = await recorder.start(channel, token, until)
        except ConnectionError as error:
            channel.close()
            raise self._channel_fault(error) from error
        except BaseException:
            channel.close()
            raise
        channel.must_succeed = True
        if unreached:
            channel.close()
            raise self._channel_fault(asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, unreached))
        return channel

    async def read_records(self, tokens: Sequence[str]) -> Mapping[str, RecordRead]:
        """Ends the recorders with these tokens, and returns their records; no entry for a token without a record. Raises
        Fault, and NotRecorded if the relayhost does not show them."""
        try:
            return await recorder.read(self._session, tokens)
        except ConnectionError as error:
            raise self._channel_fault(error) from error

    async def remove_records(self, tokens: Sequence[str]) -> None:
        """Removes the records with these tokens, and those older than seven days. Raises as `read_records`."""
        try:
            await recorder.remove(self._session, tokens)
        except ConnectionError as error:
            raise self._channel_fault(error) from error

    async def ask(self, question: Question) -> Answer:
        """What is known on the relayhost about mail that its mail server has accepted (`ssh.mail_question`). Takes 20 s
        and a little more at most. Raises Fault, and NotAnswered if there is no complete answer."""
        try:
            return await mail_question.ask(lambda command: self._session(command, mail_question.refused), question)
        except ConnectionError as error:
            if self.is_up:
                raise NotAnswered(f"The question about mail there was broken off: {errors.message(error)}.") from error
            raise self._channel_fault(error) from error

    async def _session(
        self,
        command: str,
        refused: Callable[[Exception], Exception] = recorder.refused,
        within: float | None = None,
    ) -> RelayhostChannel:
        """Runs a command of ours. within: seconds, by default `recorder.TIMEOUT`. Raises Fault, and what `refused` makes of
        an error if the relayhost does not run it."""

        def failure(error: Exception) -> Exception:
            if self.is_up and isinstance(error, asyncssh.ChannelOpenError | TimeoutError):
                return refused(error)
            return self._channel_fault(error)

        opening = with_session(self._connection, lambda: self._run(command))
        return await self._open(opening, failure, within=recorder.TIMEOUT if within is None else within)

    async def _forward(self, to: Endpoint) -> RelayhostChannel:
        if isinstance(to, Unix):
            reader, writer = await self._connection.open_unix_connection(to.path)
        else:
            reader, writer = await self._connection.open_connection(to.host, to.port)
        return self._channel(cast(asyncssh.SSHReader[bytes], reader), cast(asyncssh.SSHWriter[bytes], writer), None)

    async def _run(self, command: str) -> RelayhostChannel:
        writer, reader, stderr = await self._connection.open_session(
            command, encoding=None, request_pty=False, env=None, send_env=None, x11_forwarding=False
        )
        return self._channel(reader, writer, stderr)

    def _channel(
        self,
        reader: asyncssh.SSHReader[bytes],
        writer: asyncssh.SSHWriter[bytes],
        stderr: asyncssh.SSHReader[bytes] | None,
    ) -> RelayhostChannel:
        size = packet_size(writer.channel)
        if size < MIN_PACKET:
            writer.channel.abort()
            raise ServerFault(f"it takes only {size} octets in one packet")
        return RelayhostChannel(reader, writer, stderr, self._flow_control)

    async def _open(
        self,
        opening: Coroutine[None, None, RelayhostChannel],
        fault: Callable[[Exception], Exception],
        within: float | None = None,
    ) -> RelayhostChannel:
        """The channel that `opening` returns. fault: makes of an error what is raised. within: seconds, by default
        CHANNEL_TIMEOUT."""
        # The task goes on after a time-out (an OSError) or a cancellation; a channel that opens then is closed.
        task = asyncio.create_task(opening)
        try:
            async with asyncio.timeout(CHANNEL_TIMEOUT if within is None else within):
                return await asyncio.shield(task)
        except (asyncssh.Error, OSError) as error:
            task.add_done_callback(_close_channel)
            # One turn of the loop: after it, `is_up` is correct for a connection that has just been closed.
            await asyncio.sleep(0)
            found = error if isinstance(error, ServerFault) else self._connection.get_extra_info(SERVER_FAULT)
            raise (fault(error) if found is None else Fault(errors.server_fault(found, self._hop))) from error
        except asyncio.CancelledError:
            task.add_done_callback(_close_channel)
            raise

    def _channel_fault(self, error: Exception) -> Fault:
        return Fault(errors.channel_failed(error, self._relayhost, self._hop, is_up=self.is_up))


class _Progress:
    """Whether octets have moved since the last call, more than keepalive requests are, on the TCP connection below `hop`."""

    def __init__(self, hop: HopConnection) -> None:
        self._socket = hop.get_extra_info("socket")
        self._acknowledged = 0

    def __call__(self) -> bool:
        before, self._acknowledged = self._acknowledged, octets_acknowledged(self._socket) if self._socket else 0
        return self._acknowledged - before > PROGRESS


def _close_channel(opening: asyncio.Task[RelayhostChannel]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
