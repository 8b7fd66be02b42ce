"""When the relayhost is asked: soon after the 250, then ever more rarely, with one question for all messages."""

from itertools import pairwise

import pytest

from mailrelay.tracking.schedule import LIFETIME, MIN_GAP, is_followed, next_question


def test_the_questions_about_one_message() -> None:
    times: list[float] = []
    asked = None
    while (point := next_question([0.0], asked, asked or 0.0)) is not None:
        times.append(asked := point)
    assert times[:8] == [2, 10, 28, 120, 600, 1800, 5400, 9000]
    assert {later - one for one, later in pairwise(times[5:])} == {3600.0}
    assert LIFETIME - 3600 < times[-1] <= LIFETIME


def test_one_question_is_for_all() -> None:
    # The older message is due at 28, the newer at 22: both are asked about, and the newer again at 30.
    assert next_question([0.0, 20.0], 10.0, 20.0) == 22.0
    assert next_question([0.0, 20.0], 22.0, 22.0) == 28.0
    assert next_question([0.0, 20.0], 28.0, 28.0) == 28.0 + MIN_GAP


def test_a_stream_of_messages_is_asked_about_at_intervals() -> None:
    assert next_question([float(one) for one in range(100)], 99.0, 99.5) == 99.0 + MIN_GAP


@pytest.mark.parametrize("asked", [None, 3.0])
def test_nothing_to_follow_is_no_question(asked: float | None) -> None:
    assert next_question([], asked, 10.0) is None
    assert next_question([0.0], asked, LIFETIME + 1) is None
    assert not is_followed(0.0, LIFETIME + 1)


@pytest.mark.parametrize(
    ("accepted", "asked", "now", "expected"),
    [
        ([0.0, 1.0], None, 1.0, 2.0),
        ([0.0], 1800.0, 1800.0, 5400.0),
        ([0.0], 4800.0, 4800.0, 5400.0),
        ([0.0], 5399.0, 5399.0, 5404.0),
        ([0.0], 5400.0, 5400.0, 9000.0),
    ],
)
def test_the_earliest_point_that_was_not_asked_at_is_next(
    accepted: list[float], asked: float | None, now: float, expected: float
) -> None:
    for epoch in (0.0, 1.8e9):
        last = None if asked is None else epoch + asked
        assert next_question([epoch + one for one in accepted], last, epoch + now) == epoch + expected


def test_a_message_is_followed_up_to_the_end_of_its_time() -> None:
    assert is_followed(1.8e9, 1.8e9 + LIFETIME)
    assert not is_followed(1.8e9, 1.8e9 + LIFETIME + 1)


def test_after_a_sleep_a_question_is_due_at_once() -> None:
    assert next_question([0.0], 28.0, 7200.0) == 120.0


def test_a_clock_that_was_put_back_postpones_nothing_for_long() -> None:
    assert next_question([1e6], 1e6 + 28, 0.0) == MIN_GAP
