"""Queue ids: short, in the order of time, and never the same twice, whatever the clock does."""

import itertools
from pathlib import Path

from harness.messages import LIMIT, NOW, letter
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.spool import queue_ids
from mailrelay.spool.accepting import accept
from mailrelay.spool.database import connect, transaction
from mailrelay.spool.queue_ids import LENGTH, QueueIds

TODAY = 1_790_000_000.0


@given(st.lists(st.floats(-1e12, 1e12)))
def test_ids_grow_however_the_clock_is_set(clock: list[float]) -> None:
    ids = QueueIds("")
    made = [ids.new(now) for now in clock]
    assert made == sorted(set(made))
    assert all(len(one) == LENGTH for one in made)


def test_ids_are_in_the_order_of_time() -> None:
    made = [QueueIds("").new(TODAY + seconds) for seconds in (0, 0.01, 1, 60, 3600, 86_400, 4 * 365 * 86_400)]
    assert made == sorted(set(made))


def test_messages_of_one_minute_differ_in_their_last_letters_only() -> None:
    ids = QueueIds("")
    assert {ids.new(TODAY + at / 100)[:3] for at in range(6_000)} == {ids.new(TODAY)[:3]}


def test_a_new_process_goes_on_above_the_ids_of_the_spool_though_the_clock_was_set_back(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    db = connect(tmp_path)
    assert queue_ids.highest(db) == ""
    before = QueueIds(queue_ids.highest(db))
    latest = [before.new(TODAY) for _ in range(10)][-1]
    with transaction(db):
        for queue_id in (latest, "zzzzzzzzzz"):
            key = accept(db, letter(), LIMIT)
            db.execute("UPDATE message SET queue_id = ? WHERE id = ?", (queue_id, key))
    after = QueueIds(queue_ids.highest(db))
    assert after.new(TODAY - 86_400) > latest
    db.close()


def test_a_command_chooses_an_id_that_is_free_and_that_the_daemon_never_makes(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    db = connect(tmp_path)
    daemon = QueueIds("")
    made = {daemon.new(TODAY + at / 1000) for at in range(200)}
    with transaction(db):
        for _ in range(50):
            queue_id = queue_ids.new_for_command(db, TODAY)
            assert queue_id not in made
            made.add(queue_id)
            key = accept(db, letter(), LIMIT)
            db.execute("UPDATE message SET queue_id = ? WHERE id = ?", (queue_id, key))
    db.close()


def test_an_id_is_letters_and_digits_that_spell_nothing() -> None:
    ids = QueueIds("")
    letters = set(itertools.chain.from_iterable(ids.new(NOW + at * 1e6) for at in range(1_000)))
    assert letters <= set("0123456789bcdfghjkmnpqrstvwxyz")


def test_two_machines_make_different_tokens() -> None:
    assert queue_ids.message_id_token() != queue_ids.message_id_token()
    assert queue_ids.message_id_token().isalnum()
