"""The events of a session: what its caller must do, and what became of the transactions."""

from dataclasses import dataclass

from mailrelay.mail.outcome import Outcome
from mailrelay.smtp.extensions import Extensions
from mailrelay.smtp.record import Exchange


@dataclass(frozen=True, slots=True)
class Ready:
    """EHLO is done; transactions may start."""

    extensions: Extensions


@dataclass(frozen=True, slots=True)
class Planned:
    """The commands for the message `key` are planned. exchange: where the replies to them will stand."""

    key: int
    exchange: Exchange


@dataclass(frozen=True, slots=True)
class ContentWanted:
    """Call `send_content` with the content of `key`, then `end_content`."""

    key: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The outcomes of the recipients of `key`, in the order of its envelope.

    is_cut: the conversation ended within this transaction, before the mail server had judged it. The message may be the
    reason, or the mail server may end any conversation.
    """

    key: int
    outcomes: tuple[Outcome, ...]
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Untried:
    """There is no outcome of `key` to record: the conversation ended before the mail server had begun with it, or must be
    repeated.

    goes_on: it is repeated at once; a client that waits for the result goes on waiting.
    """

    key: int
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """The conversation is over. outcome: of scope relayhost only if the conversation never got `Ready`, or the mail server
    refuses mailrelay itself (`mail.setup_reply`). Any other end predicts nothing about the next conversation."""

    outcome: Outcome


Event = Ready | Planned | ContentWanted | Finished | Untried | Ended
