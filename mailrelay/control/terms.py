"""What a command gets from the system's mailrelay: the settings that every account may know, and, for root, the account.

shared(system, …)   the settings, and the queue behind the control socket
become(account)     makes a process of root one of this account
"""

import os
import pwd

from mailrelay.config import Listen, Notify, Queue, Settings, Submission
from mailrelay.control.client_file import SETTINGS, Client, SystemUnreachable
from mailrelay.control.system import System, Terms
from mailrelay.endpoint import Unix


def shared(system: System, client: Client) -> tuple[Settings, System]:
    """The system's mailrelay, and its settings for `sendmail`: `[submission]`, and two of `[listen]`. Accounts do not
    get the relayhosts and all other settings. Raises SpoolError."""
    terms = system.ask(Terms, "terms")
    listen = Listen(
        address=Unix(client.smtp), max_message_size=terms.max_message_size, answer_within=terms.answer_within
    )
    submission = Submission(sender=terms.sender, domain=terms.domain, local=terms.local)
    # The field must have a value; this spool is not used.
    queue = Queue(directory=SETTINGS.parent)
    return Settings(listen=listen, relayhosts=(), queue=queue, notify=Notify(), submission=submission), system


def become(account: str) -> None:
    """Gives this process, which runs as root, the ids and the environment of `account`, for good: files in the spool must
    belong to that account. Raises SystemUnreachable if there is no such account."""
    try:
        found = pwd.getpwnam(account)
    except KeyError:
        raise SystemUnreachable(f"there is no account {account}; run `mailrelay setup --system` again") from None
    os.initgroups(account, found.pw_gid)
    os.setresgid(found.pw_gid, found.pw_gid, found.pw_gid)
    os.setresuid(found.pw_uid, found.pw_uid, found.pw_uid)
    os.environ |= {"HOME": found.pw_dir, "USER": account, "LOGNAME": account}
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[name]
    os.chdir("/")
