"""Late imports of what only accounts without settings of their own need (`control.client_file`), for `base`."""

import sys
from typing import TYPE_CHECKING

from mailrelay.cli.terminal import is_terminal
from mailrelay.control.client_file import Client

if TYPE_CHECKING:
    from mailrelay.config import Settings
    from mailrelay.control.system import System


def system(client: Client) -> "System":
    """The system's mailrelay (`control.system`)."""
    from mailrelay.control.system import PATIENCE, WATCHED_PATIENCE, System

    return System(client.control, WATCHED_PATIENCE if is_terminal(sys.stderr) else PATIENCE)


def shared(client: Client) -> "tuple[Settings, System]":
    """The system's mailrelay, and its settings as far as accounts may know them (`control.terms`)."""
    from mailrelay.control.terms import shared

    return shared(system(client), client)


def become(account: str) -> None:
    """Makes this process, which is root's, one of `account` (`control.terms`)."""
    from mailrelay.control.terms import become

    become(account)
