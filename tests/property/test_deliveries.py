"""The way out, with mail servers that hypothesis makes: they refuse, close and send replies in pieces, at any command.

What must hold: a recipient is `sent` only after a 2xx to the content for it was sent whole, and has bounced only after a
5xx to this message. Nothing is lost: once the mail server behaves, each message has an end. A message that arrived twice
is marked as uncertain. One of which it was said that it is cancelled does not arrive, whenever the person wanted that.

    MAILRELAY_FUZZ=5000 pytest --timeout 0 tests/property/test_deliveries.py
"""

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.fuzzing import Bench, fuzzed
from hypothesis import given, note
from hypothesis import strategies as st

from mailrelay.demo.mailserver import ByteWriter, converse
from mailrelay.demo.remote import Received, Remote
from mailrelay.mail.sending import Stop

_marks = itertools.count(1)
WELL_FORMED_2XX = re.compile(rb"2[0-9][0-9][ -]")
STAGES = ("GREETING", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", "CONTENT", "QUIT")


@dataclass(frozen=True)
class Reaction:
    """What the mail server does at a stage. reply: None for the ordinary one, b"" to close. is_lost: the connection closes
    in the middle of the reply. pieces: the reply comes octet by octet."""

    reply: bytes | None = None
    is_lost: bool = False
    pieces: bool = False


ORDINARY = Reaction()
REPLIES = st.sampled_from(
    [None, None, b"", b"451 4.3.0 later", b"450-4.2.0 later\r\n450 4.2.0 indeed", b"550 5.1.1 no", b"554 5.6.0 no",
     b"421 4.3.2 bye", b"250-first\r\n250 second", b"garbage", b"2", b"999 what", b"354 go ahead", b"250 ok"]
)  # fmt: skip
REACTIONS = st.builds(Reaction, REPLIES, st.integers(0, 9).map(lambda n: n == 0), st.booleans())
POSITIVE_TO_NOBODY = (b"2", b"354 go ahead")
SCRIPTS = st.lists(st.tuples(st.sampled_from(STAGES), REACTIONS), max_size=6)


class MoodyRemote(Remote):
    """A remote whose mail server follows a script: at the next occurrence of a stage, the reaction.

    sent_replies: stage, argument or content, and reply, for each reply that was sent whole. taken: how often a message was
    taken for a recipient, by mark and address: after the whole reply was sent.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.begin([])

    def begin(self, script: list[tuple[str, Reaction]]) -> None:
        self.script = list(script)
        self.sent_replies: list[tuple[str, bytes, bytes]] = []
        self.taken: Counter[tuple[bytes, bytes]] = Counter()
        self.stages = 0
        self.at_stage: Callable[[int], None] = lambda _number: None

    async def _serve_mail(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._register_this_task()
        dialogue = _MoodyDialogue(self, writer)
        try:
            await converse(dialogue, reader, dialogue)
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()


class _MoodyDialogue:
    """One dialogue: a Mailbox, and the writer that carries out the reactions."""

    def __init__(self, remote: MoodyRemote, writer: ByteWriter) -> None:
        self.remote = remote
        self.extensions = remote.extensions
        self.received = remote.received
        self._writer = writer
        self._reaction = ORDINARY
        self._about: tuple[str, bytes] = ("", b"")
        self._unsent = b""
        self._is_cut = False

    async def policy(self, verb: str, argument: bytes) -> bytes | None:
        self.remote.stages += 1
        self.remote.at_stage(self.remote.stages)
        script = self.remote.script
        position = next((at for at, (stage, _) in enumerate(script) if stage == verb), None)
        self._reaction = script.pop(position)[1] if position is not None else ORDINARY
        self._about = (verb, argument)
        if verb in ("MAIL", "RCPT") and self._reaction.reply in POSITIVE_TO_NOBODY:
            # The server itself would go on as after a 2xx.
            self._reaction = ORDINARY
        return self._reaction.reply

    async def keep(self, message: Received) -> None:
        if WELL_FORMED_2XX.match(self._reaction.reply or b"250 "):
            self.remote.taken.update((mark_in(message.content), address) for address in message.recipients)

    def write(self, data: bytes) -> None:
        self._unsent += data

    async def drain(self) -> None:
        data, self._unsent = self._unsent, b""
        reaction = self._reaction
        if reaction.is_lost:
            data = data[: len(data) // 2]
        for piece in [data[at : at + 1] for at in range(len(data))] if reaction.pieces else [data]:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)
        if reaction.is_lost:
            raise ConnectionResetError
        self.remote.sent_replies.append((*self._about, data))

    def write_eof(self) -> None:
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()


@pytest.fixture(scope="module", params=["DATA", "BDAT"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    path: Path = tmp_path_factory.mktemp("bench")
    with Bench(path, MoodyRemote) as bench:
        if request.param == "BDAT":
            bench.remote.extensions = (*bench.remote.extensions, b"CHUNKING")
        yield bench


SIZES = st.lists(st.tuples(st.integers(1, 3), st.sampled_from([10, 10, 3000, 200_000])), min_size=1, max_size=4)


@fuzzed(80)
@given(script=SCRIPTS, messages=SIZES)
def test_sent_means_that_a_2xx_was_sent_and_nothing_is_lost(
    bench: Bench, script: list[tuple[str, Reaction]], messages: list[tuple[int, int]]
) -> None:
    remote = bench.remote
    assert isinstance(remote, MoodyRemote)
    keys = bench.run(_deliver(bench, script, messages))
    note(f"{remote.sent_replies}")
    for mark, key in keys.items():
        for recipient in bench.relay.message(key).recipients:
            times = remote.taken[mark, recipient.address]
            if recipient.state == "sent":
                assert times >= 1, recipient
            else:
                assert recipient.state in ("bounced", "held"), recipient
                assert any(_refuses(each, mark, recipient.address) for each in remote.sent_replies), recipient
            assert times == (recipient.state == "sent") or recipient.uncertain is not None, recipient


@fuzzed(30)
@given(
    script=SCRIPTS,
    messages=SIZES,
    stops=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 25)), min_size=2, max_size=8),
)
def test_what_was_said_to_be_cancelled_does_not_arrive_and_the_others_do(
    bench: Bench, script: list[tuple[str, Reaction]], messages: list[tuple[int, int]], stops: list[tuple[int, int]]
) -> None:
    remote = bench.remote
    assert isinstance(remote, MoodyRemote)
    keys, said = bench.run(_deliver_and_stop(bench, script, messages, stops))
    note(f"{said} {remote.sent_replies}")
    for mark, key in keys.items():
        recipients = bench.relay.message(key).recipients
        assert (Stop.CANCELLED in said.get(key, ())) == any(to.state == "cancelled" for to in recipients)
        for recipient in recipients:
            times = remote.taken[mark, recipient.address]
            assert recipient.state in ("sent", "bounced", "held", "cancelled"), recipient
            if recipient.state == "sent":
                assert times >= 1, recipient
            elif recipient.uncertain is None:
                assert times == 0, recipient


async def _deliver_and_stop(
    bench: Bench, script: list[tuple[str, Reaction]], messages: list[tuple[int, int]], stops: list[tuple[int, int]]
) -> tuple[dict[bytes, int], dict[int, list[Stop]]]:
    """stops: which message is to be cancelled, and at which stage of all dialogues. Returns what was said, too."""
    remote, scheduler = bench.remote, bench.relay.scheduler
    assert isinstance(remote, MoodyRemote)
    keys: dict[bytes, int] = {}
    said: dict[int, list[Stop]] = {}
    stopping: list[asyncio.Future[None]] = []

    async def stop(key: int) -> None:
        said.setdefault(key, []).append(await scheduler.cancel(key))

    def at_stage(number: int) -> None:
        known = list(keys.values()) or [0]
        assert all(0 <= one.octets <= one.size for one in scheduler.sending())
        stopping.extend(asyncio.ensure_future(stop(known[which % len(known)])) for which, at in stops if at == number)

    await _deliver(bench, script, messages, keys, at_stage)
    await asyncio.gather(*stopping)
    return keys, said


def mark_in(content: bytes) -> bytes:
    return content[content.index(b"<mark-") :][: len(b"<mark-0000000")]


def _refuses(sent: tuple[str, bytes, bytes], mark: bytes, address: bytes) -> bool:
    """Whether a reply refuses the message or the recipient for good."""
    verb, argument, reply = sent
    if not reply.startswith((b"5", b"9")):
        return False
    return {"RCPT": address in argument, "CONTENT": mark in argument, "MAIL": True, "DATA": True, "BDAT": True}.get(
        verb, False
    )


async def _deliver(
    bench: Bench,
    script: list[tuple[str, Reaction]],
    messages: list[tuple[int, int]],
    keys: dict[bytes, int] | None = None,
    at_stage: Callable[[int], None] = lambda _number: None,
) -> dict[bytes, int]:
    remote = bench.remote
    assert isinstance(remote, MoodyRemote)
    remote.begin(script)
    remote.at_stage = at_stage
    keys = {} if keys is None else keys
    for count, size in messages:
        mark = b"<mark-%07d" % next(_marks)
        to = [b"%d-%s@x.example" % (number, mark[-7:]) for number in range(count)]
        keys[mark] = await bench.relay.send(*to, content=mark + b">\r\n" + (b"x" * 70 + b"\r\n") * (size // 72))
    await bench.settled()
    return keys
