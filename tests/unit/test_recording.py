"""What is known about the records of a relayhost, and when it is found out again."""

import pytest

from mailrelay.mail.recorded import Recording, RecordingState
from mailrelay.relay.recording import REST, SHORT_REST, after_refusal, is_trial_due
from mailrelay.ssh.interface import NotRecorded

NOW = 1_000_000.0
FOR_GOOD = NotRecorded("There is no perl.")
NOT_NOW = NotRecorded("No reply in time.", is_temporary=True)
UNKNOWN, POSSIBLE, IMPOSSIBLE = RecordingState.UNKNOWN, RecordingState.POSSIBLE, RecordingState.IMPOSSIBLE


@pytest.mark.parametrize(
    ("known", "is_due"),
    [
        pytest.param(Recording(), True, id="nothing is known"),
        pytest.param(Recording(POSSIBLE), False, id="it records"),
        pytest.param(Recording(IMPOSSIBLE, NOW + 1), False, id="it does not, as was found out today"),
        pytest.param(Recording(IMPOSSIBLE, NOW), True, id="it did not a day ago"),
        pytest.param(Recording(UNKNOWN, NOW + 1), False, id="it did not reply a while ago"),
        pytest.param(Recording(IMPOSSIBLE, NOW + 2 * REST), True, id="the clock was wrong"),
    ],
)
def test_a_trial_is_made_when_it_may_show_something_new(known: Recording, *, is_due: bool) -> None:
    assert is_trial_due(known, NOW) is is_due


@pytest.mark.parametrize(
    ("error", "before", "others", "known"),
    [
        pytest.param(FOR_GOOD, Recording(), False, Recording(IMPOSSIBLE, NOW + REST), id="it cannot"),
        pytest.param(FOR_GOOD, Recording(POSSIBLE), True, Recording(IMPOSSIBLE, NOW + REST), id="it cannot any more"),
        pytest.param(NOT_NOW, Recording(), False, Recording(UNKNOWN, NOW + SHORT_REST), id="no reply, the first time"),
        pytest.param(
            NOT_NOW, Recording(UNKNOWN, NOW - 1), False, Recording(UNKNOWN, NOW + REST), id="no reply, the second time"
        ),
        pytest.param(NOT_NOW, Recording(POSSIBLE), False, Recording(), id="no reply, though it was possible"),
        pytest.param(NOT_NOW, Recording(POSSIBLE), True, Recording(POSSIBLE), id="the limit of sessions"),
    ],
)
def test_a_refusal_changes_what_is_known(
    error: NotRecorded, before: Recording, known: Recording, *, others: bool
) -> None:
    assert after_refusal(error, before, NOW, others=others) == known
