"""What goes wrong with a spool, whichever engine keeps it. The text of each is one sentence for the person."""


class SpoolError(Exception):
    """The spool cannot do what was asked."""


class SpoolFull(SpoolError):
    """No space: on the disk, or below the limit in the settings."""


class SpoolBroken(SpoolError):
    """The disk failed: nothing that this process reads from the spool can be trusted any more."""


class Damaged(SpoolError):
    """A part of one message is not as it was written; other messages are not concerned."""


class NoSuchMessage(Exception):
    """No message has an id that begins so, or more than one. The text says which."""


class NotAllowed(Exception):
    """The state of the message does not allow this action. The text says why."""
