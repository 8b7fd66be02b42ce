"""`mailrelay control`: answers one account about its messages (`control.system_answers`), for mailrelay-control.socket.

stdin is the connection. Exit status: 0, or 2 if stdin is not a UNIX socket.
"""

import os
import socket

import click

from mailrelay.cli.base import Failed, load_settings
from mailrelay.control.system_answers import answer


@click.command("control")
def command() -> None:
    """Answer another account of this computer about its messages; for a service manager."""
    settings = load_settings()
    os.umask(0o077)
    try:
        connection = socket.socket(fileno=os.dup(0))
        is_unix = connection.family == socket.AF_UNIX
    except OSError:
        is_unix = False
    if not is_unix:
        raise Failed("`mailrelay control` is started by mailrelay-control.socket; see docs/system.md", 2)
    with connection:
        answer(settings, connection)
