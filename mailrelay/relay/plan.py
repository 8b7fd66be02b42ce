"""Decides what the scheduler of one relayhost does next. Pure: facts in, a plan out.

    facts = observe(); plan = decide(facts); await apply(plan)

`decide` looks at the facts in this order; the first rule that holds gives the plan:

    stopping, or the spool failed a moment ago       wait
    a conversation found a fault of the relayhost    record the fault
    no connection, dialling is blocked               wait, without a question to the spool
    connected, all conversations busy, none allowed  wait
    retired connection                               wait for its messages, then close it
    lost connection                                  wait for its conversations, then forget it
    the network has changed                          recall: make mail due that waits only for the network
    unknown when mail is due                         ask the spool
    no reason for a connection                       hang up once `stays` is over, else wait
    a reason, dialling is blocked                    the same, and tell clients that wait
    a reason, no connection                          dial
    connected                                        wake an idle conversation, or open more, or wait

Times are seconds. `math.inf` means: until an event.

`consequence` says what the end of a conversation means for the relayhost.
"""

import enum
import math
from dataclasses import dataclass

MESSAGES_PER_CHANNEL = 4
"""Waiting messages that justify one more conversation: opening one costs about three round trips."""


class ConnectionState(enum.Enum):
    """The SSH connection to the relayhost, as the connector knows it."""

    NONE = enum.auto()
    UP = enum.auto()
    DOWN = enum.auto()
    """It has ended, and nothing was concluded from that yet."""
    RETIRED = enum.auto()
    """From before a change of the network: its messages may end, nothing new begins on it."""


class Action(enum.Enum):
    """What the scheduler does."""

    WAIT = enum.auto()
    RECORD_FAULT = enum.auto()
    CLOSE_RETIRED = enum.auto()
    FORGET_LOST = enum.auto()
    RECALL = enum.auto()
    ASK_NEXT_DUE = enum.auto()
    COUNT_DUE = enum.auto()
    HANG_UP = enum.auto()
    DIAL = enum.auto()
    DIAL_FOR_STREAM = enum.auto()
    """Dial for something else than mail."""
    WAKE_CONVERSATION = enum.auto()
    OPEN_CONVERSATIONS = enum.auto()


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of one relayhost at one moment.

    spool_pause: seconds until the spool may be asked again after it failed; 0 or less: now.
    has_fault: a conversation found a fault of the relayhost that is not recorded yet.
    must_ask: the spool may have changed (the person, the clock, the network): ask it although dialling is blocked.
    is_stuck: outcomes could not be recorded; no new message may be begun.
    conversations, idle: how many are open, and how many of these wait for mail. all_ready: each has had its greeting.
    room: how many conversations may be opened beside these.
    asking: how many conversations wait for messages from the spool at this moment.
    messages_in_progress: how many messages the conversations hold.
    is_untested: no conversation has been opened on this connection, which was dialled for mail or after a fault.
    pause: seconds until a dial is allowed; 0 or less: now.
    is_expected: a client has begun a message. is_stream_wanted: something else than mail waits for the connection.
    keeps_up: the settings want a connection always. redial_pause: seconds until a dial for that reason alone.
    stays: seconds for which the connection stays without mail.
    network_changed: mail that waits for the network has not been made due yet.
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
    room: int = 1
    asking: int = 0
    messages_in_progress: int = 0
    is_untested: bool = False
    pause: float = 0.0
    is_expected: bool = False
    is_stream_wanted: bool = False
    keeps_up: bool = False
    redial_pause: float = 0.0
    stays: float = 0.0
    network_changed: bool = False
    due_in: float | None = None
    due_count: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One action, and how long to sleep after it.

    sleep: seconds until the next look, unless an event comes first; 0: look again at once.
    blocked: seconds for which no mail can leave, 0 if it can: clients that wait are told so.
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
        return Plan(Action.RECALL)
    if facts.due_in is None:
        return Plan(Action.ASK_NEXT_DUE)
    return _with_spool(facts, facts.due_in)


def _without_spool(facts: Facts) -> Plan | None:  # noqa: PLR0911 - one return for each row of the table
    """The plan where the facts in memory suffice, else None."""
    if facts.is_stopping:
        return Plan(Action.WAIT, math.inf)
    if facts.spool_pause > 0:
        return Plan(Action.WAIT, facts.spool_pause)
    if facts.has_fault:
        return Plan(Action.RECORD_FAULT)
    match facts.connection:
        case ConnectionState.NONE if facts.pause > 0 and not facts.must_ask and facts.due_in is None:
            # No question for each new message: until `pause` is over, only the person or the network can change this.
            return Plan(Action.WAIT, facts.pause, blocked=facts.pause)
        case ConnectionState.NONE | ConnectionState.DOWN if facts.conversations:
            # Their end says why the connection was lost. It comes before another dial.
            return Plan(Action.WAIT, math.inf)
        case ConnectionState.DOWN:
            return Plan(Action.FORGET_LOST)
        case ConnectionState.RETIRED:
            return Plan(Action.WAIT, math.inf) if facts.messages_in_progress else Plan(Action.CLOSE_RETIRED)
        case ConnectionState.UP if facts.room <= 0 and not facts.idle:
            return Plan(Action.WAIT, math.inf)
    return None


def _with_spool(facts: Facts, due_in: float) -> Plan:
    """The plan where it is known when mail is due."""
    has_mail = due_in <= 0
    sleep = math.inf if has_mail else due_in
    is_connected = facts.connection is ConnectionState.UP
    wants_connection = facts.keeps_up and not is_connected
    if wants_connection and facts.redial_pause > 0:
        wants_connection, sleep = False, min(sleep, facts.redial_pause)
    is_for_mail = not facts.is_stuck and (has_mail or facts.is_expected or wants_connection)
    is_for_mail = is_for_mail or (is_connected and facts.is_untested)
    if not (is_for_mail or facts.is_stream_wanted):
        return _idle(facts, sleep)
    # A fault may concern mail alone: then the connection stays for streams, and mail waits.
    if facts.pause > 0 and not facts.conversations and not (is_connected and facts.is_untested):
        return _idle(facts, facts.pause, blocked=facts.pause)
    if not is_connected:
        return Plan(Action.DIAL if is_for_mail else Action.DIAL_FOR_STREAM)
    if not is_for_mail:
        return Plan(Action.WAIT, sleep)
    return _connected(facts, sleep, has_mail=has_mail)


def _idle(facts: Facts, sleep: float, *, blocked: float = 0.0) -> Plan:
    """Nothing to send: the connection, if there is one, is closed when `stays` is over."""
    if facts.connection is ConnectionState.NONE or facts.conversations:
        return Plan(Action.WAIT, sleep, blocked)
    if facts.stays <= 0:
        return Plan(Action.HANG_UP, sleep, blocked)
    return Plan(Action.WAIT, min(sleep, facts.stays), blocked)


def _connected(facts: Facts, sleep: float, *, has_mail: bool) -> Plan:
    """There is a connection, and mail for it now or soon."""
    if facts.idle:
        return Plan(Action.WAKE_CONVERSATION if has_mail else Action.WAIT, sleep)
    if has_mail and facts.due_count is None:
        return Plan(Action.COUNT_DUE)
    count = conversations_to_open(facts)
    return Plan(Action.OPEN_CONVERSATIONS, sleep, conversations=count) if count else Plan(Action.WAIT, sleep)


def conversations_to_open(facts: Facts) -> int:
    """One where there is none, one for mail that no conversation is about to take, more for more mail."""
    waiting = facts.due_count or 0
    wanted = -(-waiting // MESSAGES_PER_CHANNEL) - facts.conversations
    if not facts.conversations or (waiting > facts.asking and facts.all_ready):
        wanted = max(1, wanted)
    return max(0, min(wanted, facts.room))


class Progress(enum.IntEnum):
    """How far a conversation has come."""

    NOTHING = 0
    """No job has ended."""
    FINISHED = 1
    """A job has ended with outcomes, none of which was a reply."""
    REPLIED = 2
    """A job has ended with a reply of the mail server."""


class Consequence(enum.Enum):
    """What follows from the end of a conversation."""

    NONE = enum.auto()
    FEWER_CONVERSATIONS = enum.auto()
    """The mail server allows no more than the others, which go on; the last one shows whether it allows any."""
    FAULT = enum.auto()
    """The relayhost cannot be used."""


def consequence(progress: Progress, *, broke_off: bool, was_idle: bool, is_connected: bool, others: int) -> Consequence:
    """What follows from the end of a conversation.

    broke_off: we did not end it. was_idle: it waited for mail. is_connected: the SSH connection is up. others: how many
    other conversations are open.
    """
    if not broke_off or was_idle or progress is Progress.REPLIED:
        return Consequence.NONE
    if progress is Progress.FINISHED and is_connected:
        # The fault concerns one message.
        return Consequence.NONE
    return Consequence.FEWER_CONVERSATIONS if others else Consequence.FAULT
