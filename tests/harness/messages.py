"""Mail for a real spool, as tests need it."""

from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.lifecycle import State
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Outcome, Reply, Stage
from mailrelay.mail.record import Arrival, NewNotice, Record, Settled, arrive
from mailrelay.spool.queue_ids import QueueIds

NOW = 1_700_000_000.0
LIMIT = 1_000_000_000
_queue_ids = QueueIds("")


def new_queue_id() -> str:
    """An id that no other message of a test has."""
    return _queue_ids.new(NOW)


TAKEN = Outcome(Stage.CONTENT, Reply(250, (b"2.0.0 taken",)))
NO_SUCH_USER = Outcome(Stage.RCPT, Reply(550, (b"5.1.1 no such user",)))
BUSY = Outcome(Stage.RCPT, Reply(451, (b"4.2.1 busy",)))


def letter(*recipients: bytes, at: float = NOW, relayhost: str = "default", content: bytes = b"hello\r\n") -> Arrival:
    """A message from a@example.org, to b@example.net where nobody else is named."""
    to = tuple(Recipient(address) for address in recipients or (b"b@example.net",))
    return arrive(
        Envelope(b"a@example.org", to),
        b"Subject: a letter\r\n\r\n" + content,
        queue_id=new_queue_id(),
        token="token",
        relayhost=relayhost,
        now=at,
    )


def ending(
    message: int,
    recipients: tuple[int, ...],
    states: dict[State, Outcome],
    *,
    now: float = NOW,
    next_attempt: float | None = None,
    backends: tuple[Backend, ...] = (),
) -> Record:
    """The record of an attempt with a state for each recipient; bounced ones have a notice to `backends`."""
    settled = tuple(
        Settled(key, state, outcome, uncertain=False)
        for key, (state, outcome) in zip(recipients, states.items(), strict=True)
    )
    failed = tuple(one.recipient for one in settled if one.state is State.BOUNCED)
    notices = (NewNotice(Kind.FAILED, failed, backends),) if failed and backends else ()
    return Record(message, now, settled, next_attempt, notices)
