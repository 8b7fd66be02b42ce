"""Follows the mail of one relayhost after its mail server has accepted it: asks there what has become of it.

    tracker.look()             what is still followed, and what the person wants asked
    tracker.accepted()         the mail server has accepted a message
    tracker.question_in(...)   when to ask next
    tracker.ask(connection)    one question about all messages; its verdicts are written to the spool

Promises: one question at a time, about all messages together, at the times of `tracking.schedule`. A failure here is no
fault of the relayhost and delays no mail: nothing is asked for a day then, and the mail is *not followed*, with the reason.
Never: a change of a recipient's state.
"""

import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice

from mailrelay.config import Relayhost
from mailrelay.endpoint import Tcp
from mailrelay.mail.backends import BackendsFor
from mailrelay.mail.logline import followed_there
from mailrelay.mail.printable import printable
from mailrelay.mail.spool_errors import SpoolError
from mailrelay.mail.there import There, Verdict
from mailrelay.mail.trace import message_id
from mailrelay.mail.xtext import unxtext
from mailrelay.ports import FollowPort
from mailrelay.ssh.interface import Connection, Fault, NotAnswered
from mailrelay.tracking.conclusion import (
    Known,
    conclude,
    is_open,
    known_of,
    learn,
    not_followed,
    parse,
    reports_come_to,
)
from mailrelay.tracking.followed import Followed, Found
from mailrelay.tracking.question import MAX_IDS, Answer, Output, Place, Question
from mailrelay.tracking.schedule import AWAITED, FIRST, INTERVAL, MIN_GAP, next_question

log = logging.getLogger("mailrelay.relay")

PAUSE = 86_400.0
"""Seconds without questions, after one to which the relayhost gave no answer."""
MAX_HEADER = 65_536
"""Octets of the content in which the Message-ID is looked for."""


class Tracker:
    """Follows the mail of one relayhost.

    backends_for: the backends of a notice. notices_pending: called when a commit has made notices pending. changed: called
    when the scheduler should decide again. now: the clock, epoch seconds. hosts: the names of the relayhost that are known.
    """

    def __init__(
        self,
        relayhost: Relayhost,
        spool: FollowPort,
        backends_for: BackendsFor,
        notices_pending: Callable[[], None],
        changed: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self.is_asking = False
        self.hosts: Sequence[bytes] = ()
        self._name = relayhost.name
        self._command = "" if relayhost.track == "auto" else relayhost.track
        self._is_on = relayhost.track != "off"
        self._is_elsewhere = not (self._command or relayhost.command or _is_local(relayhost.smtp))
        self._spool = spool
        self._backends_for = backends_for
        self._notices_pending = notices_pending
        self._changed = changed
        self._now = now
        # Epoch seconds. The next question on a connection that is there, and the next one worth dialling.
        self._next = self._next_dial = math.inf
        # When to ask again about mail that was gone from the queue for the first time.
        self._confirmation: float | None = None
        self._asked: float | None = None
        self._reason = b""
        self._pause_end = -math.inf
        self._is_loaded = self._has_accepted = False
        # Whether there may be mail about which no question was tried yet.
        self._is_unasked = True
        self._known: dict[int, Known] = {}
        self._place: Place | None = None
        # Keys of messages about which a question was answered.
        self._were_asked: set[int] = set()
        # Whether the last question was about all messages in the queue there.
        self._is_all = True

    def question_in(self, *, is_connected: bool) -> float:
        """Seconds until the next question, 0 or less: now; inf: there is none, or one is being asked."""
        if self.is_asking:
            return math.inf
        return (self._next if is_connected else self._next_dial) - self._now()

    @property
    def connection_wanted_for(self) -> float:
        """Seconds for which a connection that is there should stay, for a question that shows what has left; 0 for none."""
        return 0.0 if self._confirmation is None else max(0.0, self._confirmation - self._now())

    def ask_before_end(self) -> bool:
        """The daemon has nothing else to do. Returns whether the daemon has to stay, because mail waits in the queue there.
        Mail that was not asked about since it was accepted is asked about now: it may have left."""
        now = self._now()
        if self._next_dial == math.inf or now < self._pause_end:
            return False
        if self._is_unasked:
            self._is_unasked = False
            self._next = self._next_dial = now
            self._changed()
        return True

    def accepted(self) -> None:
        """The mail server has accepted a message, just now."""
        if self._is_on:
            self._has_accepted = self._is_unasked = True
            now = self._now()
            earliest = now if self._asked is None else self._asked + MIN_GAP
            self._next = min(self._next, max(now + FIRST[0], earliest))
            if now >= self._pause_end:
                self._next_dial = min(self._next_dial, now + FIRST[AWAITED])

    def not_reached(self) -> None:
        """A dial has failed. The next one that is only for a question is made in an hour."""
        self._is_unasked = False
        self._next_dial = max(self._next_dial, self._now() + INTERVAL)

    async def look(self, *, must_ask: bool) -> None:
        """Asks the spool what is followed (once), and if the person may have done something (must_ask), whether a question
        is wanted now. Raises SpoolError."""
        if not self._is_on:
            return
        if not self._is_loaded:
            await self._schedule()
            self._is_loaded = must_ask = True
        if must_ask and await self._spool.is_retry_wanted(self._name):
            self._next = self._next_dial = self._now()

    async def ask(self, connection: Connection) -> None:
        """Asks about all mail that is followed, and writes the verdicts. The caller has set `is_asking`. Raises nothing."""
        try:
            await self._ask(connection)
            await self._schedule()
        except SpoolError as error:
            log.error("relay=%s: the state of mail there was not saved: %s", self._name, error)
            self._next = self._next_dial = self._now() + FIRST[AWAITED]
        except Exception:
            # An error of ours. It must not end the loop that sends mail.
            log.exception("relay=%s: nothing could be found out about mail there", self._name)
            self._next = self._next_dial = self._now() + PAUSE
        finally:
            self.is_asking = False
            self._changed()

    async def _ask(self, connection: Connection) -> None:
        messages = _by_message(await self._spool.followed(self._name))
        self._is_unasked = False
        last, self._asked = self._asked, self._now()
        retry = [key for key, recipients in messages.items() if any(one.is_retry_wanted for one in recipients)]
        if self._asked < self._pause_end and not retry:
            await self._write(messages, not_followed(_all(messages), self._reason))
            return
        if self._is_elsewhere:
            await self._cannot(messages, retry, "the mail server is not on the host that you log in to")
            return
        asked = await self._choose(messages, retry, last)
        try:
            answer = await connection.ask(self._question(messages, asked, retry))
        except NotAnswered as error:
            if not error.is_temporary:
                await self._cannot(messages, retry, _as_reason(str(error)))
        except Fault as fault:
            log.info("relay=%s: the connection was lost before an answer about mail there: %s", self._name, fault)
        else:
            self._were_asked.update(asked)
            hosts = {connection.host.encode(), *self.hosts}
            await self._conclude(messages, asked, retry, answer, hosts)

    async def _choose(
        self, messages: Mapping[int, Sequence[Followed]], retry: Sequence[int], last: float | None
    ) -> list[int]:
        """The messages to ask about: those that may be in the queue there, first those that were not asked about yet. Learns
        the ids of these, and of others that a report may name. last: the question before this one."""
        self._known = {key: known for key, known in self._known.items() if key in messages}
        self._were_asked.intersection_update(messages)
        open_ones = [key for key, recipients in messages.items() if any(_is_asked(one.verdict) for one in recipients)]
        open_ones.sort(key=self._were_asked.__contains__)
        asked: list[int] = []
        left = MAX_IDS
        for key in dict.fromkeys((*retry, *open_ones)):
            left -= len((await self._learn(messages[key][0])).queue_ids)
            if left < 0:
                break
            asked.append(key)
            if key not in self._were_asked and (last is None or messages[key][0].accepted <= last):
                # What the log says of it may stand before the place at which the last answer ended.
                self._place = None
        for key in islice((key for key in messages if key not in asked), MAX_IDS):
            await self._learn(messages[key][0])
        self._is_all = len(asked) >= len(open_ones)
        return asked

    async def _learn(self, followed: Followed) -> Known:
        """What is known of a message, and at first what names it."""
        known = self._known.get(followed.message)
        if known is None:
            header = await self._spool.content_start(followed.message, MAX_HEADER)
            known = known_of(followed, unxtext(followed.envid), message_id(header)[1:-1])
            self._known[followed.message] = known
        return known

    def _question(
        self, messages: Mapping[int, Sequence[Followed]], asked: Sequence[int], retry: Sequence[int]
    ) -> Question:
        marks = [mark for key in (*asked, *self._known) for mark in self._known[key].marks]
        return Question(
            [queue_id for key in asked for queue_id in self._known[key].queue_ids],
            list(dict.fromkeys(marks))[: 4 * MAX_IDS],
            [queue_id for key in retry if key in asked for queue_id in self._known[key].queue_ids],
            self._command,
            min((one.accepted for one in _all(messages)), default=self._now()),
            self._place,
        )

    async def _conclude(
        self,
        messages: Mapping[int, Sequence[Followed]],
        asked: Sequence[int],
        retry: Sequence[int],
        answer: Answer,
        hosts: Collection[bytes],
    ) -> None:
        asked_at = self._asked if self._asked is not None else self._now()
        parsed = parse(answer, self._known.values())
        has_ids = any(self._known[key].queue_ids for key in asked)
        if has_ids and parsed.reason and parsed.reports is None:
            await self._cannot(messages, retry, parsed.reason.decode("utf-8", "replace"))
            return
        if parsed.reason and parsed.reason != self._reason:
            self._reason = parsed.reason
            log.info("relay=%s: only reports are seen there: %s", self._name, printable(parsed.reason))
        self._place = answer.place
        found: list[Found] = []
        named = parsed.about
        for key in dict.fromkeys((*asked, *(key for key, known in self._known.items() if known.name in named))):
            known = learn(self._known[key], parsed)
            if known.queue_ids != self._known[key].queue_ids:
                # The log was not searched for the new queue id.
                self._place = None
            is_reported_here = reports_come_to(messages[key][0].sender, answer.account, hosts)
            self._known[key], verdicts = conclude(
                messages[key],
                known,
                parsed,
                # After a start, the mail server has not named itself yet.
                is_reported_here=is_reported_here or (None if not self.hosts else False),
                now=asked_at,
            )
            found += verdicts
        await self._write(messages, found)
        if retry:
            await self._spool.retry_told(retry, retry_text(answer.retried))

    async def _cannot(self, messages: Mapping[int, Sequence[Followed]], retry: Sequence[int], reason: str) -> None:
        """Nothing can be seen there, because of `reason`: asks nothing for a day."""
        self._reason, self._pause_end = reason.encode(), self._now() + PAUSE
        log.info("relay=%s: mail is not followed there: %s", self._name, printable(self._reason))
        await self._write(messages, not_followed(_all(messages), self._reason))
        if retry:
            await self._spool.retry_told(
                retry, f"its mail server could not be asked to try again: {printable(self._reason)}"
            )

    async def _write(self, messages: Mapping[int, Sequence[Followed]], found: Sequence[Found]) -> None:
        if found and await self._spool.found(found, self._backends_for):
            self._notices_pending()
        before = {one.recipient: one for one in _all(messages)}
        for one in found:
            was = before[one.recipient]
            # Why mail is not followed is logged once, not for each recipient.
            if one.verdict.state not in (was.verdict.state, There.NOT_FOLLOWED):
                log.info("%s", followed_there(was.queue_id, was.address, self._name, one.verdict))

    async def _schedule(self) -> None:
        """Decides when to ask next. Raises SpoolError."""
        self._has_accepted = False
        followed = await self._spool.followed(self._name)
        now = self._now()
        waiting = [one.accepted for one in followed if is_open(one.verdict)]
        unseen = [one.accepted for one in followed if one.verdict.state is There.NOT_FOLLOWED]
        # Only a late report can say more of these.
        left = [one.accepted for one in followed if not _is_asked(one.verdict)]
        soon = next_question((*waiting, *unseen), self._asked, now)
        late = next_question(left, self._asked, now, is_worth_dialling=True)
        dial = next_question(waiting, self._asked, now, is_worth_dialling=True)
        self._confirmation = self._confirmation_of(followed)
        self._next = min((at for at in (soon, late, self._confirmation) if at is not None), default=math.inf)
        self._next_dial = math.inf if dial is None else dial
        if now < self._pause_end:
            # Before that, what is new is only marked.
            self._next_dial = self._pause_end if waiting or unseen else math.inf
            self._next = self._next if waiting else self._next_dial
        if self._has_accepted:
            # The spool was asked before this message was in it.
            self.accepted()

    def _confirmation_of(self, followed: Sequence[Followed]) -> float | None:
        """When to ask again about mail that was gone from the queue for the first time, or that was left out of the last
        question; None if there is none."""
        is_gone = not self._is_all or any(
            is_open(one.verdict) and one.message in self._known and one.recipient in self._known[one.message].gone_since
            for one in followed
        )
        return self._asked + MIN_GAP if is_gone and self._asked is not None else None


def retry_text(retried: Output | None) -> str:
    """What became of the wish that the mail server try again, for the person."""
    if retried is None:
        return "its mail server tries again by itself; with your account there it cannot be asked to"
    if retried.status == 0:
        return "its mail server was asked to try again"
    words = b" ".join(retried.octets.split())
    return f"its mail server was not asked to try again: {printable(words[:300])}"


def _as_reason(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _is_local(smtp: Tcp) -> bool:
    return smtp.host in ("localhost", "127.0.0.1", "::1")


def _is_asked(verdict: Verdict) -> bool:
    return is_open(verdict) or verdict.state is There.NOT_FOLLOWED


def _by_message(followed: Iterable[Followed]) -> dict[int, list[Followed]]:
    """By the key of the message, in the order given."""
    messages: dict[int, list[Followed]] = {}
    for one in followed:
        messages.setdefault(one.message, []).append(one)
    return messages


def _all(messages: Mapping[int, Sequence[Followed]]) -> list[Followed]:
    return [one for recipients in messages.values() for one in recipients]
