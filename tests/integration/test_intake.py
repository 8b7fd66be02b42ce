"""The intake: the replies to clients, and that no client waits for a result that cannot come."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from mailrelay.config import Relayhost
from mailrelay.intake import BROKEN, FULL, NO_RELAYHOST, Intake, reply_to_spool_error, why_no_reply
from mailrelay.listener.replies import encode
from mailrelay.mail.client_reply import ClientReply
from mailrelay.mail.completion import Completion
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.lifecycle import State
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.mail.quantity import size
from mailrelay.mail.record import Arrival, Staged
from mailrelay.mail.send_time import SendTime
from mailrelay.mail.spool_errors import SpoolBroken, SpoolError, SpoolFull
from mailrelay.mail.trace import MAX_RECEIVED
from mailrelay.ports import LARGE
from mailrelay.relay import waiters
from mailrelay.relay.waiters import DeliveryResult, NotTaken, Queued, Refused, Waiters

ENVELOPE = Envelope(b"a@example.org", (Recipient(b"b@example.net"),), b"7BIT", False, b"", b"")
CONTENT = b"Subject: a letter\r\n\r\nhello\r\n"
NO_SUCH_USER = Outcome(Stage.RCPT, Reply(550, (b"5.1.1 no such user",)))
RELAYHOST = Relayhost(name="default", ssh="server", ssh_config=Path("/nowhere"))


class FakeScheduler:
    """A scheduler whose results are given by the test."""

    def __init__(self) -> None:
        self.carrier = self
        self.waiters = Waiters()
        self.fault_text = ""
        self.is_stuck = False
        self.arrived: list[int] = []
        self.has_arrived = asyncio.Event()
        self.probe_outcomes: list[Outcome | None] = []
        self.probed: list[Envelope] = []
        self.sent = 0
        self.vain = 0
        self.looks = 0
        self.expected = 0
        self.on_arrival: Callable[[], object] = lambda: None

    def message_arrived(self, message: int) -> None:
        self.arrived.append(message)
        self.on_arrival()
        self.has_arrived.set()

    def expect_message(self) -> None:
        self.expected += 1

    def message_waits(self) -> None:
        self.looks += 1

    def waited_in_vain(self) -> None:
        self.vain += 1

    def octets_sent(self, message: int) -> int:
        return self.sent

    async def probe_recipient(self, envelope: Envelope) -> Outcome | None:
        self.probed.append(envelope)
        if not self.probe_outcomes:
            await asyncio.Event().wait()
        return self.probe_outcomes.pop()


class Spool:
    """Takes everything, unless told otherwise.

    before_commit: called when a message is put on disk. unstage_error: why staged pieces cannot be removed.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.before_commit: Callable[[], object] = lambda: None
        self.unstage_error: Exception | None = None
        self.accepted: list[Arrival] = []
        self.staged: dict[int, bytes] = {}

    def new_queue_id(self) -> str:
        return "q123456789"

    async def accept(self, arrival: Arrival) -> int:
        if self.error is not None:
            raise self.error
        self.before_commit()
        self.accepted.append(arrival)
        return 7

    async def stage(self, staged: Staged | None, octets: bytes) -> Staged:
        if self.error is not None:
            raise self.error
        staged = staged or Staged(3, 0, 0)
        self.staged[staged.key] = self.staged.get(staged.key, b"") + octets
        return Staged(staged.key, staged.pieces + 1, staged.size + len(octets))

    async def unstage(self, staged: Staged) -> None:
        if self.unstage_error is not None:
            raise self.unstage_error
        del self.staged[staged.key]


def intake(scheduler: FakeScheduler, error: Exception | None = None, answer_within: float = 5.0) -> Intake:
    return Intake([RELAYHOST], {"default": scheduler}, Spool(error), lambda: None, answer_within)


@pytest.mark.parametrize(
    ("error", "reply"), [(SpoolFull("no room"), FULL), (SpoolBroken("EIO"), BROKEN), (SpoolError("busy"), BROKEN)]
)
async def test_a_message_that_cannot_be_written_to_disk_gets_a_4xx_and_no_waiter_stays_open(
    error: SpoolError, reply: Reply
) -> None:
    scheduler, announced = FakeScheduler(), []
    to = Intake([RELAYHOST], {"default": scheduler}, Spool(error), lambda: announced.append(True), 5.0)
    answer = await to.submit(ENVELOPE, CONTENT)
    assert answer.reply is reply
    assert (scheduler.arrived, announced) == ([], [])
    assert not scheduler.waiters.queue_ids


@pytest.mark.parametrize(
    ("error", "encoded", "logged"),
    [
        # The daemon itself reports a broken spool.
        (SpoolBroken("EIO"), b"451 4.3.0 The spool cannot be written", []),
        (SpoolFull("no room"), b"452 4.3.1 The spool or its disk is full", [(logging.ERROR, "no room")]),
        (SpoolError("busy"), b"451 4.3.0 The spool cannot be written", [(logging.CRITICAL, "busy")]),
    ],
)
def test_the_reason_why_a_message_cannot_be_written_is_logged_once(
    error: SpoolError, encoded: bytes, logged: list[tuple[int, str]], caplog: pytest.LogCaptureFixture
) -> None:
    assert encode(reply_to_spool_error(error)).startswith(encoded)
    assert [(one.levelno, one.message) for one in caplog.records] == [
        (level, f"refused mail with 4xx: {why}") for level, why in logged
    ]


async def test_a_message_that_is_on_disk_is_announced_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mailrelay")
    spool = Spool()
    on_disk: list[int] = []
    to = Intake([RELAYHOST], {"default": FakeScheduler()}, spool, lambda: on_disk.append(len(spool.accepted)), 0.0)
    await to.submit(ENVELOPE, CONTENT)
    [arrival] = spool.accepted
    assert on_disk == [1]
    assert caplog.messages == [
        f"q123456789 from=<a@example.org> size={arrival.size} nrcpt=1 relay=default status=accepted"
    ]


async def test_an_exception_while_a_message_is_written_to_disk_leaves_no_waiter_open() -> None:
    scheduler = FakeScheduler()
    with pytest.raises(OSError, match="statvfs"):
        await intake(scheduler, OSError("statvfs")).submit(ENVELOPE, CONTENT)
    assert not scheduler.waiters.queue_ids


async def test_after_answer_within_the_reply_is_queued_and_a_later_refusal_is_not_told() -> None:
    scheduler = FakeScheduler()
    answer = await intake(scheduler, answer_within=0.01).submit(ENVELOPE, CONTENT)
    assert answer.reply.code == 250
    assert b"queued" in answer.reply.text
    assert not await scheduler.waiters.tell_refusal("q123456789", Refused(NO_SUCH_USER))
    assert scheduler.vain == 1


async def test_a_client_does_not_wait_for_a_relayhost_that_is_known_to_be_unreachable() -> None:
    scheduler = FakeScheduler()
    scheduler.fault_text = "no network"
    answer = await intake(scheduler, answer_within=3600.0).submit(ENVELOPE, CONTENT)
    assert answer.reply.text.endswith(b"queued: no network")
    assert not scheduler.waiters.queue_ids


async def test_with_answer_within_0_the_reply_is_queued_at_once_and_the_server_is_not_checked() -> None:
    scheduler = FakeScheduler()
    answer = await intake(scheduler, answer_within=0.0).submit(ENVELOPE, CONTENT)
    assert answer.reply.text == b"2.0.0 q123456789 queued"
    assert (scheduler.arrived, scheduler.vain) == ([7], 0)


def test_mail_is_refused_as_long_as_one_of_several_relayhosts_cannot_record_its_results() -> None:
    first, second = FakeScheduler(), FakeScheduler()
    several = Intake([RELAYHOST], {"default": first, "work": second}, Spool(), lambda: None, 5.0)
    assert several.refusal() is None
    second.is_stuck = True
    assert several.refusal() is BROKEN


async def test_a_refusal_that_is_written_too_late_counts_as_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiters, "TOLD_WITHIN", 0.01)
    scheduler = FakeScheduler()
    submitting = asyncio.create_task(intake(scheduler).submit(ENVELOPE, CONTENT))
    await scheduler.has_arrived.wait()
    assert not await scheduler.waiters.tell_refusal("q123456789", Refused(NO_SUCH_USER))
    answer = await submitting
    assert answer.reply is NO_SUCH_USER.reply
    answer.told(True)


async def test_after_answer_within_the_reply_says_for_how_many_recipients_the_message_was_sent_so_far() -> None:
    for taken, text in (
        (2, b"2.0.0 q123456789 queued: sent to 2 of 3 so far; the rest follows"),
        (0, b"2.0.0 q123456789 queued: the mail server has not replied yet"),
    ):
        scheduler = FakeScheduler()
        part = DeliveryResult(taken, None, (LATER,) * (1 - taken // 2), taken // 2)
        scheduler.on_arrival = partial(scheduler.waiters.add, "q123456789", part)
        answer = await intake(scheduler, answer_within=0.01).submit(ENVELOPE, CONTENT)
        assert answer.reply.text == text


async def test_after_answer_within_no_client_is_told_that_a_message_is_queued_in_a_spool_that_is_lost() -> None:
    scheduler = FakeScheduler()
    scheduler.waiters.is_spool_broken = True
    answer = await intake(scheduler, answer_within=0.01).submit(ENVELOPE, CONTENT)
    assert (answer.reply, scheduler.vain) == (BROKEN, 0)


async def test_a_reason_in_a_reply_to_the_client_has_no_control_characters() -> None:
    scheduler = FakeScheduler()
    submitting = asyncio.create_task(intake(scheduler).submit(ENVELOPE, CONTENT))
    await scheduler.has_arrived.wait()
    scheduler.waiters.tell("q123456789", Queued("busy\r\n250 sent\x1b[2J"))
    answer = await submitting
    assert answer.reply.text == b"2.0.0 q123456789 queued: busy\\x0d\\x0a250 sent\\x1b[2J"


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT])
async def test_a_5xx_to_a_recipient_probe_is_passed_on_to_the_client(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mailrelay")
    scheduler = FakeScheduler()
    scheduler.probe_outcomes = [Outcome(stage, Reply(550, (b"5.1.1 no such user",)))]
    assert await intake(scheduler).probe_recipient(ENVELOPE, 5.0) == Reply(550, (b"5.1.1 no such user",))
    assert caplog.messages == [
        "NOQUEUE from=<a@example.org> to=<b@example.net> relay=default dsn=5.1.1 status=refused (550 5.1.1 no such user)"
    ]


@pytest.mark.parametrize(
    "word",
    [
        None,
        Outcome(Stage.RCPT, Reply(250, (b"fine",))),
        Outcome(Stage.RCPT, Reply(450, (b"4.2.1 later",))),
        Outcome(Stage.RCPT, Reply(552, (b"5.5.3 too many recipients",))),
        Outcome(Stage.RCPT, cause=Cause.LOST, text="the connection was lost"),
        Outcome(Stage.EHLO, cause=Cause.NO_SMTPUTF8, text="no SMTPUTF8"),
    ],
)
async def test_any_other_outcome_of_a_recipient_probe_accepts_the_recipient(word: Outcome | None) -> None:
    scheduler = FakeScheduler()
    scheduler.probe_outcomes = [word]
    assert await intake(scheduler).probe_recipient(ENVELOPE, 5.0) is None


async def test_a_recipient_probe_ends_after_its_time_out_and_after_answer_within() -> None:
    assert await intake(FakeScheduler()).probe_recipient(ENVELOPE, 0.01) is None
    assert await intake(FakeScheduler(), answer_within=0.01).probe_recipient(ENVELOPE, 3600.0) is None


async def test_with_answer_within_0_there_are_no_recipient_probes() -> None:
    scheduler = FakeScheduler()
    scheduler.probe_outcomes = [NO_SUCH_USER]
    assert await intake(scheduler, answer_within=0.0).probe_recipient(ENVELOPE, 5.0) is None
    assert scheduler.probe_outcomes == [NO_SUCH_USER]


async def settled(taken: int, *others: NotTaken, waiting: int = 0, why: str = "") -> bytes:
    """The answer to a client whose message has come out so."""

    scheduler = FakeScheduler()
    submitting = asyncio.create_task(intake(scheduler).submit(ENVELOPE, CONTENT))
    await scheduler.has_arrived.wait()
    reply = Reply(250, (b"2.0.0 taken as 1",)) if taken else None
    scheduler.waiters.tell("q123456789", DeliveryResult(taken, reply, others, waiting, why))
    answer = await submitting
    assert answer.reply.code == 250
    return answer.reply.text


LATER = NotTaken(b"later@example.net", State.DEFERRED, b"450 4.2.1 busy")
GONE = NotTaken(b"gone@example.net", State.BOUNCED, b"550 5.1.1 no such user")


@pytest.mark.parametrize(
    ("taken", "others", "answer"),
    [
        (2, (), b"2.0.0 q123456789 sent: 2.0.0 taken as 1"),
        (1, (LATER,), b"2.0.0 q123456789 sent to 1 of 2; <later@example.net> waits: 450 4.2.1 busy"),
        (1, (GONE,), b"2.0.0 q123456789 sent to 1 of 2; <gone@example.net> was refused: 550 5.1.1 no such user"),
        (
            0,
            (LATER, GONE),
            b"2.0.0 q123456789 queued; <later@example.net> waits: 450 4.2.1 busy; "
            b"<gone@example.net> was refused: 550 5.1.1 no such user",
        ),
    ],
)
async def test_a_reply_names_every_recipient_that_did_not_get_the_message(
    taken: int, others: tuple[NotTaken, ...], answer: bytes
) -> None:
    assert await settled(taken, *others) == answer


@pytest.mark.parametrize(
    ("waiting", "why", "answer"),
    [
        (1, "", b"2.0.0 q123456789 sent to 1 of 2; 1 waits"),
        (2, "no\r\nroom", b"2.0.0 q123456789 sent to 1 of 3; 2 wait: no\\x0d\\x0aroom"),
    ],
)
async def test_a_reply_says_how_many_recipients_wait_and_why(waiting: int, why: str, answer: bytes) -> None:
    assert await settled(1, waiting=waiting, why=why) == answer


async def test_a_client_hears_that_the_spool_is_lost_before_its_message_was_sent() -> None:
    scheduler = FakeScheduler()
    submitting = asyncio.create_task(intake(scheduler).submit(ENVELOPE, CONTENT))
    await scheduler.has_arrived.wait()
    scheduler.waiters.is_spool_broken = True
    scheduler.waiters.tell("q123456789", Queued("busy"))
    assert (await submitting).reply is BROKEN


async def test_a_reply_names_a_few_of_many_recipients_and_the_command_that_shows_the_others() -> None:
    answer = await settled(1, *[LATER] * 12)
    assert answer.startswith(b"2.0.0 q123456789 sent to 1 of 13; ")
    assert answer.count(b"<later@example.net>") == 5
    assert answer.endswith(b"; 7 more, see `mailrelay queue show q123456789`")
    answer = await settled(1, *[LATER] * 5)
    assert answer.count(b"<later@example.net>") == 5
    assert b" more" not in answer


@pytest.mark.parametrize(
    ("octets", "sent", "why"),
    [
        (1000, 0, "the mail server has not replied yet"),
        (LARGE, 1, "the mail server has not replied yet"),
        (LARGE + 1, LARGE + 1, f"all {size(LARGE + 1)} have been sent to the mail server, which has not replied yet"),
        (1000, 1000, "the mail server has not replied yet"),
        (25_000_000, 0, "the mail server has not replied yet"),
        (25_000_000, 3_276_800, "3.2 MB of 25 MB have been sent to the mail server; the rest follows"),
        (25_000_000, 25_000_000, "all 25 MB have been sent to the mail server, which has not replied yet"),
    ],
)
def test_the_reason_of_a_queued_reply_says_how_much_of_a_large_content_has_been_sent(
    octets: int, sent: int, why: str
) -> None:
    assert why_no_reply(octets, sent) == why


LARGE_CONTENT = CONTENT + b"x" * 70_000


async def test_a_content_in_pieces_becomes_one_message_with_one_received_field() -> None:
    scheduler, spool = FakeScheduler(), Spool()
    scheduler.fault_text = "no network"
    incoming = Intake([RELAYHOST], {"default": scheduler}, spool, lambda: None, 5.0).new_incoming(ENVELOPE)
    assert await incoming.add(LARGE_CONTENT) is None
    assert await incoming.add(b"and more\r\n") is None
    answer = await incoming.finish(b"and the end\r\n")
    assert answer.reply.code == 250
    [arrival] = spool.accepted
    whole = spool.staged[3] + arrival.content
    assert arrival.staged == Staged(3, 2, len(spool.staged[3]))
    assert arrival.size == len(whole)
    assert arrival.subject == "a letter"
    assert whole.endswith(LARGE_CONTENT + b"and more\r\nand the end\r\n")
    assert whole.count(b"Received:") == whole.count(b"Message-ID:") == 1


@pytest.mark.parametrize("at", ["first piece", "later piece", "end"])
async def test_a_content_in_pieces_that_the_spool_does_not_accept_leaves_nothing_staged(at: str) -> None:
    spool = Spool(SpoolFull("no room") if at == "first piece" else None)
    incoming = Intake([RELAYHOST], {"default": FakeScheduler()}, spool, lambda: None, 5.0).new_incoming(ENVELOPE)
    refusal = await incoming.add(LARGE_CONTENT)
    if at == "first piece":
        assert refusal is FULL
    spool.error = SpoolFull("no room")
    if at == "later piece":
        assert await incoming.add(b"more") is FULL
    if at == "end":
        assert (await incoming.finish(b"the end\r\n")).reply is FULL
    else:
        await incoming.abandon()
    assert spool.staged == {}
    assert spool.accepted == []


async def test_a_mail_loop_is_refused_once_the_header_is_complete_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    spool = Spool()
    to = Intake([RELAYHOST], {"default": FakeScheduler()}, spool, lambda: None, 5.0)
    looping = b"Received: from here\r\n" * 60 + LARGE_CONTENT
    assert (await to.submit(ENVELOPE, looping)).reply.code == 554
    refusal = await to.new_incoming(ENVELOPE).add(looping)
    assert refusal is not None
    assert refusal.code == 554
    assert spool.staged == {}
    assert (
        caplog.messages
        == [
            "NOQUEUE from=<a@example.org> command=content dsn=5.4.6 status=refused "
            "(554 5.4.6 Mail loop: the message has too many Received fields)"
        ]
        * 2
    )


@pytest.mark.parametrize(("fields", "code"), [(MAX_RECEIVED - 1, 250), (MAX_RECEIVED, 554)])
async def test_a_message_may_have_passed_through_so_many_servers_and_no_more(fields: int, code: int) -> None:
    looping = b"Received: from here\r\n" * fields + CONTENT
    assert (await intake(FakeScheduler(), answer_within=0.0).submit(ENVELOPE, looping)).reply.code == code


ROUTED = [
    Relayhost(name="default", ssh="server", ssh_config=Path("/nowhere")),
    Relayhost(name="work", ssh="server", ssh_config=Path("/nowhere"), senders=("*@work.example",)),
]


async def test_the_settings_complete_the_envelope_before_the_relayhost_is_chosen_and_the_content_stays() -> None:
    completion = Completion(
        b"me@work.example", b"", b"box@local.example", is_local_account=lambda name: name == b"root"
    )
    spool = Spool()
    intake = Intake(ROUTED, {}, spool, lambda: None, 0.0, completion=completion)
    envelope = Envelope(b"root", tuple(map(Recipient, (b"root", b"alice", b"postmaster", b"bob@example.net"))))
    content = b"From: root (Cron Daemon)\r\nTo: root\r\nDate: x\r\nMessage-ID: <a@b>\r\n\r\nhello\r\n"
    arrival = intake.make_arrival(envelope, content)
    assert isinstance(arrival, Arrival)
    assert (arrival.relayhost, arrival.envelope.sender, arrival.has_bare_header) == ("work", b"me@work.example", False)
    assert [to.address for to in arrival.envelope.recipients] == [
        *(b"box@local.example", b"alice@work.example", b"postmaster", b"bob@example.net")
    ]
    assert arrival.content.endswith(content)


async def test_a_recipient_is_asked_about_by_the_envelope_that_its_message_would_have() -> None:
    scheduler = FakeScheduler()
    scheduler.probe_outcomes = [NO_SUCH_USER]
    completion = Completion(b"me@work.example")
    asked = Intake(ROUTED, {"work": scheduler}, Spool(), lambda: None, 5.0, completion=completion)
    assert await asked.probe_recipient(Envelope(b"root", (Recipient(b"alice"),)), 5.0) is NO_SUCH_USER.reply
    [envelope] = scheduler.probed
    assert (envelope.sender, envelope.recipients[0].address) == (b"me@work.example", b"alice@work.example")


def test_a_client_that_will_send_a_message_is_a_reason_to_dial_the_relayhost_of_the_completed_sender() -> None:
    schedulers = {"default": FakeScheduler(), "work": FakeScheduler()}
    completion = Completion(b"me@work.example")
    Intake(ROUTED, schedulers, Spool(), lambda: None, 5.0, completion=completion).expect_message(b"root")
    assert [one.expected for one in schedulers.values()] == [0, 1]
    # No relayhost takes mail from this sender.
    Intake(ROUTED[1:], schedulers, Spool(), lambda: None, 5.0).expect_message(b"a@example.org")
    assert [one.expected for one in schedulers.values()] == [0, 1]


async def test_a_sender_from_whom_no_relayhost_takes_mail_is_refused_for_now_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    spool = Spool()
    to = Intake(ROUTED[1:], {"work": FakeScheduler()}, spool, lambda: None, 0.0)
    assert await to.probe_recipient(ENVELOPE, 5.0) is None
    answer = await to.submit(ENVELOPE, CONTENT)
    assert encode(answer.reply).startswith(b"451 4.3.5 No relayhost")
    assert await to.new_incoming(ENVELOPE).add(LARGE_CONTENT) is NO_RELAYHOST
    assert (spool.accepted, spool.staged) == ([], {})
    assert [(one.levelno, one.message) for one in caplog.records] == [
        (
            logging.ERROR,
            "refused mail from <a@example.org> with 4xx: no relayhost in the settings takes it",
        )
    ] * 2


async def test_changed_settings_hold_for_the_next_message() -> None:
    schedulers, spool = {"default": FakeScheduler(), "work": FakeScheduler()}, Spool()
    to = Intake(ROUTED[:1], schedulers, spool, lambda: None, 3600.0, lambda: 1_000.0)
    to.change(ROUTED, 0.0, Completion(b"me@work.example"), 0.0)
    assert (await to.submit(replace(ENVELOPE, sender=b"root"), CONTENT)).reply.text == b"2.0.0 q123456789 queued"
    [arrival] = spool.accepted
    assert (arrival.relayhost, arrival.envelope.sender) == ("work", b"me@work.example")
    to.change(ROUTED, 0.0, Completion(), 30.0)
    await to.submit(ENVELOPE, CONTENT)
    assert spool.accepted[1].envelope.send_time == SendTime(1_030.0, by_clock=False)
    assert [one.arrived for one in schedulers.values()] == [[], [7]]


async def test_a_message_whose_relayhost_is_removed_during_the_commit_is_kept() -> None:
    scheduler, spool = FakeScheduler(), Spool()
    schedulers = {"default": scheduler}
    spool.before_commit = schedulers.clear
    answer = await Intake([RELAYHOST], schedulers, spool, lambda: None, 0.0).submit(ENVELOPE, CONTENT)
    assert answer.reply.text == b"2.0.0 q123456789 queued"
    assert (len(spool.accepted), scheduler.arrived) == (1, [])


async def test_a_content_of_which_nothing_was_staged_cannot_be_finished() -> None:
    incoming = intake(FakeScheduler(), SpoolFull("no room")).new_incoming(ENVELOPE)
    for _ in range(2):
        with pytest.raises(ValueError, match="nothing was staged"):
            await incoming.finish(b"the end\r\n")
        assert await incoming.add(LARGE_CONTENT) is FULL


async def test_a_content_in_pieces_leaves_nothing_staged_if_an_exception_ends_it() -> None:
    spool = Spool()
    incoming = Intake([RELAYHOST], {"default": FakeScheduler()}, spool, lambda: None, 0.0).new_incoming(ENVELOPE)
    assert await incoming.add(LARGE_CONTENT) is None
    spool.error = OSError("statvfs")
    with pytest.raises(OSError, match="statvfs"):
        await incoming.finish(b"the end\r\n")
    assert spool.staged == {}


@pytest.mark.parametrize(("code", "is_kept"), [(250, True), (399, True), (400, False), (499, False), (500, True)])
async def test_the_staged_pieces_of_a_message_are_removed_with_a_4xx_alone(
    code: int, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool()
    to = Intake([RELAYHOST], {"default": FakeScheduler()}, spool, lambda: None, 0.0)
    incoming = to.new_incoming(ENVELOPE)
    assert await incoming.add(LARGE_CONTENT) is None

    async def take_over(_: Arrival) -> ClientReply:
        return ClientReply(Reply(code, (b"so be it",)))

    monkeypatch.setattr(to, "take_over", take_over)
    assert (await incoming.finish(b"the end\r\n")).reply.code == code
    assert bool(spool.staged) is is_kept


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (SpoolBroken("EIO"), []),
        (SpoolError("busy"), ["an incomplete content stays in the spool until the next start: busy"]),
    ],
)
async def test_staged_pieces_that_cannot_be_removed_are_left_to_the_next_start(
    error: SpoolError, logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool()
    incoming = Intake([RELAYHOST], {"default": FakeScheduler()}, spool, lambda: None, 0.0).new_incoming(ENVELOPE)
    assert await incoming.add(LARGE_CONTENT) is None
    spool.unstage_error = error
    await incoming.abandon()
    assert caplog.messages == logged


async def test_a_message_id_ends_in_a_domain_whatever_the_sender_is() -> None:
    intake = Intake(ROUTED, {}, Spool(), lambda: None, 0.0)
    for sender, domain in (
        (b"root", b"localhost"),
        (b"", b"localhost"),
        (b"a@b.example", b"b.example"),
        (b'"a@b"', b"localhost"),
    ):
        arrival = intake.make_arrival(Envelope(sender, ENVELOPE.recipients), CONTENT)
        assert isinstance(arrival, Arrival)
        assert b".mailrelay@%b>\r\n" % domain in arrival.content


async def test_a_client_does_not_wait_for_a_message_that_waits_for_its_time() -> None:
    scheduler, spool = FakeScheduler(), Spool()
    at = Intake([RELAYHOST], {"default": scheduler}, spool, lambda: None, 3600.0, lambda: 1_000.0)
    envelope = replace(ENVELOPE, send_time=SendTime(1_010.0, by_clock=True))
    answer = await at.submit(envelope, CONTENT)
    assert answer.reply.code == 250
    until = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(1_010.0)).encode()
    assert answer.reply.text == (
        b"2.0.0 q123456789 queued: waits until %s; `mailrelay queue cancel q123456789` cancels it until then" % until
    )
    assert spool.accepted[0].envelope.send_time == SendTime(1_010.0, by_clock=True)
    assert not scheduler.waiters.queue_ids
    assert (scheduler.arrived, scheduler.looks) == ([], 1), "it is no reason to dial"


async def test_with_undo_every_message_waits_from_the_end_of_its_content() -> None:
    scheduler, spool = FakeScheduler(), Spool()
    clock = [1_000.0]
    at = Intake([RELAYHOST], {"default": scheduler}, spool, lambda: None, 3600.0, lambda: clock[0], undo=30.0)
    incoming = at.new_incoming(ENVELOPE)
    assert await incoming.add(CONTENT) is None
    clock[0] = 1_300.0
    answer = await incoming.finish(b"more\r\n")
    assert b"cancels it until then" in answer.reply.text
    assert spool.accepted[0].envelope.send_time == SendTime(1_330.0, by_clock=False)


async def test_a_send_time_that_has_come_before_the_end_of_the_content_is_none() -> None:
    scheduler, spool = FakeScheduler(), Spool()
    clock = [1_000.0]
    at = Intake([RELAYHOST], {"default": scheduler}, spool, lambda: None, 0.0, lambda: clock[0])
    incoming = at.new_incoming(replace(ENVELOPE, send_time=SendTime(1_010.0, by_clock=False)))
    assert await incoming.add(CONTENT) is None
    clock[0] = 1_010.0
    answer = await incoming.finish(b"more\r\n")
    assert answer.reply.text == b"2.0.0 q123456789 queued"
    assert spool.accepted[0].envelope.send_time is None
    assert scheduler.arrived == [7]


@pytest.mark.parametrize("is_left", [True, False])
async def test_a_content_whose_relayhost_is_removed_meanwhile_goes_to_another_one_or_is_refused_for_now(
    is_left: bool,
) -> None:
    schedulers, spool = {"work": FakeScheduler()}, Spool()
    to = Intake(ROUTED, schedulers, spool, lambda: None, 0.0)
    incoming = to.new_incoming(replace(ENVELOPE, sender=b"a@work.example"))
    assert await incoming.add(CONTENT) is None
    del schedulers["work"]
    left = schedulers["default"] = FakeScheduler()
    to.change(ROUTED[:1] if is_left else [], 0.0, Completion(), 0.0)
    answer = await incoming.finish(b"more\r\n")
    if is_left:
        assert answer.reply.code == 250
        assert [(one.relayhost, one.content) for one in spool.accepted] == [("default", b"more\r\n")]
        assert left.arrived == [7]
    else:
        assert answer.reply is NO_RELAYHOST
        assert (spool.accepted, spool.staged, left.arrived) == ([], {}, [])
