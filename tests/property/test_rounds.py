"""Rounds against mail servers of any kind: every round ends, nobody gets a message twice, and no recipient is left out."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from mailrelay.mail.conclusion import RetryPolicy, conclude
from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.mail.record import Place
from mailrelay.mail.states import PENDING, State
from mailrelay.relay.rounds import Rounds

SURPLUS = [b"4.5.3 Too many recipients", b"too many recipients", b"4.3.1 too many recipients"]
POLICY = RetryPolicy((60.0,), 432_000.0, lambda kind, sender, notify: ())


def said(stage: Stage, code: int, words: bytes) -> Outcome:
    return Outcome(stage, Reply(code, (words,)))


@dataclass(frozen=True)
class Server:
    """most: the recipients that it takes in a transaction. surplus: its reply to the others. replies: to RCPT, by the key of
    the recipient, where it is not a 2xx. at_end: the outcome of the accepted ones; at_end_of_too_many: the same where there
    were too many. skips: it accepts every third surplus recipient nevertheless."""

    most: int
    surplus: Outcome
    replies: dict[int, Outcome]
    at_end: Outcome
    at_end_of_too_many: Outcome
    skips: bool

    def outcomes(self, keys: tuple[int, ...]) -> list[Outcome]:
        accepted, found, too_many = 0, {}, False
        for key in keys:
            if accepted >= self.most and not (self.skips and key % 3 == 0):
                found[key], too_many = self.surplus, True
            elif key in self.replies:
                found[key] = self.replies[key]
            else:
                accepted += 1
        end = self.at_end_of_too_many if too_many else self.at_end
        return [found.get(key, end) for key in keys]


ENDS = st.sampled_from(
    [
        said(Stage.CONTENT, 250, b"2.0.0 taken"),
        said(Stage.CONTENT, 250, b"2.0.0 taken"),
        said(Stage.DATA, 451, b"4.3.0 later"),
        said(Stage.DATA, 554, b"too many recipients"),
        said(Stage.CONTENT, 552, b"5.5.3 too many recipients"),
        said(Stage.CONTENT, 554, b"5.7.1 spam"),
        said(Stage.MAIL, 451, b"4.7.1 later"),
        Outcome(Stage.AFTER_DOT, cause=Cause.LOST),
        Outcome(Stage.RCPT, cause=Cause.LOST),
    ]
)
REPLIES = st.sampled_from(
    [
        said(Stage.RCPT, 550, b"5.1.1 no such user"),
        said(Stage.RCPT, 450, b"4.2.0 greylisted"),
        said(Stage.RCPT, 452, b"4.2.2 mailbox full"),
        said(Stage.RCPT, 552, b"mailbox full"),
        said(Stage.RCPT, 452, b"4.5.3 try this recipient in a transaction of its own"),
        Outcome(Stage.RCPT, cause=Cause.NO_SMTPUTF8),
    ]
)
SERVERS = st.builds(
    Server,
    st.integers(0, 12),
    st.builds(said, st.just(Stage.RCPT), st.sampled_from([450, 452, 550, 552]), st.sampled_from(SURPLUS)),
    st.dictionaries(st.integers(1, 30), REPLIES, max_size=8),
    ENDS,
    ENDS,
    st.booleans(),
)


@given(SERVERS, st.integers(1, 30), st.one_of(st.none(), st.integers(1, 12)))
def test_every_round_ends_with_each_recipient_sent_once_or_settled(
    server: Server, count: int, limit: int | None
) -> None:
    rounds = Rounds(limit)
    states = dict.fromkeys(range(1, count + 1), State.QUEUED)
    place, transactions = Place.GOES_ON, 0
    while place is Place.GOES_ON:
        transactions += 1
        assert transactions <= 2 * count + 12, "the round does not end"
        keys = tuple(key for key, state in states.items() if state in PENDING)
        recipients = tuple(Recipient(b"r%d@example.net" % key) for key in keys)
        whole = Message(1, "q", "default", Envelope(b"a@example.org", recipients), keys, 10, 0.0, 0)
        part = rounds.part(whole)
        assert part.recipient_ids
        assert len(part.recipient_ids) + part.later + part.waiting == len(keys)
        # Those that an earlier transaction has deferred are not offered again.
        assert all(states[key] is State.QUEUED for key in part.recipient_ids)
        outcomes = server.outcomes(part.recipient_ids)
        record = conclude(part, outcomes, POLICY, client_told=False, relays_dsn=True, now=100.0, chance=0.0)
        place = record.place
        for one in record.settled:
            states[one.recipient] = one.state
        rounds.ended(part, outcomes, record)
        waiting = [state for state in states.values() if state in PENDING]
        assert (record.next_attempt is not None) == bool(waiting)
        if place is not Place.GOES_ON and waiting:
            assert record.next_attempt == 160.0
    if server.most and all(
        end.reply is not None and end.reply.code == 250 for end in (server.at_end, server.at_end_of_too_many)
    ):
        assert State.QUEUED not in states.values()
    # The next attempt begins anew, with all that wait.
    keys = tuple(key for key, state in states.items() if state in PENDING)
    if keys:
        recipients = tuple(Recipient(b"x@example.net") for _ in keys)
        again = rounds.part(Message(1, "q", "default", Envelope(b"", recipients), keys, 10, 0.0, 1))
        assert (again.waiting, again.is_continued) == (0, False)
