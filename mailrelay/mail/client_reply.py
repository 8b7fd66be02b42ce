"""What a mail client is told after its content, and who wants to know that it was."""

from collections.abc import Callable
from dataclasses import dataclass

from mailrelay.mail.outcome import Reply


def _nobody(_told: bool) -> None:
    """Most answers concern nobody but the client."""


@dataclass(frozen=True, slots=True)
class ClientReply:
    """The reply to write. Whoever writes it calls `told` exactly once: True once the reply has been handed to the client's
    connection whole, False if the client had gone. A refusal that nobody heard becomes a bounce with a notice."""

    reply: Reply
    told: Callable[[bool], None] = _nobody
