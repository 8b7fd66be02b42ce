"""Which way leads from a connection to a mail server: forwarding, or a command that is run over there.

    way, failures = await find(connection, relayhost)    # connection: of transport.dial
    way.command, way.greeting, way.extensions      # command: "" for forwarding, else for the settings
    for command, outcome in failures: ...          # what was wrong with those tried before it

Promises: a way counts once its mail server has greeted and answered EHLO; each is given up after PATIENCE. Nothing but EHLO
and QUIT is ever said.
"""

import asyncio
import shlex
from dataclasses import dataclass

from mailrelay.config import Relayhost
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.printable import printable
from mailrelay.smtp.events import Ended
from mailrelay.smtp.extensions import Extensions
from mailrelay.smtp.session import Session
from mailrelay.ssh.channel import Channel
from mailrelay.ssh.connection import SSHConnection
from mailrelay.ssh.interface import Fault

PATIENCE = 30.0
"""Seconds for one way to be opened, to greet and to answer EHLO."""
NAME = b"localhost"
SENDMAIL = ("sendmail -bs", "/usr/sbin/sendmail -bs", "/usr/lib/sendmail -bs")


@dataclass(frozen=True, slots=True)
class MailPath:
    """A way that works. command: for the settings of the relayhost, "" for forwarding. greeting: its first line, escaped."""

    command: str
    greeting: str
    extensions: Extensions


def commands(relayhost: Relayhost) -> tuple[str, ...]:
    """What may lead to the mail server there without forwarding, in the order in which to try."""
    host, port = shlex.quote(relayhost.smtp_host), relayhost.smtp_port
    return (*SENDMAIL, f"nc {host} {port}", f"ncat {host} {port}", f"socat - TCP:{host}:{port}")


async def find(connection: SSHConnection, relayhost: Relayhost) -> tuple[MailPath | None, list[tuple[str, Outcome]]]:
    """The first way that works, None where none does; and each command before it with what was wrong.

    Forwarding first, for it needs nothing over there; then sendmail, which works where nothing listens; then the programs
    that connect to the mail server's port.
    """
    failures: list[tuple[str, Outcome]] = []
    for command in ("", *commands(relayhost)):
        try:
            return await greet(connection, command), failures
        except Fault as fault:
            failures.append((command, fault.outcome))
            if not connection.is_up:
                break
    return None, failures


async def greet(connection: SSHConnection, command: str) -> MailPath:
    """Hear what the mail server says at the end of one way. Raises Fault, with the outcome that a delivery would meet."""
    try:
        async with asyncio.timeout(PATIENCE):
            channel = await connection.by(command).open_channel()
            try:
                return await _greet(channel, command)
            finally:
                channel.close()
    except TimeoutError:
        text = f"{command or 'The mail server'} gave no answer within {PATIENCE:.0f} s."
        raise Fault(Outcome(Stage.GREETING, cause=Cause.LOST, text=printable(text))) from None


async def _greet(channel: Channel, command: str) -> MailPath:
    session, heard = Session(NAME), b""
    while session.extensions is None:
        try:
            data = await channel.read()
        except ConnectionError as error:
            events = session.lost(f"the connection was lost ({error})")
        else:
            events = session.receive(data) if data else session.lost("the remote closed the connection")
            heard += data
        for event in events:
            if isinstance(event, Ended):
                raise Fault(event.outcome)
        _say(channel, session)
    session.quit()
    _say(channel, session)
    return MailPath(command, printable(heard.partition(b"\n")[0].strip(), 200), session.extensions)


def _say(channel: Channel, session: Session) -> None:
    try:
        channel.write(session.take_output())
    except ConnectionError:
        # What it said before is still to be read.
        pass
