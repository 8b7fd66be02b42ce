"""Messages with more recipients than the mail server takes in one transaction: which recipients go in the next one.

The transactions of such a message follow each other at once (RFC 5321 section 4.5.3.1.10). Together they are a round, which
counts as one attempt. Each has an attempt of its own in the spool, and its record is on disk before the next one is claimed.

Promises: no recipient is offered twice in a round, unless its disposition was "too many". The state of a round is in
memory only. So after a crash a recipient that the round had deferred may be tried ahead of the schedule.
Pure: no I/O, no clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mailrelay.mail.envelope import Message
from mailrelay.mail.outcome import Outcome
from mailrelay.mail.recipient_limit import recipient_limit
from mailrelay.mail.record import Place, Record
from mailrelay.mail.states import PENDING


@dataclass(slots=True)
class Rounds:
    """The rounds of one relayhost. limit: how many recipients its mail server takes in a transaction, None if no limit is
    known. It is kept as long as the daemon runs: a limit that was raised since costs transactions, not mail."""

    limit: int | None = None
    # By the key of the message: the keys of the recipients that its round has deferred.
    _deferred: dict[int, set[int]] = field(default_factory=dict)

    def part(self, message: Message) -> Message:
        """The message with the recipients of its next transaction: at most `limit`, without those that the round has
        deferred.

        message: as claimed, with all pending recipients.
        """
        deferred = self._deferred.get(message.id)
        pairs = list(zip(message.recipient_ids, message.envelope.recipients, strict=True))
        left = [pair for pair in pairs if pair[0] not in deferred] if deferred else pairs
        if not left:
            # The person has cancelled the recipients that were left for this transaction.
            left = pairs
        part = left[: self.limit]
        if deferred is None and len(part) == len(pairs):
            return message
        return replace(
            message,
            envelope=replace(message.envelope, recipients=tuple(recipient for _, recipient in part)),
            recipient_ids=tuple(key for key, _ in part),
            later=len(left) - len(part),
            waiting=len(pairs) - len(left),
            is_continued=deferred is not None,
        )

    def ended(self, message: Message, outcomes: Sequence[Outcome], record: Record) -> None:
        """A transaction has ended. message: as `part` gave it. record: its record, which is on disk. Learns the limit, and
        notes the recipients that a round which goes on has deferred."""
        limit = recipient_limit(outcomes)
        if limit is not None:
            self.limit = limit if self.limit is None else min(limit, self.limit)
        if record.place is Place.GOES_ON:
            deferred = self._deferred.setdefault(message.id, set())
            deferred.update(one.recipient for one in record.settled if one.state in PENDING)
        else:
            self._deferred.pop(message.id, None)

    def forget(self, message: int) -> None:
        """The message with this key is cancelled."""
        self._deferred.pop(message, None)
