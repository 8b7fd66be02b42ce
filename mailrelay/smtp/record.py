"""What the record of a conversation says about a message whose replies were not read: for each recipient, what it proves.

A record holds all that the mail server said in one conversation, from the greeting on, and whether that is all
(`ssh.recorder`). `Exchange` says where in it the replies to one transaction stand; `session` gives it when the commands of
the transaction are planned.

Promises: SENT only where the record holds a 2xx to RCPT for this recipient and a 2xx to the content. NOT_TAKEN only where
the record holds another reply to one of both, or where it is complete and the reply is missing. Everything else is UNKNOWN:
a reply that was broken off, all replies behind one that is no SMTP, and with BDAT all replies behind one that refuses a
command as such: the mail server may have read content as commands, and have replied to them.

Pure.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from mailrelay.mail.outcome import Reply
from mailrelay.smtp.reply import MalformedReply, ReplyParser


@dataclass(frozen=True, slots=True)
class Exchange:
    """Where the replies to a transaction stand. first: how many replies come before the one to MAIL. recipients: those for
    which RCPT was planned, by their indices in the envelope, in the order of the commands. has_data: DATA follows them, with
    a reply of its own; otherwise BDAT, with the reply to the content alone."""

    first: int
    recipients: tuple[int, ...]
    has_data: bool

    @property
    def content(self) -> int:
        """How many replies come before the one to the content."""
        return self.first + 1 + len(self.recipients) + self.has_data


_COMMAND_REFUSED = range(500, 505)
"""Unknown, not implemented, or out of sequence (RFC 5321 section 4.2.2)."""


class Proof(enum.Enum):
    """What a record proves of a message and one recipient."""

    SENT = enum.auto()
    NOT_TAKEN = enum.auto()
    """The mail server does not have the message for this recipient."""
    UNKNOWN = enum.auto()


class Record:
    """The replies in a record. octets: what the mail server said. is_complete: it said nothing more."""

    def __init__(self, octets: bytes, *, is_complete: bool) -> None:
        self._replies: list[Reply] = []
        self._is_complete = is_complete
        parser = ReplyParser()
        try:
            for reply in parser.feed(octets):
                self._replies.append(reply)
        except MalformedReply:
            self._is_complete = False
        self._is_broken_off = parser.is_within_reply
        unknown = (place for place, reply in enumerate(self._replies) if reply.code in _COMMAND_REFUSED)
        self._command_refused = next(unknown, len(octets))

    def reply_to_content(self, exchange: Exchange) -> Reply | None:
        """The reply to the content, None if the record does not hold it."""
        return self._reply(exchange.content) if self._asks_for_content(exchange) else None

    def proofs(self, exchange: Exchange) -> Sequence[Proof]:
        """One proof for each of the exchange's recipients, in their order."""
        return [self._proof(exchange, 1 + place) for place in range(len(exchange.recipients))]

    def _proof(self, exchange: Exchange, rcpt: int) -> Proof:
        needed = [exchange.first, exchange.first + rcpt]
        if exchange.has_data:
            needed.append(exchange.content - 1)
        needed.append(exchange.content)
        for place in needed:
            reply = self._reply(place)
            if not exchange.has_data and place > self._command_refused:
                return Proof.UNKNOWN
            if reply is None:
                return Proof.NOT_TAKEN if self._is_missing(place) else Proof.UNKNOWN
            is_data = exchange.has_data and place == exchange.content - 1
            if reply.code // 100 != (3 if is_data else 2):
                return Proof.NOT_TAKEN
        return Proof.SENT

    def _asks_for_content(self, exchange: Exchange) -> bool:
        if not exchange.has_data:
            return True
        data = self._reply(exchange.content - 1)
        return data is not None and data.code // 100 == 3

    def _reply(self, place: int) -> Reply | None:
        return self._replies[place] if place < len(self._replies) else None

    def _is_missing(self, place: int) -> bool:
        """Whether the mail server has not sent this reply, nor a part of it."""
        return self._is_complete and place >= len(self._replies) + self._is_broken_off
