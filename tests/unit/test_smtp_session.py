"""What dialogues cannot show: how many round trips a message costs, faults of content, limits and time-outs."""

import pytest

from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Cause, Outcome, Reply, Scope, Stage
from mailrelay.smtp.events import ContentWanted, Ended, Event, Finished, Planned, Ready, Untried
from mailrelay.smtp.flight import MAX_IN_FLIGHT, SMALL, WINDOW_STEP, Trust
from mailrelay.smtp.record import Exchange
from mailrelay.smtp.session import Session
from mailrelay.smtp.transaction import REPLY_TIMEOUTS

ENVELOPE = Envelope(b"a@example.org", (Recipient(b"b@example.net"), Recipient(b"c@example.net")))
PIPELINING = b"250-mx\r\n250 PIPELINING\r\n"
CHUNKING = b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
CONTENT = b"Subject: x\r\n\r\nx\r\n"


def ready(ehlo: bytes, trust: Trust = Trust.PROVEN) -> Session:
    session = Session(b"localhost", trust=trust)
    session.take_output()
    session.receive(b"220 mx\r\n")
    session.take_output()
    session.receive(ehlo)
    return session


def feed(session: Session, events: list[Event], content: bytes = CONTENT) -> list[Event]:
    """Gives the content that `events` want; the events beside and after that."""
    others: list[Event] = []
    for event in events:
        if isinstance(event, ContentWanted):
            session.send_content(content)
            others += session.end_content()
        else:
            others.append(event)
    return [event for event in others if not isinstance(event, Planned)]


class Agreeable:
    """A remote that takes everything."""

    def __init__(self) -> None:
        self.in_data = False

    def replies(self, octets: bytes) -> bytes:
        replies = b""
        while octets:
            line, _, octets = octets.partition(b"\r\n")
            if self.in_data:
                self.in_data = line != b"."
                replies += b"" if self.in_data else b"250 taken\r\n"
            elif line == b"DATA":
                self.in_data = True
                replies += b"354 go on\r\n"
            else:
                if line.startswith(b"BDAT"):
                    octets = octets[int(line.split()[1]) :]
                replies += b"250 ok\r\n"
        return replies


def flights(ehlo: bytes, messages: int, trust: Trust = Trust.PROVEN) -> int:
    """How often something is sent before `messages` messages are finished."""
    session = ready(ehlo, trust)
    remote = Agreeable()
    waiting = list(range(messages))
    finished: list[Event] = []
    count = 0
    while waiting or session.awaiting:
        while waiting and session.capacity:
            finished += feed(session, session.start(waiting.pop(0), ENVELOPE, len(CONTENT)))
        count += 1
        finished += feed(session, session.receive(remote.replies(session.take_output())))
    assert [event.key for event in finished if isinstance(event, Finished)] == list(range(messages))
    return count


@pytest.mark.parametrize(("ehlo", "count"), [(b"250 mx\r\n", 6), (PIPELINING, 3), (CHUNKING, 2)])
def test_a_cold_message_costs_one_flight_more_for_ehlo_and_none_for_the_greeting(ehlo: bytes, count: int) -> None:
    session = Session(b"localhost")
    assert session.take_output() == b""
    session.receive(b"220 mx\r\n")
    assert session.take_output() == b"EHLO localhost\r\n"
    assert 1 + flights(ehlo, 1) == count


def test_a_message_without_pipelining_costs_a_flight_for_each_command() -> None:
    assert flights(b"250 mx\r\n", 1) == 5


def test_a_message_with_pipelining_costs_two_flights() -> None:
    assert flights(PIPELINING, 1) == 2


def test_each_further_message_with_pipelining_costs_one_flight() -> None:
    assert flights(PIPELINING, 10) == 11


def test_only_chunking_lets_messages_be_sent_before_the_reply_to_an_earlier_content() -> None:
    assert Session(b"localhost").max_in_flight == 0, "nothing is sent before the reply to EHLO"
    assert [ready(ehlo).max_in_flight for ehlo in (b"250 mx\r\n", PIPELINING, CHUNKING)] == [1, 1, MAX_IN_FLIGHT]


def test_messages_with_chunking_share_a_flight() -> None:
    assert flights(CHUNKING, 1) == 1
    assert flights(CHUNKING, MAX_IN_FLIGHT) == 1
    assert flights(CHUNKING, 2 * MAX_IN_FLIGHT) == 2


def test_a_mail_server_that_has_judged_no_message_costs_one_flight_more_after_the_first() -> None:
    assert flights(CHUNKING, 1, Trust.UNKNOWN) == 1
    assert flights(CHUNKING, 1 + 1 + WINDOW_STEP, Trust.UNKNOWN) == 2
    assert flights(CHUNKING, 1 + 1 + WINDOW_STEP + MAX_IN_FLIGHT, Trust.UNKNOWN) == 3
    assert flights(PIPELINING, 10, Trust.UNKNOWN) == 11


def test_a_mail_server_that_has_ended_conversations_gets_no_content_before_the_replies_to_rcpt() -> None:
    assert flights(CHUNKING, 1, Trust.DOUBTED) == 2
    assert flights(CHUNKING, 1 + 1 + WINDOW_STEP, Trust.DOUBTED) == 3
    assert flights(PIPELINING, 10, Trust.DOUBTED) == 11


@pytest.mark.parametrize("ehlo", [PIPELINING, CHUNKING])
def test_a_recipient_probe_costs_one_flight_and_the_reset_after_it_none(ehlo: bytes) -> None:
    session = ready(ehlo)
    assert session.start(-1, ENVELOPE, None) == []
    said = session.take_output()
    assert said == b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nRCPT TO:<c@example.net>\r\n"
    assert session.receive(b"250 ok\r\n250 ok\r\n550 5.1.1 nobody\r\n") == [
        Finished(-1, (Outcome(Stage.RCPT, Reply(250, (b"ok",))), Outcome(Stage.RCPT, Reply(550, (b"5.1.1 nobody",)))))
    ]
    assert session.awaiting is None
    feed(session, session.start(1, ENVELOPE, len(CONTENT)))
    assert session.take_output().startswith(b"RSET\r\nMAIL FROM:")


@pytest.mark.parametrize("is_sent", [False, True])
def test_a_probe_that_is_lost_is_untried(is_sent: bool) -> None:
    session = ready(b"250-there\r\n250 PIPELINING\r\n")
    session.start(-1, ENVELOPE, None)
    if is_sent:
        session.take_output()
    assert session.lost("the connection was lost")[0] == Untried(-1)


def test_a_sender_refused_in_a_probe_is_refused_for_every_recipient_and_leaves_no_transaction_open() -> None:
    session = ready(b"250 mx\r\n")
    session.start(-1, ENVELOPE, None)
    assert session.take_output() == b"MAIL FROM:<a@example.org>\r\n"
    refused = Outcome(Stage.MAIL, Reply(550, (b"not you",)))
    assert session.receive(b"550 not you\r\n") == [Finished(-1, (refused, refused))]
    session.start(1, ENVELOPE, len(CONTENT))
    assert session.take_output() == b"MAIL FROM:<a@example.org>\r\n"


def test_large_content_with_chunking_waits_for_the_recipients() -> None:
    content = b"x" * SMALL + b"\r\n"
    session = ready(CHUNKING)
    assert session.start(1, ENVELOPE, len(content)) == [Planned(1, Exchange(2, (0, 1), has_data=False))]
    assert b"BDAT" not in session.take_output()
    assert session.receive(b"250 ok\r\n250 ok\r\n") == []
    assert session.receive(b"250 ok\r\n") == [ContentWanted(1)]
    session.send_content(content)
    said = session.take_output()
    assert said.startswith(b"BDAT %d LAST\r\n" % len(content))
    assert session.awaiting is None
    # With the last octet the remote would have the message, and here it is not known to be whole.
    assert not said.endswith(content)
    assert session.end_content() == []
    assert (said + session.take_output()).endswith(b"LAST\r\n" + content)
    assert session.awaiting is Stage.AFTER_DOT
    taken = Outcome(Stage.CONTENT, Reply(250, (b"taken",)))
    assert session.receive(b"250 taken\r\n") == [Finished(1, (taken, taken))]


def test_large_content_without_an_accepted_recipient_is_not_sent() -> None:
    session = ready(CHUNKING)
    session.start(1, ENVELOPE, SMALL + 1)
    session.take_output()
    events = session.receive(b"250 ok\r\n550 no\r\n550 no\r\n")
    assert [type(event) for event in events] == [Finished]
    assert session.take_output() == b""
    session.start(2, ENVELOPE, SMALL + 1)
    assert session.take_output().startswith(b"RSET\r\nMAIL")


def test_large_content_behind_a_message_in_flight_gets_its_turn() -> None:
    session = ready(CHUNKING)
    feed(session, session.start(1, ENVELOPE, len(CONTENT)))
    session.start(2, ENVELOPE, SMALL + 1)
    session.take_output()
    assert [type(event) for event in session.receive(b"250 ok\r\n" * 4)] == [Finished]
    assert session.receive(b"250 ok\r\n" * 4) == [ContentWanted(2)]


def test_a_bdat_that_was_taken_leaves_nothing_to_reset() -> None:
    session = ready(CHUNKING)
    for key in (1, 2):
        feed(session, session.start(key, ENVELOPE, len(CONTENT)))
        assert session.take_output().startswith(b"MAIL")
        assert [type(event) for event in session.receive(b"250 ok\r\n" * 4)] == [Finished]


@pytest.mark.parametrize(
    ("reply", "goes_on", "untried"),
    [
        (b"421 4.3.2 closing\r\n", True, []),
        (b"530 5.7.0 Authentication required\r\n", True, []),
        (b"555 5.5.4 Unsupported option: SIZE=16\r\n", True, [Untried(1, True)]),
        (b"550 5.1.0 no\r\n", False, []),
        (b"", False, []),
    ],
    ids=["the server ends it", "it refuses us", "it refuses an extension", "it refuses the message", "the wire is cut"],
)
def test_mail_behind_is_delayed_unseen_only_where_nothing_says_why(
    reply: bytes, goes_on: bool, untried: list[Untried]
) -> None:
    session = ready(b"250-mx\r\n250-PIPELINING\r\n250 SIZE\r\n")
    session.start(1, ENVELOPE, len(CONTENT))
    session.take_output()
    assert not session.goes_on
    events = [*session.receive(reply), *session.lost("it was cut")]
    assert session.goes_on is goes_on
    assert [event for event in events if isinstance(event, Untried)] == untried


@pytest.mark.parametrize("ehlo", [PIPELINING, CHUNKING])
def test_the_reply_to_a_content_is_awaited_from_its_last_octet_on(ehlo: bytes) -> None:
    session = ready(ehlo)
    events = session.start(1, ENVELOPE, len(CONTENT))
    if ehlo == PIPELINING:
        session.take_output()
        events = session.receive(b"250 ok\r\n" * 3 + b"354 go on\r\n")
    feed(session, events)
    assert not session.is_content_reply_awaited
    session.take_output()
    assert session.is_content_reply_awaited
    session.receive(b"250 ok\r\n" * (1 if ehlo == PIPELINING else 4))
    assert not session.is_content_reply_awaited


def test_nothing_is_sent_before_the_greeting() -> None:
    session = Session(b"localhost")
    session.quit()
    assert session.take_output() == b""
    assert not session.capacity
    assert session.awaiting is Stage.GREETING


@pytest.mark.parametrize("greeting", [b"250 mx\r\n", b"354 go on\r\n", b"Welcome to mx!\r\n"])
def test_a_greeting_of_something_else_names_the_setting_to_fix(greeting: bytes) -> None:
    (event,) = Session(b"localhost").receive(greeting)
    assert isinstance(event, Ended)
    assert event.outcome.cause is Cause.NOT_SMTP
    assert event.outcome.scope is Scope.RELAYHOST
    assert event.outcome.fix


def test_an_envelope_that_cannot_be_sent_is_finished_at_once_and_others_go_on() -> None:
    session = ready(PIPELINING)
    international = Envelope(b"", (Recipient("\u00f6@example.net".encode()),))
    (event,) = session.start(1, international, 10)
    assert isinstance(event, Finished)
    assert event.outcomes[0].cause is Cause.NO_SMTPUTF8
    assert session.take_output() == b""
    assert session.capacity


@pytest.mark.parametrize("ehlo", [b"250 mx\r\n", PIPELINING, CHUNKING])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_recipient_that_cannot_be_sent_does_not_hold_the_others(ehlo: bytes, at: int) -> None:
    session = ready(ehlo)
    recipients = [Recipient(b"b@example.net"), Recipient(b"c@example.net")]
    recipients.insert(at, Recipient("\u00f6@example.net".encode()))
    server, sent = Agreeable(), b""
    events = feed(session, session.start(1, Envelope(b"a@example.org", tuple(recipients)), len(CONTENT)))
    while output := session.take_output():
        sent += output
        events += feed(session, session.receive(server.replies(output)))
    (finished,) = events
    assert isinstance(finished, Finished)
    found = list(finished.outcomes)
    held = found.pop(at)
    assert (held.cause, held.scope) == (Cause.NO_SMTPUTF8, Scope.RECIPIENT)
    assert {outcome.stage for outcome in found} == {Stage.CONTENT}
    assert sent.count(b"RCPT TO:") == 2
    assert sent.isascii()


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", CONTENT.replace(b"\r\n", b"\n"), b""])
def test_faulty_content_is_never_ended_as_if_it_were_whole(content: bytes) -> None:
    session = ready(PIPELINING)
    session.start(1, ENVELOPE, len(CONTENT))
    session.take_output()
    events = feed(session, session.receive(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n"), content)
    finished, ended = events
    assert isinstance(finished, Finished)
    assert {outcome.cause for outcome in finished.outcomes} == {Cause.UNREADABLE}
    assert isinstance(ended, Ended)
    assert session.take_output() == b""


def test_content_that_cannot_be_read_gets_the_outcome_of_the_caller() -> None:
    unreadable = Outcome(Stage.CONTENT, cause=Cause.UNREADABLE, text="the disk is broken")
    session = ready(CHUNKING)
    session.start(1, ENVELOPE, len(CONTENT))
    session.send_content(CONTENT[:5])
    assert session.end_content(unreadable) == [Finished(1, (unreadable, unreadable))]
    assert session.capacity
    assert session.take_output() == b""


def test_a_refusal_in_the_middle_of_content_counts_and_a_success_there_does_not() -> None:
    for reply, cause in ((b"552 too big\r\n", Cause.REPLY), (b"250 thank you\r\n", Cause.LOST)):
        session = ready(PIPELINING)
        session.start(1, ENVELOPE, len(CONTENT))
        session.take_output()
        session.receive(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n")
        session.send_content(CONTENT[:5])
        finished, ended = session.receive(reply)
        assert isinstance(finished, Finished)
        assert {(outcome.stage, outcome.cause) for outcome in finished.outcomes} == {(Stage.CONTENT, cause)}
        assert isinstance(ended, Ended)
        session.send_content(CONTENT[5:])
        assert session.end_content() == []
        assert session.take_output() == b""


def test_a_refusal_that_came_before_the_end_of_the_content_had_left_counts() -> None:
    session = ready(PIPELINING)
    session.start(1, ENVELOPE, len(CONTENT))
    session.take_output()
    feed(session, session.receive(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n"))
    refused = Outcome(Stage.CONTENT, Reply(552, (b"too big",)))
    assert session.receive(b"552 too big\r\n") == [Finished(1, (refused, refused)), Ended(refused)]


def test_a_success_that_came_before_the_content_had_left_is_not_believed() -> None:
    session = ready(PIPELINING)
    session.start(1, ENVELOPE, len(CONTENT))
    session.take_output()
    feed(session, session.receive(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n"))
    finished, _ = session.receive(b"250 taken\r\n")
    assert isinstance(finished, Finished)
    assert {(outcome.stage, outcome.cause) for outcome in finished.outcomes} == {(Stage.AFTER_DOT, Cause.LOST)}


def test_a_reply_to_nothing_ends_an_idle_conversation_and_no_mail_waits_for_that() -> None:
    session = ready(PIPELINING)
    (event,) = session.receive(b"250 ok\r\n")
    assert isinstance(event, Ended)
    assert event.outcome.scope is Scope.MESSAGE


def test_a_refused_reset_ends_the_conversation_before_the_next_mail_is_judged_by_it() -> None:
    session = ready(PIPELINING)
    session.start(1, ENVELOPE, len(CONTENT))
    session.take_output()
    session.receive(b"250 ok\r\n550 no\r\n550 no\r\n554 nobody\r\n")
    session.start(2, ENVELOPE, len(CONTENT))
    session.take_output()
    untried, ended = session.receive(b"503 no\r\n503 nested MAIL\r\n")
    assert untried == Untried(2)
    assert isinstance(ended, Ended)


@pytest.mark.parametrize(
    ("replies", "stage"),
    [
        (b"250 sender ok\r\n", Stage.RCPT),
        (b"250 sender ok\r\n250 ok\r\n", Stage.AFTER_DOT),
        (b"250 sender ok\r\n550 no\r\n250 ok\r\n", Stage.AFTER_DOT),
    ],
)
def test_content_sent_ahead_may_be_accepted_only_if_a_recipient_was(replies: bytes, stage: Stage) -> None:
    session = ready(CHUNKING)
    feed(session, session.start(1, ENVELOPE, len(CONTENT)))
    session.take_output()
    session.receive(replies)
    [finished, _] = session.lost("the mail server closed the connection", is_closed=True)
    assert isinstance(finished, Finished)
    assert [one.stage for one in finished.outcomes if one.cause is Cause.LOST][-1] is stage


def test_a_message_whose_content_was_not_sent_is_never_in_doubt() -> None:
    session = ready(PIPELINING)
    session.start(1, ENVELOPE, len(CONTENT))
    session.take_output()
    session.receive(b"250 sender ok\r\n")
    [finished, _] = session.lost("the connection was lost")
    assert isinstance(finished, Finished)
    assert [one.stage for one in finished.outcomes] == [Stage.RCPT, Stage.RCPT]


def test_a_message_behind_one_that_is_lost_was_not_tried() -> None:
    session = ready(PIPELINING)
    session.start(1, ENVELOPE, len(CONTENT))
    session.take_output()
    feed(session, session.receive(b"250 ok\r\n250 ok\r\n550 no\r\n354 go on\r\n"))
    session.start(2, ENVELOPE, len(CONTENT))
    session.take_output()
    text = "the line broke"
    after_dot = Outcome(Stage.AFTER_DOT, cause=Cause.LOST, text=text)
    assert session.lost(text) == [
        Finished(1, (after_dot, Outcome(Stage.RCPT, Reply(550, (b"no",)))), is_cut=True),
        Untried(2),
        Ended(after_dot),
    ]
    assert session.lost(text) == []


@pytest.mark.parametrize("chunking", [False, True])
def test_quit_waits_for_the_reply_to_the_content(chunking: bool) -> None:
    session = ready(CHUNKING if chunking else PIPELINING)
    feed(session, session.start(1, ENVELOPE, len(CONTENT)))
    session.quit()
    assert not session.capacity
    said = session.take_output()
    feed(session, session.receive(b"250 ok\r\n250 ok\r\n250 ok\r\n" + (b"" if chunking else b"354 go on\r\n")))
    said += session.take_output()
    assert b"QUIT" not in said
    session.receive(b"250 taken\r\n")
    assert session.take_output() == b"QUIT\r\n"
    assert [type(event) for event in session.receive(b"221 bye\r\n")] == [Ended]


def test_quit_waits_for_the_reply_to_a_lone_dot_and_is_sent_once() -> None:
    session = ready(PIPELINING)
    session.start(1, ENVELOPE, len(CONTENT))
    session.take_output()
    session.receive(b"250 ok\r\n550 no\r\n550 no\r\n354 go on\r\n")
    session.quit()
    assert session.take_output() == b".\r\n"
    session.receive(b"554 nobody\r\n")
    session.quit()
    assert session.take_output() == b"QUIT\r\n"


def test_ehlo_that_fails_for_now_is_not_followed_by_helo() -> None:
    session = Session(b"localhost")
    session.receive(b"220 mx\r\n")
    session.take_output()
    assert session.receive(b"451 later\r\n") == [Ended(Outcome(Stage.EHLO, Reply(451, (b"later",))))]


def test_every_reply_that_can_be_awaited_has_a_time_out_and_idleness_has_none() -> None:
    session = Session(b"localhost")
    seen = []
    for reply in (b"220 mx", b"250 mx", b"", b"250 ok", b"250 ok", b"250 ok", b"354 go on", b"250 taken"):
        if reply:
            seen.append(session.awaiting)
            feed(session, session.receive(reply + b"\r\n"))
        else:
            assert session.awaiting is None
            session.start(1, ENVELOPE, len(CONTENT))
        session.take_output()
    assert seen == [
        Stage.GREETING, Stage.EHLO, Stage.MAIL, Stage.RCPT, Stage.RCPT, Stage.DATA, Stage.AFTER_DOT,
    ]  # fmt: skip
    assert all(stage in REPLY_TIMEOUTS for stage in seen)
    assert session.awaiting is None


def test_calls_of_the_session_out_of_order_are_errors() -> None:
    session = Session(b"localhost")
    with pytest.raises(RuntimeError):
        session.start(1, ENVELOPE, 1)
    with pytest.raises(RuntimeError):
        session.send_content(b"x")
    with pytest.raises(RuntimeError):
        session.end_content()


def test_ready_says_what_is_offered() -> None:
    session = Session(b"localhost")
    session.receive(b"220 mx\r\n")
    session.take_output()
    (event,) = session.receive(CHUNKING)
    assert isinstance(event, Ready)
    assert event.extensions.chunking


@pytest.mark.parametrize(
    ("greeting", "ehlo", "names"),
    [
        (
            b"220 mail.example.org ESMTP Exim\r\n",
            b"250-other.example Hello\r\n250 SIZE 5\r\n",
            (b"mail.example.org", b"other.example"),
        ),
        (b"220-mail.example.org ESMTP\r\n220 welcome\r\n", b"250 mx\r\n", (b"mail.example.org", b"mx")),
        (b"220\r\n", b"250\r\n", (b"", b"")),
    ],
)
def test_the_names_that_a_mail_server_gives_itself_are_kept(
    greeting: bytes, ehlo: bytes, names: tuple[bytes, bytes]
) -> None:
    session = Session(b"localhost")
    session.receive(greeting)
    session.take_output()
    session.receive(ehlo)
    assert session.server_names == names


def test_the_name_in_the_reply_to_helo_counts_as_that_to_ehlo() -> None:
    session = ready(b"500 what\r\n")
    session.take_output()
    session.receive(b"250 helo.example\r\n")
    assert session.server_names == (b"mx", b"helo.example")


def test_where_another_program_sends_ehlo_its_reply_is_awaited_and_nothing_is_sent() -> None:
    session = Session(b"localhost", is_ehlo_sent=True)
    assert session.receive(b"220 mx\r\n") == []
    assert (session.take_output(), session.awaiting) == (b"", Stage.EHLO)
    assert [type(event) for event in session.receive(PIPELINING)] == [Ready]
    assert session.server_names == (b"mx", b"mx")


def test_where_another_program_has_sent_ehlo_in_vain_helo_follows() -> None:
    session = Session(b"localhost", is_ehlo_sent=True)
    session.receive(b"220 mx\r\n502 what\r\n")
    assert session.take_output() == b"HELO localhost\r\n"
