"""Finds the mail path of a relayhost: port forwarding, or a command that is run there.

    path, failures = await find(connection, relayhost)
    path.command, path.greeting, path.extensions      # command: for the settings, "" for port forwarding
    for command, outcome in failures: ...             # why the paths before it do not work

Promises: a mail path works if its mail server sends a greeting, replies to EHLO, and does not refuse mailrelay itself at
MAIL or RCPT (`mail.setup_reply`). Each path has at most PATH_TIMEOUT seconds.
Never: a message. The transaction is from the sender about which the caller asks, or from the null reverse path, to the
account on the relayhost, and ends with QUIT.
"""

import asyncio
import contextlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailrelay.config import Relayhost
from mailrelay.mail.completion import account_address, domain_of
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Cause, Outcome, Reply, Scope, Stage
from mailrelay.mail.printable import printable
from mailrelay.smtp.events import Ended, Event, Finished
from mailrelay.smtp.extensions import Extensions
from mailrelay.smtp.session import Session
from mailrelay.ssh.channel import RelayhostChannel
from mailrelay.ssh.connection import RelayhostConnection
from mailrelay.ssh.interface import Fault

PATH_TIMEOUT = 30.0
"""Seconds to open one path and to get its replies."""
PROBE_TIMEOUT = 10.0
"""Seconds to wait for the replies to MAIL and RCPT."""

SENDMAIL = ("sendmail -bs", "/usr/sbin/sendmail -bs", "/usr/lib/sendmail -bs")


@dataclass(frozen=True, slots=True)
class MailPath:
    """A mail path that works. command: for the settings, "" for port forwarding. greeting: its first line, escaped.

    server_names: the mail server's names for itself (`smtp.session`). sender, sender_reply: the reverse path about which it
    was asked, and its reply to MAIL; b"" and None if it was not.
    """

    command: str
    greeting: str
    extensions: Extensions
    server_names: tuple[bytes, ...] = ()
    sender: bytes = b""
    sender_reply: Reply | None = None


SenderFor = Callable[[Sequence[bytes]], bytes]
"""Gives the reverse path to ask a mail server about, b"" for none, from its names for itself."""


def commands(relayhost: Relayhost) -> tuple[str, ...]:
    """The commands that may lead to the mail server without port forwarding, in the order in which to try them."""
    host, port = shlex.quote(relayhost.smtp.host), relayhost.smtp.port
    return (*SENDMAIL, f"nc {host} {port}", f"ncat {host} {port}", f"socat - TCP:{host}:{port}")


async def find(
    connection: RelayhostConnection, relayhost: Relayhost
) -> tuple[MailPath | None, list[tuple[str, Outcome]]]:
    """The first mail path that works, None if none does; and the command and the failure of each path before it.

    Port forwarding is tried first, because it needs no program on the relayhost; then sendmail, which needs no listening
    mail server; then the programs that connect to the mail server's port.
    """
    failures: list[tuple[str, Outcome]] = []
    for command in ("", *commands(relayhost)):
        try:
            return await try_path(connection, command), failures
        except Fault as fault:
            failures.append((command, fault.outcome))
            if not connection.is_up:
                break
    return None, failures


async def try_path(
    connection: RelayhostConnection, command: str, sender_for: SenderFor = lambda _names: b""
) -> MailPath:
    """Opens one mail path, reads the greeting and the reply to EHLO, and probes a sender and a recipient. Raises Fault if
    that fails."""
    connection = connection.with_command(command)
    try:
        async with asyncio.timeout(PATH_TIMEOUT):
            channel = await connection.open_channel()
            try:
                return await _handshake(channel, connection, command, sender_for)
            finally:
                channel.close()
    except TimeoutError:
        text = f"{command or 'The mail server'} did not reply within {PATH_TIMEOUT:.0f} s."
        raise Fault(Outcome(Stage.GREETING, cause=Cause.LOST, text=printable(text))) from None


async def _handshake(
    channel: RelayhostChannel, connection: RelayhostConnection, command: str, sender_for: SenderFor
) -> MailPath:
    """Reads the greeting and the reply to EHLO, probes a sender and a recipient, and sends QUIT. Raises Fault."""
    session, received = Session(connection.helo.encode()), b""
    while session.extensions is None:
        data, events = await _receive(channel, session)
        received += data
        for event in events:
            if isinstance(event, Ended):
                raise connection.refusal(event.outcome)
        _send(channel, session)
    sender, sender_reply = sender_for(session.server_names), None
    with contextlib.suppress(TimeoutError):
        # A mail server may take its time at RCPT, to look up or to slow down. That is no fault.
        async with asyncio.timeout(PROBE_TIMEOUT):
            recipient = _probed_address(connection.account, session.server_names)
            sender_reply = await _probe(channel, session, connection, Envelope(sender, (Recipient(recipient),)))
    session.quit()
    _send(channel, session)
    greeting = printable(received.partition(b"\n")[0].strip(), 200)
    return MailPath(command, greeting, session.extensions, session.server_names, sender, sender_reply)


def _probed_address(account: str, server_names: Sequence[bytes]) -> bytes:
    """The account on the relayhost, at the name of its mail server. Without such a name, <postmaster>: every mail server
    must accept it (RFC 5321 section 4.5.1). Postfix accepts it even before it looks at our name."""
    address = account_address(account, server_names, "")
    return address if address.isascii() and b"." in domain_of(address) else b"postmaster"


async def _probe(
    channel: RelayhostChannel, session: Session, connection: RelayhostConnection, envelope: Envelope
) -> Reply | None:
    """Sends MAIL and RCPT. The reply that MAIL had, None if there is none. Raises Fault if the mail server refuses mailrelay
    itself: some do so only here. A refusal of the recipient is no fault."""
    events = session.start(0, envelope, None)
    while not events:
        _send(channel, session)
        _, events = await _receive(channel, session)
    for event in events:
        if isinstance(event, Finished):
            [outcome] = event.outcomes
            if outcome.scope is Scope.RELAYHOST:
                raise connection.refusal(outcome)
            if outcome.stage is Stage.RCPT and outcome.reply is not None:
                return Reply(250)
            return outcome.reply
    return None


async def _receive(channel: RelayhostChannel, session: Session) -> tuple[bytes, list[Event]]:
    try:
        data = await channel.read()
    except ConnectionError as error:
        return b"", session.lost(f"the connection was lost ({error})")
    return data, session.receive(data) if data else session.lost("the mail server closed the connection")


def _send(channel: RelayhostChannel, session: Session) -> None:
    # If the channel has ended, data that the server sent before is still to be read.
    with contextlib.suppress(ConnectionError):
        channel.write(session.take_output())
