"""What /etc/mailrelay/client.toml says: how every account of this computer reaches the system's mailrelay.

    installed()     its content as `Client`; None if this computer has no mailrelay for all accounts

`mailrelay setup --system` writes it. Every account may read it, so it holds no secret.
"""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from mailrelay.mail.spool_errors import SpoolError

FILE = Path("/etc/mailrelay/client.toml")
SETTINGS = Path("/etc/mailrelay/config.toml")
"""The settings of the system's mailrelay."""


class SystemUnreachable(SpoolError):
    """The system's mailrelay does not answer, or is not set up correctly. The text is one sentence."""


@dataclass(frozen=True, slots=True)
class Client:
    """control: the path of the control socket. smtp: the path of the socket for mail. account: the name of the account
    that the daemon runs as."""

    control: str
    smtp: str
    account: str


def installed(file: Path = FILE) -> Client | None:
    """The content of the file; None if there is none. Raises SystemUnreachable if it cannot be used."""
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            found = tomllib.load(opened)
        control, smtp, account = (found[name] for name in ("control", "smtp", "account"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not as `mailrelay setup --system` wrote it"
        raise SystemUnreachable(f"{file} cannot be used: {reason}") from None
    if not all(isinstance(value, str) for value in (control, smtp, account)) or not control.startswith("/"):
        raise SystemUnreachable(f"{file} cannot be used: it is not as `mailrelay setup --system` wrote it")
    # The file decides where mail goes, and as which account root's commands run.
    if status.st_uid != 0 or status.st_mode & 0o022:
        raise SystemUnreachable(
            f"{file} must belong to root, and only root may write to it: chown root {file}; chmod 644 {file}"
        )
    return Client(control, smtp, account)
