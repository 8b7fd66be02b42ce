"""Which relayhosts send the mail of one that cannot be reached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.mail.outcome import SETUP_REPLIES, Cause
from mailrelay.ports import RelayhostFailure
from mailrelay.relay.fallback import candidates, is_unreachable

NAMES = "abcd"


@pytest.mark.parametrize(
    ("unreachable", "found"),
    [
        ("", []),
        ("b", []),
        ("a", ["b"]),
        ("ac", ["b"]),
        ("ab", ["b", "c"]),
        ("abc", ["b", "c", "d"]),
        ("abcd", ["b", "c", "d"]),
    ],
)
def test_the_order_holds(unreachable: str, found: list[str]) -> None:
    assert candidates("a", ["b", "c", "d"], unreachable.__contains__) == found


@given(st.sets(st.sampled_from(NAMES)), st.permutations(NAMES[1:]))
def test_at_most_one_that_can_be_reached_sends(unreachable: set[str], fallback: list[str]) -> None:
    found = candidates("a", fallback, unreachable.__contains__)
    reached = [one for one in found if one not in unreachable]
    assert len(reached) <= 1
    assert found == fallback[: len(found)]
    if "a" in unreachable:
        assert reached or set(fallback) <= unreachable
    else:
        assert not found


def test_a_mail_server_that_has_refused_mailrelay_or_turns_mail_away_was_reached() -> None:
    reached = {cause for cause in Cause if not is_unreachable(RelayhostFailure(1, 0.0, cause, ""))}
    assert reached == SETUP_REPLIES | {Cause.TURNED_AWAY}
    assert not is_unreachable(None)
