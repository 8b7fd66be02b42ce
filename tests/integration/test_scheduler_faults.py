"""Faults of connection and disk under a scheduler: nothing is forgotten, nothing is said twice, nothing spins."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from pathlib import Path

import apsw
import pytest
from harness.messages import letter
from harness.relay import HeldContent, RelayHarness, running_relay

from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.outcome import Cause, Outcome
from mailrelay.mail.record import Arrival
from mailrelay.mail.recorded import RecordedExchange
from mailrelay.mail.spool_errors import SpoolUnavailable
from mailrelay.relay import conversations
from mailrelay.relay import scheduler as scheduler_room
from mailrelay.relay.delivery import ConversationEnd, JobSource, converse
from mailrelay.relay.jobs import Cancelled, Job, MessageJob
from mailrelay.relay.plan import ConversationProgress
from mailrelay.smtp.extensions import Extension
from mailrelay.smtp.flight import Trust
from mailrelay.spool import actions, attempts
from mailrelay.spool.database import transaction
from mailrelay.ssh import connection
from mailrelay.ssh.interface import Channel

EHLO = b"250-remote\r\n250 PIPELINING\r\n"
EHLO_CHUNKING = b"250-remote\r\n250-CHUNKING\r\n250 PIPELINING\r\n"


class Wire:
    """A wire to a remote that says what `answer` makes of each thing written, and may go in the middle of anything."""

    def __init__(self, answer: Callable[["Wire", bytes], None], ehlo: bytes = EHLO) -> None:
        self.heard: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.heard.put_nowait(b"220 remote\r\n")
        self.is_gone = self.is_closed = False
        self._answer = answer
        self._ehlo = ehlo
        self.written = self.acknowledged = 0

    def says(self, *lines: bytes) -> None:
        self.heard.put_nowait(b"".join(line + b"\r\n" for line in lines))

    def goes(self) -> None:
        self.is_gone = True
        self.heard.put_nowait(b"")

    def breaks(self) -> None:
        self.is_gone = True
        self.heard.put_nowait(None)

    async def read(self) -> bytes:
        heard = await self.heard.get()
        if heard is None:
            raise ConnectionResetError("broken")
        return heard

    def write(self, data: bytes) -> None:
        if self.is_gone:
            raise ConnectionResetError("gone")
        self.written += len(data)
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

    def __init__(
        self,
        *messages: Message | Sequence[Message] | Exception,
        at_piece: Callable[[int], None] = lambda _message: None,
    ) -> None:
        self._messages = list(messages)
        self._at_piece = at_piece
        self.judgements = 0
        self.asked: list[int] = []
        self.noted: list[RecordedExchange] = []
        self.back: list[tuple[int, str, bytes]] = []
        self.went_on: list[bool] = []

    def ready(self, in_flight: int, server_names: Sequence[bytes]) -> None: ...

    def judged(self, job: Job) -> None:
        self.judgements += 1

    async def next(self, limit: int) -> Sequence[MessageJob]:
        self.asked.append(limit)
        found = self._messages.pop(0) if self._messages else ()
        if isinstance(found, Exception):
            raise found
        portion = (found,) if isinstance(found, Message) else found
        return [MessageJob(message, self.pieces, self, lambda: 0.0, {}) for message in portion]

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

    def planned(self, message: Message, exchange: RecordedExchange) -> None:
        self.noted.append(exchange)

    def untried(self, message: Message, *, goes_on: bool, is_next: bool) -> None:
        self.back.append((message.id, "untried", b""))
        self.went_on.append(goes_on)

    def cancelled(self, message: Message, ended: Cancelled) -> None:
        self.back.append((message.id, "cancelled", b""))
        ended(is_cancelled=True)


TWO = Envelope(b"a@example.org", (Recipient(b"b@example.net"), Recipient(b"c@example.net")))


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


@pytest.mark.parametrize("is_closed", [True, False])
async def test_content_sent_ahead_is_in_doubt_if_the_connection_breaks_and_not_if_the_mail_server_closes_it(
    is_closed: bool,
) -> None:
    def answer(wire: Wire, data: bytes) -> None:
        if b"BDAT" in data and is_closed:
            wire.goes()
        elif b"BDAT" in data:
            wire.breaks()

    mail = Mail(message(1))
    ended = await conversed(Wire(answer, EHLO_CHUNKING), b"localhost", mail)
    assert [back[:2] for back in mail.back] == [(1, "MAIL" if is_closed else "after-dot")]
    assert ended.outcome is not None


async def test_a_mail_server_that_leaves_after_too_many_recipients_has_judged_the_message() -> None:
    def answer(wire: Wire, data: bytes) -> None:
        if b"DATA" in data:
            wire.says(b"250 ok", b"250 ok", b"452 4.5.3 too many recipients")
            wire.goes()

    mail = Mail(dataclasses.replace(message(1), envelope=TWO, recipient_ids=(1, 2)))
    ended = await conversed(Wire(answer), b"localhost", mail)
    assert [back[1] for back in mail.back] == ["DATA", "RCPT"]
    assert (ended.progress, ended.cut, mail.judgements) == (ConversationProgress.REPLIED, None, 1)


@pytest.mark.parametrize("token", ["0" * 32, ""])
async def test_where_the_replies_to_a_message_will_stand_is_noted_if_the_conversation_is_recorded(token: str) -> None:
    mail = Mail(message(1))
    await converse(Wire(lambda wire, data: wire.goes() if b"DATA" in data else None), b"localhost", mail, token=token)
    exchange = RecordedExchange(token, 2, (1,), has_data=True, relays_dsn=False)
    assert mail.noted == ([exchange] if token else [])


async def test_a_conversation_asks_for_no_more_before_it_has_begun_what_it_got() -> None:
    def answer(wire: Wire, data: bytes) -> None:
        if data.startswith(b"MAIL"):
            held.append(len(mail.asked))
            wire.says(b"550 no")
        elif data.startswith(b"RSET"):
            wire.says(b"250 ok")

    held: list[int] = []
    mail = Mail([message(1), message(2), message(3)])
    await conversed(Wire(answer, ehlo=b"250 remote\r\n"), b"localhost", mail)
    assert [back[0] for back in mail.back] == [1, 2, 3]
    assert held == [1, 1, 1]


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


@pytest.mark.parametrize(
    ("error", "is_fault"), [(RuntimeError("a bug"), True), (SpoolUnavailable("locked; try again"), False)]
)
async def test_a_conversation_that_breaks_with_an_error_of_ours_ends_no_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, is_fault: bool
) -> None:
    real, errors = conversations.converse, [error]

    async def breaks(*arguments: object, **options: object) -> ConversationEnd:
        if errors:
            raise errors.pop()
        return await real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(conversations, "converse", breaks)
    async with running_relay(tmp_path) as at:
        key = await at.send()
        if is_fault:
            assert await at.failure() is Cause.LOST
            with transaction(at.db):
                actions.retry_all(at.db, time.time())
            at.scheduler.look_again()
        await at.settled(key, "sent")
        assert await at.spool.relayhost_failure("default") is None
        assert "relay=default: a conversation failed" in caplog.text


@pytest.mark.parametrize("leaves_doubt", [True, False])
async def test_after_a_conversation_that_left_doubt_the_next_one_sends_no_content_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves_doubt: bool
) -> None:
    real = conversations.converse
    unusable: list[Collection[Extension]] = []

    async def leaves(
        channel: Channel,
        name: bytes,
        source: JobSource,
        not_used: Collection[Extension],
        *rest: object,
        **options: bool,
    ) -> ConversationEnd:
        unusable.append(not_used)
        if len(unusable) == 1:
            channel.close()
            return ConversationEnd(None, ConversationProgress.REPLIED, leaves_doubt=leaves_doubt)
        return await real(channel, name, source, not_used, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(conversations, "converse", leaves)
    async with running_relay(tmp_path) as at:
        await at.settled(await at.send(), "sent")
    assert unusable == [frozenset(), frozenset({Extension.CHUNKING} if leaves_doubt else ())]


async def test_finishing_waits_for_the_message_in_progress_and_begins_no_other(tmp_path: Path) -> None:
    async with running_relay(tmp_path, channels=1) as at:
        at.remote.policy = held = HeldContent()
        first = await at.send()
        await held.reached.wait()
        finishing = asyncio.ensure_future(at.scheduler.finish())
        second = await at.send()
        await asyncio.wait({finishing}, timeout=0.05)
        assert not finishing.done()
        held.go_on.set()
        await finishing
        await at.settled(first, "sent")
        assert await at.states(second) == ["queued"]


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


class Stuck(Wire):
    """A remote that takes no more content after the first block, until it is `free`."""

    def __init__(self) -> None:
        super().__init__(lambda _wire, _data: None, b"250-remote\r\n250 PIPELINING\r\n")
        self.is_stuck, self.free = asyncio.Event(), asyncio.Event()
        self.tail = b""

    def write(self, data: bytes) -> None:
        super().write(data)
        self.tail = data[-400:]
        if b"\r\n.\r\n" in self.tail:
            self.says(b"250 taken")
        if b"\r\nDATA\r\n" in self.tail:
            self.says(b"250 ok", b"250 ok", b"354 go on")

    async def drain(self) -> None:
        if self.tail.endswith(b"xx"):
            self.is_stuck.set()
            await self.free.wait()


class Portion(Mail):
    """Messages that one conversation gets at once."""

    def __init__(self, *messages: Message) -> None:
        super().__init__()
        self.jobs = [MessageJob(message, self.pieces, self, lambda: 0.0, {}) for message in messages]
        self._left = [self.jobs, []]

    async def next(self, limit: int) -> Sequence[MessageJob]:
        return self._left.pop(0)

    async def pieces(self, message: int) -> AsyncGenerator[bytes, None]:
        for _ in range(LARGE // 1000):
            yield b"x" * 998 + b"\r\n"


LARGE = 200_000


def large(key: int) -> Message:
    return dataclasses.replace(message(key), size=LARGE)


async def test_a_message_is_stopped_while_the_remote_takes_nothing_and_the_others_go_on_elsewhere() -> None:
    wire, mail = Stuck(), Portion(large(1), large(2))
    conversation = asyncio.ensure_future(converse(wire, b"localhost", mail, trust=Trust.PROVEN))
    await wire.is_stuck.wait()
    assert mail.jobs[0].transfer.want_stop()
    end = await conversation
    assert mail.back == [(1, "cancelled", b""), (2, "untried", b"")]
    assert mail.went_on == [True]
    # Nothing is wrong with the remote.
    assert (end.outcome, end.cut, end.goes_on, end.leaves_doubt) == (None, None, True, False)
    assert wire.is_closed
    assert b"\r\n.\r\n" not in wire.tail


async def test_a_message_that_was_not_begun_is_cancelled_at_once_and_the_one_before_it_goes_on() -> None:
    wire, mail = Stuck(), Portion(large(1), large(2))
    conversation = asyncio.ensure_future(converse(wire, b"localhost", mail, trust=Trust.PROVEN))
    await wire.is_stuck.wait()
    assert mail.jobs[1].transfer.want_stop()
    await mail.jobs[1].transfer.ended.wait()
    assert mail.back == [(2, "cancelled", b"")]
    wire.free.set()
    await mail.jobs[0].transfer.ended.wait()
    assert mail.back[1:] == [(1, "content", b"250 taken")]
    conversation.cancel()
    await asyncio.gather(conversation, return_exceptions=True)


async def test_octets_count_only_when_they_are_acknowledged_and_never_shrink() -> None:
    wire, mail = Stuck(), Portion(large(1))
    conversation = asyncio.ensure_future(converse(wire, b"localhost", mail, trust=Trust.PROVEN))
    await wire.is_stuck.wait()
    transfer = mail.jobs[0].transfer
    assert transfer.octets == 0
    wire.acknowledged = wire.written - 10_000
    assert 0 < (before := transfer.octets) < LARGE - 10_000
    wire.acknowledged = wire.written - 11_000
    assert transfer.octets == before
    wire.acknowledged = wire.written
    assert transfer.octets == before + 10_000
    conversation.cancel()
    await asyncio.gather(conversation, return_exceptions=True)
