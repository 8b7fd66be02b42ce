"""Dialogues of clients that hypothesis makes, all the way: listener, spool, SSH, mail server.

What must hold: a legal dialogue has the replies that RFC 5321 says, in order; each message with a 250 arrives once, with its
own envelope and content, octet for octet; nothing else arrives. Any other dialogue has legal replies, and nothing arrives
but what the client sent between DATA and CRLF.CRLF.

    MAILRELAY_FUZZ=20000 pytest --timeout 0 tests/property/test_dialogues.py
"""

import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness.fuzzing import Bench, Flight, fuzzed, stuffed, without_our_field
from hypothesis import given, note
from hypothesis import strategies as st

from mailrelay.demo.remote import HOST, Received
from mailrelay.mail.address import parse_path

_marks = itertools.count(1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    path: Path = tmp_path_factory.mktemp("bench")
    with Bench(path) as bench:
        bench.remote.policy = _take_all
        yield bench


async def _take_all(_verb: str, _argument: bytes) -> None:
    return None


# Envelopes.

ATOM = st.text("abzXYZ019!#$%&'*+-/=?^_`{|}~", min_size=1, max_size=8)
UTF8_ATOM = st.text("aßяü好\u0301😀", min_size=1, max_size=5)
QUOTED = st.text('ab <>@,:.;()[] \\"', max_size=8).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
LOCAL = st.one_of(
    ATOM, st.lists(ATOM, min_size=2, max_size=3).map(".".join), QUOTED, ATOM.map(lambda atom: f"{atom}..x.")
)
DOMAIN = st.sampled_from(
    ["example.org", "a.b.example", "[127.0.0.1]", "[IPv6:::1]", "x_y.example", "EXAMPLE.net", "h."]
)
ADDRESS = st.one_of(st.builds("{}@{}".format, LOCAL, DOMAIN), st.just("CORP\\alice@x.example"))
BARE_NAME = st.sampled_from(["postmaster", "root"])
UTF8_ADDRESS = st.builds("{}@{}".format, UTF8_ATOM, st.sampled_from(["bücher.example", "example.org", "почта.рф"]))
XTEXT = st.text("abc019+20+3D;,/@.", max_size=20).filter(
    lambda text: "+" not in text.replace("+20", "").replace("+3D", "") and text != ""
)
CASE = st.sampled_from([str.upper, str.lower, str.title])


@dataclass
class Sent:
    """A message as a client sends it: what must arrive."""

    sender: bytes
    recipients: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    ret: bytes = b""
    envid: bytes = b""
    content: bytes = b""


@st.composite
def senders(draw: st.DrawFn) -> tuple[bytes, Sent, bool]:
    """The argument of a MAIL, what must arrive of it, and whether it has SMTPUTF8."""
    utf8 = draw(st.booleans())
    sender = draw(st.one_of(st.just(""), ADDRESS, *([UTF8_ADDRESS] if utf8 else [])))
    words = ["SMTPUTF8"] if utf8 else []
    words += draw(st.lists(st.sampled_from(["BODY=8BITMIME", "body=7bit"]), max_size=1))
    words += draw(st.lists(st.just("SIZE=1000"), max_size=1))
    ret = draw(st.sampled_from(["", "", "FULL", "HDRS"]))
    envid = draw(st.one_of(st.just(""), XTEXT))
    words += [f"RET={ret}"] if ret else []
    words += [f"ENVID={envid}"] if envid else []
    words = draw(st.permutations(words))
    route = draw(st.sampled_from(["", "", "@a.example:", "@a.example,@b.example:"])) if sender else ""
    space = draw(st.sampled_from(["", "", " "]))
    text = f"{draw(CASE)('mail')} {draw(CASE)('from')}:{space}<{route}{sender}>{''.join(f' {word}' for word in words)}"
    return text.encode(), Sent(sender.encode(), ret=ret.encode(), envid=envid.encode()), utf8


@st.composite
def recipients(draw: st.DrawFn, utf8: bool) -> tuple[bytes, tuple[bytes, bytes, bytes]]:
    address = draw(st.one_of(ADDRESS, BARE_NAME, *([UTF8_ADDRESS] if utf8 else [])))
    # A bare name is completed with the name of the relayhost, but postmaster is known everywhere (RFC 5321 section 4.5.1).
    whole = f"root@{HOST}" if address == "root" else address
    notify = draw(st.sampled_from(["", "", "NEVER", "SUCCESS,FAILURE", "DELAY"]))
    orcpt = draw(st.one_of(st.just(""), XTEXT.map(lambda text: f"rfc822;{text}")))
    words = [f"NOTIFY={notify}"] if notify else []
    words += [f"ORCPT={orcpt}"] if orcpt else []
    text = f"{draw(CASE)('rcpt')} {draw(CASE)('to')}:<{address}>{''.join(f' {word}' for word in words)}"
    return text.encode(), (whole.encode(), notify.encode(), orcpt.encode())


# Contents.

LINE = st.one_of(
    st.sampled_from(
        [b"", b".", b"..", b"...", b".x", b"MAIL FROM:<inner@x.example>", b"RSET", b"QUIT", b"DATA", b" .", b". "]
    ),
    st.binary(max_size=30).map(lambda octets: bytes(octet for octet in octets if octet not in b"\r\n\0")),
    st.integers(900, 3000).map(lambda length: b"x" * length),
)
LINES = st.lists(LINE, max_size=12)
BARE = st.sampled_from(
    [
        b"\n",
        b"\r",
        b"\n.\n",
        b"\r.\r",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r\n.\r",
        b"\r.\r\n",
        b"\r\r\n.\r\n",
        b"\n\r.\r\n",
        b"\r\n.\r\r\n",
    ]
)
SMUGGLED = b"MAIL FROM:<smuggled@x.example>\r\nRCPT TO:<smuggled@x.example>\r\nDATA\r\nsmuggled\r\n.\r\n"


def marked(lines: list[bytes], repeated: int) -> bytes:
    """A content with a mark of its own, and what keeps us from adding fields."""
    head = b"Date: now\r\nMessage-ID: <mark-%08d@x.example>\r\n" % next(_marks)
    return head + b"\r\n" + b"".join(line + b"\r\n" for line in lines) * repeated


@dataclass
class Dialogue:
    """flights, with the codes expected for each. sent: what must arrive, in order. may_arrive: what may arrive behind it.
    is_cut: the client closes after the last flight, without waiting."""

    flights: list[Flight] = field(default_factory=list)
    codes: list[list[bytes]] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    may_arrive: list[Sent] = field(default_factory=list)
    is_cut: bool = False


class Ending(enum.Enum):
    """How a content ends."""

    WHOLE = enum.auto()
    NEVER = enum.auto()
    BARE = enum.auto()
    """By a bare CR or LF, and what follows is a message of somebody else, if a server takes that for the end."""
    NUL = enum.auto()
    NOT_WAITED_FOR = enum.auto()


CUTS = st.one_of(st.just(()), st.lists(st.integers(0, 5000), max_size=8).map(tuple), st.just(tuple(range(400))))


@st.composite
def contents(draw: st.DrawFn, done: Dialogue, sent: Sent) -> bool:
    """Adds the flight of a content to a dialogue. Returns whether the dialogue goes on behind it."""

    def add(octets: bytes, *codes: bytes) -> None:
        done.flights.append(Flight(octets, len(codes), draw(CUTS)))
        done.codes.append([*codes])

    content = marked(draw(LINES), draw(st.sampled_from([1, 1, 1, 1, 40])))
    ending = draw(st.sampled_from([Ending.WHOLE] * 16 + list(Ending)))
    if ending is Ending.NEVER:
        whole = stuffed(content)[:-3]
        add(whole[: draw(st.integers(0, len(whole)))])
        done.is_cut = True
    elif ending is Ending.BARE:
        add(stuffed(content)[:-3] + b"x" + draw(BARE) + SMUGGLED, b"550")
    elif ending is Ending.NOT_WAITED_FOR:
        sent.content = content
        add(stuffed(content))
        done.is_cut, done.may_arrive = True, [sent]
    else:
        code = b"550" if ending is Ending.NUL else b"250"
        if ending is Ending.WHOLE:
            sent.content = content
            done.sent.append(sent)
        octets = stuffed(content + b"nul \0\r\n" if ending is Ending.NUL else content)
        if draw(st.booleans()):
            # A command in the same flight as the end of the content.
            add(octets + b"RSET\r\n", code, b"250")
        else:
            add(octets, code)
    return ending in (Ending.WHOLE, Ending.NUL)


NOISE = st.sampled_from(
    [
        (b"NOOP", b"250"), (b"RSET", b"250"), (b"VRFY x", b"252"), (b"HELP", b"214"), (b"XYZZY", b"500"),
        (b"DATA x", b"501"),
        (b"RCPT TO:<early@x.example>", b"503"), (b"EXPN x", b"502"), (b"EHLO again", b"250"), (b"MAIL FROM:a@b", b"553"),
        (b"MAIL FROM:<a@b> SIZE=999999999", b"552"), (b"MAIL FROM:<a@b> BODY=9BIT", b"501"), (b"STARTTLS", b"502"),
        ("MAIL FROM:<ü@b>".encode(), b"553"), (b"MAIL FROM:<a\tb@c>", b"500"), (b"AUTH PLAIN x", b"502"),
    ]
)  # fmt: skip
"""Commands outside a transaction, with the code of the reply."""
MISTAKES = st.sampled_from(
    [
        [], [], [], [(b"RCPT TO:<a b@x>", b"553")], [(b"RCPT TO:<a@x..y>", b"553")], [(b"RCPT TO:<>", b"553")],
        [(b"MAIL FROM:<second@x.example>", b"503")], [(b"RCPT TO:<a@x.example> FOO=1", b"555")],
    ]
)  # fmt: skip
"""The same for commands between MAIL and RCPT."""


@st.composite
def legal_dialogues(draw: st.DrawFn) -> Dialogue:  # noqa: C901 - one branch for each liberty of a client
    """Dialogues of a client that keeps to RFC 5321 and RFC 2920, and makes mistakes that have a reply of their own."""
    done = Dialogue()
    group: list[tuple[bytes, bytes]] = []

    def send() -> None:
        octets = b"".join(line + b"\r\n" for line, _ in group)
        if octets:
            done.flights.append(Flight(octets, len(group), draw(CUTS)))
            done.codes.append([code for _, code in group])
        group.clear()

    def say(line: bytes, code: bytes, *, is_last: bool = False) -> None:
        group.append((line, code))
        if is_last or draw(st.booleans()):
            send()

    say(draw(st.sampled_from([b"EHLO x", b"ehlo [127.0.0.1]"])), b"250", is_last=True)
    for _ in range(draw(st.integers(1, 4))):
        for noise in draw(st.lists(NOISE, max_size=2)):
            say(*noise, is_last=True)
        line, sent, utf8 = draw(senders())
        say(line, b"250")
        for _ in range(draw(st.integers(0, 3))):
            for mistake in draw(MISTAKES):
                say(*mistake)
            line, recipient = draw(recipients(utf8))
            sent.recipients.append(recipient)
            say(line, b"250")
        if not sent.recipients or draw(st.integers(0, 5)) == 0:
            say(b"RSET", b"250")
            continue
        say(b"DATA", b"354", is_last=True)
        if not draw(contents(done, sent)):
            return done
    send()
    say(b"QUIT", b"221", is_last=True)
    return done


def arrived(received: Received) -> Sent:
    """What the mail server has, in the same form."""
    found = Sent(b"")
    mail, *rcpts = received.arguments
    found.sender, rest = parse_path(mail[5:], smtputf8=True, null=True)
    words = dict(word.partition(b"=")[::2] for word in rest.split())
    found.ret, found.envid = words.get(b"RET", b""), words.get(b"ENVID", b"")
    for rcpt in rcpts:
        address, rest = parse_path(rcpt[3:], smtputf8=True, null=False)
        words = dict(word.partition(b"=")[::2] for word in rest.split())
        found.recipients.append((address, words.get(b"NOTIFY", b""), words.get(b"ORCPT", b"")))
    _, found.content = without_our_field(received)
    return found


@fuzzed(200)
@given(dialogue=legal_dialogues())
def test_a_legal_dialogue_has_its_replies_and_each_message_arrives_once_as_it_was_sent(
    bench: Bench, dialogue: Dialogue
) -> None:
    before = len(bench.remote.received)
    talk = bench.run(bench.talk(dialogue.flights, is_cut=dialogue.is_cut))
    bench.run(bench.settled())
    note(f"{talk}")
    codes = [[reply[:3] for reply in flight] for flight in talk.replies[1 : 1 + len(dialogue.codes)]]
    if dialogue.is_cut:
        # The client did not wait for the replies to its last flight.
        assert codes == dialogue.codes[: len(codes)] and len(codes) >= len(dialogue.codes) - 1
    else:
        assert codes == dialogue.codes
        assert talk.is_closed and not any(talk.replies[1 + len(dialogue.codes) :])
    come = [arrived(received) for received in bench.remote.received[before:]]
    # One by one: a comparison of the whole lists shows only that they differ.
    for found, sent in zip(come, dialogue.sent, strict=False):
        assert (found.sender, found.ret, found.envid) == (sent.sender, sent.ret, sent.envid)
        assert found.recipients == sent.recipients
        assert found.content == sent.content
    assert len(come) >= len(dialogue.sent)
    assert come[len(dialogue.sent) :] in ([], dialogue.may_arrive)


# Any dialogue.

TOKEN = st.one_of(
    st.sampled_from(
        [
            b"EHLO x\r\n",
            b"HELO x\r\n",
            b"MAIL FROM:<a@x.example>\r\n",
            b"RCPT TO:<b@x.example>\r\n",
            b"DATA\r\n",
            b".\r\n",
            b"\r\n.\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b".",
            b"\n.\n",
            b"\r\n.\n",
            b"\n.\r\n",
            b"\r.\r\n",
            b"RSET\r\n",
            b"QUIT\r\n",
            b"NOOP\r\n",
            b"BDAT 5\r\nhello",
            b"BDAT 0 LAST\r\n",
            b"Subject: x\r\n\r\n",
            b"MAIL FROM:<>\n",
            b"RCPT TO:<c@x.example>\n",
            b"DATA\n",
            b'MAIL FROM:<"a\r\nRCPT TO:<d@x.example>\r\n',
            b"x" * 5000,
            b"GET / HTTP/1.1\r\n",
            b"AUTH LOGIN\r\n",
            b"=?utf-8?q?x=0d=0a?=",
            b"MAIL FROM:<=?utf-8?q?a=0d=0ab?=@x.example>\r\n",
            b"\xff\xfe\r\n",
            b"STARTTLS\r\n",
            b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n",
            b"HELP\r\n",
            b" ",
            b"\t",
        ]
    ),
    st.binary(max_size=20),
)
ANY_FLIGHTS = st.lists(st.lists(TOKEN, min_size=1, max_size=8).map(b"".join), min_size=1, max_size=8)
OPENING = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n"


@fuzzed(300)
@given(flights=ANY_FLIGHTS, cuts=CUTS, waits=st.booleans(), is_cut=st.booleans())
def test_whatever_a_client_sends_only_whole_contents_of_its_own_arrive(
    bench: Bench, flights: list[bytes], cuts: tuple[int, ...], waits: bool, is_cut: bool
) -> None:
    # The listener drops a client whose first line is no command.
    script = [Flight(b"EHLO x\r\n", 1)] if waits else []
    script += [Flight(octets, 0, cuts) for octets in flights]
    if waits:
        script.insert(1, Flight(OPENING, 3))
    before = len(bench.remote.received)
    talk = bench.run(bench.talk(script, is_cut=is_cut))
    bench.run(bench.settled())
    come = bench.remote.received[before:]
    ids = [without_our_field(received)[0] for received in come]
    assert len(set(ids)) == len(ids)
    assert set(talk.accepted) <= set(ids)
    if not (is_cut or talk.is_reset):
        assert sorted(talk.accepted) == sorted(ids)
    everything = b"".join(flight.octets for flight in script)
    # With the first dot of each line removed (RFC 5321 section 4.5.2): the line of the end is empty.
    lines = (b"\r\n" + everything).replace(b"\r\n.", b"\r\n")
    for received in come:
        assert b"<%s>" % received.sender in everything
        assert all(b"<%s>" % address in everything for address in received.recipients)
        assert any(content + b"\r\n" in lines for content in _as_sent(received)), received
        # One message has no octets of the envelope or the end of another.
        assert all(b"\r\n.\r\n" not in stuffed(content)[:-3] for content in _as_sent(received))


def _as_sent(received: Received) -> list[bytes]:
    """What the client may have sent: with and without the fields that we add where they are missing."""
    _, content = without_our_field(received)
    found = [content]
    for name in (b"Date: ", b"Message-ID: "):
        if content.startswith(name):
            content = content.partition(b"\r\n")[2]
            found.append(content)
    if content.startswith(b"\r\n"):
        found.append(content[2:])
    return found
