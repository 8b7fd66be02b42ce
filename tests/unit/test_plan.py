"""The table of what a scheduler does next: every row of `plan.decide`."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrelay.relay.plan import (
    MESSAGES_PER_CHANNEL,
    QUESTION_WAIT,
    Action,
    ConnectionState,
    Consequence,
    ConversationFacts,
    ConversationProgress,
    CutReason,
    Facts,
    Plan,
    consequence,
    conversations_to_open,
    decide,
    is_attempt,
)

NONE, UP, DOWN, RETIRED, DOUBTFUL = ConnectionState
NOTHING_DUE = Facts(due_in=inf)
MAIL_DUE = Facts(due_in=-1.0)
CONNECTED = Facts(connection=UP, due_in=inf)
SENDING = Facts(connection=UP, due_in=-1.0, conversations=1, more_allowed=7)


def wait(seconds: float = inf, blocked: float = 0.0) -> Plan:
    return Plan(Action.WAIT, seconds, blocked)


def do(action: Action, sleep: float = 0.0) -> Plan:
    return Plan(action, sleep)


@pytest.mark.parametrize(
    ("facts", "plan"),
    [
        pytest.param(Facts(is_stopping=True, has_fault=True, due_in=-1.0), wait(), id="stopping"),
        pytest.param(Facts(spool_pause=7.0, has_fault=True), wait(7.0), id="the spool failed a moment ago"),
        pytest.param(Facts(has_fault=True, dial_pause=60.0), do(Action.RECORD_FAULT), id="a fault is recorded first"),
        pytest.param(Facts(dial_pause=60.0), wait(60.0, blocked=60.0), id="blocked, and the spool is not asked"),
        pytest.param(
            Facts(dial_pause=60.0, must_ask=True), do(Action.ASK_NEXT_DUE), id="blocked, the spool may have changed"
        ),
        pytest.param(Facts(), do(Action.ASK_NEXT_DUE), id="unknown when mail is due"),
        pytest.param(Facts(network_changed=True), do(Action.RETRY_LOST), id="the network has changed"),
        pytest.param(
            Facts(network_changed=True, must_ask=True, dial_pause=60.0),
            do(Action.RETRY_LOST),
            id="a new network though blocked",
        ),
        pytest.param(Facts(connection=RETIRED, messages_in_progress=1, due_in=-1.0), wait(), id="retired, in progress"),
        pytest.param(
            Facts(connection=RETIRED, conversations=1, idle=1),
            do(Action.CLOSE_RETIRED),
            id="retired, nothing in progress",
        ),
        pytest.param(
            Facts(connection=RETIRED, network_changed=True),
            do(Action.CLOSE_RETIRED),
            id="retired comes before the recall",
        ),
        pytest.param(
            Facts(connection=UP, waited_in_vain=True, conversations=8, more_allowed=0),
            do(Action.CHECK),
            id="a client waited in vain",
        ),
        pytest.param(
            Facts(connection=RETIRED, waited_in_vain=True),
            do(Action.CLOSE_RETIRED),
            id="a client waited in vain, and the connection is retired",
        ),
        pytest.param(
            Facts(connection=DOUBTFUL, conversations=1, idle=1, due_in=-1.0),
            wait(blocked=inf),
            id="in doubt: nothing begins, and clients hear it",
        ),
        pytest.param(
            Facts(connection=DOWN, conversations=1, due_in=-1.0), wait(), id="lost, conversations not ended yet"
        ),
        pytest.param(Facts(connection=DOWN), do(Action.FORGET_LOST), id="lost"),
        pytest.param(Facts(conversations=1, due_in=-1.0), wait(), id="conversations of a closed connection end first"),
        pytest.param(
            Facts(connection=UP, conversations=8, more_allowed=0), wait(), id="all conversations busy, no more allowed"
        ),
        pytest.param(
            Facts(connection=UP, conversations=8, idle=1, more_allowed=0),
            do(Action.ASK_NEXT_DUE),
            id="an idle one is of use",
        ),
        pytest.param(NOTHING_DUE, wait(), id="nothing pending"),
        pytest.param(Facts(due_in=30.0), wait(30.0), id="mail is due later"),
        pytest.param(MAIL_DUE, do(Action.DIAL), id="mail is due"),
        pytest.param(replace(MAIL_DUE, is_stuck=True), wait(), id="mail is due, but outcomes cannot be recorded"),
        pytest.param(
            replace(MAIL_DUE, dial_pause=60.0, must_ask=True),
            wait(60.0, blocked=60.0),
            id="mail is due, dialling is blocked",
        ),
        pytest.param(
            replace(MAIL_DUE, dial_pause=60.0), wait(60.0, blocked=60.0), id="the same after the spool was asked"
        ),
        pytest.param(replace(NOTHING_DUE, dial_pause=60.0), wait(), id="a fault, and nothing pending"),
        pytest.param(
            replace(NOTHING_DUE, is_message_expected=True), do(Action.DIAL), id="a client has begun a message"
        ),
        pytest.param(
            replace(NOTHING_DUE, is_stream_wanted=True), do(Action.DIAL_WITHOUT_MAIL), id="a stream is wanted"
        ),
        pytest.param(
            replace(NOTHING_DUE, is_stream_wanted=True, is_stuck=True),
            do(Action.DIAL_WITHOUT_MAIL),
            id="a stream is wanted, and outcomes cannot be recorded",
        ),
        pytest.param(
            replace(NOTHING_DUE, is_stream_wanted=True, dial_pause=3.0, must_ask=True),
            wait(3.0, blocked=3.0),
            id="a stream is wanted, dialling is blocked",
        ),
        pytest.param(replace(CONNECTED, question_in=0.0), do(Action.ASK_THERE), id="a question is due"),
        pytest.param(
            replace(CONNECTED, question_in=-1.0, messages_in_progress=1, conversations=1),
            wait(QUESTION_WAIT - 1.0),
            id="a question waits for mail in progress",
        ),
        pytest.param(
            replace(SENDING, question_in=-QUESTION_WAIT, messages_in_progress=1),
            do(Action.ASK_THERE),
            id="a question has waited long enough",
        ),
        pytest.param(
            replace(CONNECTED, question_in=0.0, is_stuck=True), do(Action.HANG_UP, inf), id="stuck: no question"
        ),
        pytest.param(replace(NOTHING_DUE, question_in=0.0), do(Action.DIAL_WITHOUT_MAIL), id="a question worth a dial"),
        pytest.param(
            replace(NOTHING_DUE, question_in=0.0, dial_pause=60.0, must_ask=True),
            wait(60.0, blocked=60.0),
            id="a question, dialling is blocked",
        ),
        pytest.param(replace(NOTHING_DUE, question_in=50.0), wait(50.0), id="a question is due later"),
        pytest.param(replace(NOTHING_DUE, always_connected=True), do(Action.DIAL), id="a connection always"),
        pytest.param(replace(NOTHING_DUE, is_replaced=True), do(Action.DIAL), id="a fallback sends in its place"),
        pytest.param(
            replace(NOTHING_DUE, is_replaced=True, dial_pause=40.0),
            wait(40.0, blocked=40.0),
            id="a fallback sends in its place, blocked",
        ),
        pytest.param(
            replace(CONNECTED, is_replaced=True),
            Plan(Action.OPEN_CONVERSATIONS, inf, conversations=1),
            id="a conversation shows whether a fallback is still needed",
        ),
        pytest.param(
            replace(NOTHING_DUE, always_connected=True, redial_pause=40.0),
            wait(40.0),
            id="always, but not at once again",
        ),
        pytest.param(
            Facts(due_in=20.0, always_connected=True, redial_pause=40.0),
            wait(20.0),
            id="always, and mail is due before",
        ),
        pytest.param(CONNECTED, do(Action.HANG_UP, inf), id="connected without a reason"),
        pytest.param(
            replace(CONNECTED, due_in=90.0), do(Action.HANG_UP, 90.0), id="connected without a reason, mail due later"
        ),
        pytest.param(
            replace(CONNECTED, is_recording=True), wait(), id="connected without a reason, results may make mail due"
        ),
        pytest.param(
            replace(NOTHING_DUE, has_records=True), do(Action.DIAL), id="the relayhost has records that were not read"
        ),
        pytest.param(
            replace(NOTHING_DUE, has_records=True, dial_pause=30.0),
            wait(30.0, blocked=30.0),
            id="records, dialling is blocked",
        ),
        pytest.param(
            replace(NOTHING_DUE, has_records=True, is_stuck=True), wait(), id="records, nothing can be written"
        ),
        pytest.param(
            replace(CONNECTED, has_records=True), do(Action.READ_RECORDS), id="connected, and there are records"
        ),
        pytest.param(
            replace(SENDING, has_records=True, idle=1),
            do(Action.READ_RECORDS),
            id="records are read beside mail that is due",
        ),
        pytest.param(
            replace(CONNECTED, has_records=True, is_untested=True, due_in=-1.0),
            do(Action.READ_RECORDS),
            id="records are asked for before the first conversation",
        ),
        pytest.param(
            replace(SENDING, has_records=True, more_allowed=0), wait(), id="records wait for busy conversations"
        ),
        pytest.param(
            replace(CONNECTED, has_records=True, connection=DOUBTFUL),
            wait(blocked=inf),
            id="records on a connection in doubt",
        ),
        pytest.param(
            replace(CONNECTED, has_needless_records=True),
            do(Action.READ_RECORDS),
            id="needless records are removed before the connection is closed",
        ),
        pytest.param(
            replace(CONNECTED, has_needless_records=True, conversations=1),
            wait(),
            id="needless records beside a conversation",
        ),
        pytest.param(
            replace(NOTHING_DUE, has_needless_records=True), wait(), id="needless records are no reason to dial"
        ),
        pytest.param(replace(CONNECTED, linger_left=5.0), wait(5.0), id="connected, stays for a while"),
        pytest.param(replace(CONNECTED, linger_left=inf), wait(), id="connected for a stream"),
        pytest.param(replace(CONNECTED, conversations=1), wait(), id="a conversation lingers"),
        pytest.param(
            replace(CONNECTED, is_untested=True, dial_pause=4.0),
            Plan(Action.OPEN_CONVERSATIONS, inf, conversations=1),
            id="dialled for mail or after a fault: a conversation shows whether the mail server is there",
        ),
        pytest.param(
            replace(CONNECTED, due_in=-1.0, dial_pause=60.0, linger_left=inf),
            wait(60.0, blocked=60.0),
            id="the mail server has a fault, streams go on",
        ),
        pytest.param(
            replace(CONNECTED, due_in=-1.0, dial_pause=60.0),
            Plan(Action.HANG_UP, 60.0, blocked=60.0),
            id="the mail server has a fault, and there is no stream",
        ),
        pytest.param(
            replace(CONNECTED, is_stream_wanted=True, conversations=1), wait(), id="a stream is wanted on a connection"
        ),
        pytest.param(SENDING, do(Action.COUNT_DUE), id="mail is due: how much?"),
        pytest.param(replace(SENDING, dial_pause=60.0), do(Action.COUNT_DUE), id="an open conversation: not blocked"),
        pytest.param(
            replace(SENDING, idle=1), do(Action.WAKE_CONVERSATION, inf), id="mail is due, an idle conversation"
        ),
        pytest.param(
            replace(SENDING, idle=1, due_in=8.0, is_message_expected=True),
            wait(8.0),
            id="an idle conversation and no mail yet",
        ),
        pytest.param(
            replace(SENDING, due_count=1),
            Plan(Action.OPEN_CONVERSATIONS, inf, conversations=1),
            id="mail nobody asks for",
        ),
        pytest.param(replace(SENDING, due_count=1, asking=1), wait(), id="mail that a conversation is about to take"),
        pytest.param(
            replace(SENDING, due_count=1, all_ready=False), wait(), id="a conversation is being opened for it"
        ),
        pytest.param(
            replace(SENDING, due_count=20), Plan(Action.OPEN_CONVERSATIONS, inf, conversations=4), id="much mail"
        ),
        pytest.param(
            replace(SENDING, due_count=200),
            Plan(Action.OPEN_CONVERSATIONS, inf, conversations=7),
            id="more than is allowed",
        ),
        pytest.param(replace(SENDING, due_count=0), wait(), id="another conversation took it during the count"),
        pytest.param(
            replace(SENDING, due_in=12.0, is_message_expected=True),
            wait(12.0),
            id="expected, and a conversation is there",
        ),
    ],
)
def test_the_plan_for(facts: Facts, plan: Plan) -> None:
    assert decide(facts) == plan


SELDOM = st.sampled_from((False, False, False, False, True))
"""Else nearly every plan is to wait, because one of many facts is enough for that."""
ANY_FACTS = st.builds(
    Facts,
    is_stopping=SELDOM,
    spool_pause=st.sampled_from((-1.0, -1.0, -1.0, 5.0)),
    has_fault=SELDOM,
    must_ask=SELDOM,
    is_stuck=SELDOM,
    connection=st.sampled_from(ConnectionState),
    conversations=st.integers(0, 3),
    idle=st.integers(0, 3),
    all_ready=st.booleans(),
    more_allowed=st.integers(0, 3),
    asking=st.integers(0, 3),
    messages_in_progress=st.integers(0, 2),
    is_untested=SELDOM,
    question_in=st.sampled_from((-40.0, 0.0, 20.0, inf)),
    has_records=SELDOM,
    has_needless_records=SELDOM,
    dial_pause=st.sampled_from((-1.0, -1.0, 30.0)),
    is_message_expected=SELDOM,
    is_stream_wanted=SELDOM,
    always_connected=SELDOM,
    is_replaced=SELDOM,
    redial_pause=st.sampled_from((0.0, 40.0)),
    linger_left=st.sampled_from((0.0, 10.0, inf)),
    network_changed=SELDOM,
    waited_in_vain=SELDOM,
    due_in=st.sampled_from((None, -1.0, 50.0, inf)),
    due_count=st.sampled_from((None, 0, 1, 100)),
)


@given(ANY_FACTS)
@example(MAIL_DUE)
@example(replace(SENDING, conversations=0, due_count=1))
@example(replace(MAIL_DUE, is_stopping=True))
def test_nothing_is_begun_while_stopping_blocked_or_on_a_connection_of_before(facts: Facts) -> None:
    plan = decide(facts)
    if plan.action in (Action.DIAL, Action.DIAL_WITHOUT_MAIL):
        assert facts.connection is ConnectionState.NONE
        assert not facts.conversations
        assert facts.dial_pause <= 0
    if plan.action in (Action.OPEN_CONVERSATIONS, Action.WAKE_CONVERSATION):
        assert facts.connection is ConnectionState.UP
    if facts.is_stopping or facts.spool_pause > 0:
        assert plan.action is Action.WAIT


@given(ANY_FACTS)
@example(Facts())
@example(replace(SENDING, conversations=0))
def test_a_wait_ends_by_time_or_by_an_event_and_a_question_is_asked_once(facts: Facts) -> None:
    plan = decide(facts)
    if plan.action is Action.WAIT:
        assert plan.sleep > 0, "a wait of nothing would be a loop without end"
    if plan.action is Action.ASK_NEXT_DUE:
        assert facts.due_in is None
    if plan.action is Action.COUNT_DUE:
        assert facts.due_count is None
    assert (plan.action is Action.OPEN_CONVERSATIONS) == (plan.conversations > 0)


@given(ANY_FACTS)
def test_mail_that_is_due_is_sent_waited_for_or_blocked_and_never_forgotten(facts: Facts) -> None:
    facts = replace(facts, due_in=-1.0, is_stopping=False, spool_pause=0.0, is_stuck=False)
    # At least one conversation is always allowed, and only an open one is idle.
    facts = replace(
        facts,
        idle=min(facts.idle, facts.conversations),
        more_allowed=facts.more_allowed or int(not facts.conversations),
    )
    plan = decide(facts)
    if plan.action is Action.WAIT and plan.sleep == inf:
        # An event is to come: the end of a conversation, of a message, of a claim, or of the check of a connection.
        assert facts.conversations or facts.messages_in_progress or facts.connection in (RETIRED, DOUBTFUL)


@given(st.integers(0, 400), st.integers(0, 70), st.integers(0, 70), st.integers(0, 70), st.booleans())
def test_conversations_are_opened_within_the_room_and_one_at_least_where_there_is_none(
    due: int, conversations: int, more_allowed: int, asking: int, all_ready: bool
) -> None:
    facts = Facts(
        due_count=due, conversations=conversations, more_allowed=more_allowed, asking=asking, all_ready=all_ready
    )
    count = conversations_to_open(facts)
    assert 0 <= count <= more_allowed
    if conversations == 0 and more_allowed:
        assert count >= 1
    assert count <= max(1, -(-due // MESSAGES_PER_CHANNEL) - conversations)


NOTHING, FINISHED, REPLIED = ConversationProgress
FEWER, FAULT = Consequence.FEWER_CONVERSATIONS, Consequence.FAULT


@pytest.mark.parametrize(
    ("facts", "follows"),
    [
        pytest.param(ConversationFacts(NOTHING, broke_off=False), Consequence.NONE, id="we ended it"),
        pytest.param(ConversationFacts(NOTHING, was_idle=True), Consequence.NONE, id="the server ended it while idle"),
        pytest.param(ConversationFacts(REPLIED, is_connected=False), Consequence.NONE, id="it had replied to a job"),
        pytest.param(ConversationFacts(FINISHED), Consequence.NONE, id="one message had a fault"),
        pytest.param(ConversationFacts(FINISHED, is_connected=False), FAULT, id="the connection broke with a message"),
        pytest.param(ConversationFacts(NOTHING), FAULT, id="no mail server there"),
        pytest.param(ConversationFacts(NOTHING, is_connected=False), FAULT, id="the connection broke"),
        pytest.param(ConversationFacts(NOTHING, others=2), FEWER, id="too many conversations"),
        pytest.param(ConversationFacts(FINISHED, is_connected=False, others=2), FEWER, id="the last one will tell"),
        pytest.param(
            ConversationFacts(NOTHING, was_idle=True, cut_reason=CutReason.UNKNOWN),
            Consequence.NONE,
            id="ended at a message: the next one will tell",
        ),
        pytest.param(
            ConversationFacts(NOTHING, was_idle=True, cut_reason=CutReason.THIS_MESSAGE),
            Consequence.NONE,
            id="ended at the same message again: it is the reason",
        ),
        pytest.param(
            ConversationFacts(NOTHING, was_idle=True, cut_reason=CutReason.EVERY_MESSAGE),
            FAULT,
            id="ended at two messages in a row",
        ),
        pytest.param(
            ConversationFacts(FINISHED, cut_reason=CutReason.EVERY_MESSAGE),
            FAULT,
            id="the same behind a message never sent",
        ),
        pytest.param(
            ConversationFacts(REPLIED, cut_reason=CutReason.UNKNOWN),
            Consequence.NONE,
            id="only so many messages in each",
        ),
        pytest.param(
            ConversationFacts(NOTHING, cut_reason=CutReason.UNKNOWN, others=3),
            FEWER,
            id="the others may be all that is allowed",
        ),
        pytest.param(
            ConversationFacts(NOTHING, cut_reason=CutReason.EVERY_MESSAGE, others=3), FEWER, id="and so for the next"
        ),
        pytest.param(
            ConversationFacts(NOTHING, cut_reason=CutReason.THIS_MESSAGE, others=3),
            Consequence.NONE,
            id="the message ends each",
        ),
        pytest.param(ConversationFacts(NOTHING, refuses_us=True), FAULT, id="it refuses us"),
        pytest.param(ConversationFacts(NOTHING, refuses_extension=True), Consequence.NONE, id="refuses an extension"),
    ],
)
def test_what_follows_from_the_end_of_a_conversation(facts: ConversationFacts, follows: Consequence) -> None:
    assert consequence(facts) is follows


@pytest.mark.parametrize(
    ("cut_reason", "counts"),
    [(None, True), (CutReason.UNKNOWN, False), (CutReason.EVERY_MESSAGE, False), (CutReason.THIS_MESSAGE, True)],
)
def test_the_end_of_a_conversation_is_an_attempt_at_its_message_only_if_the_message_is_the_reason(
    cut_reason: CutReason | None, counts: bool
) -> None:
    assert is_attempt(ConversationFacts(NOTHING, cut_reason=cut_reason)) == counts
