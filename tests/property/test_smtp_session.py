"""The session with mail servers of every kind: correct ones with arbitrary refusals, and ones that send nonsense."""

import random
import re
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import SETUP_REPLIES, Outcome, Scope, Stage
from mailrelay.mail.triage import Disposition, classify
from mailrelay.smtp.events import ContentWanted, Ended, Event, Finished, Planned, Ready, Untried
from mailrelay.smtp.extensions import Extension
from mailrelay.smtp.flight import SMALL, Trust
from mailrelay.smtp.record import Exchange, Proof, Record
from mailrelay.smtp.session import Session

Accepted = set[tuple[bytes, bytes]]


def sender(key: int) -> bytes:
    return b"sender%d@example.org" % key


def envelope(key: int, recipients: int) -> Envelope:
    return Envelope(sender(key), tuple(Recipient(b"r%d@example.net" % index) for index in range(recipients)))


def refuses_us(outcome: Outcome) -> bool:
    return outcome.cause in SETUP_REPLIES


class Client:
    """Drives a session as the relay does, and checks what must hold whatever the remote does."""

    def __init__(self, trust: Trust = Trust.PROVEN) -> None:
        self.session = Session(b"[127.0.0.1]", trust=trust)
        self.envelopes: dict[int, Envelope] = {}
        self.contents: dict[int, bytes | None] = {}
        self.wanted: list[tuple[int, bytes]] = []
        self.planned: dict[int, Exchange] = {}
        self.finished: dict[int, tuple[Outcome, ...]] = {}
        self.untried: set[int] = set()
        self.ready = False
        self.ended: Outcome | None = None

    def start(self, recipients: int, content: bytes | None) -> None:
        """content: None to have the envelope vetted."""
        key = len(self.envelopes)
        self.envelopes[key] = envelope(key, recipients)
        self.contents[key] = content
        self.note(self.session.start(key, self.envelopes[key], None if content is None else len(content)))

    def note(self, events: list[Event]) -> None:
        for event in events:
            assert self.ended is None, "something was said after the end"
            match event:
                case Ready():
                    assert not self.ready
                    self.ready = True
                case Planned(key, exchange):
                    assert key not in self.planned
                    self.planned[key] = exchange
                case ContentWanted(key):
                    content = self.contents[key]
                    assert content is not None, "an envelope was to be vetted, and no more"
                    self.wanted.append((key, content))
                case Finished(key, outcomes):
                    assert key not in self.finished.keys() | self.untried
                    assert len(outcomes) == len(self.envelopes[key].recipients)
                    assert all(outcome.scope is not Scope.RELAYHOST for outcome in outcomes if not refuses_us(outcome))
                    self.finished[key] = outcomes
                case Untried(key):
                    assert key not in self.finished.keys() | self.untried
                    self.untried.add(key)
                case Ended(outcome):
                    assert refuses_us(outcome) or (outcome.scope is Scope.RELAYHOST) == (not self.ready)
                    self.ended = outcome

    def feed(self, octets: int) -> None:
        """Some more of the content that is wanted first, or its end."""
        key, rest = self.wanted.pop(0)
        if rest:
            self.session.send_content(rest[:octets])
            self.wanted.insert(0, (key, rest[octets:]))
        else:
            self.note(self.session.end_content())

    def check_end(self) -> None:
        assert self.ended is not None
        assert self.finished.keys() | self.untried == self.envelopes.keys()
        assert not self.session.capacity
        assert self.session.take_output() == b""
        assert self.session.awaiting is None


@dataclass
class Remote:
    """A mail server that keeps to the RFCs, and within them does as `chance` likes."""

    chance: random.Random
    offers: frozenset[bytes]
    severity: float
    """How likely it is that it refuses something, from 0 to 1."""
    data_for_nobody: bool
    """It says 354 although it accepted no recipient."""
    keeps_transaction: bool
    """It keeps the transaction after a BDAT that it refused (RFC 3030 section 2: RSET is needed)."""
    refuses_bdat: bytes = b""
    """Its reply to every BDAT, although it offers CHUNKING."""
    reads_chunks: bool = False
    """It reads the content of a BDAT that it refused as commands."""
    accepted: Accepted = field(default_factory=set)
    contents: dict[bytes, bytes] = field(default_factory=dict)
    misled: bool = False
    """It heard a command at a point where none like it may come."""
    closed: bool = False
    """It said 421."""
    said: bytes = b""
    """All its replies."""
    _input: bytes = b""
    _content: bytes | None = None
    _expected: int | None = None
    _skipped: int = 0
    _from: bytes | None = None
    _to: list[bytes] = field(default_factory=list)

    def greet(self) -> bytes:
        self.said = self.reply(b"220")
        return self.said

    def feed(self, octets: bytes) -> bytes:
        self._input += octets
        said = b""
        while not self.closed and (step := self._step()) is not None:
            said += step
        self.said += said
        return said

    def reply(self, good: bytes) -> bytes:
        if self.chance.random() < self.severity:
            good = self.chance.choice([b"421", b"450", b"451", b"452", b"501", b"550", b"552", b"554", b"599"])
            self.closed = good == b"421"
        more = b"".join(b"%b-more\r\n" % good for _ in range(self.chance.choice([0, 0, 0, 2])))
        return more + good + self.chance.choice([b" 2.0.0 words\r\n", b"\r\n", b" \r\n"])

    def _step(self) -> bytes | None:  # noqa: PLR0911 - what it reads next
        if self._skipped:
            skipped = min(self._skipped, len(self._input))
            self._input, self._skipped = self._input[skipped:], self._skipped - skipped
            return b"" if skipped else None
        if self._expected is not None:
            if len(self._input) < self._expected:
                return None
            content, self._input = self._input[: self._expected], self._input[self._expected :]
            self._expected = None
            return self._chunk(content)
        line, end, rest = self._input.partition(b"\r\n")
        if not end:
            return None
        self._input = rest
        if self.refuses_bdat and line.startswith(b"BDAT"):
            self._skipped = 0 if self.reads_chunks else int(line.split()[1])
            return self.refuses_bdat
        if self._content is not None:
            if line != b".":
                self._content += line.removeprefix(b".") + b"\r\n"
                return b""
            content, self._content = self._content, None
            said = self._take(content)
            self._forget()
            return said
        assert not re.search(rb"[\x00-\x1f\x7f]", line), "a control character in a command"
        return self._command(line)

    def _command(self, line: bytes) -> bytes:  # noqa: C901, PLR0911, PLR0912 - a server, command by command
        verb = line[:4].upper()
        match verb:
            case b"EHLO":
                said = self.reply(b"250")
                return (
                    b"250-mx\r\n" + b"\r\n".join(b"250-" + o for o in self.offers) + b"\r\n250 X\r\n"
                    if said[:1] == b"2"
                    else said
                )
            case b"HELO":
                return self.reply(b"250")
            case b"RSET":
                self._forget()
                return b"250 ok\r\n"
            case b"MAIL":
                if self._from is not None:
                    self.misled |= not self.reads_chunks
                    return b"503 nested MAIL\r\n"
                said = self.reply(b"250")
                self._from = line.split(b"<")[1].split(b">")[0] if said[:1] == b"2" else None
                return said
            case b"RCPT":
                if self._from is None:
                    return b"503 need MAIL\r\n"
                said = self.reply(self.chance.choice([b"250", b"251", b"252"]))
                if said[:1] == b"2":
                    self._to.append(line.split(b"<")[1].split(b">")[0])
                return said
            case b"DATA":
                if self._from is None or (not self._to and not self.data_for_nobody):
                    return b"503 nobody\r\n"
                said = self.reply(b"354")
                self._content = b"" if said[:1] == b"3" else None
                return said
            case b"BDAT":
                _, size, last = line.split()
                assert last == b"LAST"
                self._expected = int(size)
                return b""
            case b"QUIT":
                return b"221 bye\r\n"
            case _:
                self.misled |= not self.reads_chunks
                return b"500 what?\r\n"

    def _chunk(self, content: bytes) -> bytes:
        said = b"503 nobody\r\n" if self._from is None or not self._to else self._take(content)
        if said[:1] == b"2" or not self.keeps_transaction:
            self._forget()
        return said

    def _take(self, content: bytes) -> bytes:
        said = self.reply(b"250")
        if said[:1] == b"2" and self._from is not None:
            self.accepted |= {(self._from, to) for to in self._to}
            self.contents[self._from] = content
        return said

    def _forget(self) -> None:
        self._from = None
        self._to = []


OFFERS = st.sampled_from(
    [frozenset[bytes](), frozenset({b"PIPELINING"}), frozenset({b"PIPELINING", b"CHUNKING"}), frozenset({b"CHUNKING"})]
)
LARGE = b"x" * SMALL + b"\r\n"
CONTENTS = st.lists(st.sampled_from([b".\r\n", b"\r\n", b"..x\r\n", b"RSET\r\nMAIL FROM:<x>\r\n"]), max_size=4).map(
    b"".join
)
REMOTES = st.builds(
    Remote,
    chance=st.randoms(use_true_random=False),
    offers=OFFERS,
    severity=st.sampled_from([0.0, 0.05, 0.3]),
    data_for_nobody=st.booleans(),
    keeps_transaction=st.booleans(),
)
MESSAGES = st.lists(
    st.tuples(st.integers(1, 4), st.none() | CONTENTS, st.sampled_from([0, 0, 0, SMALL])), min_size=1, max_size=12
)
"""Recipients, content, and octets of padding: some messages exceed what is sent before the recipients are known. Where the
content is None, the envelope is vetted."""


def converse(
    remote: Remote, messages: list[tuple[int, bytes | None, int]], steps: int, chance: random.Random
) -> tuple[Client, Accepted]:
    """Lets octets trickle both ways, in any order, until all is done, the remote closes, or the wire is cut after
    `steps`. Sometimes the remote closes then instead, and all that it has said arrives. Gives the client, and what the
    remote had accepted by then."""
    client = Client(chance.choices(list(Trust), (1, 8, 1))[0])
    waiting = list(messages)
    there, back = b"", remote.greet()
    for _ in range(steps):
        there += client.session.take_output()
        moves = [name for name, possible in (
            ("start", waiting and client.session.capacity),
            ("feed", client.wanted),
            ("there", there and not remote.closed),
            ("back", back),
        ) if possible]  # fmt: skip
        if client.ended is not None:
            break
        if not moves and remote.closed:
            break
        match chance.choice(moves) if moves else "quit":
            case "start":
                recipients, content, padding = waiting.pop(0)
                client.start(recipients, None if content is None else content + b"x" * padding + b"\r\n")
            case "feed":
                client.feed(chance.choice([7, 40_000, 100_000]))
            case "there":
                octets = chance.choice([3, 100_000])
                back += remote.feed(there[:octets])
                there = there[octets:]
            case "back":
                octets = chance.choice([1, 5, 1000])
                client.note(client.session.receive(back[:octets]))
                back = back[octets:]
            case _:
                assert not client.session.awaiting, "it waits for a reply to what it never said"
                client.session.quit()
    if is_closed := chance.random() < 0.5:
        client.note(client.session.receive(back))
    client.note(client.session.lost("the wire was cut", is_closed=is_closed))
    return client, remote.accepted


@settings(max_examples=200)
@given(REMOTES, MESSAGES, st.sampled_from([20, 60, 100_000]), st.randoms(use_true_random=False))
def test_the_session_and_the_mail_server_agree_on_the_accepted_recipients(
    remote: Remote, messages: list[tuple[int, bytes | None, int]], steps: int, chance: random.Random
) -> None:
    client, accepted = converse(remote, messages, steps, chance)
    client.check_end()
    assert not remote.misled
    for key, outcomes in client.finished.items():
        for recipient, outcome in zip(client.envelopes[key].recipients, outcomes, strict=True):
            verdict = classify(outcome)
            if client.contents[key] is None:
                willing = outcome.reply is not None and outcome.reply.code // 100 == 2
                assert not willing or outcome.stage is Stage.RCPT
                assert verdict is not Disposition.SENT
                continue
            taken = (sender(key), recipient.address) in accepted
            if taken:
                assert verdict in (Disposition.SENT, Disposition.UNCERTAIN)
            else:
                assert verdict is not Disposition.SENT
            if not remote.closed and steps == 100_000:
                assert verdict is not Disposition.UNCERTAIN
    assert not {pair for pair in accepted if pair[0] in {sender(key) for key in client.untried}}
    assert all(
        content == client.contents[key] for key in client.envelopes if (content := remote.contents.get(sender(key)))
    )


@settings(max_examples=200)
@given(REMOTES, MESSAGES, st.sampled_from([20, 60, 100_000]), st.randoms(use_true_random=False), st.integers(0))
def test_the_record_of_a_conversation_says_which_recipients_the_mail_server_accepted(
    remote: Remote, messages: list[tuple[int, bytes | None, int]], steps: int, chance: random.Random, cut: int
) -> None:
    client, accepted = converse(remote, messages, steps, chance)
    whole = Record(remote.said, is_complete=True)
    part = Record(remote.said[: cut % (len(remote.said) + 1)], is_complete=False)
    for key, exchange in client.planned.items():
        recipients = [client.envelopes[key].recipients[index].address for index in exchange.recipients]
        assert len(whole.proofs(exchange)) == len(recipients)
        for address, of_whole, of_part in zip(recipients, whole.proofs(exchange), part.proofs(exchange), strict=True):
            taken = (sender(key), address) in accepted
            assert of_whole in (Proof.SENT if taken else Proof.NOT_TAKEN, Proof.UNKNOWN)
            assert of_part in (Proof.SENT if taken else Proof.NOT_TAKEN, Proof.UNKNOWN)
            if of_whole is Proof.UNKNOWN:
                assert not exchange.has_data
                assert re.search(rb"^50[0-4]", remote.said, re.MULTILINE)
            if of_whole is Proof.SENT:
                reply = whole.reply_to_content(exchange)
                assert reply is not None
                assert reply.code // 100 == 2


BDAT_REFUSALS = st.sampled_from(
    [b"500 unknown command\r\n", b"502 5.5.1 not implemented\r\n", b"503 bad sequence of commands\r\n", b"504\r\n"]
)
RECEIVED = b"Received: from x\r\n"
"""The first line of every message: a mail server that takes it for a command refuses it."""


@settings(max_examples=200)
@given(REMOTES, BDAT_REFUSALS, st.booleans(), MESSAGES, st.randoms(use_true_random=False))
def test_a_mail_server_that_refuses_bdat_gets_nothing_by_it_and_costs_no_message(
    remote: Remote,
    refusal: bytes,
    reads_chunks: bool,
    messages: list[tuple[int, bytes | None, int]],
    chance: random.Random,
) -> None:
    remote.offers = frozenset({b"PIPELINING", b"CHUNKING"})
    remote.refuses_bdat, remote.reads_chunks, remote.severity = refusal, reads_chunks, 0.0
    letters = [(count, None if body is None else RECEIVED + body, pad) for count, body, pad in messages]
    client, accepted = converse(remote, letters, 100_000, chance)
    client.check_end()
    assert not remote.misled
    assert not accepted
    tried = {key for key, content in client.contents.items() if content is not None}
    assert client.untried >= tried
    record = Record(remote.said, is_complete=True)
    assert all(Proof.SENT not in record.proofs(exchange) for exchange in client.planned.values())
    if tried:
        assert client.session.refused == {Extension.CHUNKING}


REPLIES = st.sampled_from(
    [b"220 mx\r\n", b"250 ok\r\n", b"250-mx\r\n250 PIPELINING\r\n", b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n"]
    + [b"%d text\r\n" % code for code in (250, 250, 250, 354, 354, 221, 334, 421, 450, 503, 550, 552, 599)]
)
NONSENSE = st.sampled_from([b"\r\n", b"hello\r\n", b"250-a\r\n251 b\r\n", b"\xff\x00\n", b"2" * 5000])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("receive"), REPLIES),
        st.tuples(st.just("receive"), REPLIES),
        st.tuples(st.just("receive"), NONSENSE),
        st.tuples(
            st.sampled_from(["start", "start", "feed", "feed", "take", "take", "large", "vet", "quit", "lost"]),
            st.just(b""),
        ),
    ),
    max_size=60,
)
OK = ("receive", b"250 ok\r\n")
GREETED = [("receive", b"220 mx\r\n"), ("take", b"")]
FED = [("feed", b""), ("feed", b""), ("take", b"")]
"""The content, its end, and both sent."""
IN_LINES = [("start", b""), *[("take", b""), OK] * 3, ("take", b""), ("receive", b"354 go on\r\n"), *FED, OK]
IN_CHUNKS = [("start", b""), *FED, *[OK] * 4]
CONVERSATIONS = [
    [*GREETED, ("receive", b"250 mx\r\n"), *IN_LINES],
    [*GREETED, ("receive", b"250-mx\r\n250 PIPELINING\r\n"), *IN_LINES],
    [*GREETED, ("receive", b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n"), *IN_CHUNKS],
]
"""Each ends with a message that is sent: by chance alone, hardly a conversation comes so far."""
BEGINNINGS = st.sampled_from([[], *(whole[:end] for whole in CONVERSATIONS for end in range(3, len(whole) + 1))])


@settings(max_examples=500)
@given(BEGINNINGS, STEPS)
def test_every_message_ends_once_and_none_is_sent_without_a_success_after_its_content(  # noqa: C901 - a whole dialogue
    beginning: list[tuple[str, bytes]], steps: list[tuple[str, bytes]]
) -> None:
    client = Client()
    successes = 0
    complete: dict[int, int] = {}
    fed: list[int] = []
    for step, octets in beginning + steps:
        match step:
            case "receive":
                client.note(client.session.receive(octets))
                successes += octets.startswith(b"2")
            case "start" | "large" | "vet" if client.session.capacity:
                client.start(2, {"start": b".\r\n", "large": LARGE, "vet": None}[step])
            case "feed" if client.wanted:
                key = client.wanted[0][0]
                client.feed(100_000)
                if not client.wanted or client.wanted[0][0] != key:
                    fed.append(key)
            case "take":
                client.session.take_output()
                complete.update({key: successes for key in fed if key not in complete})
            case "quit":
                client.session.quit()
            case "lost":
                client.note(client.session.lost("the wire was cut"))
        for key, outcomes in client.finished.items():
            if any(classify(outcome) is Disposition.SENT for outcome in outcomes):
                assert key in complete
                assert successes > complete[key]
    client.note(client.session.lost("the wire was cut"))
    client.check_end()
