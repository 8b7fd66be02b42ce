"""What a session says of itself, and replies at the edges of their classes."""

import pytest

from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Cause, Outcome, Reply, Scope, Stage
from mailrelay.smtp.events import ContentWanted, Ended, Event, Finished, Planned, Ready, Untried
from mailrelay.smtp.extensions import Extension, Extensions
from mailrelay.smtp.flight import MAX_IN_FLIGHT, SMALL, WINDOW_STEP, Trust
from mailrelay.smtp.session import Session

ENVELOPE = Envelope(b"a@example.org", (Recipient(b"b@example.net"), Recipient(b"c@example.net")))
PLAIN, PIPELINING = b"250 mx\r\n", b"250-mx\r\n250 PIPELINING\r\n"
CHUNKING = b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
CONTENT = b"Subject: x\r\n\r\nx\r\n"
COMMANDS = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nRCPT TO:<c@example.net>\r\n"


def ready(ehlo: bytes, trust: Trust = Trust.PROVEN) -> Session:
    session = Session(b"localhost", trust=trust)
    session.receive(b"220 mx\r\n")
    session.take_output()
    session.receive(ehlo)
    return session


def send(session: Session, key: int = 1, size: int = len(CONTENT)) -> list[Event]:
    return feed(session, session.start(key, ENVELOPE, size))


def feed(session: Session, events: list[Event]) -> list[Event]:
    """Gives the content that is wanted, and returns the other events."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, ContentWanted):
            session.send_content(CONTENT)
            found += session.end_content()
        elif not isinstance(event, Planned):
            found.append(event)
    return found


@pytest.mark.parametrize(("ehlo", "most"), [(PLAIN, 1), (PIPELINING, 1), (CHUNKING, MAX_IN_FLIGHT)])
def test_how_many_messages_can_be_in_flight_is_known_when_the_session_is_ready(ehlo: bytes, most: int) -> None:
    session = Session(b"localhost")
    assert (session.max_in_flight, session.capacity, session.extensions) == (0, 0, None)
    assert ready(ehlo).max_in_flight == most


@pytest.mark.parametrize(
    ("ehlo", "trust", "capacities"),
    [
        (PLAIN, Trust.PROVEN, [1, 0]),
        (PIPELINING, Trust.PROVEN, [1, 0]),
        (CHUNKING, Trust.PROVEN, [MAX_IN_FLIGHT, MAX_IN_FLIGHT - 1, MAX_IN_FLIGHT - 2]),
        (CHUNKING, Trust.UNKNOWN, [1, 0]),
        (CHUNKING, Trust.DOUBTED, [1, 0]),
    ],
)
def test_capacity_is_what_may_be_started_beside_what_is_in_flight(
    ehlo: bytes, trust: Trust, capacities: list[int]
) -> None:
    session = ready(ehlo, trust)
    found = [session.capacity]
    for key in range(len(capacities) - 1):
        send(session, key)
        found.append(session.capacity)
    assert found == capacities


@pytest.mark.parametrize(("ehlo", "most"), [(PLAIN, 1), (PIPELINING, 2)])
def test_without_bdat_the_commands_of_one_more_transaction_are_sent_ahead_if_the_server_has_pipelining(
    ehlo: bytes, most: int
) -> None:
    session = ready(ehlo)
    for key in range(most):
        assert session.capacity == 1
        session.start(key, ENVELOPE, None)
    assert session.capacity == 0
    with pytest.raises(RuntimeError, match="without capacity"):
        session.start(most, ENVELOPE, None)


def test_a_greeting_behind_that_of_a_shell_may_come_together_with_the_reply_to_ehlo() -> None:
    session = Session(b"localhost")
    session.receive(b"220 welcome to this shell\r\n")
    assert session.take_output() == b"EHLO localhost\r\n"
    assert session.receive(b"220 mx\r\n250 mx\r\n") == [Ready(Extensions())]


def test_content_is_taken_only_while_it_is_wanted() -> None:
    session = ready(CHUNKING)
    send(session)
    for give in (lambda: session.send_content(b"x"), session.end_content):
        with pytest.raises(RuntimeError, match="none was wanted"):
            give()


def test_replies_behind_the_end_of_a_conversation_are_not_read() -> None:
    session = Session(b"localhost")
    (ended,) = session.receive(b"554 no\r\n421 closing\r\n")
    assert isinstance(ended, Ended)
    assert session.replies == 1


@pytest.mark.parametrize("is_sent", [True, False])
def test_a_message_behind_rset_is_lost_if_the_server_may_have_read_its_commands_and_else_untried(
    is_sent: bool,
) -> None:
    session = ready(PIPELINING)
    session.start(1, ENVELOPE, None)
    session.take_output()
    session.receive(b"250 ok\r\n" * 3)
    session.start(2, ENVELOPE, len(CONTENT))
    if is_sent:
        assert session.take_output().startswith(b"RSET\r\nMAIL ")
    message, _ = session.lost("the connection is lost")
    assert (session.awaiting, session.is_content_reply_awaited) == (None, False)
    if is_sent:
        lost = Outcome(Stage.MAIL, cause=Cause.LOST, text="the connection is lost")
        assert message == Finished(2, (lost, lost), is_cut=True)
    else:
        assert message == Untried(2)


def test_where_the_replies_to_a_message_will_stand_counts_those_to_all_commands_before_it() -> None:
    """RSET comes before each but the first."""
    session = ready(CHUNKING)
    for key, first in ((1, 2), (2, 2 + 4 + 1), (3, 2 + 4 + 5 + 1)):
        (planned,) = [
            one for one in fed(session, session.start(key, ENVELOPE, len(CONTENT))) if isinstance(one, Planned)
        ]
        assert planned.exchange.first == first
    session = ready(PLAIN)
    session.start(1, ENVELOPE, None)
    for _ in range(3):
        session.take_output()
        session.receive(b"250 ok\r\n")
    (planned,) = session.start(2, ENVELOPE, len(CONTENT))
    assert isinstance(planned, Planned)
    assert planned.exchange.first == 2 + 3 + 1


def fed(session: Session, events: list[Event]) -> list[Event]:
    """Gives the content that is wanted, and returns all events."""
    if any(isinstance(event, ContentWanted) for event in events):
        session.send_content(CONTENT)
        events += session.end_content()
    return events


def test_a_server_that_refuses_us_at_rcpt_gets_the_lone_dot_that_it_asks_for_before_the_end() -> None:
    session = ready(PIPELINING)
    session.start(1, ENVELOPE, len(CONTENT))
    session.take_output()
    refused = b"530 5.7.0 Authentication required\r\n"
    (finished,) = session.receive(b"250 ok\r\n" + refused * 2 + b"354 go\r\n")
    assert isinstance(finished, Finished)
    assert (session.take_output(), session.capacity) == (b".\r\n", 0)
    (ended,) = session.receive(b"554 no recipients\r\n")
    assert isinstance(ended, Ended)
    assert ended.outcome.scope is Scope.RELAYHOST


def test_a_window_grows_with_each_transaction_that_is_finished() -> None:
    session = ready(CHUNKING, Trust.UNKNOWN)
    for expected in (1 + WINDOW_STEP, 1 + 2 * WINDOW_STEP, 1 + 3 * WINDOW_STEP, MAX_IN_FLIGHT, MAX_IN_FLIGHT):
        send(session)
        output = session.take_output()
        replies = output.count(b"MAIL") + output.count(b"RCPT") + output.count(b"BDAT") + output.count(b"RSET")
        session.receive(b"250 ok\r\n" * replies)
        assert session.capacity == expected


@pytest.mark.parametrize("size", [SMALL, SMALL + 1])
@pytest.mark.parametrize("trust", list(Trust))
def test_small_content_is_sent_ahead_of_the_replies(size: int, trust: Trust) -> None:
    session = ready(CHUNKING, trust)
    events = session.start(1, ENVELOPE, size)
    is_ahead = size <= SMALL and trust is not Trust.DOUBTED
    assert any(isinstance(event, ContentWanted) for event in events) is is_ahead
    session.quit()
    assert session.capacity == 0
    if not is_ahead:
        assert session.take_output() == COMMANDS


@pytest.mark.parametrize("code", [b"200", b"250", b"299"])
@pytest.mark.parametrize("go", [b"300", b"354", b"399"])
@pytest.mark.parametrize("ehlo", [PLAIN, PIPELINING])
def test_the_first_digit_of_a_reply_decides(code: bytes, go: bytes, ehlo: bytes) -> None:
    session = ready(ehlo)
    events = send(session)
    for reply in (code, code, code, go, code):
        assert events == []
        session.take_output()
        events = feed(session, session.receive(reply + b" x\r\n"))
    taken = Outcome(Stage.CONTENT, Reply(int(code), (b"x",)))
    assert events == [Finished(1, (taken, taken))]
    session.quit()
    assert session.take_output() == b"QUIT\r\n"
    assert session.receive(b"221 bye\r\n") == [Ended(Outcome(Stage.MAIL, Reply(221, (b"bye",))))]


@pytest.mark.parametrize("code", [400, 421, 499, 500, 599])
@pytest.mark.parametrize("is_ended", [False, True])
def test_a_refusal_while_the_content_is_sent_is_its_outcome(code: int, is_ended: bool) -> None:
    session = ready(PIPELINING)
    send(session)
    session.take_output()
    events = session.receive(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n")
    assert session.awaiting is None
    if is_ended:
        feed(session, events)
    else:
        session.send_content(CONTENT[:5])
    refused = Outcome(Stage.CONTENT, Reply(code, (b"no",)))
    finished, ended = session.receive(b"%d no\r\n" % code)
    assert finished == Finished(1, (refused, refused), code == 421)
    assert ended == Ended(refused)
    assert not session.leaves_doubt


def test_an_unexpected_421_says_so_and_others_are_no_reply() -> None:
    for code, text in ((421, ""), (399, "the mail server sent 399 without a command before it")):
        session = ready(PIPELINING)
        (ended,) = session.receive(b"%d x\r\n" % code)
        assert isinstance(ended, Ended)
        assert (ended.outcome.stage, ended.outcome.text) == (Stage.MAIL, text)
        assert session.goes_on is (code == 421)
        assert session.receive(b"250 x\r\n") == session.lost("x") == session.end_content() == []
        assert (session.take_output(), session.capacity, session.awaiting) == (b"", 0, None)


@pytest.mark.parametrize(
    ("replies", "is_closed", "stages", "goes_on"),
    [
        # Nothing of the flight has a reply: the mail server has processed none of it if it has closed.
        (b"", True, None, True),
        (b"", False, [Stage.AFTER_DOT, Stage.AFTER_DOT], False),
        (b"250 ok\r\n250 ok\r\n", True, [Stage.AFTER_DOT, Stage.AFTER_DOT], False),
        (b"250 ok\r\n550 no\r\n550 no\r\n", True, [Stage.RCPT, Stage.RCPT], True),
    ],
)
def test_what_the_end_shows_depends_on_the_replies_to_the_flight(
    replies: bytes, is_closed: bool, stages: list[Stage] | None, goes_on: bool
) -> None:
    session = ready(CHUNKING)
    # The replies to EHLO, and those to an earlier flight, are not of this one.
    send(session, 1)
    session.take_output()
    session.receive(b"250 ok\r\n" * 4)
    send(session, 2)
    assert session.take_output().startswith(COMMANDS)
    before = session.replies
    session.receive(replies)
    assert session.replies == before + replies.count(b"\n")
    events = session.lost("it has closed", is_closed=is_closed)
    finished, ended = events
    assert isinstance(ended, Ended)
    assert session.leaves_doubt
    if stages is None:
        assert finished == Finished(2, (ended.outcome, ended.outcome), True)
    else:
        assert isinstance(finished, Finished)
        assert [one.stage for one in finished.outcomes] == stages
    assert session.goes_on is (is_closed and bool(goes_on or replies))


def test_octets_that_are_sent_while_replies_are_awaited_begin_no_flight() -> None:
    session = ready(CHUNKING)
    send(session, 1)
    session.take_output()
    session.receive(b"250 ok\r\n")
    # A second flight begins while replies to the first one are awaited.
    send(session, 2)
    session.take_output()
    finished, second, _ = session.lost("it has closed", is_closed=True)
    assert isinstance(finished, Finished)
    assert {one.stage for one in finished.outcomes} == {Stage.AFTER_DOT}
    assert second == Untried(2, goes_on=True)


@pytest.mark.parametrize("ehlo", [PLAIN, PIPELINING, CHUNKING])
def test_the_awaited_stage_follows_the_commands(ehlo: bytes) -> None:
    session = Session(b"localhost")
    assert (session.awaiting, session.take_output()) == (Stage.GREETING, b"")
    session.receive(b"220 mx\r\n")
    assert (session.awaiting, session.take_output()) == (Stage.EHLO, b"EHLO localhost\r\n")
    (event,) = session.receive(ehlo)
    assert isinstance(event, Ready)
    assert session.awaiting is None
    send(session)
    stages = []
    for reply in (b"250", b"250", b"250", *([b"354"] if ehlo != CHUNKING else []), b"250"):
        session.take_output()
        stages.append(session.awaiting)
        assert session.is_content_reply_awaited is (ehlo == CHUNKING or len(stages) == 5)
        feed(session, session.receive(reply + b" x\r\n"))
    data = [] if ehlo == CHUNKING else [Stage.DATA]
    assert stages == [Stage.MAIL, Stage.RCPT, Stage.RCPT, *data, Stage.AFTER_DOT]
    assert (session.awaiting, session.is_content_reply_awaited) == (None, False)


@pytest.mark.parametrize(
    ("opening", "stage", "cause"),
    [
        ([b"554 no\r\n"], Stage.GREETING, Cause.REPLY),
        ([b"421 later\r\n"], Stage.GREETING, Cause.REPLY),
        ([b"400 later\r\n"], Stage.GREETING, Cause.REPLY),
        ([b"399 what\r\n"], Stage.GREETING, Cause.NOT_SMTP),
        ([b"221 what\r\n"], Stage.GREETING, Cause.NOT_SMTP),
        ([b"SSH-2.0\r\n"], Stage.GREETING, Cause.NOT_SMTP),
        ([b"220 mx\r\n", b"399 what\r\n"], Stage.EHLO, Cause.REPLY),
        ([b"220 mx\r\n", b"499 later\r\n"], Stage.EHLO, Cause.REPLY),
        ([b"220 mx\r\n", b"500 no\r\n", b"599 no\r\n"], Stage.EHLO, Cause.REPLY),
        ([b"220 mx\r\n", b"220 mx\r\n", b"450 no\r\n"], Stage.EHLO, Cause.REPLY),
        ([b"220 mx\r\n", b"what\r\n"], Stage.EHLO, Cause.LOST),
    ],
)
def test_an_opening_that_fails_is_a_fault_of_the_relayhost(opening: list[bytes], stage: Stage, cause: Cause) -> None:
    session = Session(b"localhost")
    for octets in opening:
        session.take_output()
        events = session.receive(octets)
    (ended,) = events
    assert isinstance(ended, Ended)
    assert (ended.outcome.stage, ended.outcome.cause, ended.outcome.scope) == (stage, cause, Scope.RELAYHOST)
    assert (session.take_output(), session.leaves_doubt, session.extensions) == (b"", False, None)


@pytest.mark.parametrize("code", [b"500", b"502", b"599"])
def test_helo_follows_each_5xx_to_ehlo(code: bytes) -> None:
    session = Session(b"localhost")
    session.receive(b"220 mx.example.net ESMTP\r\n")
    session.take_output()
    assert session.receive(code + b" no\r\n") == []
    assert session.take_output() == b"HELO localhost\r\n"
    assert session.receive(b"200 there\r\n") == [Ready(Extensions())]
    assert session.server_names == (b"mx.example.net", b"there")


def test_bdat_that_is_unknown_has_every_message_in_flight_sent_again() -> None:
    session = ready(CHUNKING)
    send(session, 1)
    send(session, 2)
    session.start(-3, ENVELOPE, None)
    session.take_output()
    events = session.receive(b"250 ok\r\n250 ok\r\n250 ok\r\n502 unknown command\r\n")
    assert events[:3] == [Untried(1, goes_on=True), Untried(2, goes_on=True), Untried(-3, goes_on=True)]
    assert isinstance(events[3], Ended)
    assert session.refused == {Extension.CHUNKING}
    assert session.goes_on
    # After a message that was accepted, BDAT is known.
    session = ready(CHUNKING)
    send(session, 1)
    session.take_output()
    session.receive(b"250 ok\r\n" * 4)
    send(session, 2)
    send(session, 3)
    session.take_output()
    events = session.receive(b"250 ok\r\n250 ok\r\n250 ok\r\n502 unknown command\r\n")
    assert events[0] == Untried(2, goes_on=True)
    assert isinstance(events[1], Finished)


def test_the_reply_to_a_lone_dot_decides_nothing() -> None:
    for reply in (b"250 ok\r\n", b"554 nobody\r\n"):
        session = ready(PIPELINING)
        send(session)
        session.take_output()
        refused = Outcome(Stage.RCPT, Reply(550, (b"no",)))
        assert session.receive(b"250 ok\r\n550 no\r\n550 no\r\n354 go\r\n") == [Finished(1, (refused, refused))]
        assert session.take_output() == b".\r\n"
        assert session.awaiting is Stage.AFTER_DOT
        assert session.receive(reply) == []
        send(session, 2)
        assert session.take_output().startswith(b"MAIL FROM")


@pytest.mark.parametrize("is_ready", [True, False])
def test_nothing_is_sent_after_the_end_of_a_conversation(is_ready: bool) -> None:
    session = ready(PIPELINING) if is_ready else Session(b"localhost")
    session.quit()
    assert session.take_output() == (b"QUIT\r\n" if is_ready else b"")
    session = ready(PIPELINING) if is_ready else Session(b"localhost")
    session.lost("the channel has ended")
    session.quit()
    assert (session.take_output(), session.capacity) == (b"", 0)
    session.send_content(b"x")
    assert session.end_content() == []


def test_a_reply_at_the_edge_of_a_refusal_is_judged() -> None:
    """400 refuses, and 399 has no meaning."""
    session = ready(CHUNKING)
    send(session)
    session.take_output()
    events = session.receive(b"250 ok\r\n400 a\r\n400 b\r\n554 nobody\r\n")
    assert [event.outcomes[0].reply for event in events if isinstance(event, Finished)] == [Reply(400, (b"a",))]
    assert not session.leaves_doubt


@pytest.mark.parametrize("is_sender", [True, False])
def test_a_damaged_envelope_is_not_sent_and_a_damaged_recipient_alone_is_left_out(is_sender: bool) -> None:
    session = ready(PIPELINING)
    recipients = (Recipient(b"b@example.net", is_damaged=not is_sender), Recipient(b"c@example.net"))
    events = session.start(1, Envelope(b"a@example.org", recipients, is_damaged=is_sender), 10)
    if is_sender:
        (finished,) = events
        assert isinstance(finished, Finished)
        assert {(one.stage, one.cause) for one in finished.outcomes} == {(Stage.MAIL, Cause.UNREADABLE)}
        assert "the envelope in the spool is not as it was written" in finished.outcomes[0].text
        assert session.take_output() == b""
    else:
        assert b"RCPT TO:<b@" not in session.take_output()
        (finished,) = session.receive(b"250 ok\r\n550 no\r\n554 nobody\r\n")
        assert isinstance(finished, Finished)
        first, second = finished.outcomes
        assert (first.stage, first.cause, second.reply) == (Stage.RCPT, Cause.UNREADABLE, Reply(550, (b"no",)))
        assert "the address in the spool is not as it was written" in first.text
