"""Content that is kept because its recipients are followed takes no space from new mail."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest
from harness.messages import BUSY, NOW, TAKEN, letter

from mailrelay.mail.conclusion import RetryPolicy, conclude
from mailrelay.mail.outcome import Outcome
from mailrelay.mail.spool_errors import SpoolFull
from mailrelay.mail.there import Source, There, Verdict
from mailrelay.spool import listing, space, stored
from mailrelay.spool.database import connect
from mailrelay.spool.spool import Spool
from mailrelay.tracking.followed import Found

KIB = 1024
SIZE = 256 * KIB
LIMIT = 4 * KIB * KIB
POLICY = RetryPolicy((600.0,), 432_000.0, lambda *_: ())
CONTENT = b"0123456789abcd\r\n" * (SIZE // 16)


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    spool = Spool(tmp_path / "spool", LIMIT, lambda _: None, now=lambda: NOW)
    yield spool
    spool.close()


@pytest.fixture
def db(tmp_path: Path, spool: Spool) -> apsw.Connection:
    return connect(tmp_path / "spool")


@pytest.fixture(autouse=True)
def no_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that content goes one by one."""
    monkeypatch.setattr(space, "MARGIN", 0)


async def sent(spool: Spool, state: There | None = None, *, outcome: Outcome = TAKEN, is_over: bool = False) -> int:
    """A large message that the mail server has accepted, and that is followed; what was found of it. Returns its key."""
    key = await spool.accept(letter(content=CONTENT))
    (message,) = await spool.take("default", (key,), 1)
    record = conclude(
        message,
        [outcome],
        POLICY,
        client_told=False,
        relays_dsn=True,
        now=NOW,
        chance=0.5,
        is_followed=True,
    )
    assert await spool.record(record)
    if state is not None:
        found = Found(message.recipient_ids[0], Verdict(state, Source.LOG, b"words"), is_over=is_over)
        await spool.found([found], lambda *_: ())
    return key


def has_content(db: apsw.Connection, key: int) -> bool:
    return b"".join(stored.content(db, key)) != b""


async def test_any_number_of_messages_is_accepted_while_the_older_ones_are_only_followed(
    spool: Spool, db: apsw.Connection
) -> None:
    keys = [await sent(spool) for _ in range(40)]
    kept = [has_content(db, key) for key in keys]
    assert kept == sorted(kept), "the oldest go first"
    assert 8 <= sum(kept) < 16
    assert len(await spool.followed("default")) == 40
    assert (db.pragma("page_count") - db.pragma("freelist_count")) * db.pragma("page_size") <= LIMIT


async def test_what_was_delivered_goes_first_and_what_bounced_there_last(spool: Spool, db: apsw.Connection) -> None:
    order = [There.BOUNCED, There.DEFERRED, There.WAITING, There.DELIVERED, There.LEFT, There.NOT_FOLLOWED]
    keys = {state: await sent(spool, state) for state in order}
    gone: list[There] = []
    while len(gone) < len(order):
        # A message that waits here: its content is never given up.
        await sent(spool, outcome=BUSY)
        new = [state for state in order if state not in gone and not has_content(db, keys[state])]
        assert len(new) <= 2
        gone += new
    assert set(gone[:3]) == {There.DELIVERED, There.LEFT, There.NOT_FOLLOWED}
    assert set(gone[3:5]) == {There.DEFERRED, There.WAITING}
    assert gone[5:] == [There.BOUNCED]
    with pytest.raises(SpoolFull):
        while True:
            await sent(spool, outcome=BUSY)
    assert next(message.queue_name for message in listing.live(db)) == "failed"


async def test_a_refused_message_gives_up_nothing(spool: Spool, db: apsw.Connection) -> None:
    key = await sent(spool)
    with pytest.raises(SpoolFull):
        await spool.accept(letter(content=b"x" * (LIMIT + 1)))
    assert has_content(db, key)


async def test_content_that_comes_in_parts_takes_the_space_too(spool: Spool, db: apsw.Connection) -> None:
    keys = [await sent(spool) for _ in range(12)]
    staged = None
    for _ in range(48):
        staged = await spool.stage(staged, b"x" * 64 * KIB)
    assert not all(has_content(db, key) for key in keys)
    assert await spool.accept(letter(at=NOW))


async def test_the_room_that_is_shown_counts_it_as_free(spool: Spool, db: apsw.Connection) -> None:
    empty = space.check_space(db, 0, LIMIT, LIMIT)
    for _ in range(12):
        await sent(spool)
    assert space.check_space(db, space.ORDINARY, LIMIT) < LIMIT // 2
    assert space.check_space(db, space.ORDINARY, LIMIT, LIMIT) > empty * 0.95
    assert space.check_space(db, LIMIT // 2, LIMIT) > empty * 0.95


async def test_on_a_full_disk_the_file_gives_its_space_back(
    spool: Spool, db: apsw.Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys = [await sent(spool) for _ in range(12)]
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    file = tmp_path / "spool" / "spool.db"
    before = file.stat().st_size
    full = SimpleNamespace(f_bavail=space.RESERVE // 4096 - 10, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    with pytest.raises(SpoolFull, match="disk is full"):
        space.check_space(db, LIMIT // 2, 100 * LIMIT)
    assert space.check_space(db, SIZE, 100 * LIMIT) >= SIZE
    new = await spool.accept(letter(content=CONTENT))
    assert has_content(db, new)
    kept = [has_content(db, key) for key in keys]
    assert kept == sorted(kept)
    assert 0 < sum(kept) < 12
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    assert file.stat().st_size < before


async def test_deleted_mail_makes_the_file_smaller(spool: Spool, db: apsw.Connection, tmp_path: Path) -> None:
    for _ in range(12):
        await sent(spool)
    keep = await sent(spool, There.DEFERRED)
    delivered = Verdict(There.DELIVERED, Source.LOG)
    found = [
        Found(one.recipient, delivered, is_over=True) for one in await spool.followed("default") if one.message != keep
    ]
    await spool.found(found, lambda *_: ())
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    file = tmp_path / "spool" / "spool.db"
    before = file.stat().st_size
    await spool.purge(0.0)
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    assert file.stat().st_size < before - SIZE // 2
    assert has_content(db, keep)
