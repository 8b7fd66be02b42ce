"""When the relayhost is asked about accepted mail, and what is done with its answers."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any, cast

import pytest

from mailrelay.config import Relayhost
from mailrelay.endpoint import Tcp
from mailrelay.mail.backends import BackendsFor
from mailrelay.mail.outcome import Outcome, Stage
from mailrelay.mail.spool_errors import SpoolError
from mailrelay.mail.there import Source, There, Verdict
from mailrelay.relay.tracker import PAUSE, Tracker, retry_text
from mailrelay.ssh.interface import Connection, Fault, NotAnswered
from mailrelay.tracking.followed import Followed, Found
from mailrelay.tracking.question import MAX_IDS, Answer, Output, Place, Question
from mailrelay.tracking.queue_id import Server
from mailrelay.tracking.schedule import MIN_GAP

ID = "4fXyZ12345"
WAITING = Verdict(There.WAITING)
EMPTY = Answer(Server.POSTFIX, Output(b"", 0), None, b"", None, "me", Place("p"))


@dataclass
class Clock:
    at: float = 10_000.0

    def __call__(self) -> float:
        return self.at


@dataclass
class Spool:
    """What is followed, as a spool would keep it."""

    rows: dict[int, Followed] = field(default_factory=dict)
    told: list[tuple[list[int], str]] = field(default_factory=list)

    def follow(self, key: int, accepted: float, verdict: Verdict = WAITING) -> None:
        reply = b"250 2.0.0 Ok: queued as " + ID.encode() + b"%d" % key
        self.rows[key] = Followed(
            key, key, f"abcdefg{key}", b"a@b.example", b"me@mx.example", b"", reply, accepted, verdict
        )

    async def followed(self, relayhost: str) -> Sequence[Followed]:
        return list(self.rows.values())

    async def found(self, found: Sequence[Found], backends_for: BackendsFor) -> bool:
        for one in found:
            self.rows[one.recipient] = replace(self.rows[one.recipient], verdict=one.verdict)
            if one.is_over:
                del self.rows[one.recipient]
        return any(one.verdict.state is There.BOUNCED for one in found)

    async def is_retry_wanted(self, relayhost: str) -> bool:
        return any(one.is_retry_wanted for one in self.rows.values())

    async def retry_told(self, messages: Sequence[int], text: str) -> None:
        self.told.append((list(messages), text))
        for key in messages:
            self.rows[key] = replace(self.rows[key], is_retry_wanted=False)

    async def content_start(self, message: int, limit: int) -> bytes:
        return b"Message-ID: <m%d.12345@laptop.example>\r\n\r\n" % message


@dataclass
class Relayhosts:
    """A connection that gives these answers."""

    answers: list[Answer | Exception]
    questions: list[Question] = field(default_factory=list)
    host: str = "mx.example"
    meanwhile: Callable[[], None] = lambda: None

    async def ask(self, question: Question) -> Answer:
        self.questions.append(question)
        self.meanwhile()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


LOCAL = Tcp("localhost", 25)


class Rig:
    def __init__(self, *answers: Answer | Exception, track: str = "auto", smtp: Tcp = LOCAL, command: str = "") -> None:
        self.clock = Clock()
        self.spool = Spool()
        self.there = Relayhosts(list(answers))
        self.notices = self.changes = 0
        relayhost = Relayhost(
            name="default",
            ssh="me@mx.example",
            ssh_config=Path("/"),
            track=track,
            smtp=smtp,
            command=command,
        )
        self.tracker = Tracker(relayhost, self.spool, lambda *_: (), self._noticed, self._changed, self.clock)

    def _noticed(self) -> None:
        self.notices += 1

    def _changed(self) -> None:
        self.changes += 1

    def accept(self, key: int) -> None:
        self.spool.follow(key, self.clock.at)
        self.tracker.accepted()

    async def ask(self) -> None:
        self.tracker.is_asking = True
        await self.tracker.ask(cast(Connection, self.there))

    def due(self) -> tuple[float, float]:
        """Seconds until the next question, with a connection and without."""
        return self.tracker.question_in(is_connected=True), self.tracker.question_in(is_connected=False)


async def test_it_is_asked_two_seconds_after_the_250_and_dialled_for_after_two_minutes() -> None:
    rig = Rig()
    await rig.tracker.look(must_ask=True)
    assert rig.due() == (inf, inf)
    rig.accept(1)
    assert rig.due() == (2.0, 120.0)


async def test_what_waits_there_is_asked_again_and_what_has_left_is_not() -> None:
    rig = Rig(EMPTY, EMPTY)
    rig.accept(1)
    rig.clock.at += 2
    await rig.ask()
    assert rig.due() == (5.0, 118.0), "gone once: not known yet"
    rig.clock.at += 5
    await rig.ask()
    assert rig.spool.rows[1].verdict.state is There.LEFT
    assert rig.due() == (113.0, inf), "a late report is looked for, but no connection is dialled for it"
    assert not rig.tracker.ask_before_end()
    assert [one.ids for one in rig.there.questions] == [[ID + "1"], [ID + "1"]]
    assert rig.there.questions[0].marks == [ID + "1", "m1.12345@laptop.example"]


async def test_a_daemon_that_would_end_asks_at_once_about_new_mail_and_stays_for_what_waits_there() -> None:
    rig = Rig(replace(EMPTY, listing=listed(1)))
    await rig.tracker.look(must_ask=True)
    assert not rig.tracker.ask_before_end()
    rig.accept(1)
    assert rig.tracker.ask_before_end()
    assert rig.due() == (0.0, 0.0)
    await rig.ask()
    assert rig.spool.rows[1].verdict.state is There.DEFERRED
    later = rig.due()
    assert min(later) > 0
    assert rig.tracker.ask_before_end()
    assert rig.due() == later


async def test_the_log_is_read_on_from_its_place_unless_a_message_may_stand_before_it() -> None:
    rig = Rig(EMPTY, EMPTY, EMPTY)
    rig.accept(1)
    rig.clock.at += 2
    await rig.ask()
    rig.clock.at += 6
    rig.accept(2)
    rig.clock.at += 2
    await rig.ask()
    rig.spool.follow(3, rig.clock.at - 1)
    rig.clock.at += 10
    await rig.ask()
    assert [one.place for one in rig.there.questions] == [None, Place("p"), None]


async def test_a_bounce_there_makes_notices_pending(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mailrelay")
    line = (
        f"Nov 28 12:00:00 mx postfix/smtp[12]: {ID}1: to=<a@b.example>, relay=next.example[192.0.2.1]:25, delay=0.1,"
        " delays=0/0/0/0.1, dsn=5.1.1, status=bounced (host said: 550 no such user)\n"
    )
    rig = Rig(replace(EMPTY, log=line.encode()))
    rig.accept(1)
    await rig.ask()
    assert rig.notices == 1
    assert not rig.spool.rows
    (said,) = (one.message for one in caplog.records)
    assert said == (
        "abcdefg1 to=<a@b.example> relay=default there=bounced source=log by=next.example[192.0.2.1]:25"
        " (host said: 550 no such user)"
    )


@pytest.mark.parametrize(
    "answer",
    [
        NotAnswered("The account may run no command."),
        replace(
            EMPTY,
            listing=Output(b"postqueue: fatal: User me(7) is not allowed to view the mail queue\n", 69),
            reports=None,
        ),
    ],
)
async def test_no_answer_is_one_log_line_and_no_question_for_a_day(
    answer: Answer | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mailrelay")
    rig = Rig(answer, EMPTY)
    rig.accept(1)
    await rig.ask()
    assert rig.spool.rows[1].verdict.state is There.NOT_FOLLOWED
    assert sum("is not followed there" in one.message for one in caplog.records) == 1
    rig.clock.at += 60
    rig.accept(2)
    await rig.ask()
    assert rig.spool.rows[2].verdict.state is There.NOT_FOLLOWED
    assert len(rig.there.questions) == 1
    assert rig.due() == (PAUSE - 60, PAUSE - 60)
    assert not rig.tracker.ask_before_end(), "the daemon need not stay for it"
    rig.clock.at += PAUSE
    await rig.ask()
    assert rig.spool.rows[1].verdict.state is There.WAITING


async def test_a_refusal_for_now_changes_nothing() -> None:
    rig = Rig(NotAnswered("No more sessions now.", is_temporary=True), EMPTY)
    rig.accept(1)
    rig.clock.at += 2
    await rig.ask()
    assert rig.spool.rows[1].verdict == WAITING
    assert rig.due() == (8.0, 118.0)


async def test_a_person_who_wants_a_retry_is_told_that_nothing_can_be_asked() -> None:
    rig = Rig(NotAnswered("The SSH server refuses to run a command: no."))
    rig.accept(1)
    rig.spool.rows[1] = replace(rig.spool.rows[1], is_retry_wanted=True)
    await rig.ask()
    ((keys, text),) = rig.spool.told
    assert keys == [1]
    assert text.endswith(": the SSH server refuses to run a command: no")
    assert rig.spool.rows[1].verdict.words == b"the SSH server refuses to run a command: no"


async def test_an_error_of_ours_ends_nothing() -> None:
    rig = Rig(RuntimeError("an error of ours"))
    rig.accept(1)
    await rig.ask()
    assert rig.due() == (PAUSE, PAUSE)
    assert not rig.tracker.is_asking


async def test_more_messages_than_one_question_has_room_for_are_asked_about_in_turn() -> None:
    rig = Rig(EMPTY, EMPTY)
    for key in range(1, MAX_IDS + 101):
        rig.accept(key)
    rig.clock.at += 2
    await rig.ask()
    assert len(rig.there.questions[0].ids) == MAX_IDS
    assert rig.due()[0] == MIN_GAP
    rig.clock.at += MIN_GAP
    await rig.ask()
    first, second = (set(one.ids) for one in rig.there.questions)
    assert len(first | second) == MAX_IDS + 100, "those that were not asked about come first"
    assert rig.there.questions[1].place is None, "the log was not searched for these"
    left = {key for key, one in rig.spool.rows.items() if one.verdict.state is There.LEFT}
    assert {f"{ID}{key}" for key in left} == first & second, "nothing is concluded of what was not asked about"


async def test_nothing_is_asked_where_the_mail_server_is_on_another_host() -> None:
    rig = Rig(smtp=Tcp("192.0.2.1", 25))
    rig.accept(1)
    await rig.ask()
    assert rig.there.questions == []
    assert rig.spool.rows[1].verdict.words == b"the mail server is not on the host that you log in to"


async def test_a_lost_connection_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mailrelay")
    rig = Rig(Fault(Outcome(Stage.CHANNEL, text="lost")))
    rig.accept(1)
    rig.clock.at += 2
    await rig.ask()
    assert rig.spool.rows[1].verdict == WAITING
    assert rig.due() == (8.0, 118.0)
    assert "relay=default: the connection was lost before an answer about mail there: lost" in caplog.text


async def test_a_failed_dial_for_a_question_is_not_repeated_for_an_hour() -> None:
    rig = Rig()
    rig.accept(1)
    rig.clock.at += 200
    assert rig.due()[1] < 0
    rig.tracker.not_reached()
    assert rig.due()[1] == 3600.0


async def test_after_a_restart_what_is_followed_is_asked_about_at_once() -> None:
    rig = Rig()
    rig.spool.follow(1, rig.clock.at - 1000, Verdict(There.DEFERRED, Source.QUEUE, b"later"))
    await rig.tracker.look(must_ask=False)
    assert max(rig.due()) < 0


async def test_the_person_may_want_the_mail_server_to_try_again() -> None:
    rig = Rig(replace(EMPTY, retried=Output(b"", 0)), EMPTY)
    rig.accept(1)
    rig.clock.at += 3000
    rig.spool.rows[1] = replace(rig.spool.rows[1], is_retry_wanted=True)
    await rig.tracker.look(must_ask=True)
    assert rig.due() == (0.0, 0.0)
    await rig.ask()
    assert rig.there.questions[0].retry == [ID + "1"]
    assert rig.spool.told == [([1], "its mail server was asked to try again")]


async def test_what_the_person_wanted_while_no_daemon_ran_is_asked_at_its_start() -> None:
    rig = Rig()
    rig.spool.follow(1, rig.clock.at - 30)
    rig.spool.rows[1] = replace(rig.spool.rows[1], is_retry_wanted=True)
    await rig.tracker.look(must_ask=False)
    assert rig.due() == (0.0, 0.0)


async def test_the_connection_stays_for_the_question_that_shows_what_has_left() -> None:
    """Otherwise mail that was delivered after a delay is *waiting* until the next dial, up to an hour later."""
    rig = Rig(EMPTY, EMPTY)
    rig.accept(1)
    assert rig.tracker.connection_wanted_for == 0.0
    rig.clock.at += 7200
    await rig.ask()
    assert rig.tracker.connection_wanted_for == 5.0
    rig.clock.at += 4
    assert rig.tracker.connection_wanted_for == 1.0
    rig.clock.at += 1
    await rig.ask()
    assert rig.spool.rows[1].verdict.state is There.LEFT
    assert rig.tracker.connection_wanted_for == 0.0


async def test_after_a_start_a_report_is_waited_for_until_the_mail_server_has_named_itself() -> None:
    """A dial for a question alone opens no conversation: nobody knows yet whose mailbox a report would go to."""
    rig = Rig(EMPTY, EMPTY)
    rig.there.host = "192.0.2.1"
    rig.spool.follow(1, rig.clock.at - 1000)
    await rig.ask()
    rig.clock.at += 5
    await rig.ask()
    assert rig.spool.rows[1].verdict.state is There.LEFT_UNWATCHED
    assert 1 in rig.spool.rows, "it is followed: a report may come"


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"smtp": Tcp("127.0.0.1", 25)}, id="IPv4 loopback"),
        pytest.param({"smtp": Tcp("::1", 25)}, id="IPv6 loopback"),
        pytest.param({"smtp": Tcp("192.0.2.1", 25), "track": "list-queue"}, id="elsewhere, with the person's command"),
        pytest.param({"smtp": Tcp("192.0.2.1", 25), "command": "/usr/sbin/smtp"}, id="a program there"),
    ],
)
async def test_it_is_asked_where_its_queue_can_be_seen_from_the_host_that_is_logged_in_to(how: dict[str, Any]) -> None:
    rig = Rig(EMPTY, **how)
    rig.accept(1)
    await rig.ask()
    (question,) = rig.there.questions
    assert question.command == how.get("track", "")
    assert rig.spool.rows[1].verdict == WAITING


async def test_while_a_question_is_asked_no_other_one_is_due_and_its_end_is_told() -> None:
    rig = Rig(EMPTY)
    rig.accept(1)
    rig.clock.at += 9
    rig.tracker.is_asking = True
    assert rig.due() == (inf, inf)
    await rig.ask()
    assert rig.changes == 1
    assert max(rig.due()) < inf


async def test_a_daemon_that_would_end_asks_once_about_what_an_earlier_one_left() -> None:
    rig = Rig()
    rig.spool.follow(1, rig.clock.at - 1)
    await rig.tracker.look(must_ask=False)
    assert rig.due() == (1.0, 119.0)
    assert rig.tracker.ask_before_end()
    assert (rig.due(), rig.changes) == ((0.0, 0.0), 1)
    rig.clock.at += 1
    assert rig.tracker.ask_before_end()
    assert (rig.due(), rig.changes) == ((-1.0, -1.0), 1)


async def test_a_daemon_that_would_end_does_not_dial_again_where_a_dial_has_just_failed() -> None:
    rig = Rig()
    rig.accept(1)
    rig.tracker.not_reached()
    assert rig.tracker.ask_before_end()
    assert rig.due()[1] == 3600.0
    assert rig.changes == 0


async def test_a_failed_dial_does_not_bring_a_later_one_forward() -> None:
    rig = Rig(NotAnswered("no"))
    rig.accept(1)
    await rig.ask()
    rig.tracker.not_reached()
    assert rig.due()[1] == PAUSE


async def test_a_message_accepted_soon_after_a_question_waits_for_the_gap_between_questions() -> None:
    rig = Rig(Fault(Outcome(Stage.CHANNEL, text="lost")))
    rig.accept(1)
    rig.clock.at += 2
    await rig.ask()
    rig.clock.at += 1
    rig.accept(2)
    assert rig.due() == (4.0, 117.0)
    rig.clock.at += 3
    rig.accept(3)
    assert rig.due()[0] == 1.0, "no later because of another message"


async def test_the_spool_is_asked_for_wishes_only_when_the_person_may_have_done_something() -> None:
    rig = Rig()
    await rig.tracker.look(must_ask=True)
    rig.accept(1)
    rig.spool.rows[1] = replace(rig.spool.rows[1], is_retry_wanted=True)
    await rig.tracker.look(must_ask=False)
    assert rig.due() == (2.0, 120.0)


async def test_a_verdict_that_cannot_be_written_is_asked_for_again_soon(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(EMPTY)
    rig.accept(1)

    async def full(found: Sequence[Found], backends_for: BackendsFor) -> bool:
        raise SpoolError("the disk is full")

    rig.spool.found = full  # type: ignore[method-assign]
    rig.clock.at += 50
    rig.spool.follow(2, rig.clock.at, Verdict(There.NOT_FOLLOWED))
    await rig.ask()
    assert rig.due() == (120.0, 120.0)
    assert not rig.tracker.is_asking
    assert "relay=default: the state of mail there was not saved: the disk is full" in caplog.text


async def test_in_a_day_without_questions_the_wish_to_try_again_asks_all_the_same() -> None:
    rig = Rig(NotAnswered("The account may run no command."), replace(EMPTY, retried=Output(b"", 0)))
    rig.accept(1)
    await rig.ask()
    rig.clock.at += 60
    rig.spool.rows[1] = replace(rig.spool.rows[1], is_retry_wanted=True)
    await rig.ask()
    assert [one.retry for one in rig.there.questions] == [[], [ID + "1"]]
    assert rig.spool.told == [([1], "its mail server was asked to try again")]


async def test_a_day_without_questions_ends_after_a_day() -> None:
    rig = Rig(NotAnswered("no"), EMPTY)
    rig.accept(1)
    await rig.ask()
    rig.clock.at += PAUSE - 1
    await rig.ask()
    assert len(rig.there.questions) == 1
    rig.clock.at += 1
    assert rig.due()[1] <= 0
    rig.accept(2)
    assert rig.tracker.ask_before_end()
    await rig.ask()
    assert len(rig.there.questions) == 2


async def test_in_a_day_without_questions_new_mail_is_marked_at_its_time_and_dials_nothing() -> None:
    rig = Rig(NotAnswered("no"))
    rig.accept(1)
    await rig.ask()
    rig.clock.at += 60
    rig.accept(2)
    assert rig.due() == (2.0, PAUSE - 60)
    rig.spool.rows.clear()
    rig.clock.at += 2
    await rig.ask()
    assert rig.due() == (inf, inf), "nothing is followed any more"


async def test_a_question_is_about_the_log_since_the_oldest_message_and_names_each_mark_once() -> None:
    rig = Rig(EMPTY)
    for key, ago in ((1, 20.0), (2, 50.0), (3, 10.0)):
        rig.spool.follow(key, rig.clock.at - ago)
    rig.spool.rows[3] = replace(rig.spool.rows[3], envid=b"abc+2Bdefgh")
    rig.spool.rows[2] = replace(rig.spool.rows[2], verdict=Verdict(There.LEFT, Source.QUEUE))
    await rig.ask()
    (question,) = rig.there.questions
    assert question.since == rig.clock.at - 50.0
    assert question.ids == [ID + "1", ID + "3"], "what has left the queue is not looked for in it"
    assert question.retry == []
    marks = [
        mark
        for key in (1, 3, 2)
        for mark in (f"{ID}{key}", *(["abc+defgh"] * (key == 3)), f"m{key}.12345@laptop.example")
    ]
    assert question.marks == marks


async def test_a_message_with_several_recipients_is_asked_about_once_and_each_gets_its_verdict() -> None:
    rig = Rig(EMPTY, EMPTY)
    rig.accept(1)
    rig.spool.rows[2] = replace(rig.spool.rows[1], recipient=2, address=b"c@b.example")
    rig.clock.at += 2
    await rig.ask()
    rig.clock.at += 5
    await rig.ask()
    assert [one.ids for one in rig.there.questions] == [[ID + "1"], [ID + "1"]]
    assert [one.verdict.state for one in rig.spool.rows.values()] == [There.LEFT, There.LEFT]


async def test_one_question_has_room_for_as_many_messages_as_it_may_have_ids() -> None:
    rig = Rig(EMPTY)
    for key in range(1, MAX_IDS + 1):
        rig.accept(key)
    rig.spool.rows[MAX_IDS] = replace(rig.spool.rows[MAX_IDS], is_retry_wanted=True)
    rig.clock.at += 2
    await rig.ask()
    (question,) = rig.there.questions
    assert len(question.ids) == MAX_IDS
    assert question.ids[0] == question.retry[0] == f"{ID}{MAX_IDS}", "what the person wants comes first"
    assert len(question.marks) == 2 * MAX_IDS


def listed(*keys: int) -> Output:
    """The queue there, with these messages, all deferred."""
    lines = (
        f'{{"queue_name": "deferred", "queue_id": "{ID}{key}", "arrival_time": 10000, "message_size": 1,'
        ' "sender": "me@mx.example", "recipients": [{"address": "a@b.example", "delay_reason": "451 later"}]}\n'
        for key in keys
    )
    return Output("".join(lines).encode(), 0)


async def test_messages_that_one_question_has_no_room_for_are_asked_about_soon_also_if_all_others_wait() -> None:
    rig = Rig(*[replace(EMPTY, listing=listed(*range(1, MAX_IDS + 2)))] * 2)
    for key in range(1, MAX_IDS + 2):
        rig.accept(key)
    rig.clock.at += 2
    await rig.ask()
    assert rig.due()[0] == MIN_GAP
    rig.clock.at += MIN_GAP
    await rig.ask()
    assert rig.there.questions[1].ids[0] == f"{ID}{MAX_IDS + 1}"
    assert len({queue_id for one in rig.there.questions for queue_id in one.ids}) == MAX_IDS + 1


async def test_a_message_that_has_left_for_some_of_its_recipients_is_asked_about_for_the_others() -> None:
    rig = Rig(EMPTY)
    rig.accept(1)
    rig.spool.rows[2] = replace(rig.spool.rows[1], recipient=2, verdict=Verdict(There.LEFT, Source.QUEUE))
    await rig.ask()
    assert rig.there.questions[0].ids == [ID + "1"]


async def test_a_message_that_is_not_followed_any_more_is_not_named() -> None:
    rig = Rig(EMPTY, EMPTY)
    rig.accept(1)
    rig.accept(2)
    await rig.ask()
    del rig.spool.rows[1]
    rig.clock.at += 5
    await rig.ask()
    assert rig.there.questions[1].ids == [ID + "2"]
    assert rig.there.questions[1].marks == [ID + "2", "m2.12345@laptop.example"]


async def test_the_log_is_read_from_its_begin_for_a_message_accepted_in_the_instant_of_the_last_question() -> None:
    rig = Rig(EMPTY, EMPTY)
    rig.accept(1)
    rig.clock.at += 2
    await rig.ask()
    rig.spool.follow(2, rig.clock.at)
    rig.clock.at += 5
    await rig.ask()
    assert rig.there.questions[1].place is None


async def test_the_log_line_about_a_verdict_comes_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mailrelay")
    answer = replace(EMPTY, listing=listed(1))
    rig = Rig(answer, answer)
    rig.accept(1)
    for _ in range(2):
        rig.clock.at += 10
        await rig.ask()
    assert sum("there=deferred" in one.message for one in caplog.records) == 1


async def test_where_only_reports_are_seen_the_reason_is_logged_once_and_mail_is_watched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "mailrelay")
    answer = replace(EMPTY, listing=None, reports=b"")
    rig = Rig(answer, answer)
    rig.accept(1)
    for _ in range(2):
        rig.clock.at += 10
        await rig.ask()
    lines = [one.message for one in caplog.records if "only reports are seen there" in one.message]
    assert lines == ["relay=default: only reports are seen there: the server has no queue that this account can list"]
    assert len(rig.there.questions) == 2, "it is asked on"


async def test_mail_whose_reply_names_no_queue_id_does_not_end_the_questions() -> None:
    rig = Rig(replace(EMPTY, listing=None, reports=None))
    rig.accept(1)
    rig.spool.rows[1] = replace(rig.spool.rows[1], reply=b"250 2.0.0 thank you")
    await rig.ask()
    assert rig.spool.rows[1].verdict.words == b"the reply of the mail server names no queue id"
    assert rig.due()[0] < PAUSE


async def test_where_some_messages_have_a_queue_id_and_no_queue_can_be_seen_nothing_is_asked_for_a_day() -> None:
    words = b"postqueue: fatal: \xff is not allowed to view the mail queue\n"
    rig = Rig(replace(EMPTY, listing=Output(words, 69), reports=None))
    rig.accept(1)
    rig.accept(2)
    rig.spool.rows[1] = replace(rig.spool.rows[1], reply=b"250 2.0.0 thank you", is_retry_wanted=True)
    await rig.ask()
    assert rig.due()[1] == PAUSE
    ((keys, text),) = rig.spool.told
    assert keys == [1]
    assert text.startswith("its mail server could not be asked to try again: this account may not see the queue there")
    assert {one.verdict.state for one in rig.spool.rows.values()} == {There.NOT_FOLLOWED}


async def test_the_time_of_an_answer_is_that_of_its_question() -> None:
    """Between the two questions after which a message has left, there is a gap, however long an answer takes."""
    rig = Rig(EMPTY, EMPTY)
    rig.accept(1)
    began = rig.clock.at

    def slow() -> None:
        rig.clock.at += 3

    rig.there.meanwhile = slow
    await rig.ask()
    rig.clock.at = began + MIN_GAP
    await rig.ask()
    assert rig.spool.rows[1].verdict.state is There.LEFT


async def test_a_temporary_refusal_and_a_lost_connection_keep_the_wish_to_try_again() -> None:
    rig = Rig(NotAnswered("No more sessions.", is_temporary=True), Fault(Outcome(Stage.CHANNEL, text="lost")))
    rig.accept(1)
    rig.spool.rows[1] = replace(rig.spool.rows[1], is_retry_wanted=True)
    await rig.ask()
    await rig.ask()
    assert rig.spool.told == []
    assert rig.spool.rows[1].is_retry_wanted


@pytest.mark.parametrize(
    ("host", "names", "state"),
    [
        pytest.param("mx.example", [], There.LEFT, id="the host that is logged in to"),
        pytest.param("192.0.2.1", [b"mx.example"], There.LEFT, id="a name of the mail server"),
        pytest.param("192.0.2.1", [b"other.example"], None, id="another one: nothing more can come"),
    ],
)
async def test_a_report_comes_to_the_account_if_the_sender_is_at_the_relayhost(
    host: str, names: list[bytes], state: There | None
) -> None:
    rig = Rig(replace(EMPTY, reports=b""), replace(EMPTY, reports=b""))
    rig.there.host, rig.tracker.hosts = host, names
    rig.accept(1)
    await rig.ask()
    rig.clock.at += 5
    await rig.ask()
    left = rig.spool.rows.get(1)
    assert (left and left.verdict.state) is state


async def test_nothing_is_followed_where_the_settings_say_off() -> None:
    rig = Rig(track="off")
    rig.accept(1)
    await rig.tracker.look(must_ask=True)
    assert rig.due() == (inf, inf)


async def test_a_message_accepted_while_the_answer_is_awaited_is_not_forgotten() -> None:
    rig = Rig(Fault(Outcome(Stage.CHANNEL, text="lost")))
    rig.accept(1)
    rig.clock.at += 2
    read = rig.spool.followed

    async def followed(relayhost: str) -> Sequence[Followed]:
        rows = await read(relayhost)
        if rig.there.questions and 2 not in rig.spool.rows:
            rig.accept(2)
        return rows

    rig.spool.followed = followed  # type: ignore[method-assign]
    await rig.ask()
    assert rig.due()[0] == 5.0, "not 8, as for the first one"


@pytest.mark.parametrize(
    ("retried", "text"),
    [
        (None, "its mail server tries again by itself; with your account there it cannot be asked to"),
        (Output(b"", 0), "its mail server was asked to try again"),
        (
            Output(b"postqueue: warning: x\n\x1bpostqueue: fatal: down\n", 69),
            "its mail server was not asked to try again: postqueue: warning: x \\x1bpostqueue: fatal: down",
        ),
    ],
)
def test_what_the_mail_server_was_told_is_one_line_for_the_person(retried: Output | None, text: str) -> None:
    assert retry_text(retried) == text
