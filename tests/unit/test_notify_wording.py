"""The texts of notices say what happened and what to do, and text from outside is escaped."""

import dataclasses
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrelay.mail.notice import Concerned, Kind, Notice
from mailrelay.mail.there import Source, There, Verdict
from mailrelay.mail.wording import body, meaning, record, report_text, summary, title

BOB = Concerned(b"bob@example.net", "bounced", "5.1.1", b"550 5.1.1 no such user", "RCPT", True)
ANN = Concerned(b"ann@example.net", "expired", "4.4.1", b"no answer", "dial", False)
REFUSED = Notice(
    id=1,
    kind=Kind.FAILED,
    relayhost="default",
    created=1.7e9,
    message=1,
    queue_id="3KQ7Z",
    sender=b"me@example.org",
    subject="Dinner",
    arrival=1.7e9,
    concerned=(BOB,),
)
SETUP = Notice(id=2, kind=Kind.SETUP, relayhost="home", created=1.7e9, text="The key was refused.", fix="ssh-add")


@pytest.mark.parametrize(
    ("notice", "said"),
    [
        (REFUSED, "Mail to bob@example.net was refused"),
        (dataclasses.replace(REFUSED, concerned=(ANN,)), "Mail to ann@example.net could not be delivered in time"),
        (
            dataclasses.replace(REFUSED, concerned=(BOB, ANN)),
            "Mail to bob@example.net and 1 more could not be delivered",
        ),
        (dataclasses.replace(REFUSED, kind=Kind.HELD), "Mail to bob@example.net needs your decision"),
        (dataclasses.replace(REFUSED, kind=Kind.RELAYED), "Mail to bob@example.net was accepted by the mail server"),
        (SETUP, "Mail cannot be sent through home"),
    ],
    ids=["refused", "expired", "both", "held", "relayed", "setup"],
)
def test_the_title_names_the_failure_and_the_recipient(notice: Notice, said: str) -> None:
    assert title(notice) == said


def test_the_body_gives_the_reply_the_subject_and_the_next_step() -> None:
    assert body(REFUSED).split("\n") == [
        "The mail server said: 550 5.1.1 no such user",
        "Subject: Dinner",
        "See: mailrelay queue show 3KQ7Z",
    ]


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("5.1.1", "The mailbox does not exist. Check the spelling of the address."),
        ("4.1.1", "The mailbox does not exist. Check the spelling of the address."),
        ("5.1.10", "This domain accepts no mail."),
        ("5.0.0", ""),
        ("", ""),
    ],
)
def test_what_a_status_code_means_is_said_where_the_person_can_do_something(status: str, sentence: str) -> None:
    assert meaning(status) == sentence


def test_a_code_that_each_line_of_a_reply_repeats_is_read_once() -> None:
    lines = dataclasses.replace(BOB, description=b"550 5.1.1 no such user, 5.1.1 check the address")
    notice = dataclasses.replace(REFUSED, concerned=(lines,))
    read = "The mail server said: 550 5.1.1 no such user, check the address"
    assert read in body(notice)
    assert read in report_text(notice)
    assert "5.1.1 check the address" in json.dumps(record(notice))


@pytest.mark.parametrize(("zone", "since"), [("UTC", "22:13 +0000"), ("XXX-9", "07:13 +0900"), ("XXX8", "14:13 -0800")])
def test_a_time_of_day_names_its_zone(monkeypatch: pytest.MonkeyPatch, zone: str, since: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        delay = dataclasses.replace(SETUP, kind=Kind.DELAYED, since=1.7e9, waiting=2)
        assert title(delay) == f"2 messages have been waiting since {since}"
    finally:
        monkeypatch.undo()
        time.tzset()


MEANT = dataclasses.replace(BOB, likely=b"bob@example.org")


def test_an_address_that_may_have_been_meant_is_named_with_the_command_that_sends_the_message_there() -> None:
    notice = dataclasses.replace(REFUSED, concerned=(MEANT,))
    question, command = "Did you mean bob@example.org?", "mailrelay queue resend 3KQ7Z --to bob@example.org"
    assert f"\n{question} {command}\n" in body(notice)
    assert f"\n\n{question}\n\n  {command}\n\n" in report_text(notice)
    (recipient,) = json.loads(json.dumps(record(notice)))["recipients"]
    assert recipient["did_you_mean"] == "bob@example.org"


def test_with_several_failed_recipients_the_suggested_command_does_not_readdress_all_of_them() -> None:
    notice = dataclasses.replace(REFUSED, concerned=(MEANT, ANN))
    for said in (body(notice), report_text(notice)):
        assert "Did you mean bob@example.org?" in said
        assert "--to bob@example.org" not in said
        assert "mailrelay queue edit 3KQ7Z" in said


@pytest.mark.parametrize(
    "address", [b"x\xff@example.org", "b\u202eob@example.org".encode(), b"a" * 101 + b"@example.org", b""]
)
def test_what_cannot_be_shown_as_it_is_is_not_suggested(address: bytes) -> None:
    notice = dataclasses.replace(REFUSED, concerned=(dataclasses.replace(BOB, likely=address),))
    assert "Did you mean" not in body(notice) + report_text(notice)


def test_a_suggested_command_runs_nothing_else_in_a_shell() -> None:
    notice = dataclasses.replace(REFUSED, concerned=(dataclasses.replace(BOB, likely=b"`id`@example.org"),))
    assert "--to '`id`@example.org'" in body(notice)


def test_a_failure_names_the_commands_that_fix_it() -> None:
    for command in ("resend 3KQ7Z --to ADDRESS", "edit 3KQ7Z", "show 3KQ7Z", "drop 3KQ7Z"):
        assert f"\n  mailrelay queue {command}  " in report_text(REFUSED)


def test_a_reason_of_ours_is_not_shown_as_a_reply_of_the_mail_server() -> None:
    assert body(dataclasses.replace(REFUSED, concerned=(ANN,))).startswith("no answer\n")


def test_a_notice_says_if_the_message_may_have_arrived() -> None:
    uncertain = dataclasses.replace(REFUSED, concerned=(dataclasses.replace(ANN, uncertain=True),))
    assert "may have arrived" in body(uncertain)
    assert "may have arrived" in report_text(uncertain)


def test_a_setup_fault_says_what_to_do() -> None:
    assert (
        body(SETUP) == "The key was refused.\nssh-add\nTo send at once after it is fixed: mailrelay queue retry --all"
    )
    assert "What to do:\n\n  ssh-add" in report_text(SETUP)


def test_a_summary_counts_what_it_does_not_list() -> None:
    headline, text = summary([REFUSED, SETUP, *[REFUSED] * 8])
    assert headline == "10 notices about your mail"
    assert "and 7 more" in text
    assert "mailrelay queue" in text


def test_the_record_has_the_names_of_the_queue_listing() -> None:
    said = json.loads(json.dumps(record(REFUSED)))
    assert {"queue_id", "sender", "arrival_time", "message_size", "relayhost", "subject"} <= said.keys()
    assert said["recipients"] == [
        {
            "address": "bob@example.net",
            "state": "bounced",
            "status": "5.1.1",
            "reply": "550 5.1.1 no such user",
            "stage": "RCPT",
            "remote": True,
            "uncertain": False,
            "there": None,
            "did_you_mean": "",
        }
    ]


RAW = st.one_of(st.binary(max_size=60), st.sampled_from([b"\x1b]0;x\x07", "\u202e".encode(), b"x" * 5000]))
TEXT = st.one_of(st.text(st.characters(), max_size=60), st.sampled_from(["\x1b[2J", "\u2066a\r\nb", "x" * 5000]))


@given(RAW, RAW, TEXT, TEXT, st.sampled_from(Kind))
@settings(deadline=None)
def test_text_from_outside_is_escaped_in_a_notice(
    address: bytes, words: bytes, subject: str, text: str, kind: Kind
) -> None:
    one = dataclasses.replace(BOB, address=address, description=words, likely=address)
    notice = dataclasses.replace(
        REFUSED, kind=kind, subject=subject, text=text, fix=text, queue_id=text, relayhost=text, concerned=(one,) * 4
    )
    for said in (title(notice), body(notice), report_text(notice), *summary([notice] * 4)):
        assert not [char for char in said if (ord(char) < 32 and char != "\n") or 127 <= ord(char) < 160]
        assert not [char for char in said if char in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"]
    assert len(title(notice)) < 200
    if len(text.splitlines()) < 2:
        assert len(body(notice)) < 1800
    assert "\\u001b" not in json.dumps(record(notice))


BARE = Concerned(
    b"bob@example.net", "bounced", "5.0.0", b"501 <root>: sender address must contain a domain", "MAIL", True
)


def test_after_a_refused_sender_another_sender_is_offered_and_no_other_recipient() -> None:
    notice = dataclasses.replace(REFUSED, concerned=(BARE,))
    assert "mailrelay queue resend 3KQ7Z --from ADDRESS" in body(notice)
    text = report_text(notice)
    assert "mailrelay queue resend 3KQ7Z --from ADDRESS" in text
    assert "--to" not in text + body(notice)
    for held in (dataclasses.replace(BARE, remote=False), BOB, ANN):
        assert "--from" not in body(dataclasses.replace(REFUSED, concerned=(held,)))


RETURNED = Verdict(There.BOUNCED, Source.REPORT, b"550 5.1.1 no such user", b"mx.example.net")
THERE = dataclasses.replace(
    REFUSED,
    concerned=(
        Concerned(
            b"bob@example.net", "sent", "2.0.0", b"250 ok", "content", True, accepted=1.7e9 - 600, there=RETURNED
        ),
    ),
)


def test_a_bounce_on_the_relayhost_names_its_source_and_what_was_said_and_the_commands_that_fix_it() -> None:
    assert title(THERE) == "Mail to bob@example.net bounced on default, which had accepted it"
    first, *_ = lines = body(THERE).split("\n")
    assert first.startswith("Accepted by default at ")
    assert first.endswith(
        "then bounced there. A report in your mailbox there says: 550 5.1.1 no such user (from mx.example.net)"
    )
    assert "To send it again: mailrelay queue resend 3KQ7Z --to ADDRESS, or mailrelay queue edit 3KQ7Z" in lines
    assert "To dismiss it: mailrelay queue cancel 3KQ7Z" in lines
    text = report_text(THERE)
    assert "A report in your mailbox there says: 550 5.1.1 no such user" in " ".join(text.split())
    assert "The mailbox does not exist." in text
    for command in ("resend 3KQ7Z --to ADDRESS", "edit 3KQ7Z", "show 3KQ7Z", "cancel 3KQ7Z"):
        assert f"\n  mailrelay queue {command}  " in text
    assert json.loads(json.dumps(record(THERE)))["recipients"][0]["there"] == {
        "state": "bounced",
        "words": "550 5.1.1 no such user",
        "source": "report",
        "since": None,
        "by": "mx.example.net",
    }


def test_what_is_no_longer_kept_is_not_offered_to_be_sent_again() -> None:
    gone = dataclasses.replace(THERE, is_kept=False)
    for said in (body(gone), report_text(gone)):
        assert "no longer kept" in " ".join(said.split())
        assert "resend" not in said


@given(RAW, RAW, st.sampled_from(Source), st.booleans())
@settings(deadline=None)
def test_words_from_the_relayhost_are_escaped(words: bytes, by: bytes, source: Source, is_kept: bool) -> None:
    one = dataclasses.replace(THERE.concerned[0], there=Verdict(There.BOUNCED, source, words, by))
    notice = dataclasses.replace(THERE, concerned=(one,) * 4, is_kept=is_kept)
    for said in (title(notice), body(notice), report_text(notice)):
        assert not [char for char in said if (ord(char) < 32 and char != "\n") or 127 <= ord(char) < 160]
        assert not [char for char in said if char in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"]
    assert len(title(notice)) < 200
    assert len(body(notice)) < 1800


def test_a_notice_of_a_fault_names_the_fallback() -> None:
    notice = dataclasses.replace(SETUP, stand_in="second", waiting=0)
    assert body(notice).split("\n") == ["The key was refused.", "ssh-add", "Until then your mail goes through second."]
    assert "stored safely" not in report_text(notice)
    assert report_text(notice).count("goes through second") >= 1
    assert record(notice)["stand_in"] == "second"
    late = dataclasses.replace(notice, kind=Kind.DELAYED, waiting=2)
    assert "Until then your mail goes through second." in body(late)
