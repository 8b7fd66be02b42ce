"""Whose messages this process may see and change, in the spool of the system's mailrelay.

    limit_to(uid)      from now on only the messages of this account
    limit()            that uid; None for all messages: root, and the account that the spool belongs to

A process of `mailrelay control` answers one account and ends, so the limit is a global variable. It does not set the owner
of new messages: `Envelope.owner` does. Accounts cannot read the spool's file themselves.
"""

_limit: int | None = None


def limit_to(uid: int) -> None:
    """Limits this process to the messages of one account. There is no way to end the limit."""
    global _limit  # noqa: PLW0603
    _limit = uid


def limit() -> int | None:
    """The uid of the account whose messages this process may see; None for all."""
    return _limit


def may_see(owner: int | None) -> bool:
    """Whether this process may see a message with this owner."""
    return _limit is None or owner == _limit
