"""The times that `--since` takes."""

import time
from collections.abc import Iterator
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.cli.since import moment_of

NOW = 1_795_874_585.5
"""2026-11-28 14:03:05.5 UTC; 23:03:05 in the zone of the tests."""
MIDNIGHT = NOW - 23 * 3600 - 185.5


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "XXX-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("word", "at"),
    [
        ("2h", NOW - 7200),
        ("1.5d", NOW - 129_600),
        ("90m", NOW - 5400),
        ("0s", NOW),
        (" 3w ", NOW - 21 * 86_400),
        ("today", MIDNIGHT),
        ("yesterday", MIDNIGHT - 86_400),
        ("2026-11-28", MIDNIGHT),
        ("2026-11-28 08:30", MIDNIGHT + 8.5 * 3600),
        ("2026-11-28T08:30:05", MIDNIGHT + 8.5 * 3600 + 5),
        ("2026-11-28 08:30:05 +0900", MIDNIGHT + 8.5 * 3600 + 5),
        ("2026-11-28T08:30:05+0000", MIDNIGHT + 17.5 * 3600 + 5),
        ("2026-11-28T08:30Z", MIDNIGHT + 17.5 * 3600),
        ("8:30", MIDNIGHT + 8.5 * 3600),
        ("08:30:05", MIDNIGHT + 8.5 * 3600 + 5),
        ("8:30:05", MIDNIGHT + 8.5 * 3600 + 5),
    ],
)
def test_durations_dates_and_times(word: str, at: float) -> None:
    assert moment_of(word, NOW) == at


@pytest.mark.parametrize(
    "word",
    [
        *("", "2", "h", "2 hours", "-2h", "1..5h", "99999999999w", "2h ago", "tomorrow", "1e3s", "٣h"),
        *("2026-13-01", "2026-02-30", "2026-11-28 25:00", "2026-11-28x", "0001-01-01", "28.11.2026", "25:00", "8:3"),
        "1" * 5000 + "h",
    ],
)
def test_anything_else_is_no_time(word: str) -> None:
    with pytest.raises(ValueError):
        moment_of(word, NOW)


@given(st.text(alphabet="0123456789-:T+Zhdmsw. ", max_size=30))
def test_no_text_is_another_error(word: str) -> None:
    try:
        at = moment_of(word, NOW)
    except ValueError:
        return
    assert isfinite(at)
    assert moment_of(f" {word} ", NOW) == at
