"""Queue ids: short, in the order of time, and never the same twice, whatever the clock does."""

import itertools
from dataclasses import replace

from harness.messages import NOW, letter
from harness.spool_engine import Engine
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.spool import queue_ids
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


def test_a_new_process_goes_on_above_the_ids_of_the_spool_though_the_clock_was_set_back(engine: Engine) -> None:
    engine.now = TODAY
    latest = [engine.spool.new_queue_id() for _ in range(10)][-1]
    # Spools of old hold longer ids, which are not in the order of time.
    for queue_id in (latest, "zzzzzzzzzz"):
        engine.do(engine.spool.accept(replace(letter(), queue_id=queue_id)))
    engine.restart()
    engine.now = TODAY - 86_400
    made = engine.spool.new_queue_id()
    assert made > latest
    assert len(made) == LENGTH


def test_a_command_chooses_an_id_that_is_free_and_that_the_daemon_never_makes(engine: Engine) -> None:
    engine.now = TODAY
    made = set()
    for at in range(200):
        engine.now = TODAY + at / 1000
        made.add(engine.spool.new_queue_id())
    engine.now = TODAY
    envelope = Envelope(b"a@example.org", (Recipient(b"b@example.net"),))
    for _ in range(50):
        _, queue_id = engine.commands.enqueue(envelope, b"Subject: hello\r\n\r\n", "default")
        assert queue_id not in made
        made.add(queue_id)


def test_an_id_is_letters_and_digits_that_spell_nothing() -> None:
    ids = QueueIds("")
    letters = set(itertools.chain.from_iterable(ids.new(NOW + at * 1e6) for at in range(1_000)))
    assert letters <= set("0123456789bcdfghjkmnpqrstvwxyz")


def test_two_machines_make_different_tokens() -> None:
    assert queue_ids.message_id_token() != queue_ids.message_id_token()
    assert queue_ids.message_id_token().isalnum()
