"""Recognises refusals that are about the sender of a message, not about its recipient: then another sender may help."""

import re

from mailrelay.mail.outcome import Stage

_STATUS_OF_SENDER = ("1.7", "1.8")
"""Subject and detail (`y.z` of `x.y.z`) of enhanced codes about the sender's address (RFC 3463)."""
_NOT_OF_SENDER = re.compile(r"5\.(?:2|3|5|6)\.\d+")
"""Enhanced codes at MAIL about the size, the mail system, the protocol or the content, unless the text names the sender."""
_CODES = re.compile(rb"(?:501|504|550|553|554)[ -]")
_WORDS = re.compile(rb"\bsender\b|\bMAIL FROM\b", re.IGNORECASE)


def is_sender_refused(stage: str, status: str, description: bytes) -> bool:
    """Whether a reply of the mail server is a 5xx that refuses the sender. stage: a `Stage`, as the spool keeps it. status:
    the enhanced status code, as `Reply.status`. description: the code and text."""
    if not description.startswith(b"5"):
        return False
    if status[2:] in _STATUS_OF_SENDER:
        return True
    if stage == Stage.MAIL:
        return not description.startswith(b"552") and bool(
            _WORDS.search(description) or not _NOT_OF_SENDER.fullmatch(status)
        )
    return stage == Stage.RCPT and bool(_CODES.match(description) and _WORDS.search(description))
