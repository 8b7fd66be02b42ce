"""What the clocks of a computer tell of its sleep, and of somebody who set them."""

import pytest

from mailrelay.network.events import Change, Clocks, between

BEFORE = Clocks(day=1_700_000_000.0, boot=5000.0, awake=4000.0)


def after(*, real: float, slept: float = 0.0, set_by: float = 0.0) -> Clocks:
    return Clocks(BEFORE.day + real + set_by, BEFORE.boot + real, BEFORE.awake + real - slept)


def test_time_that_only_passes_is_no_change() -> None:
    assert not between(BEFORE, after(real=86_400))


def test_sleep_is_what_the_clock_that_stands_still_has_missed() -> None:
    assert between(BEFORE, after(real=8 * 3600, slept=7 * 3600)) == Change(slept=7 * 3600)


@pytest.mark.parametrize("by", [86_400.0 * 365, -86_400.0 * 365, 61.0])
def test_a_clock_that_was_set_is_no_sleep(by: float) -> None:
    assert between(BEFORE, after(real=10, set_by=by)) == Change(leapt=by)


def test_a_clock_that_is_set_upon_waking_tells_both() -> None:
    assert between(BEFORE, after(real=3600, slept=3000, set_by=-7200)) == Change(slept=3000, leapt=-7200)


def test_what_a_time_server_fixes_is_no_leap() -> None:
    assert not between(BEFORE, after(real=100, set_by=-2.5))


def test_changes_add_up() -> None:
    one = Change(opens=True, gone=frozenset({"192.0.2.1"}), slept=5)
    other = Change(gone=frozenset({"2001:db8::1"}), slept=7, leapt=-60)
    assert one | other == Change(True, frozenset({"192.0.2.1", "2001:db8::1"}), 12, -60)
