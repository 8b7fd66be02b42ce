"""What an answer of the relayhost means for recipients that are followed."""

from dataclasses import replace
from email.utils import formatdate

import pytest
from harness.tracking_samples import sample

from mailrelay.mail.there import Source, There, Verdict
from mailrelay.tracking.conclusion import Known, conclude, known_of, learn, parse, reports_come_to
from mailrelay.tracking.followed import Followed, Found
from mailrelay.tracking.question import Answer, Output, Place
from mailrelay.tracking.queue_id import Server

ID = "4fXyZ12345"
ACCEPTED = 1_000.0
ONE = Followed(
    1, 7, "abcdefgh", b"a@b.example", b"me@mx.example", b"", b"250 2.0.0 Ok: queued as " + ID.encode(), ACCEPTED,
    Verdict(There.WAITING),
)  # fmt: skip
TWO = replace(ONE, recipient=2, address=b"c@d.example")
EMPTY = Output(b"", 0)
ANSWER = Answer(Server.POSTFIX, EMPTY, None, b"", None, "me", Place())


def listing(*recipients: str, reason: str = "") -> Output:
    why = f', "delay_reason": "{reason}"' if reason else ""
    listed = ", ".join(f'{{"address": "{one}"{why}}}' for one in recipients)
    line = (
        f'{{"queue_name": "deferred", "queue_id": "{ID}", "arrival_time": 900, "message_size": 300,'
        f' "forced_expire": false, "sender": "me@mx.example", "recipients": [{listed}]}}\n'
    )
    return Output(line.encode(), 0)


def log(to: str, status: str, words: str) -> bytes:
    return (
        f"Nov 28 12:00:00 mx postfix/smtp[12]: {ID}: to=<{to}>, relay=next.example[192.0.2.1]:25, delay=0.1,"
        f" delays=0/0/0/0.1, dsn=2.0.0, status={status} ({words})\n"
    ).encode()


def step(
    known: Known, answer: Answer, *recipients: Followed, now: float, is_reported_here: bool = True
) -> tuple[Known, list[Found]]:
    parsed = parse(answer, [known])
    return conclude(recipients, learn(known, parsed), parsed, is_reported_here=is_reported_here, now=now)


def states(found: list[Found]) -> list[tuple[There, Source, bool]]:
    return [(one.verdict.state, one.verdict.source, one.is_over) for one in found]


KNOWN = known_of(ONE, b"", b"")


def test_the_queue_id_comes_from_the_reply() -> None:
    assert KNOWN.queue_ids == (ID,)
    assert known_of(replace(ONE, reply=b"250 ok"), b"", b"x@y.example").marks == ["x@y.example"]


def test_an_old_report_counts_but_for_a_message_that_replaces_another() -> None:
    """The clock there is an hour ahead. The report came 17 seconds before the 250."""
    came = int(ACCEPTED + 3600 - 17)
    report = sample("postfix.report").replace(b"Sat, 28 Nov 2026 10:50:22 +0000", formatdate(came).encode())
    answer = replace(ANSWER, reports=report, seconds_ahead=3600.0)
    one = replace(ONE, address=b"bad1@far.example")
    for is_successor, state in ((False, There.BOUNCED), (True, There.WAITING)):
        known = known_of(replace(one, is_successor=is_successor), b"", b"m3.A@laptop.example")
        assert parse(answer, [known]).about == ({known.name} if not is_successor else set())
        _, found = step(known, answer, one, now=ACCEPTED + 2)
        assert [each.verdict.state for each in found] == [state]


def test_deferred_then_gone_then_left() -> None:
    answer = replace(ANSWER, listing=listing("a@b.example", reason="450 4.7.1 Greylisted"))
    known, found = step(KNOWN, answer, ONE, now=1_010.0)
    assert found == [Found(1, Verdict(There.DEFERRED, Source.QUEUE, b"450 4.7.1 Greylisted", since=900.0))]
    deferred = replace(ONE, verdict=found[0].verdict)
    known, found = step(known, ANSWER, deferred, now=1_020.0)
    assert found == [Found(1, deferred.verdict)], "the next question must confirm it"
    known, found = step(known, ANSWER, deferred, now=1_026.0)
    assert states(found) == [(There.LEFT, Source.QUEUE, False)]
    assert found[0].verdict.since == 1_020.0


def test_without_reports_to_the_account_it_has_only_left() -> None:
    known, _ = step(KNOWN, ANSWER, ONE, now=1_010.0)
    _, found = step(known, ANSWER, ONE, now=1_020.0, is_reported_here=False)
    assert states(found) == [(There.LEFT_UNWATCHED, Source.QUEUE, True)]


def test_one_recipient_waits_and_the_other_has_left() -> None:
    answer = replace(ANSWER, listing=listing("a@b.example", reason="later"))
    known, _ = step(KNOWN, answer, ONE, TWO, now=1_010.0)
    _, found = step(known, answer, ONE, TWO, now=1_020.0)
    assert [one.verdict.state for one in found] == [There.DEFERRED, There.LEFT]


def test_a_recipient_waits_while_its_message_is_listed_with_the_members_of_an_alias_or_with_nobody() -> None:
    """Other recipients of ours in the listing show that it lists ours, and not members alone."""
    for listed, waits in (
        (("member@b.example",), True),
        ((), True),
        (("c@d.example", "member@b.example"), True),
        (("c@d.example",), False),
    ):
        answer = replace(ANSWER, listing=listing(*listed))
        known, _ = step(KNOWN, answer, ONE, TWO, now=1_010.0)
        _, found = step(known, answer, ONE, TWO, now=1_020.0)
        assert found[0].verdict.state is (There.WAITING if waits else There.LEFT), listed


def test_a_report_may_be_two_seconds_older_than_a_message_that_replaces_another() -> None:
    """The times here and there are whole seconds."""
    known = known_of(replace(ONE, is_successor=True), b"", b"m3.A@laptop.example")
    for before, counts in ((2, True), (3, False)):
        came = formatdate(int(ACCEPTED) + 3600 - before).encode()
        report = sample("postfix.report").replace(b"Sat, 28 Nov 2026 10:50:22 +0000", came)
        parsed = parse(replace(ANSWER, reports=report, seconds_ahead=3600.0), [known])
        assert parsed.about == ({known.name} if counts else set())


def test_the_last_line_about_each_address_is_kept_in_the_order_of_the_log() -> None:
    lines = [log(to, "deferred", words) for to, words in (("a@b.example", "1"), ("c@d.example", "2"))]
    known = learn(KNOWN, parse(replace(ANSWER, log=b"".join(lines)), [KNOWN]))
    known = learn(known, parse(replace(ANSWER, log=log("a@b.example", "deferred", "3")), [known]))
    assert [(one.recipient, one.words) for one in known.log] == [(b"c@d.example", b"2"), (b"a@b.example", b"3")]


def test_the_log_of_an_earlier_answer_counts() -> None:
    answer = replace(ANSWER, log=log("a@b.example", "sent", "250 2.0.0 OK 77 - gsmtp"))
    known, found = step(KNOWN, answer, ONE, now=1_010.0)
    assert states(found) == [(There.DELIVERED, Source.LOG, False)]
    assert found[0].verdict.by == b"next.example[192.0.2.1]:25"
    _, again = step(known, replace(ANSWER, log=b""), replace(ONE, verdict=found[0].verdict), now=1_020.0)
    assert again == found


def test_what_was_delivered_is_not_called_left_after_a_restart() -> None:
    delivered = replace(ONE, verdict=Verdict(There.DELIVERED, Source.LOG, b"250 ok", since=1_005.0))
    known, _ = step(KNOWN, ANSWER, delivered, now=1_010.0)
    _, found = step(known, ANSWER, delivered, now=1_020.0)
    assert found == [Found(1, delivered.verdict)]


def test_a_bounce_in_the_log_ends_it() -> None:
    answer = replace(ANSWER, log=log("a@b.example", "bounced", "550 5.1.1 no such user"))
    _, found = step(KNOWN, answer, ONE, now=1_010.0)
    assert states(found) == [(There.BOUNCED, Source.LOG, True)]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (Output(b"You are not permitted to see the queue\n", 0), b"may not see the queue"),
        (
            Output(b"postqueue: fatal: User me(1001) is not allowed to view the mail queue\n", 69),
            b"may not see the queue",
        ),
        (Output(b"\x00\x01", 1), b"cannot be read"),
        (None, b"no queue that this account can list"),
    ],
)
def test_nothing_to_see_is_not_followed(output: Output | None, words: bytes) -> None:
    server = Server.SENDMAIL if output and b"permitted" in output.octets else Server.POSTFIX
    _, found = step(KNOWN, replace(ANSWER, server=server, listing=output), ONE, now=1_010.0)
    assert found[0].verdict.state is There.NOT_FOLLOWED
    assert words in found[0].verdict.words
    assert not found[0].is_over


def test_the_queue_of_another_mail_server_shows_nothing() -> None:
    exim = replace(ONE, reply=b"250 OK id=1sXyZa-000ABC-12")
    known = known_of(exim, b"", b"")
    _, found = step(known, ANSWER, exim, now=1_010.0)
    assert found[0].verdict.state is There.NOT_FOLLOWED
    assert b"is not that of the mail server" in found[0].verdict.words


def test_without_a_queue_id_only_a_report_shows_something() -> None:
    nameless = replace(ONE, reply=b"250 ok")
    known = known_of(nameless, b"", b"m1@laptop.example")
    _, found = step(known, replace(ANSWER, listing=None), nameless, now=1_010.0)
    assert states(found) == [(There.NOT_FOLLOWED, Source.NONE, False)]
    assert b"names no queue id" in found[0].verdict.words


def test_a_time_that_the_clock_there_gives_does_not_move() -> None:
    answer = replace(ANSWER, listing=listing("a@b.example", reason="later"), seconds_ahead=0.3)
    known, found = step(KNOWN, answer, ONE, now=1_010.0)
    before = replace(ONE, verdict=found[0].verdict)
    _, again = step(known, replace(answer, seconds_ahead=0.7), before, now=1_020.0)
    assert again == found


def test_after_five_days_nobody_asks_any_more() -> None:
    _, found = step(KNOWN, replace(ANSWER, listing=listing("a@b.example")), ONE, now=ACCEPTED + 5 * 86_400 + 1)
    assert states(found) == [(There.WAITING, Source.QUEUE, True)]


@pytest.mark.parametrize(
    ("sender", "is_here"),
    [
        (b"me@mx.example.org", True),
        (b"Me+list@example.org", True),
        (b"me@other.example", False),
        (b"you@mx.example.org", False),
        (b"", False),
        (b"me", False),
        (b"me@ple.org", False),
    ],
)
def test_reports_come_to_the_account_at_the_name_of_the_host_or_above(sender: bytes, is_here: bool) -> None:
    assert reports_come_to(sender, "me", [b"", b"MX.example.org"]) is is_here
