"""The reply to a mail client after the content of a message."""

from collections.abc import Callable
from dataclasses import dataclass

from mailrelay.mail.outcome import Reply


def _ignore(_was_told: bool) -> None:
    """Only a refusal needs to know whether the client got it."""


@dataclass(frozen=True, slots=True)
class ClientReply:
    """The reply to write. The writer calls `told` exactly once: with True after the connection has accepted the whole reply,
    with False if the client had closed. A refusal that the client did not get becomes a bounce with a notice."""

    reply: Reply
    told: Callable[[bool], None] = _ignore
