"""What an answer of the relayhost means for the recipients that are followed: a verdict for each. Pure.

    ours = known_of(...)                       once for each message, when it is first asked about
    parsed = parse(answer, known)
    known, verdict = conclude(recipients, known, parsed, ...)

A log and a mailbox are read from where the last answer ended. So `Known` keeps what earlier answers have shown of a message.

Never: DELIVERED without a line of the log. LEFT without a complete listing, or a line of the log that says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mailrelay.mail.there import Source, There, Verdict
from mailrelay.tracking.followed import Followed, Found
from mailrelay.tracking.listing import Listed, Listing, Unreadable, read_listing
from mailrelay.tracking.question import Answer
from mailrelay.tracking.queue_id import Server, queue_id_in
from mailrelay.tracking.report import Ours, read_reports
from mailrelay.tracking.schedule import is_followed
from mailrelay.tracking.server_log import LogRead, read_log
from mailrelay.tracking.sighting import Assigned, Seen, Sighting, assign
from mailrelay.tracking.verdict import Evidence, InQueue, judge

MAX_QUEUE_IDS = 8
"""Queue ids of one message, with those under which it was handed on."""
MAX_REASON = 200
"""Octets of the words of a program that shows no queue."""
_GONE_STATES = frozenset({There.DELIVERED, There.LEFT, There.LEFT_UNWATCHED})
_CLOCKS = 2.0
"""Seconds by which a time of the relayhost and ours may differ, after `seconds_ahead`: both are whole seconds."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the answers so far have shown of one message.

    name: our queue id. queue_ids: those over there, the first from the 250; () if it names none. server: the kind of mail
    server that gives such ids. envid: decoded; message_id: without its angle brackets; both b"" if there is none.
    not_before: the time of its 250, if reports that came earlier may name it too, those about a message that it replaces;
    else 0. removed: the ids that have left the queue, as the log says. gone_since: by recipient, as in `Evidence`.
    """

    name: str
    queue_ids: tuple[str, ...]
    server: Server = Server.OTHER
    envid: bytes = b""
    message_id: bytes = b""
    not_before: float = 0.0
    log: tuple[Sighting, ...] = ()
    reports: tuple[Sighting, ...] = ()
    removed: frozenset[str] = frozenset()
    gone_since: Mapping[int, float] = field(default_factory=dict)

    @property
    def marks(self) -> list[str]:
        """What names the message in a report (`question.Question.marks`)."""
        texts = [*(one.encode() for one in self.queue_ids), self.envid, self.message_id]
        return [text.decode("ascii") for text in texts if _is_mark(text)]


def _is_mark(text: bytes) -> bool:
    return 8 <= len(text) <= 200 and all(0x21 <= octet <= 0x7E for octet in text)


def known_of(followed: Followed, envid: bytes, message_id: bytes) -> Known:
    """What is known of a message before the first answer. envid, message_id: as in `Known`."""
    named = queue_id_in(followed.reply.partition(b" ")[2])
    not_before = followed.accepted if followed.is_successor else 0.0
    if named is None:
        return Known(followed.queue_id, (), envid=envid, message_id=message_id, not_before=not_before)
    return Known(followed.queue_id, (named.id,), named.server, envid, message_id, not_before)


@dataclass(frozen=True, slots=True)
class Parsed:
    """An answer, read. server: whose queue it is, OTHER for the person's command. listing: None if the relayhost has no
    program that lists the queue."""

    server: Server
    listing: Listing | None
    log: LogRead | None
    reports: Sequence[Sighting] | None
    seconds_ahead: float

    @property
    def about(self) -> set[str]:
        """Our queue ids of the messages that reports name."""
        return {one.queue_id for one in self.reports or ()}

    def shows(self, known: Known) -> bool:
        """Whether the listing would show the message if it were in the queue."""
        is_same_server = self.server in (known.server, Server.OTHER)
        return isinstance(self.listing, Listed) and bool(known.queue_ids) and is_same_server

    def reason_for(self, known: Known) -> bytes:
        """Why nothing can be seen there of a message, but for reports; b"" if something can."""
        if not known.queue_ids:
            return b"the reply of the mail server names no queue id"
        if self.reason:
            return self.reason
        if self.log is None and not self.shows(known):
            return b"the queue there is not that of the mail server that has accepted it"
        return b""

    @property
    def reason(self) -> bytes:
        """Why nothing can be seen there of any message, but for reports; b"" if something can."""
        if isinstance(self.listing, Listed) or self.log is not None:
            return b""
        if self.listing is None:
            return b"the server has no queue that this account can list"
        words = self.listing.words.split(b"\n")[0][:MAX_REASON]
        if isinstance(self.listing, Unreadable):
            return b"the listing of the queue there cannot be read" + (b": " + words if words else b"")
        return b"this account may not see the queue there: " + words


def parse(answer: Answer, known: Iterable[Known]) -> Parsed:
    """The answer, read for these messages."""
    messages = list(known)
    ids = {queue_id for one in messages for queue_id in one.queue_ids}
    ours = [
        Ours(
            (one.name, *one.queue_ids),
            one.envid,
            one.message_id,
            one.not_before and one.not_before + answer.seconds_ahead - _CLOCKS,
        )
        for one in messages
    ]
    listing = answer.listing
    return Parsed(
        answer.server,
        None if listing is None else read_listing(answer.server, listing.octets, listing.status),
        None if answer.log is None else read_log(answer.log, ids),
        None if answer.reports is None else read_reports(answer.reports, ours),
        answer.seconds_ahead,
    )


def learn(known: Known, parsed: Parsed) -> Known:
    """What is known of a message with this answer, apart from `gone_since`."""
    log = (
        [*known.log, *(one for one in parsed.log.sightings if one.queue_id in known.queue_ids)]
        if parsed.log
        else known.log
    )
    handed_on = [one.next_id for one in log if one.seen is Seen.HANDED_ON and one.next_id]
    queue_ids = tuple(dict.fromkeys((*known.queue_ids, *handed_on)))[:MAX_QUEUE_IDS]
    removed = known.removed | (parsed.log.removed & set(queue_ids) if parsed.log else frozenset())
    reports = (*known.reports, *(one for one in parsed.reports or () if one.queue_id == known.name))
    return replace(known, queue_ids=queue_ids, log=_newest(log), removed=removed, reports=_newest(reports))


def _newest(sightings: Iterable[Sighting]) -> tuple[Sighting, ...]:
    """The last sighting of each address under each queue id, in the order seen."""
    newest: dict[tuple[str, bytes, bytes], Sighting] = {}
    for one in sightings:
        key = (one.queue_id, one.recipient, one.final)
        newest.pop(key, None)
        newest[key] = one
    return tuple(newest.values())


def conclude(
    recipients: Sequence[Followed], known: Known, parsed: Parsed, *, is_reported_here: bool | None, now: float
) -> tuple[Known, list[Found]]:
    """The verdicts for the recipients of one message, and what is known of it now.

    recipients: those that are followed. known: after `learn`. is_reported_here: a report about it would go to a mailbox of
    the account; None if that is not known yet. now: when the question was asked, epoch seconds.
    """
    addresses = [one.address for one in recipients]
    has_mailbox = bool(is_reported_here) and parsed.reports is not None
    may_be_reported = is_reported_here is not False and parsed.reports is not None
    listed, is_listed, is_shown = _listed(addresses, known, parsed)
    log, reports = assign(addresses, known.log), assign(addresses, known.reports)
    gone_since: dict[int, float] = {}
    found = []
    for one in recipients:
        in_queue = _in_queue(one.address, listed, is_listed=is_listed) if is_shown else InQueue.NOT_SHOWN
        if in_queue is InQueue.GONE:
            gone_since[one.recipient] = known.gone_since.get(one.recipient, now)
        verdict = judge(
            Evidence(
                in_queue,
                listed.of[one.address],
                log.of[one.address],
                reports.of[one.address],
                gone_since.get(one.recipient),
                now,
                has_mailbox=has_mailbox,
                reason=parsed.reason_for(known),
            )
        )
        is_kept = one.verdict.state in _GONE_STATES and verdict.state is not There.BOUNCED
        is_unconfirmed = in_queue is InQueue.GONE and verdict.state is There.WAITING and is_open(one.verdict)
        # The queue id of a kept one is not asked about any more.
        verdict = one.verdict if is_kept or is_unconfirmed else _dated(verdict, one.verdict, parsed.seconds_ahead, now)
        is_over = _is_over(verdict, one.accepted, now, may_be_reported=may_be_reported)
        is_blind = verdict.state is There.NOT_FOLLOWED and not has_mailbox
        found.append(Found(one.recipient, verdict, is_over, is_blind))
    return replace(known, gone_since=gone_since), found


def _listed(addresses: Sequence[bytes], known: Known, parsed: Parsed) -> tuple[Assigned, bool, bool]:
    """What the listing says of a message; whether it is listed; whether the listing says so, or the log."""
    ids = set(known.queue_ids)
    if isinstance(parsed.listing, Listed) and parsed.shows(known):
        sightings = [one for one in parsed.listing.sightings if one.queue_id in ids]
        return assign(addresses, sightings), not ids.isdisjoint(parsed.listing.ids), True
    # The log says when a message has left the queue.
    has_left = bool(ids) and ids <= known.removed
    return assign(addresses, ()), False, has_left or bool(known.gone_since)


def _in_queue(address: bytes, listed: Assigned, *, is_listed: bool) -> InQueue:
    if listed.of[address]:
        return InQueue.LISTED
    # The listing may show the members of an alias instead of our recipient. If it shows no recipients, the message counts.
    return InQueue.OTHERS if is_listed and (listed.others or not any(listed.of.values())) else InQueue.GONE


def _dated(verdict: Verdict, before: Verdict, seconds_ahead: float, now: float) -> Verdict:
    """With the time since which it is so: what the source says, in our time; else when it was first seen."""
    if verdict.state is before.state and before.since is not None:
        return verdict._replace(since=before.since)
    if verdict.since is not None:
        return verdict._replace(since=min(now, verdict.since - seconds_ahead))
    return verdict if verdict.state in (There.WAITING, There.NOT_FOLLOWED) else verdict._replace(since=now)


def _is_over(verdict: Verdict, accepted: float, now: float, *, may_be_reported: bool) -> bool:
    """Whether nothing more can be seen of the recipient. A report may come after the mail has left."""
    if not is_followed(accepted, now) or verdict.state is There.BOUNCED:
        return True
    return verdict.state in (There.DELIVERED, There.LEFT_UNWATCHED) and not may_be_reported


def not_followed(recipients: Iterable[Followed], reason: bytes) -> list[Found]:
    """The verdicts for recipients about which nothing could be asked."""
    return [
        Found(one.recipient, Verdict(There.NOT_FOLLOWED, Source.NONE, reason), is_blind=True)
        for one in recipients
        if is_open(one.verdict)
    ]


def is_open(verdict: Verdict) -> bool:
    """Whether the mail is in the queue over there, as far as is known: a reason to ask again."""
    return verdict.state in (There.WAITING, There.DEFERRED)


def reports_come_to(sender: bytes, account: str, hosts: Iterable[bytes]) -> bool:
    """Whether delivery reports to `sender` (the reverse path) arrive in the mailbox of `account` on the relayhost, as far as
    can be told: it is that account's address at the host's name, or at a domain above it. hosts: names of the relayhost."""
    local, at, domain = sender.rpartition(b"@")
    if not at or local.partition(b"+")[0].lower() != account.lower().encode("utf-8", "replace"):
        return False
    name = domain.lower()
    return any(host.lower() == name or host.lower().endswith(b"." + name) for host in hosts if host)
