"""The log lines about a message."""

from dataclasses import replace

from mailrelay.mail.conclusion import accepted_before
from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.handed_in import not_an_address
from mailrelay.mail.lifecycle import State
from mailrelay.mail.logline import (
    accepted,
    broken_off,
    followed_there,
    not_tried,
    probe_refused,
    recipient_status,
    rejected,
    round_goes_on,
)
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.mail.printable import printable
from mailrelay.mail.record import Arrival, Record, Settled, Staged
from mailrelay.mail.send_time import SendTime
from mailrelay.mail.there import Source, There, Verdict


def test_the_status_is_a_field_and_each_code_of_the_reply_is_read_once() -> None:
    envelope = Envelope(b"me@example.org", (Recipient(b"bob@example.net"),))
    message = Message(1, "aaaa000001", "default", envelope, (7,), 100, 10.0, 0)
    reply = Reply(550, (b"5.1.1 No such user. Please", b"5.1.1 check the address"))
    one = Settled(7, State.BOUNCED, Outcome(Stage.RCPT, reply), uncertain=False)
    record = Record(1, 12.0, (one,), None, (), dialled=0.5, transaction=0.25)
    assert recipient_status(message, record, one) == (
        "aaaa000001 to=<bob@example.net> relay=default delay=2 delays=1.2/0.5/0.25 dsn=5.1.1 status=bounced"
        " (550 5.1.1 No such user. Please check the address)"
    )


def test_the_line_of_a_recipient_that_a_record_calls_sent_has_the_form_of_the_others() -> None:
    envelope = Envelope(b"me@example.org", (Recipient(b"bob@example.net"),))
    message = Message(1, "aaaa000001", "default", envelope, (7,), 100, 10.0, 0)
    reply = Reply(250, (b"2.0.0 Ok: queued as 4ABC",))
    record = accepted_before(
        message,
        (7,),
        reply,
        lambda *_: (),
        relays_dsn=False,
        now=72.0,
        next_attempt=None,
        dialled=0.5,
        transaction=0.25,
        is_followed=False,
    )
    assert recipient_status(message, record, record.settled[0], is_read_later=True) == (
        "aaaa000001 to=<bob@example.net> relay=default delay=62 delays=61/0.5/0.25 dsn=2.0.0 status=sent"
        " (250 2.0.0 Ok: queued as 4ABC; read from the record of the conversation)"
    )


def test_the_line_of_a_recipient_that_is_followed_names_what_was_seen_and_where() -> None:
    bounced = Verdict(There.BOUNCED, Source.REPORT, b"550 5.1.1 unknown", b"mx.example.net")
    assert followed_there("aaaa000001", b"bob@example.net", "default", bounced) == (
        "aaaa000001 to=<bob@example.net> relay=default there=bounced source=report by=mx.example.net (550 5.1.1 unknown)"
    )
    left = Verdict(There.LEFT_UNWATCHED)
    assert followed_there("aaaa000001", b"bob@example.net", "default", left).startswith(
        "aaaa000001 to=<bob@example.net> relay=default there=left-unwatched source=none ("
    )


BOTH = (Recipient(b"bob@example.net"), Recipient(b"b\x1b@example.net"))
ARRIVAL = Arrival("aaaa000001", Envelope(b"m\x1be@example.org", BOTH), b"12345", "default", 10.0, "hello")


def test_the_line_of_a_message_that_was_accepted_has_its_whole_size_and_who_submitted_it() -> None:
    start = "aaaa000001 from=<m\\x1be@example.org> size="
    assert accepted(ARRIVAL) == f"{start}5 nrcpt=2 relay=default status=accepted"
    large = replace(ARRIVAL, staged=Staged(1, 2, 1000))
    assert accepted(large, "al\x1bice") == f"{start}1005 nrcpt=2 relay=default status=accepted account=al\\x1bice"


def test_the_line_of_a_message_with_a_send_time_says_until_when_it_waits() -> None:
    at = SendTime(1_795_874_400.0, by_clock=True)
    line = accepted(replace(ARRIVAL, envelope=replace(ARRIVAL.envelope, send_time=at)))
    assert line == f"{accepted(ARRIVAL)} (waits until {at.text})"


def test_the_line_of_a_recipient_that_is_never_tried_says_why() -> None:
    problem = not_an_address("it is n\x1bone")
    assert not_tried(ARRIVAL, b"bad\x1b@@", problem) == (
        f"aaaa000001 to=<bad\\x1b@@> relay=default delay=0 delays=0/0/0 dsn={problem.status} status={problem.state}"
        f" ({printable(problem.text)})"
    )


def test_the_line_of_a_probe_that_was_refused_has_the_reply_of_the_mail_server() -> None:
    refusal = Outcome(Stage.RCPT, Reply(550, (b"5.1.1 no such \x1buser",)))
    start = "NOQUEUE from=<m\\x1be@example.org> to=<bob@example.net> relay=default"
    line = probe_refused(ARRIVAL.envelope, "default", refusal)
    assert line == f"{start} dsn=5.1.1 status=refused (550 5.1.1 no such \\x1buser)"
    lost = Outcome(Stage.RCPT, cause=Cause.LOST, text="it was cut")
    assert probe_refused(ARRIVAL.envelope, "default", lost) == f"{start} dsn= status=refused (it was cut)"


def test_the_line_of_a_refusal_of_our_own_names_the_command_and_the_sender_where_there_is_one() -> None:
    reply = Reply(501, (b"5.5.4 no \x1b",))
    end = "dsn=5.5.4 status=refused (501 5.5.4 no \\x1b)"
    assert rejected("MAIL", reply, None) == f"NOQUEUE command=MAIL {end}"
    assert rejected("RCPT", reply, b"\x1b@a") == f"NOQUEUE from=<\\x1b@a> command=RCPT {end}"
    assert rejected("content", reply, b"") == f"NOQUEUE from=<> command=content {end}"


def test_the_line_of_a_content_that_was_broken_off_says_how_much_had_come() -> None:
    assert broken_off(b"\x1b@a", 512, "the client closed") == (
        "NOQUEUE from=<\\x1b@a> command=content status=broken-off (the client closed; 512 octets had come)"
    )


def test_the_line_of_recipients_that_go_in_another_transaction_counts_them() -> None:
    message = Message(1, "aaaa000001", "default", ARRIVAL.envelope, (7, 8), 100, 10.0, 0, later=3)
    one = Settled(7, State.SENT, Outcome(Stage.CONTENT, Reply(250, (b"ok",))), uncertain=False)
    assert round_goes_on(message, Record(1, 12.0, (one,), None, (), dialled=0.5, transaction=0.25)) == (
        "aaaa000001 nrcpt=4 relay=default status=goes-on (the mail server takes no more recipients in one transaction)"
    )
