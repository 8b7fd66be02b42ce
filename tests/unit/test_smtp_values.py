"""The values of a session: what becomes of a transaction that is lost, repeated or refused, and what a record proves."""

import itertools

import pytest

from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import SETUP_REPLIES, Cause, Outcome, Reply, Stage
from mailrelay.smtp import loss
from mailrelay.smtp.content import LineEnds, Stuffer
from mailrelay.smtp.events import Finished, Untried
from mailrelay.smtp.extensions import Extension, Extensions
from mailrelay.smtp.loss import Evidence
from mailrelay.smtp.record import Exchange, Proof, Record
from mailrelay.smtp.refused import Refusals, is_bdat_refused, is_bdat_unknown
from mailrelay.smtp.transaction import (
    REPLY_TIMEOUTS,
    STAGES,
    Command,
    OutgoingContent,
    OutgoingTransaction,
    Verb,
    awaited_stage,
)

ENVELOPE = Envelope(b"a@example.org", (Recipient(b"b@example.net"), Recipient(b"c@example.net")))
GOOD = Outcome(Stage.CONTENT, Reply(250, (b"ok",)))
REFUSED = Outcome(Stage.RCPT, Reply(550, (b"no",)))
LOST = Outcome(Stage.AFTER_DOT, cause=Cause.LOST, text="lost")
BDAT = Extensions(pipelining=True, chunking=True)


def transaction(*outcomes: Outcome, size: int | None = 10) -> OutgoingTransaction:
    return OutgoingTransaction(1, ENVELOPE, size, dict(enumerate(outcomes)))


# Transactions.


@pytest.mark.parametrize(
    ("verb", "stage"),
    [
        (Verb.GREETING, Stage.GREETING),
        (Verb.EHLO, Stage.EHLO),
        (Verb.HELO, Stage.EHLO),
        (Verb.RSET, Stage.MAIL),
        (Verb.QUIT, Stage.MAIL),
        (Verb.MAIL, Stage.MAIL),
        (Verb.RCPT, Stage.RCPT),
        (Verb.DATA, Stage.DATA),
        (Verb.CONTENT, Stage.CONTENT),
        (Verb.LONE_DOT, Stage.CONTENT),
    ],
)
def test_each_reply_has_its_stage(verb: Verb, stage: Stage) -> None:
    assert STAGES[verb] is stage
    assert awaited_stage(verb) is (Stage.AFTER_DOT if stage is Stage.CONTENT else stage)
    assert set(STAGES) == set(Verb) - {Verb.BDAT}


def test_the_time_outs_are_those_of_the_standard() -> None:
    minutes = {stage: seconds / 60 for stage, seconds in REPLY_TIMEOUTS.items()}
    assert minutes == {
        Stage.GREETING: 5,
        Stage.EHLO: 5,
        Stage.MAIL: 5,
        Stage.RCPT: 5,
        Stage.DATA: 2,
        Stage.CONTENT: 3,
        Stage.AFTER_DOT: 10,
    }


def test_an_outcome_that_is_set_stays() -> None:
    one = transaction()
    assert (one.is_decided, one.is_undecided(0), one.is_undecided(None)) == (False, True, True)
    one.decide(REFUSED, 1)
    assert (one.is_decided, one.is_undecided(0), one.is_undecided(1), one.is_undecided(None)) == (
        False,
        True,
        False,
        True,
    )
    one.decide(GOOD)
    assert (one.is_decided, one.is_undecided(None), one.outcomes_in_order()) == (True, False, (GOOD, REFUSED))
    one.decide(LOST, 0)
    assert one.outcomes == {0: GOOD, 1: REFUSED}


@pytest.mark.parametrize(
    ("outcomes", "is_untried"),
    [
        ((REFUSED, REFUSED), True),
        ((GOOD, REFUSED), False),
        ((REFUSED, GOOD), False),
        ((LOST, REFUSED), False),
        ((REFUSED, LOST), False),
        ((Outcome(Stage.RCPT, Reply(300, (b"?",))), REFUSED), True),
        ((Outcome(Stage.MAIL, cause=Cause.LOST, text="x"), REFUSED), True),
    ],
)
def test_a_transaction_is_repeated_only_if_no_recipient_may_be_accepted(
    outcomes: tuple[Outcome, ...], is_untried: bool
) -> None:
    one = transaction(*outcomes)
    assert one.end() == Finished(1, outcomes)
    one.is_repeated = True
    assert one.end() == (Untried(1, goes_on=True) if is_untried else Finished(1, outcomes))
    one = transaction(outcomes[0])
    one.repeat(outcomes[1])
    assert one.end() == (Untried(1, goes_on=True) if is_untried else Finished(1, outcomes))


@pytest.mark.parametrize(
    ("outcomes", "is_cut"),
    [((GOOD, REFUSED), False), ((REFUSED, LOST), True), ((Outcome(Stage.RCPT, Reply(421, (b"x",))), GOOD), True)],
)
def test_a_transaction_is_cut_by_the_end_of_the_conversation_within_it(
    outcomes: tuple[Outcome, ...], is_cut: bool
) -> None:
    assert transaction(*outcomes).end(is_cut=True) == Finished(1, outcomes, is_cut)
    assert transaction(*outcomes).end() == Finished(1, outcomes, False)


@pytest.mark.parametrize("cause", sorted(SETUP_REPLIES))
@pytest.mark.parametrize("stage", [Stage.DATA, Stage.CONTENT, Stage.AFTER_DOT])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_refused_recipient_is_no_setup_fault_if_another_one_was_accepted(
    cause: Cause, stage: Stage, is_first: bool
) -> None:
    fault = Outcome(Stage.RCPT, Reply(550, (b"no",)), cause)
    accepted = Outcome(stage, Reply(250, (b"ok",)))
    expected = (REFUSED, accepted) if is_first else (accepted, REFUSED)
    assert transaction(*((fault, accepted) if is_first else (accepted, fault))).outcomes_in_order() == expected


@pytest.mark.parametrize(
    "outcomes",
    [
        (Outcome(Stage.RCPT, Reply(550, (b"no",)), Cause.LOGIN_WANTED), REFUSED),
        (
            Outcome(Stage.RCPT, Reply(550, (b"no",)), Cause.LOGIN_WANTED),
            Outcome(Stage.DATA, Reply(530, (b"no",)), Cause.LOGIN_WANTED),
        ),
        (Outcome(Stage.DATA, Reply(530, (b"no",)), Cause.LOGIN_WANTED), GOOD),
        (Outcome(Stage.RCPT, cause=Cause.LOST, text="x"), GOOD),
    ],
)
def test_other_outcomes_stay_as_they_are(outcomes: tuple[Outcome, ...]) -> None:
    assert transaction(*outcomes).outcomes_in_order() == outcomes


# Content.


@pytest.mark.parametrize("encoder", [LineEnds, Stuffer])
@pytest.mark.parametrize(
    ("chunks", "failure"),
    [
        ([b"12345678", b"\r\n"], ""),
        ([b"1234567\r\n"], "the content has fewer octets than were announced"),
        ([b"12345678\r\n", b"9"], "the content has more octets than were announced"),
        ([b"12345678\r\n9", b"\n"], "the content has more octets than were announced"),
        ([b"12\n456789", b"0"], "the content has a line end that is not CR LF"),
        ([b"1234567890", b"\n\n"], "the content has more octets than were announced"),
        ([b"123456789\n"], "the content has a line end that is not CR LF"),
        ([b"12\n4", b"5678901234"], "the content has a line end that is not CR LF"),
    ],
)
def test_content_is_as_long_as_announced_and_has_whole_line_ends(
    encoder: type[LineEnds | Stuffer], chunks: list[bytes], failure: str
) -> None:
    sink = bytearray()
    content = OutgoingContent(transaction(), encoder(), sink)
    assert content.announced == 10
    for chunk in chunks:
        content.feed(chunk)
    ended = content.end()
    if failure:
        assert ended is not None
        assert (ended.stage, ended.cause, ended.text) == (Stage.CONTENT, Cause.UNREADABLE, failure)
        assert "mailrelay queue show" in ended.fix
        assert not sink.endswith(b"\r\n.\r\n")
    else:
        assert (ended, bytes(sink)) == (None, b"".join(chunks) + (b".\r\n" if encoder is Stuffer else b""))
    assert OutgoingContent(transaction(size=None), encoder(), sink).announced == 0


# The end of a conversation.


@pytest.mark.parametrize(
    ("is_closed", "has_replied", "shown"),
    [
        (False, False, Evidence.NOTHING),
        (False, True, Evidence.NOTHING),
        (True, False, Evidence.CLOSED),
        (True, True, Evidence.CLOSED_AMONG_REPLIES),
    ],
)
def test_the_end_shows_something_only_if_the_mail_server_has_closed(
    is_closed: bool, has_replied: bool, shown: Evidence
) -> None:
    assert loss.evidence(is_closed=is_closed, has_replied=has_replied) is shown


@pytest.mark.parametrize(
    ("shown", "has_accepted", "is_last", "may_be_accepted"),
    [
        (Evidence.NOT_PROCESSED, True, True, False),
        (Evidence.NOT_PROCESSED, True, False, False),
        (Evidence.NOT_PROCESSED, False, False, False),
        (Evidence.CLOSED, True, True, True),
        (Evidence.CLOSED, True, False, True),
        (Evidence.CLOSED, False, True, False),
        (Evidence.CLOSED, False, False, False),
        (Evidence.CLOSED_AMONG_REPLIES, True, True, True),
        (Evidence.CLOSED_AMONG_REPLIES, True, False, True),
        (Evidence.CLOSED_AMONG_REPLIES, False, True, False),
        (Evidence.CLOSED_AMONG_REPLIES, False, False, True),
        (Evidence.NOTHING, False, True, True),
        (Evidence.NOTHING, True, False, True),
    ],
)
@pytest.mark.parametrize("is_begun", [True, False])
def test_a_message_that_was_sent_whole_is_in_doubt_unless_the_end_excludes_it(
    shown: Evidence, has_accepted: bool, is_last: bool, may_be_accepted: bool, is_begun: bool
) -> None:
    one, behind = transaction(), transaction()
    one.has_accepted, one.is_begun, one.is_content_written = has_accepted, is_begun, True
    loss.lose(
        [one] if is_last else [one, behind], [Command(Verb.CONTENT, b"", one, is_sent=True)], Stage.RCPT, "x", shown
    )
    if may_be_accepted:
        assert one.outcomes == dict.fromkeys((0, 1), Outcome(Stage.AFTER_DOT, cause=Cause.LOST, text="x"))
    elif is_begun:
        assert one.outcomes == dict.fromkeys((0, 1), Outcome(Stage.RCPT, cause=Cause.LOST, text="x"))
    else:
        assert one.outcomes == {}
    assert behind.outcomes == {}


@pytest.mark.parametrize(
    ("is_written", "awaited"),
    [(False, []), (True, [Command(Verb.CONTENT, b"", None, is_sent=False)])],
    ids=["not written", "not taken for sending"],
)
@pytest.mark.parametrize("is_begun", [True, False])
def test_a_message_whose_end_was_not_sent_is_not_in_doubt(
    is_written: bool, awaited: list[Command], is_begun: bool
) -> None:
    one = transaction(REFUSED)
    one.is_content_written, one.is_begun = is_written, is_begun
    for command in awaited:
        command.transaction = one
    rcpt = Command(Verb.RCPT, b"", one, 1, is_sent=True)
    loss.lose([one], [rcpt, *awaited], Stage.RCPT, "x", Evidence.NOTHING)
    lost = Outcome(Stage.RCPT, cause=Cause.LOST, text="x")
    assert one.outcomes == ({0: REFUSED, 1: lost} if is_begun else {0: REFUSED})


def test_a_probe_and_what_is_behind_it_when_the_conversation_is_lost() -> None:
    probe, message = transaction(size=None), transaction()
    for one in (probe, message):
        one.is_begun = one.is_content_written = True
    loss.lose([probe, message], [], Stage.RCPT, "x", Evidence.NOTHING)
    assert probe.outcomes == {}
    assert {one.stage for one in message.outcomes.values()} == {Stage.AFTER_DOT}


# Records.

OPENING = b"220 mx\r\n250 mx\r\n"
WITH_DATA = (b"250 mail\r\n", b"250 b\r\n", b"250 c\r\n", b"354 go\r\n", b"250 taken\r\n")
SENT, NOT, UNKNOWN = Proof.SENT, Proof.NOT_TAKEN, Proof.UNKNOWN


@pytest.mark.parametrize("has_data", [True, False])
@pytest.mark.parametrize("is_complete", [True, False])
@pytest.mark.parametrize("count", range(6))
def test_a_record_proves_a_missing_reply_only_if_it_is_complete(has_data: bool, is_complete: bool, count: int) -> None:
    replies = [line for line in WITH_DATA if has_data or not line.startswith(b"354")]
    exchange = Exchange(2, (0, 1), has_data)
    record = Record(OPENING + b"".join(replies[:count]), is_complete=is_complete)
    whole = count >= len(replies)
    missing = NOT if is_complete else UNKNOWN
    assert record.proofs(exchange) == ([SENT] * 2 if whole else [missing] * 2)
    assert record.reply_to_content(exchange) == (Reply(250, (b"taken",)) if whole else None)
    # The reply to the content is broken off.
    partial = Record(OPENING + b"".join(replies[:-1]) + replies[-1][:5], is_complete=is_complete)
    assert partial.proofs(exchange) == [UNKNOWN] * 2
    # What is no SMTP stands in place of the next reply.
    garbage = Record(OPENING + b"".join(replies[:count]) + b"what?\r\n", is_complete=is_complete)
    assert garbage.proofs(exchange) == ([SENT] * 2 if whole else [UNKNOWN] * 2)


@pytest.mark.parametrize(
    ("place", "reply", "proofs"),
    [
        (0, b"451 mail\r\n", [NOT, NOT]),
        (0, b"354 mail\r\n", [NOT, NOT]),
        (1, b"550 b\r\n", [NOT, SENT]),
        (2, b"450 c\r\n", [SENT, NOT]),
        (3, b"250 data\r\n", [NOT, NOT]),
        (3, b"554 data\r\n", [NOT, NOT]),
        (4, b"554 content\r\n", [NOT, NOT]),
        (4, b"354 content\r\n", [NOT, NOT]),
        (1, b"503 b\r\n", [NOT, SENT]),
    ],
)
def test_each_reply_of_a_transaction_with_data_must_be_good(place: int, reply: bytes, proofs: list[Proof]) -> None:
    replies = [*WITH_DATA[:place], reply, *WITH_DATA[place + 1 :]]
    exchange = Exchange(2, (0, 1), has_data=True)
    record = Record(OPENING + b"".join(replies), is_complete=False)
    assert record.proofs(exchange) == proofs
    content = record.reply_to_content(exchange)
    assert (content is None) is (place == 3)


@pytest.mark.parametrize("last_digits", [b"00", b"99"])
def test_the_first_digit_of_a_reply_in_a_record_decides(last_digits: bytes) -> None:
    exchange = Exchange(2, (0, 1), has_data=True)
    record = Record(OPENING + b"".join(line[:1] + last_digits + line[3:] for line in WITH_DATA), is_complete=True)
    assert record.proofs(exchange) == [SENT] * 2
    assert record.reply_to_content(exchange) is not None


@pytest.mark.parametrize("code", range(499, 507))
def test_with_bdat_replies_behind_one_that_refuses_a_command_prove_nothing(code: int) -> None:
    exchange = Exchange(2, (0, 1), has_data=False)
    replies = b"250 mail\r\n%d b\r\n250 c\r\n250 taken\r\n" % code
    behind = UNKNOWN if code in range(500, 505) else SENT
    assert Record(OPENING + replies, is_complete=True).proofs(exchange) == [NOT, behind]


# Refusals.


@pytest.mark.parametrize(
    ("reply", "refuses", "is_unknown"),
    [
        (Reply(500, (b"unknown command",)), True, True),
        (Reply(500, (b"what?",)), True, False),
        (Reply(500, (b"line too long",)), False, False),
        (Reply(501, (b"x",)), True, True),
        (Reply(502, (b"x",)), True, True),
        (Reply(503, (b"x",)), True, True),
        (Reply(504, (b"x",)), True, True),
        (Reply(505, (b"x",)), False, True),
        (Reply(521, (b"x",)), True, True),
        (Reply(554, (b"5.5.1 x",)), True, True),
        (Reply(554, (b"no chunking",)), True, True),
        (Reply(451, (b"4.5.1 x",)), False, True),
        (Reply(451, (b"no BDAT now",)), False, True),
    ],
)
def test_a_refusal_of_bdat_is_told_from_one_of_the_content(reply: Reply, refuses: bool, is_unknown: bool) -> None:
    assert (is_bdat_refused(reply), is_bdat_unknown(reply)) == (refuses, is_unknown)


@pytest.mark.parametrize(
    ("verb", "code", "is_good", "offered", "reason", "refused"),
    [
        (Verb.MAIL, 421, False, BDAT, "the mail server ended the conversation with 421 to MAIL", set()),
        (Verb.CONTENT, 421, False, None, "the mail server ended the conversation with 421 to the content", set()),
        (Verb.LONE_DOT, 421, False, None, "the mail server ended the conversation with 421 to the content", set()),
        (Verb.RCPT, 354, False, None, "unexpected 354 to RCPT", set()),
        (Verb.RCPT, 354, False, Extensions(pipelining=True), "unexpected 354 to RCPT", set()),
        (Verb.RCPT, 354, False, BDAT, "unexpected 354 to RCPT", {Extension.CHUNKING}),
        (Verb.DATA, 250, False, BDAT, "unexpected 250 to DATA", {Extension.CHUNKING}),
        (Verb.CONTENT, 399, False, BDAT, "unexpected 399 to the content", {Extension.CHUNKING}),
        (Verb.RSET, 550, False, Extensions(), "unexpected 550 to RSET", set()),
        (Verb.RSET, 250, True, BDAT, None, set()),
        (Verb.RCPT, 400, False, BDAT, None, set()),
        (Verb.RCPT, 550, False, BDAT, None, set()),
        (Verb.RCPT, 250, True, BDAT, None, set()),
        (Verb.DATA, 354, True, BDAT, None, set()),
    ],
)
def test_a_conversation_ends_with_421_and_after_a_reply_without_a_meaning(
    verb: Verb, code: int, is_good: bool, offered: Extensions | None, reason: str | None, refused: set[Extension]
) -> None:
    refusals = Refusals()
    found = refusals.reason_to_end(verb, Reply(code, (b"x",)), offered, is_good=is_good)
    assert refusals.extensions == refused
    if reason is None or found is None:
        assert found is reason
    else:
        assert reason in found


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT])
@pytest.mark.parametrize("verb", [Verb.MAIL, Verb.RCPT, Verb.DATA, Verb.CONTENT])
def test_a_refusal_of_mailrelay_is_over_when_a_recipient_or_message_was_accepted(stage: Stage, verb: Verb) -> None:
    refusals = Refusals()
    refusals.end = Outcome(stage, Reply(530, (b"login",)), Cause.LOGIN_WANTED)
    assert refusals.refuses_all is (stage is Stage.MAIL)
    refusals.note_success(verb)
    is_over = verb is Verb.CONTENT or (verb is Verb.RCPT and stage is Stage.RCPT)
    assert (refusals.end is None) is is_over
    assert refusals.accepted == {verb}
    assert not Refusals().refuses_all


def test_an_end_that_is_no_setup_fault_stays() -> None:
    refusals = Refusals()
    refusals.end = REFUSED
    refusals.note_success(Verb.CONTENT)
    assert (refusals.end, refusals.refuses_all) == (REFUSED, False)


@pytest.mark.parametrize(
    ("accepted", "stage", "is_fault"),
    [
        ((), Stage.MAIL, True),
        ((Verb.MAIL,), Stage.MAIL, True),
        ((Verb.RCPT,), Stage.MAIL, True),
        ((Verb.RCPT,), Stage.RCPT, False),
        ((Verb.CONTENT,), Stage.MAIL, False),
        ((Verb.CONTENT,), Stage.RCPT, False),
    ],
)
def test_what_was_accepted_before_makes_a_refusal_one_of_the_message(
    accepted: tuple[Verb, ...], stage: Stage, is_fault: bool
) -> None:
    for code, again in ((530, True), (550, is_fault)):
        refusals = Refusals()
        for verb in accepted:
            refusals.note_success(verb)
        reply = Reply(code, (b"authentication required",))
        causes = [refusals.judge(stage, reply).cause for _ in range(2)]
        assert [cause is Cause.LOGIN_WANTED for cause in causes] == [is_fault, again]


@pytest.mark.parametrize(
    ("verb", "code", "has_accepted", "is_repeated"),
    [
        (Verb.MAIL, 503, True, True),
        (Verb.MAIL, 503, False, False),
        (Verb.MAIL, 550, True, False),
        (Verb.RCPT, 503, True, False),
    ],
)
def test_a_mail_server_that_has_lost_the_order_of_the_commands_gets_the_message_again(
    verb: Verb, code: int, has_accepted: bool, is_repeated: bool
) -> None:
    refusals, one = Refusals(), transaction()
    if has_accepted:
        refusals.note_success(Verb.RCPT)
    outcome = refusals.judge_refusal(Command(verb, b"x<>\r\n", one), one, Reply(code, (b"5.0.0 x",)), Extensions())
    assert (one.is_repeated, outcome.cause is Cause.LOST) == (is_repeated, is_repeated)
    if is_repeated:
        assert outcome.stage is Stage.MAIL
        assert outcome.text.startswith("the mail server lost the order of the commands (503 5.0.0 x)")
        assert refusals.end == outcome


def test_a_refused_extension_is_named_and_ends_the_conversation() -> None:
    refusals, one = Refusals(), transaction()
    command = Command(Verb.MAIL, b"MAIL FROM:<a@example.org> SIZE=10 BODY=8BITMIME\r\n", one)
    outcome = refusals.judge_refusal(command, one, Reply(555, (b"no",)), Extensions(eightbitmime=True, size=0))
    assert outcome.text == (
        "the mail server offers EIGHTBITMIME and SIZE and refuses it (555 no); the message is sent again"
    )
    assert refusals.extensions == {Extension.EIGHTBITMIME, Extension.SIZE}
    assert refusals.end == outcome
    later = refusals.judge_refusal(command, one, Reply(530, (b"no",)), Extensions())
    assert (later.cause, refusals.end) == (Cause.LOGIN_WANTED, outcome)


def test_every_pair_of_extensions_can_be_left_out() -> None:
    everything = Extensions(True, True, True, True, True, True, 100)
    for unusable in itertools.combinations(Extension, 2):
        left = everything.without(unusable)
        for one in Extension:
            value = getattr(left, one.value)
            expected = (None if one is Extension.SIZE else False) if one in unusable else getattr(everything, one.value)
            assert value is expected or value == expected
        assert left.uses_bdat is not bool({Extension.PIPELINING, Extension.CHUNKING} & set(unusable))
