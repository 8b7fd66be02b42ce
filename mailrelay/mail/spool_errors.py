"""The errors of a spool, independent of its engine. The text of each is one sentence for the person."""

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
    trusted any more, and nothing that it writes may be found again. is_logged: the daemon has logged it."""

    is_logged = False


class SpoolUnavailable(SpoolError):
    """The spool cannot be used now, for a reason outside of it: for instance, another program has locked it."""


class Damaged(SpoolError):
    """A part of one message is not as it was written. Other messages are not affected."""


class NoSuchMessage(Exception):
    """The given beginning of an id fits no message, or more than one. The text contains which of the two."""


class NotAllowed(Exception):
    """The state of the message does not allow this action. The text contains the reason."""


class BeingSent(NotAllowed):
    """The message is being sent at this moment."""
