"""Decides what the scheduler of one relayhost does next. Pure: facts in, a plan out.

    facts = observe(); plan = decide(facts); await apply(plan)

`decide` looks at the facts in this order; the first rule that holds gives the plan:

    stopping, or the spool failed a moment ago          wait
    a conversation found a fault of the relayhost       record the fault
    no connection, dialling is blocked                  wait, without asking the spool
    no connection or a lost one, conversations open     wait until they have ended
    lost connection                                     forget it
    retired connection                                  wait for its messages, then close it
    a client waited in vain                             ask the server for a response
    connection in doubt                                 wait for the response, and tell clients that wait
    connected, all conversations busy, no more allowed  wait
    the network has changed                             make mail due that waits only for the network
    the next due time of mail is not known              ask the spool
    connected, there are records to be read             read them
    connected, no conversation, needless records        remove them
    connected, a question about accepted mail is due    ask it; while mail is in progress only QUESTION_WAIT later
    no reason for a connection                          hang up once `linger_left` is 0, results are recorded; else wait
    a reason, dialling is blocked                       the same, and tell clients that wait
    a reason, no connection                             dial
    connected                                           wake an idle conversation, or open more, or wait

Times are seconds. `math.inf` means: until an event.

`consequence` says what the end of a conversation means for the relayhost, and for the message in whose transaction it ended:
the message may be the reason, or the mail server may turn every message away. The next conversation, with another message,
shows which.
"""

import enum
import math
from dataclasses import dataclass

MESSAGES_PER_CHANNEL = 4
"""Due messages for which one conversation is opened: opening one costs about three round trips."""
QUESTION_WAIT = 30.0
"""Seconds for which a question about accepted mail waits at most for messages in progress: it is not to delay them."""


class ConnectionState(enum.Enum):
    """The SSH connection to the relayhost, as the connector knows it."""

    NONE = enum.auto()
    UP = enum.auto()
    DOWN = enum.auto()
    """It has ended. Its conversations may still have to end."""
    RETIRED = enum.auto()
    """From before a change of the network, or dead: messages in progress go on, no new one begins on it."""
    DOUBTFUL = enum.auto()
    """The server does not respond: messages in progress go on, no new one begins until it does."""


class Action(enum.Enum):
    """What the scheduler does."""

    WAIT = enum.auto()
    RECORD_FAULT = enum.auto()
    CLOSE_RETIRED = enum.auto()
    FORGET_LOST = enum.auto()
    CHECK = enum.auto()
    """Ask the server for a response."""
    RETRY_LOST = enum.auto()
    """Make the mail due that waits only for the network."""
    ASK_NEXT_DUE = enum.auto()
    COUNT_DUE = enum.auto()
    HANG_UP = enum.auto()
    READ_RECORDS = enum.auto()
    """Read what the relayhost has recorded of conversations whose replies were lost, and remove what nobody needs."""
    ASK_THERE = enum.auto()
    """Ask on the relayhost what has become of mail that its mail server has accepted."""
    DIAL = enum.auto()
    DIAL_WITHOUT_MAIL = enum.auto()
    """Dial for a stream or a question only: no mail needs the connection."""
    WAKE_CONVERSATION = enum.auto()
    OPEN_CONVERSATIONS = enum.auto()


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of one relayhost at one moment.

    spool_pause: seconds until the spool may be asked again after it failed; 0 or less: now.
    has_fault: a conversation found a fault of the relayhost that is not recorded yet.
    must_ask: the spool may have changed (the person, the clock, the network): ask it although dialling is blocked.
    is_stuck: outcomes could not be recorded; no new message may be begun.
    conversations: how many are open. idle: how many of these wait for mail, with none due. all_ready: each has had the reply
    to EHLO.
    more_allowed: how many more conversations may be opened; 0 or less: none.
    asking: how many conversations wait for the spool to give them messages.
    messages_in_progress: how many messages the conversations hold. is_recording: results are being written to the spool,
    records read, or a question asked: the connection stays.
    is_untested: the connection was dialled for mail or after a fault, and no conversation has been opened on it yet.
    has_records: the relayhost has records that were not read, and nobody is reading them. has_needless_records: it has
    records on this connection that nobody needs, and nobody is removing them.
    question_in: seconds until a question about accepted mail is due; 0 or less: now. Without a connection, until one that is
    worth a dial. inf: nothing is followed, or a question is being asked.
    dial_pause: seconds until a dial is allowed; 0 or less: now.
    is_message_expected: a client has begun a message. is_stream_wanted: a stream waits for the connection.
    is_replaced: a dial may change which relayhost sends (`Group.is_replaced`): a reason to dial, also without mail.
    always_connected: the settings want a connection always. redial_pause: seconds until a dial for that reason alone.
    linger_left: seconds for which the connection stays without mail and without conversations.
    network_changed: mail that waits for the network has not been made due yet.
    waited_in_vain: a client has waited for a result in vain, and the server was not asked for a response since.
    due_in: seconds until mail is due, 0 or less: now, inf: nothing is pending; None: the spool was not asked.
    due_count: how many messages are due, up to a limit; None: the spool was not asked.
    """

    is_stopping: bool = False
    spool_pause: float = 0.0
    has_fault: bool = False
    must_ask: bool = False
    is_stuck: bool = False
    connection: ConnectionState = ConnectionState.NONE
    conversations: int = 0
    idle: int = 0
    all_ready: bool = True
    more_allowed: int = 1
    asking: int = 0
    messages_in_progress: int = 0
    is_recording: bool = False
    is_untested: bool = False
    has_records: bool = False
    has_needless_records: bool = False
    question_in: float = math.inf
    dial_pause: float = 0.0
    is_message_expected: bool = False
    is_stream_wanted: bool = False
    is_replaced: bool = False
    always_connected: bool = False
    redial_pause: float = 0.0
    linger_left: float = 0.0
    network_changed: bool = False
    waited_in_vain: bool = False
    due_in: float | None = None
    due_count: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One action, and how long to sleep after it.

    sleep: seconds until the next decision, unless an event comes first; 0: decide again at once.
    blocked: seconds for which no mail can be sent, 0 if it can be sent. Clients that wait are told so.
    conversations: how many to open.
    """

    action: Action
    sleep: float = 0.0
    blocked: float = 0.0
    conversations: int = 0


def decide(facts: Facts) -> Plan:
    """What to do now."""
    plan = _without_spool(facts)
    if plan is not None:
        return plan
    if facts.network_changed:
        return Plan(Action.RETRY_LOST)
    if facts.due_in is None:
        return Plan(Action.ASK_NEXT_DUE)
    return _with_spool(facts, facts.due_in)


def _without_spool(facts: Facts) -> Plan | None:
    """The plan if it does not depend on the spool, else None."""
    if facts.is_stopping:
        return Plan(Action.WAIT, math.inf)
    if facts.spool_pause > 0:
        return Plan(Action.WAIT, facts.spool_pause)
    if facts.has_fault:
        return Plan(Action.RECORD_FAULT)
    return _for_connection(facts)


def _for_connection(facts: Facts) -> Plan | None:  # noqa: PLR0911 - one return for each row of the table
    """The plan if the state of the connection alone gives it, else None."""
    match facts.connection:
        case ConnectionState.NONE if facts.dial_pause > 0 and not facts.must_ask and facts.due_in is None:
            # Do not ask the spool for each new message: before the pause ends, only `must_ask` can change the plan.
            return Plan(Action.WAIT, facts.dial_pause, blocked=facts.dial_pause)
        case ConnectionState.NONE | ConnectionState.DOWN if facts.conversations:
            # The end of a conversation shows why the connection was lost: record that before another dial.
            return Plan(Action.WAIT, math.inf)
        case ConnectionState.DOWN:
            return Plan(Action.FORGET_LOST)
        case ConnectionState.RETIRED:
            return Plan(Action.WAIT, math.inf) if facts.messages_in_progress else Plan(Action.CLOSE_RETIRED)
        case ConnectionState.UP if facts.waited_in_vain:
            return Plan(Action.CHECK)
        case ConnectionState.DOUBTFUL:
            return Plan(Action.WAIT, math.inf, blocked=math.inf)
        case ConnectionState.UP if facts.more_allowed <= 0 and not facts.idle:
            return Plan(Action.WAIT, math.inf)
    return None


def _with_spool(facts: Facts, due_in: float) -> Plan:
    """The plan if it is known when mail is due. due_in: as in `Facts`."""
    has_mail = due_in <= 0
    sleep = math.inf if has_mail else due_in
    is_connected = facts.connection is ConnectionState.UP
    wants_connection = facts.always_connected and not is_connected
    if wants_connection and facts.redial_pause > 0:
        wants_connection, sleep = False, min(sleep, facts.redial_pause)
    must_test = is_connected and facts.is_untested
    if is_connected and not facts.is_stuck and (action := _over_there(facts)):
        return Plan(action)
    asks = _question_in(facts) <= 0 and not facts.is_stuck
    if _question_in(facts) > 0:
        sleep = min(sleep, _question_in(facts))
    is_for_mail = must_test or (
        not facts.is_stuck
        and (has_mail or facts.has_records or facts.is_message_expected or wants_connection or facts.is_replaced)
    )
    if not (is_for_mail or facts.is_stream_wanted or asks):
        return _keep_or_hang_up(facts, sleep)
    # The fault may be one of the mail server: the connection then stays for streams, and mail waits.
    if facts.dial_pause > 0 and not facts.conversations and not must_test:
        return _keep_or_hang_up(facts, facts.dial_pause, blocked=facts.dial_pause)
    if not is_connected:
        return Plan(Action.DIAL if is_for_mail else Action.DIAL_WITHOUT_MAIL)
    if not is_for_mail:
        return Plan(Action.WAIT, sleep)
    return _connected(facts, sleep, has_mail=has_mail)


def _over_there(facts: Facts) -> Action | None:
    """What to do on the relayhost besides sending mail."""
    if facts.has_records or (facts.has_needless_records and not facts.conversations):
        return Action.READ_RECORDS
    return Action.ASK_THERE if _question_in(facts) <= 0 else None


def _question_in(facts: Facts) -> float:
    """Seconds until the question is asked."""
    return facts.question_in + (QUESTION_WAIT if facts.messages_in_progress else 0.0)


def _keep_or_hang_up(facts: Facts, sleep: float, *, blocked: float = 0.0) -> Plan:
    """No mail can be sent now: a connection without conversations is closed when `linger_left` is 0."""
    # A conversation that broke off puts back its messages: another one on this connection sends them.
    if facts.connection is ConnectionState.NONE or facts.conversations or facts.is_recording:
        return Plan(Action.WAIT, sleep, blocked)
    if facts.linger_left <= 0:
        return Plan(Action.HANG_UP, sleep, blocked)
    return Plan(Action.WAIT, min(sleep, facts.linger_left), blocked)


def _connected(facts: Facts, sleep: float, *, has_mail: bool) -> Plan:
    """The plan if there is a connection, and mail is due or expected, or the connection is untested."""
    if facts.idle:
        return Plan(Action.WAKE_CONVERSATION if has_mail else Action.WAIT, sleep)
    if has_mail and facts.due_count is None:
        return Plan(Action.COUNT_DUE)
    count = conversations_to_open(facts)
    return Plan(Action.OPEN_CONVERSATIONS, sleep, conversations=count) if count else Plan(Action.WAIT, sleep)


def conversations_to_open(facts: Facts) -> int:
    """How many conversations to open, at most `more_allowed`.

    There is one for every MESSAGES_PER_CHANNEL due messages. At least one is opened if none is open. At least one is opened,
    too, if more messages are due than conversations ask for, unless one is still being opened.
    """
    due = facts.due_count or 0
    wanted = math.ceil(due / MESSAGES_PER_CHANNEL) - facts.conversations
    if not facts.conversations or (due > facts.asking and facts.all_ready):
        wanted = max(1, wanted)
    return max(0, min(wanted, facts.more_allowed))


class ConversationProgress(enum.IntEnum):
    """How far a conversation has come."""

    NOTHING = 0
    """No job has ended."""
    FINISHED = 1
    """A job has ended, but none was judged. A probe whose replies were lost counts as ended."""
    REPLIED = 2
    """A job has ended with a reply of the mail server."""


class Consequence(enum.Enum):
    """What follows from the end of a conversation."""

    NONE = enum.auto()
    FEWER_CONVERSATIONS = enum.auto()
    """The mail server allows no more conversations than the other open ones, which go on. No fault."""
    FAULT = enum.auto()
    """The relayhost cannot be used."""


class CutReason(enum.Enum):
    """Why a conversation has ended in the transaction of a message that the mail server had not judged."""

    EVERY_MESSAGE = enum.auto()
    """The mail server turns every message away: this conversation and the one before it ended in the transactions of two
    different messages, and it has judged no message in either."""
    UNKNOWN = enum.auto()
    """No conversation has ended at this message before, or the mail server has judged others in this conversation."""
    THIS_MESSAGE = enum.auto()
    """The message: an earlier conversation has ended at it too, and this one had no judged message before it."""


@dataclass(frozen=True, slots=True)
class ConversationFacts:
    """How a conversation has ended.

    broke_off: it ended by a failure, not by us. was_idle: it waited for mail. is_connected: the SSH connection is
    up. others: how many other conversations are open. refuses_us: the mail server refuses mailrelay itself, as a reply to
    MAIL or later. refuses_extension: it refuses an extension, which the next conversation does not use. cut_reason: why it
    ended in a transaction; None if it ended in none, or if the SSH connection was lost.
    """

    progress: ConversationProgress
    broke_off: bool = True
    was_idle: bool = False
    is_connected: bool = True
    others: int = 0
    refuses_us: bool = False
    refuses_extension: bool = False
    cut_reason: CutReason | None = None


def consequence(facts: ConversationFacts) -> Consequence:  # noqa: PLR0911 - one return for each case
    """What follows from the end of a conversation for the relayhost."""
    failure = Consequence.FEWER_CONVERSATIONS if facts.others else Consequence.FAULT
    if facts.refuses_extension:
        return Consequence.NONE
    if facts.refuses_us:
        return failure
    if not facts.broke_off or facts.progress is ConversationProgress.REPLIED:
        return Consequence.NONE
    if facts.cut_reason is not None:
        return _after_cut(facts.cut_reason, facts.others)
    if facts.was_idle:
        return Consequence.NONE
    if facts.progress is ConversationProgress.FINISHED and facts.is_connected:
        # The failure concerns one message.
        return Consequence.NONE
    return failure


def _after_cut(cut_reason: CutReason, others: int) -> Consequence:
    """What follows if the mail server ended a conversation in its first transaction."""
    if others:
        # The message goes on in another one. If that one ends at it too, the reason is the message.
        return Consequence.NONE if cut_reason is CutReason.THIS_MESSAGE else Consequence.FEWER_CONVERSATIONS
    return Consequence.FAULT if cut_reason is CutReason.EVERY_MESSAGE else Consequence.NONE


def is_attempt(facts: ConversationFacts) -> bool:
    """Whether the end of a conversation counts as an attempt at the message in whose transaction it ended, before its
    content. If not, the message waits with all others after a fault, or goes on in another conversation at once."""
    return facts.cut_reason in (None, CutReason.THIS_MESSAGE)
