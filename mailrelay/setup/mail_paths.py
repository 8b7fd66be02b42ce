"""Finds the mail path to a relayhost over an SSH connection of its own, which is closed afterwards (`ssh.mail_path`)."""

from contextlib import suppress

from mailrelay.config import Relayhost
from mailrelay.mail.outcome import Outcome
from mailrelay.ssh import mail_path
from mailrelay.ssh.dial import dial
from mailrelay.ssh.interface import Fault
from mailrelay.ssh.mail_path import MailPath


async def find_mail_path(relayhost: Relayhost) -> tuple[MailPath | None, list[tuple[str, Outcome]]]:
    """The mail path of the settings if it works, else the first that works, else None; and what failed before it.

    A failure is the command that was tried, "" for forwarding, with its outcome.
    """
    try:
        connection = await dial(relayhost)
    except Fault as fault:
        return None, [("", fault.outcome)]
    try:
        if relayhost.command:
            try:
                return await mail_path.try_path(connection, relayhost.command), []
            except Fault:
                # The command in the settings no longer works; another mail path may.
                pass
        return await mail_path.find(connection, relayhost)
    finally:
        await connection.close()


async def find_command(relayhost: Relayhost) -> str:
    """The first command that reaches the mail server; "" if none does. Raises Fault if there is no connection."""
    connection = await dial(relayhost)
    try:
        for command in mail_path.commands(relayhost):
            with suppress(Fault):
                return (await mail_path.try_path(connection, command)).command
        return ""
    finally:
        await connection.close()
