"""Mail on its way in: what the client is told, and that nobody waits for a word that cannot come."""

import asyncio
from pathlib import Path

import pytest

from mailrelay.config import Relayhost
from mailrelay.intake import BROKEN, FULL, Intake, Refusing
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.mail.record import Arrival
from mailrelay.relay import watch
from mailrelay.relay.watch import Queued, Refused, Watches

ENVELOPE = Envelope(b"a@example.org", (Recipient(b"b@example.net"),), b"7BIT", False, b"", b"")
CONTENT = b"Subject: a letter\r\n\r\nhello\r\n"
NO_SUCH_USER = Outcome(Stage.RCPT, Reply(550, (b"5.1.1 no such user",)))
RELAYHOST = Relayhost(name="default", ssh="server", ssh_config=Path("/nowhere"))


class Way:
    """A lane whose word is given by the test."""

    def __init__(self) -> None:
        self.watches = Watches()
        self.trouble = ""
        self.stuck = False
        self.hurried: list[int] = []
        self.words: list[Outcome | None] = []

    def hurry(self, message: int) -> None:
        self.hurried.append(message)

    def expect(self) -> None: ...

    async def vet(self, envelope: Envelope) -> Outcome | None:
        if not self.words:
            await asyncio.Event().wait()
        return self.words.pop()


def intake(way: Way, error: Exception | None = None, answer_within: float = 5.0) -> Intake:
    async def put(_arrival: Arrival) -> int:
        if error is not None:
            raise error
        return 7

    return Intake([RELAYHOST], {"default": way}, put, lambda: "q123456789", answer_within)


@pytest.mark.parametrize("reply", [FULL, BROKEN])
def test_what_cannot_be_put_on_disk_is_answered_with_4xx_and_nobody_waits_for_it(reply: Reply) -> None:
    async def story() -> None:
        way = Way()
        answer = await intake(way, Refusing(reply)).submit(ENVELOPE, CONTENT)
        assert answer.reply.code // 100 == 4
        assert way.hurried == []
        assert way.watches._open == {}

    asyncio.run(story())


def test_a_failure_of_ours_while_mail_is_put_on_disk_leaves_nobody_waiting() -> None:
    async def story() -> None:
        way = Way()
        with pytest.raises(OSError, match="statvfs"):
            await intake(way, OSError("statvfs")).submit(ENVELOPE, CONTENT)
        assert way.watches._open == {}

    asyncio.run(story())


def test_a_client_that_had_to_wait_too_long_is_told_that_its_mail_is_queued_and_hears_no_refusal_later() -> None:
    async def story() -> None:
        way = Way()
        answer = await intake(way, answer_within=0.01).submit(ENVELOPE, CONTENT)
        assert answer.reply.code == 250
        assert b"queued" in answer.reply.text
        assert not await way.watches.tell_refusal("q123456789", Refused(NO_SUCH_USER))

    asyncio.run(story())


def test_a_client_waits_for_no_relayhost_that_is_known_to_be_out_of_reach() -> None:
    async def story() -> None:
        way = Way()
        way.trouble = "no network"
        answer = await intake(way, answer_within=3600.0).submit(ENVELOPE, CONTENT)
        assert answer.reply.text.endswith(b"queued: no network")
        assert way.watches._open == {}

    asyncio.run(story())


def test_a_refusal_that_is_written_too_late_counts_as_untold_and_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        monkeypatch.setattr(watch, "TOLD_WITHIN", 0.01)
        way = Way()
        submitting = asyncio.create_task(intake(way).submit(ENVELOPE, CONTENT))
        while not way.hurried:
            await asyncio.sleep(0)
        assert not await way.watches.tell_refusal("q123456789", Refused(NO_SUCH_USER))
        answer = await submitting
        assert answer.reply is NO_SUCH_USER.reply
        answer.told(True)

    asyncio.run(story())


def test_the_word_of_the_relayhost_is_shown_without_control_characters() -> None:
    async def story() -> None:
        way = Way()
        submitting = asyncio.create_task(intake(way).submit(ENVELOPE, CONTENT))
        while not way.hurried:
            await asyncio.sleep(0)
        way.watches.tell("q123456789", Queued("busy\r\n250 sent\x1b[2J"))
        answer = await submitting
        assert b"\r" not in answer.reply.text
        assert b"\x1b" not in answer.reply.text

    asyncio.run(story())


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT])
def test_a_recipient_that_the_remote_refuses_for_good_is_refused_in_its_words(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        way = Way()
        way.words = [Outcome(stage, Reply(550, (b"5.1.1 no such user",)))]
        assert await intake(way).vet(ENVELOPE, 5.0) == Reply(550, (b"5.1.1 no such user",))

    caplog.set_level("INFO", "mailrelay")
    asyncio.run(story())
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
def test_any_other_word_on_a_recipient_is_left_for_the_message_to_show(word: Outcome | None) -> None:
    async def story() -> None:
        way = Way()
        way.words = [word]
        assert await intake(way).vet(ENVELOPE, 5.0) is None

    asyncio.run(story())


def test_no_client_waits_longer_for_a_word_on_a_recipient_than_it_is_to() -> None:
    async def story() -> None:
        assert await intake(Way()).vet(ENVELOPE, 0.01) is None
        assert await intake(Way(), answer_within=0.01).vet(ENVELOPE, 3600.0) is None

    asyncio.run(story())


def test_a_bulk_sender_hears_nothing_of_recipients_and_nobody_is_asked() -> None:
    async def story() -> None:
        way = Way()
        way.words = [NO_SUCH_USER]
        assert await intake(way, answer_within=0.0).vet(ENVELOPE, 5.0) is None
        assert way.words == [NO_SUCH_USER]

    asyncio.run(story())
