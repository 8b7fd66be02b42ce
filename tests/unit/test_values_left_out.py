"""Values of mail of which only the required parts are given: all others are absent, and nothing is sent or shown of them."""

import dataclasses
from collections.abc import Iterator

import pytest

from mailrelay.mail.completion import Completion
from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.handed_in import HandedIn
from mailrelay.mail.notice import Concerned, Kind, Notice
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.mail.overview import Event, Listed, ListedRecipient, RelayhostFault, SpoolStatus
from mailrelay.mail.record import Arrival, Place, Record
from mailrelay.mail.recorded import ReadExchange, Recording, RecordingState
from mailrelay.mail.selection import EVERYTHING, Filter
from mailrelay.mail.sending import Sending, Stop
from mailrelay.mail.there import Source, There, Verdict

ENVELOPE = Envelope(b"me@example.org", ())
VALUES = (
    Recipient(b"bob@example.net"),
    ENVELOPE,
    Message(1, "q", "home", ENVELOPE, (), 0, 0.0, 0),
    Arrival("q", ENVELOPE, b"", "home", 0.0, ""),
    Record(1, 0.0, (), None, ()),
    Concerned(b"bob@example.net", "bounced", "5.1.1", b"no", "RCPT", True),
    Notice(1, Kind.SETUP, "home", 0.0),
    ListedRecipient(b"bob@example.net", "queued", "", "", b"", None),
    Listed(1, "q", "", "home", 0.0, 0, b"", "", 0, None, "", ()),
    Event(0.0, "accepted"),
    RelayhostFault("home", 0.0, 0.0, False, "", ""),
    SpoolStatus(0, None, 0, 0, 0, 0, (), ()),
    HandedIn(ENVELOPE, b""),
    Reply(250),
    Recording(),
    ReadExchange(1, 2),
    Sending("q", "home", 0, 1),
    Verdict(There.WAITING),
    Filter(),
    Completion(),
)
OTHERWISE = {(Envelope, "body"): b"7BIT", (Notice, "is_kept"): True, (Record, "place"): Place.ALONE}


def optional_parts(value: object) -> Iterator[tuple[str, object]]:
    """The names and values of the parts that need not be given, without functions."""
    if dataclasses.is_dataclass(value):
        names = [one.name for one in dataclasses.fields(value) if one.default is not dataclasses.MISSING]
    else:
        names = list(getattr(value, "_field_defaults", {}))
    assert names
    for name in names:
        if not callable(part := getattr(value, name)):
            yield name, part


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_part_that_is_not_given_is_absent(value: object) -> None:
    for name, part in optional_parts(value):
        if (type(value), name) in OTHERWISE:
            assert part == OTHERWISE[type(value), name], name
        else:
            assert not part, name


def test_an_outcome_without_a_cause_is_judged_by_its_reply() -> None:
    outcome = Outcome(Stage.RCPT)
    assert outcome.cause is Cause.REPLY
    assert (outcome.reply, outcome.text, outcome.fix, outcome.description) == (None, "", "", b"")


def test_a_completion_that_knows_nothing_takes_no_name_for_a_local_account() -> None:
    assert Completion(local=b"me@example.org").whole_recipient(b"root") == b"root"


def test_a_filter_without_values_is_the_one_that_selects_everything() -> None:
    assert Filter() == EVERYTHING
    assert Filter(since=0.0) != EVERYTHING


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (RecordingState, ["", "possible", "impossible"]),
        (Stop, ["cancelled", "too late", "not sending"]),
        (Source, ["queue", "log", "report", ""]),
    ],
)
def test_what_other_processes_and_older_spools_read_has_its_words(
    kind: type[RecordingState] | type[Stop] | type[Source], words: list[str]
) -> None:
    assert [one.value for one in kind] == words
