"""What goes wrong with a spool, whichever engine keeps it. The text of each is one sentence for the person."""

DAMAGE_FIX = (
    "look at the disk, and if mailrelay still cannot use the spool, move its directory away and keep it: mail in it is not"
    " sent"
)


class SpoolError(Exception):
    """The spool cannot do what was asked."""


class SpoolFull(SpoolError):
    """No space: on the disk, or below the limit in the settings. left: octets of the largest message for which there was
    space; None if the disk itself reported that it is full."""

    def __init__(self, text: str, left: int | None = None) -> None:
        super().__init__(text)
        self.left = left


class SpoolBroken(SpoolError):
    """The disk failed, or the files are not those that were opened: nothing that this process reads from the spool can be
    trusted any more, and nothing that it writes may be found again. is_logged: the log has a line about it."""

    is_logged = False


class SpoolUnavailable(SpoolError):
    """The spool cannot be used now, for a reason outside of it: another program has locked it, for instance."""


class Damaged(SpoolError):
    """A part of one message is not as it was written; other messages are not concerned."""


class NoSuchMessage(Exception):
    """No message has an id that begins so, or more than one. The text says which."""


class NotAllowed(Exception):
    """The state of the message does not allow this action. The text says why."""
