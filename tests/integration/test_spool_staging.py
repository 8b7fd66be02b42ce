"""Contents that come in pieces: nobody sees them before they are a message, and nothing is left of those that never are."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from harness.messages import LIMIT, letter

from mailrelay.mail.record import Arrival, Staged
from mailrelay.mail.spool_errors import SpoolError, SpoolFull
from mailrelay.spool import accepting, ballast, listing
from mailrelay.spool.database import PIECE, connect, row
from mailrelay.spool.spool import Spool
from mailrelay.spool.staging import STAGED_AT_ONCE

PART = b"x" * 60_000 + b"\r\n"


@contextmanager
def open_spool(directory: Path, max_size: int = LIMIT) -> Iterator[Spool]:
    directory.mkdir(0o700, exist_ok=True)
    spool = Spool(directory, max_size, lambda _: None)
    try:
        yield spool
    finally:
        spool.close()


async def staged(spool: Spool, parts: int) -> tuple[Staged, Arrival]:
    """A message of which so many parts are in the spool, and what is to be accepted of it."""
    begun = letter()
    so_far = await spool.stage(None, begun.content)
    for _ in range(parts):
        so_far = await spool.stage(so_far, PART)
    return so_far, replace(begun, content=b"the end\r\n", staged=so_far)


def counts(directory: Path) -> tuple[int, int, int]:
    """Messages, incoming messages, and rows of content that belong to neither."""
    db = connect(directory)
    found = row(
        db,
        "SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM incoming), (SELECT count(*) FROM content"
        " WHERE message NOT IN (SELECT id FROM message) AND message NOT IN (SELECT message FROM incoming))",
    )
    db.close()
    return found  # type: ignore[no-any-return]


async def content(spool: Spool, key: int) -> bytes:
    return b"".join([piece async for piece in spool.pieces(key)])


async def test_a_staged_content_becomes_a_message_with_all_of_its_octets(tmp_path: Path) -> None:
    with open_spool(tmp_path / "spool") as spool:
        _, arrival = await staged(spool, 5)
        key = await spool.accept(arrival)
        assert key == arrival.staged.key  # type: ignore[union-attr]
        whole = await content(spool, key)
        assert arrival.size == len(whole)
        assert whole.startswith(b"Received: ")
        assert whole.endswith(PART * 5 + b"the end\r\n")
        [message] = await spool.take("default", (), 1)
        assert message.size == len(whole) == arrival.size
    assert counts(tmp_path / "spool") == (1, 0, 0)


async def test_nobody_sees_a_message_whose_content_still_comes_in(tmp_path: Path) -> None:
    with open_spool(tmp_path / "spool") as spool:
        await staged(spool, 3)
        assert await spool.next_due("default") is None
        assert await spool.count_due("default", 10) == 0
        assert await spool.take("default", (), 10) == []
        db = connect(tmp_path / "spool")
        assert list(listing.everything(db)) == []
        assert listing.status(db).pending == 0
        db.close()


async def test_messages_that_come_in_meanwhile_have_ids_of_their_own(tmp_path: Path) -> None:
    with open_spool(tmp_path / "spool") as spool:
        first, second = await staged(spool, 1), await staged(spool, 2)
        small = [await spool.accept(letter()) for _ in range(3)]
        keys = {await spool.accept(second[1]), await spool.accept(first[1])}
        later = await spool.accept(letter())
        assert len({*small, *keys, later}) == 6
        assert (await content(spool, first[0].key)).count(PART) == 1
        assert (await content(spool, second[0].key)).count(PART) == 2
    assert counts(tmp_path / "spool") == (6, 0, 0)


async def test_what_was_staged_for_no_message_is_removed_and_its_space_is_free_again(tmp_path: Path) -> None:
    with open_spool(tmp_path / "spool") as spool:
        so_far, _ = await staged(spool, 20)
        db = connect(tmp_path / "spool")
        used = db.pragma("page_count") - db.pragma("freelist_count")
        await spool.unstage(so_far)
        assert db.pragma("page_count") - db.pragma("freelist_count") < used - 200
        db.close()
    assert counts(tmp_path / "spool") == (0, 0, 0)


async def test_a_message_is_not_removed_as_if_it_were_still_staged(tmp_path: Path) -> None:
    with open_spool(tmp_path / "spool") as spool:
        so_far, arrival = await staged(spool, 2)
        await spool.accept(arrival)
        await spool.unstage(so_far)
        assert (await content(spool, so_far.key)).endswith(b"the end\r\n")


async def test_what_a_crash_left_is_removed_at_the_next_start_and_messages_stay(tmp_path: Path) -> None:
    with open_spool(tmp_path / "spool") as spool:
        await staged(spool, 3)
        await staged(spool, 4)
        await spool.accept((await staged(spool, 2))[1])
    assert counts(tmp_path / "spool") == (1, 2, 0)
    with open_spool(tmp_path / "spool") as spool:
        assert await spool.unstage_all() == 2
        [message] = await spool.take("default", (), 10)
        assert (await content(spool, message.id)).count(PART) == 2
    assert counts(tmp_path / "spool") == (1, 0, 0)


async def test_a_message_whose_beginning_is_gone_is_not_taken(tmp_path: Path) -> None:
    with open_spool(tmp_path / "spool") as spool:
        so_far, arrival = await staged(spool, 2)
        await spool.unstage(so_far)
        with pytest.raises(SpoolError, match="send it again"):
            await spool.accept(arrival)
        # Others in the same commit are not concerned.
        other = letter()
        results = await asyncio.gather(spool.accept(arrival), spool.accept(other), return_exceptions=True)
        assert isinstance(results[0], SpoolError)
        assert isinstance(results[1], int)
    assert counts(tmp_path / "spool") == (1, 0, 0)


async def test_staging_counts_against_the_size_of_the_spool(tmp_path: Path) -> None:
    with open_spool(tmp_path / "spool", max_size=2_000_000) as spool:
        so_far, _ = await staged(spool, 1)
        with pytest.raises(SpoolFull):
            for _ in range(100):
                so_far = await spool.stage(so_far, PART)
        await spool.unstage(so_far)
        await spool.accept(letter())
    assert counts(tmp_path / "spool") == (1, 0, 0)


async def test_a_small_message_waits_for_a_bounded_number_of_parts(tmp_path: Path) -> None:
    with open_spool(tmp_path / "spool") as spool:
        writing = [asyncio.ensure_future(spool.stage(None, PART)) for _ in range(10 * STAGED_AT_ONCE)]
        # A task of its own, so that it begins behind the others.
        await asyncio.create_task(spool.accept(letter()))
        assert sum(one.done() for one in writing) <= 2 * STAGED_AT_ONCE
        await asyncio.gather(*writing)


async def test_a_large_message_does_not_make_the_log_grow_without_end(tmp_path: Path) -> None:
    with open_spool(tmp_path / "spool") as spool:
        log = tmp_path / "spool/spool.db-wal"
        so_far, arrival = await staged(spool, 0)
        highest = 0
        for _ in range(400):
            so_far = await spool.stage(so_far, PART)
            highest = max(highest, log.stat().st_size)
        await spool.accept(replace(arrival, staged=so_far))
        assert highest < 8_000_000 < so_far.size


async def test_no_row_of_content_is_larger_than_a_piece(tmp_path: Path) -> None:
    with open_spool(tmp_path / "spool") as spool:
        so_far = await spool.stage(None, b"y" * (3 * PIECE + 1))
        assert so_far.pieces == 4
        await spool.accept(letter(content=b"z" * (2 * PIECE)))
    db = connect(tmp_path / "spool")
    assert row(db, "SELECT max(length(data)) FROM content")[0] == PIECE
    db.close()


async def test_the_step_that_removes_what_a_crash_left_says_how_many_they_were(tmp_path: Path) -> None:
    with open_spool(tmp_path / "spool") as spool:
        await staged(spool, 1)
        await staged(spool, 1)
    db = connect(tmp_path / "spool")
    assert accepting.unstage_all(db) == 2
    assert accepting.unstage_all(db) == 0
    db.close()


async def test_of_contents_that_do_not_fit_together_one_at_a_time_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The others go on because it is removed, and not because they have waited long enough.
    monkeypatch.setattr("mailrelay.spool.staging.REMOVAL_WAIT", 3600.0)

    async def send(spool: Spool) -> bool:
        """A client with 5.4 MB; whether it was taken."""
        begun = letter()
        so_far: Staged | None = None
        try:
            for _ in range(90):
                so_far = await spool.stage(so_far, PART)
            await spool.accept(replace(begun, content=b"the end\r\n", staged=so_far))
        except SpoolFull:
            if so_far is not None:
                await spool.unstage(so_far)
            return False
        return True

    with open_spool(tmp_path / "spool", max_size=20_000_000) as spool:
        taken = await asyncio.gather(*(send(spool) for _ in range(6)))
        # There is room for three of them, and a little more.
        assert taken.count(True) == 3
    assert counts(tmp_path / "spool") == (3, 0, 0)


async def test_a_content_that_gives_way_and_is_never_removed_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrelay.spool.staging.REMOVAL_WAIT", 0.01)

    with open_spool(tmp_path / "spool", max_size=2_000_000) as spool:
        first, _ = await staged(spool, 10)
        second, _ = await staged(spool, 10)
        with pytest.raises(SpoolFull):
            for _ in range(100):
                first = await spool.stage(first, PART)
        # Its client is gone, and so is whoever would remove it.
        with pytest.raises(SpoolFull):
            await spool.stage(second, PART)
        await spool.unstage(first)
        await spool.stage(second, PART)


async def test_what_is_removed_makes_room_even_where_there_is_none_to_write_that_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_spool(tmp_path / "spool") as spool:
        so_far, _ = await staged(spool, 3)
        assert (tmp_path / "spool" / ballast.FILE).exists()
        tries = 0
        unstage = accepting.unstage

        def full_once(db: object, key: int) -> None:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise SpoolFull("no room")
            unstage(db, key)  # type: ignore[arg-type]

        monkeypatch.setattr(accepting, "unstage", full_once)
        await spool.unstage(so_far)
        assert not (tmp_path / "spool" / ballast.FILE).exists()
    assert counts(tmp_path / "spool") == (0, 0, 0)
