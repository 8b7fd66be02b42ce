"""The state of one recipient on the relayhost, from all that was seen: a pure table.

Promises: DELIVERED only with a line of the log that says so. LEFT only after two questions at least MIN_GAP apart in which
the recipient was in no queue and the mailbox, which could be read, held no report. The words of a state are of one source,
which is named.

Never: to change a state of the spool. A recipient can forge a report; this is information for the person.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from mailrelay.mail.there import Source, There, Verdict
from mailrelay.tracking.schedule import MIN_GAP
from mailrelay.tracking.sighting import Seen, Sighting


class InQueue(enum.Enum):
    """What the listing of the last question said, or the log in its place."""

    NOT_SHOWN = enum.auto()
    """No listing: refused, unreadable, or not asked."""
    LISTED = enum.auto()
    OTHERS = enum.auto()
    """The recipient is not listed, but the message is, with addresses that are none of ours, such as an alias's members."""
    GONE = enum.auto()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one recipient. Sightings are those of `assign`, oldest first; log and reports over all questions.

    gone_since, asked: epoch seconds of the first question of an unbroken row in which the recipient was GONE, and of the
    last question. has_mailbox: a report would go to a mailbox that was read in these questions. reason: why nothing can be
    seen at all, for the person; b"" otherwise.
    """

    in_queue: InQueue = InQueue.NOT_SHOWN
    listed: Sequence[Sighting] = ()
    log: Sequence[Sighting] = ()
    reports: Sequence[Sighting] = ()
    gone_since: float | None = None
    asked: float = 0.0
    has_mailbox: bool = False
    reason: bytes = b""


def judge(evidence: Evidence) -> Verdict:
    """The first rule that applies. A bounce comes first: a later server may refuse what the next one has accepted."""
    log, reports = _newest(evidence.log), _newest(evidence.reports)
    return (
        _first(reports, Seen.BOUNCED, There.BOUNCED, Source.REPORT)
        or _first(log, Seen.BOUNCED, There.BOUNCED, Source.LOG)
        or _queued(evidence, log, reports)
        or _delivered(log)
        or _first(log, Seen.HANDED_ON, There.WAITING, Source.LOG)
        or _gone(evidence)
        or _deferred(log, reports)
        or _unseen(evidence)
    )


def _newest(sightings: Sequence[Sighting]) -> list[Sighting]:
    """The last sighting of each address that the server made of the recipient. After it was handed on, the log
    shows the same address again under a new queue id."""
    return list({one.final or one.recipient: one for one in sightings}.values())


def _first(sightings: Sequence[Sighting], seen: Seen, state: There, source: Source) -> Verdict | None:
    found = next((one for one in sightings if one.seen is seen), None)
    return Verdict(state, source, found.words, found.by, found.since) if found else None


def _queued(evidence: Evidence, log: Sequence[Sighting], reports: Sequence[Sighting]) -> Verdict | None:
    if evidence.in_queue is InQueue.OTHERS:
        # The log, if there is one, connects the members of an alias with the recipient.
        return None if log else Verdict(There.WAITING, Source.QUEUE)
    if evidence.in_queue is not InQueue.LISTED:
        return None
    since = evidence.listed[0].since if evidence.listed else None
    return (
        _first(evidence.listed, Seen.DEFERRED, There.DEFERRED, Source.QUEUE)
        # The listing of Exim has no reasons.
        or _deferred(log, reports)
        or Verdict(There.WAITING, Source.QUEUE, since=since)
    )


def _deferred(log: Sequence[Sighting], reports: Sequence[Sighting]) -> Verdict | None:
    return _first(log, Seen.DEFERRED, There.DEFERRED, Source.LOG) or _first(
        reports, Seen.DEFERRED, There.DEFERRED, Source.REPORT
    )


def _delivered(log: Sequence[Sighting]) -> Verdict | None:
    """Delivered to every address that the server made of the recipient."""
    if not log or any(one.seen is not Seen.DELIVERED for one in log):
        return None
    return _first(log, Seen.DELIVERED, There.DELIVERED, Source.LOG)


def _gone(evidence: Evidence) -> Verdict | None:
    if evidence.in_queue is not InQueue.GONE:
        return None
    if evidence.gone_since is None or evidence.asked - evidence.gone_since < MIN_GAP:
        return Verdict(There.WAITING, Source.QUEUE)
    state = There.LEFT if evidence.has_mailbox else There.LEFT_UNWATCHED
    return Verdict(state, Source.QUEUE, since=evidence.gone_since)


def _unseen(evidence: Evidence) -> Verdict:
    return Verdict(There.NOT_FOLLOWED, words=evidence.reason) if evidence.reason else Verdict(There.WAITING)
