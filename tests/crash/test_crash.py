"""The daemon is cut off, at random and at exact points, while clients feed it and a remote takes: nothing is lost."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.feeder import Feeder, marks
from harness.ledger import Ledger
from harness.mail_clients import message, submit
from harness.mailboxes import DOMAIN
from harness.postfix import Package, Sink, send_with_source
from harness.processes import free_port, until
from harness.strace import Call, calls, killing, tracing

from mailrelay.spool.database import connect, row, rows

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

KILLS = 10
SEED = 7777
POINTS = [
    ("fsync", 1),
    ("fdatasync", 1), ("fdatasync", 2), ("fdatasync", 4), ("fdatasync", 11), ("fdatasync", 30),
    ("pwrite64", 1), ("pwrite64", 7), ("pwrite64", 30), ("pwrite64", 121), ("pwrite64", 250),
]  # fmt: skip
"""Calls at which the daemon is cut off. The early ones fall into the making or the opening of the spool."""


def test_sigkill_at_random_loses_nothing_and_doubles_only_what_was_in_flight(
    sinks: Callable[..., Sink], relays: Callable[..., Relay], capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    sink = sinks()
    relay = relays(sink.port, answer_within="0s", retry=("1s",), dsn=False)
    relay.start()
    feeder = Feeder(relay.port)
    ledger = Ledger(relay, sink, feeder)
    try:
        for _ in range(KILLS):
            until(lambda: feeder.running, "the feeder feeds")
            feeder.wait_accepted(len(feeder.accepted) + chance.randrange(1, 60))
            relay.kill()
            ledger.after_a_cut()
            relay.start()
    finally:
        feeder.stop()
    figures = ledger.at_the_end(f"SIGKILL at random (seed {SEED})")
    with capsys.disabled():
        print(f"\n{figures}")


def test_sigkill_at_exact_system_calls_loses_nothing_and_doubles_only_what_was_in_flight(
    sinks: Callable[..., Sink], relays: Callable[..., Relay], capsys: pytest.CaptureFixture[str]
) -> None:
    sink = sinks()
    relay = relays(sink.port, answer_within="0s", retry=("1s",), dsn=False)
    feeder = Feeder(relay.port, limit=3000)
    ledger = Ledger(relay, sink, feeder)
    reached = []
    try:
        for call, when in POINTS:
            child = relay.launch(*killing(call, when))
            before = len(feeder.accepted)
            until(
                lambda start=before, running=child: (
                    len(feeder.accepted) >= start + 150  # type: ignore[misc]
                    or running.process.poll() is not None
                ),
                f"{call} {when} is reached or 150 messages are accepted",
            )
            if child.process.poll() is not None:
                assert "Traceback" not in child.output, child.output
                reached.append((call, when))
            relay.kill()
            ledger.after_a_cut()
        relay.start()
    finally:
        feeder.stop()
    calls_reached = ", ".join(f"{call} {when}" for call, when in reached)
    figures = ledger.at_the_end(f"SIGKILL at exact calls ({calls_reached})")
    with capsys.disabled():
        print(f"\n{figures}")
    assert len(reached) >= len(POINTS) - 2


def log_syncs(made: Sequence[Call]) -> list[Call]:
    """The times at which SQLite's log was put on disk."""
    return [call for call in made if call.name == "fdatasync" and "-wal>" in call.text and call.text.endswith("= 0")]


def is_synced_before(made: Sequence[Call], words: str, answer: Call) -> bool:
    """Whether what was written of `words` to SQLite's log was on disk before `answer`."""
    # The first time: what follows in the same page is written again by later commits.
    stored = min(call.ended for call in made if words in call.text and "-wal>" in call.text)
    return any(stored < sync.began and sync.ended < answer.began for sync in log_syncs(made))


def test_every_250_is_written_after_the_fdatasync_of_what_it_promises(
    sinks: Callable[..., Sink], relays: Callable[..., Relay], tmp_path: Path
) -> None:
    sink = sinks()
    relay = relays(sink.port, answer_within="0s", dsn=False)
    trace = tmp_path / "trace"
    relay.start(*tracing("fdatasync,pwrite64,pwritev,write,writev,sendto,sendmsg", trace))
    for number in range(20):
        mark = f"crash-{number:06d}"
        content = message(mark, f"body-of-{mark}\r\n".encode())
        assert submit(relay.port, [f"alice@{DOMAIN}"], content)[0] == 250
    ids = {one["subject"]: one["queue_id"] for one in relay.queue("--all")}
    relay.stop()
    made = list(calls(trace))
    assert len(ids) == 20
    for mark, queue_id in ids.items():
        (answer,) = (call for call in made if f"250 2.0.0 {queue_id}" in call.text and "<socket:" in call.text)
        assert is_synced_before(made, f"body-of-{mark}", answer), f"{mark}: 250 before its fsync"
    assert set(marks(sink.messages()).values()) == {1}


def test_a_250_to_a_large_message_is_written_after_the_fdatasync_of_every_piece_of_it(
    relays: Callable[..., Relay], tmp_path: Path
) -> None:
    relay = relays(free_port(), answer_within="0s", retry=("1h",), dsn=False)
    trace = tmp_path / "trace"
    relay.start(*tracing("fdatasync,pwrite64,pwritev,write,writev,sendto,sendmsg", trace))
    lines = [b"line-%06d-" % number + b"x" * 60 + b"\r\n" for number in range(8_000)]
    code, reply = submit(relay.port, [f"alice@{DOMAIN}"], message("crash-000001", b"".join(lines)))
    assert code == 250
    queue_id = reply.split()[1]
    relay.stop()
    made = list(calls(trace))
    (answer,) = (call for call in made if f"250 2.0.0 {queue_id}" in call.text and "<socket:" in call.text)
    for number in range(0, 8_000, 400):
        assert is_synced_before(made, f"line-{number:06d}-", answer), f"line {number}: 250 before its fsync"
    # What promises nothing by itself is not waited for.
    assert len([sync for sync in log_syncs(made) if sync.ended < answer.began]) < 10


LARGE_POINTS = [
    ("fdatasync", 1), ("fdatasync", 2), ("fdatasync", 5),
    ("pwrite64", 60), ("pwrite64", 200), ("pwrite64", 420), ("pwrite64", 700), ("pwrite64", 1500), ("pwrite64", 3000),
]  # fmt: skip
"""Calls at which the daemon is cut off while large messages come in: in a piece, between two, in the last commit."""


def test_sigkill_while_large_messages_come_in_loses_none_and_leaves_no_part_of_one(
    relays: Callable[..., Relay], capsys: pytest.CaptureFixture[str]
) -> None:
    relay = relays(free_port(), answer_within="0s", retry=("1h",), dsn=False)
    relay.start()
    relay.kill()
    feeder = Feeder(relay.port, clients=3, size=400_000)
    directory = relay.directory / "spool"
    reached, left = [], 0
    try:
        for call, when in LARGE_POINTS:
            child = relay.launch(*killing(call, when))
            before = len(feeder.accepted)
            until(
                lambda start=before, running=child: (
                    len(feeder.accepted) >= start + 20  # type: ignore[misc]
                    or running.process.poll() is not None
                ),
                f"{call} {when} is reached or 20 messages are accepted",
            )
            if child.process.poll() is not None:
                reached.append((call, when))
            relay.kill()
            left += _parts(directory)
            accepted = set(feeder.accepted)
            assert accepted <= {one["subject"] for one in relay.queue()}
        feeder.stop()
        relay.start()
        assert _parts(directory) == 0
        assert accepted <= {one["subject"] for one in relay.queue()}
    finally:
        feeder.stop()
    with capsys.disabled():
        print(f"\nSIGKILL with large messages: {len(reached)} cuts, {left} parts of messages found and removed")
    assert len(reached) >= len(LARGE_POINTS) - 2


def _parts(directory: Path) -> int:
    """How many messages were cut off in the middle. Every other one must be whole, and every row somebody's."""
    db = connect(directory, create=False)
    sizes = rows(db, "SELECT size, (SELECT sum(length(data)) FROM content WHERE message = message.id) FROM message")
    strays = row(
        db,
        "SELECT count(*) FROM content WHERE message NOT IN (SELECT id FROM message)"
        " AND message NOT IN (SELECT message FROM incoming)",
    )[0]
    parts: int = row(db, "SELECT count(*) FROM incoming")[0]
    db.close()
    assert [size for size, stored in sizes if size != stored] == []
    assert strays == 0
    return parts


def test_clients_that_send_at_once_share_fsyncs(
    relays: Callable[..., Relay], postfix_package: Package, tmp_path: Path
) -> None:
    messages = 400
    # Nobody listens where its mail is to go: whatever is synced is mail that comes in.
    relay = relays(free_port(), answer_within="0s", retry=("1h",), dsn=False)
    trace = tmp_path / "trace"
    relay.start(*tracing("fdatasync", trace))
    send_with_source(postfix_package, relay.port, messages=messages, sessions=20)
    assert len(relay.queue()) == messages
    relay.stop()
    syncs = [call for call in calls(trace) if "-wal>" in call.text]
    assert 0 < len(syncs) < messages


def test_a_traced_call_that_another_thread_interrupted_counts_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text(
        '10  fdatasync(9</spool-wal> <unfinished ...>\n11  write(5<socket:[1]>, "250", 3) = 3\n'
        "10  <... fdatasync resumed>) = 0\n11  +++ exited with 0 +++\n"
    )
    assert [(call.name, call.began, call.ended) for call in calls(trace)] == [("write", 1, 1), ("fdatasync", 0, 2)]
    assert list(calls(trace))[1].text == "9</spool-wal> ) = 0"
