"""The ports of the spool: what each part of mailrelay may ask of the engine that stores the mail.

`mailrelay.spool` is the engine behind them (one SQLite file, one computer). Another engine keeps the same promises:

- A method that writes returns after its commit is on disk, except for `AcceptPort.stage`. Cancelling the caller does not
  undo a commit that has begun.
- Every method raises SpoolError if the spool cannot do what was asked, SpoolFull if there is no space, and SpoolBroken
  from the moment at which the disk failed. After another error than SpoolBroken nothing has been written.
- The engine has one clock, which it was opened with: epoch seconds. The times in arguments (`Arrival.arrival`, `Record.now`,
  `next_try`) are of the same clock.
- The engine has a node id, new each time the daemon starts. An attempt belongs to the node that opened it.

This file imports values from `mail` only. The asynchronous ports are for the daemon, `CommandPort` is for commands.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from mailrelay.mail.backends import BackendsFor
from mailrelay.mail.completion import NOTHING_KNOWN, Completion
from mailrelay.mail.envelope import Envelope, Message
from mailrelay.mail.handed_in import HandedIn
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.notice import Backend, PendingNotice
from mailrelay.mail.outcome import Cause, Outcome
from mailrelay.mail.overview import Event, Listed, SpoolStatus
from mailrelay.mail.record import Arrival, Record, Staged
from mailrelay.mail.recorded import ReadExchange, RecordedExchange, Recording, UnreadExchange
from mailrelay.mail.there import Retried, RetryThere
from mailrelay.tracking.followed import Followed, Found

LARGE = 65_536
"""Octets of content above which a message is large: small messages are due ahead of large ones."""


class AcceptPort(Protocol):
    """For the intake: accepts messages."""

    def new_queue_id(self) -> str:
        """An id that no message of the spool has or has had since the engine was opened."""
        ...

    async def accept(self, arrival: Arrival) -> int:
        """Puts a message on disk, due at once or at its send time, and returns its key. From the commit on, mailrelay is
        responsible for it.

        Raises SpoolFull where `queue.max_size` or the disk leaves no space for it; SpoolError if `arrival.staged` is gone.
        """
        ...

    async def stage(self, staged: Staged | None, octets: bytes) -> Staged:
        """Appends octets of a content that is still being received. Returns what is staged now.

        staged: what the last call for this content returned; None for the first part.
        The octets are on disk with the next commit of another method. No other method sees them before `accept`.
        Raises SpoolFull. If several contents do not fit together, one of them is refused. The others wait, for a bounded
        time, until that one has been removed by `unstage`.
        """
        ...

    async def unstage(self, staged: Staged) -> None:
        """Removes a content that will not become a message. Does nothing if it has become one. Works on a full disk."""
        ...


class RelayPort(Protocol):
    """For sending: due messages, attempts, and their outcomes."""

    async def next_due(self, relayhost: str, others: Sequence[str] = ()) -> float | None:
        """When the next message of `relayhost` is due (epoch seconds, possibly past); None if none will be. others: as in
        `take`."""
        ...

    async def count_due(self, relayhost: str, limit: int, others: Sequence[str] = ()) -> int:
        """The number of messages of `relayhost` that are due now, at most `limit`. others: as in `take`."""
        ...

    async def take(
        self,
        relayhost: str,
        first: Sequence[int],
        limit: int,
        more: int = 0,
        completion: Completion = NOTHING_KNOWN,
        others: Sequence[str] = (),
    ) -> list[Message]:
        """Opens attempts of this node at up to `limit` messages that are due, and returns these in the order to send them.

        first: keys of messages to take before the others, if they are due. Then untried messages come before tried ones,
        small before large, the longest due first. more: how many messages to take beyond `limit` if all are small.
        A message with an open attempt is not due: no two callers get the same one.
        completion: what bare addresses become, in the spool too, in the same commit (`mail.completion`).
        others: relayhosts that cannot be reached, and whose messages are taken, too, unless an attempt may have delivered
        something of them. Such a message is at `relayhost` then (`Message.fallback_for`). If the attempt ends without a
        message that is sent or in doubt, it is at the relayhost of its sender again; the same holds for `put_back`.
        An envelope or a recipient that is not as it was written is marked (`is_damaged`), and must not be sent.
        """
        ...

    async def put_back(self, messages: Sequence[int]) -> list[int]:
        """Undoes attempts that sent nothing: they are not counted, and the messages with these keys are due now.

        Returns the keys of the messages at which this node has no open attempt: nothing is changed for these.
        """
        ...

    async def cancel_stopped(self, message: int) -> bool:
        """Undoes the attempt at this message, which was stopped before the end of its content, and cancels the message, in
        one commit. Returns whether it did; False: this node has no open attempt at it. Works on a full disk."""
        ...

    async def record(self, end: Record) -> bool:
        """Closes the open attempt at a message and writes its outcome, with the notices that it causes, in one commit.

        Returns whether it was written. False: the open attempt is not of this node, or there is none (another daemon has
        closed it as interrupted); then nothing is changed. Works on a full disk.
        """
        ...

    async def note_exchange(self, message: int, exchange: RecordedExchange) -> None:
        """Writes where the replies to the open attempt of this node will stand. Does nothing if it has ended."""
        ...

    async def unread_exchanges(self, relayhost: str) -> Sequence[UnreadExchange]:
        """The attempts that have ended without replies that their records may hold. The caller is about to read these: their
        messages are not due before `resolve_exchanges`, for a minute at most."""
        ...

    async def resolve_exchanges(
        self, read: Sequence[ReadExchange], backends_for: BackendsFor, *, is_followed: bool = False
    ) -> Sequence[tuple[Message, Record]]:
        """Writes what the records of these attempts said, with the notices that follow, in one commit. What is left of their
        messages is due at once. Returns the messages that the mail server has, and what was written about them.

        is_followed: as in `Record`.
        """
        ...

    async def recording(self, relayhost: str) -> Recording:
        """What is known of the records of a relayhost."""
        ...

    async def note_recording(self, relayhost: str, known: Recording) -> None:
        """Remembers what is known of the records of a relayhost."""
        ...

    def pieces(self, message: int) -> AsyncGenerator[bytes, None]:
        """The content of the message with this key, in pieces of at most 64 KiB. Raises `mail.envelope.Unreadable`, also for
        a piece that is not as it was written."""
        ...

    async def retry_lost(self, relayhost: str) -> None:
        """Makes the messages due that wait only because a connection was lost.

        A message that the mail server has deferred stays deferred until its time.
        """
        ...


class FollowPort(Protocol):
    """For tracking: the recipients that are followed on the relayhost after the mail server has accepted them."""

    async def followed(self, relayhost: str) -> Sequence[Followed]:
        """The recipients of mail by `relayhost` that are still followed, the latest accepted first."""
        ...

    async def found(self, found: Sequence[Found], backends_for: BackendsFor) -> bool:
        """Writes verdicts, and the notices about recipients that have bounced there, in one commit. No state of a recipient
        changes. The content of a message is kept while one of its recipients is followed.

        After a bounce no other verdict is written. Returns whether the notifier is to be woken: a notice became pending, or
        mail may be delayed there. Works on a full disk.
        """
        ...

    async def is_retry_wanted(self, relayhost: str) -> bool:
        """Whether the person has asked that the mail server try messages again, and nobody has told it since."""
        ...

    async def retry_told(self, messages: Sequence[int], text: str) -> None:
        """Writes that the mail server was told to try these messages (keys) again, or why not: one sentence, escaped."""
        ...

    async def content_start(self, message: int, limit: int) -> bytes:
        """As `NoticePort.content_start`."""
        ...


@dataclass(frozen=True, slots=True)
class RelayhostFailure:
    """The known fault of a relayhost.

    failures: in a row, at least 1. next_dial: the time before which it is not dialled, epoch seconds. text: the sentence for
    the person, not escaped.
    """

    failures: int
    next_dial: float
    cause: Cause
    text: str


class RelayhostPort(Protocol):
    """The state of a relayhost, kept so that a restarted daemon knows it."""

    async def relayhost_failed(
        self, name: str, outcome: Outcome, next_dial: float, setup: bool, backends: Sequence[Backend]
    ) -> None:
        """Writes that a relayhost cannot be used until `next_dial` (epoch seconds). No attempt is counted for its mail.

        setup: a setup fault, for which a notice to `backends` is written in the same commit, unless one of the same cause is
        open already.
        """
        ...

    async def relayhost_up(self, name: str, backends: Sequence[Backend]) -> bool:
        """Writes that a relayhost can be used again; its setup faults are over.

        Returns whether a "resumed" notice to `backends` was written. Works on a full disk.
        """
        ...

    async def note_stand_in(self, name: str, stand_in: str) -> None:
        """Writes which fallback sends the mail of a relayhost during its fault, for the person; "" for none.
        `relayhost_up` ends it."""
        ...

    async def relayhost_failure(self, name: str) -> RelayhostFailure | None:
        """The known fault of a relayhost; None if there is none."""
        ...


class NoticePort(Protocol):
    """Pending notices: each one from the commit of its reason until its backends have delivered it."""

    async def update_delays(self, after: float, backends: Sequence[Backend]) -> float | None:
        """Opens, closes and repeats delay notices, and repeats those of setup faults that still stop mail.

        after: a message that waits for longer is delayed, seconds. Returns when to call it again (epoch seconds, past if
        something was done now); None if no mail waits and no notice is open.
        """
        ...

    async def pending_notices(self) -> list[PendingNotice]:
        """The pending notices with a backend to try now, the longest due first; a bounded number for each backend."""
        ...

    async def next_notice_due(self) -> float | None:
        """When the next backend is due for a try (epoch seconds, possibly past); None if no notice is pending."""
        ...

    async def notice_delivered(self, pending: PendingNotice) -> None:
        """Writes that a backend has delivered its notice: it is no longer pending for this backend."""
        ...

    async def notice_failed(self, pending: PendingNotice, next_try: float, why: str) -> None:
        """Writes that a backend failed: the notice stays pending, and is due again at `next_try` (epoch seconds)."""
        ...

    async def notice_dropped(self, pending: PendingNotice) -> None:
        """Writes that a notice is not pending for its backend any more, which will never deliver it."""
        ...

    async def content_start(self, message: int, limit: int) -> bytes:
        """The first `limit` octets of the content of a message; fewer if it is shorter, b"" if it is gone or damaged."""
        ...

    async def accept_report(self, pending: PendingNotice, envelope: Envelope, content: bytes) -> None:
        """Accepts a DSN as a message, on the relayhost of its notice, and marks the notice as delivered, in one commit."""
        ...


class HousekeepingPort(Protocol):
    """For the daemon: at its start, after a change of the clock, and at intervals."""

    async def recover(self) -> int:
        """Closes the open attempts of all other nodes, and returns their number. Called while no other daemon runs.

        Such an attempt may have delivered its message: the recipients are marked as uncertain, and are due now.
        """
        ...

    async def unstage_all(self) -> int:
        """Removes all staged contents, and returns their number. Called before anything is staged."""
        ...

    async def reroute(self, names: Collection[str], choose: Callable[[bytes], str | None]) -> tuple[int, int]:
        """Moves the mail for relayhosts that are not among `names` back to the relayhost in whose place a fallback has it,
        or to the one that `choose` gives for its reverse path.

        Faults of those relayhosts are over. Clears which fallback sends for which relayhost. Returns how many messages were
        moved, and for how many `choose` gave None: these stay. Called before mail is sent.
        """
        ...

    async def cap_waits(self, longest: float) -> int:
        """Makes due now what waits for a time that only a wrong clock can have set.

        Such a time was set in the future, or more than `longest` seconds ahead. This concerns messages, dials, notices and
        reminders. Returns the number of messages. `next_due` and `relayhost_failure` do the same when they notice that the
        clock was set back.
        """
        ...

    async def clock_jumped(self, by: float, since: float) -> None:
        """The clock was set ahead by `by` seconds (back, if negative): messages that came in from `since` on keep their age,
        and the waits that began since then keep their length.

        since: epoch seconds on the old clock. Called within 5 seconds.
        """
        ...

    async def inspect(self, backends_for: BackendsFor) -> list[str]:
        """Looks for damage in the whole spool, which may take seconds, and repairs what can be repaired without a loss.

        Messages that it has to hold get a notice to `backends_for`. Returns what was repaired, [] if nothing was damaged.
        Raises SpoolBroken for other damage.
        """
        ...

    async def watch(self) -> None:
        """Looks each second whether the spool is still there and can be written. Returns once it has failed.

        A failure is reported as those of other methods are (`Spool.health`, `Spool.broken`).
        """
        ...

    async def try_storing(self) -> None:
        """Stores an ordinary message and removes it. Raises SpoolError if mail cannot be accepted now."""
        ...

    async def purge(self, keep_sent: float) -> int:
        """Deletes history that is older than `keep_sent` seconds: a bounded number of messages, which it returns.

        Keeps messages that have failed, are in the queue on the relayhost, were refused a short while ago, or have a pending
        notice.
        """
        ...


class SpoolView(Protocol):
    """One consistent view of the spool. Iterators must not be used after its context. Bytes from outside are not escaped."""

    def find(self, prefix: str) -> tuple[int, str]:
        """The key and the whole id of the message whose id is `prefix` or begins with it. Raises NoSuchMessage."""
        ...

    def live(self) -> Iterator[Listed]:
        """The messages that are pending, held or failed, or have bounced on the relayhost, in order of arrival."""
        ...

    def everything(self) -> Iterator[Listed]:
        """All messages in the spool, in order of arrival."""
        ...

    def one(self, key: int) -> Listed:
        """The message with this key, which exists."""
        ...

    def events(self, key: int) -> list[Event]:
        """The history of a message: all its events, in order of time."""
        ...

    def content(self, key: int) -> Iterator[bytes]:
        """The content of a message, in pieces; nothing if it is no longer kept. Raises Damaged."""
        ...

    def content_as_stored(self, key: int) -> bytes:
        """The content of a message, also where it is not as it was written."""
        ...

    def senders(self) -> list[tuple[bytes, bytes]]:
        """The reverse path and the beginning of the content (b"" if it is gone) of the latest messages, the last one first.

        Without messages that have the null reverse path.
        """
        ...

    def status(self) -> SpoolStatus:
        """The state of the whole spool."""
        ...

    def successors(self, queue_id: str) -> list[str]:
        """The ids of the newest messages that replaced this one (`queue resend`, `queue edit`); [] if none did."""
        ...

    def retry_there(self, key: int) -> RetryThere | None:
        """What became of the last `SpoolChange.retry` whose result was THERE, or that concerned recipients there, too."""
        ...

    def suggestion(self, address: bytes, stage: str) -> bytes:
        """A similar address to which mail was sent before, for one that was refused at `stage`; b"" if there is none."""
        ...

    def check_space(self, size: int) -> None:
        """Raises SpoolFull if there is no space for a message of `size` octets."""
        ...


class SpoolChange(SpoolView, Protocol):
    """One commit of a command, with a view of the spool. On disk when its context ends without an exception."""

    def act(self, key: int, queue_id: str, what: Act) -> int:
        """Does `what` to every recipient of a message whose state allows it, and returns their number.

        CANCEL, DROP, RESEND and EDIT also deal with recipients that have bounced on the relayhost; these stay `sent`.
        Raises NotAllowed if there are none, or if the message has an open attempt.
        """
        ...

    def retry(self, key: int, queue_id: str) -> Retried:
        """Makes a message due now, also before its send time, and lets its relayhost be dialled now. If recipients wait on
        the relayhost, its mail server is asked to try them again. Raises NotAllowed if no recipient waits here or there."""
        ...

    def retry_all(self) -> int:
        """Makes all waiting messages due now, but for those that wait for their time, and lets every relayhost be dialled
        now. Returns the number of messages."""
        ...

    def dial_now(self, relayhost: str) -> None:
        """Lets a relayhost with a fault be dialled now."""
        ...

    def replaceable(self, prefix: str, what: Act) -> tuple[Message, bytes]:
        """The message whose id begins with `prefix`, and its whole content; to recipients whose state allows `what`, or
        that have bounced on the relayhost.

        what: RESEND or EDIT. Raises NoSuchMessage; NotAllowed where there are no such recipients or no content, or where it
        is damaged.
        """
        ...

    def replace(self, old: Message, what: Act, envelope: Envelope, content: bytes, relayhost: str) -> str:
        """Accepts `content`, unchanged, as a message that replaces `old` (from `replaceable`); returns the new queue id.

        The recipients of `old` are cancelled in the same commit, or dealt with if they have bounced on the relayhost. Raises
        SpoolFull; NotAllowed if they have changed since.
        """
        ...


class CommandPort(Protocol):
    """The spool for commands: synchronous, with or without a running daemon."""

    def reading(self) -> AbstractContextManager[SpoolView]:
        """A view of the spool. Raises FileNotFoundError if there is no spool."""
        ...

    def changing(self) -> AbstractContextManager[SpoolChange]:
        """One commit. If no daemon runs, attempts that a crash has left open are closed first. Raises as `reading` does."""
        ...

    def enqueue(self, envelope: Envelope, content: bytes, relayhost: str) -> tuple[int, str]:
        """Accepts a message, with the header fields that it lacks (`mail.trace`); returns its key and queue id.

        Bare addresses in the header are completed before the message is sent. Creates the spool if there is none.
        """
        ...

    def hand_in(self, message: HandedIn, relayhost: str, backends_for: BackendsFor) -> tuple[int, Arrival]:
        """As `enqueue`, for a message of which recipients are held or have failed already. Returns its key and the arrival.

        The notices about these recipients become pending in the same commit. `backends_for` names their backends.
        The recipients of the arrival are those of the envelope, then those that are not valid.
        """
        ...
