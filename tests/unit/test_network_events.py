"""Clock readings show how long a computer was suspended and by how much its clock was set."""

import sys
import time

import pytest

from mailrelay.network.events import Change, Clocks, change_between
from mailrelay.network.monitor import read_clocks

BEFORE = Clocks(realtime=1_700_000_000.0, boottime=5000.0, monotonic=4000.0)


def after(*, real: float, suspended: float = 0.0, set_by: float = 0.0) -> Clocks:
    return Clocks(BEFORE.realtime + real + set_by, BEFORE.boottime + real, BEFORE.monotonic + real - suspended)


def test_time_that_only_passes_is_no_change() -> None:
    assert not change_between(BEFORE, after(real=86_400))


def test_a_suspend_is_the_time_that_the_monotonic_clock_has_missed() -> None:
    assert change_between(BEFORE, after(real=8 * 3600, suspended=7 * 3600)) == Change(suspended=7 * 3600)


@pytest.mark.parametrize("by", [86_400.0 * 365, -86_400.0 * 365, 61.0])
def test_a_clock_that_was_set_is_no_suspend(by: float) -> None:
    assert change_between(BEFORE, after(real=10, set_by=by)) == Change(clock_step=by)


def test_a_clock_that_is_set_after_a_suspend_gives_both() -> None:
    assert change_between(BEFORE, after(real=3600, suspended=3000, set_by=-7200)) == Change(
        suspended=3000, clock_step=-7200
    )


def test_a_correction_by_a_time_server_is_no_step() -> None:
    assert not change_between(BEFORE, after(real=100, set_by=-2.5))


def test_changes_add_up() -> None:
    one = Change(may_connect=True, removed_addresses=frozenset({"192.0.2.1"}), suspended=5)
    other = Change(removed_addresses=frozenset({"2001:db8::1"}), suspended=7, clock_step=-60)
    assert one | other == Change(True, frozenset({"192.0.2.1", "2001:db8::1"}), 12, -60)


@pytest.mark.skipif(sys.platform != "linux", reason="CLOCK_BOOTTIME is Linux's")
def test_the_clocks_are_read_each_into_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: 1.0)
        clock.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 2.0}.__getitem__)
        clock.setattr(time, "monotonic", lambda: 3.0)
        found = read_clocks()
    assert found == Clocks(realtime=1.0, boottime=2.0, monotonic=3.0)
