"""Faults of connection and disk under a scheduler: nothing is forgotten, nothing is said twice, nothing spins."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import apsw
import pytest
from harness.messages import letter
from harness.relay import RelayHarness, running_relay

from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.outcome import Cause, Outcome
from mailrelay.mail.record import Arrival
from mailrelay.relay import scheduler as scheduler_room
from mailrelay.relay.delivery import ConversationEnd, converse
from mailrelay.relay.jobs import Job, MessageJob
from mailrelay.smtp.flight import Trust
from mailrelay.spool import attempts
from mailrelay.ssh import connection

EHLO = b"250-remote\r\n250 PIPELINING\r\n"
EHLO_CHUNKING = b"250-remote\r\n250-CHUNKING\r\n250 PIPELINING\r\n"


class Wire:
    """A wire to a remote that says what `answer` makes of each thing written, and may go in the middle of anything."""

    def __init__(self, answer: Callable[["Wire", bytes], None], ehlo: bytes = EHLO) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.heard.put_nowait(b"220 remote\r\n")
        self.is_gone = self.is_closed = False
        self._answer = answer
        self._ehlo = ehlo

    def says(self, *lines: bytes) -> None:
        self.heard.put_nowait(b"".join(line + b"\r\n" for line in lines))

    def goes(self) -> None:
        self.is_gone = True
        self.heard.put_nowait(b"")

    async def read(self) -> bytes:
        return await self.heard.get()

    def write(self, data: bytes) -> None:
        if self.is_gone:
            raise ConnectionResetError("gone")
        if data.startswith(b"EHLO"):
            self.heard.put_nowait(self._ehlo)
        self._answer(self, data)

    async def drain(self) -> None:
        if self.is_gone:
            raise ConnectionResetError("gone")

    def close(self) -> None:
        self.is_closed = True


class Mail:
    """Messages for a conversation, and what it gave back: (key, stage, words) of each outcome, (key, "untried", b"")."""

    def __init__(self, *messages: Message | Exception, at_piece: Callable[[int], None] = lambda _message: None) -> None:
        self._messages = list(messages)
        self._at_piece = at_piece
        self.back: list[tuple[int, str, bytes]] = []

    def ready(self, in_flight: int, server_names: Sequence[bytes]) -> None: ...
    def judged(self, job: Job) -> None: ...

    async def next(self, limit: int) -> Sequence[MessageJob]:
        message = self._messages.pop(0) if self._messages else None
        if isinstance(message, Exception):
            raise message
        return () if message is None else (MessageJob(message, self.pieces, self, lambda: 0.0, {}),)

    async def pieces(self, message: int) -> AsyncGenerator[bytes, None]:
        for _ in range(20):
            # Others run between two pieces, as with a real spool.
            await asyncio.sleep(0)
            self._at_piece(message)
            yield b"x" * 998 + b"\r\n"

    def finished(
        self, message: Message, outcomes: Sequence[Outcome], *, relays_dsn: bool, dial_seconds: float, seconds: float
    ) -> None:
        self.back += [(message.id, outcome.stage.value, outcome.description) for outcome in outcomes]

    def untried(self, message: Message, *, goes_on: bool, is_next: bool) -> None:
        self.back.append((message.id, "untried", b""))


def message(key: int) -> Message:
    envelope = Envelope(b"a@example.org", (Recipient(b"b@example.net"),), b"7BIT", False, b"", b"")
    return Message(key, f"id{key}", "default", envelope, (key,), 20_000, 0.0, 0)


async def conversed(wire: Wire, name: bytes, mail: Mail) -> ConversationEnd:
    """A conversation with a mail server that is proven. Its end is an attempt at the message in whose transaction it is."""
    end = await converse(wire, name, mail, trust=Trust.PROVEN)
    if end.cut is not None:
        end.cut.finish()
    return end


async def test_what_the_remote_said_of_one_message_counts_though_it_goes_while_the_next_one_is_read() -> None:
    def at_piece(message: int) -> None:
        if message == 2 and not wire.is_gone:
            wire.says(b"250 ok", b"250 ok", b"250 2.0.0 taken")
            wire.goes()

    wire = Wire(lambda _wire, _data: None, EHLO_CHUNKING)
    mail = Mail(message(1), message(2), at_piece=at_piece)
    await conversed(wire, b"localhost", mail)
    assert mail.back == [(1, "content", b"250 2.0.0 taken"), (2, "untried", b"")]
    assert wire.is_closed


async def test_a_refusal_in_the_middle_of_content_is_the_remotes_word_though_it_goes_with_it() -> None:
    def answer(wire: Wire, data: bytes) -> None:
        if b"DATA" in data:
            wire.says(b"250 ok", b"250 ok", b"354 go ahead")
        elif data.startswith(b"x") and not wire.is_gone:
            wire.says(b"552 5.3.4 too big")
            wire.goes()

    mail = Mail(message(1))
    await conversed(Wire(answer), b"localhost", mail)
    assert mail.back == [(1, "content", b"552 5.3.4 too big")]


async def test_what_is_small_is_written_in_one_piece_with_its_end() -> None:
    said: list[bytes] = []

    def answer(wire: Wire, data: bytes) -> None:
        said.append(data)
        if b"DATA" in data:
            wire.says(b"250 ok", b"250 ok", b"354 go ahead")
        elif data.endswith(b"\r\n.\r\n"):
            wire.says(b"250 taken")
            wire.goes()

    mail = Mail(message(1))
    await conversed(Wire(answer), b"localhost", mail)
    assert mail.back == [(1, "content", b"250 taken")]
    assert len(said) == 3, said


async def test_a_remote_that_asks_for_content_and_leaves_in_one_breath_is_no_fault_of_ours() -> None:
    mail = Mail(message(1))
    ended = await conversed(
        Wire(
            lambda wire, data: (
                wire.says(b"250 ok", b"250 ok", b"354 go ahead", b"421 4.3.2 bye") if b"DATA" in data else None
            )
        ),
        b"localhost",
        mail,
    )
    assert mail.back == [(1, "content", b"421 4.3.2 bye")]
    assert ended.outcome is not None


async def test_a_message_that_comes_in_the_instant_in_which_the_remote_goes_is_given_back() -> None:
    mail = Mail(message(1), message(2))
    ended = await conversed(
        Wire(lambda wire, data: wire.goes() if data.startswith(b"EHLO") else None), b"localhost", mail
    )
    assert mail.back == [(1, "untried", b"")]
    assert ended.outcome is not None


async def test_a_failure_of_ours_in_a_conversation_gives_back_all_that_was_under_way() -> None:
    wire = Wire(lambda wire, data: wire.says(b"250 ok", b"250 ok", b"354 go ahead") if b"DATA" in data else None)
    mail = Mail(message(1), RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        await conversed(wire, b"localhost", mail)
    assert [back[:2] for back in mail.back] == [(1, "after-dot")]
    assert wire.is_closed


def failing(room: object, name: str, times: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets a function of the spool's fail as on a full disk, `times` times; the list holds how often it did."""
    real = getattr(room, name)
    failed: list[int] = []

    def full(*arguments: object) -> object:
        if len(failed) < times:
            failed.append(1)
            raise apsw.FullError("disk full")
        return real(*arguments)

    monkeypatch.setattr(room, name, full)
    return failed


def _abort(at: RelayHarness) -> bytes:
    for each in list(at.remote.connections):
        each.abort()
    return b""


async def test_an_attempt_that_never_began_is_taken_back_though_the_disk_is_full_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Twice: the first one costs the ballast.
    failed = failing(attempts, "put_back", 2, monkeypatch)
    async with running_relay(tmp_path, retry=0.1, channels=1) as at:
        keys: list[int] = []
        cuts = 0

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            nonlocal cuts
            if verb == "CONTENT" and not cuts:
                cuts += 1

                # Its MAIL travels behind the content of the first, and is answered behind it.
                async def the_second_is_under_way() -> bool:
                    return [await at.states(key) for key in keys].count(["active"]) == 2

                await at.until(the_second_is_under_way)
                return _abort(at)
            return None

        at.remote.policy = policy
        keys += [await at.spool.accept(one) for one in _letters(5)]
        at.scheduler.look_again()
        for key in keys:
            await at.settled(key, "sent")
        assert len(failed) == 2
        assert not at.scheduler.is_stuck


async def test_a_disk_too_full_to_open_attempts_costs_the_running_ones_nothing_and_is_not_asked_in_a_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_room, "SPOOL_RETRY", 0.5)
    async with running_relay(tmp_path, channels=1) as at:
        hold, held = asyncio.Event(), asyncio.Event()

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            if verb == "CONTENT":
                held.set()
                await hold.wait()
            return None

        at.remote.policy = policy
        first = await at.send()
        await held.wait()
        failed = failing(attempts, "take", 2, monkeypatch)
        second = await at.send()
        hold.set()
        await at.settled(first, "sent")
        await at.settled(second, "sent")
        assert len(failed) == 2
        assert at.remote.logins == 1


async def test_mail_that_waits_because_the_spool_failed_goes_as_soon_as_it_can_be_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_room, "SPOOL_RETRY", 1000.0)
    async with running_relay(tmp_path) as at:
        failed = failing(attempts, "take", 1, monkeypatch)
        key = await at.send()

        async def has_failed() -> bool:
            return len(failed) == 1

        await at.until(has_failed)
        at.scheduler.resume()
        await at.settled(key, "sent")


async def test_a_connection_that_breaks_at_every_message_is_a_fault_and_not_a_login_for_each(tmp_path: Path) -> None:
    async with running_relay(tmp_path, channels=1) as at:

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            return _abort(at) if verb == "MAIL" else None

        at.remote.policy = policy
        for one in _letters(20):
            await at.spool.accept(one)
        at.scheduler.look_again()
        await at.failure()
        assert at.remote.logins == 1


async def test_mail_that_is_taken_while_the_way_is_shut_is_not_left_active(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            return _abort(at) if verb == "MAIL" else None

        at.remote.policy = policy
        keys = [await at.spool.accept(one) for one in _letters(40)]
        at.scheduler.look_again()
        await at.failure()

        async def nothing_is_active() -> bool:
            return ["active"] not in [await at.states(key) for key in keys]

        await at.until(nothing_is_active)


async def test_a_client_that_says_mail_and_nothing_more_makes_no_loop_of_conversations(tmp_path: Path) -> None:
    async with running_relay(tmp_path, linger=0.0) as at:

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            if verb == "CONTENT":
                at.scheduler.expect_message()
            return None

        at.remote.policy = policy
        await at.settled(await at.send(), "sent")

        async def closed() -> bool:
            return not at.remote.connections

        await at.until(closed)
        # It does not matter how many were started at a venture; a loop would have made hundreds.
        assert at.remote.channels < 20


async def test_however_much_mail_comes_at_once_few_attempts_are_open(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        await at.remote.down()
        for one in _letters(300):
            at.scheduler.message_arrived(await at.spool.accept(one))
        await at.failure()
        open_at_once: list[int] = []

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            if verb == "MAIL":
                open_at_once.append(at.open_attempts())
            return None

        at.remote.policy = policy
        await at.remote.up()
        for one in _letters(100):
            at.scheduler.message_arrived(await at.spool.accept(one))
        await at.remote.arrived(400)
        assert max(open_at_once) < 100


async def test_mail_goes_on_after_the_remote_left_an_idle_conversation(tmp_path: Path) -> None:
    async with running_relay(tmp_path, linger=float("inf")) as at:
        await at.settled(await at.send(), "sent")
        for dialogue in list(at.remote.dialogues):
            dialogue.cancel()
        await at.settled(await at.send(), "sent")
        assert await at.spool.relayhost_failure("default") is None


def _letters(count: int) -> list[Arrival]:
    return [letter(at=time.time()) for _ in range(count)]


async def test_mail_of_a_restart_leaves_by_itself_once_a_remote_that_was_down_is_back(tmp_path: Path) -> None:
    """Nobody rings: there is only the schedule."""

    async with running_relay(tmp_path, retry=0.2) as at:
        await at.remote.down()
        key = await at.spool.accept(letter(at=time.time()))
        at.scheduler.look_again()
        await at.failure()
        await at.remote.up()
        await at.settled(key, "sent")


async def test_a_single_message_opens_a_single_channel(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        for number in range(3):
            await at.settled(await at.send(), "sent")
            assert (number, at.remote.channels) == (number, 1)


async def test_only_what_is_being_sent_has_an_open_attempt(tmp_path: Path) -> None:
    """What is open when the daemon dies is marked as if it may arrive twice: that should be as little as possible."""

    async with running_relay(tmp_path, channels=1) as at:
        stuck = asyncio.Event()

        async def policy(verb: str, _argument: bytes) -> bytes | None:
            if verb == "CONTENT":
                stuck.set()
                await asyncio.Event().wait()
            return None

        at.remote.policy = policy
        for _ in range(30):
            await at.send()
        await stuck.wait()
        assert at.open_attempts() <= 2


async def test_the_cause_of_a_fault_is_not_lost_in_the_closing_of_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was given up for a fault takes its time to close: nothing more is begun on it meanwhile."""

    async with running_relay(tmp_path) as at:
        at.remote.forbid_forwarding = True
        close = connection.RelayhostConnection.close
        closing, go_on, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def slowly(link: connection.RelayhostConnection) -> None:
            closing.set()
            await go_on.wait()
            await close(link)
            closed.set()

        monkeypatch.setattr(connection.RelayhostConnection, "close", slowly)
        await at.send()
        await closing.wait()
        await at.send()
        await at.failure()
        await at.looked_again()
        go_on.set()
        await closed.wait()
        await at.looked_again()
        assert await at.failure() is Cause.FORWARDING_PROHIBITED
        assert at.remote.channels == 1
