"""The control socket of the system's mailrelay: what an account may ask, about which messages, and hostile questions."""

import dataclasses
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness.old_spools import old

from mailrelay.config import Settings, load
from mailrelay.control import acts, bulk, enqueue, progress, system, system_answers
from mailrelay.control.bulk import Skip, change, select
from mailrelay.control.details import Details
from mailrelay.control.following import AskedThere, await_retries
from mailrelay.control.replacement import replace, replaceable
from mailrelay.control.system import System
from mailrelay.control.wire import packed
from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.handed_in import HandedIn, Problem
from mailrelay.mail.lifecycle import Act, State
from mailrelay.mail.outcome import Stage
from mailrelay.mail.overview import Listed
from mailrelay.mail.selection import Filter
from mailrelay.mail.send_time import MAX_WAIT, SendTime
from mailrelay.mail.sending import Sending, Stop
from mailrelay.mail.spool_errors import NoSuchMessage, NotAllowed, SpoolError
from mailrelay.mail.there import RetryThere
from mailrelay.spool import attempts, lock, ownership
from mailrelay.spool.command_spool import CommandSpool
from mailrelay.spool.database import connect, transaction

CAROL, ERIN = 71_001, 71_002
ENVELOPE = Envelope(b"me@example.org", (Recipient(b"you@example.net"),))
CONTENT = b"Subject: hello\r\n\r\nhello\r\n"
Ask = Callable[[int], System]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "config.toml"
    file.write_text(f'relayhost.default.ssh = "post"\nqueue.directory = "{tmp_path}/spool"\nnotify.desktop = false\n')
    return load(file)


@pytest.fixture
def ask(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Connects an account: each of its connections is answered as by a process of its own."""
    path = str(tmp_path / "control")
    account = [0]
    monkeypatch.setattr(system_answers, "peer", lambda _: account[0])
    monkeypatch.setattr(ownership, "_limit", None)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                ownership._limit = None
                with connection:
                    system_answers.answer(settings, connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        opened: list[System] = []

        def connect(uid: int) -> System:
            while opened:
                # One at a time, as the limit is a fact about the process.
                closing = opened.pop()
                if closing._connection is not None:
                    closing._connection.close()
            account[0] = uid
            opened.append(System(path))
            return opened[0]

        yield connect
        connect(0)
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def submit(ask: Ask, uid: int) -> str:
    return ask(uid).ask(enqueue.Stored, "hand_in", HandedIn(ENVELOPE, CONTENT)).queue_id


def test_a_message_belongs_to_the_account_that_submitted_it_whatever_the_client_says(
    ask: Ask, settings: Settings
) -> None:
    claimed = dataclasses.replace(ENVELOPE, owner=ERIN)
    ask(CAROL).ask(enqueue.Stored, "hand_in", HandedIn(claimed, CONTENT))
    ask(0).ask(enqueue.Stored, "hand_in", HandedIn(claimed, CONTENT))
    with CommandSpool(settings.queue.directory).reading() as view:
        ownership._limit = None
        assert [one.owner for one in view.live()] == [CAROL, 0]
    assert [one.owner for one in ask(CAROL).ask(list[Listed], "messages", False)] == [CAROL]
    assert ask(ERIN).ask(list[Listed], "messages", True) == []
    assert len(ask(0).ask(list[Listed], "messages", False)) == 2
    line = (settings.queue.directory / "mailrelay.log").read_text()
    assert f"status=accepted account=uid{CAROL}\n" in line


@pytest.mark.parametrize("question", ["details", "whole_id", "content", "replaceable"])
def test_messages_of_other_accounts_do_not_exist_for_an_account(ask: Ask, question: str) -> None:
    queue_id = submit(ask, CAROL)
    more = (Act.RESEND,) if question == "replaceable" else ()
    for given in (queue_id, queue_id[:3]):
        with pytest.raises(NoSuchMessage, match=f"no message has the id {given}"):
            ask(ERIN).ask(Details, question, given, *more)


def test_what_a_mail_server_was_asked_is_told_to_the_account_of_the_message_alone(ask: Ask) -> None:
    queue_id = submit(ask, CAROL)
    for account in (CAROL, 0):
        assert await_retries(ask(account), [queue_id], 0.0) == [AskedThere(queue_id, "default", RetryThere(False, ""))]
    with pytest.raises(NoSuchMessage, match=f"no message has the id {queue_id}"):
        await_retries(ask(ERIN), [queue_id], 0.0)


def test_other_accounts_can_change_nothing(ask: Ask, settings: Settings) -> None:
    queue_id = submit(ask, CAROL)
    key = ask(0).ask(list[Listed], "messages", False)[0].id
    with pytest.raises(SpoolError, match="no longer in the spool"):
        ask(ERIN).ask(Listed, "one", key)
    for what in Act:
        done = ask(ERIN).ask(acts.Done, "act", [queue_id], what)
        assert (done.changed, len(done.failures)) == ([], 1)
    assert ask(ERIN).ask(acts.Done, "retry", [queue_id]).changed == []
    assert ask(ERIN).ask(tuple[int, bool], "retry_all") == (0, False)
    assert ask(CAROL).ask(tuple[int, bool], "retry_all")[0] == 1
    old_message, content = ask(CAROL).ask(tuple[Message, bytes], "replaceable", queue_id, Act.EDIT)
    with pytest.raises(NoSuchMessage):
        replace(settings, ask(ERIN), old_message, Act.EDIT, ENVELOPE, content)
    with pytest.raises(NotAllowed, match="has changed meanwhile"):
        replace(
            settings, ask(CAROL), dataclasses.replace(old_message, recipient_ids=(99,)), Act.EDIT, ENVELOPE, content
        )
    (message,) = ask(0).ask(list[Listed], "messages", True)
    assert (message.queue_id, message.recipients[0].state) == (queue_id, "queued")


def test_an_account_sees_and_stops_only_its_own_mail_while_it_is_sent(
    ask: Ask, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = submit(ask, CAROL), submit(ask, ERIN)
    db = connect(settings.queue.directory)
    with transaction(db):
        keys = [message.id for message in attempts.take(db, "default", (), 2, "test", time.time())]
    db.close()
    under_way = [Sending(queue_id, "default", 1, 2, 0.5) for queue_id in (mine, other)]
    stopped: list[int] = []

    def stop(_directory: Path, key: int, _timeout: float) -> Stop:
        stopped.append(key)
        return Stop.CANCELLED

    monkeypatch.setattr(system_answers, "sending", lambda _directory: under_way)
    monkeypatch.setattr(progress.stopping, "ask", stop)
    with lock.lock(settings.queue.directory):
        assert progress.sending(ask(CAROL)) == under_way[:1]
        assert progress.sending(ask(ERIN)) == under_way[1:]
        assert progress.sending(ask(0)) == under_way
        done = acts.act(ask(CAROL), [mine, other], Act.CANCEL)
        assert (done.changed, len(done.failures)) == ([mine], 1)
        everything = Filter(states=("active",))
        wanted = select(ask(ERIN), everything, Act.CANCEL)
        assert change(ask(ERIN), wanted, Act.CANCEL).changed == [other]
    assert stopped == keys


def test_a_message_in_the_place_of_another_one_keeps_its_owner(ask: Ask, settings: Settings) -> None:
    queue_id = submit(ask, CAROL)
    old_message, content = replaceable(ask(0), queue_id, Act.EDIT)
    new = replace(settings, ask(0), old_message, Act.EDIT, dataclasses.replace(ENVELOPE, owner=ERIN), content)
    assert [one.queue_id for one in ask(CAROL).ask(list[Listed], "messages", False)] == [new.queue_id]


def test_messages_of_an_older_spool_are_roots_to_see(ask: Ask, settings: Settings) -> None:
    old(settings.queue.directory, 6)
    assert len(ask(0).ask(list[Listed], "messages", True)) == 3
    assert ask(CAROL).ask(list[Listed], "messages", True) == []


MESSAGE = HandedIn(ENVELOPE, CONTENT)
BAD_PROBLEM = Problem(State.SENT, "2.0.0", Stage.RCPT, "")
FORGED = Problem(State.BOUNCED, "5.1.3\n2026-12-01T08:00:00+0000 ERROR \x1b[31m", Stage.RCPT, "")


def handed(**changes: object) -> HandedIn:
    return dataclasses.replace(MESSAGE, envelope=dataclasses.replace(ENVELOPE, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "message",
    [
        handed(sender=b"me@example.org>\r\nRCPT TO:<x@example.org"),
        handed(recipients=(Recipient(b"you@example.net\n"),)),
        handed(recipients=(Recipient(b"you@example.net", b"NEVER X=1"),)),
        handed(recipients=(Recipient(b"you@example.net", b"", b"rfc822;\xff"),)),
        handed(recipients=()),
        handed(recipients=(Recipient(b"you@example.net"),) * 10_001),
        handed(body=b"7BIT X"),
        handed(ret=b"ALL"),
        handed(envid=b"a\r\nb"),
        dataclasses.replace(MESSAGE, content=b"a\n.\nMAIL FROM:<>\n"),
        dataclasses.replace(MESSAGE, content=b"a\r.\r\n"),
        dataclasses.replace(MESSAGE, notify=b"NEVER\r\n"),
        dataclasses.replace(MESSAGE, problem=BAD_PROBLEM),
        dataclasses.replace(MESSAGE, bad=((b"x", BAD_PROBLEM),)),
        dataclasses.replace(MESSAGE, problem=FORGED),
        dataclasses.replace(MESSAGE, bad=((b"x", FORGED),)),
        handed(envid=b"x" * 501),
        handed(recipients=(Recipient(b"you@example.net", b"", b"rfc822;" + b"x" * 500),)),
    ],
)
def test_a_message_that_sendmail_would_not_hand_in_is_refused(ask: Ask, message: HandedIn) -> None:
    with pytest.raises(SpoolError, match="the question cannot be read"):
        ask(CAROL).ask(enqueue.Stored, "hand_in", message)
    assert ask(0).ask(list[Listed], "messages", True) == []


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"[[]]",
        b"null",
        b"\xff",
        b'["terms", 1]',
        b'["directory"]',
        b'["one", 1e400]',
        b'["one", %d]' % 2**70,
        b'["one", "1"]',
        b'["messages", "yes"]',
        b'["details", "\\ud800"]',
        b'["details", "%"]',
        b'["act", ["x"], "explode"]',
        b'["await_retries", [], NaN]',
        b'["hand_in", ' + b"[" * 100_000 + b"]" * 100_000 + b"]",
        b"[" * 200_000,
        json.dumps(["hand_in", packed(MESSAGE)]).replace("U3Vi", "!!!!").encode(),
    ],
)
def test_a_hostile_question_gets_one_line_and_the_next_one_its_answer(ask: Ask, line: bytes) -> None:
    client = ask(CAROL)
    answer = json.loads(client._exchange(line + b"\n"))
    assert set(answer) == {"error"} or answer == {"result": []}
    assert client.ask(list[Listed], "messages", False) == []


@pytest.mark.parametrize("value", [b"[],", b"{},", b"1,"])
def test_a_question_with_many_values_is_refused_before_they_take_memory(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, value: bytes
) -> None:
    monkeypatch.setattr(system_answers.json, "loads", lambda _: pytest.fail("it was read"))
    line = b"[" + value * (system_answers.MAX_VALUES + 1) + b"1]\n"
    assert "too many values" in str(system_answers._answer(settings, CAROL, line))


def test_a_question_that_comes_octet_by_octet_is_not_awaited_for_ever(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_answers, "IDLE", 0.2)
    client = ask(CAROL)
    client.ask(system.Terms, "terms")
    assert client._connection is not None
    with pytest.raises(OSError):
        for _ in range(100):
            client._connection.sendall(b" ")
            time.sleep(0.02)


def test_a_client_that_goes_in_the_middle_of_a_question_stores_nothing(ask: Ask) -> None:
    client = ask(CAROL)
    client.ask(list[Listed], "messages", False)
    assert client._connection is not None
    client._connection.sendall(json.dumps(["hand_in", packed(MESSAGE)]).encode())
    client._connection.close()
    assert ask(0).ask(list[Listed], "messages", True) == []


def test_a_program_may_take_its_time_between_two_questions(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    client = ask(CAROL)
    client.ask(system.Terms, "terms")
    assert client._connection is not None
    # As the other side does after IDLE: the stdin of `sendmail` is slow, or a person edits the message.
    client._connection.shutdown(socket.SHUT_RDWR)
    now = time.monotonic()
    monkeypatch.setattr(system, "time", SimpleNamespace(monotonic=lambda: now + system_answers.IDLE))
    client.ask(enqueue.Stored, "hand_in", MESSAGE)
    assert len(client.ask(list[Listed], "messages", False)) == 1


def test_a_connection_for_which_there_is_no_process_is_tried_again(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    monkeypatch.setattr(system_answers, "is_within_limit", lambda _, uid: tries.append(uid) or len(tries) > 2)
    monkeypatch.setattr(system, "PAUSE", 0.0)
    assert ask(CAROL).ask(list[Listed], "messages", False) == []
    assert tries == [CAROL] * 3
    monkeypatch.setattr(system_answers, "is_within_limit", lambda *_: False)
    impatient = ask(CAROL)
    impatient._patience = 0.0
    with pytest.raises(system.SystemUnreachable, match="cannot be reached"):
        impatient.ask(list[Listed], "messages", False)


def test_an_account_gets_only_so_many_processes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mailrelay.control import system_answers as at; at.PROCESSES = 2;"
        "print(*(at.is_within_limit(Path(sys.argv[1]), int(uid)) for uid in sys.argv[2:]), flush=True); input()"
    )
    found = []
    with ExitStack() as running:
        for uids in ((CAROL,), (CAROL, 0), (CAROL, ERIN, CAROL - 1, CAROL + 2)):
            words = (sys.executable, "-c", code, str(tmp_path), *map(str, uids))
            process = running.enter_context(
                subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            assert process.stdout is not None
            found.append(process.stdout.readline().split())
    assert found == [["True"], ["True", "True"], ["False", "True", "True", "True"]]


def test_an_answer_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    for said in (b"", b"nonsense\n", b"[]\n", b'{"error": 5}\n', b'{"result": 5}\n'):
        with socket.socket(socket.AF_UNIX) as server:
            path = tmp_path / "socket"
            path.unlink(missing_ok=True)
            server.bind(str(path))
            server.listen()

            def serve(server: socket.socket = server, said: bytes = said) -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(said)

            thread = threading.Thread(target=serve)
            thread.start()
            with pytest.raises(system.SystemUnreachable, match=r"cannot be reached .*; ask the administrator"):
                System(str(path), 0.0).ask(list[Listed], "messages", False)
            thread.join()


def test_many_ids_are_many_commits_and_what_is_done_before_a_failure_is_told(
    settings: Settings, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "BATCH", 2)
    monkeypatch.setattr(bulk, "PAUSE", 0.0)
    ids = [submit(ask, CAROL) for _ in range(3)]
    commits: list[Sequence[str]] = []
    act = acts.act

    def counted(queue: Path, some: Sequence[str], what: Act) -> acts.Done:
        commits.append(some)
        if len(commits) == 4:
            raise SpoolError("the disk is away")
        return act(queue, some, what)

    monkeypatch.setattr(acts, "act", counted)
    done = ask(CAROL).ask(acts.Done, "act", [*ids, "x"], Act.HOLD)
    assert (done.changed, len(done.failures)) == (ids, 1)
    assert commits == [ids[:2], [ids[2], "x"]]
    done = ask(CAROL).ask(acts.Done, "act", ids, Act.RELEASE)
    assert (done.changed, done.failures) == (ids[:2], ["the disk is away; not done: 1 of 3 messages"])
    assert ask(CAROL).ask(acts.Done, "retry", ids[:2] * 2).changed == ids[:2] * 2


def test_a_filter_selects_and_changes_only_ones_own(settings: Settings, ask: Ask) -> None:
    carol, erin = (submit(ask, uid) for uid in (CAROL, ERIN))
    mine = ask(CAROL)
    selected = select(mine, Filter(recipients=("you",)), Act.HOLD)
    assert (selected.ids, selected.looked_at) == ([carol], 1)
    selected.ids.append(erin)
    done = change(mine, selected, Act.HOLD)
    assert done.changed == [carol]
    assert selected.skipped == {Skip.CHANGED: [erin]}
    with CommandSpool(settings.queue.directory).reading() as view:
        ownership._limit = None
        states = {one.queue_id: one.recipients[0].state for one in view.live()}
    assert states == {carol: State.HELD, erin: State.QUEUED}


def test_a_message_is_not_kept_for_longer_than_a_client_may_ask(settings: Settings, ask: Ask) -> None:
    later = dataclasses.replace(ENVELOPE, send_time=SendTime(time.time() + 2 * MAX_WAIT, by_clock=True))
    with pytest.raises(SpoolError, match="too far ahead"):
        ask(CAROL).ask(enqueue.Stored, "hand_in", HandedIn(later, CONTENT))
