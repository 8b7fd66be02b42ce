"""Finds the mail path of a relayhost: port forwarding, or a command that is run there.

    path, failures = await find(connection, relayhost)
    path.command, path.greeting, path.extensions      # command: for the settings, "" for port forwarding
    for command, outcome in failures: ...             # why the paths before it do not work

Promises: a mail path works if its mail server sends a greeting and replies to EHLO. Each path has at most PATH_TIMEOUT
seconds.
Never: an SMTP command other than EHLO, QUIT, and MAIL where the caller asks about a sender.
"""

import asyncio
import contextlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailrelay.config import Relayhost
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.mail.printable import printable
from mailrelay.smtp import command as smtp_command
from mailrelay.smtp.events import Ended
from mailrelay.smtp.extensions import Extensions
from mailrelay.smtp.reply import MalformedReply, ReplyParser
from mailrelay.smtp.session import Session
from mailrelay.ssh.channel import RelayhostChannel
from mailrelay.ssh.connection import RelayhostConnection
from mailrelay.ssh.interface import Fault

PATH_TIMEOUT = 30.0
"""Seconds to open one path and to get its greeting and the reply to EHLO."""
EHLO_NAME = b"localhost"
"""Our name in EHLO."""
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
    """Opens one mail path, reads the greeting and the reply to EHLO, and asks about a sender. Raises Fault if one of the
    first two fails."""
    try:
        async with asyncio.timeout(PATH_TIMEOUT):
            channel = await connection.with_command(command).open_channel()
            try:
                return await _handshake(channel, command, sender_for)
            finally:
                channel.close()
    except TimeoutError:
        text = f"{command or 'The mail server'} did not reply within {PATH_TIMEOUT:.0f} s."
        raise Fault(Outcome(Stage.GREETING, cause=Cause.LOST, text=printable(text))) from None


async def _handshake(channel: RelayhostChannel, command: str, sender_for: SenderFor) -> MailPath:
    """Reads the greeting, sends EHLO, reads the reply, asks about a sender and sends QUIT. Raises Fault."""
    session, received = Session(EHLO_NAME), b""
    while session.extensions is None:
        try:
            data = await channel.read()
        except ConnectionError as error:
            events = session.lost(f"the connection was lost ({error})")
        else:
            events = session.receive(data) if data else session.lost("the mail server closed the connection")
            received += data
        for event in events:
            if isinstance(event, Ended):
                raise Fault(event.outcome)
        _send(channel, session)
    sender = sender_for(session.server_names)
    sender_reply = await _ask_about(channel, sender, session.extensions) if sender else None
    session.quit()
    _send(channel, session)
    greeting = printable(received.partition(b"\n")[0].strip(), 200)
    return MailPath(command, greeting, session.extensions, session.server_names, sender, sender_reply)


async def _ask_about(channel: RelayhostChannel, sender: bytes, offered: Extensions) -> Reply | None:
    """The reply to MAIL with this reverse path; None if there is none."""
    envelope, parser = Envelope(sender, ()), ReplyParser()
    if smtp_command.unsendable(envelope, offered) is not None:
        return None
    with contextlib.suppress(ConnectionError, MalformedReply):
        channel.write(smtp_command.mail(envelope, None, offered))
        while data := await channel.read():
            for reply in parser.feed(data):
                return reply
    return None


def _send(channel: RelayhostChannel, session: Session) -> None:
    # If the channel has ended, data that the server sent before is still to be read.
    with contextlib.suppress(ConnectionError):
        channel.write(session.take_output())
