"""Mail on its way in: what the client is told, and that nobody waits for a word that cannot come."""

import asyncio
from pathlib import Path

import pytest

from mailrelay.config import Relayhost
from mailrelay.intake import BROKEN, FULL, Intake, why_no_reply
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.lifecycle import State
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.mail.record import Arrival, Staged
from mailrelay.relay import waiters
from mailrelay.relay.waiters import DeliveryResult, NotTaken, Queued, Refused, Waiters
from mailrelay.spool.database import SpoolBroken, SpoolError, SpoolFull

ENVELOPE = Envelope(b"a@example.org", (Recipient(b"b@example.net"),), b"7BIT", False, b"", b"")
CONTENT = b"Subject: a letter\r\n\r\nhello\r\n"
NO_SUCH_USER = Outcome(Stage.RCPT, Reply(550, (b"5.1.1 no such user",)))
RELAYHOST = Relayhost(name="default", ssh="server", ssh_config=Path("/nowhere"))


class Way:
    """A scheduler whose word is given by the test."""

    def __init__(self) -> None:
        self.waiters = Waiters()
        self.fault_text = ""
        self.is_stuck = False
        self.hurried: list[int] = []
        self.was_hurried = asyncio.Event()
        self.words: list[Outcome | None] = []
        self.sent = 0

    def message_arrived(self, message: int) -> None:
        self.hurried.append(message)
        self.was_hurried.set()

    def expect_message(self) -> None: ...

    def octets_sent(self, message: int) -> int:
        return self.sent

    async def probe_recipient(self, envelope: Envelope) -> Outcome | None:
        if not self.words:
            await asyncio.Event().wait()
        return self.words.pop()


class Spool:
    """Takes everything, unless told otherwise."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.accepted: list[Arrival] = []
        self.staged: dict[int, bytes] = {}

    def new_queue_id(self) -> str:
        return "q123456789"

    async def accept(self, arrival: Arrival) -> int:
        if self.error is not None:
            raise self.error
        self.accepted.append(arrival)
        return 7

    async def stage(self, staged: Staged | None, octets: bytes) -> Staged:
        if self.error is not None:
            raise self.error
        staged = staged or Staged(3, 0, 0)
        self.staged[staged.key] = self.staged.get(staged.key, b"") + octets
        return Staged(staged.key, staged.pieces + 1, staged.size + len(octets))

    async def unstage(self, staged: Staged) -> None:
        del self.staged[staged.key]


def intake(way: Way, error: Exception | None = None, answer_within: float = 5.0) -> Intake:
    return Intake([RELAYHOST], {"default": way}, Spool(error), lambda: None, answer_within)


@pytest.mark.parametrize(
    ("error", "reply"), [(SpoolFull("no room"), FULL), (SpoolBroken("EIO"), BROKEN), (SpoolError("busy"), BROKEN)]
)
async def test_what_cannot_be_put_on_disk_is_answered_with_4xx_and_nobody_waits_for_it(
    error: SpoolError, reply: Reply
) -> None:
    way = Way()
    answer = await intake(way, error).submit(ENVELOPE, CONTENT)
    assert answer.reply is reply
    assert answer.reply.code // 100 == 4
    assert way.hurried == []
    assert not way.waiters.queue_ids


async def test_a_failure_of_ours_while_mail_is_put_on_disk_leaves_nobody_waiting() -> None:
    way = Way()
    with pytest.raises(OSError, match="statvfs"):
        await intake(way, OSError("statvfs")).submit(ENVELOPE, CONTENT)
    assert not way.waiters.queue_ids


async def test_a_client_that_had_to_wait_too_long_is_told_that_its_mail_is_queued_and_hears_no_refusal_later() -> None:
    way = Way()
    answer = await intake(way, answer_within=0.01).submit(ENVELOPE, CONTENT)
    assert answer.reply.code == 250
    assert b"queued" in answer.reply.text
    assert not await way.waiters.tell_refusal("q123456789", Refused(NO_SUCH_USER))


async def test_a_client_waits_for_no_relayhost_that_is_known_to_be_out_of_reach() -> None:
    way = Way()
    way.fault_text = "no network"
    answer = await intake(way, answer_within=3600.0).submit(ENVELOPE, CONTENT)
    assert answer.reply.text.endswith(b"queued: no network")
    assert not way.waiters.queue_ids


async def test_a_refusal_that_is_written_too_late_counts_as_untold_and_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiters, "TOLD_WITHIN", 0.01)
    way = Way()
    submitting = asyncio.create_task(intake(way).submit(ENVELOPE, CONTENT))
    await way.was_hurried.wait()
    assert not await way.waiters.tell_refusal("q123456789", Refused(NO_SUCH_USER))
    answer = await submitting
    assert answer.reply is NO_SUCH_USER.reply
    answer.told(True)


async def test_the_word_of_the_relayhost_is_shown_without_control_characters() -> None:
    way = Way()
    submitting = asyncio.create_task(intake(way).submit(ENVELOPE, CONTENT))
    await way.was_hurried.wait()
    way.waiters.tell("q123456789", Queued("busy\r\n250 sent\x1b[2J"))
    answer = await submitting
    assert b"\r" not in answer.reply.text
    assert b"\x1b" not in answer.reply.text


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT])
async def test_a_recipient_that_the_remote_refuses_for_good_is_refused_in_its_words(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mailrelay")
    way = Way()
    way.words = [Outcome(stage, Reply(550, (b"5.1.1 no such user",)))]
    assert await intake(way).probe_recipient(ENVELOPE, 5.0) == Reply(550, (b"5.1.1 no such user",))
    assert caplog.messages == [
        "NOQUEUE from=<a@example.org> to=<b@example.net> relay=default dsn=5.1.1 status=refused (550 5.1.1 no such user)"
    ]


@pytest.mark.parametrize(
    "word",
    [
        None,
        Outcome(Stage.RCPT, Reply(250, (b"fine",))),
        Outcome(Stage.RCPT, Reply(450, (b"4.2.1 later",))),
        Outcome(Stage.RCPT, Reply(552, (b"too many recipients",))),
        Outcome(Stage.RCPT, cause=Cause.LOST, text="the connection was lost"),
        Outcome(Stage.EHLO, cause=Cause.NO_SMTPUTF8, text="no SMTPUTF8"),
    ],
)
async def test_any_other_word_on_a_recipient_is_left_for_the_message_to_show(word: Outcome | None) -> None:
    way = Way()
    way.words = [word]
    assert await intake(way).probe_recipient(ENVELOPE, 5.0) is None


async def test_no_client_waits_longer_for_a_word_on_a_recipient_than_it_is_to() -> None:
    assert await intake(Way()).probe_recipient(ENVELOPE, 0.01) is None
    assert await intake(Way(), answer_within=0.01).probe_recipient(ENVELOPE, 3600.0) is None


async def test_a_bulk_sender_hears_nothing_of_recipients_and_nobody_is_asked() -> None:
    way = Way()
    way.words = [NO_SUCH_USER]
    assert await intake(way, answer_within=0.0).probe_recipient(ENVELOPE, 5.0) is None
    assert way.words == [NO_SUCH_USER]


async def settled(taken: int, *others: NotTaken) -> bytes:
    """The answer to a client whose message has come out so."""

    way = Way()
    submitting = asyncio.create_task(intake(way).submit(ENVELOPE, CONTENT))
    await way.was_hurried.wait()
    reply = Reply(250, (b"2.0.0 taken as 1",)) if taken else None
    way.waiters.tell("q123456789", DeliveryResult(taken, reply, others))
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
async def test_an_answer_names_every_recipient_for_whom_it_is_not_so(
    taken: int, others: tuple[NotTaken, ...], answer: bytes
) -> None:
    assert await settled(taken, *others) == answer


async def test_an_answer_names_a_few_of_many_and_says_where_the_others_are() -> None:
    answer = await settled(1, *[LATER] * 12)
    assert answer.startswith(b"2.0.0 q123456789 sent to 1 of 13; ")
    assert answer.count(b"<later@example.net>") == 5
    assert answer.endswith(b"; 7 more, see `mailrelay queue show q123456789`")


@pytest.mark.parametrize(
    ("octets", "sent", "why"),
    [
        (1000, 0, "the mail server has not replied yet"),
        (1000, 1000, "the mail server has not replied yet"),
        (25_000_000, 0, "the mail server has not replied yet"),
        (25_000_000, 3_276_800, "3.2 MB of 25 MB have been sent to the mail server; the rest follows"),
        (25_000_000, 25_000_000, "all 25 MB have been sent to the mail server, which has not replied yet"),
    ],
)
def test_a_client_that_had_to_wait_hears_how_much_of_a_large_content_has_been_sent(
    octets: int, sent: int, why: str
) -> None:
    assert why_no_reply(octets, sent) == why


LARGE_CONTENT = CONTENT + b"x" * 70_000


async def test_a_content_in_pieces_becomes_one_message_with_one_header_of_ours() -> None:
    way, spool = Way(), Spool()
    way.fault_text = "no network"
    incoming = Intake([RELAYHOST], {"default": way}, spool, lambda: None, 5.0).new_incoming(ENVELOPE)
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
async def test_a_content_in_pieces_that_the_spool_does_not_take_leaves_nothing_behind(at: str) -> None:
    spool = Spool(SpoolFull("no room") if at == "first piece" else None)
    incoming = Intake([RELAYHOST], {"default": Way()}, spool, lambda: None, 5.0).new_incoming(ENVELOPE)
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


async def test_a_message_that_goes_round_in_a_circle_is_refused_once_its_header_is_there_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    spool = Spool()
    to = Intake([RELAYHOST], {"default": Way()}, spool, lambda: None, 5.0)
    looping = b"Received: from here\r\n" * 60 + LARGE_CONTENT
    assert (await to.submit(ENVELOPE, looping)).reply.code == 554
    refusal = await to.new_incoming(ENVELOPE).add(looping)
    assert refusal is not None
    assert refusal.code == 554
    assert spool.staged == {}
    assert len(caplog.messages) == 2
    assert "from=<a@example.org>" in caplog.text
    assert "5.4.6" in caplog.text
