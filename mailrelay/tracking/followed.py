"""Values about the recipients that are followed on the relayhost, as the spool and the relay pass them."""

from dataclasses import dataclass

from mailrelay.mail.there import Verdict


@dataclass(frozen=True, slots=True)
class Followed:
    """A recipient that was sent, and is followed. recipient, message: keys of the spool. queue_id: ours. address: as in the
    RCPT. sender: the reverse path. envid: xtext. reply: the mail server's reply to the content, with its code. accepted:
    when it came, epoch seconds. verdict: the last one that was written.

    is_successor: it replaces a message that had bounced there, and may have the same Message-ID and ENVID.
    is_retry_wanted: the person has asked that the mail server try again, and nobody has told it since.
    """

    recipient: int
    message: int
    queue_id: str
    address: bytes
    sender: bytes
    envid: bytes
    reply: bytes
    accepted: float
    verdict: Verdict
    is_retry_wanted: bool = False
    is_successor: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What a question has shown of a recipient. recipient: its key. is_over: it is not asked about any more. is_blind: no
    bounce could be seen there, so that the content need not be kept for it."""

    recipient: int
    verdict: Verdict
    is_over: bool = False
    is_blind: bool = False
