"""The values of mail: the words that the spool keeps, the tables of states and problems, and the edges of addresses."""

import dataclasses
import itertools
from pathlib import Path

import pytest

from mailrelay.config import Relayhost
from mailrelay.mail import handed_in
from mailrelay.mail.a_labels import domain_in_a_labels, with_a_labels
from mailrelay.mail.address import MAX_DOMAIN, MAX_LABEL, MAX_MAILBOX, BadPath, is_address, parse_path
from mailrelay.mail.backends import backends_of
from mailrelay.mail.completion import Completion, account_address, completed, has_bare, is_domain
from mailrelay.mail.conclusion import RetryPolicy, conclude
from mailrelay.mail.dsn import compose
from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.handed_in import problem_of_content
from mailrelay.mail.lifecycle import ACT_TABLE, ATTEMPT_TABLE, ENDS_BOUNCE, Act, after_attempt
from mailrelay.mail.logline import accepted
from mailrelay.mail.notice import Backend, Concerned, Kind, Notice
from mailrelay.mail.outcome import Cause, Outcome, Reply, Scope, Stage
from mailrelay.mail.pace import SPACING, WINDOW, Pace
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import length, size, unit_of
from mailrelay.mail.recipient_limit import dispositions, recipient_limit
from mailrelay.mail.record import Place, arrive
from mailrelay.mail.reply_text import names_status, reply_text
from mailrelay.mail.routing import choose, is_pattern
from mailrelay.mail.send_time import SendTime
from mailrelay.mail.sender_refusal import is_sender_refused
from mailrelay.mail.setup_reply import cause_of
from mailrelay.mail.spool_errors import SpoolFull
from mailrelay.mail.states import COUNTED_AS, FAILED, HISTORY, OPEN, PENDING, QUEUE_NAMES, STATE_WORDS, State
from mailrelay.mail.there import Source, There, Verdict, there_record
from mailrelay.mail.there_wording import there_text
from mailrelay.mail.trace import MAX_RECEIVED
from mailrelay.mail.triage import PENALISED, TRANSIENT, Disposition, classify, is_reply_to_mail, is_setup_fault

# What the spool keeps.


def test_the_states_of_a_recipient_have_their_words() -> None:
    words = ["queued", "deferred", "held", "sent", "bounced", "refused", "expired", "cancelled"]
    assert [state.value for state in State] == words
    assert set(State) == PENDING | {State.HELD} | FAILED | HISTORY
    assert {"queued", "deferred"} == PENDING
    assert {"queued", "deferred", "held"} == OPEN
    assert {"bounced", "expired"} == FAILED
    assert {"sent", "refused", "cancelled"} == HISTORY
    assert {word: set(states) for word, states in COUNTED_AS.items()} == {
        "pending": {"queued", "deferred"},
        "held": {"held"},
        "failed": {"bounced", "expired"},
        "sent": {"sent"},
        "refused": {"refused"},
        "cancelled": {"cancelled"},
    }
    queues = ("active", "incoming", "deferred", "hold", "failed", "sent", "refused", "cancelled")
    assert queues == QUEUE_NAMES
    assert set(STATE_WORDS) == {*words, *queues, "pending"}
    assert len(STATE_WORDS) == len(set(STATE_WORDS))
    for state in State:
        if state not in PENDING:
            with pytest.raises(ValueError, match="is not tried"):
                after_attempt(state, Disposition.SENT, client_told=False, age=0, expire_after=1)


@pytest.mark.parametrize(("state", "act"), [*itertools.product(State, Act)])
def test_what_the_person_makes_pending_can_be_tried_and_nothing_else(state: State, act: Act) -> None:
    ends = {State.HELD: (Act.RESEND, Act.EDIT, Act.CANCEL), State.REFUSED: (Act.RESEND, Act.EDIT)}
    ends |= dict.fromkeys((State.QUEUED, State.DEFERRED), (Act.CANCEL, Act.EDIT))
    ends |= dict.fromkeys((State.BOUNCED, State.EXPIRED), (Act.RESEND, Act.EDIT, Act.DROP))
    to = ACT_TABLE.get((state, act))
    if act in ends.get(state, ()):
        assert to is State.CANCELLED
    elif act is Act.HOLD and state in (State.QUEUED, State.DEFERRED):
        assert to is State.HELD
    elif (state, act) == (State.HELD, Act.RELEASE):
        assert to is State.QUEUED
    else:
        assert to is None
    if to is State.QUEUED:
        assert after_attempt(to, Disposition.SENT, client_told=False, age=0, expire_after=1).state is State.SENT
    elif to is not None:
        with pytest.raises(ValueError, match="is not tried"):
            after_attempt(to, Disposition.SENT, client_told=False, age=0, expire_after=1)
    assert (act in ENDS_BOUNCE) is (act in (Act.CANCEL, Act.DROP, Act.RESEND, Act.EDIT))
    assert [one.value for one in Act] == ["hold", "release", "cancel", "drop", "resend", "edit"]


@pytest.mark.parametrize(
    ("disposition", "word", "state"),
    [
        (Disposition.SENT, "sent", State.SENT),
        (Disposition.DEFERRED, "deferred", State.DEFERRED),
        (Disposition.UNCERTAIN, "uncertain", State.DEFERRED),
        (Disposition.BOUNCED, "bounced", State.BOUNCED),
        (Disposition.TOO_MANY, "too many", State.QUEUED),
        (Disposition.HELD, "held", State.HELD),
        (Disposition.NOT_TRIED, "waits", State.QUEUED),
    ],
)
def test_each_disposition_leads_to_its_state(disposition: Disposition, word: str, state: State) -> None:
    assert disposition.value == word
    after = after_attempt(State.QUEUED, disposition, client_told=False, age=1, expire_after=1)
    assert after.state is state
    assert (ATTEMPT_TABLE[disposition] or State.QUEUED) is state
    late = after_attempt(State.QUEUED, disposition, client_told=False, age=1.5, expire_after=1)
    assert late.state is (State.EXPIRED if state is State.DEFERRED else state)


def test_what_the_spool_keeps_of_an_outcome_has_its_words() -> None:
    stages = ["dial", "host key", "auth", "channel", "greeting", "EHLO", "MAIL", "RCPT", "DATA", "content", "after-dot"]
    assert [stage.value for stage in Stage] == stages
    assert [scope.value for scope in Scope] == ["relayhost", "message", "recipient"]
    causes = (
        "reply unreachable connection-lost ssh-refused ssh-config host-key-unknown host-key-changed host-key-revoked"
    )
    causes += (
        " auth-refused forwarding-prohibited smtp-closed not-smtp turned-away helo-refused login-wanted tls-wanted"
    )
    causes += " client-refused command-refused no-smtputf8 unreadable"
    assert [cause.value for cause in Cause] == causes.split()
    assert Outcome(Stage.DIAL, cause=Cause.LOST, text="x").scope is Scope.RELAYHOST


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Kind, "failed held setup delayed resumed relayed spool"),
        (Backend, "desktop dsn mailbox command urls"),
    ],
)
def test_what_the_spool_keeps_of_a_notice_has_its_words(kind: type[Kind] | type[Backend], words: str) -> None:
    assert [one.value for one in kind] == words.split()
    there = Concerned(b"a@b", "sent", "", b"", "", True, there=Verdict(There.BOUNCED))
    assert there.bounced_there == Verdict(There.BOUNCED)
    assert Concerned(b"a@b", "sent", "", b"", "", True, there=Verdict(There.LEFT)).bounced_there is None


@pytest.mark.parametrize(
    ("state", "word", "heading", "shown"),
    [
        (There.WAITING, "waiting", "waiting there", "waiting"),
        (There.DEFERRED, "deferred", "deferred there", "deferred"),
        (There.DELIVERED, "delivered", "delivered there", "delivered"),
        (There.BOUNCED, "bounced", "bounced there", "bounced"),
        (There.LEFT, "left", "left your server, no bounce came", "left"),
        (There.LEFT_UNWATCHED, "left unwatched", "left your server", "left"),
        (There.NOT_FOLLOWED, "not followed", "not followed", "not followed"),
    ],
)
def test_each_verdict_has_its_word_and_heading(state: There, word: str, heading: str, shown: str) -> None:
    assert (state.value, Verdict(state).heading) == (word, heading)
    assert there_record(Verdict(state, since=5.9)) == {
        "state": shown,
        "words": "",
        "source": "",
        "since": 5,
        "by": "",
    }


@pytest.mark.parametrize(
    ("source", "word", "says"),
    [
        (Source.QUEUE, "queue", "The queue there says"),
        (Source.LOG, "log", "The log there says"),
        (Source.REPORT, "report", "A report in your mailbox there says"),
        (Source.NONE, "", "The server there says"),
    ],
)
def test_each_source_of_a_verdict_is_named(source: Source, word: str, says: str) -> None:
    assert source.value == word
    assert Verdict(There.BOUNCED, source).sentence == f"{says} nothing about the reason"
    assert Verdict(There.BOUNCED, source, b"550 5.1.1 5.1.1 no").sentence == f"{says}: 550 5.1.1 no"
    assert Verdict(There.BOUNCED, source, b"550 no", b"mx\x1b").sentence == f"{says}: 550 no (from mx\\x1b)"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (b"550 5.1.1 no", "5.1.1"),
        (b"said: 5.7.26", "5.7.26"),
        (b"4.2.2 later", "5.0.0"),
        (b"192.5.1.1 x", "5.0.0"),
        (b"5.1.1.1 x", "5.0.0"),
        (b"15.1.1", "5.0.0"),
        (b"", "5.0.0"),
    ],
)
def test_the_status_of_a_bounce_is_that_in_its_words(words: bytes, status: str) -> None:
    assert Verdict(There.BOUNCED, words=words).status == status


@pytest.mark.parametrize(
    ("words", "by", "text"),
    [
        (b"host mx.example.net[192.0.2.1] said: 550 no", b"local", "550 no (from mx.example.net"),
        (b"host a b said: 550 no", b"mx.example.net", "host a b said: 550 no (from mx.example.net"),
        (b"mx.example.net said: 550 no", b"local", "mx.example.net said: 550 no"),
        (b"host mx.example.net says: 550 no", b"local", "host mx.example.net says: 550 no"),
    ],
)
def test_only_the_form_of_postfix_names_the_server_that_said_the_words(words: bytes, by: bytes, text: str) -> None:
    shown = there_text(Verdict(There.BOUNCED, Source.LOG, words, by), 0.0)
    assert shown.startswith(f"bounced there: {text}")
    assert (" (from" in shown) is ("(from" in text)


# Judgements.


@pytest.mark.parametrize("cause", list(Cause))
def test_causes_of_the_network_end_by_themselves_and_others_need_the_person(cause: Cause) -> None:
    outcome = Outcome(Stage.DIAL, cause=cause, text="x")
    by_itself = {Cause.UNREACHABLE, Cause.LOST, Cause.TURNED_AWAY}
    assert (cause in TRANSIENT) is (cause in by_itself - {Cause.TURNED_AWAY})
    if outcome.scope is Scope.RELAYHOST:
        assert is_setup_fault(outcome) is (cause not in by_itself)
    assert (cause in PENALISED) is (
        cause in ("auth-refused", "host-key-unknown", "host-key-changed", "host-key-revoked")
    )


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("code", [200, 250, 300, 354, 421, 450, 550])
def test_the_mail_is_judged_by_a_reply_from_rcpt_on(stage: Stage, code: int) -> None:
    outcome = Outcome(stage, Reply(code, (b"x",)))
    judged = stage in ("RCPT", "DATA", "content") and code not in (300, 354, 421)
    assert is_reply_to_mail(outcome) is judged
    assert outcome.ends_conversation is (code in (300, 354, 421))
    assert not is_reply_to_mail(Outcome(stage, cause=Cause.LOST, text="x"))


@pytest.mark.parametrize(
    ("code", "status", "disposition"),
    [
        (552, "5.5.3", Disposition.DEFERRED),
        (552, "5.2.2", Disposition.BOUNCED),
        (550, "5.5.3", Disposition.BOUNCED),
        (500, "5.0.0", Disposition.BOUNCED),
        (599, "5.0.0", Disposition.BOUNCED),
        (499, "4.0.0", Disposition.DEFERRED),
        (250, "2.0.0", Disposition.DEFERRED),
        (300, "", Disposition.DEFERRED),
    ],
)
def test_the_first_digit_of_a_reply_to_rcpt_decides_but_for_too_many(
    code: int, status: str, disposition: Disposition
) -> None:
    text = f"{status} x".strip().encode()
    assert classify(Outcome(Stage.RCPT, Reply(code, (text,)))) is disposition


LOST = Outcome(Stage.RCPT, cause=Cause.LOST, text="lost")
HELD = Outcome(Stage.CONTENT, cause=Cause.UNREADABLE, text="damaged")
GOOD = Outcome(Stage.CONTENT, Reply(250, (b"ok",)))
REFUSED = Outcome(Stage.RCPT, Reply(550, (b"no",)))
BUSY = Outcome(Stage.DATA, Reply(451, (b"later",)))
UNKNOWN = Outcome(Stage.AFTER_DOT, cause=Cause.LOST, text="lost")


def rcpt(code: int, text: str) -> Outcome:
    return Outcome(Stage.RCPT, Reply(code, (text.encode(),)))


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("452 x", 1),
        ("552 x", 1),
        ("452 mailbox full", None),
        ("452 no space", None),
        ("552 over quota", None),
        ("452 the disk is bad", None),
        ("452 insufficient storage", None),
        ("451 x", None),
        ("451 too many recipients", 1),
        ("550 recipient limit reached", 1),
        ("450 4.5.3 x", 1),
        ("450 4.7.1 too many recipients this hour", None),
        ("450 4.3.0 too many recipients", 1),
        ("450 4.5.1 too many recipients", 1),
        ("400 too many recipients", 1),
        ("450 4.2.1 too many recipients", None),
        ("452 4.2.2 x", None),
    ],
)
@pytest.mark.parametrize("is_lost", [False, True])
def test_a_reply_says_that_there_are_too_many_recipients(text: str, limit: int | None, is_lost: bool) -> None:
    code, _, said = text.partition(" ")
    surplus = rcpt(int(code), said)
    first = LOST if is_lost else Outcome(Stage.CONTENT, Reply(250, (b"ok",)))
    outcomes = [first, surplus, surplus, *([LOST] if is_lost else [])]
    assert recipient_limit(outcomes) == limit
    assert (dispositions(outcomes)[1] is Disposition.TOO_MANY) is (limit is not None)
    if not is_lost:
        assert recipient_limit([surplus, first]) is None
        assert recipient_limit([first, surplus, first]) is None


@pytest.mark.parametrize(
    ("text", "limit"), [("4.5.3 x", 1), ("too many recipients", 1), ("4.3.0 x", None), ("later", None)]
)
def test_a_421_ends_at_the_recipient_that_was_too_many_if_it_says_so(text: str, limit: int | None) -> None:
    outcomes = [LOST, rcpt(421, text), LOST]
    assert recipient_limit(outcomes) == limit
    expected = Disposition.TOO_MANY if limit else Disposition.DEFERRED
    assert dispositions(outcomes) == (expected,) * 3


@pytest.mark.parametrize(
    ("stage", "status", "description", "is_about_sender"),
    [
        ("RCPT", "5.1.7", b"550 5.1.7 x", True),
        ("RCPT", "5.1.8", b"550 5.1.8 x", True),
        ("RCPT", "4.1.8", b"450 4.1.8 x", False),
        ("RCPT", "5.1.1", b"550 5.1.1 x", False),
        ("MAIL", "5.0.0", b"550 x", True),
        ("MAIL", "5.0.0", b"552 x", False),
        ("MAIL", "5.2.1", b"550 5.2.1 x", False),
        ("MAIL", "5.3.4", b"550 5.3.4 x", False),
        ("MAIL", "5.5.2", b"550 5.5.2 x", False),
        ("MAIL", "5.6.0", b"550 5.6.0 x", False),
        ("MAIL", "5.6.0", b"550 5.6.0 bad sender", True),
        ("MAIL", "5.7.1", b"550 5.7.1 x", True),
        ("RCPT", "5.7.1", b"550 5.7.1 Sender rejected", True),
        ("RCPT", "5.7.1", b"550 5.7.1 no mail from you: MAIL FROM", True),
        ("RCPT", "5.7.1", b"571 5.7.1 Sender rejected", False),
        ("content", "5.7.1", b"550 5.7.1 Sender rejected", False),
        *(("RCPT", "5.0.0", b"%d sender no" % code, True) for code in (501, 504, 550, 553, 554)),
        ("MAIL", "5.0.0", b"the sender", False),
    ],
)
def test_a_refusal_of_the_sender(stage: str, status: str, description: bytes, is_about_sender: bool) -> None:
    assert is_sender_refused(stage, status, description) is is_about_sender


@pytest.mark.parametrize("code", [499, 500, 501, 550])
def test_a_client_that_is_denied_with_a_5xx_is_a_setup_fault(code: int) -> None:
    reply = Reply(code, (b"your host is blocked",))
    assert (cause_of(Stage.MAIL, reply, accepted=False) is Cause.CLIENT_REFUSED) is (code >= 500)
    assert cause_of(Stage.MAIL, reply, accepted=True) is None
    assert cause_of(Stage.AUTH, reply, accepted=False) is None


@pytest.mark.parametrize("code", [529, 530, 531, 534, 535, 536, 537, 538, 539])
@pytest.mark.parametrize("stage", [Stage.GREETING, Stage.EHLO, Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT])
def test_the_codes_of_a_missing_login_and_of_missing_tls_mean_nothing_else(code: int, stage: Stage) -> None:
    found = cause_of(stage, Reply(code, (b"5.2.1 x",)), accepted=False)
    assert found is {530: Cause.LOGIN_WANTED, 535: Cause.LOGIN_WANTED, 538: Cause.TLS_WANTED}.get(code)


@pytest.mark.parametrize(
    ("stage", "reply", "cause"),
    [
        (Stage.MAIL, "400 x: Helo command rejected: no", Cause.HELO_REFUSED),
        (Stage.MAIL, "399 x: Helo command rejected: no", None),
        (Stage.MAIL, "500 command unrecognized, try again", Cause.COMMAND_REFUSED),
        (Stage.MAIL, "499 access denied for your host, try again", None),
        (Stage.MAIL, "499 access denied for your host", Cause.CLIENT_REFUSED),
        (Stage.MAIL, "554 your host [5.7.1] is blocked", Cause.CLIENT_REFUSED),
        (Stage.MAIL, "554 your host [9.9.9.9] is blocked", None),
        (Stage.GREETING, "503 no", None),
        (Stage.GREETING, "500 command unrecognized", None),
        (Stage.EHLO, "503 no", None),
        (Stage.EHLO, "502 command not implemented", None),
        (Stage.MAIL, "503 5.7.1 no", None),
        (Stage.MAIL, "502 5.7.1 no", None),
        (Stage.MAIL, "503 5.5.1 no", Cause.COMMAND_REFUSED),
        *((Stage.RCPT, f"{code} 5.5.1 unsupported", Cause.COMMAND_REFUSED) for code in (500, 502, 503, 504, 521)),
        *((Stage.RCPT, f"{code} 5.5.1 no", None) for code in (500, 502, 504, 521)),
        *((Stage.RCPT, f"{code} 5.5.1 unsupported", None) for code in (501, 505, 522, 550)),
        *((Stage.MAIL, f"{code} 5.5.1 no", Cause.COMMAND_REFUSED) for code in (502, 503, 521)),
    ],
)
def test_a_reply_that_refuses_us_is_known_by_its_code_and_words_at_its_stage(
    stage: Stage, reply: str, cause: Cause | None
) -> None:
    code, _, text = reply.partition(" ")
    assert cause_of(stage, Reply(int(code), (text.encode(),)), accepted=False) is cause


@pytest.mark.parametrize("judged", [(HELD, BUSY), (GOOD, BUSY), (REFUSED, BUSY), (UNKNOWN, BUSY)])
def test_a_round_goes_on_after_each_decision_about_a_recipient(judged: tuple[Outcome, ...]) -> None:
    envelope = Envelope(b"a@example.org", (Recipient(b"b@example.net"), Recipient(b"c@example.net")))
    message = Message(7, "q", "home", envelope, (1, 2), 100, 0.0, 0, later=1)
    policy = RetryPolicy((60.0,), 1e9, lambda *_: ())
    record = conclude(message, judged, policy, client_told=False, relays_dsn=True, now=5.0, chance=0.0)
    assert record.place is (Place.ALONE if UNKNOWN in judged else Place.GOES_ON)


# Texts.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x00\x1f\x7f\x9f", "\\x00\\x1f\\x7f\\x9f"),
        ("\u00ad\u0600", "\\xad\\u0600"),
        ("\ud800\ufeff\uffff\u2028\u2029", "\\ud800\\ufeff\\uffff\\u2028\\u2029"),
        ("\U000e0001\U0001ffff", "\\U000e0001\\U0001ffff"),
        ("\U00010000\u200c\u200d", "\U00010000\u200c\u200d"),
        ("a b\u3000é", "a b\u3000é"),
    ],
)
def test_each_character_that_affects_a_display_is_escaped(text: str, shown: str) -> None:
    assert printable(text + "\x00").removesuffix("\\x00") == shown
    assert printable(b"a\xffb") == "a\\xffb"


@pytest.mark.parametrize(("limit", "shown"), [(4, "abcd"), (3, "ab…"), (1, "…"), (None, "abcd")])
def test_a_text_is_cut_with_an_ellipsis(limit: int | None, shown: str) -> None:
    assert printable("abcd", limit) == shown


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ("250 250 2.1.5 2.1.5 ok", "250 2.1.5 ok"),
        ("450 4.2.1 a, 4.2.1 b", "450 4.2.1 a, b"),
        ("550 5.1.1 a 550-5.1.1 b", "550 5.1.1 a b"),
        ("550 5.1.1 a 550 5.1.1 b", "550 5.1.1 a b"),
        ("550 5.1.1 a 551 5.1.1 b", "550 5.1.1 a 551 b"),
        ("550 3.1.1 a 3.1.1 b", "550 3.1.1 a 3.1.1 b"),
        ("550 5.1 a 5.1 b", "550 5.1 a 5.1 b"),
        ("550 5.1.x a 5.1.x b", "550 5.1.x a 5.1.x b"),
        ("150 150 a", "150 150 a"),
        ("650 650 a", "650 650 a"),
        ("354 354 a", "354 a"),
        ("55 55 a", "55 55 a"),
        ("5500 5500 a", "5500 5500 a"),
        ("550", "550"),
        ("", ""),
    ],
)
def test_a_reply_has_each_code_once(reply: str, shown: str) -> None:
    assert reply_text(reply) == reply_text(reply.encode()) == shown
    assert len(reply_text(reply, 3)) <= 3


def test_a_status_is_in_a_reply_only_as_a_word() -> None:
    assert names_status("550 5.1.1 no", "5.1.1")
    assert not names_status("550 5.1.10 no", "5.1.1")


@pytest.mark.parametrize(
    ("octets", "text", "unit"),
    [
        (0, "0 B", (1, "B")),
        (999, "999 B", (1, "B")),
        (1000, "1 kB", (1000, "kB")),
        (1199, "1.1 kB", (1000, "kB")),
        (999_999, "999.9 kB", (1000, "kB")),
        (1_000_000, "1 MB", (10**6, "MB")),
        (1_234_567_890, "1.2 GB", (10**9, "GB")),
    ],
)
def test_a_size_is_in_the_largest_unit(octets: int, text: str, unit: tuple[int, str]) -> None:
    assert (size(octets), unit_of(octets)) == (text, unit)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0 s"),
        (1, "1 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (86_399, "23 h"),
        (86_400, "1 d"),
        (200_000, "2 d"),
    ],
)
def test_a_length_of_time_is_in_its_largest_unit(seconds: float, text: str) -> None:
    assert length(seconds) == text


def test_the_pace_is_that_of_the_last_seconds() -> None:
    pace = Pace(100.0)
    assert pace.rate(0, 100.0) == 0.0
    assert pace.rate(10, 100.0 + SPACING) == pytest.approx(10 / SPACING)
    assert pace.rate(10, 99.0) == 0.0
    pace = Pace(0.0)
    assert [pace.rate(10 * second, float(second)) for second in range(1, 6)] == [10.0] * 5
    # Since then it goes twice as fast: the window ends WINDOW seconds ago.
    assert pace.rate(50 + 20, 6.0) == pytest.approx((50 + 20 - 10) / WINDOW)
    assert pace.rate(50 + 20 * 5, 10.0) == pytest.approx(20.0)
    assert pace.rate(50, 10.1) == 0.0
    # Two samples that are kept are SPACING apart: of a smaller distance, the first one counts.
    pace = Pace(0.0)
    pace.rate(100, SPACING / 2)
    pace.rate(1000, SPACING)
    assert pace.rate(2000, WINDOW + SPACING) == pytest.approx(1000 / WINDOW)
    pace = Pace(0.0)
    pace.rate(1000, SPACING / 2)
    assert pace.rate(2000, WINDOW + SPACING / 2) == pytest.approx(2000 / (WINDOW + SPACING / 2))


# Messages.

ENVELOPE = Envelope(b"a@example.org", (Recipient(b"b@example.net"),))


@pytest.mark.parametrize(
    ("sender", "domain"),
    [
        (b"a@example.org", b"example.org"),
        (b"", b"localhost"),
        (b"root", b"localhost"),
        (b"a@[192.0.2.1]", b"localhost"),
        (b"a@1.2.3.4", b"localhost"),
    ],
)
def test_a_message_id_is_at_the_domain_of_the_sender(sender: bytes, domain: bytes) -> None:
    arrival = arrive(Envelope(sender, ENVELOPE.recipients), b"\r\n", queue_id="q", token="t", relayhost="home", now=5.0)
    assert b"Message-ID: <q.t.mailrelay@" + domain + b">\r\n" in arrival.content
    assert (arrival.relayhost, arrival.arrival, arrival.has_bare_header, arrival.staged) == ("home", 5.0, False, None)


@pytest.mark.parametrize("completes", [True, False])
def test_a_bare_header_is_completed_only_where_it_is_asked_for(completes: bool) -> None:
    how = {"queue_id": "q", "token": "t", "relayhost": "home"}
    for content, is_bare in ((b"To: root\r\n\r\n", True), (b"To: root@example.org\r\n\r\n", False)):
        arrival = arrive(ENVELOPE, content, now=5.0, completes_header=completes, **how)
        assert arrival.has_bare_header is (completes and is_bare)


@pytest.mark.parametrize(
    ("content", "state", "status", "stage", "word"),
    [
        (b"Received: x\r\n" * MAX_RECEIVED + b"\r\n", "held", "5.4.6", "content", "mail loop"),
        (b"\r\n\0", "held", "5.6.0", "content", "NUL"),
        (b"\r\n" + b"x" * 999, "held", "5.3.4", "content", "larger than listen.max_message_size (1000 octets)"),
    ],
)
def test_a_content_that_is_held_says_why(content: bytes, state: str, status: str, stage: str, word: str) -> None:
    problem = problem_of_content(content, 1000)
    assert problem is not None
    assert (problem.state, problem.status, problem.stage) == (state, status, stage)
    assert word in problem.text
    assert "`mailrelay queue release ID`" in problem.text


@pytest.mark.parametrize("content", [b"Received: x\r\n" * (MAX_RECEIVED - 1) + b"\r\n", b"\r\n" + b"x" * 998])
def test_a_content_at_the_limit_is_sent(content: bytes) -> None:
    assert problem_of_content(content, 1000) is None


@pytest.mark.parametrize(
    ("problem", "state", "status", "stage", "words"),
    [
        (
            handed_in.not_an_address("x is none"),
            "bounced",
            "5.1.3",
            "RCPT",
            "x is none; `mailrelay queue resend ID --to",
        ),
        (handed_in.no_recipient("none"), "bounced", "5.1.3", "RCPT", "none"),
        (handed_in.too_large_to_keep(9), "bounced", "5.3.4", "content", "larger than 9 octets and is not kept"),
        (handed_in.bad_sender(b"x\x1b", b"a@b"), "held", "5.1.7", "MAIL", "the sender 'x\\x1b' is not an address; "),
        (handed_in.no_relayhost(b"a@b", "home"), "held", "5.7.1", "MAIL", "see `senders` in the settings"),
        (
            handed_in.no_relayhost(b"root", "home"),
            "held",
            "5.7.1",
            "MAIL",
            "see `from` below [submission] and `senders`",
        ),
    ],
)
def test_each_problem_of_what_a_program_hands_in(
    problem: handed_in.Problem, state: str, status: str, stage: str, words: str
) -> None:
    assert (problem.state, problem.status, problem.stage) == (state, status, stage)
    assert words in problem.text
    assert problem.state in handed_in.UNTRIED
    assert handed_in.NO_RECIPIENT == b"(no recipient)"
    assert not is_address(handed_in.NO_RECIPIENT)


@pytest.mark.parametrize("name", [b"Root", b"ROOT", b'"ROOT"', b"ROOT+x", b"r\\oot"])
def test_an_account_is_known_by_its_name_as_it_is_written_too(name: bytes) -> None:
    """The name as written goes before the one in lower case: an account may have capitals."""
    asked: list[bytes] = []
    completion = Completion(local=b"me@example.org", is_local_account=lambda one: asked.append(one) is not None)
    assert completion.whole_recipient(name) == name
    bare = name.strip(b'"').replace(b"\\", b"")
    assert asked == [bare, bare.lower(), bare.lower().partition(b"+")[0]]


def test_an_envelope_has_bare_addresses_if_one_of_them_is_bare() -> None:
    whole, bare, postmaster = Recipient(b"a@b"), Recipient(b"root"), Recipient(b"Postmaster")
    assert [has_bare(Envelope(b"a@b", (whole, one))) for one in (whole, bare, postmaster)] == [False, True, False]
    assert [has_bare(Envelope(sender, (whole,))) for sender in (b"", b"root", b'"a@b"')] == [False, True, True]


@pytest.mark.parametrize(
    ("names", "host", "address"),
    [
        ((b"mx", b"mx.example.org"), "h", b"me@mx.example.org"),
        ((b"mx", b""), "h", b"me@mx"),
        ((b"localhost", b"localhost.localdomain"), "h", b"me@h"),
        ((b"localhost",), "192.0.2.1", b"me@localhost"),
        ((), "", b"me@localhost"),
        ((), "a_b", b"me@localhost"),
    ],
)
def test_the_account_is_at_the_first_name_that_is_a_domain(names: tuple[bytes, ...], host: str, address: bytes) -> None:
    assert account_address("me", names, host) == address
    assert account_address("", names, host) == account_address("a\n", names, host) == b""


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        (b"a" * 63, True),
        (b"a" * 64, False),
        (b".".join([b"a" * 61] * 4) + b".bbbbbbb", True),
        (b".".join([b"a" * 61] * 4) + b".bbbbbbbb", False),
        (b"1.2.3.4", False),
        (b"1.2.3.4a", True),
        (b"-a", False),
        (b"", False),
    ],
)
def test_a_domain_has_labels_of_limited_length(name: bytes, is_one: bool) -> None:
    assert is_domain(name) is is_one


@pytest.mark.parametrize(
    ("domain", "is_valid"),
    [
        (b"a" * MAX_LABEL, True),
        (b"a" * (MAX_LABEL + 1), False),
        (b".".join([b"a" * MAX_LABEL] * 3 + [b"b" * (MAX_DOMAIN - 3 * (MAX_LABEL + 1))]), True),
        (b".".join([b"a" * MAX_LABEL] * 3 + [b"b" * (MAX_DOMAIN - 3 * (MAX_LABEL + 1) + 1)]), False),
        ("bü-cher.example".encode(), True),
        ("b2ücher9.example".encode(), True),
        ("-bücher.example".encode(), False),
        ("bücher-.example".encode(), False),
        ("b_ücher.example".encode(), False),
        ("b\u00adücher.example".encode(), False),
        ("ü💌.example".encode(), False),
        *((f"a{char}b.example".encode(), True) for char in "\u200c\u200d\u00b7\u0375\u05f3\u05f4\u30fb"),
        (b"[192.0.2.1]", True),
        (b"[IPv6:::1]", True),
        (b"[ipv6:::1]", True),
        (b"[::1]", False),
        (b"[IPv4:192.0.2.1]", False),
        (b"[IPv6:x]", False),
        (b"[IPv6:192.0.2.1]", False),
        (b"[]", False),
    ],
)
def test_the_domains_of_addresses(domain: bytes, is_valid: bool) -> None:
    assert is_address(b"a@" + domain) is is_valid
    if is_valid and not domain.startswith(b"["):
        assert parse_path(b"<@%b,@x:b@c> X=y" % domain, smtputf8=True, null=False) == (b"b@c", b"X=y")
    elif not domain.startswith(b"["):
        with pytest.raises(BadPath):
            parse_path(b"<@x,@%b:b@c>" % domain, smtputf8=True, null=False)


def test_a_mailbox_has_the_octets_of_a_command_line() -> None:
    rest = b"@example.org"
    assert is_address(b"a" * (MAX_MAILBOX - len(rest)) + rest)
    assert not is_address(b"a" * (MAX_MAILBOX - len(rest) + 1) + rest)
    assert MAX_MAILBOX + len(b"MAIL FROM:<>\r\n") == 512


# Reports.


@pytest.mark.parametrize(
    ("kind", "action", "status"),
    [
        (Kind.FAILED, b"failed", b"5.0.0"),
        (Kind.HELD, b"delayed", b"4.0.0"),
        (Kind.RELAYED, b"relayed", b"2.0.0"),
    ],
)
@pytest.mark.parametrize("given", ["", "x", "9.1.1", "4.2.1"])
def test_each_kind_of_report_has_its_action_and_status(kind: Kind, action: bytes, status: bytes, given: str) -> None:
    one = Concerned(b"b@example.net", "bounced", given, b"no", "RCPT", False, orcpt=b"rfc822;b+40example.net")
    notice = Notice(1, kind, "home", 5.0, message=1, queue_id="q", sender=b"a@example.org", concerned=(one,))
    report = compose(notice, original=b"", now=5.0, message_id=b"<x@y>", boundary=b"zzzz")
    lines = report.split(b"\r\n")
    assert b"Action: " + action in lines
    assert b"Status: " + (given.encode() if given == "4.2.1" else status) in lines
    for line in (
        b"Reporting-MTA: dns; localhost",
        b"From: mailrelay <MAILER-DAEMON@localhost>",
        b"Original-Recipient: rfc822; b@example.net",
        b"Final-Recipient: rfc822; b@example.net",
        b"Remote-MTA: x-relayhost; home",
        b"Diagnostic-Code: x-mailrelay; no",
        b"Last-Attempt-Date: Thu, 01 Jan 1970 00:00:05 +0000",
        b"MIME-Version: 1.0",
        b"Auto-Submitted: auto-replied",
        b'\tboundary="zzzz"',
    ):
        assert line in lines
    assert not any(line.startswith((b"Original-Envelope-Id", b"In-Reply-To", b"Content-Transfer")) for line in lines)


def test_a_report_of_a_bounce_there_has_the_words_of_the_reply() -> None:
    there = Verdict(There.BOUNCED, Source.LOG, b"550 5.2.2 full")
    one = Concerned(b"b@example.net", "sent", "2.0.0", b"250 ok", "content", False, there=there)
    notice = Notice(1, Kind.FAILED, "home", 5.0, message=1, queue_id="q", sender=b"a@example.org", concerned=(one,))
    lines = compose(notice, original=b"", now=5.0, message_id=b"<x@y>", boundary=b"zzzz").split(b"\r\n")
    assert b"Diagnostic-Code: smtp; 550 5.2.2 full" in lines
    assert b"Status: 5.2.2" in lines


def test_a_header_that_is_not_ascii_is_returned_line_by_line() -> None:
    one = Concerned(b"b@example.net", "bounced", "5.1.1", b"no", "RCPT", False)
    notice = Notice(1, Kind.FAILED, "home", 5.0, message=1, queue_id="q", sender=b"a@example.org", concerned=(one,))
    original = "Subject: ü\r\nTo: é\r\n\r\nbody\r\n".encode()
    report = compose(notice, original=original, now=5.0, message_id=b"<x@y>", boundary=b"zzzz")
    assert (
        b"Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"Subject: =C3=BC\r\nTo: =C3=A9\r\n\r\n--zzzz--\r\n"
    ) in report


@pytest.mark.parametrize(
    ("domain", "converted"),
    [
        ("bücher.example", b"xn--bcher-kva.example"),
        ("BÜCHER.Example", b"xn--bcher-kva.Example"),
        ("ｅxample.org", b"example.org"),
        ("straße.de", b"xn--strae-oqa.de"),
        ("ΣΑΣ.gr", b"xn--mxa9ab.gr"),
        ("a" * 63 + ".de", b"a" * 63 + b".de"),
        ("a" * 64 + ".de", None),
        (".".join(["a" * 61] * 4) + ".bbbbbbb", ".".join(["a" * 61] * 4).encode() + b".bbbbbbb"),
        (".".join(["a" * 61] * 4) + ".bbbbbbbb", None),
    ],
)
def test_a_domain_is_written_in_a_labels(domain: str, converted: bytes | None) -> None:
    assert domain_in_a_labels(domain.encode()) == converted
    address = None if converted is None else b"a@" + converted
    assert with_a_labels(b"a@" + domain.encode()) == address
    assert with_a_labels("ü@".encode() + domain.encode()) is None
    assert with_a_labels(domain.encode()) is None


@pytest.mark.parametrize(
    ("pattern", "senders"),
    [
        ("*", {"", "a@x.y", "root"}),
        ("*@x.y", {"a@x.y"}),
        ("*@*.y", {"a@x.y"}),
        ("A@X.Y", {"a@x.y"}),
        ("*@*.x.y", set()),
        ("b@x.y", set()),
    ],
)
def test_each_form_of_a_pattern_matches_its_senders(pattern: str, senders: set[str]) -> None:
    assert is_pattern(pattern)
    one = Relayhost(name="home", ssh="s", ssh_config=Path("/x"), senders=(pattern,))
    for sender in ("", "a@x.y", "A@x.Y.", "root"):
        expected = "home" if sender.lower().rstrip(".") in senders else None
        assert choose(sender.encode(), [one]) == expected


def test_the_most_specific_pattern_wins_and_of_equal_ones_the_first() -> None:
    forms = ("*", "*@*.y.z", "*@*.x.y.z", "*@x.y.z", "a@x.y.z")
    for count in range(len(forms)):
        patterns = forms[: count + 1]
        routes = [Relayhost(name=pattern, ssh="s", ssh_config=Path("/x"), senders=(pattern,)) for pattern in patterns]
        sender = b"a@w.x.y.z" if count in (1, 2) else b"a@x.y.z"
        assert choose(sender, routes) == choose(sender, routes[::-1]) == patterns[-1]
        again = Relayhost(name="again", ssh="s", ssh_config=Path("/x"), senders=(patterns[-1],))
        assert choose(sender, [*routes, again]) == patterns[-1]
    assert not is_pattern("user@*.domain")


def test_a_full_spool_says_so_and_how_much_is_left() -> None:
    full = SpoolFull("the disk is full", 5)
    assert (str(full), full.left) == ("the disk is full", 5)
    assert SpoolFull("x").left is None


def test_the_line_about_an_accepted_message_names_what_there_is() -> None:
    later = SendTime(0.0, by_clock=True)
    arrival = arrive(ENVELOPE, b"\r\n", queue_id="q", token="t", relayhost="home", now=5.0)
    plain = f"q from=<a@example.org> size={arrival.size} nrcpt=1 relay=home status=accepted"
    assert accepted(arrival) == accepted(arrival, "") == plain
    assert accepted(arrival, "me\x1b") == f"{plain} account=me\\x1b"
    waiting = dataclasses.replace(arrival, envelope=dataclasses.replace(ENVELOPE, send_time=later))
    assert accepted(waiting) == f"{plain} (waits until {later.text})"


def test_the_name_of_a_damaged_recipient_is_not_completed() -> None:
    damaged = Recipient(b"root", b"NEVER", b"x", is_damaged=True)
    envelope = Envelope(b"me", (damaged, Recipient(b"root", b"NEVER", b"x")))
    found = completed(envelope, Completion(domain=b"x.org"))
    assert found.sender == b"me@x.org"
    assert found.recipients == (damaged, Recipient(b"root@x.org", b"NEVER", b"x"))
    assert completed(Envelope(b"", (damaged,)), Completion()) == Envelope(b"", (damaged,))
    assert (Recipient(b"a"), envelope.is_damaged) == (Recipient(b"a", b"", b"", False), False)


@pytest.mark.parametrize("stage", list(Stage))
def test_what_an_outcome_concerns_follows_from_its_stage_and_cause(stage: Stage) -> None:
    before_mail = stage in ("dial", "host key", "auth", "channel", "greeting", "EHLO")
    at_rcpt = stage is Stage.RCPT
    reply = Outcome(stage, Reply(550, (b"no",)))
    assert reply.scope == ("relayhost" if before_mail else "recipient" if at_rcpt else "message")
    lost = Outcome(stage, cause=Cause.LOST, text="x")
    assert lost.scope == ("relayhost" if before_mail else "message")
    for cause in (Cause.UNREADABLE, Cause.NO_SMTPUTF8):
        assert Outcome(stage, cause=cause, text="x").scope == ("recipient" if at_rcpt else "message")
    for cause in (Cause.TURNED_AWAY, Cause.HELO_REFUSED, Cause.LOGIN_WANTED, Cause.TLS_WANTED):
        assert Outcome(stage, Reply(550), cause).scope == "relayhost"
    for cause in (Cause.CLIENT_REFUSED, Cause.COMMAND_REFUSED):
        assert Outcome(stage, Reply(550), cause).scope == "relayhost"
    assert (lost.ends_conversation, reply.ends_conversation, reply.is_421) == (True, False, False)
    assert Outcome(stage, cause=Cause.UNREADABLE, text="x").ends_conversation is False


def test_a_header_of_a_report_is_folded_with_crlf() -> None:
    one = Concerned(b"b" * 60 + b"@example.net", "bounced", "5.1.1", b"no", "RCPT", True)
    notice = Notice(
        1,
        Kind.FAILED,
        "home",
        5.0,
        message=1,
        queue_id="q",
        sender=b"a@example.org",
        subject="ü" * 60,
        concerned=(one,),
    )
    report = compose(notice, original=b"", now=5.0, message_id=b"<x@y>", boundary=b"zzzz")
    head = report.partition(b"\r\n\r\n")[0]
    assert head.count(b"\n") == head.count(b"\r\n")
    assert head.count(b"\r\n =?utf-8?") >= 2


@dataclasses.dataclass
class Notify:
    """The settings of the backends."""

    desktop: bool = False
    dsn: bool = False
    mailbox: object | None = None
    command: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("settings", "backend"),
    [
        (Notify(desktop=True), Backend.DESKTOP),
        (Notify(dsn=True), Backend.DSN),
        (Notify(mailbox="x"), Backend.MAILBOX),
        (Notify(command=("x",)), Backend.COMMAND),
        (Notify(urls=("x",)), Backend.URLS),
    ],
)
@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("notify", [b"", b"NEVER", b"success", b"FAILURE,DELAY", b"DELAY"])
def test_each_kind_of_notice_goes_to_the_backends_that_are_enabled(
    settings: Notify, backend: Backend, kind: Kind, notify: bytes
) -> None:
    wanted = {Kind.FAILED: notify in (b"", b"FAILURE,DELAY"), Kind.RELAYED: notify == b"success"}.get(kind, False)
    is_sent = wanted if backend is Backend.DSN else kind is not Kind.RELAYED
    backends_for = backends_of(settings)
    assert backends_for(kind, b"a@b", notify) == ((backend,) if is_sent else ())
    assert backends_for(kind, b"", notify) == (() if backend is Backend.DSN or kind is Kind.RELAYED else (backend,))
    assert backends_of(Notify())(kind, b"a@b", notify) == ()
