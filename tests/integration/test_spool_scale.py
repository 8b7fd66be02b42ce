"""What a step costs does not grow with the queue, counted in steps of SQLite's own machine, which no clock changes."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest
from harness.messages import BUSY, LIMIT, NO_SUCH_USER, NOW, TAKEN, ending, letter

from mailrelay.mail.envelope import Message
from mailrelay.mail.lifecycle import State
from mailrelay.mail.notice import Backend
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.record import Record
from mailrelay.spool import attempts, listing, notice_lifecycle, notices, relayhosts, stored
from mailrelay.spool.accepting import accept
from mailrelay.spool.database import connect, transaction

FEW, MANY = 100, 2000
AWAY = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="no network")
ROADS = (Backend.MAILBOX,)
LATE = 900.0


@contextlib.contextmanager
def steps(db: apsw.Connection) -> Iterator[list[int]]:
    """How many steps each statement took that ran inside."""
    counted: list[int] = []
    db.trace_v2(
        apsw.SQLITE_TRACE_PROFILE, lambda event: counted.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])
    )
    try:
        yield counted
    finally:
        db.trace_v2(0)


def spool(directory: Path, size: int) -> apsw.Connection:
    """A spool in which `size` messages wait: half of them untried, some deferred, some failed with notices that are told."""
    directory.mkdir(0o700)
    db = connect(directory)
    with transaction(db):
        for at in range(size):
            accept(db, letter(at=NOW + at), LIMIT)
        for message in attempts.take(db, "default", (), size // 2, "1", NOW + size):
            attempts.record(db, failed(message) if message.id % 5 == 0 else deferred(message), "1")
        while batch := notices.pending_notices(db, NOW + size):
            for owed in batch:
                notices.notice_delivered(db, owed, NOW + size)
    return db


def deferred(message: Message) -> Record:
    return ending(message.id, message.recipient_ids, {State.DEFERRED: BUSY}, next_attempt=NOW + 100_000)


def failed(message: Message) -> Record:
    return ending(message.id, message.recipient_ids, {State.BOUNCED: NO_SUCH_USER}, backends=ROADS)


def sent(message: Message) -> Record:
    return ending(message.id, message.recipient_ids, {State.SENT: TAKEN})


def attempt(db: apsw.Connection, end: Callable[[Message], Record]) -> None:
    (message,) = attempts.take(db, "default", (), 1, "1", NOW + MANY)
    assert stored.piece(db, message.id, 0)
    attempts.record(db, end(message), "1")


def put_back(db: apsw.Connection) -> None:
    (message,) = attempts.take(db, "default", (), 1, "1", NOW + MANY)
    attempts.put_back(db, [message.id], "1", NOW)


def hurry(db: apsw.Connection) -> None:
    key = accept(db, letter(at=NOW + MANY), LIMIT)
    (message,) = attempts.take(db, "default", (key,), 1, "1", NOW + MANY)
    assert message.id == key
    attempts.record(db, sent(message), "1")


def dial_fails(db: apsw.Connection) -> None:
    relayhosts.relayhost_failed(db, "default", AWAY, NOW + 60, False, ROADS, NOW)
    assert relayhosts.relayhost_failure(db, "default")
    relayhosts.relayhost_up(db, "default", ROADS, NOW)


def tell(db: apsw.Connection) -> None:
    attempt(db, failed)
    (owed,) = notices.pending_notices(db, NOW + MANY)
    notices.notice_delivered(db, owed, NOW + MANY)


HOT: dict[str, Callable[[apsw.Connection], Any]] = {
    "a message comes in": lambda db: accept(db, letter(), LIMIT),
    "a message comes in and goes out at once": hurry,
    "the scheduler asks what is due": lambda db: attempts.next_due(db, "default"),
    "a message is sent": partial(attempt, end=sent),
    "a message is deferred": partial(attempt, end=deferred),
    "a message is put back": put_back,
    "a message fails and the person hears of it": tell,
    "the network is away and comes back": dial_fails,
    "the notifier asks what is owed": lambda db: (notices.pending_notices(db, NOW), notices.next_notice_due(db)),
    "the notifier asks when mail will be late": lambda db: notice_lifecycle.next_update(db, LATE, NOW),
    "a crash is cleared up": lambda db: attempts.recover(db, NOW),
}


@pytest.fixture(scope="module")
def spools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[apsw.Connection, apsw.Connection]]:
    folder = tmp_path_factory.mktemp("scale")
    few, many = spool(folder / "few", FEW), spool(folder / "many", MANY)
    yield few, many
    few.close()
    many.close()


@pytest.mark.parametrize("what", HOT)
def test_what_happens_to_one_message_costs_the_same_however_many_wait(
    spools: tuple[apsw.Connection, apsw.Connection], what: str
) -> None:
    costs = []
    for db in spools:
        HOT[what](db)
        with steps(db) as counted:
            HOT[what](db)
        costs.append(sum(counted))
    assert costs[1] <= 1.1 * costs[0]


def test_a_listing_reads_each_message_once_and_nothing_else(spools: tuple[apsw.Connection, apsw.Connection]) -> None:
    costs = []
    for db in spools:
        with steps(db) as counted:
            found = len(list(listing.live(db)))
        costs.append(sum(counted) / found)
    assert costs[1] <= 1.1 * costs[0]


def test_a_listing_reads_no_content(spools: tuple[apsw.Connection, apsw.Connection]) -> None:
    tables = set()

    def authorise(operation: int, table: str | None, *_: str | None) -> int:
        if operation == apsw.SQLITE_READ:
            tables.add(table)
        return apsw.SQLITE_OK

    db = spools[0]
    db.authorizer = authorise
    try:
        list(listing.live(db))
        list(listing.everything(db))
        listing.status(db)
    finally:
        db.authorizer = None
    assert "message" in tables
    assert "content" not in tables
