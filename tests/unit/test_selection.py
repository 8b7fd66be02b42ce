"""Which messages a filter selects: every kind of filter, and what they select together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.control.bulk import RETRY, Skip, skip_reason
from mailrelay.mail.lifecycle import ACT_TABLE, ENDS_BOUNCE, Act, State
from mailrelay.mail.overview import Listed, ListedRecipient, counts
from mailrelay.mail.selection import EVERYTHING, Filter, matches
from mailrelay.mail.states import PENDING, QUEUE_NAMES, STATE_WORDS
from mailrelay.mail.there import There, Verdict

NOW = 2000.0
BOUNCED_THERE = Verdict(There.BOUNCED)


def recipient(
    address: bytes = b"bob@example.org", state: str = "queued", there: Verdict | None = None
) -> ListedRecipient:
    return ListedRecipient(address, state, "", "", b"", None, there=there)


def message(
    *to: ListedRecipient,
    sender: bytes = b"me@example.org",
    subject: str = "hello",
    relayhost: str = "default",
    arrival: float = 1000.0,
    attempts: int = 0,
    queue_name: str = "",
) -> Listed:
    return Listed(
        1, "aaaa", queue_name, relayhost, arrival, 1, sender, subject, attempts, None, "", to or (recipient(),)
    )


@pytest.mark.parametrize(
    ("text", "address", "fits"),
    [
        ("example", b"me@example.org", True),
        ("ME@Example", b"me@example.org", True),
        ("me@example.org", b"ME@EXAMPLE.ORG", True),
        ("*@example.org", b"me@example.org", True),
        ("*@example.org", b"me@example.org.evil.example", False),
        ("m?@*", b"me@example.org", True),
        ("[mn]e@example.org", b"me@example.org", True),
        ("<me@example.org>", b"me@example.org", True),
        ("<me@example.org>", b"some@example.org", False),
        ("<me*", b"some@example.org", False),
        ("<>", b"", True),
        ("<>", b"me@example.org", False),
        ("me", b"", False),
        ("[127.0.0.1]", b"me@[127.0.0.1]", True),
        ("*", b"", True),
        ("\\xff", b"\xff@example.org", True),
        ("\udcff", b"\xff@example.org", False),
        ("BÜCHER", "me@bücher.example".encode(), True),
    ],
)
def test_a_text_fits_a_part_of_an_address_or_is_a_pattern_for_the_whole(text: str, address: bytes, fits: bool) -> None:
    assert matches(Filter(senders=(text,)), message(sender=address)) is fits
    assert matches(Filter(recipients=(text,)), message(recipient(b"x@y"), recipient(address))) is (fits or text == "*")


@pytest.mark.parametrize(
    ("text", "subject", "fits"),
    [
        ("[list]", "Re: [LIST] hello", True),
        ("straße", "STRASSE", True),
        ("re:*", "Re: hello", True),
        ("re:*", "Fwd: Re: hello", False),
        ("a*b", "a\nb", True),
        ("x1b", "\x1b", True),
        ("hello", "", False),
    ],
)
def test_a_subject_is_compared_as_it_is_shown(text: str, subject: str, fits: bool) -> None:
    assert matches(Filter(subjects=(text,)), message(subject=subject)) is fits


@pytest.mark.parametrize(
    ("name", "relayhost", "fits"),
    [
        ("home", "home", True),
        ("home", "home-old", False),
        ("home*", "home-old", True),
        ("Home", "home", False),
        ("a[1]", "a[1]", True),
        ("home", "", False),
    ],
)
def test_a_relayhost_is_a_whole_name_or_a_pattern(name: str, relayhost: str, fits: bool) -> None:
    assert matches(Filter(relayhosts=(name,)), message(relayhost=relayhost)) is fits


def test_since_includes_its_own_instant_and_what_a_clock_that_was_set_back_left_in_the_future() -> None:
    assert [matches(Filter(since=1000.0), message(arrival=at)) for at in (999.9, 1000.0, 9e12)] == [False, True, True]


@pytest.mark.parametrize(
    ("to", "attempts", "words"),
    [
        (recipient(), 0, {"queued", "incoming", "pending"}),
        (recipient(), 1, {"queued", "deferred", "pending"}),
        (recipient(state="deferred"), 1, {"deferred", "pending"}),
        (recipient(state="active"), 0, {"active", "pending"}),
        (recipient(state="held"), 1, {"held", "hold"}),
        (recipient(state="bounced"), 1, {"bounced", "failed"}),
        (recipient(state="expired"), 1, {"expired", "failed"}),
        (recipient(state="refused"), 1, {"refused"}),
        (recipient(state="cancelled"), 1, {"cancelled"}),
        (recipient(state="sent"), 1, {"sent"}),
        (recipient(state="sent", there=BOUNCED_THERE), 1, {"sent", "failed"}),
        (recipient(state="sent", there=BOUNCED_THERE)._replace(is_dealt_with=True), 1, {"sent"}),
    ],
)
def test_the_words_for_a_state_are_its_own_those_of_its_queue_and_of_the_count(
    to: ListedRecipient, attempts: int, words: set[str]
) -> None:
    listed = message(to, attempts=attempts)
    assert {word for word in STATE_WORDS if matches(Filter(states=(word,)), listed)} == words


def test_every_state_and_every_queue_has_its_word() -> None:
    assert set(STATE_WORDS) >= {*State, *QUEUE_NAMES}
    assert [word for word in STATE_WORDS if Filter(states=(word,)).needs_history] == ["sent", "refused", "cancelled"]


def test_a_recipient_and_a_state_must_be_of_the_same_recipient() -> None:
    listed = message(recipient(b"bob@x", "sent"), recipient(b"eve@x", "bounced"))
    assert matches(Filter(recipients=("eve",), states=("bounced",)), listed)
    assert not matches(Filter(recipients=("bob",), states=("bounced",)), listed)


def test_all_filters_must_fit_but_one_value_of_each_is_enough() -> None:
    wanted = Filter(("nobody", "me@"), ("bob",), ("hello",), 1.0, ("held", "queued"), ("other", "default"))
    assert matches(wanted, message())
    for part, other in zip(Filter._fields, (("z",), ("z",), ("z",), 2000.0, ("held",), ("z",)), strict=True):
        assert not matches(wanted._replace(**{part: other}), message()), part


@given(st.text(min_size=1), st.binary(max_size=30), st.text(max_size=30))
def test_any_text_is_a_filter_and_the_empty_filter_selects_everything(text: str, address: bytes, subject: str) -> None:
    listed = message(recipient(address), sender=address, subject=subject)
    assert matches(EVERYTHING, listed)
    if matches(Filter(subjects=(text,)), message(subject=text)) is False:
        # Only what is not shown as it is.
        assert not text.isprintable()
    assert matches(Filter(senders=(text,)), listed) == matches(Filter(recipients=(text,)), listed)
    assert matches(Filter(relayhosts=(text,)), message(relayhost=text))


@pytest.mark.parametrize("verb", [RETRY, *(act for act in Act if act is not Act.EDIT)])
@pytest.mark.parametrize("state", list(State))
def test_what_is_possible_is_what_the_table_of_acts_allows(verb: str, state: State) -> None:
    for there in (None, BOUNCED_THERE) if state is State.SENT else (None,):
        listed = message(recipient(state=state, there=there))
        allowed = (
            state in PENDING if verb == RETRY else (state, verb) in ACT_TABLE or bool(there and verb in ENDS_BOUNCE)
        )
        found = skip_reason(listed, verb, Filter(states=("held",)), NOW)
        assert found is (None if allowed else Skip.STATE)
        assert skip_reason(listed._replace(queue_name="active"), verb, EVERYTHING, NOW) is Skip.ACTIVE


def test_what_the_person_holds_back_is_not_sent_again_with_what_failed() -> None:
    listed = message(recipient(state="held"), recipient(state="bounced"))
    assert skip_reason(listed, Act.RESEND, EVERYTHING, NOW) is Skip.HELD
    assert skip_reason(listed, Act.RESEND, Filter(states=("hold",)), NOW) is None
    assert skip_reason(listed, Act.RELEASE, EVERYTHING, NOW) is None


def test_what_waits_for_its_time_is_not_sent_early_with_other_mail() -> None:
    listed = message()._replace(next_attempt=NOW + 60, send_time=NOW + 60)
    assert skip_reason(listed, RETRY, EVERYTHING, NOW) is Skip.SCHEDULED
    assert skip_reason(listed, RETRY, EVERYTHING, NOW + 61) is None
    assert skip_reason(listed, Act.CANCEL, EVERYTHING, NOW) is None


def test_what_waits_on_the_relayhost_can_be_tried_again() -> None:
    for there, why in ((There.DEFERRED, None), (There.WAITING, None), (There.DELIVERED, Skip.STATE)):
        assert skip_reason(message(recipient(state="sent", there=Verdict(there))), RETRY, EVERYTHING, NOW) is why


def test_a_state_that_damage_left_is_no_error() -> None:
    listed = message(recipient(state="nonsense"))
    assert skip_reason(listed, Act.CANCEL, EVERYTHING, NOW) is Skip.STATE
    assert not any(matches(Filter(states=(word,)), listed) for word in STATE_WORDS)


def test_a_message_counts_once_under_each_word_that_fits_a_recipient() -> None:
    some = [
        message(recipient(state="sent"), recipient(state="sent"), recipient(state="held")),
        message(recipient(state="sent", there=BOUNCED_THERE)),
        message(recipient(state="active")),
        message(recipient(state="deferred"), recipient(state="expired")),
    ]
    found = counts(some)
    assert found == {"pending": 2, "held": 1, "failed": 2, "sent": 1}
    assert list(found) == ["pending", "held", "failed", "sent"]
    assert counts([]) == {}
