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
    """The name of this process's account: the bare sender of a program that gives none.

    An account without a name, as in containers, is named after its number, such as `uid1000`.
    """
    try:
        return os.fsencode(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return b"uid%d" % os.getuid()


def default_sender(submission: Submission) -> bytes:
    """The reverse path of this process's mail if no sender is given; bare if the settings do not complete it."""
    return completion(submission).whole_sender(login())


def is_local_account(name: bytes) -> bool:
    """Whether an account of this computer has this name. name: any octets but NUL."""
    try:
        pwd.getpwnam(os.fsdecode(name))
    except KeyError:
        return False
    return True


def account_name(uid: int | None) -> str:
    """The name of an account of this computer; its number if it has no name, "" for None."""
    if uid is None:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid{uid}"
