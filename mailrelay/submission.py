"""What the settings say about bare addresses, for the packages that take messages over (`mail.completion`)."""

import os
import pwd

from mailrelay.config import Submission
from mailrelay.mail.completion import Completion


def completion(submission: Submission) -> Completion:
    """The completion of the settings, without the account on a relayhost."""
    return Completion(
        submission.sender.encode(), submission.domain.encode(), submission.local.encode(), b"", is_local_account
    )


def login() -> bytes:
    """The name of this process's account: the bare sender of a program that gives none. Raises KeyError if it has none."""
    return os.fsencode(pwd.getpwuid(os.getuid()).pw_name)


def is_local_account(name: bytes) -> bool:
    """Whether an account of this computer has this name."""
    try:
        pwd.getpwnam(os.fsdecode(name))
    except KeyError:
        return False
    return True
